//! What can happen, and what a decision is.

use crate::gates::Evidence;
use pomona_domain::checkpoint::Checkpoint;
use pomona_domain::gate::Approval;
use pomona_domain::lease::Generation;
use pomona_domain::metric::Observation;
use pomona_domain::model::{Actor, ModelFile, Registration};
use pomona_domain::plan::Plan;
use pomona_domain::report::Report;
use pomona_domain::spec::ExperimentSpec;
use pomona_domain::task::TaskSpec;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Slot;
use pomona_domain::{
    Change, Digest, ExperimentId, Fault, LeaseId, TaskId, Timestamp, TrialId, WorkerId,
};
use std::collections::BTreeMap;

/// Something that happened, from an HTTP request, a worker's poll or the clock.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A user submitted an experiment.
    Submitted {
        /// Drawn by the coordinator.
        id: ExperimentId,
        /// The checked file.
        spec: Box<ExperimentSpec>,
        /// The file as the user wrote it.
        source: String,
        /// Manifest digest of the resolved data set, unless it runs a program of one's own.
        dataset: Option<Digest>,
        /// Weights digest of the resolved backbone, unless it runs a program of one's own.
        backbone: Option<Digest>,
        /// What it is expected to cost and why so, if anybody worked it out.
        plan: Option<Box<Plan>>,
    },
    /// A user pauses an experiment: its trials write a checkpoint and give their slots back.
    Pause(ExperimentId),
    /// A user resumes a paused experiment.
    Resume(ExperimentId),
    /// A user takes an experiment back: its leases end at once.
    Cancel(ExperimentId),
    /// A user ends one trial with what it has.
    StopTrial(TrialId),
    /// A worker introduced itself.
    Registered {
        /// From its data folder.
        id: WorkerId,
        /// For people.
        name: String,
        /// Drawn at each start of the worker.
        incarnation: u64,
        /// Its slots.
        slots: Vec<Slot>,
        /// Its labels.
        labels: BTreeMap<String, String>,
    },
    /// A worker's heartbeat.
    Polled {
        /// Who.
        worker: WorkerId,
        /// As registered.
        incarnation: u64,
        /// What lives there. What is not desired is simply not in the answer.
        running: Vec<(LeaseId, Generation)>,
        /// What was produced since the acknowledged number.
        reports: Vec<Report>,
        /// What gates need to know of the versions that these reports publish. Without it a version
        /// is published all the same, and passes no gate that compares.
        evidence: Vec<Evidence>,
    },
    /// A user pins a trial's checkpoints, or lets go of them.
    Pin {
        /// The trial.
        trial: TrialId,
        /// Whether they stay.
        pinned: bool,
        /// Its rows, if its experiment has ended: those are not in memory.
        ended: Option<Box<Ended>>,
    },
    /// A program of one's own told over the API what it measured.
    Measured {
        /// Of which trial, with which generation of its lease (S3); the first observation of a step
        /// counts (S4).
        observation: Box<Observation>,
    },
    /// An operator wants a worker to get nothing new, and what runs there to yield.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// What runs there may go on for so long; 0: it yields now.
        grace_ms: i64,
    },
    /// An operator wants a worker to get work again.
    Undrain(WorkerId),
    /// A task was submitted.
    TaskSubmitted {
        /// Drawn by the coordinator.
        id: TaskId,
        /// What it does.
        spec: TaskSpec,
        /// Higher runs first.
        priority: i32,
    },
    /// A task is taken back.
    TaskCanceled(TaskId),
    /// A user sets an alias.
    AliasSet {
        /// The model.
        model: String,
        /// The alias.
        alias: String,
        /// The version it shall point to.
        number: u32,
        /// Only if the alias is at this revision (0: does not exist yet).
        expected_revision: Option<u64>,
        /// Why, a sentence.
        reason: String,
        /// Who.
        by: Actor,
        /// What its gates need to know (`gates::judge_move`).
        evidence: Option<Box<Evidence>>,
    },
    /// Somebody says yes to a version. Who, and in which role, is the caller's word.
    Approved(Approval),
    /// A user moves an alias back.
    AliasRollback {
        /// The model.
        model: String,
        /// The alias.
        alias: String,
        /// Why, a sentence.
        reason: String,
        /// Where it was before, from the history.
        to: u32,
        /// Who.
        by: Actor,
    },
    /// Somebody registers something, or takes it away.
    Registry {
        /// The model.
        model: String,
        /// What.
        wish: RegistryWish,
        /// Who.
        by: Actor,
    },
    /// Time passed.
    Tick,
}

/// Rows of a trial whose experiment has ended. They change by no other event than [`Event::Pin`].
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The trial.
    pub trial: Trial,
    /// Its checkpoints.
    pub checkpoints: Vec<Checkpoint>,
}

/// What an event changes. A refused event changes nothing; that gates refused a move is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Facts, to be committed in one transaction and then applied in this order. A row stands in
    /// it at most once, with its final content.
    pub changes: Vec<Change>,
    /// Why the event was refused.
    pub outcome: Result<(), Fault>,
}

/// What is wished of a model in the registry, besides where an alias points.
#[derive(Debug, Clone, PartialEq)]
pub enum RegistryWish {
    /// An alias goes.
    DeleteAlias {
        /// The alias.
        alias: String,
        /// Why, a sentence.
        reason: String,
    },
    /// Files that are here, or elsewhere, are a version.
    Register {
        /// The files; none when they are elsewhere.
        files: Vec<ModelFile>,
        /// Where they come from.
        registration: Box<Registration>,
        /// The newest metrics of its run.
        metrics: BTreeMap<String, f64>,
        /// What is said of it.
        description: String,
        /// Its tags.
        tags: BTreeMap<String, String>,
    },
    /// A version goes.
    DeleteVersion {
        /// Its number.
        number: u32,
        /// Somebody is pulling it until then.
        pulled_until: Option<Timestamp>,
    },
    /// The model goes with all its versions.
    DeleteModel {
        /// Somebody is pulling a version of it until then.
        pulled_until: Option<Timestamp>,
    },
    /// It has another name, which no model has or had.
    Rename {
        /// Its new name.
        to: String,
    },
}
