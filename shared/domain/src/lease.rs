//! Leases: slots given to trials or to a task, fenced by a generation.

use serde::{Deserialize, Serialize};

use crate::report::Outcome;
use crate::{Code, LeaseId, TaskId, Timestamp, TrialId, WorkerId};

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

/// Where the ranks of a lease meet: the address of its c10d store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendezvous {
    /// MASTER_ADDR.
    pub host: String,
    /// MASTER_PORT.
    pub port: u16,
}

/// How one worker's part of a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartEnd {
    /// The worker says so.
    Exited(Outcome),
    /// The worker is gone, began anew or did not answer in time: why, a sentence.
    Lost(String),
}

/// A part of a lease on several workers that is over, while its slots wait for the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whose part.
    pub worker: WorkerId,
    /// When that was known.
    pub at: Timestamp,
    /// How it ended.
    pub end: PartEnd,
}

impl Part {
    /// How much it says about what broke a lease; the least is the culprit. What has a reason of
    /// its own comes before what ended without one, and that before what blames its peers: a rank
    /// that loses a peer says so long before anybody knows that the peer's machine is gone.
    fn weight(&self) -> u32 {
        match &self.end {
            PartEnd::Exited(Outcome::Failed { fault, .. }) if fault.code == Code::RankLost => 2,
            PartEnd::Exited(Outcome::Failed { .. }) => 0,
            PartEnd::Exited(Outcome::Crashed { .. } | Outcome::NotStarted { .. })
            | PartEnd::Lost(_) => 1,
            PartEnd::Exited(Outcome::Stopped) => 3,
            PartEnd::Exited(Outcome::Killed) => 4,
            PartEnd::Exited(Outcome::Finished) => 5,
        }
    }

    fn is_finished(&self) -> bool {
        self.end == PartEnd::Exited(Outcome::Finished)
    }

    fn is_gone(&self) -> bool {
        matches!(
            self.end,
            PartEnd::Lost(_) | PartEnd::Exited(Outcome::Killed)
        )
    }

    fn is_good(&self) -> bool {
        self.is_finished() || self.end == PartEnd::Exited(Outcome::Stopped)
    }
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
    /// The slots, one per rank, rank 0 first; those of one worker follow each other.
    pub slots: Vec<SlotRef>,
    /// Where its ranks meet, once the worker of rank 0 has said so; only over several workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meets_at: Option<Rendezvous>,
    /// Parts of it that are over, oldest first; only over several workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
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

    /// Its workers, in the order of its ranks.
    pub fn workers(&self) -> Vec<WorkerId> {
        let mut workers: Vec<WorkerId> = self.slots.iter().map(|slot| slot.worker).collect();
        workers.dedup();
        workers
    }

    /// Whether it lies on several workers.
    pub fn is_wide(&self) -> bool {
        let first = self.slots.first();
        self.slots
            .iter()
            .any(|slot| first.is_some_and(|first| first.worker != slot.worker))
    }

    /// Whether rank 0 is on this worker: what it says about trials counts, what others say does not.
    pub fn is_led_by(&self, worker: WorkerId) -> bool {
        self.slots.first().is_some_and(|slot| slot.worker == worker)
    }

    /// Whether a worker holds slots of it on which something may still run.
    pub fn is_open_on(&self, worker: WorkerId) -> bool {
        self.slots.iter().any(|slot| slot.worker == worker)
            && self.parts.iter().all(|part| part.worker != worker)
    }

    /// How the parts that are left are asked to end because of those that are over, and since when.
    /// A part other than rank 0's that finished asks for nothing: rank 0 may have more to do.
    pub fn breaks(&self) -> Option<(StopKind, Timestamp)> {
        let asks = |part: &&Part| !part.is_finished() || self.is_led_by(part.worker);
        let since = self.parts.iter().find(asks)?.at;
        let broken = self.parts.iter().find(|part| !part.is_good());
        Some(broken.map_or((StopKind::Checkpoint, since), |part| {
            (StopKind::Kill, part.at)
        }))
    }

    /// How a worker's part of it is asked to end, if it is.
    pub fn stop(&self) -> Option<StopKind> {
        let asked = match &self.state {
            LeaseState::Stopping { how, .. } => Some(*how),
            LeaseState::Live | LeaseState::Ended { .. } => None,
        };
        match (asked, self.breaks()) {
            (Some(StopKind::Kill), _) | (_, Some((StopKind::Kill, _))) => Some(StopKind::Kill),
            (Some(how), _) | (None, Some((how, _))) => Some(how),
            (None, None) => None,
        }
    }

    /// The part that says how the whole ended: that of rank 0 if all ended well, else the one that
    /// broke it. `None` of a lease on one worker.
    pub fn culprit(&self) -> Option<&Part> {
        let lead = self.parts.iter().find(|part| self.is_led_by(part.worker));
        let is_done = lead.is_some_and(Part::is_finished);
        // Nothing is missing of a part that vanished after rank 0 had done all there was to do.
        let is_well = |part: &Part| part.is_good() || (is_done && part.is_gone());
        if self.parts.iter().all(is_well) {
            return lead;
        }
        // The first of equals: what came later may be its doing.
        self.parts.iter().min_by_key(|part| part.weight())
    }
}

#[cfg(test)]
mod tests;
