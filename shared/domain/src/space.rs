//! Spaces: which values a path of the experiment file may take.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

mod tree;

pub use tree::Tree;

/// A set of values for one path. In the file: `{values: […]}`, `{range: [a, b], count: n}` or
/// `{range: [a, b], step: s}`, `{log_uniform: [a, b], count: n}`, `{uniform: [a, b], count: n}`,
/// `{int: [a, b], step: s}`. A grid needs a countable set; random search draws from any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// These scalars.
    Values(Vec<Value>),
    /// Evenly spaced points from low to high, both included.
    Range {
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
        /// How many points (at least 2), resolved from `step` if that was given.
        count: u32,
    },
    /// A continuous interval, even on a linear scale; `count` points for a grid.
    Uniform {
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
        /// Grid points.
        count: Option<u32>,
    },
    /// A continuous interval, even on a logarithmic scale; `count` points for a grid.
    LogUniform {
        /// Lowest, above 0.
        low: f64,
        /// Highest.
        high: f64,
        /// Grid points.
        count: Option<u32>,
    },
    /// Whole numbers from low to high, both included.
    Int {
        /// Lowest.
        low: i64,
        /// Highest.
        high: i64,
        /// Distance of grid points.
        step: i64,
    },
}

/// Path of the experiment file → its set of values.
pub type Space = BTreeMap<String, Domain>;

/// When a path has a value at all: every other path named here must have one of the values beside
/// it. In the file: `when: {transfer.head.kind: mlp}` or `when: {train.epochs: [5, 10]}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct When(pub BTreeMap<String, Vec<Value>>);

/// Path → its condition; a path without one always has a value.
pub type Conditions = BTreeMap<String, When>;

impl When {
    /// The paths it depends on.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether it holds at a point; a path that has no value itself has none of these.
    pub fn holds(&self, point: &BTreeMap<String, Value>) -> bool {
        self.0.iter().all(|(path, wanted)| {
            let value = point.get(path);
            value.is_some_and(|value| wanted.iter().any(|wanted| same_scalar(wanted, value)))
        })
    }
}

/// Whether two scalars are the same, whatever form a number is written in.
pub(crate) fn same_scalar(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        (None | Some(_), _) => a == b,
    }
}

impl Domain {
    /// The points a grid takes, in order: `None` when the set is continuous and has no `count`.
    ///
    /// Points between the ends are rounded (linear to 12, logarithmic to 6 significant digits), so
    /// that a point reads well and is the same on every machine.
    pub fn points(&self) -> Option<Vec<Value>> {
        (0..self.size()?).map(|index| self.point(index)).collect()
    }

    /// The `index`-th of [`Self::points`].
    pub fn point(&self, index: u64) -> Option<Value> {
        if index >= self.size()? {
            return None;
        }
        match self {
            Self::Values(values) => values.get(usize::try_from(index).ok()?).cloned(),
            Self::Range { low, high, count } => Some(linear(*low, *high, *count, index)),
            Self::Uniform { low, high, count } => Some(linear(*low, *high, (*count)?, index)),
            Self::LogUniform { low, high, count } => {
                Some(logarithmic(*low, *high, (*count)?, index))
            }
            Self::Int { low, step, .. } => int(*low, *step, index),
        }
    }

    /// How many points a grid takes; `None` when the set is continuous and has no `count`.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Values(values) => Some(values.len() as u64),
            Self::Range { count, .. } => Some(u64::from(*count)),
            Self::Uniform { count, .. } | Self::LogUniform { count, .. } => count.map(u64::from),
            Self::Int { low, high, step } => {
                if high < low || *step < 1 {
                    return Some(0);
                }
                Some((high.abs_diff(*low) / step.unsigned_abs()).saturating_add(1))
            }
        }
    }

    /// The value at a place of the set, for a random draw: `unit` lies in [0, 1), and equal parts of
    /// it are equally likely values (equal on a logarithmic scale for `log_uniform`). `count` of a
    /// continuous set is for a grid; here the whole interval is drawn from.
    pub fn at(&self, unit: f64) -> Option<Value> {
        let unit = unit.clamp(0.0, 1.0 - f64::EPSILON);
        match self {
            Self::Values(values) => {
                let index = (unit * values.len() as f64) as usize;
                values.get(index).cloned()
            }
            Self::Range { low, high, count } => {
                let index = (unit * f64::from(*count)) as u64;
                Some(linear(*low, *high, *count, index))
            }
            Self::Uniform { low, high, .. } => {
                let drawn = round(low + unit * (high - low), 6);
                Some(Value::from(drawn.clamp(*low, *high)))
            }
            Self::LogUniform { low, high, .. } => {
                let drawn = round(low * (unit * (high / low).ln()).exp(), 6);
                Some(Value::from(drawn.clamp(*low, *high)))
            }
            Self::Int { low, step, .. } => int(*low, *step, (unit * self.size()? as f64) as u64),
        }
    }

    /// Whether a value belongs to the set (points of a random draw included).
    pub fn contains(&self, value: &Value) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9);
        match self {
            Self::Values(values) => values.contains(value),
            Self::Range { low, high, count } => value.as_f64().is_some_and(|number| {
                (0..*count)
                    .any(|index| near(linear_number(*low, *high, *count, index.into()), number))
            }),
            Self::Uniform { low, high, .. } | Self::LogUniform { low, high, .. } => value
                .as_f64()
                .is_some_and(|number| (*low..=*high).contains(&number)),
            Self::Int { low, high, step } => value.as_i64().is_some_and(|number| {
                (*low..=*high).contains(&number)
                    && number.abs_diff(*low).checked_rem(step.unsigned_abs()) == Some(0)
            }),
        }
    }

    /// The word of the file for this set.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Values(_) => "values",
            Self::Range { .. } => "range",
            Self::Uniform { .. } => "uniform",
            Self::LogUniform { .. } => "log_uniform",
            Self::Int { .. } => "int",
        }
    }
}

/// To so many significant digits.
fn round(number: f64, digits: usize) -> f64 {
    format!("{number:.*e}", digits - 1)
        .parse()
        .unwrap_or(number)
}

/// The `index`-th of `count` even numbers; the ends are exact.
fn linear_number(low: f64, high: f64, count: u32, index: u64) -> f64 {
    if index == 0 {
        return low;
    }
    if index + 1 >= u64::from(count) {
        return high;
    }
    let share = index as f64 / f64::from(count - 1);
    round(low + share * (high - low), 12).clamp(low, high)
}

fn linear(low: f64, high: f64, count: u32, index: u64) -> Value {
    Value::from(linear_number(low, high, count, index))
}

fn logarithmic(low: f64, high: f64, count: u32, index: u64) -> Value {
    if index == 0 {
        return Value::from(low);
    }
    if index + 1 >= u64::from(count) {
        return Value::from(high);
    }
    let share = index as f64 / f64::from(count - 1);
    let number = round(low * (share * (high / low).ln()).exp(), 6);
    Value::from(number.clamp(low, high))
}

fn int(low: i64, step: i64, index: u64) -> Option<Value> {
    let offset = step.checked_mul(i64::try_from(index).ok()?)?;
    Some(Value::from(low.checked_add(offset)?))
}
