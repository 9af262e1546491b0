//! Uploads that somebody can go on with: an id, and how many bytes are at rest.
//!
//! A session's row is claimed by each request that goes on with it (its version grows), so of two
//! requests the later one counts, and what the earlier one still does is refused. In a bucket what
//! is at rest is whole parts, a tail that is too short for one, and the state of the hash where the
//! tail begins: any coordinator can go on. In a folder it is a file, and the file's length and
//! bytes are the only truth: it is hashed anew.

use std::fs::TryLockError;

use bytes::{Bytes, BytesMut};
use object_store::multipart::PartId;
use pomona_domain::{Digest, Timestamp};
use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};

use super::bucket::{Bucket, PART, record};
use super::folder::Folder;
use super::uploads::{self, Claim, Doc};
use super::write::{ToFile, grown, name};
use super::{BlobStat, Blobs, Put, blocking, folder};
use crate::{Store, StoreError};

/// A request that goes on with an upload. Dropped, it leaves whole parts, or what was written to
/// the file; [`UploadWriter::pause`] leaves everything.
#[derive(Debug)]
pub struct UploadWriter {
    store: Store,
    claim: Claim,
    limit: u64,
    size: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    File(Box<ToFile>),
    Object(Box<Parts>),
}

/// What is on the server and what comes next.
#[derive(Debug)]
struct Parts {
    bucket: Bucket,
    doc: Doc,
    hasher: Sha256,
    buffer: BytesMut,
}

impl UploadWriter {
    /// Takes the next bytes. [`StoreError::TooLarge`] when all are more than the limit,
    /// [`StoreError::UploadBusy`] when another request has taken over.
    pub async fn write(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), StoreError> {
        self.size = grown(self.size, bytes, self.limit)?;
        match &mut self.sink {
            Sink::File(file) => file.write(bytes).await,
            Sink::Object(parts) => parts.write(&self.store, &self.claim, bytes, now).await,
        }
    }

    /// Keeps all that came, for whoever goes on. Answers how many bytes that is.
    pub async fn pause(mut self, now: Timestamp) -> Result<u64, StoreError> {
        match &mut self.sink {
            Sink::File(file) => {
                file.flush().await?;
                uploads::touch(&self.store, &self.claim, None, now).await?;
            }
            Sink::Object(parts) => parts.pause(&self.store, &self.claim, now).await?,
        }
        Ok(self.size)
    }

    /// The end: returns when the blob is at rest. Bytes that do not have the digest are forgotten
    /// ([`StoreError::DigestMismatch`]), and the session with them.
    pub async fn finish(self, digest: Digest, now: Timestamp) -> Result<BlobStat, StoreError> {
        let size = self.size;
        let found = match self.sink {
            Sink::File(file) => {
                let upload = file.sync().await?;
                let found = upload.digest()?;
                if found == digest {
                    let stat = BlobStat { digest, size };
                    name(&self.store, upload, stat, Some(self.claim.id), now).await?;
                    return Ok(stat);
                }
                found
            }
            Sink::Object(mut parts) => {
                let found = Digest(parts.hasher.finalize_reset().into());
                if found == digest {
                    parts.complete(size).await?;
                    let stat = BlobStat { digest, size };
                    let object = parts.doc.object.clone();
                    let put = Put::Object(object.clone());
                    record(&self.store, stat, put, Some(self.claim.id), now).await?;
                    if parts.doc.has_tail {
                        // What stays is swept.
                        let _ = parts.bucket.remove(&[uploads::tail(&object)]).await;
                    }
                    return Ok(stat);
                }
                found
            }
        };
        self.store.upload_cancel(&self.claim.id).await?;
        Err(StoreError::DigestMismatch {
            expected: digest,
            found,
        })
    }
}

impl Parts {
    async fn write(
        &mut self,
        store: &Store,
        claim: &Claim,
        mut bytes: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.buffer.len() == PART {
                if self.doc.multipart.is_none() {
                    self.doc.multipart = Some(self.bucket.begin(&self.doc.object).await?);
                    // Known before it has a part: whoever gives it up must know its name.
                    let known = uploads::touch(store, claim, Some(&self.doc), now).await;
                    if let (Err(_), Some(id)) = (&known, &self.doc.multipart) {
                        let _ = self.bucket.abort(&self.doc.object, id).await;
                    }
                    known?;
                }
                self.send().await?;
                // The hash stands where the part ends.
                self.doc.hash = Some(hex::encode(self.hasher.serialize()));
                uploads::touch(store, claim, Some(&self.doc), now).await?;
            }
            let (taken, later) = bytes.split_at(bytes.len().min(PART - self.buffer.len()));
            self.hasher.update(taken);
            self.buffer.extend_from_slice(taken);
            bytes = later;
        }
        Ok(())
    }

    /// Sends what is in the buffer as the next part.
    async fn send(&mut self) -> Result<(), StoreError> {
        let Some(id) = &self.doc.multipart else {
            return Ok(());
        };
        let bytes = self.buffer.split().freeze();
        let size = bytes.len() as u64;
        let number = self.doc.parts.len();
        let sent = self.bucket.put_part(&self.doc.object, id, number, bytes);
        let part = sent.await.map_err(super::bucket::broken)?;
        self.doc.parts.push(part.content_id);
        self.doc.kept += size;
        self.doc.tail = 0;
        Ok(())
    }

    async fn pause(
        &mut self,
        store: &Store,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if !self.buffer.is_empty() {
            let bytes: Bytes = self.buffer.split().freeze();
            (self.doc.tail, self.doc.has_tail) = (bytes.len() as u64, true);
            let tail = uploads::tail(&self.doc.object);
            self.bucket.put(&tail, bytes).await?;
        }
        uploads::touch(store, claim, Some(&self.doc), now).await
    }

    /// Makes the object of what is there.
    async fn complete(&mut self, size: u64) -> Result<(), StoreError> {
        if self.doc.multipart.is_none() {
            let bytes = self.buffer.split().freeze();
            return self.bucket.put(&self.doc.object, bytes).await;
        }
        match self.join().await {
            // A request that was killed before it wrote the row had completed it.
            Err(StoreError::ObjectsRefused { why }) => {
                match self.bucket.size(&self.doc.object).await? {
                    Some(there) if there == size => Ok(()),
                    Some(_) | None => Err(StoreError::ObjectsRefused { why }),
                }
            }
            done => done,
        }
    }

    /// Sends the last part, and makes the object of all of them.
    async fn join(&mut self) -> Result<(), StoreError> {
        if !self.buffer.is_empty() {
            self.send().await?;
        }
        let Some(id) = &self.doc.multipart else {
            return Ok(());
        };
        let parts = self.doc.parts.iter().map(|content_id| PartId {
            content_id: content_id.clone(),
        });
        let parts = parts.collect();
        self.bucket.complete(&self.doc.object, id, parts).await
    }
}

impl Store {
    /// Begins an upload under an id that nobody else has: 32 hexadecimal digits.
    pub async fn upload_begin(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let object = match &self.blobs {
            Blobs::Folder(_) => String::new(),
            Blobs::Bucket(bucket) => bucket.name(id),
        };
        let doc = Doc {
            object,
            ..Doc::default()
        };
        uploads::insert(self, id, &doc, now).await
    }

    /// How many bytes of an upload are at rest. [`StoreError::UploadMissing`] when it ended, was
    /// given up, or never began.
    pub async fn upload_offset(&self, id: &str) -> Result<u64, StoreError> {
        let (_, doc) = uploads::get(self, id).await?;
        match &self.blobs {
            Blobs::Folder(folder) => {
                let path = folder.session(id);
                blocking(move || Ok(std::fs::metadata(path).map_or(0, |file| file.len()))).await
            }
            Blobs::Bucket(_) => Ok(doc.kept + doc.tail),
        }
    }

    /// Goes on with an upload from `offset`, which must be how many bytes are at rest
    /// ([`StoreError::WrongOffset`]). All may be `limit` bytes.
    pub async fn upload_open(
        &self,
        id: &str,
        offset: u64,
        limit: u64,
        now: Timestamp,
    ) -> Result<UploadWriter, StoreError> {
        let (version, doc) = uploads::get(self, id).await?;
        let (sink, size) = match &self.blobs {
            Blobs::Folder(folder) => open_file(folder.clone(), id).await?,
            Blobs::Bucket(bucket) => open_parts(bucket.clone(), doc).await?,
        };
        if size != offset {
            return Err(StoreError::WrongOffset {
                offset: size,
                given: offset,
            });
        }
        // Last of all: a request that is refused takes nothing from another one.
        let claim = uploads::claim(self, id, version, now).await?;
        Ok(UploadWriter {
            store: self.clone(),
            claim,
            limit,
            size,
            sink,
        })
    }

    /// Forgets an upload and its bytes.
    pub async fn upload_cancel(&self, id: &str) -> Result<(), StoreError> {
        let (_, doc) = uploads::get(self, id).await?;
        uploads::give_up(self, id, &doc).await.map(|_| ())
    }
}

/// The file of a session, which nobody else writes meanwhile.
async fn open_file(folder: Folder, id: &str) -> Result<(Sink, u64), StoreError> {
    let path = folder.session(id);
    blocking(move || {
        let lock = folder::writable(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::UploadBusy),
            Err(TryLockError::Error(error)) => return Err(StoreError::folder(path)(error)),
        }
        let (upload, size) = folder::Upload::resume(path, lock)?;
        Ok((Sink::File(Box::new(ToFile::new(upload))), size))
    })
    .await
}

async fn open_parts(bucket: Bucket, doc: Doc) -> Result<(Sink, u64), StoreError> {
    let mut hasher = hash_of(&doc)?;
    let mut buffer = BytesMut::new();
    if doc.tail > 0 {
        let tail = bucket.read(&uploads::tail(&doc.object)).await?;
        let tail = tail.filter(|bytes| bytes.len() as u64 == doc.tail);
        let tail = tail.ok_or(StoreError::UploadMissing)?;
        hasher.update(&tail);
        buffer.extend_from_slice(&tail);
    }
    let size = doc.kept + doc.tail;
    let parts = Parts {
        bucket,
        doc,
        hasher,
        buffer,
    };
    Ok((Sink::Object(Box::new(parts)), size))
}

/// The state of the hash where the whole parts end.
fn hash_of(doc: &Doc) -> Result<Sha256, StoreError> {
    let Some(text) = &doc.hash else {
        return Ok(Sha256::new());
    };
    let state = hex::decode(text).ok();
    let state = state.and_then(|state| {
        let state = state.as_slice().try_into().ok()?;
        Sha256::deserialize(state).ok()
    });
    state.ok_or(StoreError::UploadMissing)
}
