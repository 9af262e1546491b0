//! Why something is as it is right now, as one sentence. What led there is in the stored reasons.

use crate::Cluster;
use crate::unplaceable;
use pomona_domain::change::Subject;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::{LeaseState, SlotRef, StopReason};
use pomona_domain::plan::Spent;
use pomona_domain::task::{Task, TaskState};
use pomona_domain::trial::{AfterStop, Trial, TrialState};
use pomona_domain::worker::{Worker, WorkerState};
use pomona_domain::{ExperimentId, Fault, LeaseId, Timestamp, WorkerId};
use std::collections::BTreeSet;

mod waiting;

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
        && cluster
            .open_trials_of(id)
            .all(|trial| trial.lease().is_none());
    if waits { lack(cluster, row) } else { None }
}

/// What the leases that an experiment's trials are on have cost up to now. With what the row says
/// it spent, that is all so far.
pub fn running(cluster: &Cluster, id: ExperimentId, now: Timestamp) -> Spent {
    let leases: BTreeSet<LeaseId> = (cluster.open_trials_of(id))
        .filter_map(Trial::lease)
        .collect();
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
    unplaceable(cluster, &row.spec)
}

fn trial(cluster: &Cluster, row: &Trial, now: Timestamp) -> String {
    match &row.state {
        TrialState::Waiting { not_before, .. } => {
            let Some(owner) = cluster.experiment(row.experiment) else {
                return "it waits".to_owned();
            };
            format!(
                "it waits: {}",
                waiting::trial(cluster, owner, *not_before, now)
            )
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
                "it was asked to stop {place}{} and {then}{}",
                why_it_stops(cluster, *lease),
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

fn held(cluster: &Cluster, worker: &Worker) -> usize {
    // What is over here may still hold slots for the sake of others.
    (cluster.leases())
        .flat_map(|lease| &lease.slots)
        .filter(|slot| slot.worker == worker.id)
        .count()
}

fn place(cluster: &Cluster, lease: LeaseId) -> String {
    match cluster.lease(lease) {
        Some(lease) => format!("on {}", places(cluster, &lease.slots)),
        None => "on a lease".to_owned(),
    }
}

/// ``worker `a`, slots 0, 1``, of several workers with `and` between them.
pub(crate) fn places(cluster: &Cluster, slots: &[SlotRef]) -> String {
    let of_one = |slots: &[SlotRef]| {
        let name = slots.first().map(|slot| worker_name(cluster, slot.worker));
        let indexes: Vec<String> = slots.iter().map(|slot| slot.index.to_string()).collect();
        let noun = if slots.len() == 1 { "slot" } else { "slots" };
        let name = name.unwrap_or_default();
        format!("worker `{name}`, {noun} {}", indexes.join(", "))
    };
    let parts: Vec<String> = slots
        .chunk_by(|a, b| a.worker == b.worker)
        .map(of_one)
        .collect();
    parts.join(" and ")
}

pub(crate) fn worker_name(cluster: &Cluster, worker: WorkerId) -> String {
    let worker = cluster.worker(worker);
    worker.map_or_else(String::new, |worker| worker.name.clone())
}

/// What else is to get its slots.
fn why_it_stops(cluster: &Cluster, lease: LeaseId) -> &'static str {
    let Some(LeaseState::Stopping { why, .. }) = cluster.lease(lease).map(|lease| &lease.state)
    else {
        return "";
    };
    match why {
        StopReason::Request => "",
        StopReason::Priority => ", preempted by work of higher priority,",
        StopReason::Drain => ", because the worker drains,",
    }
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
            let why = waiting::task(cluster, row, now);
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
    match row.state {
        WorkerState::Alive => {
            let doubt = doubt(cluster, row, now);
            format!("it is alive, {busy} of {total} slots are busy{doubt}")
        }
        WorkerState::Draining => {
            let left = row.drain_by.map_or(0, |by| by.since_ms(now));
            let when = if left > 0 && busy > 0 {
                format!("; what runs there yields in {}", seconds(left))
            } else {
                String::new()
            };
            format!("it drains: {busy} of {total} slots are still busy, it gets nothing new{when}")
        }
        WorkerState::Lost => format!(
            "it is lost: not heard of for {}",
            seconds(now.since_ms(cluster.heard(row.id)))
        ),
    }
}

/// What speaks against giving it work.
fn doubt(cluster: &Cluster, row: &Worker, now: Timestamp) -> String {
    if let Some(why) = exclusion(cluster, row.id, now) {
        return format!("; {why}");
    }
    if cluster.strikes(Subject::Worker(row.id)) >= cluster.config().doubt_after {
        return "; work fails to start there, so others are preferred".to_owned();
    }
    String::new()
}

/// Why a worker gets no work although it is there: that of others failed.
pub fn exclusion(cluster: &Cluster, worker: WorkerId, now: Timestamp) -> Option<String> {
    let until = cluster.excluded_until(worker, now)?;
    let left = seconds(until.since_ms(now));
    Some(format!(
        "it is excluded for another {left}: different trials failed there and nothing ended well"
    ))
}
