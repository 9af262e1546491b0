//! Fixed rows, as the API gives them.

use pomona_api::shard::{Key, Plan};
use pomona_api::v1::cluster::{Because, ClusterView, Explanation};
use pomona_api::v1::features::{FeatureCopy, FeatureShard};
use pomona_api::v1::models::{ModelView, VersionSummary};
use pomona_api::v1::workers::WorkerView;
use pomona_domain::backbone::{Backbone, Block};
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::dataset::{Dataset, DatasetSummary, ImportOptions, Problem, SetAside, Split};
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::metric::Observation;
use pomona_domain::model::{
    Actor, Alias, AliasMove, GateOutcome, Lineage, ModelFile, Origin, Version,
};
use pomona_domain::plan::{Images, Plan as CostPlan, Spent};
use pomona_domain::spec::parse::parse;
use pomona_domain::task::{ClassProbability, Prediction};
use pomona_domain::trial::{BestPoint, Trial, TrialState};
use pomona_domain::view::View;
use pomona_domain::worker::{Slot, SlotKind, Worker, WorkerState};
use pomona_domain::{
    Code, Digest, ExperimentId, Fault, Generation, Hparams, LeaseId, Timestamp, TrialId, VersionId,
    WorkerId,
};
use pomona_search::planner::{self, Ground, Machines};
use pomona_search::preview;
use serde_json::Value;
use std::collections::BTreeMap;

/// 2026-05-03 12:00:00 UTC.
const NOON: i64 = 1_777_809_600_000;

pub const GRID: &str = include_str!("../../../../../config/examples/demo-grid.yaml");
const RANDOM: &str = "
name: look-around
backbone: resnet18
dataset: flowers@2
search:
  strategy: random
  metric: val/macro_f1
  max_trials: 12
  replicates: 2
  max_concurrent: 4
  space:
    train.learning_rate: {log_uniform: [1.0e-4, 1.0e-1]}
    transfer.head.kind: {values: [linear, mlp]}
time_limit: 2h
";

pub fn at(seconds: i64) -> Timestamp {
    Timestamp(NOON + seconds * 1000)
}

pub fn now() -> Timestamp {
    at(200)
}

pub fn metrics(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

pub fn experiment(state: ExperimentState) -> Experiment {
    let spec = parse(GRID, &[]).unwrap();
    let ended = Experiment {
        id: ExperimentId(0x91c4_5a2e_07d1_3b66),
        version: 9,
        spec,
        source: String::new(),
        dataset: Some(Digest::of(b"data")),
        backbone: Some(Digest::of(b"weights")),
        state,
        searcher: Value::Null,
        created_trials: 24,
        best: Some(TrialId::derive("exp", 3)),
        plan: Some(Box::new(plan())),
        spent: Spent {
            slot_ms: 15_000,
            leases: 3,
            shared_leases: 1,
        },
        submitted_at: at(0),
        ended_at: Some(at(185)),
    };
    if ended.is_ended() {
        return ended;
    }
    Experiment {
        ended_at: None,
        ..ended
    }
}

/// The planner's words for the grid, on lite0 and 230 images.
pub fn plan() -> CostPlan {
    let spec = parse(GRID, &[]).unwrap();
    let points = preview(&spec).unwrap().points;
    let ground = Ground {
        backbone: &lite(),
        images: Images {
            train: 138,
            val: 46,
            side: 128,
        },
        machines: Machines::default(),
    };
    planner::plan(&spec, &points, &ground).unwrap()
}

/// With the block that the grid names.
fn lite() -> Backbone {
    let mut row = backbone();
    let block = Block {
        name: "_blocks.14".to_owned(),
        parameters: 2_972_204,
        macs: 332_000_000,
        cut_bytes: 2 * 192 * 7 * 7,
        output_shape: vec![192, 7, 7],
    };
    row.blocks.insert(3, block);
    row
}

pub fn random_spec() -> pomona_domain::spec::ExperimentSpec {
    parse(RANDOM, &[]).unwrap()
}

fn trial(number: u32, hparams: Hparams, state: TrialState, best: Option<(f64, u32)>) -> Trial {
    let latest = best.map_or_else(BTreeMap::new, |(value, _)| {
        metrics(&[("val/accuracy", value - 0.01), ("val/loss", 1.0 - value)])
    });
    Trial {
        id: TrialId::derive("exp", u64::from(number)),
        version: 5,
        experiment: ExperimentId(0x91c4_5a2e_07d1_3b66),
        number,
        hparams,
        replicate: 0,
        state,
        restarts: 0,
        leases: 1,
        last_step: 80,
        last_epoch: best.map_or(0, |_| 10),
        latest,
        best: best.map(|(value, epoch)| BestPoint {
            step: u64::from(epoch) * 8,
            epoch,
            value,
            tie: 1.0 - value,
            metrics: metrics(&[
                ("val/accuracy", value),
                ("val/loss", 1.0 - value),
                ("val/macro_f1", value - 0.02),
            ]),
        }),
        environment: BTreeMap::new(),
        created_at: at(0),
        started_at: Some(at(1)),
        pinned: false,
        expendable: false,
        deleted: None,
        share_limit: None,
        active_ms: 12_400,
        ended_at: Some(at(14)),
    }
}

/// The first six trials of the demo's grid: every state that a person sees.
pub fn trials() -> Vec<Trial> {
    let lost = Fault::new(
        Code::RankLost,
        "rank 1 of 2 was lost: it was killed by signal 9",
    );
    let lease = LeaseId(7);
    let states = [
        (TrialState::Completed, Some((0.853, 7))),
        (TrialState::Completed, Some((0.8123, 10))),
        (TrialState::Completed, Some((0.9174, 9))),
        (TrialState::Failed { fault: lost }, Some((0.42, 1))),
        (TrialState::Running { lease }, Some((0.7, 3))),
        (
            TrialState::Waiting {
                since: at(0),
                not_before: at(0),
            },
            None,
        ),
    ];
    let points = preview(&parse(GRID, &[]).unwrap()).unwrap().points;
    let mut rows: Vec<Trial> = (1..)
        .zip(points.into_iter().step_by(3))
        .zip(states)
        .map(|((number, point), (state, best))| trial(number, point.hparams, state, best))
        .collect();
    rows[3].restarts = 3;
    rows[4].last_epoch = 4;
    rows[4].ended_at = None;
    rows
}

pub fn curve(trial: &Trial) -> Vec<Observation> {
    (1..=10u32)
        .map(|epoch| {
            let value = 0.9 - 0.6 / f64::from(epoch);
            Observation {
                trial: trial.id,
                generation: Generation(1),
                step: u64::from(epoch) * 8,
                epoch,
                at: at(i64::from(epoch)),
                metrics: metrics(&[("train/loss", 1.1 - value), ("val/accuracy", value)]),
                confusion: Vec::new(),
            }
        })
        .collect()
}

pub fn checkpoints(trial: &Trial) -> Vec<Checkpoint> {
    let row = |kind, epoch: u32| Checkpoint {
        trial: trial.id,
        kind,
        generation: Generation(1),
        step: u64::from(epoch) * 8,
        epoch,
        digest: Digest::of(b"checkpoint"),
        size: 31_744,
        at: at(i64::from(epoch)),
    };
    vec![row(CheckpointKind::Last, 10), row(CheckpointKind::Best, 9)]
}

pub fn dataset() -> Dataset {
    let problem = |path: &str, why, detail: &str| Problem {
        path: path.to_owned(),
        why,
        detail: detail.to_owned(),
    };
    let class = |name: &str, counts: [u32; 3]| (name.to_owned(), counts);
    Dataset {
        name: "flowers".to_owned(),
        number: 2,
        manifest: Digest::of(b"manifest"),
        archive: Digest::of(b"archive"),
        options: ImportOptions {
            image_size: 128,
            group_pattern: Some("_mirror$".to_owned()),
            ..ImportOptions::default()
        },
        summary: DatasetSummary {
            classes: BTreeMap::from([
                class("daisy", [37, 13, 12]),
                class("Löwenzahn", [11, 4, 4]),
                class("rose", [30, 10, 10]),
            ]),
            set_aside: BTreeMap::from([("corrupt".to_owned(), 1), ("not_an_image".to_owned(), 1)]),
            problems: vec![
                problem(
                    "daisy/cut off.jpg",
                    SetAside::Corrupt,
                    "the file ends in the middle",
                ),
                problem("rose/notes.txt", SetAside::NotAnImage, "no known format"),
            ],
            duplicates: 3,
            groups: 101,
        },
        created_at: at(-7200),
    }
}

pub fn backbone() -> Backbone {
    let block = |name: &str, parameters, macs, shape: &[u64]| Block {
        name: name.to_owned(),
        parameters,
        macs,
        cut_bytes: shape.iter().product::<u64>() * 2,
        output_shape: shape.to_vec(),
    };
    Backbone {
        name: "lite0".to_owned(),
        arch: "efficientnet-lite0".to_owned(),
        weights: Digest::of(b"weights"),
        source: Digest::of(b"source"),
        image_size: 224,
        blocks: vec![
            block("_conv_stem", 928, 10_838_016, &[32, 112, 112]),
            block("_blocks.0", 1_392, 9_633_792, &[16, 112, 112]),
            block("_blocks.1", 6_004, 11_289_600, &[24, 56, 56]),
            block("_conv_head", 412_160, 20_070_400, &[1280]),
        ],
        tensors: 230,
        head_parameters: 1_281_000,
        created_at: at(-90_000),
    }
}

pub fn version(passed: bool) -> Version {
    let file = |path: &str, size| ModelFile {
        path: path.to_owned(),
        sha256: Digest::of(path.as_bytes()).hex(),
        size,
    };
    Version {
        id: VersionId(1),
        model: "tux".to_owned(),
        number: 3,
        digest: Digest::of(b"version"),
        files: vec![
            file("README.md", 2048),
            file("model.safetensors", 13_631_488),
        ],
        origin: Origin::Trained(Lineage {
            experiment: ExperimentId(0x91c4_5a2e_07d1_3b66),
            trial: TrialId::derive("exp", 3),
            step: 72,
            seed: 7,
            checkpoint: Digest::of(b"checkpoint"),
            dataset: Digest::of(b"data"),
            backbone: Digest::of(b"weights"),
            code: "0.1.0".to_owned(),
        }),
        metrics: metrics(&[("test/accuracy", 0.9043), ("val/accuracy", 0.9174)]),
        gates: vec![GateOutcome {
            gate: "test/accuracy at least 0.6".to_owned(),
            passed,
            measured: Some(if passed { 0.9043 } else { 0.5521 }),
            wanted: 0.6,
        }],
        created_at: at(190),
    }
}

pub fn model() -> ModelView {
    let summary = |number, gates_passed, accuracy| VersionSummary {
        number,
        digest: Digest::of(b"version"),
        trial: Some(TrialId::derive("exp", 3)),
        size: 13_633_536,
        gates_passed,
        metrics: metrics(&[("test/accuracy", accuracy), ("val/accuracy", 0.9174)]),
        created_at: at(190),
    };
    let alias = |alias: &str, number, revision| Alias {
        model: "tux".to_owned(),
        alias: alias.to_owned(),
        number,
        revision,
        deleted: false,
    };
    ModelView {
        name: "tux".to_owned(),
        versions: vec![summary(3, true, 0.9043), summary(2, false, 0.5521)],
        aliases: vec![alias("challenger", 2, 1), alias("champion", 3, 2)],
        description: String::new(),
        tags: BTreeMap::new(),
    }
}

pub fn history() -> Vec<AliasMove> {
    let row = |from, to, revision, seconds, reason: &str| AliasMove {
        model: "tux".to_owned(),
        alias: "champion".to_owned(),
        from,
        to,
        revision,
        at: at(seconds),
        reason: reason.to_owned(),
        deleted: false,
        by: Actor {
            name: "ann@desk".to_owned(),
            origin: "cli 127.0.0.1".to_owned(),
        },
    };
    vec![
        row(
            None,
            1,
            1,
            -900,
            "experiment `tux-grid` published trial `tri_…`; 1 gate passed",
        ),
        row(Some(1), 3, 2, 190, "set by request"),
    ]
}

pub fn predictions() -> Vec<Prediction> {
    let class = |label: &str, probability| ClassProbability {
        label: label.to_owned(),
        probability,
    };
    vec![
        Prediction {
            path: "photos/ein Bär.jpg".to_owned(),
            classes: vec![class("animals", 0.9321), class("food", 0.041)],
            fault: None,
        },
        Prediction {
            path: "photos/cut off.jpg".to_owned(),
            classes: Vec::new(),
            fault: Some(Fault::new(Code::BadPicture, "the file ends in the middle")),
        },
    ]
}

pub fn workers() -> Vec<WorkerView> {
    let slot = |index, kind, name: &str| Slot {
        index,
        kind,
        name: name.to_owned(),
        memory_bytes: None,
    };
    let row = |id, name: &str, state, slots| Worker {
        id: WorkerId(id),
        version: 1,
        name: name.to_owned(),
        incarnation: 1,
        slots,
        labels: BTreeMap::from([("room".to_owned(), "4".to_owned())]),
        state,
        drain_by: None,
        acked_seq: 0,
        registered_at: at(0),
        changed_at: at(0),
    };
    let gpu = "NVIDIA H100 80GB HBM3";
    let gpus = vec![slot(0, SlotKind::Cuda, gpu), slot(1, SlotKind::Cuda, gpu)];
    let cpus = vec![
        slot(0, SlotKind::Cpu, "AMD EPYC 7B13"),
        slot(1, SlotKind::Cpu, "AMD EPYC 7B13"),
    ];
    let seen = |worker, excluded: Option<&str>| WorkerView {
        worker,
        excluded: excluded.map(str::to_owned),
    };
    let orchard = row(0x5f0c_2a9b_e3d4_1786, "orchard", WorkerState::Alive, gpus);
    let laptop = row(
        0x0c2a_9be3_d417_865f,
        "laptop",
        WorkerState::Draining,
        cpus.clone(),
    );
    let shed = row(0x9be3_d417_865f_0c2a, "shed", WorkerState::Alive, cpus);
    let why =
        "it is excluded for another 60 s: different trials failed there and nothing ended well";
    vec![
        seen(orchard, None),
        seen(laptop, None),
        seen(shed, Some(why)),
    ]
}

pub fn cluster() -> ClusterView {
    ClusterView {
        version: "0.1.0".to_owned(),
        protocol: 1,
        workers_alive: 1,
        workers_draining: 1,
        workers_lost: 0,
        slots_total: 4,
        slots_busy: 1,
        experiments: 1,
        trials_running: 1,
        trials_waiting: 18,
        tasks_running: 0,
        tasks_waiting: 1,
    }
}

pub fn explanation() -> Explanation {
    let because = |seconds, text: &str| Because {
        at: at(seconds),
        text: text.to_owned(),
    };
    Explanation {
        subject: "tri_0123456789abcdef".to_owned(),
        now: "it waits: all 4 slots are busy".to_owned(),
        reasons: vec![
            because(0, "submitted with the experiment"),
            because(31, "leased again: worker `laptop` was lost"),
        ],
    }
}

/// The same shard on two workers, and one more.
pub fn features() -> Vec<FeatureCopy> {
    let copy = |worker: u64, view: View, dataset: &[u8]| FeatureCopy {
        worker: WorkerId(worker),
        worker_name: format!("gpu-{worker}"),
        shard: FeatureShard {
            digest: Digest::of(&[view.number() as u8]),
            plan: Plan {
                key: Key {
                    prefix_version: 1,
                    arch: "efficientnet-lite0".to_owned(),
                    cut: 16,
                    block: "_blocks.14".to_owned(),
                    weights: Digest::of(b"weights"),
                    mean: [127.0; 3],
                    scale: [128.0; 3],
                    dataset: Digest::of(dataset),
                    split: Split::Train,
                    view,
                    from: 0,
                    to: 40_000,
                    batch: 32,
                    environment: BTreeMap::from([
                        ("libtorch".to_owned(), "2.13.0".to_owned()),
                        ("precision".to_owned(), "f32".to_owned()),
                        ("threads".to_owned(), "4".to_owned()),
                    ]),
                },
                rows: 40_000,
                shape: vec![7, 7, 192],
            },
            bytes: 1_505_280_700,
            used_at: at(-90),
        },
    };
    let crop = View::Crop {
        crop: 7,
        flips: true,
    };
    vec![
        copy(1, View::AS_IS, b"manifest"),
        copy(2, View::AS_IS, b"manifest"),
        copy(2, View::Whole { mirrored: true }, b"gone"),
        copy(2, crop, b"manifest"),
    ]
}

/// Data sets by manifest.
pub fn dataset_names() -> BTreeMap<Digest, String> {
    BTreeMap::from([(Digest::of(b"manifest"), "flowers@2".to_owned())])
}
