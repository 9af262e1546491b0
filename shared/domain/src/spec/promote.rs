//! The section `promote`: where the best checkpoint goes, and on what conditions.

use serde_json::Value;

use super::section::{Faults, Limits, Section, VAST, choices, shorten};
use super::{GATE_METRICS, Gate, Promote, natural_direction};
use crate::metric::Direction;
use crate::{Code, name};

/// The most gates.
const MAX_GATES: usize = 32;

/// Reads `promote`.
pub(super) fn promote(mut section: Section<'_>, faults: &Faults) -> Promote {
    let model = section.text("model", "model: NAME").to_owned();
    let alias = section.text("alias", "alias: champion").to_owned();
    if !model.is_empty()
        && let Err(fault) = name::check(&section.path_of("model"), &model)
    {
        section.fault(fault);
    }
    if !alias.is_empty()
        && let Err(fault) = name::check_alias(&section.path_of("alias"), &alias)
    {
        section.fault(fault);
    }
    let mut gates = Vec::new();
    match section.optional("gates") {
        None => {}
        Some(Value::Array(items)) if items.len() > MAX_GATES => section.complain(
            Code::OutOfRange,
            "gates",
            format_args!("{} gates are more than {MAX_GATES}", items.len()),
        ),
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let path = section.path_of(&format!("gates.{index}"));
                gates.extend(gate(Section::at(path, Some(item), faults)));
            }
        }
        Some(other) => section.wrong("gates", "a list of gates", other),
    }
    section.finish(|_| None);
    Promote {
        model,
        alias,
        gates,
    }
}

fn gate(mut section: Section<'_>) -> Option<Gate> {
    if !section.is_written() {
        return None;
    }
    let planned = comparison(&mut section);
    let metric = section.text("metric", "metric: test/accuracy").to_owned();
    if !metric.is_empty() && !GATE_METRICS.contains(&metric.as_str()) {
        let near = super::paths::nearest(&metric, GATE_METRICS.iter().copied());
        section.advise(
            Code::BadMetric,
            "metric",
            format_args!("`{}` is not measured at promotion", shorten(&metric)),
            near.map_or_else(
                || format!("use {}", choices(GATE_METRICS)),
                |near| format!("did you mean `{near}`?"),
            ),
        );
    }
    let written = section.child("at_least").is_some() || section.child("at_most").is_some();
    let at_least = bound(&mut section, "at_least", &metric);
    let at_most = bound(&mut section, "at_most", &metric);
    if !written && !planned {
        let (key, example) = match natural_direction(&metric) {
            Direction::Maximize => ("at_least", "0.8"),
            Direction::Minimize => ("at_most", "0.5"),
        };
        section.advise(
            Code::MissingKey,
            key,
            "missing key, a gate without a bound lets everything pass",
            format!("write `{key}: {example}`"),
        );
    }
    if let (Some(low), Some(high)) = (at_least, at_most)
        && low > high
    {
        section.complain(
            Code::Contradiction,
            "at_least",
            format_args!("{low} is above `at_most` {high}, so nothing can pass"),
        );
    }
    section.finish(|_| None);
    Some(Gate {
        metric,
        at_least,
        at_most,
    })
}

/// Refuses the keys of a gate that compares with another version; whether there are any.
fn comparison(section: &mut Section<'_>) -> bool {
    let mut planned = false;
    for key in ["better_than", "confidence"] {
        if section.raw(key).is_some() {
            planned = true;
            section.advise(
                Code::NotBuilt,
                key,
                "comparing with another version is not built yet",
                "use a gate with `at_least` or `at_most`",
            );
        }
    }
    planned
}

fn bound(section: &mut Section<'_>, key: &'static str, metric: &str) -> Option<f64> {
    let value = section.optional(key)?;
    let percent = value
        .as_f64()
        .filter(|number| is_share(metric) && *number > 1.0 && *number <= 100.0);
    if let Some(percent) = percent {
        section.advise(
            Code::OutOfRange,
            key,
            format_args!("{value} is out of range, `{metric}` goes from 0 to 1"),
            format!("{value} % is written `{}`", percent / 100.0),
        );
        return None;
    }
    section.as_number(key, value, limits_of(metric))
}

fn is_share(metric: &str) -> bool {
    !metric.ends_with("/loss")
}

fn limits_of(metric: &str) -> Limits {
    if is_share(metric) {
        Limits::closed(0.0, 1.0)
    } else {
        Limits::closed(0.0, VAST)
    }
}
