//! Holds a written model against the network that it should be: the same tensors, the same answers.

use super::proto::{Length, ModelProto, ValueInfoProto};
use super::run::{bad, run};
use super::{INPUT, OUTPUT};
use crate::network::{Network, Pass, host_tensor};
use pomona_domain::Fault;
use tch::{Kind, Tensor};

/// How far logits may be apart, of the largest logit or of 1, whichever is more.
pub const TOLERANCE: f64 = 1e-4;

/// Refuses a model whose shapes, constants or logits of `x` are not those of `network`. Gives the
/// largest difference of a logit.
pub fn check(model: &ModelProto, network: &Network, x: &Tensor) -> Result<f64, Fault> {
    let ours = tch::no_grad(|| network.forward(x, Pass::Eval));
    shapes(model, &x.size()[1..], &ours.size()[1..])?;
    constants(model, network)?;
    let theirs = run(model, x)?;
    if theirs.size() != ours.size() {
        return Err(bad(format!("it gives {:?}", theirs.size())));
    }
    let largest = |tensor: &Tensor| tensor.abs().max().to_kind(Kind::Double).double_value(&[]);
    let apart = largest(&(&theirs - &ours));
    if apart <= TOLERANCE * largest(&ours).max(1.0) {
        return Ok(apart);
    }
    Err(bad(format!("its logits are {apart} from the network's")))
}

fn shapes(model: &ModelProto, input: &[i64], output: &[i64]) -> Result<(), Fault> {
    let graph = model.graph.as_ref().ok_or_else(|| bad("it has no graph"))?;
    for (values, name, shape) in [
        (&graph.input, INPUT, input),
        (&graph.output, OUTPUT, output),
    ] {
        let [value] = values.as_slice() else {
            return Err(bad(format!("it has not one value `{name}`")));
        };
        if value.name != name || !has_shape(value, shape) {
            return Err(bad(format!("`{name}` is not [N, {shape:?}]")));
        }
    }
    Ok(())
}

/// Whether the first length is open and the others are these.
fn has_shape(value: &ValueInfoProto, shape: &[i64]) -> bool {
    let tensor = value.r#type.as_ref().and_then(|it| it.tensor_type.as_ref());
    let lengths = tensor.and_then(|it| it.shape.as_ref()).map(|it| &it.dim);
    let Some((Some(first), rest)) = lengths.and_then(|it| Some((&it.first()?.value, &it[1..])))
    else {
        return false;
    };
    let fixed = shape.iter().map(|&side| Some(Length::Fixed(side)));
    matches!(first, Length::Any(_)) && rest.iter().map(|it| it.value.clone()).eq(fixed)
}

/// Every tensor of the network is there under its name, byte for byte.
fn constants(model: &ModelProto, network: &Network) -> Result<(), Fault> {
    let graph = model.graph.iter().flat_map(|graph| &graph.initializer);
    let mut written = graph.map(|it| (&it.name, it));
    for entry in network.entries() {
        let same = written.any(|(name, it)| {
            *name == entry.name
                && it.dims == entry.tensor.size()
                && it.raw_data == host_tensor(&entry.tensor).bytes
        });
        if !same {
            return Err(bad(format!("tensor `{}` is another", entry.name)));
        }
    }
    Ok(())
}
