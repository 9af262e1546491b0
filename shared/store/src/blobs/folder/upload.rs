//! A file that is coming.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use pomona_domain::Digest;
use sha2::{Digest as _, Sha256};

use super::{Folder, sync_folder};
use crate::StoreError;
use crate::blobs::CHUNK;

/// A file that is removed unless it gets its name.
#[derive(Debug)]
struct Incoming {
    path: PathBuf,
    /// A session's: somebody may go on with it.
    stays: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.stays {
            // What is left is cleared away when the folder is opened next.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Upload {
    file: File,
    hasher: Sha256,
    incoming: Incoming,
}

impl Upload {
    pub(crate) fn create(blobs: &Folder) -> Result<Self, StoreError> {
        loop {
            let path = blobs.incoming();
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        hasher: Sha256::new(),
                        incoming: Incoming { path, stays: false },
                    });
                }
                // A process of this number was killed while it uploaded.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::folder(path)(error)),
            }
        }
    }

    /// Goes on with a file; says how many bytes it has. They are hashed: what is on the disk counts.
    pub(crate) fn resume(path: PathBuf) -> Result<(Self, u64), StoreError> {
        let failed = || StoreError::folder(&path);
        let file = File::options().read(true).append(true).open(&path);
        let mut file = file.map_err(failed())?;
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut size = 0;
        loop {
            let read = file.read(&mut chunk).map_err(failed())?;
            if read == 0 {
                break;
            }
            hasher.update(&chunk[..read]);
            size += read as u64;
        }
        let incoming = Incoming { path, stays: true };
        let upload = Self {
            file,
            hasher,
            incoming,
        };
        Ok((upload, size))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(StoreError::folder(&self.incoming.path))
    }

    /// Makes the bytes last, and says their digest. Nobody may change them from now on.
    pub(crate) fn sync(&mut self) -> Result<Digest, StoreError> {
        let seal = || {
            let mut permissions = self.file.metadata()?.permissions();
            permissions.set_readonly(true);
            self.file.set_permissions(permissions)?;
            self.file.sync_all()
        };
        seal().map_err(StoreError::folder(&self.incoming.path))?;
        Ok(Digest(self.hasher.finalize_reset().into()))
    }

    /// Gives the file its name, over a damaged one if there is one.
    pub(crate) fn name(self, blobs: &Folder, digest: Digest) -> Result<(), StoreError> {
        let path = blobs.path(digest);
        std::fs::rename(&self.incoming.path, &path).map_err(StoreError::folder(&path))?;
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
