//! Downloads. The digest is checked as the bytes go by, and the last ones are held back until it
//! is: who gets all bytes got the right ones. A file that this process has checked, or written, and
//! that nobody has touched since is not hashed again. What is in memory is read at
//! once; of the rest the next chunk is read while one is sent.

use std::ops::Range;

use bytes::Bytes;
use pomona_domain::Digest;
use tokio::task::JoinHandle;

use super::{BlobStat, Blobs, blocking, bucket, folder, joined};
use crate::{Store, StoreError};

/// A blob that is being read.
#[derive(Debug)]
pub struct BlobReader {
    stat: BlobStat,
    range: Range<u64>,
    /// Not here after a read that failed or was given up.
    open: Option<Source>,
}

#[derive(Debug)]
enum Source {
    File(Box<folder::Open>),
    /// The next bytes are on their way.
    Reading(Reading),
    Object(Box<bucket::Open>),
}

type Reading = JoinHandle<Result<(Box<folder::Open>, Vec<u8>), StoreError>>;

fn reading(mut file: Box<folder::Open>, stat: BlobStat, range: Range<u64>) -> Reading {
    tokio::task::spawn_blocking(move || file.read(stat, range).map(|bytes| (file, bytes)))
}

impl BlobReader {
    /// What is being read.
    pub fn stat(&self) -> BlobStat {
        self.stat
    }

    /// Reads only these bytes, cut to those there are. In a folder a range up to the end is checked
    /// like the whole (what comes before it is read and hashed, but not given out). Any other range
    /// is not: its reader has to check what it joins.
    pub fn between(mut self, range: Range<u64>) -> Self {
        let end = range.end.min(self.stat.size);
        self.range = range.start.min(end)..end;
        self
    }

    /// Leaves the check to whoever reads: a client that knows the digest. In a bucket it is checked
    /// nevertheless.
    pub fn unchecked(mut self) -> Self {
        if let Some(Source::File(file)) = &mut self.open {
            file.unchecked();
        }
        self
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The next bytes, none after the last. [`StoreError::BlobCorrupt`] in place of the last ones
    /// when the bytes do not have the blob's digest.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (stat, range) = (self.stat, self.range.clone());
        if range.is_empty() && stat.size > 0 {
            return Ok(None);
        }
        let Some(open) = self.open.take() else {
            if range.is_empty() {
                return Ok(None);
            }
            let gone = std::io::Error::other("a read before this one did not end");
            return Err(StoreError::folder(stat.digest.to_string())(gone));
        };
        let (open, bytes) = match open {
            Source::File(file) => {
                if let Some(bytes) = file.read_now(&range) {
                    (Source::File(file), Bytes::from(bytes))
                } else {
                    let task = reading(file, stat, range.clone());
                    ahead(task, stat, range).await?
                }
            }
            Source::Reading(task) => ahead(task, stat, range).await?,
            Source::Object(mut object) => {
                let bytes = object.read(stat, range).await?;
                (Source::Object(object), bytes)
            }
        };
        self.range.start += bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.open = Some(open);
        Ok(Some(bytes))
    }
}

/// What was read of what is left, and the source, from which the bytes after those are being read.
async fn ahead(
    task: Reading,
    stat: BlobStat,
    left: Range<u64>,
) -> Result<(Source, Bytes), StoreError> {
    let (file, bytes) = joined(task).await?;
    let rest = left.start + bytes.len() as u64..left.end;
    let source = if rest.is_empty() || bytes.is_empty() {
        Source::File(file)
    } else {
        Source::Reading(reading(file, stat, rest))
    };
    Ok((source, Bytes::from(bytes)))
}

impl Store {
    /// Opens a blob for reading. [`StoreError::BlobMissing`] when it is not here. In a folder
    /// [`StoreError::BlobCorrupt`] already now when its file has another size; a bucket is asked
    /// with the first bytes, and then says the same.
    pub async fn blob_get(&self, digest: Digest) -> Result<BlobReader, StoreError> {
        let Some(row) = self.blob_row(digest).await? else {
            return Err(StoreError::BlobMissing { digest });
        };
        let stat = row.stat;
        let open = match &self.blobs {
            Blobs::Folder(folder) => {
                let folder = folder.clone();
                Source::File(Box::new(
                    blocking(move || folder::open(folder, stat)).await?,
                ))
            }
            Blobs::Bucket(bucket) => {
                let Some(object) = row.object else {
                    return Err(StoreError::BlobMissing { digest });
                };
                let open = bucket::Open::new(bucket.clone(), self.clone(), object);
                Source::Object(Box::new(open))
            }
        };
        Ok(BlobReader {
            stat,
            range: 0..stat.size,
            open: Some(open),
        })
    }
}
