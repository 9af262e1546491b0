//! Gang placement: which waiting work gets which free slots. See the README beside this crate.
//!
//! Pure. All slots or none (S5): of one worker and one kind, or, where no worker has so many, alike
//! ones of the fewest workers. What it returns never overlaps with a live lease or with itself (S1);
//! planning a planned cluster returns nothing (S8).

use crate::Cluster;
use crate::queue::{self, Owner, Queue};
use pomona_domain::Timestamp;
use pomona_domain::experiment::Experiment;
use pomona_domain::lease::{SlotRef, Work};

mod company;
pub(crate) mod slots;

use company::Company;
use slots::{Slots, Wanted};

/// Work that gets slots now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What.
    pub work: Work,
    /// Where: one slot per rank, rank 0 first, those of one worker together.
    pub slots: Vec<SlotRef>,
}

/// Places what can be placed now, best first. The queue is walked anew after each placement, so
/// that the last walk is the first one of the next plan, and places nothing (S8).
pub fn plan(cluster: &Cluster, now: Timestamp) -> Vec<Placement> {
    if !queue::waits(cluster) {
        return Vec::new();
    }
    let mut slots = Slots::free(cluster, now);
    if slots.count() == 0 {
        return Vec::new();
    }
    let mut queue = Queue::new(cluster, now);
    let mut company = Company::new(cluster);
    let mut placements = Vec::new();
    while let Some(placement) = walk(&mut queue, &mut slots, &mut company) {
        placements.push(placement);
    }
    placements
}

/// Whether another trial of an experiment would find slots, if nobody else wanted them.
pub(crate) fn has_room(cluster: &Cluster, now: Timestamp, row: &Experiment) -> bool {
    let wanted = Wanted {
        slots: row.spec.resources.slots_per_trial as usize,
        selector: &row.spec.resources.selector,
        subject: None,
    };
    cluster.count_leased(row.id) < row.spec.search.max_concurrent as usize
        && Slots::free(cluster, now).take(&wanted).is_some()
}

/// The first of the queue that fits gets its slots; those before it set slots aside.
fn walk<'a>(
    queue: &mut Queue<'a>,
    slots: &mut Slots<'a>,
    company: &mut Company<'a>,
) -> Option<Placement> {
    slots.release();
    for at in queue.order() {
        if slots.count() == 0 {
            return None;
        }
        let entry = queue.entry(at);
        let quota = queue.leases_within_quota(entry);
        if quota == 0 {
            continue;
        }
        let wanted = entry.wanted();
        let free = slots.count_for(&wanted);
        let Some(taken) = slots.take(&wanted) else {
            set_aside(slots, &wanted, entry.room.min(quota));
            continue;
        };
        let rows = company.gather(&entry.trials, entry.room, free.min(quota));
        let work = match entry.owner {
            Owner::Task(row) => Work::Task(row.id),
            Owner::Experiment(_) => Work::Trials(rows.iter().map(|row| row.id).collect()),
        };
        queue.placed(at, &rows);
        return Some(Placement { work, slots: taken });
    }
    None
}

/// Each gang that is next and does not fit sets slots aside. What wants one slot finds none free,
/// so there is nothing to set aside for it.
pub(crate) fn set_aside(slots: &mut Slots, wanted: &Wanted, gangs: usize) {
    let mut left = if wanted.slots > 1 { gangs } else { 0 };
    while left > 0 && slots.reserve(wanted) {
        left -= 1;
    }
}

#[cfg(test)]
mod tests;
