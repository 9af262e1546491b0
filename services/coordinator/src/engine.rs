//! The engine: one task that owns the cluster. Decide, commit, apply, answer.
//!
//! It drains its channel and decides event after event on memory of its own; one commit makes the
//! whole batch true, and only then does anybody get an answer or see the new cluster. When a commit
//! fails, memory is dropped and read again from the store, and the batch's id tells whether it
//! happened after all. Once another coordinator leads it decides nothing, drops its memory and stands
//! by ([`reign`]).

pub mod evidence;
mod handle;
mod load;
mod reign;

pub use handle::{Done, Handle};
pub use load::source;
pub use reign::Role;

use pomona_domain::{Change, Code, Fault};
use pomona_scheduler::{Cluster, Event, Recalled, decide};
use pomona_store::{Batch, Candidate, Store, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::metrics::Metrics;
use handle::Request;
use reign::Reign;

/// Events that may wait for the engine; more are answered `E0004`.
const QUEUE: usize = 1024;
/// Events of one commit.
const MAX_BATCH: usize = 256;
/// Pause between attempts to read memory again.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

/// What the engine works with.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    pub config: pomona_scheduler::Config,
    pub tick: Duration,
    pub clock: Arc<Clock>,
    pub bus: Arc<Bus>,
    pub metrics: Arc<Metrics>,
    pub stop: watch::Receiver<bool>,
    /// This coordinator, as others see it.
    pub me: Candidate,
    /// How long leadership lasts that is not renewed.
    pub term: Duration,
}

struct Engine {
    parts: Parts,
    reign: Reign,
    role: Arc<watch::Sender<Role>>,
    batch: u64,
    cluster: Cluster,
    visible: watch::Sender<Option<Arc<Cluster>>>,
    /// Why this coordinator leads no more.
    deposed: Option<Fault>,
}

/// What became of one event before its commit.
struct Decided {
    answer: Option<oneshot::Sender<Result<Done, Fault>>>,
    outcome: Result<(), Fault>,
    /// What is to be committed: a refusal may leave something behind, too.
    changes: Vec<Change>,
}

/// The running engine; it ends with a fault when another coordinator leads on a database that only
/// one may use.
pub type Running = tokio::task::JoinHandle<Result<(), Fault>>;

/// Starts the engine. A coordinator that may lead does, and has read the cluster, before this
/// returns. It ends when every handle is gone, or when `stop` says so.
pub async fn start(parts: Parts) -> Result<(Handle, Running), Fault> {
    let (requests, waiting) = mpsc::channel(QUEUE);
    let (visible, shown) = watch::channel(None);
    let (role, roles) = watch::channel(Role::Follows {
        address: String::new(),
    });
    let role = Arc::new(role);
    let handle = Handle {
        requests,
        visible: shown,
        role: roles,
        term: parts.term,
    };
    let first = match reign::stand(&parts, &role).await? {
        Some(reign) => Some(Engine::begin(&parts, &role, &visible, reign).await?),
        None => None,
    };
    let task = tokio::spawn(rule(parts, role, visible, waiting, first));
    Ok((handle, task))
}

/// Leads and stands by, in turns.
async fn rule(
    parts: Parts,
    role: Arc<watch::Sender<Role>>,
    visible: watch::Sender<Option<Arc<Cluster>>>,
    mut waiting: mpsc::Receiver<Request>,
    mut engine: Option<Engine>,
) -> Result<(), Fault> {
    let mut rest = Duration::ZERO;
    loop {
        let Some(engine) = engine.take() else {
            tracing::info!("another coordinator leads: this one stands by");
            let Some(reign) = reign::stand_by(&parts, &role, &mut waiting, rest).await else {
                return Ok(());
            };
            rest = Duration::ZERO;
            let generation = reign.generation;
            match Engine::begin(&parts, &role, &visible, reign).await {
                Ok(begun) => engine = Some(begun),
                // Another one may be able to: it gets its turn before this one stands again.
                Err(fault) => {
                    tracing::error!(code = %fault.code, "cannot read the cluster: {fault}");
                    follow(&role);
                    resign(&parts, generation).await;
                    rest = parts.term;
                }
            }
            continue;
        };
        let deposed = engine.run(&mut waiting).await;
        parts.metrics.leader.set(0);
        parts.bus.end(deposed.is_none());
        let Some(fault) = deposed else {
            return Ok(());
        };
        visible.send_replace(None);
        follow(&role);
        if !parts.store.is_shared() {
            return Err(fault);
        }
        tracing::warn!(code = %fault.code, "deposed: {fault}");
    }
}

/// This coordinator does not lead, and who does is not known yet.
fn follow(role: &watch::Sender<Role>) {
    role.send_replace(Role::Follows {
        address: String::new(),
    });
}

/// Another coordinator may lead at once.
async fn resign(parts: &Parts, generation: u64) {
    if parts.store.is_shared()
        && let Err(error) = parts.store.resign(generation).await
    {
        tracing::debug!("leadership ends with its term: {}", Fault::from(error));
    }
}

impl Engine {
    /// Reads the cluster at the beginning of a reign.
    async fn begin(
        parts: &Parts,
        role: &Arc<watch::Sender<Role>>,
        visible: &watch::Sender<Option<Arc<Cluster>>>,
        reign: Reign,
    ) -> Result<Self, Fault> {
        let batch = parts.store.last_batch().await?;
        let cluster = load::cluster(parts).await?;
        tracing::info!(generation = reign.generation, "this coordinator leads");
        parts.bus.begin(reign.generation);
        parts.metrics.leader.set(1);
        visible.send_replace(Some(Arc::new(cluster.clone())));
        Ok(Self {
            parts: parts.clone(),
            reign,
            role: Arc::clone(role),
            batch,
            cluster,
            visible: visible.clone(),
            deposed: None,
        })
    }

    /// Decides until it should stop, or another coordinator leads: then says so.
    async fn run(mut self, waiting: &mut mpsc::Receiver<Request>) -> Option<Fault> {
        let mut tick = tokio::time::interval(self.parts.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.parts.stop.clone();
        while self.deposed.is_none() {
            let first = tokio::select! {
                request = waiting.recv() => match request {
                    Some(request) => request,
                    None => break,
                },
                _ = tick.tick() => {
                    self.parts.clock.slew();
                    Request { event: Event::Tick, recall: None, answer: None }
                }
                () = self.reign.deposed() => {
                    let generation = self.reign.generation;
                    self.deposed = Some(StoreError::NotLeader { generation }.into());
                    break;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH
                && let Ok(request) = waiting.try_recv()
            {
                batch.push(request);
            }
            self.handle(batch).await;
        }
        if self.deposed.is_none() {
            self.abdicate(waiting).await;
        }
        self.deposed
    }

    /// The end of a coordinator that stops: what came in before is still answered, what comes later
    /// is told so, and another coordinator may lead at once.
    async fn abdicate(&mut self, waiting: &mut mpsc::Receiver<Request>) {
        waiting.close();
        let mut rest = Vec::new();
        while let Some(request) = waiting.recv().await {
            rest.push(request);
        }
        self.handle(rest).await;
        resign(&self.parts, self.reign.generation).await;
    }

    /// One batch: decide all, commit once, show, answer.
    async fn handle(&mut self, requests: Vec<Request>) {
        if !self.role.borrow().leads() {
            // Nothing is decided on memory that another leader may have left behind.
            let fault = reign::uncertain(self.parts.term);
            return requests.into_iter().for_each(|one| one.refuse(&fault));
        }
        let events: Vec<(Event, Option<Box<Recalled>>)> = if requests.len() > 1 {
            let again = |request: &Request| (request.event.clone(), request.recall.clone());
            requests.iter().map(again).collect()
        } else {
            Vec::new()
        };
        let decided: Vec<Decided> = requests.into_iter().map(|r| self.decide(r)).collect();
        let changes = changes(&decided);
        match self.commit(&changes).await {
            Ok(()) => {
                let before = self.visible.borrow().clone();
                self.finish(before, decided, &changes);
            }
            Err(error) => self.recover(error, decided, changes, events).await,
        }
    }

    fn decide(&mut self, request: Request) -> Decided {
        let Request {
            event,
            recall,
            answer,
        } = request;
        let now = self.parts.clock.now();
        let started = Instant::now();
        if let Some(rows) = recall {
            self.cluster.recall(*rows);
        }
        if let Event::Polled {
            worker,
            incarnation,
            ..
        } = &event
            && let Some(row) = self.cluster.worker(*worker)
            && row.incarnation == *incarnation
        {
            self.cluster.touch(*worker, now);
        }
        let decision = decide(&self.cluster, now, &event);
        for change in &decision.changes {
            self.cluster.apply(now, change);
        }
        self.parts.metrics.decided(&event, started.elapsed());
        Decided {
            answer,
            outcome: decision.outcome,
            changes: decision.changes,
        }
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let batch = Batch {
            id: self.batch + 1,
            generation: self.reign.generation,
            changes,
        };
        self.parts.store.commit(&batch).await?;
        self.batch += 1;
        self.parts.metrics.committed(started.elapsed());
        Ok(())
    }

    /// Committed: show the cluster, tell the bus, answer.
    fn finish(
        &mut self,
        before: Option<Arc<Cluster>>,
        decided: Vec<Decided>,
        changes: &[Change],
    ) {
        let view = match before {
            Some(view) if changes.is_empty() => view,
            before => {
                let view = Arc::new(self.cluster.clone());
                self.tell(before.as_deref(), changes);
                self.visible.send_replace(Some(Arc::clone(&view)));
                view
            }
        };
        for one in decided {
            let changes = one.changes;
            let done = one.outcome.map(|()| Done {
                view: Arc::clone(&view),
                changes,
            });
            if let Some(answer) = one.answer {
                // A client that has gone away does not want its answer.
                let _ = answer.send(done);
            }
        }
    }

    /// Counts what was committed and publishes it.
    fn tell(&self, before: Option<&Cluster>, changes: &[Change]) {
        let now = self.parts.clock.now();
        if let Some(before) = before {
            self.parts.metrics.count(before, now, changes.iter());
        }
        self.parts.bus.publish(changes.iter());
    }

    /// The commit failed or its outcome is unknown: memory is read again.
    async fn recover(
        &mut self,
        error: StoreError,
        decided: Vec<Decided>,
        changes: Vec<Change>,
        events: Vec<(Event, Option<Box<Recalled>>)>,
    ) {
        let attempted = self.batch + 1;
        let nothing_written = nothing_written(&error);
        let deposed = matches!(error, StoreError::NotLeader { .. });
        let fault = Fault::from(error);
        tracing::error!(code = %fault.code, batch = attempted, "commit failed: {fault}");
        self.parts.metrics.commit_failures.inc();
        let before = self.visible.send_replace(None);
        if deposed {
            self.deposed = Some(fault.clone());
            return refuse(decided, &fault);
        }
        let reloaded = self.reload().await;
        if reloaded.is_ok() && self.batch >= attempted {
            tracing::warn!(batch = attempted, "the commit had happened after all");
            return self.finish(before, decided, &changes);
        }
        if reloaded.is_ok() && nothing_written && events.len() > 1 {
            // One event of the batch cannot be written: alone, each gets its own answer.
            for (one, (event, recall)) in decided.into_iter().zip(events) {
                let request = Request {
                    event,
                    recall,
                    answer: one.answer,
                };
                Box::pin(self.handle(vec![request])).await;
            }
            return;
        }
        refuse(decided, &fault);
        if let Err(fault) = reloaded {
            tracing::error!(code = %fault.code, "cannot read the cluster: {fault}");
            self.reload_until_it_works().await;
            if self.batch >= attempted {
                tracing::warn!(batch = attempted, "the commit had happened after all");
                self.tell(before.as_deref(), &changes);
            }
        }
    }

    async fn reload_until_it_works(&mut self) {
        let mut stop = self.parts.stop.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_PAUSE) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            match self.reload().await {
                Ok(()) => return,
                Err(fault) => {
                    tracing::error!(code = %fault.code, "cannot read the cluster: {fault}");
                }
            }
        }
    }

    /// Drops memory and reads it again. Nobody sees a cluster until that succeeds.
    async fn reload(&mut self) -> Result<(), Fault> {
        let batch = self.parts.store.last_batch().await?;
        self.cluster = load::cluster(&self.parts).await?;
        self.batch = batch;
        let view = Arc::new(self.cluster.clone());
        self.visible.send_replace(Some(view));
        Ok(())
    }
}

/// All that a batch changes, in order.
fn changes(decided: &[Decided]) -> Vec<Change> {
    let changes = decided.iter().flat_map(|one| &one.changes);
    changes.cloned().collect()
}

/// Answers a batch that is not known to be committed. What was refused gets the same answer: its
/// refusal rests on memory that never came true.
fn refuse(decided: Vec<Decided>, fault: &Fault) {
    for answer in decided.into_iter().filter_map(|one| one.answer) {
        // A client that has gone away does not want its answer.
        let _ = answer.send(Err(fault.clone()));
    }
}

/// Errors after which the database holds nothing of the batch.
fn nothing_written(error: &StoreError) -> bool {
    matches!(
        error.code(),
        Code::Conflict | Code::BlobMissing | Code::NotANumber | Code::NotReady
    )
}

#[cfg(test)]
mod tests;
