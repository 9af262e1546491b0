//! A file that is coming.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use pomona_domain::Digest;

use super::{Folder, Stamp, sync_folder};
use crate::StoreError;
use crate::blobs::hash::Hasher;
use crate::blobs::{BlobStat, CHUNK};

/// Bytes after which the disk is told to take what came.
const SYNC_EVERY: u64 = 64 << 20;

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
    /// `None`: nobody waits for the digest.
    hasher: Option<Hasher>,
    incoming: Incoming,
    /// Bytes since the disk was last told to take some.
    unsynced: u64,
    syncing: Option<JoinHandle<()>>,
    /// Keeps others from the file of a session, until the last write to it has ended.
    _lock: Option<File>,
}

impl Upload {
    /// A new file, hashed as it comes or not.
    pub(crate) fn create(blobs: &Folder, hasher: Option<Hasher>) -> Result<Self, StoreError> {
        loop {
            let path = blobs.incoming();
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        hasher,
                        incoming: Incoming { path, stays: false },
                        unsynced: 0,
                        syncing: None,
                        _lock: None,
                    });
                }
                // A process of this number was killed while it uploaded.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::folder(path)(error)),
            }
        }
    }

    /// Goes on with a file; says how many bytes it has. They are hashed: what is on the disk counts.
    pub(crate) fn resume(path: PathBuf, lock: File) -> Result<(Self, u64), StoreError> {
        let failed = || StoreError::folder(&path);
        let file = File::options().read(true).append(true).open(&path);
        let mut file = file.map_err(failed())?;
        let (hasher, size) = hashed(&mut file).map_err(failed())?;
        let incoming = Incoming { path, stays: true };
        let upload = Self {
            file,
            hasher: Some(hasher),
            incoming,
            unsynced: 0,
            syncing: None,
            _lock: Some(lock),
        };
        Ok((upload, size))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Self { file, hasher, .. } = self;
        // The disk takes the bytes while they are hashed.
        let written = std::thread::scope(|scope| {
            let Some(hasher) = hasher else {
                return Ok(file.write_all(bytes));
            };
            let writing = scope.spawn(|| file.write_all(bytes));
            hasher.update(bytes);
            writing.join()
        });
        let broke = |_| Err(std::io::Error::other("the thread that wrote broke"));
        let written = written.unwrap_or_else(broke);
        written.map_err(StoreError::folder(&self.incoming.path))?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.sync_some();
        }
        Ok(())
    }

    /// Has the disk begin with what came, so that the end finds little left to wait for.
    fn sync_some(&mut self) {
        self.unsynced = 0;
        if self
            .syncing
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            return;
        }
        // Whether it worked is seen at the end, which syncs all.
        let file = self.file.try_clone();
        self.syncing = file
            .ok()
            .map(|file| std::thread::spawn(move || drop(file.sync_data())));
    }

    /// Makes the bytes last. Nobody may change them from now on.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        let seal = || {
            let mut permissions = self.file.metadata()?.permissions();
            permissions.set_readonly(true);
            self.file.set_permissions(permissions)?;
            self.file.sync_all()
        };
        seal().map_err(StoreError::folder(&self.incoming.path))
    }

    /// The digest of what came. Of a file that was not hashed it is that of what is on the disk.
    pub(crate) fn digest(&self) -> Result<Digest, StoreError> {
        if let Some(hasher) = &self.hasher {
            return Ok(hasher.found());
        }
        Ok(stat_of(&self.incoming.path)?.digest)
    }

    /// Puts the synced file where files without a name are.
    pub(crate) fn set_down(self, blobs: &Folder, id: &str) -> Result<(), StoreError> {
        let path = blobs.unnamed(id);
        std::fs::rename(&self.incoming.path, &path).map_err(StoreError::folder(&path))?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    }

    /// Gives the file its name, over a damaged one if there is one.
    pub(crate) fn name(self, blobs: &Folder, digest: Digest) -> Result<(), StoreError> {
        take_name(&self.incoming.path, blobs, digest)
    }
}

/// Gives a file whose bytes have the digest its name.
pub(super) fn take_name(from: &Path, blobs: &Folder, digest: Digest) -> Result<(), StoreError> {
    let path = blobs.path(digest);
    std::fs::rename(from, &path).map_err(StoreError::folder(&path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    if let Ok(file) = path.metadata() {
        blobs.is_now_whole(digest, Stamp::of(&file));
    }
    let damaged = blobs.damaged(digest);
    match std::fs::remove_file(&damaged) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::folder(damaged)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What a file is.
pub(super) fn stat_of(path: &Path) -> Result<BlobStat, StoreError> {
    let hashed = File::open(path).and_then(|mut file| hashed(&mut file));
    let (hasher, size) = hashed.map_err(StoreError::folder(path))?;
    let digest = hasher.found();
    Ok(BlobStat { digest, size })
}

/// The hash of what is left of a file, and how many bytes that is.
fn hashed(file: &mut File) -> std::io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok((hasher, size));
        }
        hasher.update(&chunk[..read]);
        size += read as u64;
    }
}
