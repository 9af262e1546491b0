//! Metrics: names, the direction that is better, and observations.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{Generation, Timestamp, TrialId};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Larger is better.
    Maximize,
    /// Smaller is better.
    Minimize,
}

impl Direction {
    /// Whether `a` is strictly better than `b`. NaN is never better than anything.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Maximize => a > b || (b.is_nan() && !a.is_nan()),
            Self::Minimize => a < b || (b.is_nan() && !a.is_nan()),
        }
    }
}

/// The longest name of a metric.
const MAX_NAME: usize = 100;

/// Whether a metric may be called so: 1 to 100 ASCII letters, digits, `_`, `-`, `.` and `/`.
pub fn is_metric(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}

/// What a trial measured at one step (several metrics of one evaluation travel together).
///
/// Names are `train/…`, `val/…` or `test/…`. Values that are not finite are kept out by the
/// trainer's own check and end the trial with `E0601`; JSON has no NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The trial.
    pub trial: TrialId,
    /// The generation of the lease that measured it.
    pub generation: Generation,
    /// Optimiser steps done.
    pub step: u64,
    /// Passes over the data done.
    pub epoch: u32,
    /// When the trainer said so.
    pub at: Timestamp,
    /// Metric → value.
    pub metrics: BTreeMap<String, f64>,
    /// Confusion matrix on the validation split, rows are true classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
}
