//! Heads of one shape, side by side in one tensor for each linear layer.
//!
//! A batched product gives a head the same bits beside any others, but not when it is alone: libtorch
//! then takes another way. So there are always two at least, on a GPU always [`GPU_WIDTH`]; who is
//! only there to fill up is zero and moves nowhere.

use super::CrossEntropy;
use crate::fault;
use crate::network::Entry;
use crate::optim::Optimizer;
use pomona_domain::Fault;
use tch::{Device, Kind, Tensor};

/// Heads that lie side by side on a GPU, where a kernel is chosen by the whole shape.
const GPU_WIDTH: usize = 16;

/// One linear layer of all heads.
struct Linear {
    /// [heads, out, in]
    weight: Tensor,
    /// [heads, 1, out]
    bias: Tensor,
    weight_slope: Tensor,
    bias_slope: Tensor,
}

/// The heads: one linear layer, or two with a ReLU and dropout between them.
pub struct Heads {
    layers: Vec<Linear>,
    width: usize,
}

/// What a forward pass leaves for the way back.
pub struct Forward {
    /// [heads, samples, classes]
    pub logits: Tensor,
    /// What each layer took in: [heads, samples, in].
    inputs: Vec<Tensor>,
    /// What came out of the ReLU, and the masks it was multiplied by.
    hidden: Option<(Tensor, Option<Tensor>)>,
}

impl Forward {
    /// The slope of each head's loss by its logits, in one tensor; the loss and the batch's weight of
    /// each of the first `count` heads go to `losses`.
    pub fn slopes<'l>(
        &self,
        labels: &[u32],
        count: usize,
        loss: impl Fn(usize) -> &'l CrossEntropy,
        losses: &mut Vec<(f64, f64)>,
    ) -> Tensor {
        let logits = self.on_host();
        let mut slopes = vec![0f32; logits.len()];
        let part = logits.len() / self.logits.size()[0] as usize;
        let parts = logits.chunks_exact(part).zip(slopes.chunks_exact_mut(part));
        for (head, (logits, slopes)) in parts.take(count).enumerate() {
            let loss = loss(head);
            let weight = loss.weight_of(labels);
            losses.push((loss.slopes(logits, labels, weight, slopes), weight));
        }
        Tensor::from_slice(&slopes)
            .reshape(self.logits.size())
            .to_device(self.logits.device())
    }

    /// The logits, head by head, sample by sample.
    pub fn on_host(&self) -> Vec<f32> {
        let count = self.logits.numel();
        let mut values = vec![0f32; count];
        self.logits.copy_data(&mut values, count);
        values
    }
}

impl Heads {
    /// How many trials lie side by side at most.
    pub fn most(device: Device) -> usize {
        if device.is_cuda() {
            GPU_WIDTH
        } else {
            usize::MAX
        }
    }

    /// Lays heads of one shape side by side. Their tensors become parts of the common ones, and their
    /// optimisers move those.
    pub fn join(heads: &mut [(&mut Vec<Entry>, &mut Optimizer)]) -> Result<Self, Fault> {
        let Some((first, _)) = heads.first() else {
            return Err(fault::internal("there is no head"));
        };
        let device = first[0].tensor.device();
        let width = if device.is_cuda() {
            GPU_WIDTH
        } else {
            heads.len().max(2)
        };
        let layers = (0..first.len()).step_by(2);
        let layers: Vec<Linear> = layers
            .map(|at| Linear {
                weight: side_by_side(heads, at, width, Tensor::shallow_clone),
                bias: side_by_side(heads, at + 1, width, |bias| bias.unsqueeze(0)),
                weight_slope: Tensor::new(),
                bias_slope: Tensor::new(),
            })
            .map(|layer| Linear {
                weight_slope: layer.weight.zeros_like(),
                bias_slope: layer.bias.zeros_like(),
                ..layer
            })
            .collect();
        for (lane, (entries, optimizer)) in heads.iter_mut().enumerate() {
            let lane = lane as i64;
            let (mut parameters, mut slopes) = (Vec::new(), Vec::new());
            for layer in &layers {
                parameters.push(layer.weight.select(0, lane));
                parameters.push(layer.bias.select(0, lane).select(0, 0));
                slopes.push(layer.weight_slope.select(0, lane));
                slopes.push(layer.bias_slope.select(0, lane).select(0, 0));
            }
            for (entry, parameter) in entries.iter_mut().zip(&parameters) {
                entry.tensor = parameter.shallow_clone();
            }
            optimizer.moves(parameters, &slopes)?;
        }
        Ok(Self { layers, width })
    }

    /// Heads in the tensors, those that fill up included.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Units between the two layers, if there are two.
    pub fn hidden(&self) -> Option<usize> {
        match self.layers.as_slice() {
            [first, _] => Some(first.weight.size()[1] as usize),
            _ => None,
        }
    }

    /// [samples, features] → logits. `masks` are dropout's, [heads, samples, hidden].
    pub fn forward(&self, x: &Tensor, masks: Option<Tensor>) -> Forward {
        let [samples, features] = [x.size()[0], x.size()[1]];
        let x = x
            .unsqueeze(0)
            .expand([self.width as i64, samples, features], false);
        let through =
            |layer: &Linear, x: &Tensor| x.bmm(&layer.weight.transpose(1, 2)) + &layer.bias;
        let first = through(&self.layers[0], &x);
        let Some(second) = self.layers.get(1) else {
            return Forward {
                logits: first,
                inputs: vec![x],
                hidden: None,
            };
        };
        let hot = first.relu();
        let hidden = match &masks {
            Some(masks) => &hot * masks,
            None => hot.shallow_clone(),
        };
        Forward {
            logits: through(second, &hidden),
            inputs: vec![x, hidden],
            hidden: Some((hot, masks)),
        }
    }

    /// The gradients of one step, where the optimisers find them: the loss and the batch's weight of
    /// each of the first `count` heads.
    pub fn step<'l>(
        &self,
        x: &Tensor,
        labels: &[u32],
        masks: Option<Tensor>,
        count: usize,
        loss: impl Fn(usize) -> &'l CrossEntropy,
    ) -> Vec<(f64, f64)> {
        let forward = self.forward(x, masks);
        let mut losses = Vec::with_capacity(count);
        let slopes = forward.slopes(labels, count, loss, &mut losses);
        self.backward(&forward, slopes);
        losses
    }

    /// Leaves the gradients of all parameters where the optimisers find them; `slope` is that of the
    /// loss by the logits.
    pub fn backward(&self, forward: &Forward, slope: Tensor) {
        let mut slope = slope;
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let size = slope.size();
            let ones = Tensor::ones([size[0], 1, size[1]], (Kind::Float, slope.device()));
            let _same = slope
                .transpose(1, 2)
                .bmm_out(&layer.weight_slope, &forward.inputs[at]);
            let _same = ones.bmm_out(&layer.bias_slope, &slope);
            if let (1, Some((hot, masks))) = (at, &forward.hidden) {
                let below = slope.bmm(&layer.weight) * hot.gt(0.0).to_kind(Kind::Float);
                slope = match masks {
                    Some(masks) => below * masks,
                    None => below,
                };
            }
        }
    }
}

/// [heads, …]: the same tensor of each head, zeros where there is none.
fn side_by_side(
    heads: &[(&mut Vec<Entry>, &mut Optimizer)],
    at: usize,
    width: usize,
    shape: impl Fn(&Tensor) -> Tensor,
) -> Tensor {
    let mut parts: Vec<Tensor> = (heads.iter())
        .map(|(entries, _)| shape(&entries[at].tensor.detach()))
        .collect();
    while parts.len() < width {
        parts.push(parts[0].zeros_like());
    }
    Tensor::stack(&parts, 0)
}
