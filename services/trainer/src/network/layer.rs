//! A network as data: layers that can be run, measured and told whether they train.
//!
//! Activations work in place, so they may only follow a convolution, a batch norm or a linear
//! layer, never stand first in a branch.

use crate::random::Key;
use tch::{Kind, Tensor};

/// How a forward pass is made.
#[derive(Debug, Clone, Copy)]
pub enum Pass<'a> {
    /// Batch norms use their running statistics and nothing is dropped.
    Eval,
    /// Blocks above the cut train.
    Train(&'a Masks<'a>),
}

/// What dropout masks are drawn from: the sample, never the place in a batch, so that they are the
/// same for any number of ranks.
#[derive(Debug, Clone, Copy)]
pub struct Masks<'a> {
    /// Key of the pass over the data, with the purpose `dropout`.
    pub key: Key,
    /// The sample in each row of the batch.
    pub samples: &'a [usize],
}

/// Rows and columns of zeros around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The same on both sides: (height, width).
    Even([i64; 2]),
    /// TensorFlow's `SAME`: the output has ⌈input / stride⌉ rows, the odd row is at the end.
    Same,
}

/// A convolution.
pub struct Conv {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) kernel: [i64; 2],
    pub(crate) stride: i64,
    pub(crate) padding: Padding,
    pub(crate) groups: i64,
}

/// A batch norm with running statistics.
pub struct BatchNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    pub(crate) eps: f64,
    pub(super) momentum: f64,
}

/// A linear layer.
pub struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

/// A window that moves over an image.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) padding: i64,
}

/// A layer.
pub enum Layer {
    /// Convolution.
    Conv(Conv),
    /// Batch norm.
    BatchNorm(BatchNorm),
    /// max(x, 0), in place.
    Relu,
    /// min(max(x, 0), 6), in place.
    Relu6,
    /// Largest of a window.
    MaxPool(Window),
    /// Mean of a window, zeros of the padding counted.
    AvgPool(Window),
    /// Means so that the output has this side.
    AdaptiveAvgPool(i64),
    /// Mean over the image: [N, C, H, W] → [N, C].
    GlobalAvgPool,
    /// [N, C, H, W] → [N, C·H·W].
    Flatten,
    /// Linear.
    Linear(Linear),
    /// Drops units in training, with masks of our own generator.
    Dropout {
        /// Names the masks.
        name: String,
        /// Share of units dropped.
        share: f64,
    },
    /// One after the other.
    Seq(Vec<Layer>),
    /// main(x) + shortcut(x), then ReLU if `relu`.
    Residual {
        /// The long way.
        main: Vec<Layer>,
        /// The short way; x itself if empty.
        shortcut: Vec<Layer>,
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Branches side by side, their channels joined.
    Parallel(Vec<Layer>),
}

/// An output's shape without the batch, and the multiply-adds that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// `[C, H, W]` or `[C]`.
    pub shape: Vec<i64>,
    /// Multiply-adds of convolutions and linear layers for one image.
    pub macs: u64,
}

impl Layer {
    /// Runs the layer.
    ///
    /// # Panics
    /// If libtorch refuses: `main` turns that into a fault.
    pub fn forward(&self, x: Tensor, pass: Pass<'_>) -> Tensor {
        match self {
            Self::Conv(conv) => conv.forward(&x),
            Self::BatchNorm(norm) => norm.forward(&x, pass),
            Self::Relu => in_place(x, Tensor::relu_),
            Self::Relu6 => in_place(x, Tensor::relu6_),
            Self::MaxPool(w) => x.max_pool2d(w.kernel, w.stride, w.padding, 1, false),
            Self::AvgPool(w) => {
                x.avg_pool2d(w.kernel, w.stride, w.padding, false, true, None::<i64>)
            }
            Self::AdaptiveAvgPool(side) => x.adaptive_avg_pool2d([*side, *side]),
            Self::GlobalAvgPool => x.mean_dim([2i64, 3].as_slice(), false, None::<Kind>),
            Self::Flatten => x.flatten(1, -1),
            Self::Linear(linear) => x.linear(&linear.weight, Some(&linear.bias)),
            Self::Dropout { name, share } => match pass {
                Pass::Eval => x,
                Pass::Train(masks) => &x * masks.draw(name, *share, &x),
            },
            Self::Seq(layers) => run(layers, x, pass),
            Self::Residual {
                main,
                shortcut,
                relu,
            } => {
                let short = run(shortcut, x.shallow_clone(), pass);
                let sum = in_place(run(main, x, pass), |long| long.g_add_(&short));
                if *relu {
                    in_place(sum, Tensor::relu_)
                } else {
                    sum
                }
            }
            Self::Parallel(branches) => {
                let outputs: Vec<Tensor> = branches
                    .iter()
                    .map(|branch| branch.forward(x.shallow_clone(), pass))
                    .collect();
                Tensor::cat(&outputs, 1)
            }
        }
    }

    /// What the layer does to one input of this shape.
    pub fn measure(&self, shape: &[i64]) -> Measure {
        let same = |macs| Measure {
            shape: shape.to_vec(),
            macs,
        };
        let square = |side: &dyn Fn(i64) -> i64| Measure {
            shape: vec![shape[0], side(shape[1]), side(shape[2])],
            macs: 0,
        };
        match self {
            Self::Conv(conv) => conv.measure(shape),
            Self::BatchNorm(_) | Self::Relu | Self::Relu6 | Self::Dropout { .. } => same(0),
            Self::MaxPool(w) | Self::AvgPool(w) => {
                square(&|side| (side + 2 * w.padding - w.kernel).div_euclid(w.stride) + 1)
            }
            Self::AdaptiveAvgPool(side) => square(&|_| *side),
            Self::GlobalAvgPool => Measure {
                shape: vec![shape[0]],
                macs: 0,
            },
            Self::Flatten => Measure {
                shape: vec![shape.iter().product()],
                macs: 0,
            },
            Self::Linear(linear) => Measure {
                shape: vec![linear.weight.size()[0]],
                macs: linear.weight.numel() as u64,
            },
            Self::Seq(layers) => measure(layers, shape),
            Self::Residual { main, shortcut, .. } => {
                let mut long = measure(main, shape);
                long.macs += measure(shortcut, shape).macs;
                long
            }
            Self::Parallel(branches) => {
                let parts: Vec<Measure> = branches.iter().map(|b| b.measure(shape)).collect();
                let mut joined = parts[0].shape.clone();
                joined[0] = parts.iter().map(|part| part.shape[0]).sum();
                Measure {
                    shape: joined,
                    macs: parts.iter().map(|part| part.macs).sum(),
                }
            }
        }
    }
}

fn run(layers: &[Layer], x: Tensor, pass: Pass<'_>) -> Tensor {
    layers.iter().fold(x, |x, layer| layer.forward(x, pass))
}

fn measure(layers: &[Layer], shape: &[i64]) -> Measure {
    let start = Measure {
        shape: shape.to_vec(),
        macs: 0,
    };
    layers.iter().fold(start, |before, layer| {
        let after = layer.measure(&before.shape);
        Measure {
            shape: after.shape,
            macs: before.macs + after.macs,
        }
    })
}

fn in_place(mut x: Tensor, f: impl FnOnce(&mut Tensor) -> Tensor) -> Tensor {
    let _same = f(&mut x);
    x
}

impl Conv {
    fn forward(&self, x: &Tensor) -> Tensor {
        let stride = [self.stride, self.stride];
        let convolve = |x: &Tensor, padding: [i64; 2]| {
            x.conv2d(
                &self.weight,
                self.bias.as_ref(),
                stride,
                padding,
                [1i64, 1],
                self.groups,
            )
        };
        match self.padding {
            Padding::Even(padding) => convolve(x, padding),
            Padding::Same => {
                let size = x.size();
                let [top, left] = [0, 1].map(|axis| self.same(size[2 + axis], axis));
                if top % 2 == 0 && left % 2 == 0 {
                    return convolve(x, [top / 2, left / 2]);
                }
                let sides = [left / 2, left - left / 2, top / 2, top - top / 2];
                convolve(&x.constant_pad_nd(sides), [0, 0])
            }
        }
    }

    /// Rows of zeros that `SAME` wants along an axis of `side`.
    pub(crate) fn same(&self, side: i64, axis: usize) -> i64 {
        let out = (side + self.stride - 1) / self.stride;
        ((out - 1) * self.stride + self.kernel[axis] - side).max(0)
    }

    fn measure(&self, shape: &[i64]) -> Measure {
        let [rows, columns] = [0, 1].map(|axis| {
            let side = shape[1 + axis];
            let zeros = match self.padding {
                Padding::Even(padding) => 2 * padding[axis],
                Padding::Same => self.same(side, axis),
            };
            (side + zeros - self.kernel[axis]).div_euclid(self.stride) + 1
        });
        let channels = self.weight.size()[0];
        Measure {
            shape: vec![channels, rows, columns],
            macs: self.weight.numel() as u64 * (rows * columns).max(0) as u64,
        }
    }
}

impl BatchNorm {
    /// A lone value has no variance: such a batch uses the running statistics.
    fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        let train = match pass {
            Pass::Eval => false,
            Pass::Train(_) => x.numel() as i64 / x.size()[1] > 1,
        };
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.mean),
            Some(&self.variance),
            train,
            self.momentum,
            self.eps,
            true,
        )
    }
}

impl Masks<'_> {
    /// Kept units are scaled so that the mean stays (Srivastava et al. 2014, inverted).
    fn draw(&self, name: &str, share: f64, x: &Tensor) -> Tensor {
        let stream = self.key.named(name);
        let width = x.size()[1];
        let kept = (1.0 / (1.0 - share)) as f32;
        let mut mask = Vec::with_capacity(self.samples.len() * width as usize);
        for &sample in self.samples {
            let first = sample as u64 * width as u64;
            mask.extend((0..width as u64).map(|unit| {
                if stream.uniform(first + unit) < share {
                    0.0
                } else {
                    kept
                }
            }));
        }
        Tensor::from_slice(&mask)
            .reshape([self.samples.len() as i64, width])
            .to_kind(x.kind())
            .to_device(x.device())
    }
}
