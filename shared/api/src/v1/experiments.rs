//! Bodies for experiments, trials and their logs.

use pomona_domain::experiment::Experiment;
use pomona_domain::metric::is_metric;
use pomona_domain::plan::{Plan, Spent};
use pomona_domain::spec::Validation;
use pomona_domain::{Code, Fault, Generation, Hparams, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Body of `POST /api/v1/experiments` and of `…/preview`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitExperiment {
    /// The experiment file, YAML text.
    pub file: String,
    /// Overrides, each `path=value` with a YAML value.
    #[serde(default)]
    pub set: Vec<String>,
}

/// Answer of `POST /api/v1/experiments` and of `GET …/{id}`: the experiment, and what stands in its
/// way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExperimentView {
    /// The row.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub experiment: Experiment,
    /// What the leases that its trials are on have cost up to now; with `spent`, which counts those
    /// that ended, that is all so far. Absent when there is none.
    #[serde(default, skip_serializing_if = "Spent::is_nothing")]
    #[schema(value_type = Object)]
    pub running: Spent,
    /// Why it will not get on as things are (`E0301`: no worker could ever run it). Absent when
    /// there is nothing to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub warnings: Vec<Fault>,
}

impl std::ops::Deref for ExperimentView {
    type Target = Experiment;

    fn deref(&self) -> &Experiment {
        &self.experiment
    }
}

/// Answer of `POST /api/v1/experiments/preview`: what a file would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExperimentPreview {
    /// Name of the experiment.
    pub name: String,
    /// Backbone.
    pub backbone: String,
    /// Data set, `NAME@V`.
    pub dataset: String,
    /// Trials it makes.
    pub trials: u32,
    /// Trials that may run at once.
    pub max_concurrent: u32,
    /// Slots of each.
    pub slots_per_trial: u32,
    /// Epochs over all trials.
    pub epochs: u64,
    /// How its trials are compared: the file's `search.validation`, or what it means here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub validation: Option<Validation>,
    /// The first trials, at most [`MAX_PREVIEW_POINTS`].
    pub points: Vec<PreviewPoint>,
    /// What is chosen for each frozen depth in the space, why, and what all of it is expected to cost
    /// on an empty store: `samples`, `multiply_adds`, `multiply_adds_unshared`, `cuts` and more.
    /// Absent for a program of one's own: what that costs nobody can know.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub plan: Option<Plan>,
    /// Why it would not get on as things are. Absent when there is nothing to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub warnings: Vec<Fault>,
}

/// Most points of a preview.
pub const MAX_PREVIEW_POINTS: usize = 1000;

/// One trial that would be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewPoint {
    /// Its point.
    #[schema(value_type = Object)]
    pub hparams: Hparams,
    /// Its replicate, from 0.
    pub replicate: u32,
}

/// Body of `POST /api/v1/trials/{id}/observations`: what a program of one's own measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddObservation {
    /// The generation of the lease that it runs on, as `POMONA_GENERATION` says; another one is
    /// answered `E0623`.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// Steps done. Steps grow; a repeat is answered as the first one was and counts for nothing.
    pub step: u64,
    /// Passes over the data done, where the program has such a thing.
    #[serde(default)]
    pub epoch: u32,
    /// Metric → finite value, 1 to [`MAX_METRICS`] of them.
    pub metrics: BTreeMap<String, f64>,
}

/// Most metrics of one observation of a program.
pub const MAX_METRICS: usize = 100;

impl AddObservation {
    /// Why it cannot be an observation: none or too many metrics, names that are none.
    pub fn check(&self) -> Result<(), Fault> {
        let count = self.metrics.len();
        if !(1..=MAX_METRICS).contains(&count) {
            let text = format!("an observation has 1 to {MAX_METRICS} metrics, not {count}");
            return Err(Fault::new(Code::BadRequest, text));
        }
        let odd = self
            .metrics
            .iter()
            .find(|(name, value)| !is_metric(name) || !value.is_finite());
        match odd {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(100).collect();
                let text = format!("`{shown}` is not a name of a metric, or has no finite value");
                Err(Fault::new(Code::BadRequest, text)
                    .hint("1 to 100 ASCII letters, digits, `_`, `-`, `.` and `/`"))
            }
        }
    }
}

/// How trials are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialOrder {
    /// By number.
    #[default]
    Number,
    /// The best first: by the objective, ties by `val/loss`, then by number; trials without a
    /// measurement last.
    Leaderboard,
}

/// Query of `GET /api/v1/experiments/{id}/trials`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrialsQuery {
    /// The order.
    #[serde(default)]
    pub order_by: TrialOrder,
    /// Items on a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// Query of `GET /api/v1/trials/{id}/logs` and of `/api/v1/tasks/{id}/logs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// Lines after this sequence number.
    #[serde(default)]
    pub after: u64,
    /// At most this many, itself at most [`super::MAX_PAGE_SIZE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A line of a rank's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Grows; hand the last one back as `after`.
    pub seq: u64,
    /// Rank.
    pub rank: u32,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// The line.
    pub line: String,
}
