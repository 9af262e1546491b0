//! Gang placement: which waiting work gets which free slots. See the README beside this crate.
//!
//! Pure. All slots of one worker and one kind, or none (S5); what it returns never overlaps with a
//! live lease or with itself (S1); planning a planned cluster returns nothing (S8).

use crate::Cluster;
use pomona_domain::change::Subject;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::lease::{SlotRef, Work};
use pomona_domain::task::TaskState;
use pomona_domain::trial::TrialState;
use pomona_domain::worker::{Slot, SlotKind, Worker, WorkerState};
use pomona_domain::{Code, ExperimentId, Fault, TaskId, Timestamp, TrialId, WorkerId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Work that gets slots now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What.
    pub work: Work,
    /// Where.
    pub worker: WorkerId,
    /// Slot indexes, one per rank, rank 0 first.
    pub slots: Vec<u32>,
}

/// Something that waits, in the order in which it is served: priority (high first), submission,
/// experiment or task, number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    rank: (Reverse<i32>, Timestamp),
    owner: Owner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Task(TaskId),
    Trial(ExperimentId, u32, TrialId),
}

/// Free slots of one kind on one worker.
#[derive(Debug, Clone)]
struct Group {
    worker: WorkerId,
    kind: SlotKind,
    /// All its slots, busy ones included: what a gang may hope for.
    size: usize,
    free: BTreeSet<u32>,
    /// Set aside for a gang that is next and still lacks slots here.
    reserved: bool,
}

/// Places what can be placed now, best first.
pub fn plan(cluster: &Cluster, now: Timestamp) -> Vec<Placement> {
    let queue = queue(cluster, now);
    if queue.is_empty() {
        return Vec::new();
    }
    let mut groups = groups(cluster);
    let mut live = live_trials(cluster);
    let mut placements = Vec::new();
    for waiting in queue {
        if groups
            .iter()
            .all(|group| group.reserved || group.free.is_empty())
        {
            break;
        }
        let (work, need, tried) = match waiting.owner {
            Owner::Task(id) => (Work::Task(id), 1, cluster.strikes(Subject::Task(id))),
            Owner::Trial(owner, _, id) => {
                let Some(experiment) = cluster.experiment(owner) else {
                    continue;
                };
                let count = live.entry(owner).or_default();
                if *count >= experiment.spec.search.max_concurrent {
                    continue;
                }
                let need = experiment.spec.resources.slots_per_trial;
                let tried = cluster.strikes(Subject::Trial(id));
                (Work::Trials(vec![id]), need as usize, tried)
            }
        };
        let Some(place) = choose(cluster, &groups, need, tried) else {
            reserve(&mut groups, need);
            continue;
        };
        let group = &mut groups[place];
        let slots: Vec<u32> = group.free.iter().copied().take(need).collect();
        group.free.retain(|index| !slots.contains(index));
        placements.push(Placement {
            work,
            worker: group.worker,
            slots,
        });
        if let Owner::Trial(owner, _, _) = waiting.owner {
            *live.entry(owner).or_default() += 1;
        }
    }
    placements
}

/// Why no worker could ever serve a gang of so many slots: `E0301`. Workers that are lost or drain
/// get nothing new and do not count.
pub fn unplaceable(cluster: &Cluster, slots: u32) -> Option<Fault> {
    let alive = || (cluster.workers()).filter(|worker| worker.state == WorkerState::Alive);
    let sizes = alive().flat_map(|worker| kinds(worker).into_values());
    let largest = sizes.map(|slots| slots.len()).max().unwrap_or(0);
    if largest >= slots as usize {
        return None;
    }
    let drains = (cluster.workers()).any(|worker| worker.state == WorkerState::Draining);
    let why = match largest {
        0 if drains => "every worker drains and takes nothing new".to_owned(),
        0 => "no worker with slots is there".to_owned(),
        _ => format!("a trial asks for {slots} slots of one worker, the largest has {largest}"),
    };
    let hint = if slots == 1 {
        "start a worker".to_owned()
    } else {
        format!("start a worker with {slots} slots or lower `resources.slots_per_trial`")
    };
    Some(Fault::new(Code::Unplaceable, why).hint(hint))
}

/// What waits and may start now, in order of service.
fn queue(cluster: &Cluster, now: Timestamp) -> Vec<Waiting> {
    let tasks = (cluster.tasks())
        .filter(|task| task.state == TaskState::Waiting && cluster.task_not_before(task.id) <= now)
        .map(|task| Waiting {
            rank: (Reverse(task.priority), task.submitted_at),
            owner: Owner::Task(task.id),
        });
    let trials = (cluster.experiments())
        .filter(|experiment| experiment.state == ExperimentState::Active)
        .flat_map(|experiment| {
            let rank = (Reverse(experiment.spec.priority), experiment.submitted_at);
            (cluster.trials_of(experiment.id))
                .filter(move |trial| match trial.state {
                    TrialState::Waiting { not_before, .. } => not_before <= now,
                    TrialState::Running { .. }
                    | TrialState::Stopping { .. }
                    | TrialState::Paused
                    | TrialState::Completed
                    | TrialState::Failed { .. }
                    | TrialState::Canceled => false,
                })
                .map(move |trial| Waiting {
                    rank,
                    owner: Owner::Trial(experiment.id, trial.number, trial.id),
                })
        });
    let mut queue: Vec<Waiting> = tasks.chain(trials).collect();
    queue.sort();
    queue
}

/// A worker's slots by kind.
fn kinds(worker: &Worker) -> BTreeMap<SlotKind, Vec<&Slot>> {
    let mut kinds: BTreeMap<SlotKind, Vec<&Slot>> = BTreeMap::new();
    for slot in &worker.slots {
        kinds.entry(slot.kind).or_default().push(slot);
    }
    kinds
}

/// Slots of workers that get work, by worker and kind.
fn groups(cluster: &Cluster) -> Vec<Group> {
    let busy: BTreeSet<&SlotRef> = cluster.leases().flat_map(|lease| &lease.slots).collect();
    (cluster.workers())
        .filter(|worker| cluster.takes_work(worker))
        .flat_map(|worker| {
            let busy = &busy;
            kinds(worker).into_iter().map(move |(kind, slots)| {
                let at = |index| SlotRef {
                    worker: worker.id,
                    index,
                };
                Group {
                    worker: worker.id,
                    kind,
                    size: slots.len(),
                    free: (slots.iter().map(|slot| slot.index))
                        .filter(|index| !busy.contains(&at(*index)))
                        .collect(),
                    reserved: false,
                }
            })
        })
        .collect()
}

fn live_trials(cluster: &Cluster) -> BTreeMap<ExperimentId, u32> {
    let mut live = BTreeMap::new();
    for trial in cluster.trials().filter(|trial| trial.lease().is_some()) {
        *live.entry(trial.experiment).or_default() += 1;
    }
    live
}

/// The place that leaves the fewest free slots behind: a GPU before a CPU, and a worker where
/// starts fail only when no other can. `tried` says how often the work itself failed to start.
fn choose(cluster: &Cluster, groups: &[Group], need: usize, tried: u32) -> Option<usize> {
    let doubt = cluster.config().doubt_after;
    (groups.iter().enumerate())
        .filter(|(_, group)| !group.reserved && need > 0 && group.free.len() >= need)
        .min_by_key(|(_, group)| {
            let strikes = cluster.strikes(Subject::Worker(group.worker));
            let doubtful = strikes >= doubt || (tried >= doubt && strikes > 0);
            let left = group.free.len() - need;
            (doubtful, Reverse(group.kind), left, group.worker)
        })
        .map(|(place, _)| place)
}

/// What is next and does not fit yet gets one worker set aside: the one that lacks the fewest
/// slots. Without this a large gang would starve behind small trials.
fn reserve(groups: &mut [Group], need: usize) {
    let place = (groups.iter().enumerate())
        .filter(|(_, group)| !group.reserved && group.size >= need)
        .min_by_key(|(_, group)| {
            let lacking = need.saturating_sub(group.free.len());
            (lacking, Reverse(group.kind), group.worker)
        })
        .map(|(place, _)| place);
    if let Some(place) = place {
        groups[place].reserved = true;
    }
}

#[cfg(test)]
mod tests;
