//! The supervisor of one lease: starts its processes, turns what they say into reports, and ends
//! them when they are asked to end, lose one of them, stall or run out of time.
//!
//! It must never let a rank outlive its lease, and never report what a rank did not say.

mod crew;
mod ear;
mod end;
mod log;
mod program;
mod reports;
mod share;

use pomona_api::PROTOCOL;
use pomona_api::trainer::{Event, TrainerWork};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::worker::Slot;
use pomona_domain::{Code, Fault, Generation, LeaseId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

use crate::fetch::Desk;
use crate::logs::Logs;
use crate::metrics::{Metrics, Progress};
use crate::process;
use crate::ship::Outbox;
use crate::slots::Slots;
use crate::spare::Spares;
use crate::spool::Spool;
use crate::watch::{Limits, Watch};
use crate::work::Job;
pub use crew::rank_environment;
use crew::{Crew, Said};
use end::{Cause, End, Status, Whose, Word};
pub use share::Share;

/// When a rank blames its peers, how long they may take to say why.
const PEERS_GRACE: Duration = Duration::from_secs(1);
/// A group that did not end at a kill is killed again after this long.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// What every lease of a worker needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Where reports go.
    pub spool: Spool,
    /// Where log lines go.
    pub logs: Arc<Logs>,
    /// What is counted.
    pub metrics: Metrics,
    /// Features that ranks miss.
    pub desk: Desk,
    /// The machine.
    pub slots: Arc<Slots>,
    /// Files on their way to the store.
    pub outbox: Outbox,
    /// The program that ranks are.
    pub trainer: Arc<PathBuf>,
    /// The program that ties them to this process: [`process::LAUNCHER`].
    pub launcher: Arc<PathBuf>,
    /// Trainers that wait for work.
    pub spares: Spares,
    /// From asking to killing.
    pub stop_grace: Duration,
    /// Lines of a rank's stderr that are forwarded in a second.
    pub lines_per_s: u32,
}

/// One lease to run.
#[derive(Debug, Clone)]
pub struct Order {
    /// The lease.
    pub lease: LeaseId,
    /// Its generation.
    pub generation: Generation,
    /// Whom its log lines belong to.
    pub owners: Vec<String>,
    /// One slot for each rank that is here.
    pub slots: Vec<Slot>,
    /// Which ranks of the lease those are.
    pub share: Share,
    /// Time it may still take.
    pub time_left: Option<Duration>,
    /// When it counts as stalled.
    pub limits: Limits,
    /// What its ranks are.
    pub job: Job,
    /// The folder it runs in.
    pub folder: PathBuf,
    /// The folder in it that it writes to.
    pub output: PathBuf,
}

/// What is wanted of a lease; it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Wish {
    /// Run.
    #[default]
    Run,
    /// Write a checkpoint and end.
    Stop,
    /// End now; what is said from now on does not count.
    Kill,
}

/// Runs the lease to its end: all processes are gone when this returns.
pub async fn supervise(tools: &Tools, order: &Order, mut wish: watch::Receiver<Wish>) -> Outcome {
    let starved = process::oom_kills();
    let _until_its_end = tools.desk.of(order.lease);
    let killed = async |wish: &mut watch::Receiver<Wish>| {
        if wish.wait_for(|wish| *wish == Wish::Kill).await.is_err() {
            // Nobody is left to wish for anything.
            std::future::pending::<()>().await;
        }
    };
    let started = tokio::select! {
        started = Crew::start(tools, order) => started,
        () = killed(&mut wish) => return Outcome::Killed,
    };
    let crew = match started {
        Ok(crew) => crew,
        Err(fault) => return Outcome::NotStarted { fault },
    };
    let mut supervisor = Supervisor::new(tools, order, crew);
    supervisor.run(&mut wish).await;
    supervisor.outcome(process::oom_kills() > starved)
}

/// What is known of one rank.
#[derive(Debug, Default)]
struct Rank {
    progress: Option<Progress>,
    started: bool,
    word: Option<Word>,
    end: Option<End>,
}

struct Supervisor<'a> {
    tools: &'a Tools,
    order: &'a Order,
    crew: Crew,
    watch: Watch,
    /// A rank waits for room in the spool: that is our doing.
    held: bool,
    ranks: Vec<Rank>,
    environment: BTreeMap<String, String>,
    wish: Wish,
    cause: Option<Cause>,
    time_over: Option<Instant>,
    grace_over: Option<Instant>,
    peers_over: Option<Instant>,
    kill_again: Option<Instant>,
}

impl<'a> Supervisor<'a> {
    fn new(tools: &'a Tools, order: &'a Order, crew: Crew) -> Self {
        let now = Instant::now();
        Self {
            tools,
            order,
            crew,
            watch: Watch::new(order.limits, now),
            held: false,
            ranks: (0..order.ranks()).map(|_| Rank::default()).collect(),
            environment: BTreeMap::new(),
            wish: Wish::Run,
            cause: None,
            time_over: order.time_left.map(|left| now + left),
            grace_over: None,
            peers_over: None,
            kill_again: None,
        }
    }

    async fn run(&mut self, wish: &mut watch::Receiver<Wish>) {
        let mut may_wish = true;
        let first = *wish.borrow_and_update();
        self.wanted(first).await;
        while self.crew.is_alive() {
            let alarm = self.alarm();
            tokio::select! {
                said = self.crew.said.recv() => match said {
                    Some(said) => self.hear(said),
                    None => return,
                },
                changed = wish.changed(), if may_wish => match changed {
                    Ok(()) => {
                        let now = *wish.borrow_and_update();
                        self.wanted(now).await;
                    }
                    Err(_) => may_wish = false,
                },
                () = sleep_until(alarm) => self.overdue(Instant::now()),
            }
        }
    }

    async fn wanted(&mut self, wish: Wish) {
        if wish <= self.wish {
            return;
        }
        self.wish = wish;
        self.tools.desk.over(self.order.lease);
        match wish {
            Wish::Run => {}
            Wish::Stop => {
                self.grace_over = Some(Instant::now() + self.tools.stop_grace);
                self.crew.stop().await;
            }
            Wish::Kill => {
                self.crew.abandon();
                self.end_for(Cause::Asked);
            }
        }
    }

    /// When something is overdue.
    fn alarm(&self) -> Option<Instant> {
        if self.cause.is_some() {
            return self.kill_again;
        }
        let stalled = self.may_stall().then(|| self.watch.deadline());
        let all = [stalled, self.time_over, self.grace_over, self.peers_over];
        all.into_iter().flatten().min()
    }

    /// Whether silence means anything: not while it waits for us, and not of a program of one's own
    /// that has told no step yet.
    fn may_stall(&self) -> bool {
        let tells = match self.order.job {
            Job::Trainer(_) => true,
            Job::Program(_) => self.watch.has_stepped(),
        };
        tells && !self.held
    }

    fn overdue(&mut self, now: Instant) {
        if self.cause.is_some() {
            let lease = self.order.lease;
            tracing::warn!(lease.id = %lease, "ranks do not end; they are killed again");
            self.crew.kill();
            self.kill_again = Some(now + KILL_AGAIN);
            return;
        }
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let over = |code, text: String| Cause::Limit(Fault::new(code, text));
        let cause = if is_over(self.peers_over) {
            Cause::RankLost
        } else if is_over(self.grace_over) {
            Cause::GraceOver
        } else if is_over(self.time_over) {
            let text = format!("its time limit is over at step {}", self.watch.step());
            over(Code::TimeLimit, text)
        } else if self.may_stall() && self.watch.deadline() <= now {
            let seconds = self.watch.allowance().as_secs_f64();
            let step = self.watch.step();
            let text = format!("it made no step for {seconds:.1} s after step {step}");
            over(Code::Stalled, text)
        } else {
            return;
        };
        self.end_for(cause);
    }

    /// Kills the group for a reason; the first reason counts.
    fn end_for(&mut self, cause: Cause) {
        if self.cause.is_none() {
            let lease = self.order.lease;
            tracing::debug!(lease.id = %lease, ?cause, "the lease's processes are ended");
            self.cause = Some(cause);
        }
        self.crew.kill();
        self.kill_again = Some(Instant::now() + KILL_AGAIN);
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Event { rank, event } => {
                self.held = false;
                if self.wish != Wish::Kill {
                    self.event(rank, *event);
                }
            }
            Said::Held => {
                self.held = true;
                let lease = self.order.lease;
                tracing::warn!(lease.id = %lease, "the spool is full: the trainer waits");
            }
            Said::Overlong { rank } => {
                let text = format!("a line of rank {rank} is too long to be an answer");
                let fault = Fault::new(Code::TooLarge, text);
                let retry = false;
                self.end_for(Cause::Broken(Outcome::Failed { fault, retry }));
            }
            Said::Broken { fault } => {
                let retry = false;
                self.end_for(Cause::Broken(Outcome::Failed { fault, retry }));
            }
            Said::Gone { rank, status, tail } => {
                let killed = self.cause.is_some();
                let asked = self.wish == Wish::Stop;
                let Some(state) = self.ranks.get_mut(rank as usize) else {
                    return;
                };
                let status = status.map_or(Status::Unknown, Status::from);
                let (word, status) = match self.order.job {
                    Job::Trainer(_) => (state.word.clone(), status),
                    Job::Program(_) => end::of_program(status, asked && !killed),
                };
                let end = End {
                    word,
                    status,
                    started: state.started,
                    killed,
                    tail,
                };
                let (good, blames_peers) = (end.is_good(), end.blames_peers());
                state.end = Some(end);
                let last = self.crew.gone();
                if good || last || killed {
                    return;
                }
                if blames_peers {
                    let over = Instant::now() + PEERS_GRACE;
                    self.peers_over = Some(self.peers_over.unwrap_or(over));
                } else {
                    self.end_for(Cause::RankLost);
                }
            }
            Said::StoreGone { tail } => {
                let said = end::last_words(&tail);
                let text = format!("the c10d store of the lease ended before its ranks{said}");
                let fault = Fault::new(Code::RankLost, text);
                self.end_for(Cause::Broken(Outcome::Crashed { fault }));
            }
        }
    }

    fn event(&mut self, rank: u32, event: Event) {
        let now = Instant::now();
        if !matches!(event, Event::Progress { .. }) {
            self.watch.touch(now);
        }
        let Some(state) = self.ranks.get_mut(rank as usize) else {
            return;
        };
        match event {
            Event::Started {
                protocol,
                environment,
                ..
            } => {
                state.started = true;
                self.started(rank, protocol, environment);
            }
            Event::Progress {
                step,
                samples,
                data_wait_seconds,
                step_seconds,
                ..
            } => {
                self.watch.progress(now, step);
                let said = Progress {
                    step,
                    samples,
                    data_wait_seconds,
                    step_seconds,
                };
                let before = state.progress.unwrap_or(Progress {
                    // A process that resumes begins at a step that others did.
                    step: step.saturating_sub(u64::from(samples > 0)),
                    ..Progress::default()
                });
                state.progress = Some(said);
                if self.order.is_trial() {
                    let rank = self.order.share.rank(rank);
                    self.tools.metrics.progressed(rank, before, said);
                }
            }
            // It has touched the watch.
            Event::Evaluating { .. } => {}
            Event::FeaturesMissing { shards, .. } => {
                let (lease, owners) = (self.order.lease, &self.order.owners);
                self.tools.desk.misses((lease, rank), owners, shards);
            }
            Event::FeaturesPace { bytes_per_s, .. } => {
                let who = (self.order.lease, rank);
                self.tools.desk.computes(who, bytes_per_s);
            }
            Event::Features { result, .. } => {
                self.tools.desk.has((self.order.lease, rank));
                self.tools.metrics.asked_for_features(result);
            }
            Event::Finished {} => state.word = Some(Word::Finished),
            Event::Stopped {} => state.word = Some(Word::Stopped),
            Event::Failed { fault, retry } => state.word = Some(Word::Failed { fault, retry }),
            event @ (Event::Observed { .. }
            | Event::Checkpoint { .. }
            | Event::TrialEnded { .. }
            | Event::Result { .. }) => {
                if self.order.share.rank(rank) == 0 {
                    self.report(event);
                }
            }
        }
    }

    fn started(&mut self, rank: u32, protocol: u32, environment: BTreeMap<String, String>) {
        if protocol != PROTOCOL {
            let text = format!("the trainer speaks protocol {protocol}, this worker {PROTOCOL}");
            let fault = Fault::new(Code::VersionMismatch, text)
                .hint("install worker and trainer of one version");
            return self.end_for(Cause::Broken(Outcome::NotStarted { fault }));
        }
        if rank == 0 {
            self.environment = environment;
        }
        if self.order.share.leads() && self.ranks.iter().all(|rank| rank.started) {
            let environment = std::mem::take(&mut self.environment);
            self.put(ReportBody::Started { environment }, Vec::new());
        }
    }

    fn outcome(self, starved: bool) -> Outcome {
        let ends: Vec<End> = self
            .ranks
            .into_iter()
            .map(|rank| {
                rank.end.unwrap_or(End {
                    word: rank.word,
                    status: Status::Unknown,
                    started: rank.started,
                    killed: self.cause.is_some(),
                    tail: Vec::new(),
                })
            })
            .collect();
        let whose = match self.order.job {
            Job::Trainer(_) => Whose::Trainer,
            Job::Program(_) => Whose::Program,
        };
        let ranks = self.order.numbers();
        end::outcome(self.cause.as_ref(), &ends, (whose, ranks), starved)
    }
}

impl Order {
    fn is_trial(&self) -> bool {
        matches!(
            self.job,
            Job::Trainer(TrainerWork::Train(_)) | Job::Program(_)
        )
    }

    fn ranks(&self) -> usize {
        self.job.ranks(self.slots.len())
    }

    /// The number of its first rank here, when it has others.
    fn numbers(&self) -> Option<u32> {
        (self.share.is_wide() || self.ranks() > 1).then(|| self.share.rank(0))
    }
}

/// Resolves at a moment, or never.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
