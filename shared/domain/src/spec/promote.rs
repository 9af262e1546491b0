//! The section `promote`: where the best checkpoint goes, and on what conditions.

use serde_json::Value;
use std::collections::BTreeMap;

use super::section::{Faults, Limits, Section, VAST, choices, shorten};
use super::{
    CLASS_METRICS, COMPARED_METRICS, FORGETTING, GATE_METRICS, Gate, Promote, is_time,
    natural_direction,
};
use crate::gate::Role;
use crate::metric::Direction;
use crate::{Code, name};

/// The most gates.
const MAX_GATES: usize = 32;
/// The word for the version that the alias points to.
const CHAMPION: &str = "champion";
/// The confidence of a comparison that states none.
const CONFIDENCE: f64 = 0.95;
/// The most approvals that a gate may ask for in one role.
const MAX_APPROVALS: u64 = 20;
/// Keys that say which kind a gate is; a gate has one of them, or bounds.
const KINDS: &[&str] = &[
    "approvals",
    "better_than",
    "every_class_at_least",
    "forgetting",
    "no_worse_than",
];

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
                gates.extend(gate(Section::at(path, Some(item), faults), &alias));
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

fn gate(mut section: Section<'_>, alias: &str) -> Option<Gate> {
    if !section.is_written() {
        return None;
    }
    let written: Vec<&str> = (KINDS.iter().copied())
        .filter(|key| section.child(key).is_some())
        .collect();
    if let [first, second, ..] = written[..] {
        section.advise(
            Code::Contradiction,
            second,
            format_args!("a gate is one condition, this one has `{first}` already"),
            "make it a gate of its own",
        );
        return None;
    }
    let gate = match written.first().copied() {
        Some("approvals") => approvals(&mut section),
        Some(key @ ("better_than" | "no_worse_than")) => comparison(&mut section, key, alias),
        Some("every_class_at_least") => class_floor(&mut section),
        Some("forgetting") => budget(&mut section),
        Some(_) | None => threshold(&mut section),
    };
    section.finish(|_| None);
    Some(gate)
}

/// A metric out of a list.
fn metric(section: &mut Section<'_>, example: &str, known: &[&str], what: &str) -> String {
    let metric = section.text("metric", example).to_owned();
    if !metric.is_empty() && !known.contains(&metric.as_str()) {
        let near = super::paths::nearest(&metric, known.iter().copied());
        section.advise(
            Code::BadMetric,
            "metric",
            format_args!("`{}` {what}", shorten(&metric)),
            near.map_or_else(
                || format!("use {}", choices(known)),
                |near| format!("did you mean `{near}`?"),
            ),
        );
    }
    metric
}

fn threshold(section: &mut Section<'_>) -> Gate {
    let what = "is not measured at promotion";
    let of_classes = section.child("metric").and_then(Value::as_str);
    if let Some(metric) = of_classes.filter(|metric| CLASS_METRICS.contains(metric)) {
        section.advise(
            Code::BadMetric,
            "metric",
            format_args!("`{metric}` is measured for each class"),
            "write `every_class_at_least` for the bound",
        );
        for key in ["metric", "at_least", "at_most"] {
            section.raw(key);
        }
        return Gate::Threshold {
            metric: metric.to_owned(),
            at_least: None,
            at_most: None,
        };
    }
    let metric = metric(section, "metric: test/accuracy", GATE_METRICS, what);
    let written = section.child("at_least").is_some() || section.child("at_most").is_some();
    let at_least = bound(section, "at_least", &metric);
    let at_most = bound(section, "at_most", &metric);
    if !written {
        let (key, example) = match natural_direction(&metric) {
            _ if is_time(&metric) => ("at_most", "50"),
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
    Gate::Threshold {
        metric,
        at_least,
        at_most,
    }
}

/// A budget for forgetting: a bound on what was measured of it.
fn budget(section: &mut Section<'_>) -> Gate {
    let mut below = section.section("forgetting");
    let most = (below.required("at_most", "at_most: 0.1"))
        .and_then(|value| below.as_number("at_most", value, limits_of(FORGETTING)));
    below.finish(|_| None);
    Gate::Threshold {
        metric: FORGETTING.to_owned(),
        at_least: None,
        at_most: most,
    }
}

fn class_floor(section: &mut Section<'_>) -> Gate {
    let what = "is not measured for each class";
    let metric = metric(section, "metric: test/recall", CLASS_METRICS, what);
    let floor = bound(section, "every_class_at_least", &metric);
    Gate::ClassFloor {
        metric,
        every_class_at_least: floor.unwrap_or_default(),
    }
}

/// A comparison with the champion, on the same test samples.
fn comparison(section: &mut Section<'_>, key: &'static str, alias: &str) -> Gate {
    let whom = section.text(key, "better_than: champion");
    if !whom.is_empty() && whom != CHAMPION && whom != alias {
        section.advise(
            Code::OutOfRange,
            key,
            format_args!(
                "`{}` is not the champion, the version that `{}` points to",
                shorten(whom),
                shorten(alias)
            ),
            format!("write `{key}: {CHAMPION}`"),
        );
    }
    let whom = CHAMPION.to_owned();
    let what = "is not what versions are compared by";
    let metric = metric(section, "metric: test/accuracy", COMPARED_METRICS, what);
    let confidence = match section.optional("confidence") {
        None => CONFIDENCE,
        Some(value) => confidence(section, value),
    };
    if key == "better_than" {
        return Gate::BetterThan {
            better_than: whom,
            metric,
            confidence,
        };
    }
    let margin = (section.required("margin", "margin: 0.01"))
        .and_then(|value| {
            let most = if is_share(&metric) { 1.0 } else { VAST };
            percent(section, "margin", value, &metric)
                .then_some(())
                .and_then(|()| section.as_number("margin", value, Limits::above(0.0, most)))
        })
        .unwrap_or(1.0);
    Gate::NoWorseThan {
        no_worse_than: whom,
        metric,
        margin,
        confidence,
    }
}

fn confidence(section: &Section<'_>, value: &Value) -> f64 {
    if let Some(number) = value
        .as_f64()
        .filter(|number| (50.0..100.0).contains(number))
    {
        section.advise(
            Code::OutOfRange,
            "confidence",
            format_args!("{value} is out of range, a confidence goes from 0.5 to 1"),
            format!("{value} % is written `{}`", number / 100.0),
        );
        return CONFIDENCE;
    }
    let limits = Limits::below(0.5, 1.0);
    (section.as_number("confidence", value, limits)).unwrap_or(CONFIDENCE)
}

fn approvals(section: &mut Section<'_>) -> Gate {
    let mut wanted = BTreeMap::new();
    let mut below = section.section("approvals");
    for role in Role::ALL {
        let limits = 1..=MAX_APPROVALS;
        if let Some(value) = below.optional(role.name())
            && let Some(count) = below.as_whole(role.name(), value, limits)
        {
            wanted.insert(role, u32::try_from(count).unwrap_or(1));
        }
    }
    let is_empty = below.keys().next().is_none();
    let is_map = below.is_written();
    below.finish(|_| None);
    if is_map && is_empty {
        section.advise(
            Code::MissingKey,
            "approvals",
            "no role is named, so nobody has to approve",
            "write `approvals: {deployer: 1}`",
        );
    }
    Gate::Approvals { approvals: wanted }
}

/// Whether a number of a share is not written in percent; says so if it is.
fn percent(section: &Section<'_>, key: &str, value: &Value, metric: &str) -> bool {
    let percent = value
        .as_f64()
        .filter(|number| is_share(metric) && *number > 1.0 && *number <= 100.0);
    let Some(percent) = percent else {
        return true;
    };
    section.advise(
        Code::OutOfRange,
        key,
        format_args!("{value} is out of range, `{metric}` goes from 0 to 1"),
        format!("{value} % is written `{}`", percent / 100.0),
    );
    false
}

fn bound(section: &mut Section<'_>, key: &'static str, metric: &str) -> Option<f64> {
    let value = section.optional(key)?;
    if !percent(section, key, value, metric) {
        return None;
    }
    section.as_number(key, value, limits_of(metric))
}

fn is_share(metric: &str) -> bool {
    !metric.ends_with("/loss") && metric != FORGETTING && !is_time(metric)
}

fn limits_of(metric: &str) -> Limits {
    if is_share(metric) {
        Limits::closed(0.0, 1.0)
    } else {
        Limits::closed(0.0, VAST)
    }
}
