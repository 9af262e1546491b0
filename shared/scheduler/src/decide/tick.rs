//! What time does by itself: leases expire, stops run out of grace, workers are lost.

use super::draft::Draft;
use super::lease::{Cause, end, part_over};
use super::worker;
use pomona_domain::change::Subject;
use pomona_domain::lease::{Lease, LeaseState};
use pomona_domain::worker::{Worker, WorkerState};
use pomona_domain::{LeaseId, WorkerId};

pub(crate) fn tick(draft: &mut Draft) {
    expire(draft);
    revoke(draft);
    lose(draft);
    worker::clear(draft);
}

/// What a worker holds of a lease is over when it is silent for longer than a term.
fn expire(draft: &mut Draft) {
    let term = draft.config().lease_term_ms;
    let is_silent = |lease: &Lease, worker: &WorkerId| {
        let heard = draft.cluster().heard(*worker).max(lease.granted_at);
        lease.is_open_on(*worker) && draft.now.since_ms(heard) > term
    };
    let of = |lease: &Lease| {
        let mut workers = lease.workers();
        workers.retain(|worker| is_silent(lease, worker));
        workers
            .into_iter()
            .map(|worker| (lease.id, worker))
            .collect::<Vec<_>>()
    };
    let over: Vec<(LeaseId, WorkerId)> = draft.cluster().leases().flat_map(of).collect();
    let why = "its worker was silent for longer than the lease's term";
    for (lease, worker) in over {
        leave(draft, lease, worker, Cause::Lost(why));
    }
}

/// A part of a lease is over, if the lease is not by now.
fn leave(draft: &mut Draft, lease: LeaseId, worker: WorkerId, cause: Cause) {
    if let Some(lease) = draft.cluster().lease(lease).cloned() {
        part_over(draft, &lease, worker, cause);
    }
}

/// A lease that was asked to stop and has not is over.
fn revoke(draft: &mut Draft) {
    let grace = draft.config().stop_grace_ms;
    let over: Vec<Lease> = (draft.cluster().leases())
        .filter(|lease| match lease.state {
            LeaseState::Stopping { since, .. } => draft.now.since_ms(since) > grace,
            LeaseState::Live | LeaseState::Ended { .. } => false,
        })
        .cloned()
        .collect();
    for lease in over {
        end(draft, &lease, Cause::GraceOver);
    }
    // The rest of one that broke: what it broke for counts.
    let broken = |lease: &Lease| {
        lease
            .breaks()
            .is_some_and(|(_, at)| draft.now.since_ms(at) > grace)
    };
    let left = |lease: &Lease| {
        let open = lease
            .workers()
            .into_iter()
            .filter(|worker| lease.is_open_on(*worker));
        open.map(|worker| (lease.id, worker)).collect::<Vec<_>>()
    };
    let leases = draft.cluster().leases().filter(|lease| broken(lease));
    let over: Vec<(LeaseId, WorkerId)> = leases.flat_map(left).collect();
    for (lease, worker) in over {
        leave(draft, lease, worker, Cause::GraceOver);
    }
}

/// A silent worker gets nothing new.
fn lose(draft: &mut Draft) {
    let limit = draft.config().lost_after_ms;
    let silent: Vec<Worker> = (draft.cluster().workers())
        .filter(|worker| worker.state != WorkerState::Lost)
        .filter(|worker| draft.now.since_ms(draft.cluster().heard(worker.id)) > limit)
        .cloned()
        .collect();
    for mut worker in silent {
        worker.state = WorkerState::Lost;
        worker.changed_at = draft.now;
        let text = format!(
            "lost: not heard of for {}",
            crate::explain::seconds(draft.now.since_ms(draft.cluster().heard(worker.id)))
        );
        draft.reason(Subject::Worker(worker.id), text);
        draft.worker(worker);
    }
}
