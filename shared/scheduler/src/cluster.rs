//! What the scheduler remembers: everything that has not ended, and the newest of what is kept.
//!
//! Rows are facts from the store and change only by [`Cluster::apply`]. Beside them is soft state
//! (when a worker was last heard of, back-off of tasks, starts that failed), which is never
//! committed and may be lost: it changes when something happens, never whether it is right.

use imbl::{OrdMap, OrdSet};
use pomona_domain::backbone::Backbone;
use pomona_domain::change::{Change, Subject};
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::dataset::Dataset;
use pomona_domain::experiment::Experiment;
use pomona_domain::gate::{GateFact, TestUse};
use pomona_domain::lease::{EndKind, Generation, Lease, LeaseState, Work};
use pomona_domain::model::{Alias, AliasMove, Lineage, Removal, Version};
use pomona_domain::policy::Policy;
use pomona_domain::snapshot::Snapshot;
use pomona_domain::task::{Task, TaskSpec, TaskState};
use pomona_domain::trial::Trial;
use pomona_domain::worker::{Worker, WorkerState};
use pomona_domain::{Digest, ExperimentId, LeaseId, TaskId, Timestamp, TrialId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod health;
mod read;
mod tally;

use tally::Tally;

use health::Ward;

/// Terms and limits, and what the operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A lease whose worker is silent for longer is over.
    pub lease_term_ms: i64,
    /// A lease that was asked to stop and has not after this long is revoked.
    pub stop_grace_ms: i64,
    /// Wait after the first crash; it doubles with each.
    pub backoff_base_ms: i64,
    /// The longest wait after a crash.
    pub backoff_max_ms: i64,
    /// A worker that is silent for longer is lost and gets nothing new.
    pub lost_after_ms: i64,
    /// Crashes a task survives, plus one.
    pub max_task_attempts: u32,
    /// Trials of one experiment that are made ahead and wait; the searcher is asked for more when
    /// there are fewer. A limit on memory, not on what runs. What learns from results (TPE) makes
    /// one, when there is a slot for it.
    pub queue_ahead: u32,
    /// After this many starts in a row that failed, a worker gets work only when no other can, and
    /// a trial is started alone.
    pub doubt_after: u32,
    /// Most trials that share a lease.
    pub max_members: u32,
    /// An experiment or task that waits and holds no slot gains a point of priority each time so
    /// much time has passed; 0: never.
    pub aging_ms: i64,
    /// A trial takes slots from those whose priority is lower by at least so many points; 0: never.
    pub preempt_gap: u32,
    /// A lease is not preempted before it was held so long.
    pub preempt_after_ms: i64,
    /// After failures of so many different trials a worker is excluded; 0: never.
    pub exclude_after: u32,
    /// Failures are forgotten after so long.
    pub exclude_window_ms: i64,
    /// How long a worker's first exclusion lasts; it doubles with each that follows.
    pub exclude_base_ms: i64,
    /// The longest exclusion.
    pub exclude_max_ms: i64,
    /// A test split that decides about more promotions is called out.
    pub max_test_uses: u32,
    /// Projects and pools.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_term_ms: 30_000,
            stop_grace_ms: 30_000,
            backoff_base_ms: 1_000,
            backoff_max_ms: 300_000,
            lost_after_ms: 30_000,
            max_task_attempts: 3,
            queue_ahead: 256,
            doubt_after: 3,
            max_members: 64,
            aging_ms: 600_000,
            preempt_gap: 10,
            preempt_after_ms: 120_000,
            exclude_after: 3,
            exclude_window_ms: 3_600_000,
            exclude_base_ms: 300_000,
            exclude_max_ms: 7_200_000,
            max_test_uses: 20,
            policy: Policy::default(),
        }
    }
}

impl Config {
    /// How long to wait after the `n`-th failure (from 1).
    pub fn backoff_ms(&self, n: u32) -> i64 {
        doubled(self.backoff_base_ms, n, self.backoff_max_ms)
    }

    /// How long the `n`-th exclusion in a row (from 1) lasts.
    pub fn exclusion_ms(&self, n: u32) -> i64 {
        doubled(self.exclude_base_ms, n, self.exclude_max_ms)
    }
}

fn doubled(base_ms: i64, n: u32, max_ms: i64) -> i64 {
    let doublings = n.saturating_sub(1).min(40);
    base_ms.saturating_mul(1_i64 << doublings).min(max_ms)
}

/// What a publish task needs of a trial that has ended, whether its experiment is in memory or not.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The trial.
    pub trial: &'a Trial,
    /// Its best checkpoint.
    pub checkpoint: Option<&'a Checkpoint>,
}

impl Source<'_> {
    /// What validation measured at the very step of the checkpoint; nothing when the checkpoint of
    /// the best point never arrived and an older one is kept.
    pub fn validation(&self) -> Option<&BTreeMap<String, f64>> {
        let best = self.trial.best.as_ref()?;
        (self.checkpoint?.step == best.step).then_some(&best.metrics)
    }

    /// Where a version made of it comes from (R4).
    pub fn lineage(&self) -> Option<Lineage> {
        let checkpoint = self.checkpoint?;
        Some(Lineage {
            experiment: self.experiment.id,
            trial: self.trial.id,
            step: checkpoint.step,
            seed: self.experiment.spec.seed,
            checkpoint: checkpoint.digest,
            dataset: self.experiment.dataset?,
            backbone: self.experiment.backbone?,
            code: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

/// Ended rows handed back to memory, because a publish task needs them.
#[derive(Debug, Clone, PartialEq)]
pub struct Recalled {
    /// The experiment.
    pub experiment: Experiment,
    /// The trial.
    pub trial: Trial,
    /// Its best checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

/// Everything the scheduler remembers. What may be large lies in maps that share what a copy has not
/// changed: each decision works on a copy, and each commit shows one.
#[derive(Debug, Clone)]
pub struct Cluster {
    config: Arc<Config>,
    experiments: OrdMap<ExperimentId, Arc<Experiment>>,
    trials: OrdMap<TrialId, Arc<Trial>>,
    tallies: OrdMap<ExperimentId, Tally>,
    leases: OrdMap<LeaseId, Arc<Lease>>,
    /// Which live leases hold slots of which worker.
    held: OrdSet<(WorkerId, LeaseId)>,
    workers: OrdMap<WorkerId, Arc<Worker>>,
    tasks: OrdMap<TaskId, Arc<Task>>,
    checkpoints: OrdMap<(TrialId, CheckpointKind), Checkpoint>,
    datasets: OrdMap<String, Arc<Dataset>>,
    backbones: OrdMap<String, Arc<Backbone>>,
    versions: OrdMap<String, Arc<Version>>,
    /// Checkpoints that versions were made of.
    published: OrdSet<Digest>,
    /// Versions that were deleted; their numbers are never given again.
    deleted_versions: OrdSet<(String, u32)>,
    /// Deleted ones stay, for their revisions.
    aliases: OrdMap<(String, String), Alias>,
    /// Split and place → use.
    test_uses: OrdMap<(Digest, u32), TestUse>,
    generation: Generation,
    soft: Soft,
}

/// What may be lost.
#[derive(Debug, Clone, Default)]
struct Soft {
    heard: OrdMap<WorkerId, Timestamp>,
    /// Workers that were read from the store and not heard of since.
    unheard: OrdSet<WorkerId>,
    strikes: BTreeMap<Subject, u32>,
    ward: Ward,
    task_not_before: BTreeMap<TaskId, Timestamp>,
    recalled: BTreeMap<TrialId, Arc<Recalled>>,
    /// Ended trials whose checkpoints were deleted since memory was read: rows that were read
    /// before may come with an event afterwards.
    deleted: BTreeSet<TrialId>,
}

impl Cluster {
    /// Nothing yet.
    pub fn new(config: Config) -> Self {
        Self::restore(Snapshot::default(), config, Timestamp::default())
    }

    /// What the store remembers. Every live lease gets a full term from `now`; a worker gets
    /// nothing new before it is heard of, for it may be gone for long.
    pub fn restore(snapshot: Snapshot, config: Config, now: Timestamp) -> Self {
        let mut cluster = Self {
            config: Arc::new(config),
            experiments: OrdMap::new(),
            trials: OrdMap::new(),
            tallies: OrdMap::new(),
            leases: OrdMap::new(),
            held: OrdSet::new(),
            workers: OrdMap::new(),
            tasks: OrdMap::new(),
            checkpoints: OrdMap::new(),
            datasets: OrdMap::new(),
            backbones: OrdMap::new(),
            versions: OrdMap::new(),
            published: snapshot.published.into_iter().collect(),
            deleted_versions: snapshot.deleted_versions.into_iter().collect(),
            aliases: OrdMap::new(),
            test_uses: (snapshot.test_uses.into_iter())
                .map(|row| ((row.split, row.place), row))
                .collect(),
            generation: snapshot.generation,
            soft: Soft::default(),
        };
        let rows = (snapshot.experiments.into_iter())
            .map(|row| Change::Experiment(Box::new(row)))
            .chain((snapshot.trials.into_iter()).map(|row| Change::Trial(Box::new(row))))
            .chain((snapshot.workers.into_iter()).map(|row| Change::Worker(Box::new(row))))
            .chain((snapshot.tasks.into_iter()).map(|row| Change::Task(Box::new(row))))
            .chain((snapshot.leases.into_iter()).map(|row| Change::Lease(Box::new(row))))
            .chain((snapshot.checkpoints.into_iter()).map(Change::Checkpoint))
            .chain((snapshot.datasets.into_iter()).map(|row| Change::Dataset(Box::new(row))))
            .chain((snapshot.backbones.into_iter()).map(|row| Change::Backbone(Box::new(row))))
            .chain((snapshot.versions.into_iter()).map(|row| Change::Version(Box::new(row))));
        for row in rows {
            cluster.apply(now, &row);
        }
        for alias in snapshot.aliases {
            let key = (alias.model.clone(), alias.alias.clone());
            cluster.aliases.insert(key, alias);
        }
        cluster.soft.unheard = cluster.workers.keys().copied().collect();
        cluster
    }

    /// The rows, sorted by id: equals what the store loads (S10).
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            experiments: owned(self.experiments.values()),
            trials: owned(self.trials.values()),
            leases: owned(self.leases.values()),
            workers: owned(self.workers.values()),
            tasks: owned(self.tasks.values()),
            checkpoints: self.checkpoints.values().cloned().collect(),
            datasets: owned(self.datasets.values()),
            backbones: owned(self.backbones.values()),
            versions: owned(self.versions.values()),
            published: self.published.iter().copied().collect(),
            deleted_versions: self.deleted_versions.iter().cloned().collect(),
            aliases: self.aliases.values().cloned().collect(),
            test_uses: self.test_uses.values().cloned().collect(),
            generation: self.generation,
        }
    }

    /// Makes a committed fact visible. What has ended is dropped.
    pub fn apply(&mut self, now: Timestamp, change: &Change) {
        match change {
            Change::Experiment(row) => self.apply_experiment(row),
            Change::Trial(row) => self.apply_trial(row),
            Change::Lease(row) => self.apply_lease(row),
            Change::Worker(row) => self.apply_worker(now, row),
            Change::Task(row) => self.apply_task(now, row),
            Change::Checkpoint(row) => {
                if self.trials.contains_key(&row.trial) {
                    self.checkpoints.insert((row.trial, row.kind), row.clone());
                }
            }
            Change::CheckpointDeleted(trial, kind) => {
                self.checkpoints.remove(&(*trial, *kind));
                if !self.trials.contains_key(trial) {
                    self.soft.deleted.insert(*trial);
                    self.soft.recalled.remove(trial);
                }
            }
            Change::Dataset(row) => {
                self.datasets
                    .insert(row.name.clone(), Arc::new((**row).clone()));
            }
            Change::Backbone(row) => {
                self.backbones
                    .insert(row.name.clone(), Arc::new((**row).clone()));
            }
            Change::Version(row) => {
                if let Some(lineage) = row.trained() {
                    self.published.insert(lineage.checkpoint);
                }
                self.versions
                    .insert(row.model.clone(), Arc::new((**row).clone()));
            }
            Change::AliasMoved(moved) => self.apply_alias(moved),
            Change::Removed(removal) => self.apply_removal(removal),
            Change::Gates(GateFact::Used(row)) => {
                self.test_uses.insert((row.split, row.place), row.clone());
            }
            Change::Observed(_)
            | Change::Described(_)
            | Change::Reason(_)
            | Change::Audited(_)
            | Change::Gates(_) => {}
        }
    }

    fn apply_experiment(&mut self, row: &Experiment) {
        if !row.is_ended() {
            self.experiments.insert(row.id, Arc::new(row.clone()));
            self.tallies.entry(row.id).or_default();
            return;
        }
        self.experiments.insert(row.id, Arc::new(row.clone()));
        let wanted: Vec<TrialId> = self.publish_trials().collect();
        for trial in wanted {
            if self
                .trials
                .get(&trial)
                .is_some_and(|t| t.experiment == row.id)
                && let Some(source) = self.source(trial)
            {
                let recalled = Recalled {
                    experiment: source.experiment.clone(),
                    trial: source.trial.clone(),
                    checkpoint: source.checkpoint.cloned(),
                };
                self.soft.recalled.insert(trial, Arc::new(recalled));
            }
        }
        self.experiments.remove(&row.id);
        let tally = self.tallies.remove(&row.id).unwrap_or_default();
        for trial in tally.numbers.values() {
            self.trials.remove(trial);
            self.checkpoints.remove(&(*trial, CheckpointKind::Last));
            self.checkpoints.remove(&(*trial, CheckpointKind::Best));
            self.soft.strikes.remove(&Subject::Trial(*trial));
        }
    }

    fn apply_trial(&mut self, row: &Trial) {
        // A decision may end an experiment by a row that stands before those of its trials.
        let Some(tally) = self.tallies.get_mut(&row.experiment) else {
            return;
        };
        let row = Arc::new(row.clone());
        tally.count(&row, self.trials.get(&row.id).map(AsRef::as_ref));
        self.trials.insert(row.id, row);
    }

    fn apply_lease(&mut self, row: &Lease) {
        self.generation = self.generation.max(row.generation);
        let LeaseState::Ended { at, kind, .. } = &row.state else {
            let known = self.leases.insert(row.id, Arc::new(row.clone()));
            if known.is_none() {
                let on = row.workers().into_iter();
                self.held.extend(on.map(|worker| (worker, row.id)));
            }
            return;
        };
        self.leases.remove(&row.id);
        for worker in row.workers() {
            self.held.remove(&(worker, row.id));
        }
        // A lease that one of several workers broke says nothing about the others.
        let workers = match row.culprit() {
            Some(part) if *kind != EndKind::Finished => vec![part.worker],
            Some(_) | None => row.workers(),
        };
        let on = workers.iter().copied().map(Subject::Worker);
        for subject in subjects(&row.work).chain(on) {
            if *kind == EndKind::NotStarted {
                *self.soft.strikes.entry(subject).or_default() += 1;
            } else {
                self.soft.strikes.remove(&subject);
            }
        }
        for worker in workers {
            let mut whose = subjects(&row.work);
            let alone = whose.next().filter(|_| whose.next().is_none());
            let ward = &mut self.soft.ward;
            ward.note(&self.config, worker, alone, (*kind, *at));
        }
    }

    fn apply_worker(&mut self, now: Timestamp, row: &Worker) {
        let fresh = self
            .workers
            .get(&row.id)
            .is_none_or(|old| old.incarnation != row.incarnation || old.state == WorkerState::Lost);
        if fresh {
            self.soft.heard.insert(row.id, now);
            self.soft.unheard.remove(&row.id);
            self.soft.strikes.remove(&Subject::Worker(row.id));
        }
        if self
            .workers
            .get(&row.id)
            .is_some_and(|old| old.incarnation != row.incarnation)
        {
            self.soft.ward.forget(row.id);
        }
        self.workers.insert(row.id, Arc::new(row.clone()));
    }

    fn apply_task(&mut self, now: Timestamp, row: &Task) {
        if row.is_ended() {
            self.tasks.remove(&row.id);
            self.soft.task_not_before.remove(&row.id);
            self.soft.strikes.remove(&Subject::Task(row.id));
            let wanted: BTreeSet<TrialId> = self.publish_trials().collect();
            self.soft.recalled.retain(|trial, _| wanted.contains(trial));
            return;
        }
        let failures = row.attempts + self.strikes(Subject::Task(row.id));
        if row.state == TaskState::Waiting && failures > 0 {
            let until = now.plus_ms(self.config.backoff_ms(failures));
            self.soft.task_not_before.insert(row.id, until);
        }
        self.tasks.insert(row.id, Arc::new(row.clone()));
    }

    fn apply_alias(&mut self, moved: &AliasMove) {
        let alias = Alias {
            model: moved.model.clone(),
            alias: moved.alias.clone(),
            number: moved.to,
            revision: moved.revision,
            deleted: moved.deleted,
        };
        self.aliases
            .insert((moved.model.clone(), moved.alias.clone()), alias);
    }

    fn apply_removal(&mut self, removal: &Removal) {
        match removal {
            Removal::Version { model, number, .. } => {
                self.deleted_versions.insert((model.clone(), *number));
            }
            Removal::Model { model, .. } => {
                let newest = self.versions.get(model).map_or(0, |row| row.number);
                let all = (1..=newest).map(|number| (model.clone(), number));
                self.deleted_versions.extend(all);
            }
            Removal::Renamed { model, to, .. } => {
                if let Some(mut row) = self.versions.remove(model) {
                    Arc::make_mut(&mut row).rename(to);
                    self.versions.insert(to.clone(), row);
                }
                let gone = std::mem::take(&mut self.deleted_versions);
                let named = |name: String| if name == *model { to.clone() } else { name };
                self.deleted_versions = (gone.into_iter())
                    .map(|(name, number)| (named(name), number))
                    .collect();
                let aliases = std::mem::take(&mut self.aliases);
                for ((name, alias), mut row) in aliases {
                    let name = named(name);
                    row.model.clone_from(&name);
                    self.aliases.insert((name, alias), row);
                }
            }
        }
    }

    /// A worker was heard of: its leases have a full term again. Soft state, no commit.
    pub fn touch(&mut self, worker: WorkerId, now: Timestamp) {
        if self.workers.contains_key(&worker) {
            let heard = self.soft.heard.entry(worker).or_insert(now);
            *heard = now.max(*heard);
            self.soft.unheard.remove(&worker);
        }
    }

    /// Hands the rows of an ended trial back, for a publish task: before the task's event is
    /// decided, and after a restart for each of [`Cluster::missing_sources`].
    pub fn recall(&mut self, rows: Recalled) {
        self.soft.recalled.insert(rows.trial.id, Arc::new(rows));
    }

    /// Trials that a live publish task needs and that are not in memory.
    pub fn missing_sources(&self) -> Vec<TrialId> {
        self.publish_trials()
            .filter(|trial| self.source(*trial).is_none())
            .collect()
    }

    /// Trials whose best checkpoint is being published.
    pub(crate) fn publish_trials(&self) -> impl Iterator<Item = TrialId> + '_ {
        self.tasks.values().filter_map(|task| match &task.spec {
            TaskSpec::Publish { trial, .. } => Some(*trial),
            TaskSpec::ImportDataset { .. }
            | TaskSpec::ImportBackbone { .. }
            | TaskSpec::Predict { .. } => None,
        })
    }
}

/// Whom work is about.
pub(crate) fn subjects(work: &Work) -> impl Iterator<Item = Subject> + '_ {
    let (trials, task): (&[TrialId], Option<TaskId>) = match work {
        Work::Trials(trials) => (trials, None),
        Work::Task(task) => (&[], Some(*task)),
    };
    (trials.iter().map(|trial| Subject::Trial(*trial))).chain(task.map(Subject::Task))
}

fn owned<'a, V: Clone + 'a>(rows: impl Iterator<Item = &'a Arc<V>>) -> Vec<V> {
    rows.map(|row| (**row).clone()).collect()
}
