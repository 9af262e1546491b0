//! What time does by itself: leases expire, stops run out of grace, workers are lost.

use super::draft::Draft;
use super::lease::{Cause, end};
use super::worker;
use pomona_domain::change::Subject;
use pomona_domain::lease::{Lease, LeaseState};
use pomona_domain::worker::{Worker, WorkerState};

pub(crate) fn tick(draft: &mut Draft) {
    expire(draft);
    revoke(draft);
    lose(draft);
    worker::clear(draft);
}

/// A lease whose worker is silent for longer than a term is over.
fn expire(draft: &mut Draft) {
    let term = draft.config().lease_term_ms;
    let over: Vec<Lease> = (draft.cluster().leases())
        .filter(|lease| {
            lease.slots.iter().any(|slot| {
                let heard = draft.cluster().heard(slot.worker).max(lease.granted_at);
                draft.now.since_ms(heard) > term
            })
        })
        .cloned()
        .collect();
    for lease in over {
        end(
            draft,
            &lease,
            Cause::Lost("its worker was silent for longer than the lease's term"),
        );
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
