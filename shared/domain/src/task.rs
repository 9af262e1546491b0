//! Tasks: leased work that is not a trial. Same slots, leases, generations, limits, explanations.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::backbone::Block;
use crate::dataset::{DatasetSummary, ImportOptions};
use crate::gate::TestOutcomes;
use crate::model::ModelFile;
use crate::{Digest, Fault, LeaseId, TaskId, Timestamp, TrialId};

/// What a task does. It runs in a trainer: whatever needs pixels or tensors does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskSpec {
    /// Reads an archive of images, checks every file, splits, and writes a manifest.
    ImportDataset {
        /// Name of the data set.
        name: String,
        /// Blob: an uncompressed tar of the folder.
        archive: Digest,
        /// Sizes, split and grouping.
        options: ImportOptions,
    },
    /// Reads a weights file, checks it against the architecture, and writes safetensors.
    ImportBackbone {
        /// Name of the backbone.
        name: String,
        /// Architecture (`efficientnet-lite0`, `resnet18`, …).
        arch: String,
        /// Blob: the file as the user has it.
        weights: Digest,
    },
    /// Exports a trial's best checkpoint as a published folder and evaluates that on the test split.
    Publish {
        /// Registry name.
        model: String,
        /// The trial.
        trial: TrialId,
        /// The alias to move when the gates pass.
        alias: Option<String>,
    },
    /// Predicts pictures with a published version.
    Predict {
        /// Registry name.
        model: String,
        /// Version number.
        version: u32,
        /// Blob: an uncompressed tar of the pictures.
        pictures: Digest,
        /// Classes to answer for each picture.
        top: u32,
    },
}

/// Where a task is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TaskState {
    /// Wants a slot.
    Waiting,
    /// Runs.
    Running {
        /// Its lease.
        lease: LeaseId,
    },
    /// Done; the coordinator has acted on the result.
    Completed {
        /// What the trainer answered.
        result: Box<TaskResult>,
    },
    /// Failed for good.
    Failed {
        /// Why.
        fault: Fault,
    },
    /// Taken back.
    Canceled,
}

/// Leased work that is not a trial. It takes one slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Row version for compare-and-swap; 1 at insertion.
    pub version: u64,
    /// What it does.
    pub spec: TaskSpec,
    /// Where it is.
    #[serde(flatten)]
    pub state: TaskState,
    /// Crashes that counted.
    pub attempts: u32,
    /// Higher runs first; tasks default to 60, above a trial's 50.
    pub priority: i32,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl Task {
    /// Whether it will not run again.
    pub fn is_ended(&self) -> bool {
        match self.state {
            TaskState::Waiting | TaskState::Running { .. } => false,
            TaskState::Completed { .. } | TaskState::Failed { .. } | TaskState::Canceled => true,
        }
    }
}

/// What a task's trainer answers. Paths are below the `output` of the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskResult {
    /// A data set was imported.
    Dataset {
        /// The manifest file; the worker uploads it as a blob.
        manifest: String,
        /// Its digest.
        digest: Digest,
        /// Counts.
        summary: DatasetSummary,
    },
    /// A backbone was imported.
    Backbone {
        /// The safetensors file; the worker uploads it as a blob.
        weights: String,
        /// Its digest.
        digest: Digest,
        /// Side of the image that blocks were measured at.
        image_size: u32,
        /// Blocks.
        blocks: Vec<Block>,
        /// Tensors in the file.
        tensors: u32,
        /// Parameters of the source head.
        head_parameters: u64,
    },
    /// A model was exported and evaluated.
    Published {
        /// The folder's files; the worker uploads each as a blob.
        files: Vec<ModelFile>,
        /// `test/…` metrics of the exported files, with `test/accuracy_low` and `_high` (Wilson 95 %).
        metrics: BTreeMap<String, f64>,
        /// Confusion matrix on the test split.
        confusion: Vec<Vec<u64>>,
        /// Paths (in the archive) of the test samples, in order, with true and predicted class.
        predictions: Vec<TestPrediction>,
        /// The same for comparisons with other versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcomes: Option<Box<TestOutcomes>>,
    },
    /// Pictures were predicted.
    Predicted {
        /// One a picture, in the archive's order.
        pictures: Vec<Prediction>,
    },
}

/// The exported model's word on one test sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestPrediction {
    /// Path in the archive.
    pub path: String,
    /// True class.
    pub label: u32,
    /// Predicted class.
    pub predicted: u32,
    /// Probability of the predicted class.
    pub probability: f64,
}

/// One picture's prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Its path in the tar.
    pub path: String,
    /// Best classes first; empty when `fault` is there.
    pub classes: Vec<ClassProbability>,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// A class and its probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassProbability {
    /// The class.
    pub label: String,
    /// 0 to 1.
    pub probability: f64,
}
