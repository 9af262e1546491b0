//! `resources`: how many slots a trial gets, and on which workers.

use serde_json::Value;
use std::collections::BTreeMap;

use super::Resources;
use super::section::{Faults, Section, describe, shorten};
use crate::worker::Selector;
use crate::{Code, Fault, name};

/// The most labels, and the most values of one.
const MAX_LABELS: usize = 16;

/// Reads the section.
pub(super) fn resources(mut section: Section<'_>, faults: &Faults) -> Resources {
    let slots_per_trial = section.count("slots_per_trial", 1, 1..=1_024);
    let path = section.path_of("selector");
    let selector = match section.optional("selector") {
        None => Selector::new(),
        Some(value) => selector(&path, value, faults),
    };
    section.finish(|_| None);
    Resources {
        slots_per_trial,
        selector,
    }
}

/// A mapping from label to value, or to a list of values of which one will do.
fn selector(path: &str, value: &Value, faults: &Faults) -> Selector {
    let Value::Object(map) = value else {
        let message = format!("{path}: expected a mapping, found {}", describe(value));
        let hint = "write `selector: {zone: a}`, or `{zone: [a, b]}`";
        (faults.borrow_mut()).push(Fault::new(Code::WrongType, message).hint(hint));
        return Selector::new();
    };
    let mut found = BTreeMap::new();
    if map.len() > MAX_LABELS {
        let message = format!("{path}: {} labels are more than {MAX_LABELS}", map.len());
        (faults.borrow_mut()).push(Fault::new(Code::OutOfRange, message));
        return found;
    }
    for (label, value) in map {
        let at = format!("{path}.{}", shorten(label));
        let read = name::check(&at, label).and_then(|()| values(&at, value));
        match read {
            Ok(values) => drop(found.insert(label.clone(), values)),
            Err(fault) => faults.borrow_mut().push(fault),
        }
    }
    found
}

/// One value or several, in the order of the file.
fn values(at: &str, value: &Value) -> Result<Vec<String>, Fault> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            std::slice::from_ref(value)
        }
    };
    if !(1..=MAX_LABELS).contains(&items.len()) {
        let message = format!("{at}: a label has from 1 to {MAX_LABELS} values");
        return Err(Fault::new(Code::OutOfRange, message));
    }
    let texts = items.iter().map(|item| match item {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => {
            let message = format!("{at}: expected a text, found {}", describe(item));
            Err(Fault::new(Code::WrongType, message).hint(format!("quote it: `\"{item}\"`")))
        }
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            let message = format!("{at}: expected a text, found {}", describe(item));
            Err(Fault::new(Code::WrongType, message))
        }
    });
    texts.collect()
}
