//! Experiments and their states.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Plan, Spent};
use crate::spec::ExperimentSpec;
use crate::{Digest, ExperimentId, Fault, TaskId, Timestamp, TrialId};

/// Where an experiment is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ExperimentState {
    /// Its trials run or wait.
    Active,
    /// Running trials write a checkpoint and give their slots back; none starts.
    Paused,
    /// All trials have ended; the best checkpoint is being published.
    Promoting {
        /// The publish task.
        task: TaskId,
    },
    /// Over.
    Completed,
    /// Over: no trial completed, or the promotion broke.
    Failed {
        /// Why.
        fault: Fault,
    },
    /// Taken back.
    Canceled,
}

/// One spec, one searcher, one objective; owns trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Its id.
    pub id: ExperimentId,
    /// Row version for compare-and-swap; 1 at insertion.
    pub version: u64,
    /// The checked file.
    pub spec: ExperimentSpec,
    /// The file as the user wrote it, `--set` applied.
    pub source: String,
    /// Data set resolved at submission: manifest digest. A program of one's own has none.
    pub dataset: Option<Digest>,
    /// Backbone resolved at submission: weights digest. A program of one's own has none.
    pub backbone: Option<Digest>,
    /// Where it is.
    #[serde(flatten)]
    pub state: ExperimentState,
    /// The searcher's snapshot, generator position included.
    pub searcher: Value,
    /// Trials made so far.
    pub created_trials: u32,
    /// The best completed trial so far: by metric, ties by validation loss, then by number.
    pub best: Option<TrialId>,
    /// What it was expected to cost and why so; nothing in rows from before there was a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<Plan>>,
    /// What its trials have cost, in leases that ended.
    #[serde(default, skip_serializing_if = "Spent::is_nothing")]
    pub spent: Spent,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl Experiment {
    /// Whether it will not change any more.
    pub fn is_ended(&self) -> bool {
        match self.state {
            ExperimentState::Active
            | ExperimentState::Paused
            | ExperimentState::Promoting { .. } => false,
            ExperimentState::Completed
            | ExperimentState::Failed { .. }
            | ExperimentState::Canceled => true,
        }
    }
}
