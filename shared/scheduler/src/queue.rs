//! The queue: what waits and may start now, in the order in which it is served. See the README
//! beside this crate.
//!
//! It never asks whether something fits.

use crate::Cluster;
use crate::plan::slots::Wanted;
use pomona_domain::change::Subject;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::task::{Task, TaskState};
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::worker::Selector;
use pomona_domain::{ExperimentId, TaskId, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Fixed point of a project's use over its weight.
const SHARE_BITS: u32 = 20;

/// What waits: a task, or the trials of an experiment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'a> {
    Task(&'a Task),
    Experiment(&'a Experiment),
}

/// One owner's part of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) owner: Owner<'a>,
    /// Trials that wait and may start now, by number; none of a task.
    pub(crate) trials: Vec<&'a Trial>,
    /// How many of them `max_concurrent` lets start.
    pub(crate) room: usize,
    /// How long it has waited with no slot at all.
    waited_ms: i64,
}

impl<'a> Entry<'a> {
    /// What its file or its user says.
    pub(crate) fn priority(&self) -> i32 {
        match self.owner {
            Owner::Task(row) => row.priority,
            Owner::Experiment(row) => row.spec.priority,
        }
    }

    /// Slots that its next lease needs.
    fn need(&self) -> u64 {
        match self.owner {
            Owner::Task(_) => 1,
            Owner::Experiment(row) => u64::from(row.spec.resources.slots_per_trial),
        }
    }

    /// What its next lease needs.
    pub(crate) fn wanted(&self) -> Wanted<'a> {
        static ANY: Selector = Selector::new();
        let (selector, subject) = match self.owner {
            Owner::Task(row) => (&ANY, Some(Subject::Task(row.id))),
            Owner::Experiment(row) => {
                let first = self.trials.first().map(|row| Subject::Trial(row.id));
                (&row.spec.resources.selector, first)
            }
        };
        Wanted {
            slots: self.need() as usize,
            selector,
            subject,
        }
    }

    /// The project that pays; a task has none.
    pub(crate) fn project(&self) -> Option<&'a str> {
        match self.owner {
            Owner::Task(_) => None,
            Owner::Experiment(row) => Some(&row.spec.project),
        }
    }

    fn submission(&self) -> (Timestamp, Option<TaskId>, Option<ExperimentId>) {
        match self.owner {
            Owner::Task(row) => (row.submitted_at, Some(row.id), None),
            Owner::Experiment(row) => (row.submitted_at, None, Some(row.id)),
        }
    }
}

/// Whether anything waits at all: cheap, where a queue looks at everything that does.
pub(crate) fn waits(cluster: &Cluster) -> bool {
    let mut tasks = cluster.tasks().map(|task| &task.state);
    tasks.any(|state| *state == TaskState::Waiting)
        || cluster.experiments().any(|row| has_waiting(cluster, row))
}

/// Whether trials of an experiment wait for slots.
pub(crate) fn has_waiting(cluster: &Cluster, row: &Experiment) -> bool {
    row.state == ExperimentState::Active && cluster.count_waiting(row.id) > 0
}

/// What waits.
#[derive(Debug, Clone)]
pub(crate) struct Queue<'a> {
    cluster: &'a Cluster,
    entries: Vec<Entry<'a>>,
    /// Slots that each project holds.
    used: BTreeMap<&'a str, u64>,
}

impl<'a> Queue<'a> {
    pub(crate) fn new(cluster: &'a Cluster, now: Timestamp) -> Self {
        let tasks = (cluster.tasks())
            .filter(|task| {
                task.state == TaskState::Waiting && cluster.task_not_before(task.id) <= now
            })
            .map(|task| Entry {
                owner: Owner::Task(task),
                trials: Vec::new(),
                room: 1,
                waited_ms: now.since_ms(task.submitted_at),
            });
        let experiments = (cluster.experiments())
            .filter(|row| has_waiting(cluster, row))
            .map(|row| entry(cluster, row, now))
            .filter(|entry| !entry.trials.is_empty());
        let mut used = BTreeMap::new();
        for lease in cluster.leases() {
            if let Some(owner) = cluster.owner(lease) {
                let slots = used.entry(owner.spec.project.as_str()).or_default();
                *slots += u64::from(lease.world_size());
            }
        }
        Self {
            cluster,
            entries: tasks.chain(experiments).collect(),
            used,
        }
    }

    /// Places of the entries in order of service: effective priority (high first), the project
    /// that uses the least for its weight, submission, id.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.entries.len())
            .filter(|at| self.entries[*at].room > 0)
            .collect();
        order.sort_by_cached_key(|at| {
            let entry = &self.entries[*at];
            let share = entry.project().map_or(0, |project| self.share(project));
            (Reverse(self.effective(entry)), share, entry.submission())
        });
        order
    }

    pub(crate) fn entry(&self, at: usize) -> &Entry<'a> {
        &self.entries[at]
    }

    /// Entries in order of service.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.order().into_iter().map(|at| &self.entries[at])
    }

    /// Priority with what waiting adds.
    pub(crate) fn effective(&self, entry: &Entry) -> i64 {
        let aging_ms = self.cluster.config().aging_ms;
        let points = entry.waited_ms.max(0).checked_div(aging_ms).unwrap_or(0);
        i64::from(entry.priority()) + points.max(0)
    }

    /// Slots that a project may still take.
    pub(crate) fn quota_left(&self, project: &str) -> Option<u64> {
        let quota = self.cluster.config().policy.quota(project)?;
        Some(u64::from(quota).saturating_sub(self.use_of(project)))
    }

    /// Leases that the quota of an entry's project lets it take.
    pub(crate) fn leases_within_quota(&self, entry: &Entry) -> usize {
        let left = entry.project().and_then(|project| self.quota_left(project));
        let leases = left.map(|left| left / entry.need().max(1));
        leases.map_or(usize::MAX, |leases| {
            usize::try_from(leases).unwrap_or(usize::MAX)
        })
    }

    /// An entry's project will hold so many more leases of it.
    pub(crate) fn claim(&mut self, at: usize, leases: usize) {
        let entry = &self.entries[at];
        if let Some(project) = entry.project() {
            *self.used.entry(project).or_default() += entry.need() * leases as u64;
        }
    }

    /// Some trials of an entry, the first ones of its list among them, or its task, got slots.
    pub(crate) fn placed(&mut self, at: usize, gone: &[&'a Trial]) {
        self.claim(at, 1);
        let entry = &mut self.entries[at];
        let ids: Vec<_> = gone.iter().map(|row| row.id).collect();
        entry.trials.retain(|row| !ids.contains(&row.id));
        entry.waited_ms = 0;
        entry.room = match entry.owner {
            Owner::Task(_) => 0,
            Owner::Experiment(_) => {
                let left = entry.trials.len();
                entry.room.saturating_sub(gone.len()).min(left)
            }
        };
    }

    fn use_of(&self, project: &str) -> u64 {
        self.used.get(project).copied().unwrap_or(0)
    }

    /// What a project holds for its weight.
    pub(crate) fn share(&self, project: &str) -> u64 {
        let weight = u64::from(self.cluster.config().policy.weight(project));
        (self.use_of(project) << SHARE_BITS) / weight
    }
}

fn entry<'a>(cluster: &'a Cluster, row: &'a Experiment, now: Timestamp) -> Entry<'a> {
    let may_start = |trial: &&Trial| match trial.state {
        TrialState::Waiting { not_before, .. } => not_before <= now,
        TrialState::Running { .. }
        | TrialState::Stopping { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Failed { .. }
        | TrialState::Canceled => false,
    };
    let waiting = cluster.waiting_trials_of(row.id);
    let trials: Vec<&Trial> = waiting.filter(may_start).collect();
    let live = cluster.count_leased(row.id);
    let room = (row.spec.search.max_concurrent as usize).saturating_sub(live);
    Entry {
        owner: Owner::Experiment(row),
        room: room.min(trials.len()),
        trials,
        waited_ms: idle_ms(cluster, row, live, now),
    }
}

/// How long an experiment has wanted slots and held none: since the newest of its submission, its
/// resumption, and the moment when a trial of it last left its slots.
fn idle_ms(cluster: &Cluster, row: &Experiment, live: usize, now: Timestamp) -> i64 {
    if live > 0 {
        return 0;
    }
    let since = cluster
        .trials_of(row.id)
        .filter_map(|trial| match trial.state {
            TrialState::Waiting { since, .. } => Some(since),
            TrialState::Running { .. }
            | TrialState::Stopping { .. }
            | TrialState::Paused
            | TrialState::Completed
            | TrialState::Failed { .. }
            | TrialState::Canceled => trial.ended_at.filter(|_| trial.leases > 0),
        });
    now.since_ms(since.fold(row.submitted_at, Ord::max))
}

#[cfg(test)]
mod tests;
