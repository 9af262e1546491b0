//! What to do so that what runs becomes what should run. Pure: leases in, actions out.
//!
//! It must never start a lease on a slot that a live lease still holds (S1 on this machine), and
//! asking again after the actions were taken must ask for nothing new (S8's mirror image).

use pomona_api::v1::workers::DesiredLease;
use pomona_domain::lease::StopKind;
use pomona_domain::{Generation, LeaseId};
use std::collections::BTreeSet;

#[cfg(test)]
mod tests;

/// Where a lease stands on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its processes live or are being started; `stop` says what it was asked already.
    Live {
        /// The strongest request so far.
        stop: Option<StopKind>,
    },
    /// All its processes are gone; its exit is not acknowledged yet.
    Ended,
}

/// A lease this machine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The lease.
    pub lease: LeaseId,
    /// Its generation.
    pub generation: Generation,
    /// Slots it holds while it is live.
    pub slots: Vec<u32>,
    /// Where it stands.
    pub phase: Phase,
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the desired lease.
    Start(LeaseId),
    /// Ask for a checkpoint and an end.
    Stop(LeaseId),
    /// End it now.
    Kill(LeaseId),
    /// It should end and does not run here: report its exit at once.
    Decline(LeaseId, StopKind),
}

/// The actions that make `local` become `desired`.
pub fn reconcile(desired: &[DesiredLease], local: &[Local]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut held: BTreeSet<u32> = BTreeSet::new();
    for here in local {
        let Phase::Live { stop } = here.phase else {
            continue;
        };
        held.extend(&here.slots);
        let wanted = desired
            .iter()
            .find(|d| d.lease == here.lease && d.generation == here.generation);
        let wish = wanted.map_or(Some(StopKind::Kill), |d| d.stop);
        match (wish, stop) {
            (None, _)
            | (Some(_), Some(StopKind::Kill))
            | (Some(StopKind::Checkpoint), Some(StopKind::Checkpoint)) => {}
            (Some(StopKind::Checkpoint), None) => actions.push(Action::Stop(here.lease)),
            (Some(StopKind::Kill), None | Some(StopKind::Checkpoint)) => {
                actions.push(Action::Kill(here.lease));
            }
        }
    }
    for wanted in desired {
        if local.iter().any(|here| here.lease == wanted.lease) {
            continue;
        }
        if let Some(how) = wanted.stop {
            actions.push(Action::Decline(wanted.lease, how));
        } else if wanted.slots.iter().all(|slot| !held.contains(slot)) {
            held.extend(&wanted.slots);
            actions.push(Action::Start(wanted.lease));
        }
    }
    actions
}
