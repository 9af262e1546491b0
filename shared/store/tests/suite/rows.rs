//! Rows of the domain, with values that are hard to write and read again.

use std::collections::BTreeMap;

use pomona_domain::backbone::{Backbone, Block};
use pomona_domain::change::{Reason, Subject};
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::dataset::{Dataset, DatasetSummary, ImportOptions, Problem, SetAside};
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::{Lease, LeaseState, SlotRef, Work};
use pomona_domain::metric::Observation;
use pomona_domain::model::{
    Actor, AliasMove, GateOutcome, Lineage, ModelFile, Origin, Version, version_digest,
};
use pomona_domain::plan::Spent;
use pomona_domain::task::{Task, TaskSpec, TaskState};
use pomona_domain::trial::{BestPoint, Trial, TrialState};
use pomona_domain::worker::{Slot, SlotKind, Worker, WorkerState};
use pomona_domain::{
    Change, Digest, ExperimentId, Generation, Hparams, LeaseId, TaskId, Timestamp, TrialId,
    VersionId, WorkerId, spec,
};

/// The first moment of the suite.
pub const START: Timestamp = Timestamp(1_700_000_000_123);

/// `START` and some seconds.
pub fn at(seconds: i64) -> Timestamp {
    START.plus_ms(seconds * 1000)
}

/// Numbers that a sloppy writer would change.
pub fn awkward() -> BTreeMap<String, f64> {
    BTreeMap::from([
        ("val/accuracy".to_owned(), 0.1 + 0.2),
        ("val/loss".to_owned(), f64::MIN_POSITIVE),
        ("val/größe `1`".to_owned(), 1.797_693_134_862_315_7e308),
        ("train/loss".to_owned(), -0.0),
        ("train/tiny".to_owned(), 5e-324),
        ("train/third".to_owned(), 1.0 / 3.0),
    ])
}

pub fn experiment(number: u64) -> Experiment {
    let text = include_str!("../../../../config/examples/first-experiment.yaml");
    let mut spec = spec::parse(text, &[]).unwrap();
    spec.name = format!("flowers-{number}");
    Experiment {
        id: ExperimentId(number),
        version: 1,
        spec,
        source: text.to_owned(),
        dataset: Some(Digest::of(b"manifest")),
        backbone: Some(Digest::of(b"weights")),
        state: ExperimentState::Active,
        searcher: serde_json::json!({"at": 3, "zwölf": [1, 2.5, null], "a": {"z": 1, "b": 2}}),
        created_trials: 3,
        best: None,
        plan: None,
        spent: Spent {
            slot_ms: u64::from(u32::MAX) * 5,
            leases: 4,
            shared_leases: 2,
        },
        submitted_at: at(number.cast_signed()),
        ended_at: None,
    }
}

pub fn trial(experiment: ExperimentId, number: u32) -> Trial {
    let hparams = BTreeMap::from([
        ("train.learning_rate".to_owned(), serde_json::json!(3e-4)),
        ("transfer.head.kind".to_owned(), serde_json::json!("mlp")),
    ]);
    Trial {
        id: TrialId((experiment.0 << 20) + u64::from(number)),
        version: 1,
        experiment,
        number,
        hparams: Hparams(hparams),
        replicate: 0,
        state: TrialState::Waiting {
            since: at(1),
            not_before: at(2),
        },
        restarts: 0,
        leases: 0,
        share_limit: None,
        last_step: 0,
        last_epoch: 0,
        latest: awkward(),
        best: None,
        environment: BTreeMap::from([("cpu".to_owned(), "some".to_owned())]),
        pinned: false,
        expendable: false,
        deleted: None,
        created_at: at(1),
        started_at: None,
        active_ms: u64::from(u32::MAX) * 5,
        ended_at: None,
    }
}

/// `trial` with a best point.
pub fn scored(mut trial: Trial, value: f64, tie: f64) -> Trial {
    trial.best = Some(BestPoint {
        step: 10,
        epoch: 1,
        value,
        tie,
        metrics: awkward(),
    });
    trial
}

pub fn lease(number: u64, work: Work) -> Lease {
    Lease {
        id: LeaseId(number),
        version: 1,
        generation: Generation(number),
        work,
        slots: vec![SlotRef {
            worker: WorkerId(1),
            index: 0,
        }],
        state: LeaseState::Live,
        granted_at: at(3),
        meets_at: None,
        parts: Vec::new(),
    }
}

pub fn worker(number: u64) -> Worker {
    Worker {
        id: WorkerId(number),
        version: 1,
        name: format!("machine-{number}"),
        incarnation: u64::MAX,
        slots: vec![Slot {
            index: 0,
            kind: SlotKind::Cpu,
            name: "core 0".to_owned(),
            memory_bytes: None,
        }],
        labels: BTreeMap::from([("zone".to_owned(), "a/b c".to_owned())]),
        state: WorkerState::Alive,
        drain_by: Some(at(9)),
        acked_seq: 7,
        registered_at: at(0),
        changed_at: at(0),
    }
}

/// A task that reads a blob.
pub fn import(number: u64, archive: Digest) -> Task {
    Task {
        id: TaskId(number),
        version: 1,
        spec: TaskSpec::ImportDataset {
            name: "flowers".to_owned(),
            archive,
            options: ImportOptions::default(),
        },
        state: TaskState::Waiting,
        attempts: 0,
        priority: 60,
        submitted_at: at(number.cast_signed()),
        ended_at: None,
    }
}

pub fn observation(trial: TrialId, step: u64) -> Observation {
    Observation {
        trial,
        generation: Generation(4),
        step,
        epoch: 2,
        at: at(5),
        metrics: awkward(),
        confusion: Vec::new(),
    }
}

pub fn checkpoint(trial: TrialId, kind: CheckpointKind, digest: Digest) -> Checkpoint {
    Checkpoint {
        trial,
        kind,
        generation: Generation(4),
        step: 10,
        epoch: 1,
        digest,
        size: 3,
        at: at(6),
    }
}

pub fn dataset(name: &str, number: u32, manifest: Digest, archive: Digest) -> Dataset {
    Dataset {
        name: name.to_owned(),
        number,
        manifest,
        archive,
        options: ImportOptions {
            group_pattern: Some("_mirror$".to_owned()),
            ..ImportOptions::default()
        },
        summary: DatasetSummary {
            classes: BTreeMap::from([("Äpfel und Birnen".to_owned(), [6, 2, 2])]),
            set_aside: BTreeMap::from([("corrupt".to_owned(), 1)]),
            problems: vec![Problem {
                path: "a b/ç.png".to_owned(),
                why: SetAside::Corrupt,
                detail: "cut off".to_owned(),
            }],
            duplicates: 1,
            groups: 9,
        },
        created_at: at(i64::from(number)),
    }
}

pub fn backbone(name: &str, weights: Digest, source: Digest) -> Backbone {
    Backbone {
        name: name.to_owned(),
        arch: "resnet18".to_owned(),
        weights,
        source,
        image_size: 224,
        blocks: vec![Block {
            name: "layer1.0".to_owned(),
            parameters: 1 << 40,
            macs: 3,
            cut_bytes: 4,
            output_shape: vec![64, 56, 56],
        }],
        tensors: 122,
        head_parameters: 513_000,
        created_at: at(1),
    }
}

/// A version with one file.
pub fn version(model: &str, number: u32, file: Digest) -> Version {
    let files = vec![ModelFile {
        path: "model.safetensors".to_owned(),
        sha256: file.hex(),
        size: 3,
    }];
    Version {
        id: VersionId::derive(model, u64::from(number)),
        model: model.to_owned(),
        number,
        digest: version_digest(&files),
        files,
        origin: Origin::Trained(Lineage {
            experiment: ExperimentId(1),
            trial: TrialId(1),
            step: 10,
            seed: u64::MAX,
            checkpoint: file,
            dataset: file,
            backbone: file,
            code: "0.1.0".to_owned(),
        }),
        metrics: awkward(),
        gates: vec![GateOutcome {
            gate: "test/accuracy at least 0.6".to_owned(),
            passed: true,
            measured: Some(0.1 + 0.7),
            wanted: 0.6,
        }],
        created_at: at(i64::from(number)),
    }
}

/// The move that makes `revision`, to version `to`.
pub fn alias_move(model: &str, revision: u64, from: Option<u32>, to: u32) -> AliasMove {
    AliasMove {
        model: model.to_owned(),
        alias: "champion".to_owned(),
        from,
        to,
        revision,
        at: at(100 * revision.cast_signed()),
        reason: format!("move {revision}"),
        deleted: false,
        by: Actor {
            name: "ann".to_owned(),
            origin: "http 127.0.0.1".to_owned(),
        },
    }
}

pub fn reason(subject: Subject, text: &str) -> Change {
    Change::Reason(Reason {
        subject,
        at: at(9),
        text: text.to_owned(),
    })
}

pub fn of_experiment(row: &Experiment) -> Change {
    Change::Experiment(Box::new(row.clone()))
}

pub fn of_trial(row: &Trial) -> Change {
    Change::Trial(Box::new(row.clone()))
}

pub fn of_lease(row: &Lease) -> Change {
    Change::Lease(Box::new(row.clone()))
}

pub fn of_worker(row: &Worker) -> Change {
    Change::Worker(Box::new(row.clone()))
}

pub fn of_task(row: &Task) -> Change {
    Change::Task(Box::new(row.clone()))
}

pub fn of_dataset(row: &Dataset) -> Change {
    Change::Dataset(Box::new(row.clone()))
}

pub fn of_backbone(row: &Backbone) -> Change {
    Change::Backbone(Box::new(row.clone()))
}

pub fn of_version(row: &Version) -> Change {
    Change::Version(Box::new(row.clone()))
}
