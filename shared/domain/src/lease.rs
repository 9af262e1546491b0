//! Leases: slots given to trials or to a task, fenced by a generation.

use serde::{Deserialize, Serialize};

use crate::{LeaseId, TaskId, Timestamp, TrialId, WorkerId};

/// The fencing number: it only grows over the life of a cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// One device of one worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotRef {
    /// The worker.
    pub worker: WorkerId,
    /// The slot's index on it.
    pub index: u32,
}

/// What a lease is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// One trial or several that share a cut.
    Trials(Vec<TrialId>),
    /// One task.
    Task(TaskId),
}

/// How a lease is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// Write a checkpoint, then exit.
    Checkpoint,
    /// Exit now; what was trained since the last checkpoint is not wanted.
    Kill,
}

/// Why a lease is asked to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody wants its work to pause or to end, or a neighbour in its process.
    #[default]
    Request,
    /// Work of higher priority waits for its slots.
    Priority,
    /// Its worker drains.
    Drain,
}

/// How a lease ended, as far as it says something about its worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// It says nothing about the worker: stopped, lost, ended by its own fault.
    #[default]
    Neutral,
    /// Its work was done.
    Finished,
    /// The worker could not start it.
    NotStarted,
    /// Its process broke.
    Crashed,
}

/// Whether a lease still holds its slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// It holds its slots.
    Live,
    /// Asked to end, still holding its slots until the worker says it has.
    Stopping {
        /// How.
        how: StopKind,
        /// Since when (after a grace the lease is revoked).
        since: Timestamp,
        /// Why.
        #[serde(default)]
        why: StopReason,
    },
    /// Over.
    Ended {
        /// When.
        at: Timestamp,
        /// Why, a sentence.
        reason: String,
        /// What that says about the worker.
        #[serde(default)]
        kind: EndKind,
    },
}

/// Slots given to work. S5: it holds exactly `world_size` slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Row version for compare-and-swap; 1 at insertion.
    pub version: u64,
    /// The fencing number.
    pub generation: Generation,
    /// What it is for.
    pub work: Work,
    /// The slots, one per rank, rank 0 first.
    pub slots: Vec<SlotRef>,
    /// Whether it is live.
    pub state: LeaseState,
    /// When it was granted.
    pub granted_at: Timestamp,
}

impl Lease {
    /// Ranks of the lease.
    pub fn world_size(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Whether it holds its slots.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, LeaseState::Ended { .. })
    }
}
