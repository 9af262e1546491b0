//! Paths of the experiment file (`train.optimizer.weight_decay`): reading, setting, finding near
//! ones. List items are numbered from 0 (`promote.gates.0.at_least`).

use serde_json::{Map, Value};

use crate::{Code, Fault};

/// Everything below this prefix is one key: the keys of the space are paths themselves.
const SPACE: &str = "search.space.";

/// The segments of a path.
pub(super) fn segments(path: &str) -> Vec<&str> {
    match path.strip_prefix(SPACE) {
        Some(key) => vec!["search", "space", key],
        None => path.split('.').collect(),
    }
}

/// The value at a path.
pub(super) fn get<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    segments(path)
        .into_iter()
        .try_fold(tree, |node, segment| match node {
            Value::Object(map) => map.get(segment),
            Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
}

/// Puts a value at a path; mappings on the way are made where there is nothing.
pub(super) fn set(tree: &mut Value, path: &str, value: Value) -> Result<(), Fault> {
    let parts = segments(path);
    if parts.iter().any(|part| part.is_empty()) {
        return Err(Fault::new(
            Code::UnknownPath,
            format!("`{path}` is not a path of the experiment file"),
        )
        .hint("write the keys from the top with dots between them: `train.learning_rate`"));
    }
    let mut node = tree;
    for (index, part) in parts.iter().enumerate() {
        if node.is_null() {
            *node = Value::Object(Map::new());
        }
        let here = parts[..index].join(".");
        node = match node {
            Value::Object(map) => map.entry((*part).to_owned()).or_insert(Value::Null),
            Value::Array(items) => {
                let length = items.len();
                part.parse::<usize>()
                    .ok()
                    .and_then(|at| items.get_mut(at))
                    .ok_or_else(|| {
                        Fault::new(
                            Code::UnknownPath,
                            format!(
                                "{path}: `{here}` is a list of {length}, it has no item `{part}`"
                            ),
                        )
                        .hint("items are numbered from 0")
                    })?
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(Fault::new(
                    Code::UnknownPath,
                    format!("{path}: `{here}` is a single value, it has no key `{part}`"),
                ));
            }
        };
    }
    *node = value;
    Ok(())
}

/// Paths of all scalars of a tree, in order.
pub(super) fn scalars(tree: &Value) -> Vec<String> {
    fn walk(node: &Value, path: &str, found: &mut Vec<String>) {
        match node {
            Value::Object(map) => {
                for (key, child) in map {
                    walk(child, &join(path, key), found);
                }
            }
            Value::Array(_) | Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk(tree, "", &mut found);
    found
}

/// `path.key`, or `key` at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The candidate a reader most likely meant, if one is near.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| {
            let likeness = strsim::normalized_damerau_levenshtein(
                &word.to_lowercase().replace('-', "_"),
                candidate,
            );
            (candidate, likeness)
        })
        .filter(|(_, likeness)| *likeness >= 0.6)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate)
}
