//! Everything the scheduler remembers, as rows: what `load(store)` gives and what memory must equal
//! (S10).

use serde::{Deserialize, Serialize};

use crate::backbone::Backbone;
use crate::checkpoint::Checkpoint;
use crate::dataset::Dataset;
use crate::experiment::Experiment;
use crate::lease::Lease;
use crate::model::{Alias, Version};
use crate::task::Task;
use crate::trial::Trial;
use crate::worker::Worker;
use crate::{Digest, Generation};

/// Rows of all that has not ended, sorted by id, and what new rows must not collide with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Experiments that have not ended.
    pub experiments: Vec<Experiment>,
    /// All trials of those experiments.
    pub trials: Vec<Trial>,
    /// Leases that have not ended.
    pub leases: Vec<Lease>,
    /// All workers.
    pub workers: Vec<Worker>,
    /// Tasks that have not ended.
    pub tasks: Vec<Task>,
    /// Checkpoints of those trials.
    pub checkpoints: Vec<Checkpoint>,
    /// Newest version of each data set.
    pub datasets: Vec<Dataset>,
    /// All backbones.
    pub backbones: Vec<Backbone>,
    /// Newest version of each model.
    pub versions: Vec<Version>,
    /// Checkpoints that versions were made of, sorted: they are reachable for ever (R1).
    #[serde(default)]
    pub published: Vec<Digest>,
    /// Versions that were deleted, by model and number.
    #[serde(default)]
    pub deleted_versions: Vec<(String, u32)>,
    /// All aliases, also deleted ones.
    pub aliases: Vec<Alias>,
    /// The highest generation ever given.
    pub generation: Generation,
}
