//! What is known of an experiment's trials without looking at each: an experiment may have ten
//! thousand, and most have ended.

use imbl::OrdMap;
use pomona_domain::TrialId;
use pomona_domain::trial::{Trial, TrialState};
use std::sync::Arc;

/// The trials of one experiment.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// All, by number.
    pub(super) numbers: OrdMap<u32, TrialId>,
    /// Those that have not ended.
    pub(super) open: OrdMap<u32, Arc<Trial>>,
    /// Those that wait.
    pub(super) waiting: OrdMap<u32, Arc<Trial>>,
    /// How many are on a lease.
    pub(super) leased: usize,
    /// How many have failed.
    pub(super) failed: usize,
}

impl Tally {
    /// A trial is new, or moves on from `before`.
    pub(super) fn count(&mut self, row: &Arc<Trial>, before: Option<&Trial>) {
        if before.is_none() {
            self.numbers.insert(row.number, row.id);
        }
        if row.is_ended() {
            self.open.remove(&row.number);
        } else {
            self.open.insert(row.number, Arc::clone(row));
        }
        if is_waiting(row) {
            self.waiting.insert(row.number, Arc::clone(row));
        } else {
            self.waiting.remove(&row.number);
        }
        let is_leased = |row: &Trial| row.lease().is_some();
        self.leased += usize::from(is_leased(row));
        self.leased -= usize::from(before.is_some_and(is_leased));
        self.failed += usize::from(has_failed(row));
        self.failed -= usize::from(before.is_some_and(has_failed));
    }
}

fn is_waiting(row: &Trial) -> bool {
    matches!(row.state, TrialState::Waiting { .. })
}

fn has_failed(row: &Trial) -> bool {
    matches!(row.state, TrialState::Failed { .. })
}
