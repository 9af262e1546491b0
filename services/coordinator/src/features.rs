//! Which features each worker keeps, as its polls say, and how one worker gets them from another: as
//! blobs, which the other is asked to upload. Soft state: losing it means asking once more.

use pomona_api::v1::features::{
    FeatureBlob, FeatureShard, FoundFeatures, MAX_WANTED, PROCESSOR, UploadedFeature, WantFeatures,
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
/// Shards that come for one worker at a time, those included that it has yet to download: it asks
/// again after each, so that nothing is uploaded that it then computes.
const MAX_COMING: usize = 4;
/// Bytes of shards in the blob store, and of those that come: above it nothing more is wished for.
const MAX_STORED_BYTES: u64 = 4 << 30;
/// Shards of which is remembered which blob they are.
const MAX_BLOBS: usize = 10_000;
/// How often is looked which of them are still there, while they are too many bytes.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// A processor and a shard: the same arithmetic may round otherwise on another processor, so what is
/// of one is never given to another.
type Name = (String, Digest);

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
    wishes: BTreeMap<Name, Wish>,
    /// Wishes so far.
    wished: u64,
    /// Shards in the blob store, as far as we remember.
    blobs: BTreeMap<Name, FeatureBlob>,
    /// When was looked last which of them are still there.
    looked: Option<Instant>,
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
#[derive(Debug, Clone)]
struct Wish {
    holder: WorkerId,
    number: u64,
    /// As its holder says.
    bytes: u64,
    /// Who wants it, and until when unless it asks again; when nobody is left the wish ends.
    askers: BTreeMap<WorkerId, Instant>,
}

impl Features {
    /// A worker said what it keeps.
    pub fn heard(&self, worker: WorkerId, shards: Vec<FeatureShard>) {
        let mut state = self.lock();
        let kept: BTreeSet<Digest> = shards.iter().map(|shard| shard.digest).collect();
        let is_kept = |shard: &Digest| kept.contains(shard);
        (state.wishes).retain(|(_, shard), wish| wish.holder != worker || is_kept(shard));
        state.shelves.entry(worker).or_default().shards = Some(shards);
    }

    /// Nobody has said anything.
    pub fn forget_all(&self) {
        *self.lock() = State::default();
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
        drop(state);
        self.changed.send_replace(());
    }

    /// Whether a worker is still to be told to remove something.
    pub fn has_unwanted(&self, worker: WorkerId) -> bool {
        let state = self.lock();
        let shelf = state.shelves.get(&worker);
        shelf.is_some_and(|shelf| !shelf.unwanted.is_empty())
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
        state.expire(now);
        let of_worker = (state.wishes.iter()).filter(|(_, wish)| wish.holder == worker);
        let mut found: Vec<_> = of_worker
            .map(|((_, shard), wish)| (wish.number, *shard))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, shard)| shard).collect()
    }

    /// Tells when something is wanted or unwanted, or has come.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wishes for the first `most` of those shards that one of its peers keeps, as far as there is
    /// room; gives them. What `asker` wanted before and does not want now it wants no more.
    fn wish(
        &self,
        asker: WorkerId,
        (shards, most): (&[Digest], usize),
        Peers { processor, there }: &Peers,
        now: Instant,
    ) -> Vec<Digest> {
        let mut state = self.lock();
        let before = state.withdraw(asker, now);
        let mut coming = Vec::new();
        let mut is_new = false;
        for shard in shards {
            if coming.len() >= most {
                break;
            }
            let name = (processor.clone(), *shard);
            let held = before.get(&name).map(|wish| wish.holder);
            let asked = held.filter(|holder| there.contains(holder));
            let Some(holder) = asked.or_else(|| state.holder(*shard, there)) else {
                continue;
            };
            let bytes = state.bytes(holder, *shard);
            let is_counted = state.wishes.contains_key(&name);
            if !is_counted && state.stored().saturating_add(bytes) > MAX_STORED_BYTES {
                continue;
            }
            coming.push(*shard);
            let number = before.get(&name).map_or(state.wished, |wish| wish.number);
            state.wished += 1;
            let wish = state.wishes.entry(name).or_insert(Wish {
                holder,
                number,
                bytes,
                askers: BTreeMap::new(),
            });
            is_new |= held != Some(holder);
            wish.holder = holder;
            wish.askers.insert(asker, now + WISH_TERM);
        }
        drop(state);
        if is_new {
            self.changed.send_replace(());
        }
        coming
    }

    /// All blobs that are remembered, when they are too many bytes for another wish and it is time
    /// to look whether they are still there.
    fn doubtful(&self, now: Instant) -> Vec<(Name, Digest)> {
        let mut state = self.lock();
        let is_time = (state.looked).is_none_or(|last| now >= last + LOOK_EVERY);
        // Half of it: a wish may be large.
        if !is_time || state.stored() < MAX_STORED_BYTES / 2 {
            return Vec::new();
        }
        state.looked = Some(now);
        let blobs = state.blobs.iter();
        blobs
            .map(|(name, blob)| (name.clone(), blob.blob))
            .collect()
    }

    /// A worker has uploaded a shard that it keeps. Says whether it does.
    fn came(&self, worker: WorkerId, processor: &str, blob: FeatureBlob) -> bool {
        let mut state = self.lock();
        if !state.keeps(worker, blob.shard) {
            return false;
        }
        let name = (processor.to_owned(), blob.shard);
        state.wishes.remove(&name);
        if state.blobs.len() >= MAX_BLOBS {
            state.blobs.clear();
        }
        state.blobs.insert(name, blob);
        drop(state);
        self.changed.send_replace(());
        true
    }

    fn blob(&self, name: &Name) -> Option<FeatureBlob> {
        self.lock().blobs.get(name).copied()
    }

    fn forget_blob(&self, name: &Name) {
        self.lock().blobs.remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends wishes that nobody has for now.
    fn expire(&mut self, now: Instant) {
        self.wishes.retain(|_, wish| {
            wish.askers.retain(|_, until| now < *until);
            !wish.askers.is_empty()
        });
    }

    /// Takes back what a worker wanted; gives all wishes as they were.
    fn withdraw(&mut self, asker: WorkerId, now: Instant) -> BTreeMap<Name, Wish> {
        self.expire(now);
        let before = self.wishes.clone();
        self.wishes.retain(|_, wish| {
            wish.askers.remove(&asker);
            !wish.askers.is_empty()
        });
        before
    }

    /// Bytes of shards in the blob store, and of those that come.
    fn stored(&self) -> u64 {
        let there = self.blobs.values().map(|blob| blob.bytes);
        let coming = self.wishes.values().map(|wish| wish.bytes);
        there.chain(coming).fold(0, u64::saturating_add)
    }

    /// Bytes of a shard as a worker says.
    fn bytes(&self, worker: WorkerId, shard: Digest) -> u64 {
        let shelf = self.shelves.get(&worker);
        let mut kept = shelf
            .iter()
            .filter_map(|shelf| shelf.shards.as_ref())
            .flatten();
        kept.find(|kept| kept.digest == shard)
            .map_or(0, |kept| kept.bytes)
    }

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
        let peers = peers(app, id, body.incarnation)?;
        let ready = in_store(app, &peers.processor, &body.shards).await?;
        let missing: Vec<Digest> = (body.shards.iter().copied())
            .filter(|shard| ready.iter().all(|blob| blob.shard != *shard))
            .collect();
        let now = Instant::now();
        for (name, blob) in app.features.doubtful(now) {
            if app.store.blob_stat(blob).await?.is_none() {
                app.features.forget_blob(&name);
            }
        }
        let most = MAX_COMING.saturating_sub(ready.len());
        let coming = app.features.wish(id, (&missing, most), &peers, now);
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
async fn in_store(
    app: &App,
    processor: &str,
    shards: &[Digest],
) -> Result<Vec<FeatureBlob>, Refusal> {
    let mut ready = Vec::new();
    for shard in shards {
        let name = (processor.to_owned(), *shard);
        let Some(blob) = app.features.blob(&name) else {
            continue;
        };
        if blobs::is_here(app, blob.blob).await? {
            ready.push(blob);
        } else {
            app.features.forget_blob(&name);
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
    let peers = peers(app, id, body.incarnation)?;
    let FeatureBlob { shard, blob, bytes } = body.uploaded;
    let Some(stat) = app.store.blob_keep(blob, app.now()).await? else {
        return Err(Fault::new(Code::BlobMissing, format!("there is no blob `{blob}`")).into());
    };
    if stat.size != bytes {
        let text = format!("blob `{blob}` has {} bytes, not {bytes}", stat.size);
        return Err(Fault::new(Code::BadRequest, text).into());
    }
    if !app.features.came(id, &peers.processor, body.uploaded) {
        let text = format!("worker `{id}` does not keep features `{shard}`");
        return Err(Fault::new(Code::NotFound, text).into());
    }
    Ok(body.uploaded)
}

/// With whom a worker shares.
struct Peers {
    processor: String,
    there: Vec<WorkerId>,
}

/// All workers that are there and have the processor of this one, which must be registered; a worker
/// that does not say which it has shares with nobody.
fn peers(app: &App, id: WorkerId, incarnation: u64) -> Result<Peers, Fault> {
    let view = app.view()?;
    let own = view
        .worker(id)
        .filter(|row| row.incarnation == incarnation && row.state != WorkerState::Lost);
    let own = own.ok_or_else(|| crate::longpoll::unknown(id))?;
    let processor = own.labels.get(PROCESSOR);
    let there = view.workers().filter(|row| {
        let is_like = processor.is_some() && row.labels.get(PROCESSOR) == processor;
        is_like && row.id != id && row.state != WorkerState::Lost
    });
    Ok(Peers {
        there: there.map(|row| row.id).collect(),
        // The others that do not say so never find what one without a name has uploaded.
        processor: processor.cloned().unwrap_or_else(|| id.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pomona_api::shard::{Key, Plan};
    use pomona_domain::Timestamp;
    use pomona_domain::dataset::Split;
    use pomona_domain::view::View;

    const HOLDER: WorkerId = WorkerId(1);
    const ASKER: WorkerId = WorkerId(2);
    const OTHER: WorkerId = WorkerId(3);

    fn peers(processor: &str) -> Peers {
        Peers {
            processor: processor.to_owned(),
            there: vec![HOLDER],
        }
    }

    fn name(number: u64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    /// What a worker keeps of `count` shards of `bytes` each.
    fn kept(count: u64, bytes: u64) -> (Features, Vec<Digest>) {
        let names: Vec<Digest> = (0..count).map(name).collect();
        let shard = |digest: &Digest| FeatureShard {
            digest: *digest,
            plan: Plan {
                key: Key {
                    prefix_version: 1,
                    arch: "a".to_owned(),
                    cut: 2,
                    block: "layer1".to_owned(),
                    weights: Digest::of(b"weights"),
                    mean: [0.0; 3],
                    scale: [1.0; 3],
                    dataset: Digest::of(b"manifest"),
                    split: Split::Val,
                    view: View::AS_IS,
                    from: 0,
                    to: 10,
                    batch: 32,
                    environment: BTreeMap::new(),
                },
                rows: 10,
                shape: vec![512],
            },
            bytes,
            used_at: Timestamp(1_000),
        };
        let features = Features::default();
        features.heard(HOLDER, names.iter().map(shard).collect());
        (features, names)
    }

    #[test]
    fn few_shards_come_at_a_time_and_a_wish_is_taken_back() {
        let (features, names) = kept(10, 1);
        let now = Instant::now();
        let peers = peers("a");
        let wish = |who, shards: &[Digest]| features.wish(who, (shards, MAX_COMING), &peers, now);
        assert_eq!(wish(ASKER, &names), names[..4]);
        assert_eq!(features.uploads(HOLDER, now), names[..4]);
        // What it still wants keeps its place; what it does not any more ends.
        assert_eq!(wish(ASKER, &names[2..]), names[2..6]);
        assert_eq!(features.uploads(HOLDER, now), names[2..6]);
        // Unless another one wants it.
        assert_eq!(wish(OTHER, &names[5..6]), names[5..6]);
        assert_eq!(wish(ASKER, &[]), []);
        assert_eq!(features.uploads(HOLDER, now), names[5..6]);
        assert_eq!(features.uploads(HOLDER, now + WISH_TERM), []);
    }

    #[test]
    fn nothing_is_wished_for_without_room_in_the_store() {
        let (features, names) = kept(4, MAX_STORED_BYTES / 2);
        let now = Instant::now();
        let peers = peers("a");
        let wish = |shards: &[Digest]| features.wish(ASKER, (shards, MAX_COMING), &peers, now);
        assert_eq!(wish(&names), names[..2]);
        assert_eq!(wish(&names), names[..2], "they are not counted twice");
        for shard in &names[..2] {
            let blob = FeatureBlob {
                shard: *shard,
                blob: *shard,
                bytes: MAX_STORED_BYTES / 2,
            };
            assert!(features.came(HOLDER, "a", blob));
        }
        assert_eq!(wish(&names[2..]), []);
        assert_eq!(features.doubtful(now).len(), 2);
        assert_eq!(features.doubtful(now).len(), 0, "not at once again");
        features.forget_blob(&("a".to_owned(), names[0]));
        assert_eq!(wish(&names[2..]), names[2..3]);
        assert_eq!(features.doubtful(now + LOOK_EVERY).len(), 1);
    }
}
