//! Blobs on this machine, by digest: downloaded once, checked, kept under a budget.
//!
//! A blob that a live lease uses is never evicted, even over the budget; a file without its digest
//! never gets a blob's name. What a broken download left (`….part`) counts against the budget, goes
//! before any blob does, and is gone on with. It is a cache: losing it loses nothing.

use pomona_domain::{Code, Digest, Fault};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[cfg(test)]
mod tests;

/// What the file of a download under way is called, after the digest.
const PART: &str = ".part";

#[derive(Debug)]
struct Held {
    size: u64,
    pins: u32,
    used: u64,
}

#[derive(Debug, Default)]
struct Index {
    blobs: BTreeMap<Digest, Held>,
    /// Bytes of downloads that broke off.
    parts: BTreeMap<Digest, u64>,
    /// Whose turn it is for each blob that somebody wants.
    turns: BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>,
    clock: u64,
}

impl Index {
    fn bytes(&self) -> u64 {
        let blobs = self.blobs.values().map(|held| held.size).sum::<u64>();
        blobs + self.parts.values().sum::<u64>()
    }

    /// Blobs that somebody is fetching.
    fn coming(&mut self) -> BTreeSet<Digest> {
        self.turns.retain(|_, turn| turn.strong_count() > 0);
        self.turns.keys().copied().collect()
    }
}

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: Arc<PathBuf>,
    budget: u64,
    index: Arc<Mutex<Index>>,
}

/// A blob that stays as long as this lives.
#[derive(Debug)]
pub struct Pin {
    cache: Cache,
    digest: Digest,
}

impl Pin {
    /// The read-only file.
    pub fn path(&self) -> PathBuf {
        self.cache.path(&self.digest)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut index = self.cache.lock();
        if let Some(held) = index.blobs.get_mut(&self.digest) {
            held.pins = held.pins.saturating_sub(1);
        }
        drop(index);
        self.cache.evict();
    }
}

impl Cache {
    /// Opens the cache in `folder` with a budget in bytes.
    pub fn open(folder: &Path, budget: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (mut found, mut index) = (Vec::new(), Index::default());
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            let data = file.metadata()?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            let digest = |hex: &str| format!("sha256:{hex}").parse::<Digest>().ok();
            if let Some(digest) = digest(&name) {
                found.push((data.modified()?, digest, data.len()));
            } else if let Some(digest) = name.strip_suffix(PART).and_then(digest) {
                index.parts.insert(digest, data.len());
            } else {
                std::fs::remove_file(file.path())?;
            }
        }
        found.sort();
        for (_, digest, size) in found {
            index.clock += 1;
            let used = index.clock;
            let pins = 0;
            index.blobs.insert(digest, Held { size, pins, used });
        }
        let cache = Self {
            folder: Arc::new(folder.to_owned()),
            budget,
            index: Arc::new(Mutex::new(index)),
        };
        cache.evict();
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    fn part(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}{PART}", digest.hex()))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// The blob, if it is here.
    pub fn pin(&self, digest: Digest) -> Option<Pin> {
        let mut index = self.lock();
        index.clock += 1;
        let clock = index.clock;
        let held = index.blobs.get_mut(&digest)?;
        if !self.path(&digest).is_file() {
            index.blobs.remove(&digest);
            return None;
        }
        held.pins += 1;
        held.used = clock;
        let cache = self.clone();
        Some(Pin { cache, digest })
    }

    /// The blob, fetched by `get` into the path it is handed (by way of the same with `.part`; it
    /// checks the digest, syncs and renames) when it is not here yet. Two leases that want the same
    /// blob fetch it once.
    pub async fn fetch<F>(&self, digest: Digest, get: F) -> Result<Pin, Fault>
    where
        F: AsyncFnOnce(&Path) -> Result<u64, Fault>,
    {
        let turn = self.turn(digest);
        let _turn = turn.lock().await;
        if let Some(pin) = self.pin(digest) {
            return Ok(pin);
        }
        let path = self.path(&digest);
        let got = get(&path).await;
        self.note_part(digest);
        let size = got?;
        let local = |error: std::io::Error| {
            let message = format!("the cached blob `{digest}` cannot be kept: {error}");
            Fault::new(Code::LocalFile, message)
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).map_err(local)?;
        let folder = tokio::fs::File::open(self.folder.as_path()).await;
        folder.map_err(local)?.sync_all().await.map_err(local)?;
        let mut index = self.lock();
        index.clock += 1;
        let used = index.clock;
        let pins = 1;
        index.blobs.insert(digest, Held { size, pins, used });
        drop(index);
        self.evict();
        let cache = self.clone();
        Ok(Pin { cache, digest })
    }

    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut index = self.lock();
        let turn = index.turns.get(&digest).and_then(Weak::upgrade);
        let turn = turn.unwrap_or_default();
        index.turns.insert(digest, Arc::downgrade(&turn));
        turn
    }

    /// What a download has left.
    fn note_part(&self, digest: Digest) {
        let left = std::fs::metadata(self.part(&digest)).map_or(0, |file| file.len());
        let mut index = self.lock();
        if left == 0 {
            index.parts.remove(&digest);
        } else {
            index.parts.insert(digest, left);
        }
    }

    /// Removes what broken downloads left and nobody goes on with, then what was not used for
    /// longest, until the budget holds or only pinned blobs are left.
    fn evict(&self) {
        let mut index = self.lock();
        let coming = index.coming();
        let mut total = index.bytes();
        while total > self.budget {
            let part = index.parts.keys().find(|part| !coming.contains(part));
            if let Some(digest) = part.copied() {
                total -= index.parts.remove(&digest).unwrap_or_default();
                remove(&self.part(&digest));
                continue;
            }
            let oldest = index
                .blobs
                .iter()
                .filter(|(_, held)| held.pins == 0)
                .min_by_key(|(_, held)| held.used)
                .map(|(digest, held)| (*digest, held.size));
            let Some((digest, size)) = oldest else {
                return;
            };
            index.blobs.remove(&digest);
            total -= size;
            remove(&self.path(&digest));
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a cached file cannot be removed");
    }
}
