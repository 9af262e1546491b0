//! Who is taken along: waiting trials that share the lease of the one whose turn it is.
//!
//! It never asks which slots they get. Keys are computed when somebody first wants them, and once.

use super::{Owner, Waiting};
use crate::Cluster;
use crate::sharing::{self, Key};
use pomona_domain::TrialId;
use pomona_domain::change::Subject;
use std::collections::{BTreeMap, BTreeSet};

/// The company of one plan.
pub(super) struct Company<'a> {
    cluster: &'a Cluster,
    queue: &'a [Waiting],
    keys: BTreeMap<TrialId, Option<Key<'a>>>,
    placed: BTreeSet<TrialId>,
}

impl<'a> Company<'a> {
    pub(super) fn new(cluster: &'a Cluster, queue: &'a [Waiting]) -> Self {
        Self {
            cluster,
            queue,
            keys: BTreeMap::new(),
            placed: BTreeSet::new(),
        }
    }

    /// Whether a trial got its slot in the turn of another.
    pub(super) fn is_placed(&self, trial: TrialId) -> bool {
        self.placed.contains(&trial)
    }

    pub(super) fn place(&mut self, members: &[TrialId]) {
        self.placed.extend(members);
    }

    /// The members of a lease for the trial at a place of the queue: itself and, in order of
    /// service, others that may share with it. `room` is how many of its experiment may start,
    /// `free` how many slots there are: each slot gets an even part, so that none stays idle for
    /// the sake of sharing.
    pub(super) fn gather(
        &mut self,
        at: usize,
        first: TrialId,
        room: usize,
        free: usize,
    ) -> Vec<TrialId> {
        let limit = self.limit(first);
        let mut members = self.candidates(at, first, limit);
        let part = members.len().min(room).div_ceil(free.max(1));
        let most = self.cluster.config().max_members.max(1) as usize;
        members.truncate(part.min(most).min(limit));
        members
    }

    /// The trial itself, then those behind it in the queue that may share with it. Whoever was on a
    /// lease that crashed has a limit; trials of equal limits keep to themselves, so that those
    /// that nothing speaks against are not drawn into the next crash.
    fn candidates(&mut self, at: usize, first: TrialId, limit: usize) -> Vec<TrialId> {
        let mut found = vec![first];
        let key = if limit > 1 { self.key(first) } else { None };
        if key.is_none() {
            return found;
        }
        // The trials of an experiment stand together in the queue.
        let owner = self.queue[at].owner;
        let behind = self.queue[at + 1..].iter();
        for waiting in behind.take_while(|next| is_sibling(&owner, &next.owner)) {
            if let Owner::Trial(_, _, trial) = waiting.owner
                && !self.is_placed(trial)
                && self.limit(trial) == limit
                && self.key(trial) == key
            {
                found.push(trial);
            }
        }
        found
    }

    fn key(&mut self, trial: TrialId) -> Option<Key<'a>> {
        let cluster = self.cluster;
        let compute = || (cluster.trial(trial)).and_then(|row| sharing::key(cluster, row));
        *self.keys.entry(trial).or_insert_with(compute)
    }

    /// What failed to start several times in a row is tried alone: should it be its fault, nobody
    /// waits with it.
    fn limit(&self, trial: TrialId) -> usize {
        let strikes = self.cluster.strikes(Subject::Trial(trial));
        if strikes >= self.cluster.config().doubt_after.max(1) {
            return 1;
        }
        let own = self.cluster.trial(trial).and_then(|row| row.share_limit);
        own.map_or(usize::MAX, |limit| limit.max(1) as usize)
    }
}

fn is_sibling(a: &Owner, b: &Owner) -> bool {
    match (a, b) {
        (Owner::Trial(a, _, _), Owner::Trial(b, _, _)) => a == b,
        (Owner::Trial(..) | Owner::Task(_), _) => false,
    }
}
