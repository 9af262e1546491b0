//! Which paths a space may name: single values that differ from trial to trial.

use serde_json::Value;

use super::runner::PARAMS;
use super::section::{choices, shorten};
use super::{kinds, parse, paths};
use crate::{Code, Fault};

/// Why a path cannot be searched, if so. `base` is the part of the file that a point may change.
pub(super) fn path_fault(base: &Value, path: &str) -> Option<Fault> {
    match paths::get(base, path) {
        Some(Value::Number(_) | Value::String(_) | Value::Bool(_)) => None,
        Some(Value::Object(map)) => {
            let keys: Vec<&str> = map.keys().map(String::as_str).collect();
            Some(
                refusal(path, "is a mapping, only single values can be searched")
                    .hint(format!("name one of its keys: {}", choices(&keys))),
            )
        }
        Some(Value::Array(_) | Value::Null) => Some(refusal(
            path,
            "is a list, only single values can be searched",
        )),
        None => same_for_all(base, path)
            .or_else(|| planned(path))
            .or_else(|| other_kind(base, path))
            .or_else(|| Some(nowhere(base, path))),
    }
}

fn refusal(path: &str, message: &str) -> Fault {
    let path = shorten(path);
    Fault::new(Code::UnknownPath, format!("search.space.{path}: {message}"))
}

fn same_for_all(base: &Value, path: &str) -> Option<Fault> {
    let head = path.split('.').next().unwrap_or_default();
    let place = match base.get(PARAMS) {
        Some(_) => "`params`",
        None => "`transfer` or `train`",
    };
    (parse::is_top_key(head) && base.get(head).is_none()).then(|| {
        let message = "is the same for all trials of an experiment";
        refusal(path, message).hint(format!(
            "what can be searched stands under {place}, or is `seed`; for the rest submit one \
             experiment for each value"
        ))
    })
}

fn planned(path: &str) -> Option<Fault> {
    let key = path.strip_prefix("transfer.")?.split('.').next()?;
    matches!(key, "schedule" | "regularizer" | "layer_decay").then(|| {
        Fault::new(
            Code::NotBuilt,
            format!("search.space.{path}: `{key}` is not built yet"),
        )
        .hint("take the path out of the space")
    })
}

/// A key of a kind that this file does not have.
fn other_kind(base: &Value, path: &str) -> Option<Fault> {
    let (parent, key) = path.rsplit_once('.')?;
    let kinds = kinds::ALL.iter().find(|kinds| kinds.path == parent)?;
    let owners = kinds.with_key(key);
    let written = paths::get(base, &format!("{parent}.kind"))?.as_str()?;
    (!owners.is_empty()).then(|| {
        refusal(
            path,
            &format!("`{parent}` is of kind `{written}`, which has no `{key}`"),
        )
        .hint(format!("`{key}` belongs to kind {}", choices(&owners)))
    })
}

fn nowhere(base: &Value, path: &str) -> Fault {
    let known = paths::scalars(base);
    let same_end = known
        .iter()
        .find(|known| known.rsplit('.').next() == path.rsplit('.').next());
    let near = paths::nearest(path, known.iter().map(String::as_str));
    let fault = refusal(path, "there is no such path in the file");
    match same_end.map(String::as_str).or(near) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None => fault.hint("write the keys from the top with dots: `train.learning_rate`"),
    }
}
