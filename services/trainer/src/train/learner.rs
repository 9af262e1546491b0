//! One optimiser step over all ranks, exact for unequal parts.
//!
//! The reducer averages over ranks. A rank's loss is therefore the sum of its weighted sample
//! losses times ranks over the global weight: the average is then the gradient of the joint batch,
//! and an empty rank contributes zeros.

use crate::dist::{self, Group, Reducer};
use crate::fault;
use crate::network::{Masks, Network, Pass};
use crate::optim::Optimizer;
use pomona_domain::Fault;
use pomona_domain::spec::{self, ClassWeights};
use tch::{Reduction, Tensor};

/// A network and what trains it.
pub struct Learner {
    // Declared first: the reducer goes before the group.
    reducer: Option<Reducer>,
    /// The ranks.
    pub group: Group,
    /// The network.
    pub network: Network,
    /// The optimiser.
    pub optimizer: Optimizer,
    loss: Loss,
}

/// Cross entropy with label smoothing (Szegedy et al. 2016) and class weights, as PyTorch has it.
pub struct Loss {
    weights: Vec<f64>,
    tensor: Option<Tensor>,
    smoothing: f64,
}

impl Loss {
    /// `labels` are those of the training split: balanced weights are inverse frequencies whose
    /// mean over the samples is one. A class without samples weighs nothing.
    pub fn new(network: &Network, train: &spec::Train, classes: usize, labels: &[u32]) -> Self {
        let weights = class_weights(train, classes, labels);
        let tensor = match train.class_weights {
            ClassWeights::None => None,
            ClassWeights::Balanced => Some(
                Tensor::from_slice(&weights)
                    .to_kind(network.kind())
                    .to_device(network.device()),
            ),
        };
        Self {
            weights,
            tensor,
            smoothing: train.label_smoothing,
        }
    }
}

/// The weight of each class in the loss.
pub(super) fn class_weights(train: &spec::Train, classes: usize, labels: &[u32]) -> Vec<f64> {
    match train.class_weights {
        ClassWeights::None => vec![1.0; classes],
        ClassWeights::Balanced => balanced(classes, labels),
    }
}

fn balanced(classes: usize, labels: &[u32]) -> Vec<f64> {
    let mut counts = vec![0u64; classes];
    for &label in labels {
        counts[label as usize] += 1;
    }
    let present = counts.iter().filter(|&&count| count > 0).count();
    let share = labels.len() as f64 / present.max(1) as f64;
    counts
        .into_iter()
        .map(|count| {
            if count == 0 {
                0.0
            } else {
                share / count as f64
            }
        })
        .collect()
}

impl Learner {
    /// Gives every rank rank 0's tensors (T1), checks that all ranks agree on what they train, and
    /// prepares the reducer.
    pub fn new(
        group: Group,
        network: Network,
        optimizer: Optimizer,
        loss: Loss,
    ) -> Result<Self, Fault> {
        if group.world_size() > 1 {
            let tensors: Vec<Tensor> = network
                .entries()
                .iter()
                .map(|e| e.tensor.shallow_clone())
                .collect();
            group.broadcast(&tensors)?;
            let moments: Vec<Tensor> = optimizer.state().map(|(_, t)| t.shallow_clone()).collect();
            group.broadcast(&moments)?;
        }
        let reducer = group.reducer(optimizer.parameters())?;
        let learner = Self {
            reducer,
            group,
            network,
            optimizer,
            loss,
        };
        learner.cross_check(|_| true)?;
        Ok(learner)
    }

    /// Whether all ranks have the same trainable set and the same bytes (T3).
    pub fn cross_check(&self, what: impl Fn(&crate::network::Entry) -> bool) -> Result<(), Fault> {
        if self.group.world_size() == 1 || self.group.agree(self.network.digest(what))? {
            return Ok(());
        }
        Err(fault::internal("the ranks do not have the same weights"))
    }

    /// The weight of samples in the loss.
    pub fn weight_of(&self, labels: &[u32]) -> f64 {
        labels
            .iter()
            .map(|&label| self.loss.weights[label as usize])
            .sum()
    }

    /// Gradients of the joint batch, of which this rank has `labels` and, as they are at the cut, `x`;
    /// `weight` is that of the joint batch. Gives this rank's sum of weighted losses.
    pub fn gradients(
        &self,
        x: &Tensor,
        labels: &[u32],
        masks: &Masks<'_>,
        weight: f64,
    ) -> Result<f64, Fault> {
        self.optimizer.forget_gradients()?;
        if let Some(reducer) = &self.reducer {
            reducer.before_forward()?;
        }
        let logits = self.network.above_cut(x, Pass::Train(masks));
        let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        let target = Tensor::from_slice(&labels).to_device(x.device());
        let weights = self.loss.tensor.as_ref();
        let loss =
            logits.cross_entropy_loss(&target, weights, Reduction::Sum, -100, self.loss.smoothing);
        self.backward(&(&loss * (f64::from(self.group.world_size()) / weight)))?;
        Ok(loss.double_value(&[]))
    }

    /// The same for a rank whose part is empty.
    pub fn no_gradients(&self) -> Result<f64, Fault> {
        self.optimizer.forget_gradients()?;
        if let Some(reducer) = &self.reducer {
            reducer.before_forward()?;
        }
        self.backward(&dist::zero_loss(self.optimizer.parameters()))?;
        Ok(0.0)
    }

    fn backward(&self, loss: &Tensor) -> Result<(), Fault> {
        if let Some(reducer) = &self.reducer {
            reducer.before_backward()?;
        }
        loss.f_backward().map_err(|error| fault::torch(&error))
    }

    /// Moves the parameters along the gradients.
    pub fn update(&mut self, lr: f64) -> Result<(), Fault> {
        self.optimizer.step(lr)
    }

    /// Gives every rank rank 0's running statistics, which saw their own part of each batch.
    pub fn share_statistics(&self) -> Result<(), Fault> {
        let buffers: Vec<Tensor> = self
            .network
            .live()
            .filter(|entry| entry.role == crate::network::Role::Buffer)
            .map(|entry| entry.tensor.shallow_clone())
            .collect();
        self.group.broadcast(&buffers)
    }
}
