//! Blobs: streamed up from files and down into files, with the digest checked on both sides.

use bytes::Bytes;
use futures::StreamExt;
use pomona_domain::{Code, Digest, Fault};
use reqwest::Method;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::io::{ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{Call, Client, PAUSE, is_passing};
use crate::v1::uploads::UploadView;

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;
/// How long the pause after an attempt that brought nothing may become, and how many of those there
/// are: a coordinator that restarts is waited for, some seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const RESUMPTIONS: u32 = 8;
/// A file of more bytes goes up under an id, so that a broken connection costs what was under way.
const RESUMABLE: u64 = 16 << 20;

/// Digest and size of a file, read with constant memory.
pub async fn file_digest(path: &Path) -> Result<(Digest, u64), Fault> {
    let (hash, size) = hashed(&mut open(path).await?, path).await?;
    Ok((Digest(hash.finalize().into()), size))
}

/// The hash of a file from where it stands to its end, and how many bytes that is.
async fn hashed(file: &mut File, path: &Path) -> Result<(Sha256, u64), Fault> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; CHUNK];
    let mut size = 0u64;
    loop {
        let read = file
            .read(&mut buffer)
            .await
            .map_err(|error| local(path, "read", &error))?;
        if read == 0 {
            return Ok((hash, size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

impl Client {
    /// Size of a blob, if the coordinator has it. Asking keeps it from being collected for a while.
    pub async fn blob_stat(&self, digest: Digest) -> Result<Option<u64>, Fault> {
        let name = digest.to_string();
        let path = ["api", "v1", "blobs", &name];
        let call = Call::new(Method::HEAD, &path);
        // HEAD has no body, hence no fault to read: look at the status here.
        match self.head(call).await? {
            (200, size) => Ok(Some(size)),
            (404, _) => Ok(None),
            (status, _) => Err(super::fault_of_status(status, self.server())),
        }
    }

    async fn head(&self, call: Call<'_>) -> Result<(u16, u64), Fault> {
        let url = self.url(call.path, &call.query);
        let mut attempt = 1;
        loop {
            let request = self.http.head(url.clone()).timeout(call.timeout);
            match request.send().await {
                Ok(response) => {
                    let size = response
                        .headers()
                        .get(reqwest::header::CONTENT_LENGTH)
                        .and_then(|value| value.to_str().ok())
                        .and_then(|value| value.parse().ok())
                        .unwrap_or(0);
                    return Ok((response.status().as_u16(), size));
                }
                Err(error) if attempt >= self.attempts => return Err(self.fault(&error)),
                Err(_) => tokio::time::sleep(PAUSE * attempt).await,
            }
            attempt += 1;
        }
    }

    /// Uploads a file under its digest; does nothing when the coordinator has it. What a broken
    /// connection has left there of a large one is not sent again.
    pub async fn blob_put(&self, digest: Digest, path: &Path) -> Result<(), Fault> {
        if self.blob_stat(digest).await?.is_some() {
            return Ok(());
        }
        let size = size(&open(path).await?, path).await?;
        if size > RESUMABLE {
            return self.upload_resumably(digest, path, size).await;
        }
        let mut attempt = 1;
        loop {
            let fault = match self.upload(digest, path).await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            if attempt >= self.attempts || !is_passing(fault.code) {
                return Err(fault);
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn upload(&self, digest: Digest, path: &Path) -> Result<(), Fault> {
        let file = open(path).await?;
        let size = size(&file, path).await?;
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, CHUNK));
        let name = digest.to_string();
        let response = self
            .http
            .put(self.url(&["api", "v1", "blobs", &name], &[]))
            .header(reqwest::header::CONTENT_LENGTH, size)
            .body(body)
            .send()
            .await
            .map_err(|error| self.fault(&error))?;
        self.check(response).await.map(|_| ())
    }

    /// Uploads in as many requests as it takes. Attempts count from the last one that brought
    /// something.
    async fn upload_resumably(&self, digest: Digest, path: &Path, size: u64) -> Result<(), Fault> {
        let mut begin = Call::post(&["api", "v1", "blobs", "uploads"]);
        // One that was begun twice is given up once.
        begin.repeat = true;
        let mut view: UploadView = self.answer(begin).await?;
        let most = if self.attempts > 1 { RESUMPTIONS } else { 1 };
        let mut attempt = 1;
        loop {
            let fault = match self.upload_rest(digest, path, (&view, size)).await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            if fault.code == Code::UploadMissing && self.blob_stat(digest).await?.is_some() {
                // Its end was reached, and only the answer was lost.
                return Ok(());
            }
            let is_passing = is_passing(fault.code) || fault.code == Code::WrongOffset;
            if attempt >= most || !is_passing {
                return Err(fault);
            }
            tokio::time::sleep((PAUSE * (1 << attempt)).min(LONGEST_PAUSE)).await;
            let id = view.id.clone();
            let asked = ["api", "v1", "blobs", "uploads", &id];
            let asked = self.answer::<UploadView>(Call::get(&asked)).await;
            match asked {
                Ok(now) if now.offset > view.offset => (view, attempt) = (now, 1),
                Ok(now) => (view, attempt) = (now, attempt + 1),
                // The next attempt says what became of it.
                Err(_) => attempt += 1,
            }
        }
    }

    async fn upload_rest(
        &self,
        digest: Digest,
        path: &Path,
        (view, size): (&UploadView, u64),
    ) -> Result<(), Fault> {
        let mut file = open(path).await?;
        file.seek(SeekFrom::Start(view.offset))
            .await
            .map_err(|error| local(path, "read", &error))?;
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, CHUNK));
        let query = [
            ("offset", view.offset.to_string()),
            ("digest", digest.to_string()),
        ];
        let response = self
            .http
            .put(self.url(&["api", "v1", "blobs", "uploads", &view.id], &query))
            .header(
                reqwest::header::CONTENT_LENGTH,
                size - view.offset.min(size),
            )
            .body(body)
            .send()
            .await
            .map_err(|error| self.fault(&error))?;
        self.check(response).await.map(|_| ())
    }

    /// Uploads a file; its digest is computed first.
    pub async fn blob_put_file(&self, path: &Path) -> Result<(Digest, u64), Fault> {
        let (digest, size) = file_digest(path).await?;
        self.blob_put(digest, path).await?;
        Ok((digest, size))
    }

    /// Uploads bytes that are in memory anyway.
    pub async fn blob_put_bytes(&self, bytes: impl Into<Bytes>) -> Result<Digest, Fault> {
        let bytes: Bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let name = digest.to_string();
        let path = ["api", "v1", "blobs", &name];
        let mut call = Call::new(Method::PUT, &path);
        call.body = Some(bytes);
        self.send(call).await?;
        Ok(digest)
    }

    /// Downloads a blob into the file `target` by way of `target.part` beside it: the file is whole
    /// and has its digest, or it is not there. Answers its size.
    pub async fn blob_get(&self, digest: Digest, target: &Path) -> Result<u64, Fault> {
        let got = self.blob_get_on(digest, target).await;
        if got.is_err() {
            tokio::fs::remove_file(beside(target)).await.ok();
        }
        got
    }

    /// The same, going on with what is in `target.part`, which stays when the coordinator is away:
    /// bytes that came are not asked for again. Attempts count from the last one that brought
    /// something.
    pub async fn blob_get_on(&self, digest: Digest, target: &Path) -> Result<u64, Fault> {
        let part = beside(target);
        let (mut attempt, mut is_anew) = (1, false);
        loop {
            let before = there(&part).await;
            let fault = match self.download(digest, &part).await {
                Ok(size) => {
                    tokio::fs::rename(&part, target)
                        .await
                        .map_err(|error| local(target, "write", &error))?;
                    return Ok(size);
                }
                Err(fault) => fault,
            };
            if fault.code == Code::BlobCorrupt && before > 0 && !is_anew {
                // What was there already may not be of this blob: once more from the beginning.
                tokio::fs::remove_file(&part).await.ok();
                is_anew = true;
                continue;
            }
            if !is_passing(fault.code) {
                // Whatever is in it does not become this blob.
                tokio::fs::remove_file(&part).await.ok();
                return Err(fault);
            }
            if there(&part).await > before {
                attempt = 1;
            } else if attempt >= self.attempts {
                return Err(fault);
            } else {
                attempt += 1;
            }
            tokio::time::sleep(PAUSE * attempt).await;
        }
    }

    async fn download(&self, digest: Digest, part: &Path) -> Result<u64, Fault> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(part)
            .await;
        let mut file = file.map_err(|error| local(part, "write", &error))?;
        let (hash, size) = hashed(&mut file, part).await?;
        self.receive(digest, (&mut file, part), (hash, size)).await
    }

    /// Downloads a blob into the open file at `path` and syncs it, in one attempt. Answers its size;
    /// after an error the file may hold anything.
    pub async fn blob_write(
        &self,
        digest: Digest,
        file: &mut File,
        path: &Path,
    ) -> Result<u64, Fault> {
        self.receive(digest, (file, path), (Sha256::new(), 0)).await
    }

    /// Receives the rest of a blob of which `size` bytes, with this hash, are in the file.
    async fn receive(
        &self,
        digest: Digest,
        (file, path): (&mut File, &Path),
        (mut hash, mut size): (Sha256, u64),
    ) -> Result<u64, Fault> {
        let name = digest.to_string();
        let mut request = self.http.get(self.url(&["api", "v1", "blobs", &name], &[]));
        if size > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={size}-"));
        }
        let response = request.send().await.map_err(|error| self.fault(&error))?;
        let is_all = response.status() == reqwest::StatusCode::RANGE_NOT_SATISFIABLE;
        let written = |error| local(path, "write", &error);
        if !is_all {
            let response = self.check(response).await?;
            if response.status() != reqwest::StatusCode::PARTIAL_CONTENT && size > 0 {
                // It sends the whole.
                (hash, size) = (Sha256::new(), 0);
                file.set_len(0).await.map_err(written)?;
                file.seek(SeekFrom::Start(0)).await.map_err(written)?;
            }
            let mut body = response.bytes_stream();
            while let Some(chunk) = body.next().await {
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(error) => {
                        // What came stays.
                        file.flush().await.map_err(written)?;
                        return Err(self.fault(&error));
                    }
                };
                hash.update(&chunk);
                size += chunk.len() as u64;
                file.write_all(&chunk).await.map_err(written)?;
            }
        }
        // The last chunk is written behind our back, and `sync_all` keeps what became of it to itself.
        file.flush().await.map_err(written)?;
        file.sync_all().await.map_err(written)?;
        let got = Digest(hash.finalize().into());
        if got == digest {
            return Ok(size);
        }
        Err(Fault::new(
            Code::BlobCorrupt,
            format!("blob `{digest}` came with the bytes of `{got}`"),
        ))
    }

    /// Reads a small blob into memory.
    pub async fn blob_bytes(&self, digest: Digest) -> Result<Bytes, Fault> {
        let name = digest.to_string();
        let bytes = self
            .bytes(Call::get(&["api", "v1", "blobs", &name]))
            .await?;
        let got = Digest::of(&bytes);
        if got == digest {
            return Ok(bytes);
        }
        Err(Fault::new(
            Code::BlobCorrupt,
            format!("blob `{digest}` came with the bytes of `{got}`"),
        ))
    }
}

fn beside(target: &Path) -> PathBuf {
    let mut name = target
        .file_name()
        .map_or_else(|| OsString::from("blob"), OsString::from);
    name.push(".part");
    target.with_file_name(name)
}

/// Bytes of a file that may not be there.
async fn there(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |file| file.len())
}

async fn size(file: &File, path: &Path) -> Result<u64, Fault> {
    let about = file.metadata().await;
    Ok(about.map_err(|error| local(path, "read", &error))?.len())
}

async fn open(path: &Path) -> Result<File, Fault> {
    File::open(path)
        .await
        .map_err(|error| local(path, "read", &error))
}

fn local(path: &Path, verb: &str, error: &std::io::Error) -> Fault {
    let code = if error.kind() == ErrorKind::StorageFull {
        Code::DiskFull
    } else {
        Code::LocalFile
    };
    Fault::new(code, format!("cannot {verb} `{}`: {error}", path.display()))
}
