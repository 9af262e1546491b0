//! From a network to a graph: one node for each layer at serving, constants under the published
//! tensor names and with the very bytes that `model.safetensors` has.
//!
//! Nothing is folded or fused: runtimes do that themselves, and so every tensor can be compared.
//! Sizes of images are fixed, the number of images is open.

use super::graph::{Graph, float, int, ints};
use super::proto::{AttributeProto, GraphProto};
use super::{INPUT, OUTPUT};
use crate::fault;
use crate::network::layer::{BatchNorm, Conv, Layer, Linear, Padding, Window};
use crate::network::{Network, host_tensor};
use crate::weights::DType;
use pomona_domain::Fault;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The graph of `network` at serving, for square images of this side.
pub fn graph(network: &Network, side: u32) -> Result<GraphProto, Fault> {
    let side = i64::from(side);
    let shape = vec![3, side, side];
    let mut walk = Walk {
        graph: Graph::new(network.arch().name()),
        names: BTreeMap::new(),
    };
    for entry in network.entries() {
        walk.entry(&entry.name, &entry.tensor)?;
    }
    let start = Value {
        name: INPUT.to_owned(),
        shape: shape.clone(),
    };
    let end = network
        .layers()
        .try_fold(start, |x, layer| walk.layer(layer, x))?;
    Ok(walk.graph.finish((INPUT, &shape), (OUTPUT, &end.shape)))
}

/// What flows: its name, and its shape without the batch.
#[derive(Clone)]
struct Value {
    name: String,
    shape: Vec<i64>,
}

struct Walk {
    graph: Graph,
    /// Where a tensor's elements lie → its published name. Layers and entries share their storage.
    names: BTreeMap<usize, String>,
}

impl Walk {
    fn entry(&mut self, name: &str, tensor: &Tensor) -> Result<(), Fault> {
        let host = host_tensor(&tensor.to_kind(Kind::Float));
        if host.dtype != DType::F32 {
            return Err(fault::internal(format!("`{name}` holds {:?}", host.dtype)));
        }
        self.graph.constant(name, tensor.size(), host.bytes);
        let place = tensor.data_ptr() as usize;
        match self.names.insert(place, name.to_owned()) {
            None => Ok(()),
            Some(other) => Err(fault::internal(format!(
                "`{name}` and `{other}` are one tensor"
            ))),
        }
    }

    fn name(&self, tensor: &Tensor) -> Result<String, Fault> {
        let name = self.names.get(&(tensor.data_ptr() as usize));
        name.cloned()
            .ok_or_else(|| fault::internal("a layer holds a tensor that is not in the list"))
    }

    fn layers(&mut self, layers: &[Layer], x: Value) -> Result<Value, Fault> {
        layers.iter().try_fold(x, |x, layer| self.layer(layer, x))
    }

    fn layer(&mut self, layer: &Layer, x: Value) -> Result<Value, Fault> {
        let shape = layer.measure(&x.shape).shape;
        let name = match layer {
            Layer::Conv(conv) => self.conv(conv, &x)?,
            Layer::BatchNorm(norm) => self.norm(norm, &x)?,
            Layer::Linear(linear) => self.linear(linear, &x)?,
            Layer::Relu => self.graph.node("Relu", &[&x.name], vec![]),
            Layer::Relu6 => self.relu6(&x),
            Layer::MaxPool(window) => self.graph.node("MaxPool", &[&x.name], looks(*window)),
            Layer::AvgPool(window) => {
                let mut told = looks(*window);
                told.push(int("count_include_pad", 1));
                self.graph.node("AveragePool", &[&x.name], told)
            }
            Layer::AdaptiveAvgPool(side) => self.adaptive(*side, &x),
            Layer::GlobalAvgPool => {
                let mean = self.graph.node("GlobalAveragePool", &[&x.name], vec![]);
                self.graph.node("Flatten", &[&mean], vec![int("axis", 1)])
            }
            Layer::Flatten => self.graph.node("Flatten", &[&x.name], vec![int("axis", 1)]),
            Layer::Dropout { .. } => x.name,
            Layer::Seq(layers) => self.layers(layers, x)?.name,
            Layer::Residual {
                main,
                shortcut,
                relu,
            } => {
                let short = self.layers(shortcut, x.clone())?.name;
                let long = self.layers(main, x)?.name;
                let sum = self.graph.node("Add", &[&long, &short], vec![]);
                if *relu {
                    self.graph.node("Relu", &[&sum], vec![])
                } else {
                    sum
                }
            }
            Layer::Parallel(branches) => self.parallel(branches, &x)?,
        };
        Ok(Value { name, shape })
    }

    /// Named as the module is, which published names end with `.weight`.
    fn conv(&mut self, conv: &Conv, x: &Value) -> Result<String, Fault> {
        let weight = self.name(&conv.weight)?;
        let bias = conv.bias.as_ref().map(|bias| self.name(bias)).transpose()?;
        let pads = match conv.padding {
            Padding::Even([rows, columns]) => [rows, columns, rows, columns],
            Padding::Same => {
                let [rows, columns] = [0, 1].map(|axis| conv.same(x.shape[1 + axis], axis));
                [
                    rows / 2,
                    columns / 2,
                    rows - rows / 2,
                    columns - columns / 2,
                ]
            }
        };
        let told = vec![
            int("group", conv.groups),
            ints("kernel_shape", &conv.kernel),
            ints("pads", &pads),
            ints("strides", &[conv.stride; 2]),
        ];
        let mut input = vec![x.name.as_str(), &weight];
        input.extend(bias.as_deref());
        let name = module(&weight);
        self.graph.named(name, "Conv", &input, told);
        Ok(name.to_owned())
    }

    fn norm(&mut self, norm: &BatchNorm, x: &Value) -> Result<String, Fault> {
        let [weight, bias, mean, variance] =
            [&norm.weight, &norm.bias, &norm.mean, &norm.variance].map(|it| self.name(it));
        let (weight, bias, mean, variance) = (weight?, bias?, mean?, variance?);
        let input = [x.name.as_str(), &weight, &bias, &mean, &variance];
        let name = module(&weight);
        let told = vec![float("epsilon", norm.eps as f32)];
        self.graph.named(name, "BatchNormalization", &input, told);
        Ok(name.to_owned())
    }

    fn linear(&mut self, linear: &Linear, x: &Value) -> Result<String, Fault> {
        let (weight, bias) = (self.name(&linear.weight)?, self.name(&linear.bias)?);
        let name = module(&weight);
        let told = vec![int("transB", 1)];
        self.graph
            .named(name, "Gemm", &[&x.name, &weight, &bias], told);
        Ok(name.to_owned())
    }

    fn relu6(&mut self, x: &Value) -> String {
        self.graph.floats("relu6.low", vec![], &[0.0]);
        self.graph.floats("relu6.high", vec![], &[6.0]);
        self.graph
            .node("Clip", &[&x.name, "relu6.low", "relu6.high"], vec![])
    }

    fn parallel(&mut self, branches: &[Layer], x: &Value) -> Result<String, Fault> {
        let outputs: Vec<String> = branches
            .iter()
            .map(|branch| Ok(self.layer(branch, x.clone())?.name))
            .collect::<Result<_, Fault>>()?;
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        Ok(self.graph.node("Concat", &outputs, vec![int("axis", 1)]))
    }

    /// ONNX has no adaptive pooling. Means of windows are a linear map of the rows, then of the
    /// columns; at the side that the network was made for, it is the identity.
    fn adaptive(&mut self, side: i64, x: &Value) -> String {
        let (height, width) = (x.shape[1], x.shape[2]);
        if (height, width) == (side, side) {
            return x.name.clone();
        }
        let rows = "adaptive.rows";
        self.graph
            .floats(rows, vec![side, height], &means(side, height));
        let columns = "adaptive.columns";
        let across = transposed(&means(side, width), width as usize);
        self.graph.floats(columns, vec![width, side], &across);
        let tall = self.graph.node("MatMul", &[rows, &x.name], vec![]);
        self.graph.node("MatMul", &[&tall, columns], vec![])
    }
}

/// `conv1` of `conv1.weight`.
fn module(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

fn looks(window: Window) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", &[window.kernel; 2]),
        ints("pads", &[window.padding; 4]),
        ints("strides", &[window.stride; 2]),
    ]
}

/// Row i has the weights of the i-th of `to` means over `from` values, as libtorch lays its windows:
/// from ⌊i·from/to⌋ to ⌈(i + 1)·from/to⌉.
fn means(to: i64, from: i64) -> Vec<f32> {
    let row = |i: i64| {
        let window = i * from / to..((i + 1) * from + to - 1) / to;
        let share = 1.0 / (window.end - window.start) as f32;
        (0..from).map(move |at| if window.contains(&at) { share } else { 0.0 })
    };
    (0..to).flat_map(row).collect()
}

/// Rows of this length as columns.
fn transposed(rows: &[f32], length: usize) -> Vec<f32> {
    (0..length)
        .flat_map(|at| rows.iter().skip(at).step_by(length).copied())
        .collect()
}
