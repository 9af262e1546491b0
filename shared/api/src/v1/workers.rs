//! The worker's side of the API: `POST /api/v1/workers` registers, `POST /api/v1/workers/{id}/poll`
//! is the heartbeat. A poll says what runs and what was produced; the answer says what should run.
//! It is a long poll: it answers at once when that differs, else after `wait_ms`.

use pomona_domain::dataset::ImportOptions;
use pomona_domain::lease::{Rendezvous, StopKind};
use pomona_domain::model::Lineage;
pub use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::spec::{ProgramSpec, TrialSpec};
use pomona_domain::worker::{Slot, Worker};
use pomona_domain::{
    Digest, ExperimentId, Generation, LeaseId, TaskId, Timestamp, TrialId, WorkerId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::v1::features::FeatureShard;

/// Body of `POST /api/v1/workers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Register {
    /// [`crate::PROTOCOL`]; another one is answered `E0003`.
    pub protocol: u32,
    /// Program version, for people.
    pub version: String,
    /// The id from the worker's data folder, made once.
    #[schema(value_type = String)]
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// Drawn at each start.
    pub incarnation: u64,
    /// Its slots.
    #[schema(value_type = Vec<Object>)]
    pub slots: Vec<Slot>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Address of the worker's own `/metrics`, for service discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<String>,
    /// Bytes of features it may keep; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_budget_bytes: Option<u64>,
}

/// Answer to [`Register`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The row.
    #[schema(value_type = Object)]
    pub worker: Worker,
    /// A lease without a poll for this long is over.
    pub lease_term_ms: u64,
    /// How long a poll may wait.
    pub poll_wait_ms: u64,
}

/// A worker in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// The row.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub worker: Worker,
    /// Why it gets no work although it is there, a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<String>,
}

/// Query of `POST /api/v1/workers/{id}/drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainQuery {
    /// What runs there may go on for so many seconds before it yields; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u32>,
}

/// Body of a poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Poll {
    /// [`crate::PROTOCOL`]; another one, or none, is answered `E0003`: a worker may outlive the
    /// coordinator that it registered with.
    pub protocol: u32,
    /// As registered; another one is answered `E0303`: register again.
    pub incarnation: u64,
    /// Leases whose processes live here, or whose exit is among `reports`.
    pub running: Vec<Running>,
    /// What was produced since the acknowledged number, oldest first, at most
    /// [`MAX_REPORTS_PER_POLL`].
    #[schema(value_type = Vec<Object>)]
    pub reports: Vec<Report>,
    /// Log lines (best effort, bounded; not part of the sequence).
    #[serde(default)]
    pub logs: Vec<LogLine>,
    /// Features kept here, when that changed or the coordinator wants to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<FeatureShard>>,
    /// Wait at most this long for a difference.
    pub wait_ms: u64,
}

/// Most reports in one poll.
pub const MAX_REPORTS_PER_POLL: usize = 500;

/// A lease that runs on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Running {
    /// The lease.
    #[schema(value_type = String)]
    pub lease: LeaseId,
    /// Its generation.
    #[schema(value_type = u64)]
    pub generation: Generation,
}

/// A line of a rank's stderr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// `tri_…` or `tsk_…`.
    pub owner: String,
    /// Rank.
    pub rank: u32,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// The line, at most 4096 bytes.
    pub line: String,
}

/// Answer to a poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Desired {
    /// Every report up to this number is in the store: the spool may forget it.
    pub acked_seq: u64,
    /// Leases that should run here. What runs and is not among them is killed.
    pub leases: Vec<DesiredLease>,
    /// Features that should go, unless they are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub evict: Vec<Digest>,
    /// Whether the next poll should say which features are kept here.
    #[serde(default)]
    pub want_features: bool,
    /// Features that another worker wants and that should be uploaded, the first one first. They
    /// stand here until they are, or nobody wants them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub upload: Vec<Digest>,
}

/// A lease that should run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredLease {
    /// The lease.
    #[schema(value_type = String)]
    pub lease: LeaseId,
    /// Its generation.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// Slot index of each rank on this worker, the lowest rank first.
    pub slots: Vec<u32>,
    /// Where this part stands in the whole, when the lease lies on several workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
    /// Asked to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub stop: Option<StopKind>,
    /// End it with `E0305` after this much time on slots, earlier leases counted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_left_ms: Option<u64>,
    /// What to run. Blobs are fetched from `GET /api/v1/blobs/{digest}` into the worker's cache.
    pub work: DesiredWork,
}

/// One worker's part of a lease on several workers. Its ranks follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gang {
    /// The rank of the first slot here.
    pub first_rank: u32,
    /// Slots of the whole lease.
    pub world_size: u32,
    /// This worker's place among those of the lease, from 0; the first one starts the store at
    /// which all ranks meet, and reports where.
    pub part: u32,
    /// Workers of the lease.
    pub parts: u32,
    /// Where the ranks meet, once that is known: the other workers wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub rendezvous: Option<Rendezvous>,
}

/// What to run, with blobs where a trainer gets paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DesiredWork {
    /// Train a trial, or several that share the features of one backbone.
    Train {
        /// The trials.
        members: Vec<DesiredMember>,
        /// Their data.
        data: DataBlobs,
        /// Their backbone.
        backbone: BackboneBlobs,
        /// Whether features of their frozen blocks may be kept: the experiment's plan says so.
        keep_features: bool,
    },
    /// Run a program of one's own as a trial.
    Program(Box<DesiredProgram>),
    /// Import a data set.
    ImportDataset {
        /// The task.
        #[schema(value_type = String)]
        task: TaskId,
        /// The tar.
        #[schema(value_type = String)]
        archive: Digest,
        /// How.
        #[schema(value_type = Object)]
        options: ImportOptions,
    },
    /// Import a backbone.
    ImportBackbone {
        /// The task.
        #[schema(value_type = String)]
        task: TaskId,
        /// Architecture.
        arch: String,
        /// The file as the user has it.
        #[schema(value_type = String)]
        weights: Digest,
    },
    /// Export a checkpoint and evaluate it.
    Publish {
        /// The task.
        #[schema(value_type = String)]
        task: TaskId,
        /// What the trial trained.
        #[schema(value_type = Object)]
        spec: Box<TrialSpec>,
        /// Its data.
        data: DataBlobs,
        /// Its backbone.
        backbone: BackboneBlobs,
        /// The best checkpoint.
        #[schema(value_type = String)]
        checkpoint: Digest,
        /// Lineage.
        #[schema(value_type = Object)]
        lineage: Box<Lineage>,
        /// Name of the model.
        model: String,
        /// Validation metrics at the checkpoint.
        validation: BTreeMap<String, f64>,
    },
    /// Predict pictures.
    Predict {
        /// The task.
        #[schema(value_type = String)]
        task: TaskId,
        /// Path in the published folder → blob.
        #[schema(value_type = BTreeMap<String, String>)]
        files: BTreeMap<String, Digest>,
        /// Tar of pictures.
        #[schema(value_type = String)]
        pictures: Digest,
        /// Classes to answer.
        top: u32,
    },
}

/// A trial of a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredMember {
    /// The trial.
    #[schema(value_type = String)]
    pub trial: TrialId,
    /// What it trains.
    #[schema(value_type = Object)]
    pub spec: TrialSpec,
    /// Its newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub resume: Option<Digest>,
}

/// A program of one's own that should run as a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredProgram {
    /// The trial.
    #[schema(value_type = String)]
    pub trial: TrialId,
    /// Its experiment.
    #[schema(value_type = String)]
    pub experiment: ExperimentId,
    /// What it runs.
    #[schema(value_type = Object)]
    pub spec: ProgramSpec,
    /// Its newest checkpoint: a tar of the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ProgramCheckpoint>,
}

/// Where a program goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramCheckpoint {
    /// The tar.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its step.
    pub step: u64,
    /// Its epoch, 0 where none was told.
    pub epoch: u32,
}

/// A data set as blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DataBlobs {
    /// The manifest.
    #[schema(value_type = String)]
    pub manifest: Digest,
    /// The tar.
    #[schema(value_type = String)]
    pub archive: Digest,
}

/// A backbone as a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackboneBlobs {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Canonical safetensors.
    #[schema(value_type = String)]
    pub weights: Digest,
}
