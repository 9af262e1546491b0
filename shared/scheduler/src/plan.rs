//! Gang placement: which waiting work gets which free slots. See the README beside this crate.
//!
//! Pure. All slots of one worker and one kind, or none (S5); what it returns never overlaps with a
//! live lease or with itself (S1); planning a planned cluster returns nothing (S8).

use crate::Cluster;
use pomona_domain::change::Subject;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::lease::Work;
use pomona_domain::task::TaskState;
use pomona_domain::trial::TrialState;
use pomona_domain::worker::WorkerState;
use pomona_domain::{Code, ExperimentId, Fault, TaskId, Timestamp, TrialId, WorkerId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

mod company;
mod slots;

use company::Company;
use slots::{Slots, kinds};

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

/// Places what can be placed now, best first.
pub fn plan(cluster: &Cluster, now: Timestamp) -> Vec<Placement> {
    let queue = queue(cluster, now);
    if queue.is_empty() {
        return Vec::new();
    }
    let mut slots = Slots::free(cluster);
    let mut live = live_trials(cluster);
    let mut company = Company::new(cluster, &queue);
    let mut placements = Vec::new();
    for (at, waiting) in queue.iter().enumerate() {
        let free = slots.count();
        if free == 0 {
            break;
        }
        let (work, need, tried) = match waiting.owner {
            Owner::Task(id) => (Work::Task(id), 1, cluster.strikes(Subject::Task(id))),
            Owner::Trial(owner, _, id) => {
                let Some(experiment) = cluster.experiment(owner) else {
                    continue;
                };
                let count = live.entry(owner).or_default();
                let room = (experiment.spec.search.max_concurrent).saturating_sub(*count);
                if room == 0 || company.is_placed(id) {
                    continue;
                }
                let need = experiment.spec.resources.slots_per_trial;
                let members = company.gather(at, id, room as usize, free);
                let tried = cluster.strikes(Subject::Trial(id));
                (Work::Trials(members), need as usize, tried)
            }
        };
        let Some((worker, taken)) = slots.take(cluster, need, tried) else {
            slots.reserve(need);
            continue;
        };
        if let (Owner::Trial(owner, _, _), Work::Trials(members)) = (waiting.owner, &work) {
            *live.entry(owner).or_default() += members.len() as u32;
            company.place(members);
        }
        placements.push(Placement {
            work,
            worker,
            slots: taken,
        });
    }
    placements
}

/// Most slots of one kind on one worker, of those that get work; 0 without any.
pub fn largest_gang(cluster: &Cluster) -> usize {
    let alive = (cluster.workers()).filter(|worker| worker.state == WorkerState::Alive);
    let sizes = alive.flat_map(|worker| kinds(worker).into_values());
    sizes.map(|slots| slots.len()).max().unwrap_or(0)
}

/// Why no worker could ever serve a gang of so many slots: `E0301`. Workers that are lost or drain
/// get nothing new and do not count.
pub fn unplaceable(cluster: &Cluster, slots: u32) -> Option<Fault> {
    let largest = largest_gang(cluster);
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

fn live_trials(cluster: &Cluster) -> BTreeMap<ExperimentId, u32> {
    let mut live = BTreeMap::new();
    for trial in cluster.trials().filter(|trial| trial.lease().is_some()) {
        *live.entry(trial.experiment).or_default() += 1;
    }
    live
}

#[cfg(test)]
mod tests;
