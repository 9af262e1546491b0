//! Curves of metrics, as charts ask for them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most runs of one request.
pub const MAX_CURVES: usize = 100;
/// Points of a curve when the request does not say.
pub const DEFAULT_CURVE_POINTS: usize = 500;
/// The most points of a curve.
pub const MAX_CURVE_POINTS: usize = 10_000;

/// Query of `GET /api/v1/curves`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CurvesQuery {
    /// Trials or runs, by id, with commas between them; at most [`MAX_CURVES`].
    pub runs: String,
    /// The metric, e.g. `val/accuracy`.
    pub metric: String,
    /// Points of a curve at most, [`DEFAULT_CURVE_POINTS`] by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<usize>,
}

/// A metric of one run by step: all points when they are so few, else those that show its shape
/// (`MinMaxLTTB`). Each is a point that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Curve {
    /// The trial or run.
    pub run: String,
    /// How many points it has.
    pub count: u64,
    /// Steps, ascending.
    pub steps: Vec<i64>,
    /// The value at each step; `null` where it was not a number.
    pub values: Vec<Option<f64>>,
}
