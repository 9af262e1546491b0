//! A head on its way: its tensors, its loss, its optimiser, its learning rate. A trial's own, or one
//! that a cross-validation trains and throws away.
//!
//! It must never look at another.

use super::CrossEntropy;
use crate::network::{Entry, HeadPlan, Network};
use crate::optim::{Optimizer, schedule};
use crate::train::epoch::steps_of;
use crate::train::learner::class_weights;
use pomona_domain::Fault;
use pomona_domain::spec::{Head, TrialSpec};

/// A head on its way.
pub(super) struct Trainee<'a> {
    pub(super) spec: &'a TrialSpec,
    pub(super) head: Vec<Entry>,
    pub(super) optimizer: Optimizer,
    pub(super) loss: CrossEntropy,
    pub(super) steps_per_epoch: u64,
}

impl<'a> Trainee<'a> {
    /// A head as it is drawn, to be trained on images with these labels.
    pub(super) fn new(
        spec: &'a TrialSpec,
        network: &Network,
        classes: usize,
        labels: &[u32],
    ) -> Self {
        let plan = HeadPlan {
            head: spec.transfer.head.clone(),
            classes: classes as u32,
        };
        let head = plan.alone(network.arch(), network.device(), spec.seed, spec.replicate);
        let named = |entry: &Entry| (entry.name.clone(), entry.tensor.shallow_clone());
        let parameters = head.iter().map(named).collect();
        let weights = class_weights(&spec.train, classes, labels);
        Self {
            spec,
            optimizer: Optimizer::new(&spec.train.optimizer, parameters),
            loss: CrossEntropy::new(weights, spec.train.label_smoothing),
            steps_per_epoch: steps_of(labels.len(), spec.train.batch_size),
            head,
        }
    }

    /// Moves along the gradients, `done` steps after the first.
    pub(super) fn step(&mut self, done: u64) -> Result<(), Fault> {
        let train = &self.spec.train;
        let lr = schedule::rate(
            &train.lr_schedule,
            train.learning_rate,
            done,
            self.steps_per_epoch,
            self.total_steps(),
        );
        self.optimizer.step(lr)
    }

    pub(super) fn total_steps(&self) -> u64 {
        self.steps_per_epoch * u64::from(self.spec.train.epochs)
    }

    /// Share of hidden units dropped in training.
    pub(super) fn dropout(&self) -> f64 {
        match self.spec.transfer.head {
            Head::Linear => 0.0,
            Head::Mlp { dropout, .. } => dropout,
        }
    }
}
