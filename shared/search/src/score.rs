//! How good a trial was, as searchers compare it.

use pomona_domain::metric::Direction;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// The objective at the best epoch so far, and the loss there, which settles ties.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The objective.
    pub value: f64,
    /// Less is better.
    pub tie: f64,
}

impl Score {
    /// A score without a loss to settle ties by.
    pub fn of(value: f64) -> Self {
        Self { value, tie: 0.0 }
    }

    /// Whether this one is strictly better.
    pub fn is_better(self, other: Self, direction: Direction) -> bool {
        self.order(other, direction) == Ordering::Less
    }

    /// Better ones come first.
    pub fn order(self, other: Self, direction: Direction) -> Ordering {
        let by_value = match direction {
            Direction::Maximize => other.value.total_cmp(&self.value),
            Direction::Minimize => self.value.total_cmp(&other.value),
        };
        by_value.then(self.tie.total_cmp(&other.tie))
    }

    /// The mean of several; `None` of none.
    pub fn mean<'a>(scores: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let scores: Vec<&Self> = scores.collect();
        let count = scores.len() as f64;
        (!scores.is_empty()).then(|| Self {
            value: scores.iter().map(|score| score.value / count).sum(),
            tie: scores.iter().map(|score| score.tie / count).sum(),
        })
    }
}
