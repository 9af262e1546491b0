//! Which features each worker keeps, as its polls say. Soft state: losing it means asking once more.

use pomona_api::v1::features::FeatureShard;
use pomona_domain::{Digest, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The shelves of all workers.
#[derive(Debug, Default)]
pub struct Features(Mutex<BTreeMap<WorkerId, Shelf>>);

/// What one worker keeps.
#[derive(Debug, Default)]
struct Shelf {
    /// Nothing until it has said so.
    shards: Option<Vec<FeatureShard>>,
    /// Shards that should go and that it was not told of.
    unwanted: BTreeSet<Digest>,
}

impl Features {
    /// A worker said what it keeps.
    pub fn heard(&self, worker: WorkerId, shards: Vec<FeatureShard>) {
        self.lock().entry(worker).or_default().shards = Some(shards);
    }

    /// Whether a worker has yet to say what it keeps.
    pub fn wants(&self, worker: WorkerId) -> bool {
        let shelves = self.lock();
        shelves
            .get(&worker)
            .is_none_or(|shelf| shelf.shards.is_none())
    }

    /// What a worker keeps.
    pub fn of(&self, worker: WorkerId) -> Vec<FeatureShard> {
        let shelves = self.lock();
        let shards = shelves.get(&worker).and_then(|shelf| shelf.shards.clone());
        shards.unwrap_or_default()
    }

    /// Asks a worker to remove a shard.
    pub fn evict(&self, worker: WorkerId, shard: Digest) {
        let mut shelves = self.lock();
        shelves.entry(worker).or_default().unwanted.insert(shard);
    }

    /// What a worker is told to remove; it is told once.
    pub fn unwanted(&self, worker: WorkerId) -> Vec<Digest> {
        let mut shelves = self.lock();
        let shelf = shelves.entry(worker).or_default();
        std::mem::take(&mut shelf.unwanted).into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
