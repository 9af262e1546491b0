//! Free slots by worker and kind: what is taken of them, and what is set aside.
//!
//! It never asks for whom.

use crate::Cluster;
use pomona_domain::change::Subject;
use pomona_domain::lease::{Lease, LeaseState, SlotRef};
use pomona_domain::worker::{Selector, Slot, SlotKind, Worker, is_selected};
use pomona_domain::{LeaseId, Timestamp, WorkerId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What work needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Slots of one worker and one kind.
    pub(crate) slots: usize,
    /// Labels of the worker.
    pub(crate) selector: &'a Selector,
    /// Whose starts may have failed before.
    pub(crate) subject: Option<Subject>,
}

/// Free slots of one kind on one worker.
#[derive(Debug, Clone)]
pub(crate) struct Group<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) kind: SlotKind,
    /// All its slots, busy ones included: what a gang may hope for.
    size: usize,
    free: BTreeSet<u32>,
    /// Held by leases that were asked to stop: free soon.
    coming: usize,
    /// Set aside for a gang that is next and still lacks slots here.
    reserved: bool,
}

impl Group<'_> {
    /// Whether it can ever hold what is wanted, and is not set aside.
    fn may_hold(&self, wanted: &Wanted) -> bool {
        !self.reserved
            && self.size >= wanted.slots
            && is_selected(&self.worker.labels, wanted.selector)
    }

    /// Slots that what is wanted lacks here now.
    pub(crate) fn lacks(&self, wanted: &Wanted) -> usize {
        wanted.slots.saturating_sub(self.free.len())
    }
}

/// Slots of workers that get work.
#[derive(Debug, Clone)]
pub(crate) struct Slots<'a> {
    cluster: &'a Cluster,
    groups: Vec<Group<'a>>,
}

impl<'a> Slots<'a> {
    /// What no lease holds.
    pub(crate) fn free(cluster: &'a Cluster, now: Timestamp) -> Self {
        Self::of(cluster, now, |_| true)
    }

    /// What no lease holds or leases that yield give back: as if they were gone.
    pub(crate) fn promised(
        cluster: &'a Cluster,
        now: Timestamp,
        yielding: &BTreeSet<LeaseId>,
    ) -> Self {
        Self::of(cluster, now, |lease| !yielding.contains(&lease.id))
    }

    fn of(cluster: &'a Cluster, now: Timestamp, holds: impl Fn(&Lease) -> bool) -> Self {
        let mut held: BTreeMap<&SlotRef, bool> = BTreeMap::new();
        for lease in cluster.leases().filter(|lease| holds(lease)) {
            let stops = matches!(lease.state, LeaseState::Stopping { .. });
            held.extend(lease.slots.iter().map(|slot| (slot, stops)));
        }
        let groups = (cluster.workers())
            .filter(|worker| cluster.is_open(worker, now))
            .flat_map(|worker| groups(worker, &held))
            .collect();
        Self { cluster, groups }
    }

    /// Free slots that are not set aside.
    pub(crate) fn count(&self) -> usize {
        let groups = self.groups.iter().filter(|group| !group.reserved);
        groups.map(|group| group.free.len()).sum()
    }

    /// Those of them on workers that would do.
    pub(crate) fn count_for(&self, wanted: &Wanted) -> usize {
        self.groups_for(wanted).map(|group| group.free.len()).sum()
    }

    /// Groups that may hold what is wanted.
    pub(crate) fn groups_for(&self, wanted: &Wanted) -> impl Iterator<Item = &Group<'a>> {
        self.groups.iter().filter(|group| group.may_hold(wanted))
    }

    /// Takes slots where the fewest free ones stay behind: a GPU before a CPU, and a worker where
    /// starts fail only when no other can.
    pub(crate) fn take(&mut self, wanted: &Wanted) -> Option<(WorkerId, Vec<u32>)> {
        let doubt = self.cluster.config().doubt_after;
        let tried = wanted
            .subject
            .map_or(0, |subject| self.cluster.strikes(subject));
        let group = (self.groups.iter_mut())
            .filter(|group| wanted.slots > 0 && group.may_hold(wanted) && group.lacks(wanted) == 0)
            .min_by_key(|group| {
                let strikes = self.cluster.strikes(Subject::Worker(group.worker.id));
                let doubtful = strikes >= doubt || (tried >= doubt && strikes > 0);
                let left = group.free.len() - wanted.slots;
                (doubtful, Reverse(group.kind), left, group.worker.id)
            })?;
        let taken: Vec<u32> = group.free.iter().copied().take(wanted.slots).collect();
        group.free.retain(|index| !taken.contains(index));
        Some((group.worker.id, taken))
    }

    /// What is next and does not fit yet gets one worker set aside: the one that will lack the
    /// fewest slots once those that were asked to stop have. Without this a large gang would starve
    /// behind small trials. `false`: there is none.
    pub(crate) fn reserve(&mut self, wanted: &Wanted) -> bool {
        let group = (self.groups.iter_mut())
            .filter(|group| group.may_hold(wanted))
            .min_by_key(|group| {
                let lacks = group.lacks(wanted);
                let later = lacks.saturating_sub(group.coming);
                (later, lacks, Reverse(group.kind), group.worker.id)
            });
        match group {
            Some(group) => group.reserved = true,
            None => return false,
        }
        true
    }

    /// Nothing is set aside any more.
    pub(crate) fn release(&mut self) {
        self.groups
            .iter_mut()
            .for_each(|group| group.reserved = false);
    }
}

/// A worker's slots by kind.
pub(crate) fn kinds(worker: &Worker) -> BTreeMap<SlotKind, Vec<&Slot>> {
    let mut kinds: BTreeMap<SlotKind, Vec<&Slot>> = BTreeMap::new();
    for slot in &worker.slots {
        kinds.entry(slot.kind).or_default().push(slot);
    }
    kinds
}

fn groups<'a>(worker: &'a Worker, held: &BTreeMap<&SlotRef, bool>) -> Vec<Group<'a>> {
    let state = |slot: &Slot| {
        let at = SlotRef {
            worker: worker.id,
            index: slot.index,
        };
        held.get(&at).copied()
    };
    let group = |(kind, slots): (SlotKind, Vec<&Slot>)| Group {
        worker,
        kind,
        size: slots.len(),
        free: (slots.iter())
            .filter(|slot| state(slot).is_none())
            .map(|slot| slot.index)
            .collect(),
        coming: slots
            .iter()
            .filter(|slot| state(slot) == Some(true))
            .count(),
        reserved: false,
    };
    kinds(worker).into_iter().map(group).collect()
}
