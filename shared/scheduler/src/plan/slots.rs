//! Free slots by worker and kind: what is taken of them, and what is set aside.
//!
//! It never asks for whom.

use crate::Cluster;
use pomona_domain::WorkerId;
use pomona_domain::change::Subject;
use pomona_domain::lease::SlotRef;
use pomona_domain::worker::{Slot, SlotKind, Worker};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Free slots of one kind on one worker.
#[derive(Debug, Clone)]
struct Group {
    worker: WorkerId,
    kind: SlotKind,
    /// All its slots, busy ones included: what a gang may hope for.
    size: usize,
    free: BTreeSet<u32>,
    /// Set aside for a gang that is next and still lacks slots here.
    reserved: bool,
}

/// Slots of workers that get work.
#[derive(Debug, Clone)]
pub(super) struct Slots(Vec<Group>);

impl Slots {
    /// What no lease holds.
    pub(super) fn free(cluster: &Cluster) -> Self {
        let busy: BTreeSet<&SlotRef> = cluster.leases().flat_map(|lease| &lease.slots).collect();
        let groups = (cluster.workers())
            .filter(|worker| cluster.takes_work(worker))
            .flat_map(|worker| groups(worker, &busy));
        Self(groups.collect())
    }

    /// Free slots that are not set aside.
    pub(super) fn count(&self) -> usize {
        let groups = self.0.iter().filter(|group| !group.reserved);
        groups.map(|group| group.free.len()).sum()
    }

    /// Takes slots where the fewest free ones stay behind: a GPU before a CPU, and a worker where
    /// starts fail only when no other can. `tried` says how often the work itself failed to start.
    pub(super) fn take(
        &mut self,
        cluster: &Cluster,
        need: usize,
        tried: u32,
    ) -> Option<(WorkerId, Vec<u32>)> {
        let doubt = cluster.config().doubt_after;
        let group = (self.0.iter_mut())
            .filter(|group| !group.reserved && need > 0 && group.free.len() >= need)
            .min_by_key(|group| {
                let strikes = cluster.strikes(Subject::Worker(group.worker));
                let doubtful = strikes >= doubt || (tried >= doubt && strikes > 0);
                let left = group.free.len() - need;
                (doubtful, Reverse(group.kind), left, group.worker)
            })?;
        let taken: Vec<u32> = group.free.iter().copied().take(need).collect();
        group.free.retain(|index| !taken.contains(index));
        Some((group.worker, taken))
    }

    /// What is next and does not fit yet gets one worker set aside: the one that lacks the fewest
    /// slots. Without this a large gang would starve behind small trials.
    pub(super) fn reserve(&mut self, need: usize) {
        let group = (self.0.iter_mut())
            .filter(|group| !group.reserved && group.size >= need)
            .min_by_key(|group| {
                let lacking = need.saturating_sub(group.free.len());
                (lacking, Reverse(group.kind), group.worker)
            });
        if let Some(group) = group {
            group.reserved = true;
        }
    }
}

/// A worker's slots by kind.
pub(super) fn kinds(worker: &Worker) -> BTreeMap<SlotKind, Vec<&Slot>> {
    let mut kinds: BTreeMap<SlotKind, Vec<&Slot>> = BTreeMap::new();
    for slot in &worker.slots {
        kinds.entry(slot.kind).or_default().push(slot);
    }
    kinds
}

fn groups(worker: &Worker, busy: &BTreeSet<&SlotRef>) -> Vec<Group> {
    let at = |index| SlotRef {
        worker: worker.id,
        index,
    };
    let group = |(kind, slots): (SlotKind, Vec<&Slot>)| Group {
        worker: worker.id,
        kind,
        size: slots.len(),
        free: (slots.iter().map(|slot| slot.index))
            .filter(|index| !busy.contains(&at(*index)))
            .collect(),
        reserved: false,
    };
    kinds(worker).into_iter().map(group).collect()
}
