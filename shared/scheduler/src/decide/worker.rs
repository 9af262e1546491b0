//! Workers: they introduce themselves, beat, drain, come back.

use super::draft::Draft;
use super::lease::{Cause, end, end_all_of};
use super::{not_found, reports};
use pomona_domain::change::Subject;
use pomona_domain::lease::Lease;
use pomona_domain::report::Report;
use pomona_domain::worker::{Slot, Worker, WorkerState};
use pomona_domain::{Code, Fault, WorkerId};
use std::collections::BTreeMap;

/// What a worker says about itself.
pub(crate) struct Introduction<'a> {
    pub(crate) name: &'a str,
    pub(crate) incarnation: u64,
    pub(crate) slots: &'a [Slot],
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// A worker introduced itself. Another incarnation means that nothing it ran lives.
pub(crate) fn registered(draft: &mut Draft, id: WorkerId, said: &Introduction) {
    let Some(old) = draft.cluster().worker(id).cloned() else {
        draft.worker(Worker {
            id,
            version: 0,
            name: said.name.to_owned(),
            incarnation: said.incarnation,
            slots: said.slots.to_vec(),
            labels: said.labels.clone(),
            state: WorkerState::Alive,
            acked_seq: 0,
            registered_at: draft.now,
            changed_at: draft.now,
        });
        let text = format!("registered with {} slots", said.slots.len());
        draft.reason(Subject::Worker(id), text);
        return;
    };
    let again = old.incarnation == said.incarnation;
    let state = match old.state {
        WorkerState::Draining if again => WorkerState::Draining,
        WorkerState::Alive | WorkerState::Draining | WorkerState::Lost => WorkerState::Alive,
    };
    let mut row = Worker {
        name: said.name.to_owned(),
        incarnation: said.incarnation,
        slots: said.slots.to_vec(),
        labels: said.labels.clone(),
        state,
        ..old.clone()
    };
    if row == old {
        return;
    }
    row.changed_at = draft.now;
    draft.worker(row);
    if again {
        draft.reason(Subject::Worker(id), "registered again");
        let gone: Vec<Lease> = (draft.cluster().leases_of(id))
            .filter(|lease| !holds_known_slots(lease, said.slots))
            .cloned()
            .collect();
        for lease in gone {
            end(
                draft,
                &lease,
                Cause::Lost("its slots are gone from the worker"),
            );
        }
    } else {
        draft.reason(Subject::Worker(id), "registered again after a restart");
        end_all_of(draft, id, "the worker restarted");
    }
}

fn holds_known_slots(lease: &Lease, slots: &[Slot]) -> bool {
    (lease.slots.iter()).all(|held| slots.iter().any(|slot| slot.index == held.index))
}

/// A heartbeat: what it reports counts once.
pub(crate) fn polled(
    draft: &mut Draft,
    id: WorkerId,
    incarnation: u64,
    reports: &[Report],
) -> Result<(), Fault> {
    let Some(mut row) = draft.cluster().worker(id).cloned() else {
        return Err(unknown(id, "is not registered"));
    };
    if row.incarnation != incarnation {
        return Err(unknown(id, "registered as another process"));
    }
    let acked = row.acked_seq;
    if row.state == WorkerState::Lost {
        row.state = WorkerState::Alive;
        row.changed_at = draft.now;
        draft.reason(Subject::Worker(id), "heard of again");
        draft.worker(row.clone());
    }
    // The spool sends oldest first; a late copy of an older poll is below `acked` as a whole.
    let mut fresh: Vec<&Report> = reports.iter().filter(|r| r.seq > acked).collect();
    fresh.sort_by_key(|report| report.seq);
    fresh.dedup_by_key(|report| report.seq);
    if let Some(last) = fresh.last() {
        row.acked_seq = last.seq;
        draft.worker(row);
    }
    for report in fresh {
        reports::count(draft, id, report);
    }
    Ok(())
}

fn unknown(id: WorkerId, what: &str) -> Fault {
    Fault::new(Code::UnknownWorker, format!("worker `{id}` {what}")).hint("register again")
}

/// It keeps what it has and gets nothing new.
pub(crate) fn drain(draft: &mut Draft, id: WorkerId) -> Result<(), Fault> {
    let mut row = (draft.cluster().worker(id).cloned()).ok_or_else(|| not_found(id))?;
    match row.state {
        WorkerState::Draining => return Ok(()),
        WorkerState::Alive => {}
        WorkerState::Lost => {
            return Err(Fault::new(
                Code::WrongState,
                format!("worker `{}` is lost and gets nothing new anyway", row.name),
            ));
        }
    }
    row.state = WorkerState::Draining;
    row.changed_at = draft.now;
    draft.worker(row);
    draft.reason(
        Subject::Worker(id),
        "drains by request: it keeps what it has and gets nothing new",
    );
    Ok(())
}
