//! Leases: granted where the plan says, ended for a cause, and what the end means for their work.

use super::draft::Draft;
use super::trial::Fate;
use super::{experiment, task, trial};
use crate::cluster::subjects;
use crate::explain::{places, with_others, worker_name};
use crate::{Placement, plan};
use pomona_domain::change::Subject;
use pomona_domain::lease::{
    EndKind, Generation, Lease, LeaseState, Part, PartEnd, StopKind, StopReason, Work,
};
use pomona_domain::report::Outcome;
use pomona_domain::task::TaskState;
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Code, Fault, LeaseId, TrialId, WorkerId};
use std::collections::BTreeSet;

/// Why a lease ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause<'a> {
    /// The worker says that all ranks are gone.
    Exited(&'a Outcome),
    /// Nobody's fault: expired, or its worker is lost or began anew.
    Lost(&'a str),
    /// It was asked to stop and did not in time.
    GraceOver,
}

impl<'a> Cause<'a> {
    /// The fault by which a process ended, if it did: said by its trainer or not.
    pub(crate) fn fault(self) -> Option<&'a Fault> {
        match self {
            Self::Exited(Outcome::Failed { fault, .. } | Outcome::Crashed { fault }) => Some(fault),
            Self::Exited(
                Outcome::Finished | Outcome::Stopped | Outcome::Killed | Outcome::NotStarted { .. },
            )
            | Self::Lost(_)
            | Self::GraceOver => None,
        }
    }

    /// What it says about the worker. Time is nobody's fault, and a trainer that says why it ends
    /// has been well until then.
    fn kind(self) -> EndKind {
        match self {
            Self::Exited(Outcome::Finished) => EndKind::Finished,
            Self::Exited(Outcome::NotStarted { .. }) => EndKind::NotStarted,
            Self::Exited(Outcome::Crashed { fault }) if fault.code != Code::TimeLimit => {
                EndKind::Crashed
            }
            Self::Exited(
                Outcome::Crashed { .. }
                | Outcome::Stopped
                | Outcome::Killed
                | Outcome::Failed { .. },
            )
            | Self::Lost(_)
            | Self::GraceOver => EndKind::Neutral,
        }
    }

    /// As a sentence about the lease.
    pub(crate) fn sentence(self) -> String {
        match self {
            Self::Exited(Outcome::Finished) => "it finished".to_owned(),
            Self::Exited(Outcome::Stopped) => "it stopped after writing a checkpoint".to_owned(),
            Self::Exited(Outcome::Killed) => "it was killed as asked".to_owned(),
            Self::Exited(Outcome::Failed { fault, .. }) => format!("it failed: {fault}"),
            Self::Exited(Outcome::Crashed { fault }) => format!("it crashed: {fault}"),
            Self::Exited(Outcome::NotStarted { fault }) => {
                format!("the worker could not start it: {fault}")
            }
            Self::Lost(why) => why.to_owned(),
            Self::GraceOver => "it did not stop in time and was revoked".to_owned(),
        }
    }
}

/// Grants what the plan places.
pub(crate) fn place(draft: &mut Draft) {
    for placement in plan(draft.cluster(), draft.now) {
        grant(draft, placement);
    }
}

fn grant(draft: &mut Draft, placement: Placement) {
    let generation = Generation(draft.cluster().generation().0 + 1);
    // With the time: a restored backup counts generations again, and a worker that still runs a
    // lease of the other history must not take a new one for it.
    let id = LeaseId::derive(&format!("cluster at {}", draft.now.0), generation.0);
    let lease = Lease {
        id,
        version: 0,
        generation,
        work: placement.work,
        slots: placement.slots,
        state: LeaseState::Live,
        granted_at: draft.now,
        meets_at: None,
        parts: Vec::new(),
    };
    let work = lease.work.clone();
    let place = places(draft.cluster(), &lease.slots);
    draft.lease(lease);
    match &work {
        Work::Trials(members) => {
            for member in members {
                if let Some(mut row) = draft.cluster().trial(*member).cloned() {
                    row.state = TrialState::Running { lease: id };
                    row.leases += 1;
                    draft.trial(row);
                }
            }
        }
        Work::Task(task) => {
            if let Some(mut row) = draft.cluster().task(*task).cloned() {
                row.state = TaskState::Running { lease: id };
                draft.task(row);
            }
        }
    }
    let text = format!(
        "placed on {place}{} (generation {})",
        with_others(draft.cluster(), id),
        generation.0
    );
    for subject in subjects(&work) {
        draft.reason(subject, text.clone());
    }
}

/// What a worker held of a lease is over. The lease ends with its last part, and only then are its
/// slots free and does its work move on: once, and for what broke it.
pub(crate) fn part_over(draft: &mut Draft, lease: &Lease, worker: WorkerId, cause: Cause) {
    if !lease.is_wide() {
        return end(draft, lease, cause);
    }
    if !lease.is_open_on(worker) {
        return;
    }
    let mut row = lease.clone();
    row.parts.push(Part {
        worker,
        at: draft.now,
        end: match cause {
            Cause::Exited(outcome) => PartEnd::Exited(outcome.clone()),
            Cause::Lost(_) | Cause::GraceOver => PartEnd::Lost(cause.sentence()),
        },
    });
    if row.workers().iter().any(|worker| row.is_open_on(*worker)) {
        if lease.breaks().is_none() && row.breaks().is_some() {
            let name = worker_name(draft.cluster(), worker);
            let text = format!(
                "its part on worker `{name}` is over ({}): the others are asked to end",
                cause.sentence()
            );
            for subject in subjects(&row.work) {
                draft.reason(subject, text.clone());
            }
        }
        return draft.lease(row);
    }
    match row.culprit().map(|part| part.end.clone()) {
        Some(PartEnd::Exited(outcome)) => end(draft, &row, Cause::Exited(&outcome)),
        Some(PartEnd::Lost(why)) => end(draft, &row, Cause::Lost(&why)),
        None => end(draft, &row, cause),
    }
}

/// Ends a lease and moves its work on.
pub(crate) fn end(draft: &mut Draft, lease: &Lease, cause: Cause) {
    close(draft, lease, cause.kind(), &cause.sentence());
    match &lease.work {
        Work::Trials(members) => {
            let others = draft.cluster().members(lease).count().saturating_sub(1);
            for member in members {
                trial::leave(draft, *member, lease, cause, others as u32);
            }
            settle(draft, members);
        }
        Work::Task(id) => task::leave(draft, *id, cause),
    }
}

/// Ends one member of a lease; the others go on. The lease ends with its last member.
pub(crate) fn part(draft: &mut Draft, lease: &Lease, mut row: Trial, fate: Fate, why: &str) {
    let owner = row.experiment;
    let kind = match fate {
        Fate::Completes => EndKind::Finished,
        Fate::Stays
        | Fate::Waits
        | Fate::Retries
        | Fate::BacksOff
        | Fate::Fails(_)
        | Fate::Pauses
        | Fate::IsCanceled => EndKind::Neutral,
    };
    trial::spend(&mut row, lease, draft.now);
    trial::finish(draft, row, fate, why);
    if draft.cluster().members(lease).next().is_none() {
        close(draft, lease, kind, why);
    }
    experiment::settle(draft, owner);
}

/// Ends a lease and counts what it cost; its work stays as it is. Every lease that ends, ends here.
pub(crate) fn close(draft: &mut Draft, lease: &Lease, kind: EndKind, why: &str) {
    charge(draft, lease);
    let mut row = lease.clone();
    row.state = LeaseState::Ended {
        at: draft.now,
        reason: why.to_owned(),
        kind,
    };
    draft.lease(row);
}

/// An experiment pays for its trials' leases. A lease counts once, however many trials were on it.
fn charge(draft: &mut Draft, lease: &Lease) {
    let Some(mut owner) = draft.cluster().owner(lease).cloned() else {
        return;
    };
    owner.spent.add(lease, draft.now);
    draft.experiment(owner);
}

/// Asks a lease to write checkpoints and end.
pub(crate) fn stop(draft: &mut Draft, id: LeaseId, why: StopReason) {
    let now = draft.now;
    if let Some(row) = draft.cluster().lease(id)
        && row.state == LeaseState::Live
    {
        let mut row = row.clone();
        row.state = LeaseState::Stopping {
            how: StopKind::Checkpoint,
            since: now,
            why,
        };
        draft.lease(row);
    }
}

/// Lets the experiments of some trials go on.
fn settle(draft: &mut Draft, trials: &[TrialId]) {
    let owners: BTreeSet<_> = (trials.iter())
        .filter_map(|id| draft.cluster().trial(*id))
        .map(|trial| trial.experiment)
        .collect();
    for owner in owners {
        experiment::settle(draft, owner);
    }
}

/// Ends every lease of a worker that is gone.
pub(crate) fn end_all_of(draft: &mut Draft, worker: WorkerId, why: &str) -> usize {
    let leases: Vec<Lease> = draft.cluster().leases_of(worker).cloned().collect();
    for lease in &leases {
        part_over(draft, lease, worker, Cause::Lost(why));
    }
    if !leases.is_empty() {
        let text = format!("{} of its leases ended: {why}", leases.len());
        draft.reason(Subject::Worker(worker), text);
    }
    leases.len()
}
