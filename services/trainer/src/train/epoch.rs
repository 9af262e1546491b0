//! Which images a step sees, and which of them a rank does: from the seed, never from the trial, so
//! that the points of a grid are compared over the same order.

use crate::data::Pick;
use crate::dist;
use crate::random::Key;
use pomona_domain::spec::{Augment, TrialSpec};
use pomona_domain::view::View;

/// One optimiser step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Labels of the global batch.
    pub labels: Vec<u32>,
    /// This rank's part.
    pub local: Vec<Pick>,
}

/// Steps of a pass over so many images; the last may see fewer.
pub fn steps_of(images: usize, batch_size: u32) -> u64 {
    (images as u64).div_ceil(u64::from(batch_size.max(1)))
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
        // Named after the one operation there was at first: two views are drawn as ever.
        let views = key("flip").stream();
        let view = |index: usize| {
            let count = self.augment.views.max(1);
            let drawn = views.below(index as u64, u64::from(count)) as u32;
            View::of(self.augment, count - 1 - drawn)
        };
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
                        view: view(index),
                    })
                    .collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pomona_domain::spec::AugmentOp;

    const IMAGES: usize = 500;

    /// The number of each image's view in an epoch.
    fn views(augment: &Augment, batch_size: usize, epoch: u32) -> Vec<u32> {
        let plan = Plan {
            seed: 7,
            replicate: 1,
            batch_size,
            augment,
            rank: 0,
            world_size: 1,
        };
        let mut views = vec![0; IMAGES];
        for pick in (plan.steps(&[0; IMAGES], epoch).iter()).flat_map(|step| &step.local) {
            views[pick.index] = pick.view.number();
        }
        views
    }

    #[test]
    fn of_two_views_an_epoch_sees_those_that_it_always_saw() {
        let coin = Key {
            seed: 7,
            replicate: 1,
            purpose: "flip",
            epoch: 3,
        };
        for op in [AugmentOp::HorizontalFlip, AugmentOp::RandomResizedCrop] {
            let augment = Augment {
                views: 2,
                ops: vec![op],
            };
            let expect: Vec<u32> = (0..IMAGES as u64)
                .map(|index| u32::from(coin.uniform(index) < 0.5))
                .collect();
            assert_eq!(views(&augment, 16, 3), expect);
        }
    }

    #[test]
    fn of_many_views_each_comes_as_often_and_batches_change_nothing() {
        let augment = Augment {
            views: 10,
            ops: vec![AugmentOp::RandomResizedCrop],
        };
        let mut counts = [0; 10];
        for epoch in 0..20 {
            let seen = views(&augment, 16, epoch);
            assert_eq!(seen, views(&augment, 7, epoch));
            for number in seen {
                counts[number as usize] += 1;
            }
        }
        assert!(
            counts.iter().all(|count| (900..1_100).contains(count)),
            "{counts:?}"
        );
    }
}
