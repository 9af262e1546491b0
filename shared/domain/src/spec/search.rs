//! The section `search`: strategy, objective, limits, and the sets of the space.

use serde_json::{Map, Value};

use super::section::{Faults, Limits, Section, VAST, describe, shorten};
use super::{FORGETTING, KFold, METRICS, Search, Validation, strategy, when};
use crate::metric::{Direction, is_metric};
use crate::space::{Conditions, Domain, Space};
use crate::{Code, Fault};

/// The most points a set may have, trials an experiment may have, and seeds a point may have.
pub const MAX_TRIALS: u32 = 10_000;

const KINDS: [&str; 5] = ["values", "range", "uniform", "log_uniform", "int"];

/// What the file says, `max_trials` still open.
pub(super) struct Written {
    pub(super) search: Search,
    pub(super) max_trials: Option<u32>,
}

/// Reads `search`.
pub(super) fn search(mut section: Section<'_>, is_command: bool, faults: &Faults) -> Written {
    let strategy = strategy::strategy(&mut section);
    if is_command {
        strategy::check_command(&section, strategy);
    }
    let metric = if is_command {
        own_metric(&mut section)
    } else {
        metric(&mut section)
    };
    let natural = natural_direction(&metric);
    let direction = match section.word("direction", &["maximize", "minimize"], &[]) {
        Some("maximize") => Direction::Maximize,
        Some(_) => Direction::Minimize,
        None => natural,
    };
    let is_foreign = !metric.is_empty() && !METRICS.contains(&metric.as_str());
    if is_command && is_foreign && section.child("direction").is_none() {
        section.advise(
            Code::MissingKey,
            "direction",
            format_args!("missing key, nobody but you knows which way `{metric}` is better"),
            "write `direction: maximize` or `direction: minimize`",
        );
    }
    if !is_command && direction != natural && METRICS.contains(&metric.as_str()) {
        let (word, better) = match natural {
            Direction::Maximize => ("maximize", "higher"),
            Direction::Minimize => ("minimize", "lower"),
        };
        section.advise(
            Code::Contradiction,
            "direction",
            format_args!("`{metric}` is better when it is {better}"),
            format!("write `direction: {word}`, or leave the key out"),
        );
    }
    let max_trials = section
        .optional("max_trials")
        .and_then(|value| section.as_whole("max_trials", value, 1..=u64::from(MAX_TRIALS)))
        .and_then(|count| u32::try_from(count).ok());
    let max_concurrent = section.count("max_concurrent", 8, 1..=MAX_TRIALS);
    let replicates = section.count("replicates", 1, 1..=1_000);
    let validation = validation(&mut section, faults);
    let settings = strategy::settings(&mut section, strategy, faults);
    let (space, when) = space(&section.section("space"), faults);
    section.finish(|_| None);
    Written {
        search: Search {
            strategy,
            metric,
            direction,
            max_trials: max_trials.unwrap_or(1),
            max_concurrent,
            replicates,
            validation,
            space,
            when,
            asha: settings.asha,
            hyperband: settings.hyperband,
            tpe: settings.tpe,
            warm_start: settings.warm_start,
        },
        max_trials,
    }
}

/// The direction that is better for a metric of ours.
pub fn natural_direction(metric: &str) -> Direction {
    if metric.ends_with("/loss") || metric.ends_with("/ece") || metric == FORGETTING {
        Direction::Minimize
    } else {
        Direction::Maximize
    }
}

fn metric(section: &mut Section<'_>) -> String {
    const KEY: &str = "metric";
    const DEFAULT: &str = "val/accuracy";
    let allowed: Vec<&'static str> = METRICS
        .iter()
        .copied()
        .filter(|name| name.starts_with("val/"))
        .collect();
    let Some(value) = section.optional(KEY) else {
        return DEFAULT.to_owned();
    };
    let Value::String(text) = value else {
        section.wrong(KEY, "a metric such as `val/accuracy`", value);
        return DEFAULT.to_owned();
    };
    let text = text.as_str();
    if allowed.contains(&text) {
        return text.to_owned();
    }
    let shown = shorten(text);
    let list = super::section::choices(&allowed);
    if text.starts_with("test/") {
        let twin = text.replacen("test/", "val/", 1);
        let hint = if allowed.contains(&twin.as_str()) {
            format!("search on `{twin}`, and put `{text}` into a gate of `promote`")
        } else {
            format!("search on {list}")
        };
        section.advise(
            Code::BadMetric,
            KEY,
            format_args!("`{shown}` may not choose: the test split is never seen by a search"),
            hint,
        );
    } else if let Some(quantity) = text.strip_prefix("cv/") {
        section.advise(
            Code::BadMetric,
            KEY,
            format_args!("`{shown}` is not chosen by its name"),
            format!(
                "write `metric: val/{quantity}`: `search.validation` says whether it is estimated \
                 by cross-validation"
            ),
        );
    } else if text.starts_with("train/") {
        section.advise(
            Code::BadMetric,
            KEY,
            format_args!("`{shown}` is measured on images the trial has learned from"),
            format!("search on {list}"),
        );
    } else {
        let near = super::paths::nearest(text, allowed.iter().copied());
        let hint = near.map_or_else(
            || format!("search on {list}"),
            |near| format!("did you mean `{near}`?"),
        );
        section.advise(
            Code::BadMetric,
            KEY,
            format_args!("`{shown}` is not a metric that trials report"),
            hint,
        );
    }
    DEFAULT.to_owned()
}

/// What a program of one's own reports, whatever it is called.
fn own_metric(section: &mut Section<'_>) -> String {
    const KEY: &str = "metric";
    let text = section.text(KEY, "metric: val/accuracy").to_owned();
    if text.starts_with("test/") {
        section.advise(
            Code::BadMetric,
            KEY,
            format_args!(
                "`{}` may not choose: the test split is never seen by a search",
                shorten(&text)
            ),
            "report the same on a validation split, and search on that",
        );
    } else if !text.is_empty() && !is_metric(&text) {
        section.advise(
            Code::BadMetric,
            KEY,
            format_args!("`{}` is not a name of a metric", shorten(&text)),
            "1 to 100 ASCII letters, digits, `_`, `-`, `.` and `/`",
        );
    }
    text
}

/// `holdout`, or `{kfold: 5, repeats: 3}`.
fn validation(section: &mut Section<'_>, faults: &Faults) -> Option<Validation> {
    const KEY: &str = "validation";
    let value = section.optional(KEY)?;
    if value.as_str() == Some("holdout") {
        return Some(Validation::Holdout);
    }
    if !value.is_object() {
        section.advise(
            Code::WrongType,
            KEY,
            format_args!("expected folds or `holdout`, found {}", describe(value)),
            "write `validation: {kfold: 5, repeats: 3}` to compare trials by cross-validation, \
             `validation: holdout` to compare them on the validation split",
        );
        return None;
    }
    let mut inner = Section::at(section.path_of(KEY), Some(value), faults);
    let folds = KFold {
        kfold: inner.count("kfold", KFold::DEFAULT.kfold, 2..=20),
        repeats: inner.count("repeats", KFold::DEFAULT.repeats, 1..=100),
    };
    inner.finish(|_| None);
    Some(Validation::KFold(folds))
}

fn space(section: &Section<'_>, faults: &Faults) -> (Space, Conditions) {
    let keys: Vec<String> = section.keys().cloned().collect();
    let mut space = Space::new();
    let mut conditions = Conditions::new();
    for key in keys {
        let path = section.path_of(&key);
        match section.child(&key) {
            Some(Value::Object(map)) => {
                let mut inner = Section::at(path.clone(), section.child(&key), faults);
                let when = when::read(&mut inner);
                conditions.extend(when.map(|when| (key.clone(), when)));
                if let Some(domain) = domain(&path, map, inner) {
                    space.insert(key, domain);
                }
            }
            Some(Value::Array(_)) => section.advise(
                Code::WrongType,
                &key,
                "expected a mapping, found a list",
                "to try each item write `{values: […]}`",
            ),
            Some(other) => section.advise(
                Code::WrongType,
                &key,
                format_args!("expected a mapping, found {}", describe(other)),
                "a set is written as `{values: […]}`, `{range: [a, b], count: n}`, \
                 `{log_uniform: [a, b], count: n}`, `{uniform: [a, b], count: n}` or \
                 `{int: [a, b]}`",
            ),
            None => {}
        }
    }
    (space, conditions)
}

/// One set. The faults are about its path as a whole or about one of its keys.
fn domain(path: &str, map: &Map<String, Value>, mut section: Section<'_>) -> Option<Domain> {
    let written: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| map.contains_key(*kind))
        .collect();
    let kind = match written.as_slice() {
        [one] => *one,
        [] => {
            let near = map
                .keys()
                .find_map(|key| super::paths::nearest(key, KINDS).map(|near| (key, near)));
            let hint = match near {
                Some((key, near)) => format!("`{}`: did you mean `{near}`?", shorten(key)),
                None => format!("write one of {}", super::section::choices(&KINDS)),
            };
            section.fault(
                Fault::new(
                    Code::MissingKey,
                    format!("{path}: does not say which values to try"),
                )
                .hint(hint),
            );
            return None;
        }
        several => {
            section.fault(
                Fault::new(
                    Code::Contradiction,
                    format!(
                        "{path}: has {} at once",
                        super::section::choices(several).replace(" or ", " and ")
                    ),
                )
                .hint("a path has one set of values: keep one of them"),
            );
            return None;
        }
    };
    let domain = match kind {
        "values" => values(&mut section),
        "range" => range(&mut section),
        "int" => int(&mut section),
        _ => continuous(&mut section, kind == "log_uniform"),
    };
    section.finish(|key| match key {
        "count" | "step" => Some(Fault::new(
            Code::Contradiction,
            format!("{path}.{key}: does not go with `{kind}`"),
        )),
        _ => None,
    });
    domain
}

fn values(section: &mut Section<'_>) -> Option<Domain> {
    const KEY: &str = "values";
    let value = section.optional(KEY)?;
    let Value::Array(items) = value else {
        section.wrong(KEY, "a list", value);
        return None;
    };
    if items.is_empty() {
        section.complain(
            Code::BadSpace,
            KEY,
            "the list is empty, so there is no point to try",
        );
        return None;
    }
    if items.len() > MAX_TRIALS as usize {
        section.complain(
            Code::BadSpace,
            KEY,
            format_args!("{} values are more than {MAX_TRIALS}", items.len()),
        );
        return None;
    }
    let mut fine = true;
    for (index, item) in items.iter().enumerate() {
        if item.is_null() || item.is_array() || item.is_object() {
            let key = format!("{KEY}.{index}");
            section.wrong(&key, "a number, a text or true or false", item);
            fine = false;
        }
    }
    fine.then(|| Domain::Values(items.clone()))
}

/// `[low, high]`, low below high.
fn ends(section: &mut Section<'_>, key: &'static str, limits: Limits) -> Option<(f64, f64)> {
    let value = section.optional(key)?;
    let Some([low, high]) = value.as_array().map(Vec::as_slice) else {
        section.wrong(key, "the two ends `[lowest, highest]`", value);
        return None;
    };
    let low = section.as_number(&format!("{key}.0"), low, limits);
    let high = section.as_number(&format!("{key}.1"), high, limits);
    let (low, high) = (low?, high?);
    if low < high {
        return Some((low, high));
    }
    let (message, hint) = if low > high {
        (
            "the ends are the wrong way round",
            format!("`[{high}, {low}]`"),
        )
    } else {
        ("both ends are the same", format!("`{{values: [{low}]}}`"))
    };
    section.advise(Code::BadSpace, key, message, format!("write {hint}"));
    None
}

const ANY: Limits = Limits::closed(-VAST, VAST);

fn count(section: &mut Section<'_>) -> Option<u32> {
    let value = section.optional("count")?;
    let count = section.as_whole("count", value, 2..=u64::from(MAX_TRIALS))?;
    u32::try_from(count).ok()
}

fn range(section: &mut Section<'_>) -> Option<Domain> {
    let written = ends(section, "range", ANY);
    let has_count = section.child("count").is_some();
    let has_step = section.child("step").is_some();
    if has_count == has_step {
        let (code, message) = if has_count {
            (Code::Contradiction, "has both `count` and `step`")
        } else {
            (Code::MissingKey, "needs a `count` or a `step`")
        };
        section.raw("count");
        section.raw("step");
        section.advise(
            code,
            "range",
            message,
            "write `{range: [0, 1], count: 5}` or `{range: [0, 1], step: 0.25}`",
        );
        return None;
    }
    if has_count {
        let count = count(section)?;
        let (low, high) = written?;
        return Some(Domain::Range { low, high, count });
    }
    let step = section
        .optional("step")
        .and_then(|value| section.as_number("step", value, Limits::above(0.0, VAST)))?;
    let (low, high) = written?;
    let steps = (high - low) / step;
    let whole = (steps + 1e-9).floor();
    if whole + 1.0 > f64::from(MAX_TRIALS) {
        section.complain(
            Code::BadSpace,
            "step",
            format_args!("a step of {step} makes more than {MAX_TRIALS} points"),
        );
        return None;
    }
    if (steps - whole).abs() > 1e-6 || whole < 1.0 {
        let message = format!("a step of {step} does not lead from {low} to {high}");
        if whole < 1.0 {
            section.complain(Code::BadSpace, "step", message);
        } else {
            let last = low + whole * step;
            let hint = format!("end the range at {}, or use `count`", tidy(last));
            section.advise(Code::BadSpace, "step", message, hint);
        }
        return None;
    }
    let count = whole as u32 + 1;
    Some(Domain::Range { low, high, count })
}

/// A number without the dust of binary fractions.
fn tidy(number: f64) -> f64 {
    format!("{number:.9e}").parse().unwrap_or(number)
}

fn continuous(section: &mut Section<'_>, logarithmic: bool) -> Option<Domain> {
    let (key, limits) = if logarithmic {
        ("log_uniform", Limits::above(0.0, VAST))
    } else {
        ("uniform", ANY)
    };
    let written = ends(section, key, limits);
    let count = count(section);
    let (low, high) = written?;
    Some(if logarithmic {
        Domain::LogUniform { low, high, count }
    } else {
        Domain::Uniform { low, high, count }
    })
}

fn int(section: &mut Section<'_>) -> Option<Domain> {
    const KEY: &str = "int";
    let value = section.optional(KEY);
    let whole = value.and_then(|value| match value.as_array().map(Vec::as_slice) {
        Some([low, high]) => Some((low.as_i64()?, high.as_i64()?)),
        Some(_) | None => None,
    });
    let Some((low, high)) = whole else {
        if let Some(value) = value {
            let hint = "write `{int: [1, 5]}`, or `uniform` for numbers that are not whole";
            let message = format!("expected two whole numbers, found {}", describe(value));
            section.advise(Code::WrongType, KEY, message, hint);
        }
        section.raw("count");
        section.raw("step");
        return None;
    };
    let ordered = ends(section, KEY, ANY).is_some();
    let step = section
        .optional("step")
        .map(|value| section.as_whole("step", value, 1..=1_000_000_000));
    let count = count(section);
    if !ordered {
        return None;
    }
    let span = high.abs_diff(low);
    let step = match (step, count) {
        (Some(_), Some(_)) => {
            section.complain(Code::Contradiction, "step", "`count` is there too");
            return None;
        }
        (Some(step), None) => step?,
        (None, None) => 1,
        (None, Some(count)) if span.is_multiple_of(u64::from(count) - 1) => {
            span / (u64::from(count) - 1)
        }
        (None, Some(count)) => {
            section.advise(
                Code::BadSpace,
                "count",
                format_args!("{count} even points from {low} to {high} are not whole numbers"),
                "give a `step`, or the `values` themselves",
            );
            return None;
        }
    };
    Some(Domain::Int {
        low,
        high,
        step: i64::try_from(step).ok()?,
    })
}
