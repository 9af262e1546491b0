//! An object that is coming.

use bytes::{Bytes, BytesMut};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::{MultipartId, PutPayload};
use pomona_domain::{Digest, Timestamp};
use sea_orm::ConnectionTrait as _;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::{Bucket, PART, broken};
use crate::blobs::uploads::{self, Doc};
use crate::blobs::write::{check, upsert};
use crate::blobs::{BlobStat, Put};
use crate::{Store, StoreError, ingest};

/// An object that is coming. Dropped before [`Upload::finish`], it leaves nothing. It holds two
/// parts in memory at most: one that fills, and one that is on its way.
#[derive(Debug)]
pub(crate) struct Upload {
    bucket: Bucket,
    store: Store,
    object: String,
    now: Timestamp,
    hasher: Sha256,
    buffer: BytesMut,
    parts: Option<Parts>,
}

/// What is on the server. It has a row, by which somebody gives it up when we cannot.
#[derive(Debug)]
struct Parts {
    id: MultipartId,
    done: Vec<PartId>,
    pending: Option<JoinHandle<object_store::Result<PartId>>>,
}

impl Upload {
    /// One whose digest is not known gets a name that says nothing.
    pub(crate) fn new(
        bucket: Bucket,
        store: Store,
        digest: Option<Digest>,
        now: Timestamp,
    ) -> Self {
        let drawn = || Digest::of(bucket.name(&Digest::of(b"").hex()).as_bytes());
        Self {
            object: bucket.name(&digest.unwrap_or_else(drawn).hex()),
            bucket,
            store,
            now,
            hasher: Sha256::new(),
            buffer: BytesMut::new(),
            parts: None,
        }
    }

    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        while !bytes.is_empty() {
            // A full part goes when it is known that it is not the last.
            if self.buffer.len() == PART {
                self.send().await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Sends what is in the buffer as the next part.
    async fn send(&mut self) -> Result<(), StoreError> {
        if self.parts.is_none() {
            self.begin().await?;
        }
        let bytes = self.buffer.split().freeze();
        let Some(parts) = &mut self.parts else {
            return Ok(());
        };
        parts.settle().await?;
        let (bucket, id, number) = (self.bucket.clone(), parts.id.clone(), parts.done.len());
        let object = self.object.clone();
        let put = async move { bucket.put_part(&object, &id, number, bytes).await };
        parts.pending = Some(tokio::spawn(put));
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let id = self.bucket.begin(&self.object).await?;
        self.parts = Some(Parts {
            id: id.clone(),
            done: Vec::new(),
            pending: None,
        });
        let doc = Doc {
            object: self.object.clone(),
            multipart: Some(id),
            ..Doc::default()
        };
        uploads::insert(&self.store, &self.object, &doc, self.now).await
    }

    /// The end of the bytes. Only bytes that were announced become an object.
    pub(crate) async fn finish(
        mut self,
        announced: Option<Digest>,
        size: u64,
        now: Timestamp,
    ) -> Result<BlobStat, StoreError> {
        let found = Digest(self.hasher.finalize_reset().into());
        if let Err(error) = check(announced, found) {
            self.give_up().await;
            return Err(error);
        }
        if self.parts.is_some() {
            self.send().await?;
        }
        let row = match &mut self.parts {
            None => {
                let bytes = self.buffer.split().freeze();
                self.bucket.put(&self.object, bytes).await?;
                None
            }
            Some(parts) => {
                parts.settle().await?;
                let done = std::mem::take(&mut parts.done);
                self.bucket.complete(&self.object, &parts.id, done).await?;
                // Nothing is left to be given up.
                self.parts = None;
                Some(self.object.clone())
            }
        };
        let digest = found;
        let stat = BlobStat { digest, size };
        let put = Put::Object(self.object.clone());
        record(&self.store, stat, put, row, now).await?;
        Ok(stat)
    }

    async fn give_up(&mut self) {
        if let Some(parts) = self.parts.take() {
            parts.give_up(&self.bucket, &self.store, &self.object).await;
        }
    }
}

/// Writes the row of a blob whose object is there, and removes that of its upload, if it had one.
pub(in crate::blobs) async fn record(
    store: &Store,
    stat: BlobStat,
    put: Put,
    upload: Option<String>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let insert = upsert(stat, &put, now);
    ingest!(store, tx => {
        tx.execute(&insert).await?;
        if let Some(id) = &upload {
            tx.execute(&uploads::deletion(id)).await?;
        }
        Ok(())
    })
}

impl Parts {
    /// Waits for the part that is on its way.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if let Some(pending) = self.pending.take() {
            let part = pending.await.map_err(object_store::Error::from);
            let part = part.and_then(|part| part).map_err(broken)?;
            self.done.push(part);
        }
        Ok(())
    }

    /// What cannot be given up now has a row, and is later.
    async fn give_up(mut self, bucket: &Bucket, store: &Store, object: &str) {
        if let Some(pending) = self.pending.take() {
            // A part that comes after the end would be a new beginning on some servers.
            let _ = pending.await;
        }
        if bucket.abort(object, &self.id).await.is_ok() {
            let _ = uploads::remove(store, object).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(parts), Ok(runtime)) =
            (self.parts.take(), tokio::runtime::Handle::try_current())
        {
            let (bucket, store) = (self.bucket.clone(), self.store.clone());
            let object = std::mem::take(&mut self.object);
            runtime.spawn(async move { parts.give_up(&bucket, &store, &object).await });
        }
    }
}

impl Bucket {
    pub(in crate::blobs) async fn begin(&self, object: &str) -> Result<MultipartId, StoreError> {
        let id = self.0.s3.create_multipart(&self.path(object)).await;
        id.map_err(broken)
    }

    pub(in crate::blobs) async fn put_part(
        &self,
        object: &str,
        id: &MultipartId,
        number: usize,
        bytes: Bytes,
    ) -> object_store::Result<PartId> {
        let payload = PutPayload::from(bytes);
        let path = self.path(object);
        self.0.s3.put_part(&path, id, number, payload).await
    }

    pub(in crate::blobs) async fn complete(
        &self,
        object: &str,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<(), StoreError> {
        let path = self.path(object);
        let completed = self.0.s3.complete_multipart(&path, id, parts).await;
        completed.map(|_| ()).map_err(broken)
    }

    /// Gives an upload up; one that is not there any more is no error.
    pub(in crate::blobs) async fn abort(
        &self,
        object: &str,
        id: &MultipartId,
    ) -> Result<(), StoreError> {
        match self.0.s3.abort_multipart(&self.path(object), id).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }
}
