//! The engine: one task that owns the cluster. Decide, commit, apply, answer.
//!
//! It drains its channel and decides event after event on memory of its own; one commit makes the
//! whole batch true, and only then does anybody get an answer or see the new cluster. One batch is
//! written at a time, and the next is decided meanwhile ([`flight`]). When a commit fails, memory is
//! dropped and read again from the store, and the batch's id tells whether it happened after all.
//! Once another coordinator leads it decides nothing, drops its memory and stands by ([`reign`]).

pub mod evidence;
mod flight;
mod handle;
mod load;
mod reign;

pub use handle::{Done, Handle, stopping};
pub use load::source;
pub use reign::Role;

use pomona_domain::Fault;
use pomona_scheduler::{Cluster, Event};
use pomona_store::{Candidate, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::metrics::Metrics;
use flight::{Decided, Flight};
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
        let mut next = Vec::new();
        let mut flight: Option<Flight> = None;
        while self.deposed.is_none() {
            if flight.is_none() && !next.is_empty() {
                flight = self.launch(std::mem::take(&mut next));
            }
            let has_room = next.len() < MAX_BATCH;
            let first = tokio::select! {
                written = flight::over(flight.as_mut()) => {
                    if let Some(flight) = flight.take() {
                        self.land(flight, written, &mut next).await;
                    }
                    continue;
                }
                request = waiting.recv(), if has_room => match request {
                    Some(request) => Some(request),
                    None => break,
                },
                _ = tick.tick(), if has_room => None,
                () = self.reign.deposed() => {
                    let generation = self.reign.generation;
                    self.deposed = Some(StoreError::NotLeader { generation }.into());
                    break;
                }
                () = stopped(&mut stop) => break,
            };
            let is_tick = first.is_none();
            if let Some(request) = first {
                self.accept(request, &mut next);
            }
            while next.len() < MAX_BATCH
                && let Ok(request) = waiting.try_recv()
            {
                self.accept(request, &mut next);
            }
            if is_tick {
                // After what was waiting: whoever beat in time has.
                self.parts.clock.slew();
                self.accept(tick_of_time(), &mut next);
            }
        }
        self.end(waiting, flight, next).await;
        self.deposed
    }

    /// The end of a reign: what came in before is still answered. Whoever stops of its own will tells
    /// what comes later, and another coordinator may lead at once.
    async fn end(
        &mut self,
        waiting: &mut mpsc::Receiver<Request>,
        flight: Option<Flight>,
        mut next: Vec<Decided>,
    ) {
        if let Some(mut flight) = flight {
            let written = flight::over(Some(&mut flight)).await;
            self.land(flight, written, &mut next).await;
        }
        if let Some(fault) = &self.deposed {
            return flight::refuse(next, fault);
        }
        waiting.close();
        while let Some(request) = waiting.recv().await {
            self.accept(request, &mut next);
        }
        if let Some(flight) = self.launch(next) {
            self.wait_for(flight).await;
        }
        resign(&self.parts, self.reign.generation).await;
    }

    async fn reload_until_it_works(&mut self) {
        let mut stop = self.parts.stop.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_PAUSE) => {}
                () = stopped(&mut stop) => return,
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

/// Time passes.
fn tick_of_time() -> Request {
    Request {
        event: Event::Tick,
        recall: None,
        answer: None,
    }
}

/// Waits until this coordinator should stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever says so may be gone: then it should.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
