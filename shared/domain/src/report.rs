//! What workers report: observations, checkpoints, answers and exits, each counted once.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::checkpoint::CheckpointKind;
use crate::lease::Rendezvous;
use crate::task::TaskResult;
use crate::{Digest, Fault, Generation, LeaseId, TaskId, Timestamp, TrialId};

/// Something that was produced. It counts once, by `seq`, and only with its lease's current
/// generation (S3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Grows by one per worker, over restarts too (the spool is on disk).
    pub seq: u64,
    /// The lease.
    pub lease: LeaseId,
    /// Its generation.
    pub generation: Generation,
    /// When.
    pub at: Timestamp,
    /// What.
    pub body: ReportBody,
}

/// What was produced. Blobs are uploaded before they are reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum ReportBody {
    /// All ranks run.
    Started {
        /// Resolved choices of rank 0.
        environment: BTreeMap<String, String>,
    },
    /// Ranks of a lease on several workers meet here: said by the worker of rank 0, before its ranks
    /// start.
    Meets {
        /// Its c10d store, as the other workers reach it.
        at: Rendezvous,
    },
    /// Metrics of one evaluation.
    Observed {
        /// The trial.
        trial: TrialId,
        /// Optimiser steps done.
        step: u64,
        /// Passes done.
        epoch: u32,
        /// Metric → value.
        metrics: BTreeMap<String, f64>,
        /// Confusion matrix on the validation split.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        confusion: Vec<Vec<u64>>,
    },
    /// A checkpoint whose blob is in the store.
    Checkpoint {
        /// The trial.
        trial: TrialId,
        /// What it is kept for.
        checkpoint: CheckpointKind,
        /// Optimiser steps done.
        step: u64,
        /// Passes done.
        epoch: u32,
        /// The blob.
        digest: Digest,
        /// Bytes.
        size: u64,
    },
    /// A trial of a lease with several is done, while others go on.
    TrialEnded {
        /// The trial.
        trial: TrialId,
        /// `Finished`, or `Failed` through its own fault.
        outcome: Outcome,
    },
    /// A task's answer; its files are blobs by now.
    Result {
        /// The task.
        task: TaskId,
        /// The answer.
        result: Box<TaskResult>,
    },
    /// All ranks of the lease are gone. The last report of a lease.
    Exited {
        /// How.
        outcome: Outcome,
    },
}

/// How a lease ended on the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Finished,
    /// Stopped as asked, with a checkpoint.
    Stopped,
    /// Killed as asked.
    Killed,
    /// The trainer said so.
    Failed {
        /// Why.
        fault: Fault,
        /// Whether another attempt could end otherwise.
        retry: bool,
    },
    /// A rank ended without a word, stalled (`E0306`) or ran out of time (`E0305`).
    Crashed {
        /// Why.
        fault: Fault,
    },
    /// The worker cannot start it, through no fault of the trial (inputs missing, no trainer).
    NotStarted {
        /// Why.
        fault: Fault,
    },
}
