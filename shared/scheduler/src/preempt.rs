//! Preemption: which leases are asked to yield, so that a trial of higher priority gets their
//! slots. See the README beside this crate.
//!
//! Pure. It never takes from equals, from tasks, or from a lease that was held for less than its
//! least time; what was asked to stop already counts as free, so asking again asks nobody (S8).

use crate::Cluster;
use crate::plan::set_aside;
use crate::plan::slots::{Site, Slots};
use crate::queue::{Entry, Owner, Queue, has_waiting};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::lease::{Lease, LeaseState, Work};
use pomona_domain::{LeaseId, Timestamp, TrialId, WorkerId};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// A lease that is to yield.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The lease.
    pub lease: LeaseId,
    /// The trial that gets its slots.
    pub by: TrialId,
}

/// A lease that may have to yield, and what that would cost: the least costly first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Victim {
    priority: i32,
    /// Milliseconds of training since its members' last checkpoints: lost if it does not write one.
    unsaved_ms: i64,
    granted: Reverse<Timestamp>,
    lease: LeaseId,
    slots: usize,
}

/// Leases to be asked to yield now.
pub fn preemptions(cluster: &Cluster, now: Timestamp) -> Vec<Preemption> {
    if cluster.config().preempt_gap == 0 || !may_ask(cluster) {
        return Vec::new();
    }
    let stops = |lease: &&Lease| lease.stop().is_some();
    let mut yielding: BTreeSet<LeaseId> = cluster
        .leases()
        .filter(stops)
        .map(|lease| lease.id)
        .collect();
    let queue = Queue::new(cluster, now);
    let mut found = Vec::new();
    // Each walk begins with what was asked before it, so that the last one asks nobody.
    while let Some((by, victims)) = walk(cluster, now, &queue, &yielding) {
        yielding.extend(&victims);
        found.extend(victims.into_iter().map(|lease| Preemption { lease, by }));
    }
    found
}

/// Whether the highest that waits stands so far above the lowest that runs that it may ask it to
/// yield. Cheap, and mostly `false`: then nobody is looked at.
fn may_ask(cluster: &Cluster) -> bool {
    let waiting = (cluster.experiments()).filter(|row| has_waiting(cluster, row));
    let running = (cluster.experiments()).filter(|row| cluster.count_leased(row.id) > 0);
    let high = waiting.map(|row| row.spec.priority).max();
    let low = running.map(|row| row.spec.priority).min();
    high.zip(low)
        .is_some_and(|(high, low)| is_below(cluster, low, high))
}

/// The first of the queue that would get slots only if others yield, and who.
fn walk(
    cluster: &Cluster,
    now: Timestamp,
    queue: &Queue,
    yielding: &BTreeSet<LeaseId>,
) -> Option<(TrialId, Vec<LeaseId>)> {
    let mut slots = Slots::promised(cluster, now, yielding);
    let mut queue = queue.clone();
    for at in queue.order() {
        let entry = queue.entry(at);
        let wanted = entry.wanted();
        let most = queue.leases_within_quota(entry).min(entry.room);
        let got = (0..most)
            .take_while(|_| slots.take(&wanted).is_some())
            .count();
        queue.claim(at, most);
        let entry = queue.entry(at);
        if got == most {
            continue;
        }
        if let Owner::Experiment(_) = entry.owner
            && let Some(trial) = entry.trials.get(got)
            && let Some(victims) = victims(cluster, now, entry, &slots, yielding)
        {
            return Some((trial.id, victims));
        }
        set_aside(&mut slots, &wanted, most - got);
    }
    None
}

/// Who yields for an entry: of all sites the one where it costs least.
fn victims(
    cluster: &Cluster,
    now: Timestamp,
    entry: &Entry,
    slots: &Slots,
    yielding: &BTreeSet<LeaseId>,
) -> Option<Vec<LeaseId>> {
    let wanted = entry.wanted();
    let of_site = |site: &Site| {
        let held = (cluster.leases())
            .filter(|lease| !yielding.contains(&lease.id))
            .filter_map(|lease| victim(cluster, now, (lease, site.count(&lease.slots))))
            .filter(|victim| is_below(cluster, victim.priority, entry.priority()))
            .collect();
        let first = site.groups.iter().map(|group| group.worker.id).min();
        cheapest(held, site.lacks(&wanted)).map(|chosen| (cost(&chosen), first, chosen))
    };
    let best: Option<(_, Option<WorkerId>, Vec<Victim>)> =
        slots.sites(&wanted).iter().filter_map(of_site).min();
    best.map(|(_, _, chosen)| chosen.into_iter().map(|victim| victim.lease).collect())
}

/// Whether a priority is so far below another that it yields.
fn is_below(cluster: &Cluster, low: i32, high: i32) -> bool {
    i64::from(low) + i64::from(cluster.config().preempt_gap) <= i64::from(high)
}

/// A lease that may be asked to yield so many slots: of trials, and held for long enough.
fn victim(cluster: &Cluster, now: Timestamp, (lease, slots): (&Lease, usize)) -> Option<Victim> {
    let owner = cluster.owner(lease).filter(|_| slots > 0)?;
    let long_enough = now.since_ms(lease.granted_at) >= cluster.config().preempt_after_ms;
    (lease.state == LeaseState::Live && long_enough).then(|| Victim {
        priority: owner.spec.priority,
        unsaved_ms: unsaved_ms(cluster, now, lease),
        granted: Reverse(lease.granted_at),
        lease: lease.id,
        slots,
    })
}

/// Training since the last checkpoints of those on a lease.
fn unsaved_ms(cluster: &Cluster, now: Timestamp, lease: &Lease) -> i64 {
    debug_assert!(matches!(lease.work, Work::Trials(_)));
    let since = |trial| {
        let saved = cluster
            .checkpoint(trial, CheckpointKind::Last)
            .map(|row| row.at);
        let from = saved.map_or(lease.granted_at, |at| at.max(lease.granted_at));
        now.since_ms(from).max(0)
    };
    cluster.members(lease).map(|row| since(row.id)).sum()
}

/// The least costly leases that give back so many slots, without one that is not needed.
fn cheapest(mut held: Vec<Victim>, lacking: usize) -> Option<Vec<Victim>> {
    held.sort();
    let mut chosen = Vec::new();
    let mut got = 0;
    for victim in held {
        if got < lacking {
            got += victim.slots;
            chosen.push(victim);
        }
    }
    if got < lacking {
        return None;
    }
    // The last one may have brought so much that an earlier one can go on.
    for at in (0..chosen.len()).rev() {
        if got - chosen[at].slots >= lacking {
            got -= chosen[at].slots;
            chosen.remove(at);
        }
    }
    Some(chosen)
}

/// What is compared between groups: the highest priority that yields, how many leases, what may be
/// lost.
fn cost(chosen: &[Victim]) -> (Option<i32>, usize, i64) {
    let highest = chosen.iter().map(|victim| victim.priority).max();
    let unsaved = chosen.iter().map(|victim| victim.unsaved_ms).sum();
    (highest, chosen.len(), unsaved)
}

#[cfg(test)]
mod tests;
