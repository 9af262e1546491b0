//! Shards of features that other machines have, fetched while the trainer computes: it begins with
//! the first of what is missing, this with the last, and they meet.
//!
//! A shard is fetched only when measured rates say that it comes before the trainer has it. It must
//! never make a trainer wait longer than computing would take, and never give a name to a file that
//! was not checked.

mod decide;
#[cfg(test)]
mod tests;

use pomona_api::PROTOCOL;
use pomona_api::client::Client;
use pomona_api::shard::folder::{Folder, Unfinished, check};
use pomona_api::trainer::MissingShard;
use pomona_api::v1::features::{FeatureBlob, FoundFeatures, MAX_WANTED, WantFeatures};
use pomona_api::v1::workers::LogLine;
use pomona_domain::{Code, Digest, Fault, LeaseId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

use crate::features::Features;
use crate::logs::Logs;
use crate::metrics::{Fetched, Metrics};
use crate::work::cannot;
pub use decide::{Decision, Figures, Rate, decide};

/// How long the coordinator may wait for the first shard to be uploaded.
const WAIT: Duration = Duration::from_secs(1);
/// Wait after a question that was not answered.
const PAUSE: Duration = Duration::from_secs(2);

/// A rank that misses shards.
type Who = (LeaseId, u32);
type Wishes = BTreeMap<Who, Wish>;

/// What a rank misses.
#[derive(Debug, Clone)]
struct Wish {
    /// Whom the log lines belong to.
    owners: Vec<String>,
    /// In the order in which they are computed.
    shards: Vec<MissingShard>,
    /// Bytes that the rank computes in a second, once it has said so.
    computed_per_s: Option<f64>,
    /// Nothing more is fetched for it.
    settled: bool,
}

/// What the ranks of this machine miss. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk(Arc<watch::Sender<Wishes>>);

impl Default for Desk {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Wishes::new())))
    }
}

/// Takes the wishes of a lease back when it is dropped.
#[derive(Debug)]
pub struct UntilDropped<'a> {
    desk: &'a Desk,
    lease: LeaseId,
}

impl Drop for UntilDropped<'_> {
    fn drop(&mut self) {
        self.desk.over(self.lease);
    }
}

impl Desk {
    /// A rank misses shards, in the order in which it will compute them.
    pub fn misses(
        &self,
        (lease, rank): (LeaseId, u32),
        owners: &[String],
        shards: Vec<MissingShard>,
    ) {
        let wish = Wish {
            owners: owners.to_vec(),
            shards,
            computed_per_s: None,
            settled: false,
        };
        self.0.send_modify(|wishes| {
            wishes.insert((lease, rank), wish);
        });
    }

    /// How fast a rank computes them.
    pub fn computes(&self, who: (LeaseId, u32), bytes_per_s: f64) {
        let known = Some(bytes_per_s).filter(|rate| rate.is_finite() && *rate > 0.0);
        self.change(who, |wish| wish.computed_per_s = known);
    }

    /// A rank has all of them, or does without.
    pub fn has(&self, who: (LeaseId, u32)) {
        self.0.send_modify(|wishes| {
            wishes.remove(&who);
        });
    }

    /// A lease ends.
    pub fn over(&self, lease: LeaseId) {
        self.0
            .send_modify(|wishes| wishes.retain(|(of, _), _| *of != lease));
    }

    /// The wishes of a lease end with what this gives.
    pub fn of(&self, lease: LeaseId) -> UntilDropped<'_> {
        UntilDropped { desk: self, lease }
    }

    fn change(&self, who: Who, change: impl FnOnce(&mut Wish)) {
        self.0.send_modify(|wishes| {
            if let Some(wish) = wishes.get_mut(&who) {
                change(wish);
            }
        });
    }

    fn get(&self, who: Who) -> Option<Wish> {
        self.0.borrow().get(&who).cloned()
    }

    /// The next rank to fetch for; waits for one.
    async fn next(&self) -> Who {
        let mut wishes = self.0.subscribe();
        let is_open = |wish: &Wish| wish.computed_per_s.is_some() && !wish.settled;
        let open = wishes.wait_for(|wishes| wishes.values().any(is_open)).await;
        // The sender is ours, so there is one.
        let who = open.ok().and_then(|wishes| {
            let mut all = wishes.iter();
            all.find(|(_, wish)| is_open(wish)).map(|(who, _)| *who)
        });
        match who {
            Some(who) => who,
            None => std::future::pending().await,
        }
    }

    /// Waits until a rank misses nothing any more.
    async fn gone(&self, who: Who) {
        let mut wishes = self.0.subscribe();
        let _gone = wishes.wait_for(|wishes| !wishes.contains_key(&who)).await;
    }

    /// Bytes that all ranks that miss a shard compute in a second.
    fn pace(&self, shard: Digest) -> f64 {
        let wishes = self.0.borrow();
        let miss = |wish: &&Wish| wish.shards.iter().any(|missing| missing.shard == shard);
        let of = wishes.values().filter(miss);
        of.filter_map(|wish| wish.computed_per_s).sum()
    }
}

/// Fetches.
#[derive(Debug)]
pub struct Fetcher {
    /// Where the coordinator is.
    pub client: Client,
    /// This worker, and this start of it.
    pub identity: (WorkerId, u64),
    /// Where shards are kept.
    pub features: Features,
    /// What is missing.
    pub desk: Desk,
    /// The trials' logs.
    pub logs: Arc<Logs>,
    /// What is counted.
    pub metrics: Metrics,
    /// How fast shards came.
    pub rate: Rate,
    /// What came of the fetches for the rank at hand.
    pub tally: Tally,
}

/// What came of the fetches for a rank.
#[derive(Debug, Default)]
pub struct Tally {
    begun: bool,
    fetched: u64,
    bytes: u64,
    failed: u64,
    /// Why the last one failed.
    why: String,
}

impl Tally {
    fn failed(&mut self, why: impl fmt::Display) {
        self.failed += 1;
        self.why = why.to_string();
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        let fetched = self.fetched;
        write!(f, "fetched {fetched} shards of features, {megabytes:.3} MB")?;
        if self.failed > 0 {
            let (failed, why) = (self.failed, &self.why);
            write!(f, "; {failed} computed after all, the last because: {why}")?;
        }
        Ok(())
    }
}

/// How a fetch came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    /// It is here.
    Whole,
    /// Somebody on this machine writes it.
    Busy,
    /// It does not fit.
    NoRoom,
}

impl Fetcher {
    /// Fetches for ever.
    pub async fn run(mut self) {
        let desk = self.desk.clone();
        loop {
            let who = desk.next().await;
            let Some(wish) = desk.get(who) else {
                continue;
            };
            self.tally = Tally::default();
            let is_done = tokio::select! {
                () = self.serve(who) => true,
                () = desk.gone(who) => false,
            };
            if self.tally.begun {
                self.tell(who.1, &wish, &self.tally.to_string());
            }
            if is_done {
                desk.change(who, |wish| wish.settled = true);
            }
        }
    }

    /// Fetches what a rank misses, the last first, until computing is faster or nobody has more.
    async fn serve(&mut self, who: Who) {
        let Some(folder) = self.features.folder() else {
            return;
        };
        let mut tried = BTreeSet::new();
        while let Some(wish) = self.desk.get(who) {
            let is_missing = |shard: &&MissingShard| !folder.whole(shard.shard).exists();
            let missing: Vec<MissingShard> =
                wish.shards.iter().filter(is_missing).copied().collect();
            let left = missing.iter().filter(|one| !tried.contains(&one.shard));
            let names: Vec<Digest> = left.rev().map(|one| one.shard).take(MAX_WANTED).collect();
            if names.is_empty() {
                return;
            }
            let found = match self.ask(names.clone()).await {
                Ok(found) => found,
                Err(fault) if crate::agent::is_passing(fault.code) => {
                    tracing::debug!("nobody says who has features: {fault}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(fault) => return tracing::debug!("features are not fetched: {fault}"),
            };
            let ready = |name: &Digest| found.ready.iter().find(|blob| blob.shard == *name);
            let Some(blob) = names.iter().find_map(ready) else {
                if found.coming.is_empty() {
                    return;
                }
                continue;
            };
            tried.insert(blob.shard);
            let decision = decide(self.figures(*blob, &missing));
            if !decision.fetch {
                self.metrics.fetched(Fetched::Computed);
                let rest = names.len();
                let text = format!("computes {rest} more shards of features itself: {decision}");
                return self.tell(who.1, &wish, &text);
            }
            // One line, however many follow.
            if !std::mem::replace(&mut self.tally.begun, true) {
                let text = format!("fetches features from other workers: {decision}");
                self.tell(who.1, &wish, &text);
            }
            if !self.fetch(*blob, decision).await {
                return;
            }
        }
    }

    async fn ask(&self, shards: Vec<Digest>) -> Result<FoundFeatures, Fault> {
        let (id, incarnation) = self.identity;
        let body = WantFeatures {
            protocol: PROTOCOL,
            incarnation,
            shards,
            wait_ms: WAIT.as_millis() as u64,
        };
        self.client.features_wanted(id, &body).await
    }

    fn figures(&self, blob: FeatureBlob, missing: &[MissingShard]) -> Figures {
        let before = missing.iter().take_while(|one| one.shard != blob.shard);
        Figures {
            bytes: blob.bytes,
            until: before.fold(blob.bytes, |sum, one| sum.saturating_add(one.bytes)),
            computed_per_s: self.desk.pace(blob.shard),
            fetched_per_s: self.rate.get(Instant::now()),
        }
    }

    /// Fetches one shard within the time that the decision gives. Says whether more are worth it.
    async fn fetch(&mut self, blob: FeatureBlob, decision: Decision) -> bool {
        let begun = Instant::now();
        let got = tokio::time::timeout(decision.limit(), self.get(blob)).await;
        let rate = blob.bytes as f64 / begun.elapsed().as_secs_f64().max(1e-6);
        match got {
            Ok(Ok(Got::Whole)) => {
                self.rate.saw(rate, Instant::now());
                self.tally.fetched += 1;
                self.tally.bytes = self.tally.bytes.saturating_add(blob.bytes);
                self.metrics.fetched(Fetched::Fetched);
                true
            }
            Ok(Ok(Got::Busy)) => true,
            Ok(Ok(Got::NoRoom)) => false,
            Ok(Err(fault)) => {
                self.metrics.fetched(Fetched::Failed);
                let shard = blob.shard;
                tracing::warn!(%shard, code = %fault.code, "features are not fetched: {fault}");
                self.tally.failed(fault);
                true
            }
            Err(_) => {
                // It is slower than this, however much.
                self.rate.set(rate, Instant::now());
                self.metrics.fetched(Fetched::Failed);
                self.tally.failed("it did not come in time");
                true
            }
        }
    }

    /// A shard's blob becomes the shard: claimed, written, checked, named.
    async fn get(&self, blob: FeatureBlob) -> Result<Got, Fault> {
        let Some(folder) = self.features.folder() else {
            return Ok(Got::NoRoom);
        };
        let part = folder.part(blob.shard);
        let local = |error: std::io::Error| cannot("write", &part, &error);
        let claimed = blocking(move || claim(&folder, blob)).await?;
        let unfinished = match claimed.map_err(local)? {
            Ok(unfinished) => unfinished,
            Err(got) => return Ok(got),
        };
        let file = unfinished.file.try_clone().map_err(local)?;
        let mut file = tokio::fs::File::from_std(file);
        self.client.blob_write(blob.blob, &mut file, &part).await?;
        drop(file.into_std().await);
        blocking(move || finish(unfinished, blob.shard))
            .await?
            .map(|()| Got::Whole)
    }

    /// A line in the logs of the trials that wait.
    fn tell(&self, rank: u32, wish: &Wish, text: &str) {
        for owner in &wish.owners {
            self.logs.push(LogLine {
                owner: owner.clone(),
                rank,
                at: crate::now(),
                line: text.to_owned(),
            });
        }
    }
}

/// The file of a shard, ours to write and with room for it.
fn claim(folder: &Folder, blob: FeatureBlob) -> std::io::Result<Result<Unfinished, Got>> {
    let Some(unfinished) = folder.claim(blob.shard)? else {
        return Ok(Err(Got::Busy));
    };
    let fits = unfinished.reserve(blob.bytes)?;
    Ok(if fits {
        Ok(unfinished)
    } else {
        Err(Got::NoRoom)
    })
}

/// Gives a file its name when it is what that says.
fn finish(mut unfinished: Unfinished, shard: Digest) -> Result<(), Fault> {
    if check(&mut unfinished.file, shard).is_none() {
        let text = format!("what came as features `{shard}` is something else, or damaged");
        return Err(Fault::new(Code::BlobCorrupt, text));
    }
    let part = unfinished.part().to_owned();
    let finished = unfinished.finish().map(drop);
    finished.map_err(|error| cannot("write", &part, &error))
}

/// Runs what reads or locks files beside the agent's one thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::new(Code::Internal, format!("a thread broke: {error}")))
}
