//! Which images a step sees, and which of them a rank does: from the seed, never from the trial, so
//! that the points of a grid are compared over the same order.

use crate::data::Pick;
use crate::dist;
use crate::random::Key;
use pomona_domain::spec::{Augment, TrialSpec};

/// One optimiser step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Labels of the global batch.
    pub labels: Vec<u32>,
    /// This rank's part.
    pub local: Vec<Pick>,
}

/// What decides an epoch's order.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Seed.
    pub seed: u64,
    /// Replicate.
    pub replicate: u32,
    /// Global batch.
    pub batch_size: usize,
    /// Views.
    pub augment: &'a Augment,
    /// This rank.
    pub rank: u32,
    /// Ranks.
    pub world_size: u32,
}

impl<'a> Plan<'a> {
    /// That of a trial with one rank.
    pub fn of(spec: &'a TrialSpec) -> Self {
        Self {
            seed: spec.seed,
            replicate: spec.replicate,
            batch_size: spec.train.batch_size as usize,
            augment: &spec.train.augment,
            rank: 0,
            world_size: 1,
        }
    }
}

impl Plan<'_> {
    /// The steps of an epoch. The last batch may be smaller.
    pub fn steps(&self, labels: &[u32], epoch: u32) -> Vec<Step> {
        let key = |purpose| Key {
            seed: self.seed,
            replicate: self.replicate,
            purpose,
            epoch,
        };
        let flips = key("flip").stream();
        let flipping = self.augment.mirrors();
        key("order")
            .permutation(labels.len())
            .chunks(self.batch_size.max(1))
            .map(|batch| Step {
                labels: batch.iter().map(|&index| labels[index]).collect(),
                local: batch[dist::part(batch.len(), self.rank, self.world_size)]
                    .iter()
                    // By the sample, not by its place: a paired comparison over batch sizes, too.
                    .map(|&index| Pick {
                        index,
                        flip: flipping && flips.uniform(index as u64) < 0.5,
                    })
                    .collect(),
            })
            .collect()
    }
}
