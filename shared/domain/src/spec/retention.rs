//! The section `retention`: which checkpoints stay when an experiment has ended.

use serde_json::Value;

use super::Retention;
use super::search::MAX_TRIALS;
use super::section::Section;

/// Reads `retention`.
pub(super) fn retention(mut section: Section<'_>) -> Retention {
    const BEST: &str = "best";
    const LAST: &str = "last";
    let mut retention = Retention::default();
    if let Some(value) = section.optional(BEST) {
        retention.best = match value {
            Value::String(text) if text == "all" => None,
            Value::Number(_) => section
                .as_whole(BEST, value, 0..=u64::from(MAX_TRIALS))
                .and_then(|count| u32::try_from(count).ok()),
            Value::Null
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                section.wrong(BEST, "a whole number or `all`", value);
                None
            }
        };
    }
    if let Some(value) = section.optional(LAST) {
        match value {
            Value::Bool(keep) => retention.last = *keep,
            Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => section.wrong(LAST, "`true` or `false`", value),
        }
    }
    section.finish(|_| None);
    retention
}
