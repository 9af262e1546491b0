//! The frozen blocks, prepared once and run over a whole data set: batch norms folded into the
//! convolutions before them, activations and residual sums fused, channels together in memory.
//!
//! A copy: it does not follow the network when that changes, and has no gradient. It gives what
//! `Network::at_cut` gives but for rounding.

use super::Network;
use super::layer::{BatchNorm, Conv, Layer, Linear, Padding, Pass};
use crate::dist::ffi::{self, Convolve};
use crate::fault;
use cxx::UniquePtr;
use pomona_domain::Fault;
use pomona_domain::spec::Precision;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Values of the largest activation of a block for all images that run together: more is out of the
/// processor's caches, less does not keep it busy.
const VALUES_AT_ONCE: i64 = 1 << 21;

/// Values of a weight that are folded at a time.
const FOLDED_AT_ONCE: i64 = 1 << 17;

/// How frozen blocks are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Layer by layer, as in training.
    Exact,
    /// Folded, in 32-bit floats.
    Folded,
    /// Folded, multiplied in bfloat16; sums have 32 bits.
    FoldedBf16,
}

impl Arithmetic {
    /// What a trial's precision means for this network on this machine.
    pub fn of(precision: Precision, network: &Network) -> Self {
        let prepared = network.device() == Device::Cpu && network.kind() == Kind::Float;
        let shallow = network.depth() <= network.arch().bf16_blocks();
        match precision {
            Precision::F32 => Self::Exact,
            Precision::Auto if !prepared => Self::Exact,
            Precision::Auto if shallow && has_bf16() => Self::FoldedBf16,
            Precision::Auto => Self::Folded,
        }
    }

    /// Its name in the key of a shard: another one gives other bits.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "f32",
            Self::Folded if ffi::has_winograd() => "f32, folded, winograd",
            Self::Folded => "f32, folded",
            Self::FoldedBf16 => "bf16, folded",
        }
    }
}

/// Whether this processor multiplies bfloat16 (each one with AMX has these instructions, too).
fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Frozen blocks, prepared.
pub struct Prefix {
    stages: Vec<Stage>,
    kind: Kind,
}

/// Blocks that run over the same number of images at a time.
struct Stage {
    images: i64,
    ops: Vec<Op>,
}

/// What is done to activations.
enum Op {
    Convolve(UniquePtr<ffi::Convolution>),
    Linear(Linear),
    /// What has nothing to prepare.
    Layer(Layer),
    Residual {
        main: Vec<Op>,
        /// The last convolution of the long way, which adds the short one.
        last: UniquePtr<ffi::Convolution>,
        shortcut: Vec<Op>,
    },
    Parallel(Vec<Vec<Op>>),
}

impl Prefix {
    /// Prepares these blocks of a network for images of this side, with the pooling when
    /// the last is among them.
    pub fn new(
        network: &Network,
        range: Range<usize>,
        side: u32,
        arithmetic: Arithmetic,
    ) -> Result<Self, Fault> {
        let kind = match arithmetic {
            Arithmetic::Exact | Arithmetic::Folded => Kind::Float,
            Arithmetic::FoldedBf16 => Kind::BFloat16,
        };
        let side = i64::from(side);
        let mut maker = Maker {
            kind,
            shape: vec![3, side, side],
            largest: 0,
        };
        for block in &network.blocks[..range.start] {
            maker.shape = block.layer.measure(&maker.shape).shape;
        }
        let mut stages: Vec<Stage> = Vec::new();
        let pool = (range.end == network.blocks.len()).then_some(&network.pool);
        let blocks = network.blocks[range].iter().map(|block| &block.layer);
        for layer in blocks.chain(pool) {
            maker.largest = maker.shape.iter().product();
            let ops = maker.ops(&flat(layer))?;
            let images = images_at_once(maker.largest);
            match stages.last_mut() {
                Some(stage) if stage.images == images => stage.ops.extend(ops),
                Some(_) | None => stages.push(Stage { images, ops }),
            }
        }
        Ok(Self { stages, kind })
    }

    /// [N, C, H, W] → what the last block gives, in 32-bit floats.
    pub fn run(&self, x: &Tensor) -> Result<Tensor, Fault> {
        let _no_grad = tch::no_grad_guard();
        let start = x.to_kind(self.kind);
        let result = self.stages.iter().try_fold(start, |x, stage| {
            let parts = x.split(stage.images, 0).into_iter();
            let parts: Vec<Tensor> = parts
                .map(|part| run(&stage.ops, part))
                .collect::<Result<_, _>>()?;
            Ok(match parts.as_slice() {
                [part] => part.shallow_clone(),
                _ => Tensor::cat(&parts, 0),
            })
        })?;
        Ok(result.to_kind(Kind::Float))
    }
}

/// A power of two, so that it divides a batch.
fn images_at_once(values: i64) -> i64 {
    let images = (VALUES_AT_ONCE / values.max(1)).clamp(1, 32);
    1 << images.ilog2()
}

fn run(ops: &[Op], x: Tensor) -> Result<Tensor, Fault> {
    ops.iter().try_fold(x, |x, op| op.run(x))
}

impl Op {
    fn run(&self, x: Tensor) -> Result<Tensor, Fault> {
        match self {
            Self::Convolve(conv) => convolve(conv, &x, None),
            Self::Linear(linear) => Ok(x.linear(&linear.weight, Some(&linear.bias))),
            Self::Layer(layer) => Ok(layer.forward(x, Pass::Eval)),
            Self::Residual {
                main,
                last,
                shortcut,
            } => {
                let short = run(shortcut, x.shallow_clone())?;
                convolve(last, &run(main, x)?, Some(&short))
            }
            Self::Parallel(branches) => {
                let outputs: Vec<Tensor> = branches
                    .iter()
                    .map(|branch| run(branch, x.shallow_clone()))
                    .collect::<Result<_, _>>()?;
                Ok(Tensor::cat(&outputs, 1))
            }
        }
    }
}

fn convolve(
    conv: &ffi::Convolution,
    x: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor, Fault> {
    ffi::convolve(conv, x, residual).map_err(|error| fault::from_exception(&error))
}

/// The layers one after the other, without sequences in sequences.
fn flat(layer: &Layer) -> Vec<&Layer> {
    if let Layer::Seq(layers) = layer {
        return layers.iter().flat_map(flat).collect();
    }
    vec![layer]
}

/// Prepares layers, and follows the shape of an image through them.
struct Maker {
    kind: Kind,
    /// C × H × W, or C.
    shape: Vec<i64>,
    /// Values of the largest activation.
    largest: i64,
}

impl Maker {
    fn ops(&mut self, mut layers: &[&Layer]) -> Result<Vec<Op>, Fault> {
        let mut ops = Vec::new();
        while let Some((first, rest)) = layers.split_first() {
            layers = rest;
            let shape = first.measure(&self.shape).shape;
            ops.push(match first {
                Layer::Conv(conv) => {
                    let (norm, after) = split_norm(rest);
                    let (high, after) = split_clamp(after);
                    layers = after;
                    Op::Convolve(self.convolution(conv, norm, high)?)
                }
                Layer::Linear(linear) => Op::Linear(Linear {
                    weight: linear.weight.detach().to_kind(self.kind),
                    bias: linear.bias.detach().to_kind(self.kind),
                }),
                Layer::Residual {
                    main,
                    shortcut,
                    relu,
                } => self.residual(main, shortcut, *relu)?,
                Layer::Parallel(branches) => Op::Parallel(
                    branches
                        .iter()
                        .map(|branch| self.aside(&flat(branch)))
                        .collect::<Result<_, _>>()?,
                ),
                Layer::Dropout { .. } => continue,
                Layer::Seq(_)
                | Layer::BatchNorm(_)
                | Layer::Relu
                | Layer::Relu6
                | Layer::MaxPool(_)
                | Layer::AvgPool(_)
                | Layer::AdaptiveAvgPool(_)
                | Layer::GlobalAvgPool
                | Layer::Flatten => Op::Layer(self.unprepared(first)),
            });
            self.reach(shape);
        }
        Ok(ops)
    }

    /// A branch, which begins where this one stands.
    fn aside(&mut self, layers: &[&Layer]) -> Result<Vec<Op>, Fault> {
        let start = self.shape.clone();
        let ops = self.ops(layers);
        self.shape = start;
        ops
    }

    fn reach(&mut self, shape: Vec<i64>) {
        self.largest = self.largest.max(shape.iter().product());
        self.shape = shape;
    }

    /// The long way ends with a convolution and its batch norm, in every architecture.
    fn residual(&mut self, main: &[Layer], shortcut: &[Layer], relu: bool) -> Result<Op, Fault> {
        let short: Vec<&Layer> = shortcut.iter().flat_map(flat).collect();
        let shortcut = self.aside(&short)?;
        let long: Vec<&Layer> = main.iter().flat_map(flat).collect();
        let last = long
            .iter()
            .rposition(|layer| matches!(layer, Layer::Conv(_)))
            .ok_or_else(|| fault::internal("a residual unit has no convolution"))?;
        let start = self.shape.clone();
        let main = self.ops(&long[..last])?;
        let (Layer::Conv(conv), (norm, [])) = (long[last], split_norm(&long[last + 1..])) else {
            return Err(fault::internal("a residual unit ends otherwise"));
        };
        let high = relu.then_some(f64::INFINITY);
        let last = self.convolution(conv, norm, high)?;
        self.shape = start;
        Ok(Op::Residual {
            main,
            last,
            shortcut,
        })
    }

    /// A convolution of images of the shape at hand. Zeros on one side more than on the other become
    /// a row of zeros in the kernel: oneDNN and libtorch pad both sides alike.
    fn convolution(
        &self,
        conv: &Conv,
        norm: Option<&BatchNorm>,
        high: Option<f64>,
    ) -> Result<UniquePtr<ffi::Convolution>, Fault> {
        let (mut weight, bias) = fold(conv, norm, self.kind);
        let padding = match conv.padding {
            Padding::Even(padding) => padding,
            Padding::Same => {
                let zeros = [0, 1].map(|axis| conv.same(self.shape[1 + axis], axis));
                let [top, left] = zeros.map(|zeros| zeros % 2);
                weight = weight.constant_pad_nd([left, 0, top, 0]);
                zeros.map(|zeros| zeros.div_euclid(2) + zeros % 2)
            }
        };
        ffi::convolution_new(&Convolve {
            weight: &weight.contiguous(),
            bias: &bias,
            stride: conv.stride,
            padding,
            groups: conv.groups,
            high,
        })
        .map_err(|error| fault::from_exception(&error))
    }

    /// The same layer, of this type of float.
    fn unprepared(&self, layer: &Layer) -> Layer {
        let here = |tensor: &Tensor| tensor.detach().to_kind(self.kind);
        match layer {
            Layer::BatchNorm(norm) => Layer::BatchNorm(BatchNorm {
                weight: here(&norm.weight),
                bias: here(&norm.bias),
                mean: here(&norm.mean),
                variance: here(&norm.variance),
                eps: norm.eps,
                momentum: norm.momentum,
            }),
            Layer::Relu => Layer::Relu,
            Layer::Relu6 => Layer::Relu6,
            Layer::MaxPool(window) => Layer::MaxPool(*window),
            Layer::AvgPool(window) => Layer::AvgPool(*window),
            Layer::AdaptiveAvgPool(side) => Layer::AdaptiveAvgPool(*side),
            Layer::GlobalAvgPool => Layer::GlobalAvgPool,
            Layer::Flatten => Layer::Flatten,
            Layer::Conv(_)
            | Layer::Linear(_)
            | Layer::Dropout { .. }
            | Layer::Seq(_)
            | Layer::Residual { .. }
            | Layer::Parallel(_) => unreachable!("it is prepared"),
        }
    }
}

/// A batch norm at the beginning, and what follows.
fn split_norm<'a, 'b>(layers: &'b [&'a Layer]) -> (Option<&'a BatchNorm>, &'b [&'a Layer]) {
    match layers {
        [Layer::BatchNorm(norm), rest @ ..] => (Some(norm), rest),
        _ => (None, layers),
    }
}

/// The upper end of an activation at the beginning, and what follows.
fn split_clamp<'a, 'b>(layers: &'b [&'a Layer]) -> (Option<f64>, &'b [&'a Layer]) {
    match layers {
        [Layer::Relu, rest @ ..] => (Some(f64::INFINITY), rest),
        [Layer::Relu6, rest @ ..] => (Some(6.0), rest),
        _ => (None, layers),
    }
}

/// Weight and bias, of this kind, of the convolution that does what both do: w·γ/√(σ² + ε) and
/// β + (b − μ)·γ/√(σ² + ε), computed in 64 bits. Some output channels at a time: memory that was
/// never touched costs more than the arithmetic.
fn fold(conv: &Conv, norm: Option<&BatchNorm>, kind: Kind) -> (Tensor, Tensor) {
    let wide = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double);
    let channels = conv.weight.size()[0];
    let device = conv.weight.device();
    let bias = conv
        .bias
        .as_ref()
        .map_or_else(|| Tensor::zeros([channels], (Kind::Double, device)), wide);
    let Some(norm) = norm else {
        let copy = conv.weight.detach().to_dtype(kind, false, true);
        return (copy, bias.to_kind(kind));
    };
    let scale = wide(&norm.weight) / (wide(&norm.variance) + norm.eps).sqrt();
    let bias = wide(&norm.bias) + (bias - wide(&norm.mean)) * &scale;
    let scale = scale.reshape([channels, 1, 1, 1]);
    let weight = Tensor::empty(conv.weight.size(), (kind, device));
    let at_once = FOLDED_AT_ONCE * channels / conv.weight.numel() as i64;
    let parts = |tensor: &Tensor| tensor.split(at_once.max(1), 0);
    for ((mut to, from), scale) in parts(&weight)
        .into_iter()
        .zip(parts(&conv.weight.detach()))
        .zip(parts(&scale))
    {
        to.copy_(&(wide(&from) * scale));
    }
    (weight, bias.to_kind(kind))
}
