//! Runs a graph with libtorch, operator by operator, as the ONNX standard describes them: what was
//! written is tried out before it is published.
//!
//! It knows the operators that we write, for floats on the CPU, and must never be used to serve.

use super::proto::{AttributeProto, FLOAT, GraphProto, ModelProto, NodeProto};
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// What the model answers to `x`.
pub fn run(model: &ModelProto, x: &Tensor) -> Result<Tensor, Fault> {
    let _no_grad = tch::no_grad_guard();
    let graph = model.graph.as_ref().ok_or_else(|| bad("it has no graph"))?;
    let ([input], [output]) = (graph.input.as_slice(), graph.output.as_slice()) else {
        return Err(bad("it has not one input and one output"));
    };
    let mut values = BTreeMap::from([(input.name.as_str(), x.shallow_clone())]);
    for (at, node) in graph.node.iter().enumerate() {
        let inputs: Vec<Tensor> = node
            .input
            .iter()
            .map(|name| match values.get(name.as_str()) {
                Some(value) => Ok(value.shallow_clone()),
                None => constant(graph, name),
            })
            .collect::<Result<_, Fault>>()?;
        let [name] = node.output.as_slice() else {
            return Err(bad(format!("`{}` gives not one value", node.name)));
        };
        let value = compute(node, &inputs.iter().collect::<Vec<_>>())?;
        forget(&mut values, graph, at);
        if values.insert(name, value).is_some() {
            return Err(bad(format!("`{name}` is given twice")));
        }
    }
    values
        .remove(output.name.as_str())
        .ok_or_else(|| bad(format!("no node gives `{}`", output.name)))
}

/// Drops what no node after this one takes: activations of all layers are too many.
fn forget<'a>(values: &mut BTreeMap<&'a str, Tensor>, graph: &'a GraphProto, at: usize) {
    let later = &graph.node[at + 1..];
    for name in &graph.node[at].input {
        if !later.iter().any(|node| node.input.contains(name)) {
            values.remove(name.as_str());
        }
    }
}

/// Made when it is wanted: all constants at once would be the whole network again.
fn constant(graph: &GraphProto, name: &str) -> Result<Tensor, Fault> {
    let mut named = graph.initializer.iter().filter(|it| it.name == name);
    let it = named
        .next()
        .ok_or_else(|| bad(format!("`{name}` is taken before it is there")))?;
    let count: i64 = it.dims.iter().product();
    if it.data_type != FLOAT || it.raw_data.len() as i64 != 4 * count {
        return Err(bad(format!("constant `{name}` has not its floats")));
    }
    Tensor::f_from_data_size(&it.raw_data, &it.dims, Kind::Float)
        .map_err(|error| bad(format!("constant `{name}`: {error}")))
}

fn compute(node: &NodeProto, inputs: &[&Tensor]) -> Result<Tensor, Fault> {
    let value = match (node.op_type.as_str(), inputs) {
        ("Conv", [x, weight]) => convolve(node, x, weight, None)?,
        ("Conv", [x, weight, bias]) => convolve(node, x, weight, Some(bias))?,
        ("BatchNormalization", [x, weight, bias, mean, variance]) => {
            // Written out, not libtorch's own kernel: y = (x − μ) / √(σ² + ε) · γ + β.
            let across = |tensor: &Tensor| tensor.reshape([1, -1, 1, 1]);
            let scale = across(weight) / (across(variance) + told_float(node, "epsilon")?).sqrt();
            (*x - across(mean)) * scale + across(bias)
        }
        ("Relu", [x]) => x.relu(),
        ("Clip", [x, low, high]) => x.maximum(low).minimum(high),
        ("MaxPool", [x]) => {
            let x = padded(x, told_ints(node, "pads")?, f64::NEG_INFINITY)?;
            let kernel = told_ints(node, "kernel_shape")?;
            x.max_pool2d(kernel, told_ints(node, "strides")?, [0, 0], [1, 1], false)
        }
        ("AveragePool", [x]) if told_int(node, "count_include_pad")? == 1 => {
            let x = padded(x, told_ints(node, "pads")?, 0.0)?;
            let kernel = told_ints(node, "kernel_shape")?;
            let strides = told_ints(node, "strides")?;
            x.avg_pool2d(kernel, strides, [0, 0], false, true, None::<i64>)
        }
        ("GlobalAveragePool", [x]) => x.mean_dim([2i64, 3].as_slice(), true, None::<Kind>),
        ("Flatten", [x]) => x.flatten(told_int(node, "axis")?, -1),
        ("Gemm", [x, weight, bias]) if told_int(node, "transB")? == 1 => {
            x.matmul(&weight.transpose(0, 1)) + *bias
        }
        ("Add", [a, b]) => *a + *b,
        ("MatMul", [a, b]) => a.matmul(b),
        ("Concat", [_, ..]) => Tensor::cat(inputs, told_int(node, "axis")?),
        (op, _) => {
            return Err(bad(format!("`{}`: there is no `{op}` here", node.name)));
        }
    };
    Ok(value)
}

fn convolve(
    node: &NodeProto,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, Fault> {
    if *told_ints(node, "kernel_shape")? != weight.size()[2..] {
        return Err(bad(format!("`{}` has another kernel", node.name)));
    }
    let x = padded(x, told_ints(node, "pads")?, 0.0)?;
    let (strides, groups) = (told_ints(node, "strides")?, told_int(node, "group")?);
    Ok(x.conv2d(weight, bias, strides, [0, 0], [1, 1], groups))
}

/// Rows and columns of `value` around: `pads` are top, left, bottom, right.
fn padded(x: &Tensor, pads: &[i64], value: f64) -> Result<Tensor, Fault> {
    let [top, left, bottom, right] = pads else {
        return Err(bad("`pads` has not four numbers"));
    };
    if pads.iter().all(|&pad| pad == 0) {
        return Ok(x.shallow_clone());
    }
    Ok(x.pad([*left, *right, *top, *bottom], "constant", value))
}

fn told<'a, T>(
    node: &'a NodeProto,
    name: &str,
    take: impl Fn(&'a AttributeProto) -> Option<T>,
) -> Result<T, Fault> {
    let mut named = node.attribute.iter().filter(|it| it.name == name);
    named
        .next()
        .and_then(take)
        .ok_or_else(|| bad(format!("`{}` is not told `{name}`", node.name)))
}

fn told_int(node: &NodeProto, name: &str) -> Result<i64, Fault> {
    told(node, name, |it| it.i)
}

fn told_float(node: &NodeProto, name: &str) -> Result<f64, Fault> {
    told(node, name, |it| it.f.map(f64::from))
}

fn told_ints<'a>(node: &'a NodeProto, name: &str) -> Result<&'a [i64], Fault> {
    told(node, name, |it| Some(it.ints.as_slice()))
}

/// A model that we did not write, or wrote wrongly.
pub(super) fn bad(what: impl std::fmt::Display) -> Fault {
    Fault::new(
        Code::Internal,
        format!("the ONNX model is not what it should be: {what}"),
    )
}
