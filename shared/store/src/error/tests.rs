//! What a reader gets to see of an error.

use std::io::{Error, ErrorKind};

use pomona_domain::{Code, Digest, Fault};

use super::StoreError;

#[test]
fn a_full_disk_is_told_from_a_folder_that_cannot_be_used() {
    for (kind, code, has_hint) in [
        (ErrorKind::StorageFull, Code::DiskFull, true),
        (ErrorKind::QuotaExceeded, Code::DiskFull, true),
        (ErrorKind::PermissionDenied, Code::BadDataDir, false),
        (ErrorKind::NotFound, Code::BadDataDir, false),
    ] {
        let error = StoreError::folder("data/blobs")(Error::from(kind));
        let fault = Fault::from(error);
        assert_eq!(
            (fault.code, fault.hint.is_some()),
            (code, has_hint),
            "{kind}"
        );
        assert!(fault.message.contains("`data/blobs`"), "{}", fault.message);
        assert!(
            fault.message.contains(&kind.to_string()),
            "its cause: {}",
            fault.message
        );
    }
}

#[test]
fn what_the_reader_can_mend_has_a_hint() {
    let digest = Digest::of(b"abc");
    for error in [
        StoreError::NotMigrated,
        StoreError::BlobMissing { digest },
        StoreError::BlobCorrupt {
            digest,
            found: digest,
        },
        StoreError::DigestMismatch {
            expected: digest,
            found: digest,
        },
        StoreError::BrokenUpload(Error::other("reset")),
        StoreError::NotEmpty {
            path: "backup".into(),
        },
        StoreError::BadToken {
            token: "x".to_owned(),
        },
    ] {
        assert!(error.hint().is_some(), "{error}");
    }
}
