//! Tracking at rest: experiments, runs and their files as MLflow's clients log them.
//!
//! Any coordinator writes here, leader or not: nothing is decided, so nothing is fenced. A run's row
//! is the lock of all that belongs to it: whoever writes to a run updates that row first, so a run
//! that was deleted takes nothing more, and two writers of one parameter come one after the other.
//!
//! # The life of a point
//! ```text
//! log-batch ──one row a batch──▶ run_log ──settle──▶ run_chunks (one metric each) and run_latest
//! ```
//! What is acknowledged is in `run_log`. Reading a history merges both; what needs the newest values
//! settles first. An exact repeat of a point is stored and never shown.
//!
//! # Trials
//! A trial is a run. Its row, parameters and newest values here are a projection of the trial's own
//! row, made when somebody looks ([`crate::Store::runs_of`]), so that training pays nothing for it.

mod artifacts;
mod experiments;
mod ingest;
mod inputs;
mod logged_models;
pub mod pack;
mod runs;
mod search;
pub(crate) mod settle;
mod thin;
mod trials;

pub use artifacts::{ArtifactEntry, ArtifactWriter};
pub use experiments::{ExperimentRefusal, NewRunExperiment, RunExperiment};
pub use ingest::{RunRefusal, RunWrite};
pub use inputs::{ModelRole, RunDataset};
pub use logged_models::{LoggedModel, LoggedModelSearch, ModelMetric};
pub use pack::{Outline, Point, Series};
pub use runs::{Latest, NewRun, Run, RunChange, RunData};
pub use search::{ExperimentSearch, RunSearch, View};
pub(crate) use search::{compare, direction, pair};

/// How many items a list of keys in one statement may have.
const KEYS_PER_STATEMENT: usize = 500;
/// The tag that is a run's name.
pub const RUN_NAME: &str = "mlflow.runName";
