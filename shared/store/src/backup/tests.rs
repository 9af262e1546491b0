//! Copying where a link cannot be made.

use pomona_domain::{Code, Digest};

use super::copy_checked;
use crate::blobs::BlobStat;

#[test]
fn a_copy_has_the_bytes_or_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = b"some bytes ".repeat(30_000);
    let stat = BlobStat {
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
    };
    let from = folder.path().join("from");
    let mut flipped = bytes.clone();
    flipped[200_000] ^= 1;
    for (number, (found, expect)) in [
        (&bytes, Ok(())),
        (&flipped, Err(Code::BlobCorrupt)),
        (&bytes[..10].to_vec(), Err(Code::BlobCorrupt)),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(&from, found).unwrap();
        let to = folder.path().join(format!("to-{number}"));
        let file = std::fs::File::open(&from).unwrap();
        let done = copy_checked(&file, &to, stat).map_err(|error| error.code());
        assert_eq!(done, expect);
        assert_eq!(&std::fs::read(&to).unwrap(), found);
    }
}
