//! Workers: they introduce themselves, beat, drain, come back.

use super::control::yields;
use super::draft::Draft;
use super::lease::{Cause, end_all_of, part_over};
use super::{not_found, reports};
use pomona_domain::change::Subject;
use pomona_domain::lease::{Lease, LeaseState, StopReason, Work};
use pomona_domain::report::Report;
use pomona_domain::worker::{Slot, Worker, WorkerState};
use pomona_domain::{Code, Fault, LeaseId, Timestamp, WorkerId};
use std::collections::BTreeMap;

/// The longest time that what runs on a worker may go on while it drains.
const MAX_DRAIN_MS: i64 = 30 * 24 * 3_600_000;

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
            drain_by: None,
            acked_seq: 0,
            registered_at: draft.now,
            changed_at: draft.now,
        });
        let text = format!("registered with {} slots", said.slots.len());
        draft.reason(Subject::Worker(id), text);
        return;
    };
    let again = old.incarnation == said.incarnation;
    let drain_by = old.drain_by.filter(|_| again);
    let mut row = Worker {
        name: said.name.to_owned(),
        incarnation: said.incarnation,
        slots: said.slots.to_vec(),
        labels: said.labels.clone(),
        state: standing(drain_by),
        drain_by,
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
            .filter(|lease| !holds_known_slots(lease, id, said.slots))
            .cloned()
            .collect();
        for lease in gone {
            let why = "its slots are gone from the worker";
            part_over(draft, &lease, id, Cause::Lost(why));
        }
    } else {
        draft.reason(Subject::Worker(id), "registered again after a restart");
        end_all_of(draft, id, "the worker restarted");
    }
}

/// What a worker is that is there.
fn standing(drain_by: Option<Timestamp>) -> WorkerState {
    if drain_by.is_some() {
        WorkerState::Draining
    } else {
        WorkerState::Alive
    }
}

fn holds_known_slots(lease: &Lease, worker: WorkerId, slots: &[Slot]) -> bool {
    let mut held = lease.slots.iter().filter(|held| held.worker == worker);
    held.all(|held| slots.iter().any(|slot| slot.index == held.index))
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
        row.state = standing(row.drain_by);
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

/// It gets nothing new, and what it has yields when its time is over. A later wish replaces an
/// earlier one.
pub(crate) fn drain(draft: &mut Draft, id: WorkerId, grace_ms: i64) -> Result<(), Fault> {
    let mut row = (draft.cluster().worker(id).cloned()).ok_or_else(|| not_found(id))?;
    let by = draft.now.plus_ms(grace_ms.clamp(0, MAX_DRAIN_MS));
    match row.state {
        // To say it again changes nothing, unless it is to be over sooner or later.
        WorkerState::Draining
            if row
                .drain_by
                .is_some_and(|old| old <= draft.now && old <= by) =>
        {
            return Ok(());
        }
        WorkerState::Alive | WorkerState::Draining => {}
        WorkerState::Lost => {
            return Err(Fault::new(
                Code::WrongState,
                format!("worker `{}` is lost and gets nothing new anyway", row.name),
            ));
        }
    }
    row.state = WorkerState::Draining;
    row.drain_by = Some(by);
    row.changed_at = draft.now;
    draft.worker(row);
    let what = if by > draft.now {
        let left = crate::explain::seconds(by.since_ms(draft.now));
        format!("what runs there yields in {left}")
    } else {
        "what runs there writes a checkpoint and yields".to_owned()
    };
    let text = format!("drains by request: it gets nothing new and {what}");
    draft.reason(Subject::Worker(id), text);
    clear(draft);
    Ok(())
}

/// It gets work again.
pub(crate) fn undrain(draft: &mut Draft, id: WorkerId) -> Result<(), Fault> {
    let mut row = (draft.cluster().worker(id).cloned()).ok_or_else(|| not_found(id))?;
    if row.drain_by.is_none() && row.state != WorkerState::Draining {
        return Ok(());
    }
    row.drain_by = None;
    if row.state == WorkerState::Draining {
        row.state = WorkerState::Alive;
        row.changed_at = draft.now;
    }
    draft.worker(row);
    draft.reason(Subject::Worker(id), "gets work again by request");
    Ok(())
}

/// What runs on workers that drain yields once its time is over. Tasks are too short to be worth
/// it, and have no checkpoint: they end first.
pub(crate) fn clear(draft: &mut Draft) {
    let over = |row: &&Worker| {
        let by = row.drain_by.unwrap_or_default();
        row.state == WorkerState::Draining && by <= draft.now
    };
    let workers = draft.cluster().workers().filter(over);
    let leases: Vec<(LeaseId, String)> = workers
        .flat_map(|row| {
            let held = draft.cluster().leases_of(row.id);
            let yields = |lease: &&Lease| {
                lease.state == LeaseState::Live && matches!(lease.work, Work::Trials(_))
            };
            held.filter(yields)
                .map(|lease| (lease.id, format!("worker `{}` drains", row.name)))
        })
        .collect();
    for (lease, why) in leases {
        yields(draft, lease, StopReason::Drain, &why);
    }
}
