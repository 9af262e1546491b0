//! Blobs on this machine, by digest: downloaded once, checked, kept under a budget.
//!
//! A blob that a live lease uses is never evicted, even over the budget; a file without its digest
//! never gets a blob's name. It is a cache: losing it loses nothing.

use pomona_domain::{Code, Digest, Fault};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
mod tests;

#[derive(Debug)]
struct Held {
    size: u64,
    pins: u32,
    used: u64,
}

#[derive(Debug, Default)]
struct Index {
    blobs: BTreeMap<Digest, Held>,
    clock: u64,
}

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: Arc<PathBuf>,
    budget: u64,
    index: Arc<Mutex<Index>>,
    turn: Arc<tokio::sync::Mutex<()>>,
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
    /// Opens the cache in `folder` with a budget in bytes. Half-written downloads are removed.
    pub fn open(folder: &Path, budget: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut found = Vec::new();
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            let data = file.metadata()?;
            let name = file.file_name();
            let digest = name
                .to_str()
                .and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            match digest {
                Some(digest) => found.push((data.modified()?, digest, data.len())),
                None => std::fs::remove_file(file.path())?,
            }
        }
        found.sort();
        let mut index = Index::default();
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
            turn: Arc::default(),
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

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.lock().blobs.values().map(|held| held.size).sum()
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

    /// The blob, fetched by `get` into the path it is handed (which checks the digest, syncs and
    /// renames) when it is not here yet. One download at a time: two leases that want the same
    /// blob fetch it once.
    pub async fn fetch<F>(&self, digest: Digest, get: F) -> Result<Pin, Fault>
    where
        F: AsyncFnOnce(&Path) -> Result<u64, Fault>,
    {
        let _turn = self.turn.lock().await;
        if let Some(pin) = self.pin(digest) {
            return Ok(pin);
        }
        let path = self.path(&digest);
        let size = get(&path).await?;
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

    /// Removes what was not used for longest until the budget holds or only pinned blobs are left.
    fn evict(&self) {
        let mut index = self.lock();
        let mut total: u64 = index.blobs.values().map(|held| held.size).sum();
        while total > self.budget {
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
            if let Err(error) = std::fs::remove_file(self.path(&digest)) {
                tracing::warn!(%digest, %error, "a cached blob cannot be removed");
            }
        }
    }
}
