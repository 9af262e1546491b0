//! From a pickle's value to named tensor descriptions: finds the state dict.

use super::pickle::{Arena, Input, TensorRef, Value};
use super::unknown;
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;

/// Bytes of a tensor's name.
const NAME_LIMIT: usize = 1024;
/// Keys under which checkpoints keep their state dict, as far as they nest.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];
const NESTING: usize = 3;

/// The tensors of a state dict, itself or under `state_dict` or `model`.
pub(super) fn tensors(
    arena: &Arena,
    input: &Input<'_>,
    value: Value,
) -> Result<BTreeMap<String, TensorRef>, Fault> {
    let mut items = arena
        .dict(value)
        .ok_or_else(|| unknown("the weights file holds no state dict"))?;
    for _ in 0..NESTING {
        let inner = items.iter().find_map(|(key, value)| {
            let name = name(input, *key)?;
            WRAPPERS.contains(&name).then(|| arena.dict(*value))?
        });
        match inner {
            Some(inner) => items = inner,
            None => break,
        }
    }
    let mut tensors = BTreeMap::new();
    for (key, value) in items {
        let name = name(input, *key)
            .ok_or_else(|| unknown("the weights file has a tensor without a usable name"))?;
        let tensor = arena.tensor(*value).ok_or_else(|| {
            Fault::new(
                Code::UnknownWeights,
                format!("`{name}` of the weights file is no tensor"),
            )
            .hint("save the state dict alone: `torch.save(model.state_dict(), path)`")
        })?;
        tensors.insert(name.to_owned(), tensor.clone());
    }
    if tensors.is_empty() {
        return Err(unknown("the weights file holds no tensor"));
    }
    Ok(tensors)
}

fn name<'a>(input: &Input<'a>, key: Value) -> Option<&'a str> {
    let (start, end) = key.text()?;
    (end - start <= NAME_LIMIT).then(|| input.str((start, end)).ok())?
}
