//! The space against the rest of the file: paths that exist, values that fit there, and a number of
//! trials that is neither none nor too many.

use serde_json::Value;
use std::collections::BTreeMap;

use super::apply::put_point;
use super::reach::path_fault;
use super::search::MAX_TRIALS;
use super::section::{Faults, shorten};
use super::{ExperimentSpec, Strategy, paths, when};
use crate::space::{Conditions, Domain, Space, Tree};
use crate::{Code, Fault};

/// Checks the space against the rest of the file, and brings it into canonical form: a whole number
/// for a whole-number path, a fraction for the others, so that equal points have equal texts.
pub(super) fn check_space(spec: &mut ExperimentSpec, max_trials: Option<u32>, faults: &Faults) {
    let clean = faults.borrow().is_empty();
    let slots = spec.resources.slots_per_trial;
    let alone = spec.search.space.len() == 1;
    let mut space = Space::new();
    for (path, domain) in &spec.search.space {
        let conditions = when::faults(spec, path);
        if clean && !conditions.is_empty() {
            faults.borrow_mut().extend(conditions);
            continue;
        }
        let base = when::base(spec, path);
        if let Some(fault) = path_fault(&base, path) {
            faults.borrow_mut().push(fault);
        } else if clean {
            let check = Check {
                base: &base,
                slots,
                path,
                alone,
            };
            match check.domain(domain) {
                Ok(domain) => {
                    space.insert(path.clone(), domain);
                }
                Err(found) => faults.borrow_mut().extend(found),
            }
        }
    }
    if faults.borrow().is_empty() {
        spec.search.space = space;
        faults.borrow_mut().extend(when::circle(spec));
    }
    let is_clean = faults.borrow().is_empty();
    if is_clean && let Err(fault) = settle_trials(spec, max_trials) {
        faults.borrow_mut().push(fault);
    }
}

/// One path of the space under check.
struct Check<'a> {
    base: &'a Value,
    slots: u32,
    path: &'a str,
    /// Whether it is the only path: then a contradiction cannot be cured by another one.
    alone: bool,
}

impl Check<'_> {
    fn domain(&self, domain: &Domain) -> Result<Domain, Vec<Fault>> {
        let canonical = match domain {
            Domain::Values(values) => return self.values(values),
            Domain::Range { low, high, count } if self.wants_whole() => {
                self.whole_range(*low, *high, *count)?
            }
            Domain::Int { low, high, step } if self.wants_fraction() => {
                // The last point lies where the steps lead, which may be below `high`.
                let steps = high.abs_diff(*low) / step.unsigned_abs();
                let last = *low as f64 + steps as f64 * *step as f64;
                if steps >= u64::from(MAX_TRIALS) {
                    return Err(vec![
                        Fault::new(
                            Code::BadSpace,
                            format!(
                                "search.space.{}: has {} whole numbers, more than {MAX_TRIALS}",
                                self.path,
                                steps + 1
                            ),
                        )
                        .hint(format!("draw from `{{uniform: [{low}, {high}]}}`")),
                    ]);
                }
                if steps == 0 {
                    Domain::Values(vec![Value::from(*low as f64)])
                } else {
                    Domain::Range {
                        low: *low as f64,
                        high: last,
                        count: u32::try_from(steps + 1).unwrap_or(u32::MAX),
                    }
                }
            }
            Domain::Uniform { .. } | Domain::LogUniform { .. } if self.wants_whole() => {
                return Err(vec![
                    Fault::new(
                        Code::BadSpace,
                        format!(
                            "search.space.{}: takes whole numbers, `{}` draws others too",
                            self.path,
                            domain.kind()
                        ),
                    )
                    .hint("use `{int: [a, b]}` or `{values: […]}`"),
                ]);
            }
            Domain::Range { .. }
            | Domain::Int { .. }
            | Domain::Uniform { .. }
            | Domain::LogUniform { .. } => domain.clone(),
        };
        let ends = match &canonical {
            Domain::Int { low, high, .. } => [Value::from(*low), Value::from(*high)],
            Domain::Range { low, high, .. }
            | Domain::Uniform { low, high, .. }
            | Domain::LogUniform { low, high, .. } => [Value::from(*low), Value::from(*high)],
            Domain::Values(_) => return Ok(canonical),
        };
        let faults: Vec<Fault> = ends
            .into_iter()
            .filter_map(|end| self.candidate(end).err())
            .flatten()
            .collect();
        if faults.is_empty() {
            Ok(canonical)
        } else {
            Err(faults)
        }
    }

    fn values(&self, values: &[Value]) -> Result<Domain, Vec<Fault>> {
        let mut canonical: Vec<Value> = Vec::with_capacity(values.len());
        let mut faults = Vec::new();
        for value in values {
            match self.candidate(value.clone()) {
                Ok(value) if canonical.contains(&value) => faults.push(
                    Fault::new(
                        Code::BadSpace,
                        format!(
                            "search.space.{}: {} stands there twice",
                            self.path,
                            show(&value)
                        ),
                    )
                    .hint("to train a point several times use `search.replicates`"),
                ),
                Ok(value) => canonical.push(value),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() {
            Ok(Domain::Values(canonical))
        } else {
            Err(faults)
        }
    }

    /// The value in the form the file's type gives it, or why it does not fit.
    fn candidate(&self, value: Value) -> Result<Value, Vec<Fault>> {
        let value = match value.as_i64() {
            Some(whole) if self.wants_fraction() => Value::from(whole as f64),
            Some(_) | None => value,
        };
        let point = BTreeMap::from([(self.path.to_owned(), value.clone())]);
        let Err(faults) = put_point(self.base, self.slots, &point) else {
            return Ok(value);
        };
        let faults: Vec<Fault> = faults
            .into_iter()
            .filter(|fault| self.alone || fault.code != Code::Contradiction)
            .map(|fault| {
                let own = format!("{}: ", self.path);
                let detail = fault.message.strip_prefix(&own).unwrap_or(&fault.message);
                Fault {
                    message: format!(
                        "search.space.{}: {} does not fit: {detail}",
                        self.path,
                        show(&value)
                    ),
                    ..fault
                }
            })
            .collect();
        if faults.is_empty() {
            Ok(value)
        } else {
            Err(faults)
        }
    }

    fn wants_whole(&self) -> bool {
        self.path == "transfer.frozen_depth"
            || matches!(paths::get(self.base, self.path), Some(Value::Number(number)) if !number.is_f64())
    }

    fn wants_fraction(&self) -> bool {
        matches!(paths::get(self.base, self.path), Some(Value::Number(number)) if number.is_f64())
    }

    fn whole_range(&self, low: f64, high: f64, count: u32) -> Result<Domain, Vec<Fault>> {
        let step = (high - low) / f64::from(count.saturating_sub(1).max(1));
        let whole = |number: f64| (number.fract() == 0.0).then_some(number as i64);
        match (whole(low), whole(high), whole(step)) {
            (Some(low), Some(high), Some(step)) => Ok(Domain::Int { low, high, step }),
            _ => Err(vec![
                Fault::new(
                    Code::BadSpace,
                    format!(
                        "search.space.{}: takes whole numbers, but {count} even points from {low} \
                         to {high} are {step} apart",
                        self.path
                    ),
                )
                .hint("change `count` or the ends, or give the `values` themselves"),
            ]),
        }
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{}`", shorten(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            format!("`{value}`")
        }
    }
}

/// Checks the number of trials and fills in `max_trials`.
fn settle_trials(spec: &mut ExperimentSpec, written: Option<u32>) -> Result<(), Fault> {
    let search = &mut spec.search;
    let size = || grid_size(&search.space, &search.when, search.replicates);
    if search.strategy == Strategy::Grid {
        let total = size()?;
        if let Some(limit) = written
            && limit < total
        {
            return Err(Fault::new(
                Code::Contradiction,
                format!(
                    "search.max_trials: the grid has {total} trials, {limit} would leave some out"
                ),
            )
            .hint(format!(
                "write `max_trials: {total}`, leave the key out, make the space smaller, or draw \
                 points with `strategy: random`"
            )));
        }
        search.max_trials = written.unwrap_or(total);
        return Ok(());
    }
    let name = search.strategy.name();
    if search.space.is_empty() {
        return Err(Fault::new(
            Code::BadSpace,
            format!("search.space: {name} search needs at least one path to draw"),
        )
        .hint("add a path to `space`, or leave `strategy` out for a single trial"));
    }
    let whole = match search.strategy {
        // Random search may draw a point twice.
        Strategy::Random | Strategy::Grid => None,
        Strategy::Asha | Strategy::Hyperband | Strategy::Tpe => size().ok(),
    };
    let is_halving = search.halving().is_some();
    search.max_trials = match (written, whole) {
        (Some(limit), Some(total)) => limit.min(total),
        (Some(limit), None) => limit,
        (None, Some(total)) if is_halving => total,
        (None, _) => {
            return Err(Fault::new(
                Code::MissingKey,
                format!("search.max_trials: missing key, {name} search has no end of its own"),
            )
            .hint("write `max_trials: 20`"));
        }
    };
    if is_halving && search.folds().is_some() {
        let text = "search.validation: a cross-validation measures a trial once, at its end, so \
                    there is nothing to compare at a rung";
        let hint = "write `validation: holdout`, or choose points with `strategy: tpe`";
        return Err(Fault::new(Code::Contradiction, text).hint(hint));
    }
    Ok(())
}

/// Trials of a grid.
pub fn grid_size(space: &Space, when: &Conditions, replicates: u32) -> Result<u32, Fault> {
    for (path, domain) in space {
        match domain.size() {
            None => return Err(uncounted(path, domain)),
            Some(0) => {
                return Err(Fault::new(
                    Code::BadSpace,
                    format!("search.space.{path}: has no value, so the grid has no point"),
                ));
            }
            Some(_) => {}
        }
    }
    let points = Tree::new(space, when).size().unwrap_or(u64::MAX);
    let total = points.saturating_mul(u64::from(replicates));
    u32::try_from(total)
        .ok()
        .filter(|total| *total <= MAX_TRIALS)
        .ok_or_else(|| {
            Fault::new(
                Code::BadSpace,
                format!("search.space: the grid has {total} trials, the limit is {MAX_TRIALS}"),
            )
            .hint("use fewer values, or draw points with `strategy: random` and `max_trials`")
        })
}

fn uncounted(path: &str, domain: &Domain) -> Fault {
    let (low, high) = match domain {
        Domain::Uniform { low, high, .. }
        | Domain::LogUniform { low, high, .. }
        | Domain::Range { low, high, .. } => (*low, *high),
        Domain::Int { low, high, .. } => (*low as f64, *high as f64),
        Domain::Values(_) => (0.0, 0.0),
    };
    let kind = domain.kind();
    Fault::new(
        Code::BadSpace,
        format!("search.space.{path}: a grid needs a `count` for `{kind}`"),
    )
    .hint(format!(
        "write `{{{kind}: [{low}, {high}], count: 5}}`, or draw points with `strategy: random`"
    ))
}
