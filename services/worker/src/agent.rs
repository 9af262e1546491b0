//! The agent: registers, polls, makes what runs become what should run, and goes on while the
//! coordinator is away.
//!
//! There is one poll at a time, so that an older answer never overtakes a newer one. One that
//! carries something is never taken back; one that only waits is, when there is something to carry.
//! The agent runs on the main thread alone: ranks die with the thread that started them.

mod start;
mod talk;

use pomona_api::client::Client;
use pomona_api::v1::workers::{Desired, DesiredLease, Running};
use pomona_daemon::Signals;
use pomona_domain::lease::StopKind;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::{Code, Digest, Fault, LeaseId, WorkerId};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

use crate::cache::Cache;
use crate::config::Config;
use crate::features::Features;
use crate::fetch::{Desk, Fetcher, Rate, Tally};
use crate::identity::DataDir;
use crate::lease::{Tools, Wish, rank_environment};
use crate::logs::Logs;
use crate::measure;
use crate::metrics::{Metrics, Server, Sources};
use crate::offer::offer;
use crate::process;
use crate::reconcile::{Action, Local, Phase, reconcile};
use crate::ship::{Outbox, ship};
use crate::spare::{Recipe, Spares};
use crate::spool::Spool;
use crate::work::cannot;
use start::{Held, Life, Yard};
use talk::Manners;

/// How long the last reports may take to be delivered when the worker stops.
const FLUSH: Duration = Duration::from_secs(5);

/// The agent.
#[derive(Debug)]
struct Agent {
    data: DataDir,
    id: WorkerId,
    incarnation: u64,
    metrics_address: Option<String>,
    yard: Yard,
    leases: BTreeMap<LeaseId, Held>,
    /// Features that other workers want.
    upload: watch::Sender<Vec<Digest>>,
    /// What should run, as far as we know.
    desired: Vec<DesiredLease>,
    manners: Manners,
    /// When a stop that was asked for ends in any case.
    stop_by: Option<Instant>,
    /// When the last reports must be delivered.
    flush_by: Option<Instant>,
}

/// Whether trying again is of use.
pub(crate) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unreachable | Code::NotReady | Code::Busy | Code::StoreDown | Code::ObjectsDown
    )
}

/// Runs a worker until it is asked to stop. A second request ends it at once.
pub async fn run(config: Config) -> Result<(), Fault> {
    let stop = signals()?;
    // Measuring takes seconds at the first start.
    let mut early = stop.clone();
    let (mut agent, server) = tokio::select! {
        opened = Box::pin(Agent::open(config)) => opened?,
        _ = early.wait_for(|asked| *asked > 0) => return Ok(()),
    };
    let (tools, cache) = (agent.yard.tools.clone(), agent.yard.cache.clone());
    let features = agent.yard.features.clone();
    announce(agent.id, server.as_ref())?;
    if let Some(server) = server {
        let sources = Sources {
            slots: Arc::clone(&tools.slots),
            spool: tools.spool.clone(),
            cache,
            features,
        };
        tokio::spawn(server.serve(tools.metrics.clone(), sources));
    }
    agent.share_features();
    agent.keep_spares();
    let client = agent.yard.client.clone();
    tokio::spawn(ship(client, tools.spool, tools.outbox, tools.metrics));
    let mut hurry = stop.clone();
    let ended = tokio::select! {
        ended = agent.live(stop) => ended,
        _ = hurry.wait_for(|asked| *asked > 1) => {
            tracing::warn!("asked to stop again: trainers are killed");
            Ok(())
        }
    };
    agent.end().await;
    ended
}

/// Counts SIGTERM and SIGINT.
fn signals() -> Result<watch::Receiver<u32>, Fault> {
    let mut signals = Signals::listen()?;
    let (asked, stop) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            signals.next().await;
            asked.send_modify(|asked| *asked += 1);
        }
    });
    Ok(stop)
}

/// The one line on stdout: whoever started us learns the port from it.
fn announce(id: WorkerId, server: Option<&Server>) -> Result<(), Fault> {
    let listening = server.map(|server| server.address().to_string());
    let line = serde_json::json!({ "worker": id, "listening": listening });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Fault::new(Code::LocalFile, format!("stdout is closed: {error}")))
}

impl Agent {
    /// Everything that can be refused before anything runs.
    async fn open(config: Config) -> Result<(Self, Option<Server>), Fault> {
        let trainer = config.trainer()?;
        let client = Client::new(&config.server)?;
        let address = config.address()?;
        let data = DataDir::open(&config.data_dir())?;
        let id = data.worker_id()?;
        let spool =
            Spool::open(&data.path(""), config.spool.max_bytes).map_err(|error| error.fault())?;
        let outbox = Outbox::open(&data.path("outbox"))?;
        let cache = data.path("cache");
        let cache = Cache::open(&cache, config.cache.max_bytes)
            .map_err(|error| cannot("use", &cache, &error))?;
        let features = Features::new(data.path("features"), config.features.max_bytes);
        let work = data.path("work");
        empty(&work)?;
        let server = match address {
            Some(address) => Some(Server::bind(address).await?),
            None => None,
        };
        let advertised = Some(config.advertise.clone()).filter(|address| !address.is_empty());
        let bound = server.as_ref().map(|server| server.address().to_string());
        let metrics = Metrics::new().map_err(|error| {
            Fault::new(Code::Internal, format!("metrics cannot be made: {error}"))
        })?;
        let slots = Box::pin(measure::slots(&config, &data, &trainer)).await;
        let tools = Tools {
            spool,
            logs: Arc::new(Logs::default()),
            metrics,
            desk: Desk::default(),
            slots: Arc::new(slots),
            outbox,
            trainer: Arc::new(trainer),
            launcher: Arc::new(process::LAUNCHER.into()),
            spares: Spares::default(),
            stop_grace: Duration::from_millis(config.trainer.stop_grace_ms),
            lines_per_s: config.log.trainer_lines_per_s,
        };
        let agent = Self {
            data,
            id,
            incarnation: rand::random(),
            metrics_address: bound.map(|bound| advertised.unwrap_or(bound)),
            yard: Yard {
                tools,
                cache,
                features,
                client,
                config: Arc::new(config),
                work: Arc::new(work),
                over: Arc::new(Notify::new()),
            },
            leases: BTreeMap::new(),
            upload: watch::Sender::default(),
            desired: Vec::new(),
            manners: Manners::default(),
            stop_by: None,
            flush_by: None,
        };
        Ok((agent, server))
    }

    /// Introduces itself, then polls until a stop is asked for and done.
    async fn live(&mut self, mut stop: watch::Receiver<u32>) -> Result<(), Fault> {
        tokio::select! {
            biased;
            _ = stop.wait_for(|asked| *asked > 0) => return Ok(()),
            met = self.introduce() => met?,
        }
        loop {
            self.tidy();
            if self.stop_by.is_none() && *stop.borrow_and_update() > 0 {
                self.begin_to_stop().await;
            }
            if self.has_stopped() {
                return Ok(());
            }
            self.act();
            let by = self.alarm();
            let turn = self.turn(&mut stop);
            // Whatever hangs, a stop has an end.
            let Some(by) = by else {
                turn.await?;
                continue;
            };
            if let Ok(turned) = tokio::time::timeout_at(by.into(), turn).await {
                turned?;
            } else {
                tracing::debug!("a poll was cut short by the stop");
            }
        }
    }

    fn alarm(&self) -> Option<Instant> {
        [self.stop_by, self.flush_by].into_iter().flatten().min()
    }

    /// One poll and what follows from it.
    async fn turn(&mut self, stop: &mut watch::Receiver<u32>) -> Result<(), Fault> {
        match self.poll(stop).await {
            Ok(Some(desired)) => {
                self.heard();
                self.take(desired);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(fault) => self.cope(fault, stop).await,
        }
    }

    /// Takes an answer: what is acknowledged is forgotten, what should run is remembered.
    fn take(&mut self, answer: Desired) {
        if let Err(error) = self.yard.tools.spool.ack(answer.acked_seq) {
            tracing::error!("an acknowledgement cannot be kept: {}", error.fault());
        }
        self.yard.tools.outbox.sweep(&self.yard.tools.spool);
        self.yard.features.evict(&answer.evict);
        if answer.want_features {
            self.yard.features.forget_telling();
        }
        self.upload.send_if_modified(|wanted| {
            let is_news = *wanted != answer.upload;
            *wanted = answer.upload;
            is_news
        });
        self.desired = answer.leases;
    }

    /// Gets features from other workers, and gives them some.
    fn share_features(&self) {
        let yard = &self.yard;
        let identity = (self.id, self.incarnation);
        let (client, features) = (yard.client.clone().attempts(1), yard.features.clone());
        let wanted = self.upload.subscribe();
        tokio::spawn(offer(client.clone(), identity, features.clone(), wanted));
        let fetcher = Fetcher {
            client,
            identity,
            features,
            desk: yard.tools.desk.clone(),
            logs: Arc::clone(&yard.tools.logs),
            metrics: yard.tools.metrics.clone(),
            rate: Rate::default(),
            tally: Tally::default(),
        };
        tokio::spawn(fetcher.run());
    }

    /// Starts trainers before there is work for them.
    fn keep_spares(&mut self) {
        let (config, tools) = (&self.yard.config, &self.yard.tools);
        let wanted = (config.trainer.spares as usize).min(tools.slots.list.len());
        let recipe = Recipe {
            launcher: tools.launcher.to_path_buf(),
            trainer: tools.trainer.to_path_buf(),
            environment: rank_environment(&tools.slots, (0, 0), 1),
            folder: self.yard.work.to_path_buf(),
        };
        let spares = Spares::new(wanted);
        self.yard.tools.spares = spares.clone();
        if wanted > 0 {
            tokio::spawn(spares.keep(recipe));
        }
    }

    /// Forgets leases that are over and acknowledged.
    fn tidy(&mut self) {
        let spool = &self.yard.tools.spool;
        self.leases
            .retain(|id, held| !held.task.is_finished() || spool.holds(*id));
        let live = self.leases.values().filter(|held| !held.task.is_finished());
        let live = i64::try_from(live.count()).unwrap_or(i64::MAX);
        self.yard.tools.metrics.leases.set(live);
    }

    /// Every lease that is known here: those of the table, and those whose reports are on their way.
    fn locals(&self) -> Vec<Local> {
        let held = self.leases.iter().map(|(lease, held)| Local {
            lease: *lease,
            generation: held.generation,
            slots: held.slots.clone(),
            phase: if held.task.is_finished() {
                Phase::Ended
            } else {
                let stop = match *held.wish.borrow() {
                    Wish::Run => None,
                    Wish::Stop => Some(StopKind::Checkpoint),
                    Wish::Kill => Some(StopKind::Kill),
                };
                Phase::Live { stop }
            },
        });
        let reported = self.yard.tools.spool.leases();
        let reported = reported
            .into_iter()
            .filter(|(id, _)| !self.leases.contains_key(id));
        let reported = reported.map(|(lease, generation)| Local {
            lease,
            generation,
            slots: Vec::new(),
            phase: Phase::Ended,
        });
        held.chain(reported).collect()
    }

    fn running(&self) -> Vec<Running> {
        let running = self.locals().into_iter().map(|local| Running {
            lease: local.lease,
            generation: local.generation,
        });
        running.collect()
    }

    /// Makes what runs become what should run.
    fn act(&mut self) {
        for desired in &self.desired {
            if let Some(held) = self.leases.get(&desired.lease) {
                held.learn(desired);
            }
        }
        for action in reconcile(&self.desired, &self.locals()) {
            match action {
                Action::Start(lease) if self.stop_by.is_none() => self.start(lease),
                Action::Start(lease) => {
                    tracing::debug!(lease.id = %lease, "not started: this worker stops");
                }
                Action::Stop(lease) => self.wish(lease, Wish::Stop),
                Action::Kill(lease) => self.kill(lease),
                Action::Decline(lease, how) => self.decline(lease, how),
            }
        }
    }

    fn find(&self, lease: LeaseId) -> Option<&DesiredLease> {
        self.desired.iter().find(|desired| desired.lease == lease)
    }

    fn start(&mut self, lease: LeaseId) {
        let Some(desired) = self.find(lease).cloned() else {
            return;
        };
        let owner = crate::work::told(&crate::work::owners(&desired.work));
        tracing::info!(lease.id = %lease, owner, ranks = desired.slots.len(), "starts");
        let (wish, wished) = watch::channel(Wish::Run);
        let (meets_at, told) = watch::channel(None);
        let unwanted = Arc::new(AtomicBool::new(false));
        let (generation, slots) = (desired.generation, desired.slots.clone());
        let life = Life {
            desired,
            since: Instant::now(),
            wish: wished,
            meets_at: told,
            unwanted: Arc::clone(&unwanted),
        };
        let task = tokio::spawn(self.yard.clone().live(life));
        let held = Held {
            generation,
            slots,
            wish,
            meets_at,
            unwanted,
            task,
        };
        if let Some(desired) = self.find(lease) {
            held.learn(desired);
        }
        self.leases.insert(lease, held);
    }

    fn wish(&self, lease: LeaseId, wish: Wish) {
        if let Some(held) = self.leases.get(&lease) {
            held.wish.send_modify(|now| *now = wish.max(*now));
        }
    }

    /// Ends a lease at once. What the coordinator does not know any more is not reported.
    fn kill(&self, lease: LeaseId) {
        if let Some(held) = self.leases.get(&lease) {
            let known = self.find(lease);
            if known.is_none_or(|desired| desired.generation != held.generation) {
                held.unwanted.store(true, Ordering::Relaxed);
            }
        }
        self.wish(lease, Wish::Kill);
    }

    fn decline(&self, lease: LeaseId, how: StopKind) {
        let Some(desired) = self.find(lease) else {
            return;
        };
        let outcome = match how {
            StopKind::Checkpoint => Outcome::Stopped,
            StopKind::Kill => Outcome::Killed,
        };
        let exit = ReportBody::Exited { outcome };
        let spool = &self.yard.tools.spool;
        if let Err(error) = spool.put(lease, desired.generation, exit, Vec::new()) {
            tracing::error!(lease.id = %lease, "an exit cannot be kept: {}", error.fault());
        }
    }

    async fn begin_to_stop(&mut self) {
        tracing::info!("asked to stop: trainers write a checkpoint and end");
        let grace = self.yard.tools.stop_grace;
        self.stop_by = Some(Instant::now() + grace + FLUSH);
        for lease in self.leases.keys() {
            self.wish(*lease, Wish::Stop);
        }
        self.drain().await;
    }

    /// Whether a stop that was asked for is done, or has taken long enough.
    fn has_stopped(&mut self) -> bool {
        let Some(stop_by) = self.stop_by else {
            return false;
        };
        let now = Instant::now();
        if now >= stop_by {
            return true;
        }
        if self.leases.values().any(|held| !held.task.is_finished()) {
            return false;
        }
        let flush_by = *self.flush_by.get_or_insert(now + FLUSH);
        self.yard.tools.spool.is_empty() || now >= flush_by
    }

    /// Ends whatever still runs.
    async fn end(&mut self) {
        let left = std::mem::take(&mut self.leases);
        for held in left.values() {
            held.task.abort();
        }
        for held in left.into_values() {
            // Aborted or done: in both cases its processes are.
            let _ = held.task.await;
        }
        let spool = &self.yard.tools.spool;
        if spool.is_empty() {
            tracing::info!("stopped");
        } else {
            let bytes = spool.bytes();
            tracing::info!(bytes, "stopped; what was not delivered is on disk");
        }
    }
}

/// Makes a folder that is there and empty.
fn empty(folder: &Path) -> Result<(), Fault> {
    let gone = match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    gone.and_then(|()| std::fs::create_dir_all(folder))
        .map_err(|error| cannot("empty", folder, &error))
}
