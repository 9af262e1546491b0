//! Who is taken along: waiting trials that share the lease of the one whose turn it is.
//!
//! It never asks which slots they get. Keys are computed when somebody first wants them, and once.

use crate::Cluster;
use crate::sharing::{self, Key};
use pomona_domain::TrialId;
use pomona_domain::change::Subject;
use pomona_domain::trial::Trial;
use std::collections::BTreeMap;

/// The company of one plan.
pub(super) struct Company<'a> {
    cluster: &'a Cluster,
    keys: BTreeMap<TrialId, Option<Key<'a>>>,
}

impl<'a> Company<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            keys: BTreeMap::new(),
        }
    }

    /// The members of a lease for the first trial of an experiment that waits: itself and, in order
    /// of service, others that may share with it; nobody when none waits. `room` is how many of
    /// them may start, `free` how many slots there are: each slot gets an even part, so that none
    /// stays idle for the sake of sharing.
    pub(super) fn gather(
        &mut self,
        waiting: &[&'a Trial],
        room: usize,
        free: usize,
    ) -> Vec<&'a Trial> {
        let Some((first, behind)) = waiting.split_first() else {
            return Vec::new();
        };
        let limit = self.limit(first);
        let mut members = self.candidates(first, behind, limit);
        let part = members.len().min(room).div_ceil(free.max(1));
        let most = self.cluster.config().max_members.max(1) as usize;
        members.truncate(part.min(most).min(limit));
        members
    }

    /// The trial itself, then those behind it that may share with it. Whoever was on a lease that
    /// crashed has a limit; trials of equal limits keep to themselves, so that those that nothing
    /// speaks against are not drawn into the next crash.
    fn candidates(
        &mut self,
        first: &'a Trial,
        behind: &[&'a Trial],
        limit: usize,
    ) -> Vec<&'a Trial> {
        let mut found = vec![first];
        let key = if limit > 1 { self.key(first) } else { None };
        if key.is_some() {
            for row in behind {
                if self.limit(row) == limit && self.key(row) == key {
                    found.push(row);
                }
            }
        }
        found
    }

    fn key(&mut self, row: &'a Trial) -> Option<Key<'a>> {
        let cluster = self.cluster;
        let compute = || sharing::key(cluster, row);
        *self.keys.entry(row.id).or_insert_with(compute)
    }

    /// What failed to start several times in a row is tried alone: should it be its fault, nobody
    /// waits with it.
    fn limit(&self, row: &Trial) -> usize {
        let strikes = self.cluster.strikes(Subject::Trial(row.id));
        if strikes >= self.cluster.config().doubt_after.max(1) {
            return 1;
        }
        row.share_limit
            .map_or(usize::MAX, |limit| limit.max(1) as usize)
    }
}
