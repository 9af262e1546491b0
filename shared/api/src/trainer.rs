//! Lines between a worker and a trainer process (one JSON object a line).
//!
//! Down: the first line on stdin is a [`Command`]; further lines are [`Signal`]s; end of file
//! means that the worker is gone: exit at once. Up: stdout carries [`Event`]s, stderr is the log.
//! Only rank 0 speaks `observed`, `checkpoint`, `trial_ended` and `result`; every rank says `started`, and
//! `progress` as its sign of life. Exit status: 0 after `finished`, 3 after `stopped`, 4 after
//! `failed`; anything else is a crash.
//!
//! A trainer knows files, never a coordinator.

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::ImportOptions;
pub use pomona_domain::lease::Rendezvous;
use pomona_domain::model::Lineage;
use pomona_domain::report::Outcome;
use pomona_domain::spec::TrialSpec;
use pomona_domain::task::TaskResult;
use pomona_domain::worker::SlotKind;
use pomona_domain::{Digest, Fault, Generation, LeaseId, TaskId, TrialId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything a rank needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// The lease.
    pub lease: LeaseId,
    /// Its generation: names the rendezvous prefix `gen{n}`.
    pub generation: Generation,
    /// This rank, from 0.
    pub rank: u32,
    /// Ranks of the lease.
    pub world_size: u32,
    /// This rank's number on its machine.
    pub local_rank: u32,
    /// The device kind of its slot.
    pub device: SlotKind,
    /// Index of the slot on its machine (the CUDA device for `cuda`).
    pub slot: u32,
    /// Threads this rank may use.
    pub threads: u32,
    /// Where the lease's c10d store listens (`pomona-trainer store`), when `world_size > 1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendezvous: Option<Rendezvous>,
    /// What to do.
    pub work: TrainerWork,
}

/// What to do. All paths are absolute; inputs are read-only files named by their digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TrainerWork {
    /// Train a trial, or several that share the features of one backbone.
    Train(Box<TrainWork>),
    /// Import a data set.
    ImportDataset {
        /// The task.
        task: TaskId,
        /// The tar.
        archive: PathBuf,
        /// Its digest.
        archive_digest: Digest,
        /// How.
        options: ImportOptions,
        /// Folder for `manifest.json`.
        output: PathBuf,
    },
    /// Import a backbone.
    ImportBackbone {
        /// The task.
        task: TaskId,
        /// Architecture.
        arch: String,
        /// The file as the user has it.
        weights: PathBuf,
        /// Folder for `backbone.safetensors`.
        output: PathBuf,
    },
    /// Export a checkpoint as a published folder and evaluate it.
    Publish(Box<PublishWork>),
    /// Predict pictures with a published folder.
    Predict {
        /// The task.
        task: TaskId,
        /// The published folder.
        model: PathBuf,
        /// Tar of pictures.
        pictures: PathBuf,
        /// Classes to answer.
        top: u32,
    },
}

/// Train the trials of a lease over one data set and one backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainWork {
    /// The trials; more than one only where all blocks are frozen for each of them, in one rank.
    pub members: Vec<Member>,
    /// Their data.
    pub data: DataFiles,
    /// Their backbone.
    pub backbone: BackboneFiles,
    /// Where features of frozen blocks are kept; without it they are computed in every epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureStore>,
}

/// A trial of a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The trial.
    pub trial: TrialId,
    /// What it trains.
    pub spec: TrialSpec,
    /// Folder for its checkpoints; may be empty.
    pub output: PathBuf,
    /// Checkpoint to continue from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<PathBuf>,
}

/// The features of a machine, which all its trainers share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureStore {
    /// The folder.
    pub folder: PathBuf,
    /// What it may hold.
    pub max_bytes: u64,
}

/// How asking for features came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureResult {
    /// All of them were there.
    Hit,
    /// Some or all of them were computed.
    Built,
    /// They do not fit: the frozen blocks run in every epoch.
    NoRoom,
}

/// A shard that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingShard {
    /// Its name.
    pub shard: Digest,
    /// Bytes of its rows.
    pub bytes: u64,
}

/// A data set on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFiles {
    /// `pomona_domain::dataset::Manifest` as JSON.
    pub manifest: PathBuf,
    /// The tar.
    pub archive: PathBuf,
}

/// A backbone on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackboneFiles {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Canonical safetensors.
    pub weights: PathBuf,
    /// Their digest.
    pub digest: Digest,
}

/// Export and evaluate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishWork {
    /// The task.
    pub task: TaskId,
    /// What the trial trained.
    pub spec: TrialSpec,
    /// Its data.
    pub data: DataFiles,
    /// Its backbone.
    pub backbone: BackboneFiles,
    /// The best checkpoint.
    pub checkpoint: PathBuf,
    /// Goes into `lineage.json` and the model card.
    pub lineage: Lineage,
    /// Name of the model, for the card.
    pub model: String,
    /// Validation metrics at the checkpoint, for the card.
    pub validation: BTreeMap<String, f64>,
    /// Folder for the published files; created, must be empty.
    pub output: PathBuf,
}

/// A line after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "signal", rename_all = "snake_case")]
pub enum Signal {
    /// Write a checkpoint (kind `last`) at the next step's end, say `stopped`, exit 3.
    Stop,
}

/// A line of a trainer. `trial` and `step` are absent where they make no sense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The process runs; versions and resolved choices.
    Started {
        /// [`crate::PROTOCOL`].
        protocol: u32,
        /// This rank.
        rank: u32,
        /// Program version.
        version: String,
        /// Resolved choices for people and for strict resume (threads, precision, ISA, libtorch).
        #[serde(default)]
        environment: BTreeMap<String, String>,
    },
    /// A sign of life, at least every 10 s while training (more often is fine; the worker thins).
    Progress {
        /// This rank.
        rank: u32,
        /// Optimiser steps done.
        step: u64,
        /// Steps of the whole trial.
        total_steps: u64,
        /// Passes begun, from 1.
        epoch: u32,
        /// Samples trained since the process began.
        samples: u64,
        /// Seconds the network waited for data since the process began.
        data_wait_seconds: f64,
        /// Seconds in steps since the process began.
        step_seconds: f64,
    },
    /// An evaluation goes on, or features are computed: work without a step.
    Evaluating {
        /// This rank.
        rank: u32,
    },
    /// Features that are not there, in the order in which they will be computed. Said once, before
    /// the first of them is begun; whatever is there when its turn comes is not computed.
    FeaturesMissing {
        /// This rank.
        rank: u32,
        /// The shards.
        shards: Vec<MissingShard>,
    },
    /// How fast this rank computes features: after its first batches, and now and then.
    FeaturesPace {
        /// This rank.
        rank: u32,
        /// Bytes of rows in a second.
        bytes_per_s: f64,
    },
    /// A trial that asked for features has them, or goes on without.
    Features {
        /// This rank.
        rank: u32,
        /// How it came out.
        result: FeatureResult,
        /// Bytes it reads, or would have read.
        bytes: u64,
        /// Seconds until it had them.
        seconds: f64,
    },
    /// Metrics of one evaluation.
    Observed {
        /// The trial.
        trial: TrialId,
        /// Optimiser steps done.
        step: u64,
        /// Passes done.
        epoch: u32,
        /// Metric → finite value.
        metrics: BTreeMap<String, f64>,
        /// Confusion matrix on the validation split, rows are true classes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        confusion: Vec<Vec<u64>>,
    },
    /// A checkpoint is complete on disk (written, synced, renamed). The trainer keeps the file until
    /// it has announced a newer one of the same kind.
    Checkpoint {
        /// The trial.
        trial: TrialId,
        /// What it is kept for.
        checkpoint: CheckpointKind,
        /// Optimiser steps done.
        step: u64,
        /// Passes done.
        epoch: u32,
        /// The file.
        path: PathBuf,
        /// Its digest.
        digest: Digest,
        /// Bytes.
        size: u64,
        /// Seconds to write it.
        seconds: f64,
    },
    /// A trial of a lease with several is done, while others go on: finished, or failed alone.
    TrialEnded {
        /// The trial.
        trial: TrialId,
        /// `finished` or `failed`.
        outcome: Outcome,
    },
    /// A task's answer; before `finished`.
    Result {
        /// The task.
        task: TaskId,
        /// The answer.
        result: TaskResult,
    },
    /// All done.
    Finished {},
    /// Stopped as asked; the last checkpoint was announced.
    Stopped {},
    /// Failed; `retry` says whether another attempt could end otherwise.
    Failed {
        /// Why.
        fault: Fault,
        /// Whether to try again.
        retry: bool,
    },
}
