//! Uploads: bytes come in, and a blob is there when all of them are at rest under their digest.

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::Blobs as Rows;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{InsertStatement, OnConflict};
use tokio::task::JoinHandle;

use super::hash::Hasher;
use super::{
    BLOB_KEEP_MS, BlobStat, Blobs, CHUNK, Put, STORED, blocking, bucket, folder, insertion, joined,
    uploads,
};
use crate::{Store, StoreError, ingest};

/// An upload under way. Dropped before [`BlobWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    /// `None`: whatever its bytes come to.
    announced: Option<Digest>,
    limit: u64,
    size: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    File(Box<ToFile>),
    Object(Box<bucket::Upload>),
}

/// A file, and what it gets next: while one buffer fills, the one before is hashed and written.
#[derive(Debug)]
pub(super) struct ToFile {
    buffer: Vec<u8>,
    /// Not here after a write that failed or was given up.
    upload: Option<State>,
}

#[derive(Debug)]
enum State {
    Idle(Box<folder::Upload>),
    Writing(JoinHandle<Result<Written, StoreError>>),
}

/// A file, and the buffer whose bytes it has by now.
type Written = (Box<folder::Upload>, Vec<u8>);

impl BlobWriter {
    /// Takes the next bytes. [`StoreError::TooLarge`] when they are more than the limit.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.size = grown(self.size, bytes, self.limit)?;
        match &mut self.sink {
            Sink::File(file) => file.write(bytes).await,
            Sink::Object(object) => object.write(bytes).await,
        }
    }

    /// Bytes that came so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The end of the bytes: returns when the blob is at rest and is kept for [`BLOB_KEEP_MS`].
    /// [`StoreError::DigestMismatch`] when they are not what was announced.
    pub async fn finish(self, now: Timestamp) -> Result<BlobStat, StoreError> {
        match self.sink {
            Sink::File(file) => {
                file.finish(&self.store, self.announced, self.size, now)
                    .await
            }
            Sink::Object(object) => object.finish(self.announced, self.size, now).await,
        }
    }
}

/// How many bytes came with these. [`StoreError::TooLarge`] when they are more than the limit.
pub(super) fn grown(size: u64, bytes: &[u8], limit: u64) -> Result<u64, StoreError> {
    let size = size.saturating_add(bytes.len() as u64);
    let what = "the blob";
    if size > limit {
        return Err(StoreError::TooLarge { what, limit });
    }
    Ok(size)
}

impl ToFile {
    pub(super) fn new(upload: folder::Upload) -> Self {
        Self {
            buffer: Vec::with_capacity(CHUNK),
            upload: Some(State::Idle(Box::new(upload))),
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush_soon().await?;
        }
        Ok(())
    }

    /// Begins to write what is in the buffer, once what was there before is written.
    async fn flush_soon(&mut self) -> Result<(), StoreError> {
        let (mut upload, empty) = self.idle().await?;
        let bytes = std::mem::replace(&mut self.buffer, empty);
        let write = move || upload.write(&bytes).map(|()| (upload, bytes));
        self.upload = Some(State::Writing(tokio::task::spawn_blocking(write)));
        Ok(())
    }

    /// Writes all that came.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.flush_soon().await?;
        let (upload, empty) = self.idle().await?;
        self.buffer = empty;
        self.upload = Some(State::Idle(upload));
        Ok(())
    }

    /// The file when nothing is being written to it, and an empty buffer.
    async fn idle(&mut self) -> Result<Written, StoreError> {
        let gone = || std::io::Error::other("a write before this one did not end");
        match self.upload.take() {
            Some(State::Idle(upload)) => Ok((upload, Vec::with_capacity(CHUNK))),
            Some(State::Writing(task)) => {
                let (upload, mut bytes) = joined(task).await?;
                bytes.clear();
                Ok((upload, bytes))
            }
            None => Err(StoreError::BrokenUpload(gone())),
        }
    }

    /// Makes all that came last.
    pub(super) async fn sync(mut self) -> Result<folder::Upload, StoreError> {
        self.flush().await?;
        let (mut upload, _) = self.idle().await?;
        blocking(move || upload.sync().map(|()| *upload)).await
    }

    async fn finish(
        self,
        store: &Store,
        announced: Option<Digest>,
        size: u64,
        now: Timestamp,
    ) -> Result<BlobStat, StoreError> {
        let upload = self.sync().await?;
        let found = upload.digest()?;
        check(announced, found)?;
        let stat = BlobStat {
            digest: found,
            size,
        };
        name(store, upload, stat, None, now).await?;
        Ok(stat)
    }
}

/// Refuses bytes that are not what was announced.
pub(super) fn check(announced: Option<Digest>, found: Digest) -> Result<(), StoreError> {
    match announced {
        Some(expected) if expected != found => Err(StoreError::DigestMismatch { expected, found }),
        Some(_) | None => Ok(()),
    }
}

/// Gives a synced file its name, and writes the row; that of its session goes.
pub(super) async fn name(
    store: &Store,
    upload: folder::Upload,
    stat: BlobStat,
    session: Option<String>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let folder = store.blobs.folder("an upload to a file")?;
    let insert = upsert(stat, &Put::File, now);
    let mut unnamed = Some(upload);
    ingest!(store, tx => {
        // The row first: it makes a deletion of the same digest wait, or waits for one.
        tx.execute(&insert).await?;
        if let Some(id) = &session {
            tx.execute(&uploads::deletion(id)).await?;
        }
        let (folder, upload) = (folder.clone(), unnamed.take());
        blocking(move || match upload {
            Some(upload) => upload.name(&folder, stat.digest),
            // Named by a transaction that was given up: a deletion may have come in between.
            None if folder.path(stat.digest).exists() => Ok(()),
            None => {
                let gone = std::io::Error::other("it was removed meanwhile");
                Err(StoreError::BrokenUpload(gone))
            }
        })
        .await
    })
}

/// The row of a blob that has come, over any that is there.
pub(crate) fn upsert(stat: BlobStat, put: &Put, now: Timestamp) -> InsertStatement {
    let repeat = OnConflict::column(Rows::Digest)
        .update_columns([
            Rows::Size,
            Rows::State,
            Rows::KeepUntil,
            Rows::MarkedAt,
            Rows::Object,
            Rows::Damaged,
        ])
        .to_owned();
    let mut insert = insertion(stat, put, STORED, now.plus_ms(BLOB_KEEP_MS), None);
    insert.on_conflict(repeat);
    insert
}

impl Store {
    /// Begins an upload of at most `limit` bytes that shall have the digest `announced`, if one is.
    pub async fn blob_writer(
        &self,
        announced: impl Into<Option<Digest>>,
        limit: u64,
        now: Timestamp,
    ) -> Result<BlobWriter, StoreError> {
        let announced = announced.into();
        let sink = match &self.blobs {
            Blobs::Folder(folder) => {
                let folder = folder.clone();
                let create = move || folder::Upload::create(&folder, Some(Hasher::new()));
                let upload = blocking(create).await?;
                Sink::File(Box::new(ToFile::new(upload)))
            }
            Blobs::Bucket(bucket) => {
                let (bucket, store) = (bucket.clone(), self.clone());
                let upload = bucket::Upload::new(bucket, store, announced, now);
                Sink::Object(Box::new(upload))
            }
        };
        Ok(BlobWriter {
            store: self.clone(),
            announced,
            limit,
            size: 0,
            sink,
        })
    }

    /// Uploads bytes that are in memory, under their digest.
    pub async fn blob_put(&self, bytes: &[u8], now: Timestamp) -> Result<BlobStat, StoreError> {
        let mut writer = self
            .blob_writer(Digest::of(bytes), bytes.len() as u64, now)
            .await?;
        writer.write(bytes).await?;
        writer.finish(now).await
    }
}
