//! Reading the cluster: rows by id, rows of an owner, and what is soft.

use super::{Cluster, Config, Source};
use pomona_domain::backbone::Backbone;
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::dataset::Dataset;
use pomona_domain::experiment::Experiment;
use pomona_domain::gate::TestUse;
use pomona_domain::lease::{Generation, Lease, Work};
use pomona_domain::model::{Alias, Version};
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::{Worker, WorkerState};
use pomona_domain::{Digest, ExperimentId, LeaseId, TaskId, Timestamp, TrialId, WorkerId};

impl Cluster {
    /// Terms and limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The highest generation ever given.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Experiments that have not ended, by id.
    pub fn experiments(&self) -> impl Iterator<Item = &Experiment> {
        self.experiments.values().map(AsRef::as_ref)
    }

    /// An experiment that has not ended.
    pub fn experiment(&self, id: ExperimentId) -> Option<&Experiment> {
        self.experiments.get(&id).map(AsRef::as_ref)
    }

    /// Trials of experiments that have not ended, by id.
    pub fn trials(&self) -> impl Iterator<Item = &Trial> {
        self.trials.values().map(AsRef::as_ref)
    }

    /// A trial of an experiment that has not ended.
    pub fn trial(&self, id: TrialId) -> Option<&Trial> {
        self.trials.get(&id).map(AsRef::as_ref)
    }

    /// Trials of an experiment, by number.
    pub fn trials_of(&self, experiment: ExperimentId) -> impl Iterator<Item = &Trial> {
        let numbers =
            (self.tallies.get(&experiment).into_iter()).flat_map(|tally| tally.numbers.values());
        numbers.filter_map(|id| self.trial(*id))
    }

    /// Those of them that have not ended.
    pub fn open_trials_of(&self, experiment: ExperimentId) -> impl Iterator<Item = &Trial> {
        let tally = self.tallies.get(&experiment).into_iter();
        tally.flat_map(|tally| tally.open.values().map(AsRef::as_ref))
    }

    /// Those that wait, by number.
    pub(crate) fn waiting_trials_of(
        &self,
        experiment: ExperimentId,
    ) -> impl Iterator<Item = &Trial> {
        let tally = self.tallies.get(&experiment).into_iter();
        tally.flat_map(|tally| tally.waiting.values().map(AsRef::as_ref))
    }

    /// How many wait.
    pub(crate) fn count_waiting(&self, experiment: ExperimentId) -> usize {
        let tally = self.tallies.get(&experiment);
        tally.map_or(0, |tally| tally.waiting.len())
    }

    /// How many are on a lease.
    pub(crate) fn count_leased(&self, experiment: ExperimentId) -> usize {
        let tally = self.tallies.get(&experiment);
        tally.map_or(0, |tally| tally.leased)
    }

    /// How many trials of an experiment have failed.
    pub fn failed_trials_of(&self, experiment: ExperimentId) -> usize {
        let tally = self.tallies.get(&experiment);
        tally.map_or(0, |tally| tally.failed)
    }

    /// Live leases, by id.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().map(AsRef::as_ref)
    }

    /// A live lease.
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id).map(AsRef::as_ref)
    }

    /// Live leases that hold a slot of a worker and are not over there.
    pub fn leases_of(&self, worker: WorkerId) -> impl Iterator<Item = &Lease> {
        self.holders(worker)
            .filter(move |lease| lease.is_open_on(worker))
    }

    /// Live leases that hold a slot of a worker, those included that are over there and not elsewhere.
    pub(crate) fn holders(&self, worker: WorkerId) -> impl Iterator<Item = &Lease> {
        let held = (worker, LeaseId(0))..=(worker, LeaseId(u64::MAX));
        (self.held.range(held)).filter_map(|(_, id)| self.lease(*id))
    }

    /// The trials that are still on a lease, in its order: one that has ended, or left it, is not.
    pub fn members<'a>(&'a self, lease: &'a Lease) -> impl Iterator<Item = &'a Trial> {
        let members: &[TrialId] = match &lease.work {
            Work::Trials(members) => members,
            Work::Task(_) => &[],
        };
        (members.iter())
            .filter_map(|id| self.trial(*id))
            .filter(|trial| trial.lease() == Some(lease.id))
    }

    /// All workers, by id.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().map(AsRef::as_ref)
    }

    /// A worker.
    pub fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id).map(AsRef::as_ref)
    }

    /// Tasks that have not ended, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(AsRef::as_ref)
    }

    /// A task that has not ended.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id).map(AsRef::as_ref)
    }

    /// A trial's checkpoint.
    pub fn checkpoint(&self, trial: TrialId, kind: CheckpointKind) -> Option<&Checkpoint> {
        self.checkpoints.get(&(trial, kind))
    }

    /// The newest version of a data set.
    pub fn dataset(&self, name: &str) -> Option<&Dataset> {
        self.datasets.get(name).map(AsRef::as_ref)
    }

    /// A backbone.
    pub fn backbone(&self, name: &str) -> Option<&Backbone> {
        self.backbones.get(name).map(AsRef::as_ref)
    }

    /// The newest version of a model.
    pub fn newest_version(&self, model: &str) -> Option<&Version> {
        self.versions.get(model).map(AsRef::as_ref)
    }

    /// Whether a version was made of a checkpoint.
    pub fn is_published(&self, checkpoint: &Digest) -> bool {
        self.published.contains(checkpoint)
    }

    /// Whether an ended trial lost its checkpoints after its rows may have been read.
    pub(crate) fn lost_its_checkpoints(&self, trial: TrialId) -> bool {
        self.soft.deleted.contains(&trial)
    }

    /// Where an alias points.
    pub fn alias(&self, model: &str, alias: &str) -> Option<&Alias> {
        self.alias_row(model, alias).filter(|row| !row.deleted)
    }

    /// An alias, also one that was deleted.
    pub fn alias_row(&self, model: &str, alias: &str) -> Option<&Alias> {
        self.aliases.get(&(model.to_owned(), alias.to_owned()))
    }

    /// All aliases, by model and name.
    pub fn aliases(&self) -> impl Iterator<Item = &Alias> {
        self.aliases.values().filter(|row| !row.deleted)
    }

    /// Whether a model has a version, and it was not deleted.
    pub fn has_version(&self, model: &str, number: u32) -> bool {
        let newest = self.newest_version(model).map_or(0, |row| row.number);
        (1..=newest).contains(&number)
            && !(self.deleted_versions).contains(&(model.to_owned(), number))
    }

    /// The aliases that point to a version.
    pub fn aliases_of(&self, model: &str, number: u32) -> impl Iterator<Item = &Alias> {
        let is_it = move |row: &&Alias| row.model == model && row.number == number;
        self.aliases().filter(is_it)
    }

    /// Uses of a test split, in order.
    pub fn test_uses(&self, split: Digest) -> impl Iterator<Item = &TestUse> {
        let rows = self.test_uses.range((split, 0)..=(split, u32::MAX));
        rows.map(|(_, row)| row)
    }

    /// What a publish task needs of a trial, from memory or recalled.
    pub fn source(&self, trial: TrialId) -> Option<Source<'_>> {
        if let Some(row) = self.trial(trial) {
            return Some(Source {
                experiment: self.experiment(row.experiment)?,
                trial: row,
                checkpoint: self.checkpoint(trial, CheckpointKind::Best),
            });
        }
        let recalled = self.soft.recalled.get(&trial)?;
        Some(Source {
            experiment: &recalled.experiment,
            trial: &recalled.trial,
            checkpoint: recalled.checkpoint.as_ref(),
        })
    }

    /// When a worker was last heard of.
    pub fn heard(&self, worker: WorkerId) -> Timestamp {
        self.soft.heard.get(&worker).copied().unwrap_or_default()
    }

    /// Whether a worker gets new work: it is alive and was heard of since memory was read.
    pub fn takes_work(&self, worker: &Worker) -> bool {
        worker.state == WorkerState::Alive && !self.soft.unheard.contains(&worker.id)
    }

    /// Until when a worker gets no work because that of others failed there; nothing while all that
    /// could get work are in the same state, for then it is not the worker.
    pub fn excluded_until(&self, worker: WorkerId, now: Timestamp) -> Option<Timestamp> {
        let until = |id| self.soft.ward.excluded_until(id);
        let is_well = |row: &Worker| self.takes_work(row) && until(row.id) <= now;
        let holds = until(worker) > now && self.workers().any(is_well);
        holds.then(|| until(worker))
    }

    /// Whether a worker gets new work now.
    pub fn is_open(&self, worker: &Worker, now: Timestamp) -> bool {
        self.takes_work(worker) && self.excluded_until(worker.id, now).is_none()
    }

    /// Slots that the trials of a project hold, leases that were asked to stop included.
    pub fn slots_of_project(&self, project: &str) -> u32 {
        let of =
            |lease: &&Lease| (self.owner(lease)).is_some_and(|owner| owner.spec.project == project);
        self.leases().filter(of).map(Lease::world_size).sum()
    }

    /// The experiment whose trials a lease was granted to; a task's lease has none.
    pub fn owner(&self, lease: &Lease) -> Option<&Experiment> {
        let Work::Trials(members) = &lease.work else {
            return None;
        };
        let member = self.trial(*members.first()?)?;
        self.experiment(member.experiment)
    }

    /// Starts in a row that failed: of a trial or a task, or on a worker.
    pub fn strikes(&self, subject: Subject) -> u32 {
        self.soft.strikes.get(&subject).copied().unwrap_or(0)
    }

    /// A waiting task is not started before this moment.
    pub fn task_not_before(&self, task: TaskId) -> Timestamp {
        let until = self.soft.task_not_before.get(&task);
        until.copied().unwrap_or_default()
    }

    /// How long a trial may still be on slots, all its leases counted, when it has a limit.
    pub fn time_left_ms(&self, trial: TrialId) -> Option<u64> {
        let row = self.trial(trial)?;
        let limit = self.experiment(row.experiment)?.spec.time_limit_ms?;
        Some(limit.saturating_sub(row.active_ms))
    }
}
