//! Makes layers and keeps the list of their tensors under the published names.

use crate::random::Key;

use super::layer::{BatchNorm, Conv, Layer, Linear, Padding, Window};
use tch::{Device, Kind, Tensor};

/// Whether a tensor is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Learned by gradients.
    Parameter,
    /// Running statistics.
    Buffer,
}

/// How a tensor starts when nothing is loaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with this standard deviation (He et al. 2015, fan out).
    Normal(f64),
    /// Uniform in ± this bound (PyTorch's default of linear layers).
    Uniform(f64),
    /// All the same.
    Constant(f64),
}

/// A tensor of a network.
#[derive(Debug)]
pub struct Entry {
    /// Its published name.
    pub name: String,
    /// The tensor; layers share its storage.
    pub tensor: Tensor,
    /// Whether it is learned.
    pub role: Role,
    /// Its block counted from the input; none in the head.
    pub block: Option<usize>,
    /// How it starts.
    pub init: Init,
}

/// Draws tensors, each by its name.
pub fn draw<'a>(entries: impl IntoIterator<Item = &'a Entry>, seed: u64, replicate: u32) {
    let key = Key {
        seed,
        replicate,
        purpose: "init",
        epoch: 0,
    };
    for entry in entries {
        let stream = key.named(&entry.name);
        let count = entry.tensor.numel() as u64;
        let values: Vec<f32> = match entry.init {
            Init::Normal(deviation) => (0..count)
                .map(|i| (stream.normal(i) * deviation) as f32)
                .collect(),
            Init::Uniform(bound) => (0..count)
                .map(|i| ((2.0 * stream.uniform(i) - 1.0) * bound) as f32)
                .collect(),
            Init::Constant(value) => vec![value as f32; count as usize],
        };
        let drawn = Tensor::from_slice(&values).reshape(entry.tensor.size());
        tch::no_grad(|| entry.tensor.shallow_clone().copy_(&drawn));
    }
}

/// Where a convolution looks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Height and width.
    pub kernel: [i64; 2],
    /// Step.
    pub stride: i64,
    /// Zeros around.
    pub padding: Padding,
    /// Groups of channels.
    pub groups: i64,
}

impl Look {
    /// A square kernel, moved by one, with zeros that keep the size of odd kernels.
    pub fn square(side: i64) -> Self {
        Self::rect([side, side])
    }

    /// A kernel, moved by one, with zeros that keep the size of odd kernels.
    pub fn rect(kernel: [i64; 2]) -> Self {
        let padding = Padding::Even(kernel.map(|side| (side - 1) / 2));
        Self {
            kernel,
            stride: 1,
            padding,
            groups: 1,
        }
    }

    /// The same, moved by `stride`.
    pub fn stride(self, stride: i64) -> Self {
        Self { stride, ..self }
    }

    /// The same without zeros.
    pub fn valid(self) -> Self {
        Self {
            padding: Padding::Even([0, 0]),
            ..self
        }
    }

    /// The same with TensorFlow's zeros.
    pub fn same(self) -> Self {
        Self {
            padding: Padding::Same,
            ..self
        }
    }

    /// The same with every channel apart.
    pub fn depthwise(self, channels: i64) -> Self {
        Self {
            groups: channels,
            ..self
        }
    }
}

/// Makes layers.
pub struct Builder {
    /// Tensors made so far, in order.
    pub entries: Vec<Entry>,
    /// Block that new tensors belong to.
    pub block: Option<usize>,
    kind: Kind,
    device: Device,
    eps: f64,
    momentum: f64,
}

impl Builder {
    /// `eps` and `momentum` are those of the batch norms, the latter in PyTorch's sense.
    pub fn new(kind: Kind, device: Device, eps: f64, momentum: f64) -> Self {
        Self {
            entries: Vec::new(),
            block: None,
            kind,
            device,
            eps,
            momentum,
        }
    }

    fn entry(&mut self, name: String, shape: &[i64], role: Role, init: Init) -> Tensor {
        let start = match init {
            Init::Normal(_) | Init::Uniform(_) => 0.0,
            Init::Constant(value) => value,
        };
        let tensor = channels_last(&Tensor::full(shape, start, (self.kind, self.device)));
        let layer = tensor.shallow_clone();
        self.entries.push(Entry {
            name,
            tensor,
            role,
            block: self.block,
            init,
        });
        layer
    }

    /// `NAME.weight` and, with `bias`, `NAME.bias`.
    pub fn conv(&mut self, name: &str, [input, output]: [i64; 2], look: Look, bias: bool) -> Layer {
        let [rows, columns] = look.kernel;
        let shape = [output, input / look.groups, rows, columns];
        let fan_out = (output / look.groups * rows * columns) as f64;
        let init = Init::Normal((2.0 / fan_out).sqrt());
        let weight = self.entry(format!("{name}.weight"), &shape, Role::Parameter, init);
        let bias = bias.then(|| {
            self.entry(
                format!("{name}.bias"),
                &[output],
                Role::Parameter,
                Init::Constant(0.0),
            )
        });
        let Look {
            kernel,
            stride,
            padding,
            groups,
        } = look;
        Layer::Conv(Conv {
            weight,
            bias,
            kernel,
            stride,
            padding,
            groups,
        })
    }

    /// `NAME.weight`, `.bias`, `.running_mean` and `.running_var`.
    pub fn norm(&mut self, name: &str, channels: i64) -> Layer {
        let mut entry = |part: &str, role, start| {
            self.entry(
                format!("{name}.{part}"),
                &[channels],
                role,
                Init::Constant(start),
            )
        };
        Layer::BatchNorm(BatchNorm {
            weight: entry("weight", Role::Parameter, 1.0),
            bias: entry("bias", Role::Parameter, 0.0),
            mean: entry("running_mean", Role::Buffer, 0.0),
            variance: entry("running_var", Role::Buffer, 1.0),
            eps: self.eps,
            momentum: self.momentum,
        })
    }

    /// `NAME.weight` and `NAME.bias`.
    pub fn linear(&mut self, name: &str, input: i64, output: i64) -> Layer {
        let init = Init::Uniform(1.0 / (input as f64).sqrt());
        let weight = self.entry(
            format!("{name}.weight"),
            &[output, input],
            Role::Parameter,
            init,
        );
        let bias = self.entry(format!("{name}.bias"), &[output], Role::Parameter, init);
        Layer::Linear(Linear { weight, bias })
    }
}

/// An image or a kernel with its channels together in memory, anything else as it is. Depthwise
/// convolutions run faster so; whatever meets such a tensor gives one.
fn channels_last(tensor: &Tensor) -> Tensor {
    if tensor.dim() == 4 {
        tensor
            .permute([0, 2, 3, 1])
            .contiguous()
            .permute([0, 3, 1, 2])
    } else {
        tensor.shallow_clone()
    }
}

/// A window for pooling.
pub fn window(kernel: i64, stride: i64, padding: i64) -> Window {
    Window {
        kernel,
        stride,
        padding,
    }
}
