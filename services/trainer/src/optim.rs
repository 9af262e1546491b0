//! Optimisers whose state can be saved: libtorch's fused kernels, our own moments.

pub mod schedule;

use crate::dist::ffi;
use crate::fault;
use pomona_domain::Fault;
use pomona_domain::spec;
use tch::{Kind, Tensor};

/// SGD with momentum (Sutskever et al. 2013, PyTorch's form: g ← g + λw, m ← μm + g, w ← w − ηm) or
/// AdamW (Loshchilov and Hutter 2019, algorithm 2).
pub struct Optimizer {
    rule: spec::Optimizer,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    /// One list for SGD with momentum, none without, two for AdamW (first and second moment).
    moments: Vec<(&'static str, Vec<Tensor>)>,
    steps: u64,
    /// What the AdamW kernel reads `steps` from.
    counter: Tensor,
}

impl Optimizer {
    /// An optimiser of `parameters` whose moments are zero. A first SGD step with a momentum of zero
    /// is PyTorch's first step, which copies the gradient.
    pub fn new(rule: &spec::Optimizer, parameters: Vec<(String, Tensor)>) -> Self {
        let (names, parameters): (Vec<String>, Vec<Tensor>) = parameters.into_iter().unzip();
        let kinds: &[&'static str] = match rule {
            spec::Optimizer::Sgd { momentum, .. } if *momentum == 0.0 => &[],
            spec::Optimizer::Sgd { .. } => &["momentum"],
            spec::Optimizer::Adamw { .. } => &["exp_avg", "exp_avg_sq"],
        };
        let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect();
        let moments = kinds.iter().map(|&kind| (kind, zeros())).collect();
        let counter = parameters.first().map_or_else(
            || Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)),
            |p| Tensor::zeros([] as [i64; 0], (Kind::Float, p.device())),
        );
        Self {
            rule: rule.clone(),
            names,
            parameters,
            moments,
            steps: 0,
            counter,
        }
    }

    /// What it moves, in order.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Continues after this many steps.
    pub fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// State to save: `optimizer.MOMENT.PARAMETER` → tensor with shared storage.
    pub fn state(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.moments.iter().flat_map(|(kind, tensors)| {
            let named = self.names.iter().zip(tensors);
            named.map(move |(name, tensor)| (format!("optimizer.{kind}.{name}"), tensor))
        })
    }

    /// Moves other tensors from now on, whose gradients are always these: heads that lie side by
    /// side in one tensor.
    pub fn moves(&mut self, parameters: Vec<Tensor>, gradients: &[Tensor]) -> Result<(), Fault> {
        self.parameters = parameters;
        ffi::gradients_give(&self.parameters, gradients)
            .map_err(|error| fault::from_exception(&error))
    }

    /// Forgets gradients.
    pub fn forget_gradients(&self) -> Result<(), Fault> {
        ffi::gradients_forget(&self.parameters).map_err(|error| fault::from_exception(&error))
    }

    /// One step along the gradients.
    pub fn step(&mut self, lr: f64) -> Result<(), Fault> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        self.steps += 1;
        let done = match self.rule {
            spec::Optimizer::Sgd {
                momentum,
                weight_decay,
            } => ffi::sgd_step(
                &self.parameters,
                // The kernel wants no list where there is no momentum.
                self.moments.first().map_or(&[], |(_, list)| list),
                &ffi::Sgd {
                    lr,
                    momentum,
                    weight_decay,
                },
            ),
            spec::Optimizer::Adamw {
                beta1,
                beta2,
                eps,
                weight_decay,
            } => {
                let _same = self.counter.fill_(self.steps as f64);
                ffi::adamw_step(
                    &self.parameters,
                    &self.moments[0].1,
                    &self.moments[1].1,
                    &self.counter,
                    &ffi::Adamw {
                        lr,
                        beta1,
                        beta2,
                        eps,
                        weight_decay,
                    },
                )
            }
        };
        done.map_err(|error| fault::from_exception(&error))
    }
}
