//! Which features each worker keeps, as its polls say, and how one worker gets them from another: as
//! blobs, which the other is asked to upload. Soft state: losing it means asking once more.

use pomona_api::v1::features::{
    FeatureBlob, FeatureShard, FoundFeatures, MAX_WANTED, UploadedFeature, WantFeatures,
};
use pomona_domain::worker::WorkerState;
use pomona_domain::{Code, Digest, Fault, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::http::{App, Refusal, blobs};

/// What nobody has asked for again after this long is not uploaded any more.
const WISH_TERM: Duration = Duration::from_secs(30);
/// Shards of which is remembered which blob they are.
const MAX_BLOBS: usize = 10_000;

/// The shelves of all workers.
#[derive(Debug, Default)]
pub struct Features {
    state: Mutex<State>,
    /// Told when something is wanted, or has come.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    shelves: BTreeMap<WorkerId, Shelf>,
    wishes: BTreeMap<Digest, Wish>,
    /// Wishes so far.
    wished: u64,
    /// Shards in the blob store, as far as we remember.
    blobs: BTreeMap<Digest, FeatureBlob>,
}

/// What one worker keeps.
#[derive(Debug, Default)]
struct Shelf {
    /// Nothing until it has said so.
    shards: Option<Vec<FeatureShard>>,
    /// Shards that should go and that it was not told of.
    unwanted: BTreeSet<Digest>,
}

/// A shard that a worker should upload.
#[derive(Debug)]
struct Wish {
    holder: WorkerId,
    number: u64,
    until: Instant,
}

impl Features {
    /// A worker said what it keeps.
    pub fn heard(&self, worker: WorkerId, shards: Vec<FeatureShard>) {
        let mut state = self.lock();
        let kept: BTreeSet<Digest> = shards.iter().map(|shard| shard.digest).collect();
        let is_kept = |shard: &Digest| kept.contains(shard);
        (state.wishes).retain(|shard, wish| wish.holder != worker || is_kept(shard));
        state.shelves.entry(worker).or_default().shards = Some(shards);
    }

    /// Whether a worker has yet to say what it keeps.
    pub fn wants(&self, worker: WorkerId) -> bool {
        let state = self.lock();
        let shelf = state.shelves.get(&worker);
        shelf.is_none_or(|shelf| shelf.shards.is_none())
    }

    /// What a worker keeps.
    pub fn of(&self, worker: WorkerId) -> Vec<FeatureShard> {
        let state = self.lock();
        let shelf = state.shelves.get(&worker);
        let shards = shelf.and_then(|shelf| shelf.shards.clone());
        shards.unwrap_or_default()
    }

    /// Asks a worker to remove a shard.
    pub fn evict(&self, worker: WorkerId, shard: Digest) {
        let mut state = self.lock();
        let shelf = state.shelves.entry(worker).or_default();
        shelf.unwanted.insert(shard);
    }

    /// What a worker is told to remove; it is told once.
    pub fn unwanted(&self, worker: WorkerId) -> Vec<Digest> {
        let mut state = self.lock();
        let shelf = state.shelves.entry(worker).or_default();
        std::mem::take(&mut shelf.unwanted).into_iter().collect()
    }

    /// What a worker should upload, what was wanted first before the rest.
    pub fn uploads(&self, worker: WorkerId, now: Instant) -> Vec<Digest> {
        let mut state = self.lock();
        state.wishes.retain(|_, wish| now < wish.until);
        let of_worker = (state.wishes.iter()).filter(|(_, wish)| wish.holder == worker);
        let mut found: Vec<_> = of_worker
            .map(|(shard, wish)| (wish.number, *shard))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, shard)| shard).collect()
    }

    /// Tells when something is wanted, or has come.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wishes for those shards that one of the workers `there` keeps; gives them.
    fn wish(&self, shards: &[Digest], there: &[WorkerId], now: Instant) -> Vec<Digest> {
        let mut state = self.lock();
        let mut coming = Vec::new();
        let mut is_new = false;
        for shard in shards {
            let before = state.wishes.get(shard).map(|wish| wish.holder);
            let asked = before.filter(|holder| there.contains(holder));
            let Some(holder) = asked.or_else(|| state.holder(*shard, there)) else {
                state.wishes.remove(shard);
                continue;
            };
            coming.push(*shard);
            let number = state.wished;
            state.wished += 1;
            let until = now + WISH_TERM;
            let wish = state.wishes.entry(*shard).or_insert(Wish {
                holder,
                number,
                until,
            });
            is_new |= before != Some(holder);
            (wish.holder, wish.until) = (holder, until);
        }
        drop(state);
        if is_new {
            self.changed.send_replace(());
        }
        coming
    }

    /// A worker has uploaded a shard that it keeps. Says whether it does.
    fn came(&self, worker: WorkerId, blob: FeatureBlob) -> bool {
        let mut state = self.lock();
        if !state.keeps(worker, blob.shard) {
            return false;
        }
        state.wishes.remove(&blob.shard);
        if state.blobs.len() >= MAX_BLOBS {
            state.blobs.clear();
        }
        state.blobs.insert(blob.shard, blob);
        drop(state);
        self.changed.send_replace(());
        true
    }

    fn blob(&self, shard: Digest) -> Option<FeatureBlob> {
        self.lock().blobs.get(&shard).copied()
    }

    fn forget_blob(&self, shard: Digest) {
        self.lock().blobs.remove(&shard);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keeps(&self, worker: WorkerId, shard: Digest) -> bool {
        let shelf = self.shelves.get(&worker);
        let mut kept = shelf.iter().filter_map(|shelf| shelf.shards.as_ref());
        kept.any(|shards| shards.iter().any(|kept| kept.digest == shard))
    }

    /// Of the workers that keep a shard the one that has least to upload.
    fn holder(&self, shard: Digest, there: &[WorkerId]) -> Option<WorkerId> {
        let load = |worker: WorkerId| {
            let wishes = self.wishes.values();
            wishes.filter(|wish| wish.holder == worker).count()
        };
        let keepers = there.iter().filter(|worker| self.keeps(**worker, shard));
        keepers
            .copied()
            .min_by_key(|worker| (load(*worker), *worker))
    }
}

/// What others have of the shards that a worker wants. It waits a while for the first of them to be
/// uploaded.
pub async fn find(app: &App, id: WorkerId, body: WantFeatures) -> Result<FoundFeatures, Refusal> {
    if body.shards.len() > MAX_WANTED {
        let text = format!(
            "{} shards are wanted at once, it may be {MAX_WANTED}",
            body.shards.len()
        );
        return Err(Fault::new(Code::TooLarge, text).into());
    }
    let until =
        Instant::now() + Duration::from_millis(body.wait_ms.min(app.config.workers.poll_wait_ms));
    let mut changes = app.features.changes();
    let mut stop = app.stop.clone();
    loop {
        changes.mark_unchanged();
        let there = others(app, id, body.incarnation)?;
        let ready = in_store(app, &body.shards).await?;
        let missing: Vec<Digest> = (body.shards.iter().copied())
            .filter(|shard| ready.iter().all(|blob| blob.shard != *shard))
            .collect();
        let now = Instant::now();
        let coming = app.features.wish(&missing, &there, now);
        if !ready.is_empty() || coming.is_empty() || now >= until || app.stopping() {
            return Ok(FoundFeatures { ready, coming });
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(until) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// Those shards whose blobs are there; they stay long enough to be downloaded.
async fn in_store(app: &App, shards: &[Digest]) -> Result<Vec<FeatureBlob>, Refusal> {
    let mut ready = Vec::new();
    for blob in shards.iter().filter_map(|shard| app.features.blob(*shard)) {
        if blobs::is_here(app, blob.blob).await? {
            ready.push(blob);
        } else {
            app.features.forget_blob(blob.shard);
        }
    }
    Ok(ready)
}

/// Notes that a worker has uploaded what it was asked for.
pub async fn uploaded(
    app: &App,
    id: WorkerId,
    body: UploadedFeature,
) -> Result<FeatureBlob, Refusal> {
    others(app, id, body.incarnation)?;
    let FeatureBlob { shard, blob, .. } = body.uploaded;
    if !blobs::is_here(app, blob).await? {
        return Err(Fault::new(Code::BlobMissing, format!("there is no blob `{blob}`")).into());
    }
    if !app.features.came(id, body.uploaded) {
        let text = format!("worker `{id}` does not keep features `{shard}`");
        return Err(Fault::new(Code::NotFound, text).into());
    }
    Ok(body.uploaded)
}

/// All workers that are there but this one, which must be registered.
fn others(app: &App, id: WorkerId, incarnation: u64) -> Result<Vec<WorkerId>, Fault> {
    let view = app.view()?;
    let own = view
        .worker(id)
        .filter(|row| row.incarnation == incarnation && row.state != WorkerState::Lost);
    own.ok_or_else(|| crate::longpoll::unknown(id))?;
    let there = view.workers().filter(|row| row.state != WorkerState::Lost);
    Ok(there
        .map(|row| row.id)
        .filter(|other| *other != id)
        .collect())
}
