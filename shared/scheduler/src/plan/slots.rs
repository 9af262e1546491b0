//! Free slots by worker and kind: what is taken of them, and what is set aside.
//!
//! It never asks for whom.

use crate::Cluster;
use pomona_domain::change::Subject;
use pomona_domain::lease::{Lease, SlotRef};
use pomona_domain::worker::{PROCESSOR, Selector, Slot, SlotKind, Worker, is_selected};
use pomona_domain::{LeaseId, Timestamp, WorkerId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What work needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Slots of one kind: of one worker, or alike on several where no worker has so many.
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
    /// What they compute on, when that is the same for all of them: ranks on several workers must
    /// be alike.
    model: Option<&'a str>,
    /// All its slots, busy ones included: what a gang may hope for.
    size: usize,
    free: BTreeSet<u32>,
    /// Held by leases that were asked to stop: free soon.
    coming: usize,
    /// Set aside for a gang that is next and still lacks slots here.
    reserved: bool,
}

impl Group<'_> {
    fn is_selected(&self, wanted: &Wanted) -> bool {
        is_selected(&self.worker.labels, wanted.selector)
    }

    /// Whether it can ever hold what is wanted, and is not set aside.
    fn may_hold(&self, wanted: &Wanted) -> bool {
        !self.reserved && self.size >= wanted.slots && self.is_selected(wanted)
    }

    /// Slots that what is wanted lacks here now.
    fn lacks(&self, wanted: &Wanted) -> usize {
        wanted.slots.saturating_sub(self.free.len())
    }

    fn pick(&mut self, count: usize) -> Vec<SlotRef> {
        let rest = self.free.iter().copied().nth(count);
        let rest = rest.map_or_else(BTreeSet::new, |at| self.free.split_off(&at));
        let taken = std::mem::replace(&mut self.free, rest);
        let worker = self.worker.id;
        let slot = |index| SlotRef { worker, index };
        taken.into_iter().map(slot).collect()
    }
}

/// Groups that could hold what is wanted together: one, or several that are alike.
#[derive(Debug)]
pub(crate) struct Site<'s, 'a> {
    pub(crate) groups: Vec<&'s Group<'a>>,
}

impl Site<'_, '_> {
    /// Slots that what is wanted lacks here now.
    pub(crate) fn lacks(&self, wanted: &Wanted) -> usize {
        let free: usize = self.groups.iter().map(|group| group.free.len()).sum();
        wanted.slots.saturating_sub(free)
    }

    /// How many of these slots are here.
    pub(crate) fn count(&self, slots: &[SlotRef]) -> usize {
        let is_here = |slot: &&SlotRef| {
            let of = |group: &&&Group| group.worker.id == slot.worker;
            let kind = |group: &Group| {
                let mut all = group.worker.slots.iter();
                all.any(|there| there.index == slot.index && there.kind == group.kind)
            };
            self.groups.iter().filter(of).any(|group| kind(group))
        };
        slots.iter().filter(is_here).count()
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
        let groups = (cluster.workers())
            .filter(|worker| cluster.is_open(worker, now))
            .flat_map(|worker| groups(worker, &held(cluster, worker.id, &holds)))
            .collect();
        Self { cluster, groups }
    }

    /// Free slots that are not set aside.
    pub(crate) fn count(&self) -> usize {
        let groups = self.groups.iter().filter(|group| !group.reserved);
        groups.map(|group| group.free.len()).sum()
    }

    /// Those of them on workers that would do for one slot.
    pub(crate) fn count_for(&self, wanted: &Wanted) -> usize {
        let would_do = self.groups.iter().filter(|group| group.may_hold(wanted));
        would_do.map(|group| group.free.len()).sum()
    }

    /// Where what is wanted could be held.
    pub(crate) fn sites(&self, wanted: &Wanted) -> Vec<Site<'_, 'a>> {
        let at = |places: Vec<usize>| Site {
            groups: places.into_iter().map(|at| &self.groups[at]).collect(),
        };
        if self.is_wide(wanted) {
            return self.classes(wanted).into_values().map(at).collect();
        }
        let ones = 0..self.groups.len();
        ones.filter(|one| self.groups[*one].may_hold(wanted))
            .map(|one| at(vec![one]))
            .collect()
    }

    /// Whether no single worker has so many slots, set aside or not.
    fn is_wide(&self, wanted: &Wanted) -> bool {
        let holds = |group: &Group| group.size >= wanted.slots && group.is_selected(wanted);
        wanted.slots > 1 && !self.groups.iter().any(holds)
    }

    /// Places of groups that are alike and have enough slots together, by kind and model.
    fn classes(&self, wanted: &Wanted) -> BTreeMap<(Reverse<SlotKind>, &'a str), Vec<usize>> {
        let mut classes: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, group) in self.groups.iter().enumerate() {
            if let Some(model) = group
                .model
                .filter(|_| !group.reserved && group.is_selected(wanted))
            {
                let class = classes.entry((Reverse(group.kind), model)).or_default();
                class.push(at);
            }
        }
        let size = |at: &usize| self.groups[*at].size;
        classes.retain(|_, places| places.iter().map(size).sum::<usize>() >= wanted.slots);
        classes
    }

    /// Takes slots where the fewest free ones stay behind: a GPU before a CPU, and a worker where
    /// starts fail only when no other can.
    pub(crate) fn take(&mut self, wanted: &Wanted) -> Option<Vec<SlotRef>> {
        if self.is_wide(wanted) {
            return self.take_wide(wanted);
        }
        let at = (0..self.groups.len())
            .filter(|at| {
                let group = &self.groups[*at];
                wanted.slots > 0 && group.may_hold(wanted) && group.lacks(wanted) == 0
            })
            .min_by_key(|at| {
                let group = &self.groups[*at];
                let left = group.free.len() - wanted.slots;
                let doubtful = self.is_doubtful(group.worker.id, wanted);
                (doubtful, Reverse(group.kind), left, group.worker.id)
            })?;
        Some(self.groups[at].pick(wanted.slots))
    }

    fn is_doubtful(&self, worker: WorkerId, wanted: &Wanted) -> bool {
        let doubt = self.cluster.config().doubt_after;
        let tried = wanted
            .subject
            .map_or(0, |subject| self.cluster.strikes(subject));
        let strikes = self.cluster.strikes(Subject::Worker(worker));
        strikes >= doubt || (tried >= doubt && strikes > 0)
    }

    /// Takes alike slots of the fewest workers: whole workers, the largest first, and of the last
    /// one what is still lacking, where the fewest free ones stay behind.
    fn take_wide(&mut self, wanted: &Wanted) -> Option<Vec<SlotRef>> {
        let classes = self.classes(wanted);
        let choice = (classes.iter())
            .filter_map(|(class, places)| {
                let chosen = self.fewest(places, wanted)?;
                let doubtful = |at: &&usize| self.is_doubtful(self.groups[**at].worker.id, wanted);
                let doubts = chosen.iter().filter(doubtful).count();
                Some(((doubts, class.0, chosen.len(), class.1), chosen))
            })
            .min_by_key(|(cost, _)| *cost);
        let (_, chosen) = choice?;
        let mut taken: Vec<SlotRef> = Vec::new();
        for at in chosen {
            let left = wanted.slots - taken.len();
            taken.extend(self.groups[at].pick(left));
        }
        Some(taken)
    }

    /// The fewest of some groups that have enough free slots, those without doubt first.
    fn fewest(&self, places: &[usize], wanted: &Wanted) -> Option<Vec<usize>> {
        let free = |at: &usize| self.groups[*at].free.len();
        let worker = |at: &usize| self.groups[*at].worker.id;
        let sure = |at: &&usize| !self.is_doubtful(worker(at), wanted);
        let mut rest: Vec<usize> = places.iter().filter(sure).copied().collect();
        if rest.iter().map(free).sum::<usize>() < wanted.slots {
            rest = places.to_vec();
        }
        rest.sort_by_key(|at| (Reverse(free(at)), worker(at)));
        let mut chosen = Vec::new();
        let mut left = wanted.slots;
        while left > 0 {
            let enough = rest.iter().filter(|at| free(at) >= left);
            let last = enough.min_by_key(|at| (free(at), worker(at)));
            let at = *last.or(rest.first())?;
            if free(&at) == 0 {
                return None;
            }
            left = left.saturating_sub(free(&at));
            rest.retain(|other| *other != at);
            chosen.push(at);
        }
        Some(chosen)
    }

    /// What is next and does not fit yet gets one worker set aside: the one that will lack the
    /// fewest slots once those that were asked to stop have. Without this a large gang would starve
    /// behind small trials. `false`: there is none.
    pub(crate) fn reserve(&mut self, wanted: &Wanted) -> bool {
        if self.is_wide(wanted) {
            return self.reserve_wide(wanted);
        }
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

    /// The same for several workers that are alike.
    fn reserve_wide(&mut self, wanted: &Wanted) -> bool {
        let soon = |at: &usize| self.groups[*at].free.len() + self.groups[*at].coming;
        let classes = self.classes(wanted).into_iter();
        let best = classes.min_by_key(|(class, places)| {
            let coming: usize = places.iter().map(soon).sum();
            (wanted.slots.saturating_sub(coming), *class)
        });
        let Some((_, mut places)) = best else {
            return false;
        };
        places.sort_by_key(|at| {
            let group = &self.groups[*at];
            (Reverse(soon(at)), Reverse(group.size), group.worker.id)
        });
        let mut size = 0;
        for at in places {
            if size < wanted.slots {
                size += self.groups[at].size;
                self.groups[at].reserved = true;
            }
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

/// What slots of one kind compute on, when that is the same for all of them: a GPU has a name, and
/// of a processor a worker says more than that.
pub(crate) fn model<'a>(worker: &'a Worker, slots: &[&'a Slot]) -> Option<&'a str> {
    let first = *slots.first()?;
    if first.kind == SlotKind::Cpu
        && let Some(processor) = worker.labels.get(PROCESSOR)
    {
        return Some(processor);
    }
    let is_like = |slot: &&Slot| slot.name == first.name;
    slots.iter().all(is_like).then_some(first.name.as_str())
}

/// A worker's slots by kind.
pub(crate) fn kinds(worker: &Worker) -> BTreeMap<SlotKind, Vec<&Slot>> {
    let mut kinds: BTreeMap<SlotKind, Vec<&Slot>> = BTreeMap::new();
    for slot in &worker.slots {
        kinds.entry(slot.kind).or_default().push(slot);
    }
    kinds
}

/// The slots of a worker that leases hold, and whether those were asked to stop.
fn held(
    cluster: &Cluster,
    worker: WorkerId,
    holds: impl Fn(&Lease) -> bool,
) -> BTreeMap<u32, bool> {
    let mut held = BTreeMap::new();
    for lease in cluster.holders(worker).filter(|lease| holds(lease)) {
        let stops = lease.stop().is_some();
        let here = lease.slots.iter().filter(|slot| slot.worker == worker);
        held.extend(here.map(|slot| (slot.index, stops)));
    }
    held
}

fn groups<'a>(worker: &'a Worker, held: &BTreeMap<u32, bool>) -> Vec<Group<'a>> {
    let state = |slot: &Slot| held.get(&slot.index).copied();
    let group = |(kind, slots): (SlotKind, Vec<&'a Slot>)| Group {
        worker,
        kind,
        model: model(worker, &slots),
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
