//! The store of a simulated world: versioned rows with compare-and-swap, so that a restart is a
//! load. It refuses what the real one refuses, and a refusal of a decision's rows is a bug.

use pomona_domain::backbone::Backbone;
use pomona_domain::change::{Change, Subject};
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::dataset::Dataset;
use pomona_domain::experiment::Experiment;
use pomona_domain::gate::{GateFact, Judgement, TestOutcomes, TestUse};
use pomona_domain::lease::{Generation, Lease, LeaseState, Work};
use pomona_domain::metric::Observation;
use pomona_domain::model::{Alias, AliasMove, Audit, Removal, Version};
use pomona_domain::plan::Spent;
use pomona_domain::snapshot::Snapshot;
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use pomona_domain::{Digest, ExperimentId, LeaseId, TaskId, Timestamp, TrialId, WorkerId};
use pomona_scheduler::gates::{Champion, Evidence, weigh};
use pomona_scheduler::{Ended, Recalled};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

#[derive(Default)]
pub struct Journal {
    pub experiments: BTreeMap<ExperimentId, Experiment>,
    pub trials: BTreeMap<TrialId, Trial>,
    pub leases: BTreeMap<LeaseId, Lease>,
    pub workers: BTreeMap<WorkerId, Worker>,
    pub tasks: BTreeMap<TaskId, Task>,
    pub checkpoints: BTreeMap<(TrialId, CheckpointKind), Checkpoint>,
    pub observations: BTreeMap<(TrialId, u64), Observation>,
    pub versions: BTreeMap<(String, u32), Version>,
    pub moves: Vec<AliasMove>,
    pub outcomes: BTreeMap<(String, u32), TestOutcomes>,
    pub judgements: Vec<Judgement>,
    test_uses: BTreeMap<(Digest, u32), TestUse>,
    pub reasons: Vec<(Subject, Timestamp, String)>,
    datasets: BTreeMap<(String, u32), Dataset>,
    backbones: BTreeMap<String, Backbone>,
    aliases: BTreeMap<(String, String), Alias>,
    deleted_versions: BTreeSet<(String, u32)>,
    audit: Vec<Audit>,
    generation: Generation,
    history: DefaultHasher,
}

/// Version 1 inserts, `n` replaces exactly `n - 1`.
fn swap<K: Ord + Debug, V: Clone>(
    rows: &mut BTreeMap<K, V>,
    key: K,
    row: &V,
    version: impl Fn(&V) -> u64,
) -> Result<(), String> {
    let before = rows.get(&key).map_or(0, &version);
    if version(row) != before + 1 {
        let next = version(row);
        return Err(format!(
            "journal: {key:?} is at version {before}, not one before {next}"
        ));
    }
    rows.insert(key, row.clone());
    Ok(())
}

/// A row that never changes.
fn insert<K: Ord + Debug, V: Clone>(
    rows: &mut BTreeMap<K, V>,
    key: K,
    row: &V,
) -> Result<(), String> {
    if rows.contains_key(&key) {
        return Err(format!("journal: {key:?} exists already"));
    }
    rows.insert(key, row.clone());
    Ok(())
}

impl Journal {
    /// One transaction. What it refuses ends the run: a decision never conflicts with what it saw.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), String> {
        changes.iter().try_for_each(|change| self.write(change))
    }

    fn write(&mut self, change: &Change) -> Result<(), String> {
        self.remember(change);
        match change {
            Change::Experiment(row) => swap(&mut self.experiments, row.id, row, |r| r.version),
            Change::Trial(row) => swap(&mut self.trials, row.id, row, |r| r.version),
            Change::Worker(row) => swap(&mut self.workers, row.id, row, |r| r.version),
            Change::Task(row) => swap(&mut self.tasks, row.id, row, |r| r.version),
            Change::Lease(row) => {
                self.generation = self.generation.max(row.generation);
                swap(&mut self.leases, row.id, row, |r| r.version)
            }
            Change::Observed(row) => insert(&mut self.observations, (row.trial, row.step), row),
            Change::Checkpoint(row) => {
                self.checkpoints.insert((row.trial, row.kind), row.clone());
                Ok(())
            }
            Change::CheckpointDeleted(trial, kind) => {
                self.checkpoints.remove(&(*trial, *kind));
                Ok(())
            }
            Change::Dataset(row) => insert(&mut self.datasets, (row.name.clone(), row.number), row),
            Change::Backbone(row) => insert(&mut self.backbones, row.name.clone(), row),
            Change::Version(row) => {
                insert(&mut self.versions, (row.model.clone(), row.number), row)
            }
            Change::AliasMoved(moved) => self.move_alias(moved),
            Change::Described(row) => {
                let made = (row.model.clone(), row.number);
                let is_there = self.versions.contains_key(&made);
                is_there
                    .then_some(())
                    .ok_or(format!("{made:?} is described before it is there"))
            }
            Change::Removed(removal) => {
                self.remove(removal);
                Ok(())
            }
            Change::Audited(entry) => {
                self.audit.push(entry.clone());
                Ok(())
            }
            Change::Gates(GateFact::Used(row)) => {
                insert(&mut self.test_uses, (row.split, row.place), row)
            }
            Change::Gates(GateFact::Outcomes(row)) => {
                let key = (row.model.clone(), row.number);
                insert(&mut self.outcomes, key, &row.outcomes)
            }
            Change::Gates(GateFact::Judged(row)) => {
                self.judgements.push((**row).clone());
                Ok(())
            }
            Change::Gates(GateFact::Approved(_)) => Ok(()),
            Change::Reason(row) => {
                self.reasons.push((row.subject, row.at, row.text.clone()));
                Ok(())
            }
        }
    }

    fn move_alias(&mut self, moved: &AliasMove) -> Result<(), String> {
        let key = (moved.model.clone(), moved.alias.clone());
        let before = self.aliases.get(&key).map_or(0, |alias| alias.revision);
        if moved.revision != before + 1 {
            return Err(format!(
                "journal: {key:?} is at revision {before}: {moved:?}"
            ));
        }
        if !self.versions.contains_key(&(moved.model.clone(), moved.to)) {
            return Err(format!(
                "R2 {key:?} moves to a version that is not there: {moved:?}"
            ));
        }
        let alias = Alias {
            model: moved.model.clone(),
            alias: moved.alias.clone(),
            number: moved.to,
            revision: moved.revision,
            deleted: moved.deleted,
        };
        self.aliases.insert(key, alias);
        self.moves.push(moved.clone());
        Ok(())
    }

    fn remove(&mut self, removal: &Removal) {
        match removal {
            Removal::Version { model, number, .. } => {
                self.deleted_versions.insert((model.clone(), *number));
            }
            Removal::Model { model, .. } => {
                let all = self.versions.keys().filter(|(name, _)| name == model);
                self.deleted_versions.extend(all.cloned());
            }
            Removal::Renamed { .. } => unreachable!("no story renames a model"),
        }
    }

    /// Every fact goes into the history's hash, by what identifies it.
    fn remember(&mut self, change: &Change) {
        let hash = &mut self.history;
        match change {
            Change::Experiment(row) => (row.id, row.version, row.state.name()).hash(hash),
            Change::Trial(row) => {
                (
                    row.id,
                    row.version,
                    row.state.name(),
                    row.last_step,
                    row.active_ms,
                )
                    .hash(hash);
            }
            Change::Lease(row) => (row.id, row.version, row.granted_at).hash(hash),
            Change::Worker(row) => (row.id, row.version, row.acked_seq).hash(hash),
            Change::Task(row) => (row.id, row.version, row.state.name()).hash(hash),
            Change::Observed(row) => (row.trial, row.step, row.generation).hash(hash),
            Change::Checkpoint(row) => (row.trial, row.kind as u8, row.digest).hash(hash),
            Change::CheckpointDeleted(trial, kind) => (trial, *kind as u8).hash(hash),
            Change::Dataset(row) => (&row.name, row.number).hash(hash),
            Change::Backbone(row) => row.name.hash(hash),
            Change::Version(row) => (row.id, row.digest).hash(hash),
            Change::AliasMoved(row) => {
                (&row.model, &row.alias, row.revision, row.to, row.deleted).hash(hash);
            }
            Change::Described(row) => format!("{row:?}").hash(hash),
            Change::Removed(row) => format!("{row:?}").hash(hash),
            Change::Audited(row) => (&row.action, &row.subject, row.at).hash(hash),
            Change::Gates(GateFact::Used(row)) => (row.split, row.place).hash(hash),
            Change::Gates(GateFact::Outcomes(row)) => (&row.model, row.number).hash(hash),
            Change::Gates(GateFact::Approved(row)) => (&row.model, row.number).hash(hash),
            Change::Gates(GateFact::Judged(row)) => (&row.model, &row.text).hash(hash),
            Change::Reason(row) => (row.at, &row.text).hash(hash),
        }
    }

    /// What a handler reads of a move before it is decided.
    pub fn evidence(&self, (model, alias): (&str, &str), number: u32) -> Evidence {
        let head = self.aliases.get(&(model.to_owned(), alias.to_owned()));
        let version = |number| self.versions.get(&(model.to_owned(), number));
        let outcomes = |number| self.outcomes.get(&(model.to_owned(), number));
        let champion = head.and_then(|head| version(head.number));
        let policy = |row: &Version| Some(row.promotion.as_ref()?.policy.clone());
        let candidate = version(number).cloned();
        let policies = [candidate.as_ref(), champion].into_iter().flatten();
        let gates = policies.filter_map(policy).flat_map(|policy| policy.gates);
        let gates: Vec<_> = gates.collect();
        Evidence {
            task: None,
            revision: head.map_or(0, |head| head.revision),
            candidate: candidate.map(Box::new),
            champion: champion.map(|row| Champion {
                number: row.number,
                policy: policy(row),
            }),
            weighed: weigh(
                &gates,
                outcomes(number),
                head.and_then(|head| outcomes(head.number)),
            ),
            approvals: Vec::new(),
            been_there: self.has_been((model, alias), number),
        }
    }

    /// Whether an alias has pointed to a version.
    pub fn has_been(&self, (model, alias): (&str, &str), number: u32) -> bool {
        let of = |row: &&AliasMove| (row.model.as_str(), row.alias.as_str()) == (model, alias);
        self.moves.iter().filter(of).any(|row| row.to == number)
    }

    /// The same for two runs exactly if the same was committed in the same order.
    pub fn history(&self) -> u64 {
        self.history.finish()
    }

    /// What a coordinator that starts reads.
    pub fn load(&self) -> Snapshot {
        let is_live = |id: &ExperimentId| !self.experiments[id].is_ended();
        let kept = |id: &TrialId| is_live(&self.trials[id].experiment);
        Snapshot {
            experiments: filtered(&self.experiments, |row| !row.is_ended()),
            trials: filtered(&self.trials, |row| is_live(&row.experiment)),
            leases: filtered(&self.leases, Lease::is_live),
            workers: filtered(&self.workers, |_| true),
            tasks: filtered(&self.tasks, |row| !row.is_ended()),
            checkpoints: filtered(&self.checkpoints, |row| kept(&row.trial)),
            datasets: newest(&self.datasets),
            backbones: self.backbones.values().cloned().collect(),
            versions: newest(&self.versions),
            published: published(&self.versions),
            deleted_versions: self.deleted_versions.iter().cloned().collect(),
            aliases: self.aliases.values().cloned().collect(),
            test_uses: self.test_uses.values().cloned().collect(),
            generation: self.generation,
        }
    }

    /// A trial's rows, ended or not.
    pub fn source(&self, trial: TrialId) -> Option<Recalled> {
        let row = self.trials.get(&trial)?;
        Some(Recalled {
            experiment: self.experiments.get(&row.experiment)?.clone(),
            trial: row.clone(),
            checkpoint: self
                .checkpoints
                .get(&(trial, CheckpointKind::Best))
                .cloned(),
        })
    }

    /// A trial's rows, if its experiment has ended: what a user's pin comes with.
    pub fn ended(&self, trial: TrialId) -> Option<Box<Ended>> {
        let row = self.trials.get(&trial)?;
        let is_over = self.experiments.get(&row.experiment)?.is_ended();
        let checkpoints = self.checkpoints.values();
        is_over.then(|| {
            Box::new(Ended {
                trial: row.clone(),
                checkpoints: checkpoints
                    .filter(|row| row.trial == trial)
                    .cloned()
                    .collect(),
            })
        })
    }

    /// What each experiment says it spent is what its leases that ended have cost, each once.
    pub fn check_spent(&self) -> Result<(), String> {
        let mut sums: BTreeMap<ExperimentId, Spent> = BTreeMap::new();
        for lease in self.leases.values() {
            let (Work::Trials(members), LeaseState::Ended { at, .. }) = (&lease.work, &lease.state)
            else {
                continue;
            };
            let owners: BTreeSet<_> = (members.iter())
                .map(|id| self.trials[id].experiment)
                .collect();
            for owner in owners {
                sums.entry(owner).or_default().add(lease, *at);
            }
        }
        for row in self.experiments.values() {
            let sum = sums.get(&row.id).copied().unwrap_or_default();
            if row.spent != sum {
                return Err(format!(
                    "{} says that it spent {:?}, its leases {sum:?}",
                    row.id, row.spent
                ));
            }
        }
        Ok(())
    }

    pub fn trials_of(&self, experiment: ExperimentId) -> Vec<&Trial> {
        let mut rows: Vec<&Trial> = (self.trials.values())
            .filter(|row| row.experiment == experiment)
            .collect();
        rows.sort_by_key(|row| row.number);
        rows
    }
}

fn filtered<K, V: Clone>(rows: &BTreeMap<K, V>, keep: impl Fn(&V) -> bool) -> Vec<V> {
    rows.values().filter(|row| keep(row)).cloned().collect()
}

fn published(versions: &BTreeMap<(String, u32), Version>) -> Vec<Digest> {
    let made_of: BTreeSet<Digest> = versions
        .values()
        .filter_map(|row| Some(row.trained()?.checkpoint))
        .collect();
    made_of.into_iter().collect()
}

/// The last number of each name.
fn newest<V: Clone>(rows: &BTreeMap<(String, u32), V>) -> Vec<V> {
    let names: BTreeMap<&str, &V> = rows
        .iter()
        .map(|((name, _), row)| (name.as_str(), row))
        .collect();
    names.into_values().cloned().collect()
}
