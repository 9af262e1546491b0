//! What an experiment is expected to cost and how, and what it has really cost.
//!
//! Facts only: `pomona_search::planner` makes a plan, the scheduler counts what was spent.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::lease::{Lease, Work};
use crate::words::{count, plural};

/// Frozen depths whose choice is told in sentences; all of them stand in the plan.
const MAX_CUTS_TOLD: usize = 8;

/// Images of a data set, as its version has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// Of the training split.
    pub train: u64,
    /// Of the validation split.
    pub val: u64,
    /// Side of the square image.
    pub side: u32,
}

/// How the trials of a cut get what is above their frozen blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Side by side in one process, over features that are computed once.
    Fused,
    /// Each in processes of its own, over features that are computed once.
    Features,
    /// From pixels: the frozen blocks run in every epoch.
    Pixels,
}

impl Choice {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Features => "features",
            Self::Pixels => "pixels",
        }
    }
}

/// What the slots of an experiment are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parallel {
    /// One slot for a trial: slots train different trials.
    Trials,
    /// Several slots for a trial: they train on different parts of each batch.
    Data,
}

impl Parallel {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trials => "trial-parallel",
            Self::Data => "data-parallel",
        }
    }
}

/// A frozen depth of the grid: what is chosen for its trials, and what that is expected to cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutPlan {
    /// As the file says it.
    pub frozen_depth: String,
    /// Blocks that get no gradient.
    pub frozen_blocks: u32,
    /// Trials at this depth.
    pub trials: u32,
    /// Parameters of the blocks that train (the head comes on top).
    pub trained_parameters: u64,
    /// Views of a training image, of all its trials together.
    pub views: u32,
    /// Bytes of features (f32, training images in all views and validation images) that are kept;
    /// 0 when the choice is to keep none.
    pub feature_bytes: u64,
    /// What is chosen.
    pub choice: Choice,
    /// Why, a sentence.
    pub reason: String,
    /// Multiply-adds of its trials (forward, and twice that for what trains).
    pub multiply_adds: u64,
    /// The same with the frozen blocks run in every epoch.
    pub multiply_adds_unshared: u64,
    /// Images that pass through its frozen blocks.
    pub frozen_images: u64,
    /// The same with the frozen blocks run in every epoch.
    pub frozen_images_unshared: u64,
}

/// What an experiment is expected to cost, and what was chosen for whom. Costs are those of one
/// worker with an empty feature store: each further one that takes part computes features again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Training images seen over all trials.
    pub samples: u64,
    /// Multiply-adds of all trials.
    pub multiply_adds: u64,
    /// The same with the frozen blocks run in every epoch.
    pub multiply_adds_unshared: u64,
    /// Images that pass through frozen blocks.
    pub frozen_images: u64,
    /// The same with the frozen blocks run in every epoch.
    pub frozen_images_unshared: u64,
    /// Bytes of features that a worker may keep, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_budget_bytes: Option<u64>,
    /// What slots are for. The file says so and the plan never changes it.
    pub parallel: Parallel,
    /// Why, a sentence.
    pub parallel_reason: String,
    /// What the file could say instead, and what cannot be known; sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// Each frozen depth in the space, shallow ones first.
    pub cuts: Vec<CutPlan>,
    /// What an epoch costs at each frozen depth as the file writes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depths: Vec<DepthCost>,
}

/// What is paid in every epoch of a trial at a frozen depth: rungs are counted in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthCost {
    /// As the file says it.
    pub frozen_depth: String,
    /// Blocks that get no gradient.
    pub frozen_blocks: u32,
    /// Multiply-adds.
    pub epoch: u64,
}

impl Plan {
    /// `1.20 T multiply-adds instead of 8.00 T (6.7 times less)`.
    pub fn cost(&self) -> String {
        let (planned, naive) = (self.multiply_adds, self.multiply_adds_unshared);
        let work = format!("{} multiply-adds", count(planned));
        // Below a tenth more nobody would notice.
        let ratio = naive as f64 / planned.max(1) as f64;
        if ratio < 1.1 {
            return work;
        }
        format!("{work} instead of {} ({ratio:.1} times less)", count(naive))
    }

    /// The choices with their reasons, for whoever asks later.
    pub fn sentences(&self) -> Vec<String> {
        let mut told = vec![format!("predicted to cost {}", self.cost())];
        told.extend(self.cuts.iter().take(MAX_CUTS_TOLD).map(|cut| {
            let (depth, choice) = (&cut.frozen_depth, cut.choice.name());
            let trials = plural(u64::from(cut.trials), "trial");
            let reason = &cut.reason;
            format!("`{choice}` for {trials} at frozen depth `{depth}`: {reason}")
        }));
        let hidden = self.cuts.len().saturating_sub(MAX_CUTS_TOLD);
        if hidden > 0 {
            let more = plural(hidden as u64, "more frozen depth");
            told.push(format!("and {more}: `pomona experiment show` has them"));
        }
        let (parallel, reason) = (self.parallel.name(), &self.parallel_reason);
        told.push(format!("{parallel}: {reason}"));
        told.extend(self.advice.iter().cloned());
        told
    }
}

/// What leases have cost. A lease that several trials shared counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Milliseconds of slots: a lease of two slots costs two in each.
    pub slot_ms: u64,
    /// Leases.
    pub leases: u32,
    /// Those among them that were granted to several trials.
    pub shared_leases: u32,
}

impl Spent {
    /// Whether there was no lease.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            slot_ms: self.slot_ms.saturating_add(other.slot_ms),
            leases: self.leases.saturating_add(other.leases),
            shared_leases: self.shared_leases.saturating_add(other.shared_leases),
        }
    }

    /// Adds what a lease has cost up to a moment.
    pub fn add(&mut self, lease: &Lease, until: Timestamp) {
        let held = u64::try_from(until.since_ms(lease.granted_at)).unwrap_or(0);
        let slots = u64::from(lease.world_size());
        let is_shared = matches!(&lease.work, Work::Trials(members) if members.len() > 1);
        self.slot_ms = self.slot_ms.saturating_add(held.saturating_mul(slots));
        self.leases = self.leases.saturating_add(1);
        self.shared_leases += u32::from(is_shared);
    }

    /// `23.4 slot-seconds in 4 leases, 2 of them shared`.
    pub fn sentence(&self) -> String {
        if self.leases == 0 {
            return "no lease".to_owned();
        }
        let seconds = self.slot_ms as f64 / 1000.0;
        let time = if seconds < 36_000.0 {
            format!("{seconds:.1} slot-seconds")
        } else {
            format!("{:.1} slot-hours", seconds / 3600.0)
        };
        let leases = plural(u64::from(self.leases), "lease");
        let shared = match (self.shared_leases, self.leases) {
            (0, _) => String::new(),
            (1, 1) => ", a shared one".to_owned(),
            (shared, _) => format!(", {shared} of them shared"),
        };
        format!("{time} in {leases}{shared}")
    }
}

#[cfg(test)]
mod tests;
