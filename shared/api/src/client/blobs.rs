//! Blobs: streamed up from files and down into files, with the digest checked on both sides.

use bytes::Bytes;
use futures::StreamExt;
use pomona_domain::{Code, Digest, Fault};
use reqwest::Method;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{Call, Client, PAUSE, is_passing};

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Digest and size of a file, read with constant memory.
pub async fn file_digest(path: &Path) -> Result<(Digest, u64), Fault> {
    let mut file = open(path).await?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; CHUNK];
    let mut size = 0u64;
    loop {
        let read = file
            .read(&mut buffer)
            .await
            .map_err(|error| local(path, "read", &error))?;
        if read == 0 {
            return Ok((Digest(hash.finalize().into()), size));
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

    /// Uploads a file under its digest; does nothing when the coordinator has it.
    pub async fn blob_put(&self, digest: Digest, path: &Path) -> Result<(), Fault> {
        if self.blob_stat(digest).await?.is_some() {
            return Ok(());
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
        let size = file
            .metadata()
            .await
            .map_err(|error| local(path, "read", &error))?
            .len();
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
        let part = beside(target);
        let mut attempt = 1;
        loop {
            let fault = match self.download(digest, &part).await {
                Ok(size) => {
                    tokio::fs::rename(&part, target)
                        .await
                        .map_err(|error| local(target, "write", &error))?;
                    return Ok(size);
                }
                Err(fault) => fault,
            };
            tokio::fs::remove_file(&part).await.ok();
            if attempt >= self.attempts || !is_passing(fault.code) {
                return Err(fault);
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn download(&self, digest: Digest, part: &Path) -> Result<u64, Fault> {
        let mut file = File::create(part)
            .await
            .map_err(|error| local(part, "write", &error))?;
        self.blob_write(digest, &mut file, part).await
    }

    /// Downloads a blob into the open file at `path` and syncs it, in one attempt. Answers its size;
    /// after an error the file may hold anything.
    pub async fn blob_write(
        &self,
        digest: Digest,
        file: &mut File,
        path: &Path,
    ) -> Result<u64, Fault> {
        let name = digest.to_string();
        let response = self
            .http
            .get(self.url(&["api", "v1", "blobs", &name], &[]))
            .send()
            .await
            .map_err(|error| self.fault(&error))?;
        let mut body = self.check(response).await?.bytes_stream();
        let mut hash = Sha256::new();
        let mut size = 0u64;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| self.fault(&error))?;
            hash.update(&chunk);
            size += chunk.len() as u64;
            file.write_all(&chunk)
                .await
                .map_err(|error| local(path, "write", &error))?;
        }
        file.sync_all()
            .await
            .map_err(|error| local(path, "write", &error))?;
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
