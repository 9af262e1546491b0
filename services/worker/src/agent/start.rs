//! The life of one lease on this machine: fetch what it reads, supervise it, report its exit, clear
//! its folder away.
//!
//! It must never start what is not asked for any more, and never end without an exit in the spool,
//! unless nobody wants one.

use pomona_api::client::Client;
use pomona_api::trainer::Rendezvous;
use pomona_api::v1::workers::{DesiredLease, DesiredWork};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::worker::Slot;
use pomona_domain::{Code, Digest, Fault, Generation};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::is_passing;
use crate::cache::{Cache, Pin};
use crate::config::Config;
use crate::features::Features;
use crate::lease::{Order, Share, Tools, Wish, supervise};
use crate::program::ProgramWork;
use crate::reach;
use crate::work::{Job, Places, cannot, inputs, owners, told, trainer_work};

/// Wait after the first fetch that failed; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest wait between two attempts at anything.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What starting a lease needs. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Yard {
    pub(super) tools: Tools,
    pub(super) cache: Cache,
    pub(super) features: Features,
    pub(super) client: Client,
    pub(super) config: Arc<Config>,
    /// One folder for each lease lies in it.
    pub(super) work: Arc<PathBuf>,
    /// Told when a lease is over.
    pub(super) over: Arc<Notify>,
}

/// A lease on this machine.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) generation: Generation,
    pub(super) slots: Vec<u32>,
    pub(super) wish: watch::Sender<Wish>,
    /// Where its ranks meet those of other workers.
    pub(super) meets_at: watch::Sender<Option<Rendezvous>>,
    pub(super) unwanted: Arc<AtomicBool>,
    pub(super) task: JoinHandle<()>,
}

impl Held {
    /// Remembers where its ranks meet, once the coordinator says it.
    pub(super) fn learn(&self, desired: &DesiredLease) {
        let known = desired
            .gang
            .as_ref()
            .and_then(|gang| gang.rendezvous.clone());
        if let Some(at) = known.filter(|_| desired.generation == self.generation) {
            self.meets_at
                .send_if_modified(|told| told.replace(at).is_none());
        }
    }
}

/// A lease to live.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) desired: DesiredLease,
    pub(super) since: Instant,
    pub(super) wish: watch::Receiver<Wish>,
    /// Where its ranks meet those of other workers, once that is known.
    pub(super) meets_at: watch::Receiver<Option<Rendezvous>>,
    /// Set when the coordinator does not know the lease any more.
    pub(super) unwanted: Arc<AtomicBool>,
}

impl Yard {
    /// From the first byte fetched to the exit in the spool.
    pub(super) async fn live(self, mut life: Life) {
        let (lease, generation) = (life.desired.lease, life.desired.generation);
        let folder = self.work.join(lease.to_string());
        let outcome = match self.run(&mut life, &folder).await {
            Ok(outcome) => outcome,
            Err(fault) => Outcome::NotStarted { fault },
        };
        tell(&life.desired, &outcome);
        self.exit(&life, ReportBody::Exited { outcome }).await;
        if let Err(error) = tokio::fs::remove_dir_all(&folder).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(lease.id = %lease, generation = generation.0, %error, "its folder stays");
        }
        self.over.notify_one();
    }

    async fn run(&self, life: &mut Life, folder: &Path) -> Result<Outcome, Fault> {
        let mut wish = life.wish.clone();
        let (pins, share) = tokio::select! {
            biased;
            ended = wish.wait_for(|wish| *wish > Wish::Run) => {
                return Ok(match ended.map(|wish| *wish) {
                    Ok(Wish::Run | Wish::Stop) => Outcome::Stopped,
                    Ok(Wish::Kill) | Err(_) => Outcome::Killed,
                });
            }
            ready = self.make_ready(life) => ready?,
        };
        let order = self.order(life, folder, &pins, share)?;
        let outcome = supervise(&self.tools, &order, life.wish.clone()).await;
        drop(pins);
        Ok(outcome)
    }

    /// All that must be there before a process starts: the blobs, and where to meet the ranks of
    /// other workers. Those learn that from the first one, or are told to end.
    async fn make_ready(&self, life: &Life) -> Result<(BTreeMap<Digest, Pin>, Share), Fault> {
        let desired = &life.desired;
        let pins = self.fetch_all(&desired.work).await?;
        let Some(gang) = &desired.gang else {
            return Ok((pins, Share::whole(desired.slots.len())));
        };
        let meets_at = match gang.part {
            0 => None,
            _ => Some(met(life.meets_at.clone()).await),
        };
        let host = reach::address(&self.config.address, &self.config.server).await;
        Ok((pins, Share::of(gang, meets_at, host)))
    }

    async fn fetch_all(&self, work: &DesiredWork) -> Result<BTreeMap<Digest, Pin>, Fault> {
        let mut pins = BTreeMap::new();
        for digest in inputs(work) {
            pins.insert(digest, self.fetch(digest).await?);
        }
        Ok(pins)
    }

    /// Fetches a blob; a coordinator that is away is waited for.
    async fn fetch(&self, digest: Digest) -> Result<Pin, Fault> {
        let mut pause = PAUSE;
        loop {
            let got = self
                .cache
                .fetch(digest, async |path: &Path| {
                    self.client.blob_get_on(digest, path).await
                })
                .await;
            match got {
                Err(fault) if is_passing(fault.code) => {
                    tracing::debug!(%digest, "a blob will be fetched again: {fault}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                got => return got,
            }
        }
    }

    fn order(
        &self,
        life: &Life,
        folder: &Path,
        pins: &BTreeMap<Digest, Pin>,
        share: Share,
    ) -> Result<Order, Fault> {
        let desired = &life.desired;
        let broken = |error: std::io::Error| cannot("make", folder, &error);
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(broken)?;
        }
        std::fs::create_dir_all(folder).map_err(broken)?;
        let places = Places {
            blobs: pins
                .iter()
                .map(|(digest, pin)| (*digest, pin.path()))
                .collect(),
            folder: folder.to_owned(),
            features: self.features.store(),
        };
        let limits = match &desired.work {
            DesiredWork::Train { .. } | DesiredWork::Program(_) => self.config.trial_limits(),
            DesiredWork::ImportDataset { .. }
            | DesiredWork::ImportBackbone { .. }
            | DesiredWork::Publish { .. }
            | DesiredWork::Predict { .. } => self.config.task_limits(),
        };
        let left = desired.time_left_ms.map(Duration::from_millis);
        Ok(Order {
            lease: desired.lease,
            generation: desired.generation,
            owners: owners(&desired.work),
            slots: self.slots(&desired.slots)?,
            share,
            time_left: left.map(|left| left.saturating_sub(life.since.elapsed())),
            limits,
            job: self.job(&desired.work, &places)?,
            folder: folder.to_owned(),
            output: places.output(),
        })
    }

    fn job(&self, work: &DesiredWork, places: &Places) -> Result<Job, Fault> {
        let DesiredWork::Program(program) = work else {
            return trainer_work(work, places).map(Job::Trainer);
        };
        let limit = self.config.program.checkpoint_max_bytes;
        let work = ProgramWork::new(program, places, &self.config.server, limit)?;
        Ok(Job::Program(Arc::new(work)))
    }

    fn slots(&self, indexes: &[u32]) -> Result<Vec<Slot>, Fault> {
        let slot = |index: &u32| {
            self.tools.slots.get(*index).cloned().ok_or_else(|| {
                Fault::new(Code::Internal, format!("this worker has no slot {index}"))
            })
        };
        let slots: Vec<Slot> = indexes.iter().map(slot).collect::<Result<_, _>>()?;
        if slots.is_empty() {
            return Err(Fault::new(Code::Internal, "the lease has no slot"));
        }
        Ok(slots)
    }

    /// Puts the exit into the spool, however long the disk is full.
    async fn exit(&self, life: &Life, body: ReportBody) {
        let (lease, generation) = (life.desired.lease, life.desired.generation);
        loop {
            let done = if life.unwanted.load(Ordering::Relaxed) {
                self.tools.spool.forget(Some(lease))
            } else {
                self.tools
                    .spool
                    .put(lease, generation, body.clone(), Vec::new())
            };
            let Err(error) = done else { return };
            tracing::error!(lease.id = %lease, "an exit cannot be kept: {}", error.fault());
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }
}

/// Where ranks meet, once that is known.
async fn met(mut told: watch::Receiver<Option<Rendezvous>>) -> Rendezvous {
    loop {
        let known = told.borrow_and_update().clone();
        if let Some(at) = known {
            return at;
        }
        if told.changed().await.is_err() {
            // The agent itself ends, and this task with it.
            std::future::pending::<()>().await;
        }
    }
}

/// One line of our own log about an end.
fn tell(desired: &DesiredLease, outcome: &Outcome) {
    let (lease, owner) = (desired.lease, told(&owners(&desired.work)));
    match outcome {
        Outcome::Finished => tracing::info!(lease.id = %lease, owner, "finished"),
        Outcome::Stopped => tracing::info!(lease.id = %lease, owner, "stopped"),
        Outcome::Killed => tracing::info!(lease.id = %lease, owner, "killed"),
        Outcome::Failed { fault, .. } => {
            tracing::warn!(lease.id = %lease, owner, code = %fault.code, "failed: {fault}");
        }
        Outcome::Crashed { fault } => {
            tracing::warn!(lease.id = %lease, owner, code = %fault.code, "crashed: {fault}");
        }
        Outcome::NotStarted { fault } => {
            tracing::warn!(lease.id = %lease, owner, code = %fault.code, "not started: {fault}");
        }
    }
}
