//! Conditions of the space: `when` of a set.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::ExperimentSpec;
use super::apply::put_point;
use super::section::{Section, describe};
use crate::space::{Space, Tree, When, same_scalar};
use crate::{Code, Fault};

const KEY: &str = "when";

/// Reads `when` of a set: other paths with the value, or the list of values, that they must have.
pub(super) fn read(section: &mut Section<'_>) -> Option<When> {
    let value = section.optional(KEY)?;
    let Value::Object(map) = value else {
        section.advise(
            Code::WrongType,
            KEY,
            format_args!("expected a mapping, found {}", describe(value)),
            "write `when: {transfer.head.kind: mlp}`",
        );
        return None;
    };
    let mut read = BTreeMap::new();
    for (path, wanted) in map {
        let values = match wanted {
            Value::Array(items) => items.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => {
                vec![wanted.clone()]
            }
        };
        let is_scalar = |value: &Value| !value.is_null() && !value.is_object() && !value.is_array();
        if values.is_empty() || !values.iter().all(is_scalar) {
            let key = format!("{KEY}.{path}");
            section.wrong(&key, "a value or a list of values", wanted);
            return None;
        }
        read.insert(path.clone(), values);
    }
    if read.is_empty() {
        section.complain(Code::BadCondition, KEY, "names no path");
        return None;
    }
    Some(When(read))
}

/// What is wrong with the condition of a path, the sets of the space being as the file has them.
pub(super) fn faults(spec: &ExperimentSpec, path: &str) -> Vec<Fault> {
    let condition = spec.search.when.get(path);
    let parents = condition.into_iter().flat_map(|when| &when.0);
    let fault =
        |(parent, wanted): (&String, &Vec<Value>)| fault(&spec.search.space, path, parent, wanted);
    parents.filter_map(fault).collect()
}

/// Conditions that lead in a circle.
pub(super) fn circle(spec: &ExperimentSpec) -> Option<Fault> {
    let path = Tree::new(&spec.search.space, &spec.search.when).lost()?;
    let text = "its conditions lead in a circle, so it could never have a value";
    Some(refusal(path, text).hint("let one of the paths do without `when`"))
}

fn refusal(path: &str, text: &str) -> Fault {
    let message = format!("search.space.{path}.{KEY}: {text}");
    Fault::new(Code::BadCondition, message)
}

fn fault(space: &Space, path: &str, parent: &str, wanted: &[Value]) -> Option<Fault> {
    let Some(domain) = space.get(parent) else {
        let text = format!("`{parent}` is not in the space, so it is the same for all trials");
        let near = super::paths::nearest(parent, space.keys().map(String::as_str));
        let hint = near.map_or_else(
            || format!("search `{parent}` too, or leave the condition out"),
            |near| format!("did you mean `{near}`?"),
        );
        return Some(refusal(path, &text).hint(hint));
    };
    let points = domain.points();
    let may_be = |value: &Value| match &points {
        Some(points) => points.iter().any(|point| same_scalar(point, value)),
        None => domain.contains(value),
    };
    let never = wanted.iter().find(|value| !may_be(value))?;
    let text = format!("`{parent}` is never {never}");
    let values: Vec<String> = (points.iter().flatten())
        .take(8)
        .map(ToString::to_string)
        .collect();
    let fault = refusal(path, &text);
    Some(if values.is_empty() {
        fault
    } else {
        fault.hint(format!("it is one of {}", values.join(", ")))
    })
}

/// The file in which a path is looked up and its values are tried: as it is where the conditions of
/// the path, and of those it depends on, hold.
pub(super) fn base(spec: &ExperimentSpec, path: &str) -> Value {
    let base = spec.trained_tree();
    let mut point = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    let mut seen = Vec::new();
    while let Some(child) = open.pop() {
        if seen.contains(&child) {
            continue;
        }
        for (parent, wanted) in spec
            .search
            .when
            .get(&child)
            .into_iter()
            .flat_map(|when| &when.0)
        {
            point.extend(wanted.first().map(|value| (parent.clone(), value.clone())));
            open.push(parent.clone());
        }
        seen.push(child);
    }
    if point.is_empty() {
        return base;
    }
    // What does not fit is told about the parent itself.
    put_point(&base, spec.resources.slots_per_trial, &point)
        .ok()
        .and_then(|trained| trained.tree())
        .unwrap_or(base)
}

/// A set as the file writes it, with its condition.
pub(super) fn to_file(set: Value, when: Option<&When>) -> Value {
    let (Value::Object(mut map), Some(when)) = (set.clone(), when) else {
        return set;
    };
    let conditions: Map<String, Value> = (when.0.iter())
        .map(|(path, values)| (path.clone(), Value::Array(values.clone())))
        .collect();
    map.insert(KEY.to_owned(), Value::Object(conditions));
    Value::Object(map)
}
