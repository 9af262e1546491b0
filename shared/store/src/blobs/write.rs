//! Uploads: bytes come in, and a blob is there when all of them are on disk under their digest.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::Blobs as Rows;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{InsertStatement, OnConflict};
use sha2::{Digest as _, Sha256};

use super::{BLOB_KEEP_MS, BlobStat, Blobs, CHUNK, STORED, blocking, insertion, sync_folder};
use crate::{Store, StoreError, ingest};

/// An upload under way. Dropped before [`BlobWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    announced: Digest,
    limit: u64,
    size: u64,
    buffer: Vec<u8>,
    /// Not here after a write that failed or was given up.
    upload: Option<Upload>,
}

/// A file that is removed unless it gets its name.
#[derive(Debug)]
struct Incoming(PathBuf);

impl Drop for Incoming {
    fn drop(&mut self) {
        // What stays is cleared away when the folder is opened next.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[derive(Debug)]
struct Upload {
    file: File,
    hasher: Sha256,
    incoming: Incoming,
}

impl Upload {
    fn create(blobs: &Blobs) -> Result<Self, StoreError> {
        loop {
            let path = blobs.incoming();
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        hasher: Sha256::new(),
                        incoming: Incoming(path),
                    });
                }
                // A process of this number was killed while it uploaded.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::folder(path)(error)),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(StoreError::folder(&self.incoming.0))
    }

    /// Makes the bytes last, and says their digest. Nobody may change them from now on.
    fn sync(&mut self) -> Result<Digest, StoreError> {
        let seal = || {
            let mut permissions = self.file.metadata()?.permissions();
            permissions.set_readonly(true);
            self.file.set_permissions(permissions)?;
            self.file.sync_all()
        };
        seal().map_err(StoreError::folder(&self.incoming.0))?;
        Ok(Digest(self.hasher.finalize_reset().into()))
    }

    /// Gives the file its name, over a damaged one if there is one.
    fn name(self, blobs: &Blobs, digest: Digest) -> Result<(), StoreError> {
        let path = blobs.path(digest);
        std::fs::rename(&self.incoming.0, &path).map_err(StoreError::folder(&path))?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))?;
        let damaged = blobs.damaged(digest);
        match std::fs::remove_file(&damaged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::folder(damaged)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl BlobWriter {
    /// Takes the next bytes. [`StoreError::TooLarge`] when they are more than the limit.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.limit {
            return Err(StoreError::TooLarge {
                what: "the blob",
                limit: self.limit,
            });
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush().await?;
        }
        Ok(())
    }

    /// Bytes that came so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let bytes = std::mem::take(&mut self.buffer);
        let mut upload = self.take()?;
        let done = blocking(move || upload.write(&bytes).map(|()| (upload, bytes)));
        let (upload, mut bytes) = done.await?;
        bytes.clear();
        self.buffer = bytes;
        self.upload = Some(upload);
        Ok(())
    }

    fn take(&mut self) -> Result<Upload, StoreError> {
        let gone = || std::io::Error::other("a write before this one did not end");
        let upload = self.upload.take();
        upload.ok_or_else(|| StoreError::BrokenUpload(gone()))
    }

    /// The end of the bytes: returns when the blob is on disk and is kept for [`BLOB_KEEP_MS`].
    /// [`StoreError::DigestMismatch`] when they are not what was announced.
    pub async fn finish(mut self, now: Timestamp) -> Result<BlobStat, StoreError> {
        self.flush().await?;
        let mut upload = self.take()?;
        let (upload, found) = blocking(move || upload.sync().map(|found| (upload, found))).await?;
        if found != self.announced {
            return Err(StoreError::DigestMismatch {
                expected: self.announced,
                found,
            });
        }
        let stat = BlobStat {
            digest: found,
            size: self.size,
        };
        let insert = upsert(stat, now);
        let mut unnamed = Some(upload);
        ingest!(self.store, tx => {
            // The row first: it makes a deletion of the same digest wait, or waits for one.
            tx.execute(&insert).await?;
            let (blobs, upload) = (self.store.blobs.clone(), unnamed.take());
            blocking(move || match upload {
                Some(upload) => upload.name(&blobs, found),
                // Named by a transaction that was given up: a deletion may have come in between.
                None if blobs.path(found).exists() => Ok(()),
                None => {
                    let gone = std::io::Error::other("it was removed meanwhile");
                    Err(StoreError::BrokenUpload(gone))
                }
            })
            .await
        })?;
        Ok(stat)
    }
}

/// The row of a blob that has come, over any that is there.
fn upsert(stat: BlobStat, now: Timestamp) -> InsertStatement {
    let repeat = OnConflict::column(Rows::Digest)
        .update_columns([Rows::Size, Rows::State, Rows::KeepUntil, Rows::MarkedAt])
        .to_owned();
    let mut insert = insertion(stat, STORED, now.plus_ms(BLOB_KEEP_MS), None);
    insert.on_conflict(repeat);
    insert
}

impl Store {
    /// Begins an upload of at most `limit` bytes that shall have the digest `announced`.
    pub async fn blob_writer(
        &self,
        announced: Digest,
        limit: u64,
    ) -> Result<BlobWriter, StoreError> {
        let blobs = self.blobs.clone();
        let upload = blocking(move || Upload::create(&blobs)).await?;
        Ok(BlobWriter {
            store: self.clone(),
            announced,
            limit,
            size: 0,
            buffer: Vec::with_capacity(CHUNK),
            upload: Some(upload),
        })
    }

    /// Uploads bytes that are in memory, under their digest.
    pub async fn blob_put(&self, bytes: &[u8], now: Timestamp) -> Result<BlobStat, StoreError> {
        let mut writer = self
            .blob_writer(Digest::of(bytes), bytes.len() as u64)
            .await?;
        writer.write(bytes).await?;
        writer.finish(now).await
    }
}
