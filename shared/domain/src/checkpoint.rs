//! Checkpoints: weights, optimiser, step, generator positions and freeze plan, enough to resume.

use serde::{Deserialize, Serialize};

use crate::{Digest, Generation, Timestamp, TrialId};

/// What a checkpoint is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointKind {
    /// The newest: a resume starts here.
    Last,
    /// The best so far on the search metric (ties by validation loss): promotion starts here.
    Best,
}

/// A checkpoint at rest. A trial has at most one of each kind; a newer one replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The trial.
    pub trial: TrialId,
    /// What it is kept for.
    pub kind: CheckpointKind,
    /// The generation of the lease that wrote it.
    pub generation: Generation,
    /// Optimiser steps done.
    pub step: u64,
    /// Passes over the data done.
    pub epoch: u32,
    /// The blob.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When it was reported.
    pub at: Timestamp,
}
