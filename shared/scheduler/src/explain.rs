//! Why something is as it is right now, as one sentence. What led there is in the stored reasons.

use crate::Cluster;
use crate::plan::unplaceable;
use pomona_domain::change::Subject;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::{Lease, LeaseState};
use pomona_domain::plan::Spent;
use pomona_domain::task::{Task, TaskState};
use pomona_domain::trial::{AfterStop, Trial, TrialState};
use pomona_domain::worker::{Worker, WorkerState};
use pomona_domain::{ExperimentId, Fault, LeaseId, Timestamp};
use std::collections::BTreeSet;

/// A worker that may be gone gets nothing new.
const UNHEARD: &str = "no worker was heard of since the coordinator started";

/// One sentence on the present state. What has ended is not in memory: the sentence says so, and
/// the caller reads the row from the store.
pub fn explain(cluster: &Cluster, subject: Subject, now: Timestamp) -> String {
    let sentence = match subject {
        Subject::Experiment(id) => (cluster.experiment(id)).map(|row| experiment(cluster, row)),
        Subject::Trial(id) => (cluster.trial(id)).map(|row| trial(cluster, row, now)),
        Subject::Task(id) => cluster.task(id).map(|row| task(cluster, row, now)),
        Subject::Worker(id) => cluster.worker(id).map(|row| worker(cluster, row, now)),
    };
    sentence.unwrap_or_else(|| "it has ended or never was".to_owned())
}

/// What stands in the way of an experiment whose trials wait: no worker could ever serve one.
pub fn warning(cluster: &Cluster, id: ExperimentId) -> Option<Fault> {
    let row = cluster.experiment(id)?;
    let waits = row.state == ExperimentState::Active
        && cluster.trials_of(id).all(|trial| trial.lease().is_none());
    if waits { lack(cluster, row) } else { None }
}

/// What the leases that an experiment's trials are on have cost up to now. With what the row says
/// it spent, that is all so far.
pub fn running(cluster: &Cluster, id: ExperimentId, now: Timestamp) -> Spent {
    let leases: BTreeSet<LeaseId> = (cluster.trials_of(id)).filter_map(Trial::lease).collect();
    let mut spent = Spent::default();
    for lease in leases.into_iter().filter_map(|id| cluster.lease(id)) {
        spent.add(lease, now);
    }
    spent
}

/// A span of time for people.
pub(crate) fn seconds(ms: i64) -> String {
    if ms % 1000 == 0 {
        format!("{} s", ms / 1000)
    } else {
        format!("{:.1} s", ms as f64 / 1000.0)
    }
}

/// `1 other trial`, `11 other trials`.
pub(crate) fn count_others(others: u32) -> String {
    let noun = if others == 1 { "trial" } else { "trials" };
    format!("{others} other {noun}")
}

/// Who else is on a trial's lease, as the next part of a sentence; nothing when it is alone.
pub(crate) fn with_others(cluster: &Cluster, lease: LeaseId) -> String {
    let lease = cluster.lease(lease);
    let members = lease.map_or(0, |lease| cluster.members(lease).count());
    if members < 2 {
        return String::new();
    }
    let others = count_others(members as u32 - 1);
    format!(", in one process with {others} over the same features")
}

fn experiment(cluster: &Cluster, row: &Experiment) -> String {
    let trials = || cluster.trials_of(row.id);
    let live = trials().filter(|trial| trial.lease().is_some()).count();
    let ended = trials().filter(|trial| trial.is_ended()).count();
    let open = trials().count() - ended - live;
    match &row.state {
        ExperimentState::Paused if live > 0 => {
            format!("it is paused; {live} trials are still writing their checkpoints")
        }
        ExperimentState::Paused => "it is paused and waits to be resumed".to_owned(),
        ExperimentState::Promoting { task } => {
            format!("its trials have ended and task `{task}` publishes the best checkpoint")
        }
        ExperimentState::Active if live == 0 => match lack(cluster, row) {
            Some(why) => format!("it waits: {why}"),
            None => format!("no trial runs, {open} wait, {ended} have ended"),
        },
        ExperimentState::Active => format!("{live} trials run, {open} wait, {ended} have ended"),
        ExperimentState::Completed => "it is completed".to_owned(),
        ExperimentState::Failed { fault } => format!("it failed: {fault}"),
        ExperimentState::Canceled => "it was canceled".to_owned(),
    }
}

/// Why no worker could ever serve an experiment's trials.
fn lack(cluster: &Cluster, row: &Experiment) -> Option<Fault> {
    unplaceable(cluster, row.spec.resources.slots_per_trial)
}

fn trial(cluster: &Cluster, row: &Trial, now: Timestamp) -> String {
    match &row.state {
        TrialState::Waiting { not_before, .. } => {
            let Some(owner) = cluster.experiment(row.experiment) else {
                return "it waits".to_owned();
            };
            format!("it waits: {}", waiting(cluster, owner, *not_before, now))
        }
        TrialState::Running { lease } => {
            let resumed = if row.leases > 1 {
                format!(", its lease number {}", row.leases)
            } else {
                String::new()
            };
            format!(
                "it runs {}{}{resumed}, at step {}",
                place(cluster, *lease),
                with_others(cluster, *lease),
                row.last_step
            )
        }
        TrialState::Stopping { lease, then } => {
            let then = match then {
                AfterStop::Paused => "will be paused",
                AfterStop::Canceled => "will be canceled",
                AfterStop::Completed => "counts as completed with what it has",
                AfterStop::Waiting => "will wait for another lease",
            };
            let place = place(cluster, *lease);
            format!(
                "it was asked to stop {place} and {then}{}",
                grace(cluster, *lease, now)
            )
        }
        TrialState::Paused => {
            let owner = cluster.experiment(row.experiment);
            if owner.is_some_and(|owner| owner.state == ExperimentState::Active) {
                "it waits at a rung, and goes on if it is among the best there".to_owned()
            } else {
                "it is paused and waits for its experiment to be resumed".to_owned()
            }
        }
        TrialState::Completed => "it is completed".to_owned(),
        TrialState::Failed { fault } => format!("it failed: {fault}"),
        TrialState::Canceled => "it was canceled".to_owned(),
    }
}

fn waiting(cluster: &Cluster, owner: &Experiment, not_before: Timestamp, now: Timestamp) -> String {
    if owner.state == ExperimentState::Paused {
        return "its experiment is paused".to_owned();
    }
    if not_before > now {
        let left = seconds(not_before.since_ms(now));
        return format!("it backs off after a failure for another {left}");
    }
    if let Some(lack) = lack(cluster, owner) {
        return lack.message;
    }
    let live = (cluster.trials_of(owner.id)).filter(|trial| trial.lease().is_some());
    let limit = owner.spec.search.max_concurrent;
    if live.count() >= limit as usize {
        return format!("`search.max_concurrent: {limit}` of its experiment is reached");
    }
    let need = owner.spec.resources.slots_per_trial;
    let (free, total) = slots(cluster);
    if free == 0 {
        return format!("all {total} slots are busy");
    }
    if !is_heard(cluster) {
        return UNHEARD.to_owned();
    }
    if need > 1 {
        return format!("no worker has {need} free slots ({free} of {total} are free in all)");
    }
    format!("{free} of {total} slots are free and set aside for work of higher rank")
}

/// Free and all slots of workers that get work.
fn slots(cluster: &Cluster) -> (usize, usize) {
    let alive = || (cluster.workers()).filter(|worker| worker.state == WorkerState::Alive);
    let total: usize = alive().map(|worker| worker.slots.len()).sum();
    let busy: usize = alive().map(|worker| held(cluster, worker)).sum();
    (total.saturating_sub(busy), total)
}

/// Whether a worker gets work: after a start, only those that were heard of.
fn is_heard(cluster: &Cluster) -> bool {
    (cluster.workers()).any(|worker| cluster.takes_work(worker))
}

fn held(cluster: &Cluster, worker: &Worker) -> usize {
    (cluster.leases_of(worker.id))
        .flat_map(|lease| &lease.slots)
        .filter(|slot| slot.worker == worker.id)
        .count()
}

fn place(cluster: &Cluster, lease: LeaseId) -> String {
    let Some(lease) = cluster.lease(lease) else {
        return "on a lease".to_owned();
    };
    let slots: Vec<String> = (lease.slots.iter())
        .map(|slot| slot.index.to_string())
        .collect();
    let noun = if slots.len() == 1 { "slot" } else { "slots" };
    format!(
        "on worker `{}`, {noun} {}",
        name(cluster, lease),
        slots.join(", ")
    )
}

fn name(cluster: &Cluster, lease: &Lease) -> String {
    let worker = lease
        .slots
        .first()
        .and_then(|slot| cluster.worker(slot.worker));
    worker.map_or_else(String::new, |worker| worker.name.clone())
}

fn grace(cluster: &Cluster, lease: LeaseId, now: Timestamp) -> String {
    match cluster.lease(lease).map(|lease| &lease.state) {
        Some(LeaseState::Stopping { since, .. }) => {
            let left = cluster.config().stop_grace_ms - now.since_ms(*since);
            format!("; it is revoked in {}", seconds(left.max(0)))
        }
        Some(LeaseState::Live | LeaseState::Ended { .. }) | None => String::new(),
    }
}

fn task(cluster: &Cluster, row: &Task, now: Timestamp) -> String {
    match &row.state {
        TaskState::Waiting => {
            let until = cluster.task_not_before(row.id);
            let (free, total) = slots(cluster);
            let why = if until > now {
                let left = seconds(until.since_ms(now));
                format!("it backs off after a failure for another {left}")
            } else if total == 0 {
                "no worker with slots is there".to_owned()
            } else if free == 0 {
                format!("all {total} slots are busy")
            } else if !is_heard(cluster) {
                UNHEARD.to_owned()
            } else {
                format!("{free} of {total} slots are free and set aside for work of higher rank")
            };
            format!("it waits: {why}")
        }
        TaskState::Running { lease } => format!("it runs {}", place(cluster, *lease)),
        TaskState::Completed { .. } => "it is completed".to_owned(),
        TaskState::Failed { fault } => format!("it failed: {fault}"),
        TaskState::Canceled => "it was canceled".to_owned(),
    }
}

fn worker(cluster: &Cluster, row: &Worker, now: Timestamp) -> String {
    let busy = held(cluster, row);
    let total = row.slots.len();
    let doubt = if cluster.strikes(Subject::Worker(row.id)) >= cluster.config().doubt_after {
        "; work fails to start there, so others are preferred"
    } else {
        ""
    };
    match row.state {
        WorkerState::Alive => format!("it is alive, {busy} of {total} slots are busy{doubt}"),
        WorkerState::Draining => {
            format!("it drains: {busy} of {total} slots are still busy, it gets nothing new")
        }
        WorkerState::Lost => format!(
            "it is lost: not heard of for {}",
            seconds(now.since_ms(cluster.heard(row.id)))
        ),
    }
}
