//! What a decision changes. A `Change` is a fact: the store writes it, memory applies it.

use serde::{Deserialize, Serialize};

use crate::backbone::Backbone;
use crate::checkpoint::{Checkpoint, CheckpointKind};
use crate::dataset::Dataset;
use crate::experiment::Experiment;
use crate::gate::GateFact;
use crate::lease::Lease;
use crate::metric::Observation;
use crate::model::{AliasMove, Audit, Removal, Version, VersionWords};
use crate::task::Task;
use crate::trial::Trial;
use crate::worker::Worker;
use crate::{ExperimentId, TaskId, Timestamp, TrialId, WorkerId};

/// Whom an explanation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An experiment.
    Experiment(ExperimentId),
    /// A trial.
    Trial(TrialId),
    /// A task.
    Task(TaskId),
    /// A worker.
    Worker(WorkerId),
}

/// Why something happened: a sentence, stored, shown by `pomona explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// About whom.
    pub subject: Subject,
    /// When.
    pub at: Timestamp,
    /// The sentence.
    pub text: String,
}

/// One fact. Rows carry `version`: 1 inserts, `n` replaces exactly version `n - 1` (else conflict).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new or changed experiment.
    Experiment(Box<Experiment>),
    /// A new or changed trial.
    Trial(Box<Trial>),
    /// A new or changed lease.
    Lease(Box<Lease>),
    /// A new or changed worker.
    Worker(Box<Worker>),
    /// A new or changed task.
    Task(Box<Task>),
    /// A trial's new observation (S4 was checked).
    Observed(Observation),
    /// A trial's new checkpoint; it replaces the one of the same kind and takes over its blob
    /// reference.
    Checkpoint(Checkpoint),
    /// A checkpoint goes, and with it its blob reference. One that is not there is no conflict.
    CheckpointDeleted(TrialId, CheckpointKind),
    /// A new data-set version.
    Dataset(Box<Dataset>),
    /// A new backbone.
    Backbone(Box<Backbone>),
    /// A new model version.
    Version(Box<Version>),
    /// What its client says of a version that is new in the same batch.
    Described(Box<VersionWords>),
    /// An alias is set or moves from revision `revision - 1`: alias row, history row and outbox row
    /// in one transaction (R5).
    AliasMoved(AliasMove),
    /// A version or a model goes, or a model has another name.
    Removed(Removal),
    /// What the audit keeps.
    Audited(Audit),
    /// What gates leave behind. Append-only.
    Gates(GateFact),
    /// An explanation.
    Reason(Reason),
}
