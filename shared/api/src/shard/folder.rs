//! The folder of a machine's shards: who writes one, what gives way to it, and when it is whole.
//!
//! Trainers compute shards into it, workers fetch some from other machines. A shard is written
//! under another name by the one process that holds that file's lock, synced and renamed. It must
//! never remove what a process uses, and never give a name to what is not whole.

use super::{Footer, PART, WHOLE};
use pomona_domain::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read as _, Result, Seek as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// The folder and what it may hold. Cheap to clone; every process opens its own.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    budget: u64,
}

/// A shard that is being written: nobody else writes it while this lives. Dropped before it is
/// finished, it leaves nothing.
#[derive(Debug)]
pub struct Unfinished {
    folder: Folder,
    part: PathBuf,
    whole: PathBuf,
    /// Where it is written.
    pub file: File,
}

impl Folder {
    /// The folder at `path`, which may hold `budget` bytes; it is made when it is not there.
    pub fn open(path: &Path, budget: u64) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self {
            path: path.to_owned(),
            budget,
        })
    }

    /// The most bytes that it holds.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Where a shard is when it is whole.
    pub fn whole(&self, shard: Digest) -> PathBuf {
        self.path.join(format!("{}.{WHOLE}", shard.hex()))
    }

    /// Where it is while it is written.
    pub fn part(&self, shard: Digest) -> PathBuf {
        self.path.join(format!("{}.{PART}", shard.hex()))
    }

    /// Takes it upon this process to write a shard; `None` when another one is at it, or has just
    /// finished it.
    pub fn claim(&self, shard: Digest) -> Result<Option<Unfinished>> {
        let (part, whole) = (self.part(shard), self.whole(shard));
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&part)?;
        match file.try_lock() {
            // The writer before us may have renamed it between the look and the lock.
            Ok(()) if is_at(&file, &part) => {}
            Ok(()) | Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let unfinished = Unfinished {
            folder: self.clone(),
            part,
            whole,
            file,
        };
        Ok((!unfinished.whole.exists()).then_some(unfinished))
    }
}

impl Unfinished {
    /// Reserves `bytes`, removing what was not used for longest and nobody uses. Says whether they
    /// fit.
    pub fn reserve(&self, bytes: u64) -> Result<bool> {
        let turn = File::create(self.folder.path.join("turn"))?;
        // Held for milliseconds: nothing is computed meanwhile.
        turn.lock()?;
        let own = self.file.metadata()?.ino();
        self.file.set_len(0)?;
        let mut shards = Vec::new();
        let mut total = bytes;
        for entry in std::fs::read_dir(&self.folder.path)? {
            let entry = entry?;
            let (path, Ok(data)) = (entry.path(), entry.metadata()) else {
                continue;
            };
            let ending = path.extension().unwrap_or_default();
            if data.ino() == own || !(ending == WHOLE || ending == PART) {
                continue;
            }
            total = total.saturating_add(data.len());
            // What a killed writer left goes first.
            let used = if ending == PART {
                SystemTime::UNIX_EPOCH
            } else {
                data.modified().unwrap_or(SystemTime::UNIX_EPOCH)
            };
            shards.push((used, path, data.len()));
        }
        shards.sort();
        for (_, path, size) in shards {
            if total <= self.folder.budget {
                break;
            }
            if evict(&path) {
                total = total.saturating_sub(size);
            }
        }
        if total > self.folder.budget {
            return Ok(false);
        }
        // Counted from now on, though the disk gives it when it is written.
        match self.file.set_len(bytes) {
            Err(error) if error.kind() == ErrorKind::FileTooLarge => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Gives what is written its name: synced, renamed, and from now on locked as a reader's.
    pub fn finish(self) -> Result<File> {
        self.file.set_permissions(Permissions::from_mode(0o444))?;
        self.file.sync_all()?;
        std::fs::rename(&self.part, &self.whole)?;
        File::open(&self.folder.path)?.sync_all()?;
        // From a writer to a reader: others may read it now.
        self.file.lock_shared()?;
        self.file.try_clone()
    }

    /// Where it is written.
    pub fn part(&self) -> &Path {
        &self.part
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone after a rename; what cannot be removed gives way to the next writer.
        if is_at(&self.file, &self.part) {
            let _left = std::fs::remove_file(&self.part);
        }
    }
}

/// The footer of a file, when it is the shard of this name and its rows hash to what it says.
pub fn check(file: &mut File, shard: Digest) -> Option<Footer> {
    let footer = Footer::read(file)?;
    if footer.plan.key.digest().ok()? != shard {
        return None;
    }
    file.rewind().ok()?;
    let mut hash = Sha256::new();
    let mut left = footer.plan.bytes();
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let size = left.min(chunk.len() as u64) as usize;
        file.read_exact(&mut chunk[..size]).ok()?;
        hash.update(&chunk[..size]);
        left -= size as u64;
    }
    (Digest(hash.finalize().into()) == footer.rows_sha256).then_some(footer)
}

/// The file at `path`, with a reader's lock on it: while it is open nobody removes it.
pub fn opened(path: &Path) -> Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) if is_at(&file, path) => Ok(Some(file)),
        // Removed a moment ago.
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a file that no process holds. Says whether it is gone.
pub fn evict(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    file.try_lock().is_ok() && is_at(&file, path) && std::fs::remove_file(path).is_ok()
}

/// Whether the open file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let here = file.metadata().map(|data| (data.dev(), data.ino()));
    let there = std::fs::metadata(path).map(|data| (data.dev(), data.ino()));
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}
