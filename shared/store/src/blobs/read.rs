//! Downloads. The digest is checked as the bytes go by, and the last ones are held back until it
//! is: who gets all bytes got the right ones.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use pomona_domain::Digest;
use sha2::{Digest as _, Sha256};

use super::{BlobStat, Blobs, CHUNK, blocking};
use crate::{Store, StoreError};

/// A blob that is being read.
#[derive(Debug)]
pub struct BlobReader {
    stat: BlobStat,
    range: Range<u64>,
    /// Not here after a read that failed or was given up.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    blobs: Blobs,
    file: File,
    /// The next byte's place.
    at: u64,
    hasher: Sha256,
}

impl BlobReader {
    /// What is being read.
    pub fn stat(&self) -> BlobStat {
        self.stat
    }

    /// Reads only these bytes, cut to those there are. A range up to the end is checked like the
    /// whole (what comes before it is read and hashed, but not given out); one that ends before
    /// the blob does is not: its reader has to check what it joins.
    pub fn between(mut self, range: Range<u64>) -> Self {
        let end = range.end.min(self.stat.size);
        self.range = range.start.min(end)..end;
        self
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The next bytes, none after the last. [`StoreError::BlobCorrupt`] in place of the last ones
    /// when the bytes do not have the blob's digest.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let (stat, range) = (self.stat, self.range.clone());
        if range.is_empty() && stat.size > 0 {
            return Ok(None);
        }
        let Some(mut open) = self.open.take() else {
            if range.is_empty() {
                return Ok(None);
            }
            let gone = std::io::Error::other("a read before this one did not end");
            return Err(StoreError::folder(stat.digest.to_string())(gone));
        };
        let read = blocking(move || open.read(stat, range).map(|bytes| (open, bytes)));
        let (open, bytes) = read.await?;
        self.range.start += bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.open = Some(open);
        Ok(Some(bytes))
    }
}

impl Open {
    fn read(&mut self, stat: BlobStat, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let is_checked = range.end == stat.size;
        let path = self.blobs.path(stat.digest);
        if is_checked {
            while self.at < range.start {
                let skipped = self
                    .take(range.start - self.at)
                    .map_err(StoreError::folder(&path))?;
                if skipped.is_empty() {
                    return Err(self.corrupt(stat));
                }
            }
        } else if self.at != range.start {
            self.file
                .seek(SeekFrom::Start(range.start))
                .map_err(StoreError::folder(&path))?;
            self.at = range.start;
        }
        let bytes = self
            .take(range.end - range.start)
            .map_err(StoreError::folder(&path))?;
        let is_short = bytes.is_empty() && !range.is_empty();
        if is_short || (is_checked && self.at == stat.size && self.found() != stat.digest) {
            return Err(self.corrupt(stat));
        }
        if is_checked && self.at == stat.size {
            // It was repaired while a reader of the damaged file marked it.
            let _ = std::fs::remove_file(self.blobs.damaged(stat.digest));
        }
        Ok(bytes)
    }

    /// Up to `most` bytes, or a chunk.
    fn take(&mut self, most: u64) -> std::io::Result<Vec<u8>> {
        let most = most.min(CHUNK as u64);
        let mut bytes = Vec::with_capacity(usize::try_from(most).unwrap_or(CHUNK));
        (&self.file).take(most).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    /// The digest of what was read.
    fn found(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    /// Marks the blob, so that nobody takes it for being here and an upload can repair it.
    fn corrupt(&mut self, stat: BlobStat) -> StoreError {
        // The error says the same; the mark is for those who come later.
        let _ = File::create(self.blobs.damaged(stat.digest));
        let rest = self.file.rewind().and_then(|()| {
            self.hasher = Sha256::new();
            while !self.take(CHUNK as u64)?.is_empty() {}
            Ok(())
        });
        match rest {
            Ok(()) => StoreError::BlobCorrupt {
                digest: stat.digest,
                found: self.found(),
            },
            Err(error) => StoreError::folder(self.blobs.path(stat.digest))(error),
        }
    }
}

impl Store {
    /// Opens a blob for reading. [`StoreError::BlobMissing`] when it is not here, and
    /// [`StoreError::BlobCorrupt`] already now when its file has another size.
    pub async fn blob_get(&self, digest: Digest) -> Result<BlobReader, StoreError> {
        let Some(row) = self.blob_row(digest).await? else {
            return Err(StoreError::BlobMissing { digest });
        };
        let (blobs, stat) = (self.blobs.clone(), row.stat);
        let open = blocking(move || open(blobs, stat)).await?;
        Ok(BlobReader {
            stat,
            range: 0..stat.size,
            open: Some(open),
        })
    }
}

fn open(blobs: Blobs, stat: BlobStat) -> Result<Open, StoreError> {
    let path = blobs.path(stat.digest);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::BlobMissing {
                digest: stat.digest,
            });
        }
        Err(error) => return Err(StoreError::folder(path)(error)),
    };
    let size = file.metadata().map_err(StoreError::folder(path))?.len();
    let mut open = Open {
        blobs,
        file,
        at: 0,
        hasher: Sha256::new(),
    };
    if size == stat.size {
        Ok(open)
    } else {
        Err(open.corrupt(stat))
    }
}
