//! Trials and their states. Data lives in the variant that owns it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{Code, ExperimentId, Fault, Hparams, LeaseId, Timestamp, TrialId};

/// Where a trial is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TrialState {
    /// Wants a lease.
    Waiting {
        /// Since when.
        since: Timestamp,
        /// Not before this moment (back-off after a crash).
        not_before: Timestamp,
    },
    /// Trains. S7: it has a live lease.
    Running {
        /// The lease.
        lease: LeaseId,
    },
    /// Asked to end; still on its slots.
    Stopping {
        /// The lease.
        lease: LeaseId,
        /// What it becomes.
        then: AfterStop,
    },
    /// Continues from its last checkpoint when resumed.
    Paused,
    /// Trained to the end, or stopped by the user with what it had.
    Completed,
    /// Failed for good.
    Failed {
        /// Why.
        fault: Fault,
    },
    /// Taken back.
    Canceled,
}

/// What a stopping trial becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterStop {
    /// Waits to be resumed.
    Paused,
    /// Is taken back.
    Canceled,
    /// Counts as completed with what it had (`pomona trial stop`).
    Completed,
    /// Waits for another lease (preempted, drained).
    Waiting,
}

/// The best point of a trial's curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestPoint {
    /// Its step.
    pub step: u64,
    /// Its epoch.
    pub epoch: u32,
    /// The objective.
    pub value: f64,
    /// `val/loss` there: breaks ties, less is better.
    pub tie: f64,
    /// All metrics there.
    pub metrics: BTreeMap<String, f64>,
}

/// One point of the space, trained once, perhaps over several leases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its id: `TrialId::derive(experiment, number)`.
    pub id: TrialId,
    /// Row version for compare-and-swap; 1 at insertion.
    pub version: u64,
    /// Its experiment.
    pub experiment: ExperimentId,
    /// Its number in the experiment, from 1.
    pub number: u32,
    /// Its point.
    pub hparams: Hparams,
    /// Its replicate, from 0.
    pub replicate: u32,
    /// Where it is.
    #[serde(flatten)]
    pub state: TrialState,
    /// Crashes that counted against `max_restarts`.
    pub restarts: u32,
    /// Leases it has had.
    pub leases: u32,
    /// Most members a lease with this trial may have, since one that it shared ended by a fault
    /// that nobody owned; `None`: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_limit: Option<u32>,
    /// Newest step whose observation counted (S4).
    pub last_step: u64,
    /// Newest epoch.
    pub last_epoch: u32,
    /// Newest value of each metric.
    pub latest: BTreeMap<String, f64>,
    /// The best point of its curve.
    pub best: Option<BestPoint>,
    /// Choices resolved when it first started (threads, precision, ISA, libtorch, world size): a
    /// resume must match them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Whether a user wants its checkpoints to stay whatever becomes of its experiment.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pinned: bool,
    /// Whether its experiment has ended and does not keep its checkpoints: only a pin or a
    /// publication holds them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub expendable: bool,
    /// Why its checkpoints were deleted, if they were: a part of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it first ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Milliseconds on slots in leases that ended.
    pub active_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference over"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Trial {
    /// Why nothing can be made of its checkpoints any more, if they were deleted: `E0624`.
    pub fn deletion(&self) -> Option<Fault> {
        let why = self.deleted.as_ref()?;
        let text = format!("the checkpoints of trial `{}` were deleted: {why}", self.id);
        let hint = "`pomona trial pin` keeps those of another trial; submitting the file again \
                    trains this one again";
        Some(Fault::new(Code::CheckpointDeleted, text).hint(hint))
    }

    /// Whether it stays as it is for ever (S6).
    pub fn is_ended(&self) -> bool {
        match self.state {
            TrialState::Waiting { .. }
            | TrialState::Running { .. }
            | TrialState::Stopping { .. }
            | TrialState::Paused => false,
            TrialState::Completed | TrialState::Failed { .. } | TrialState::Canceled => true,
        }
    }

    /// The lease it is on.
    pub fn lease(&self) -> Option<LeaseId> {
        match self.state {
            TrialState::Running { lease } | TrialState::Stopping { lease, .. } => Some(lease),
            TrialState::Waiting { .. }
            | TrialState::Paused
            | TrialState::Completed
            | TrialState::Failed { .. }
            | TrialState::Canceled => None,
        }
    }
}
