//! A bench to run one lease on: a temporary folder, real binaries, everything else by hand.

use pomona_api::trainer::{BackboneFiles, DataFiles, Member, TrainWork, TrainerWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::{ImportOptions, Manifest, Sample, Split};
use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::spec::TrialSpec;
use pomona_domain::{Digest, Generation, LeaseId, TrialId};
use pomona_worker::fetch::Desk;
use pomona_worker::lease::{Order, Share, Tools, Wish, supervise};
use pomona_worker::logs::Logs;
use pomona_worker::metrics::Metrics;
use pomona_worker::ship::Outbox;
use pomona_worker::slots::Slots;
use pomona_worker::spare::Spares;
use pomona_worker::spool::Spool;
use pomona_worker::watch::Limits;
use pomona_worker::work::Job;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Nothing here takes this long.
pub const DEADLINE: Duration = Duration::from_mins(1);
/// Passes of the trial.
pub const EPOCHS: u32 = 4;
/// Steps of a pass: 12 images in batches of 4.
pub const STEPS: u64 = 3;

pub const LEASE: LeaseId = LeaseId(1);
const PATIENT: Limits = Limits {
    floor: DEADLINE,
    factor: 1000,
    start: DEADLINE,
};

/// Waits for a condition, by asking again, up to a deadline.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Living processes that run in a folder or below it.
pub fn processes_in(folder: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let lives_here =
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if lives_here {
            found.push(pid);
        }
    }
    found
}

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub tools: Tools,
    pub limits: Limits,
    pub time_left: Option<Duration>,
    pub slots: u32,
}

impl Bench {
    /// A bench whose trainer gets these variables.
    pub fn new(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trainer = wrapped(folder.path(), environment);
        let spool = Spool::open(folder.path(), 1 << 24).unwrap();
        Self {
            tools: Tools {
                spool,
                logs: Arc::new(Logs::default()),
                metrics: Metrics::new().unwrap(),
                desk: Desk::default(),
                slots: Arc::new(Slots::cpu(Some(4))),
                outbox: Outbox::open(&folder.path().join("outbox")).unwrap(),
                trainer: Arc::new(trainer),
                launcher: Arc::new(env!("CARGO_BIN_EXE_pomona-worker").into()),
                spares: Spares::default(),
                stop_grace: DEADLINE,
                lines_per_s: 200,
            },
            folder,
            limits: PATIENT,
            time_left: None,
            slots: 1,
        }
    }

    /// The same in a folder that is there and stays.
    pub fn order(&self, work: TrainerWork) -> Order {
        let folder = self.work();
        std::fs::create_dir_all(&folder).unwrap();
        Order {
            lease: LEASE,
            generation: Generation(1),
            owners: vec![TrialId(1).to_string()],
            slots: self.tools.slots.list[..self.slots as usize].to_vec(),
            share: Share::whole(self.slots as usize),
            time_left: self.time_left,
            limits: self.limits,
            job: Job::Trainer(work),
            output: folder.join("output"),
            folder,
        }
    }

    /// The lease's folder.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub fn output(&self) -> PathBuf {
        self.work().join("output")
    }

    /// Runs work to its end.
    pub async fn run(&self, work: TrainerWork) -> Outcome {
        let (_wish, wished) = watch::channel(Wish::Run);
        self.run_wished(work, wished).await
    }

    /// Runs work, with wishes.
    pub async fn run_wished(&self, work: TrainerWork, wish: watch::Receiver<Wish>) -> Outcome {
        let order = self.order(work);
        let ended = tokio::time::timeout(DEADLINE, supervise(&self.tools, &order, wish)).await;
        let outcome = ended.expect("a lease ends");
        let here = self.work();
        until("every process of the lease is gone", || {
            processes_in(&here).is_empty()
        })
        .await;
        outcome
    }

    /// Runs work, and makes a wish when the spool holds so many entries.
    pub async fn run_until(&self, work: TrainerWork, entries: usize, what: Wish) -> Outcome {
        let (wish, wished) = watch::channel(Wish::Run);
        let wishing = async {
            until("the trainer has said enough", || self.entries() >= entries).await;
            wish.send_replace(what);
            std::future::pending::<Outcome>().await
        };
        tokio::select! {
            outcome = self.run_wished(work, wished) => outcome,
            outcome = wishing => outcome,
        }
    }

    /// Entries that wait in the spool.
    pub fn entries(&self) -> usize {
        let text = std::fs::read_to_string(self.folder.path().join("spool.jsonl")).unwrap();
        text.lines()
            .filter(|line| line.contains("\"op\":\"put\""))
            .count()
    }

    /// Everything that was reported, as if every upload had worked.
    pub async fn reports(&self) -> Vec<Report> {
        let spool = &self.tools.spool;
        loop {
            let waiting = spool.uploads();
            if waiting.is_empty() {
                break;
            }
            for entry in waiting {
                for file in &entry.files {
                    let bytes = std::fs::read(&file.path).unwrap();
                    assert_eq!(
                        Digest::of(&bytes),
                        file.digest,
                        "the kept file is the one reported"
                    );
                }
                spool.uploaded(entry.entry);
            }
            spool.seal().await.unwrap();
        }
        spool.seal().await.unwrap();
        spool.batch(10_000)
    }

    /// The data and the backbone of the trial, written once.
    pub fn train(&self) -> TrainWork {
        let folder = self.folder.path().join("inputs");
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let manifest = serde_json::to_vec(&manifest()).unwrap();
        TrainWork {
            members: vec![Member {
                trial: TrialId(1),
                spec: spec(),
                output: self.output(),
                resume: None,
            }],
            data: DataFiles {
                manifest: write("manifest.json", &manifest),
                archive: write("archive.tar", b"tar"),
            },
            backbone: BackboneFiles {
                name: "lite".into(),
                arch: "efficientnet-lite0".into(),
                weights: write("backbone", b"weights"),
                digest: Digest::of(b"weights"),
            },
            features: None,
        }
    }

    /// The trial as work.
    pub fn trial(&self) -> TrainerWork {
        TrainerWork::Train(Box::new(self.train()))
    }
}

/// The fake trainer behind a script that sets variables.
fn wrapped(folder: &Path, environment: &[(&str, &str)]) -> PathBuf {
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in environment {
        let _ = writeln!(script, "export {name}='{value}'");
    }
    let _ = writeln!(
        script,
        "exec '{}' \"$@\"",
        env!("CARGO_BIN_EXE_fake-trainer")
    );
    let path = folder.join("trainer");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn spec() -> TrialSpec {
    serde_json::from_value(serde_json::json!({
        "transfer": {"frozen_depth": "_blocks.14", "head": {"kind": "linear"}},
        "train": {
            "epochs": EPOCHS, "batch_size": 4, "learning_rate": 0.01,
            "optimizer": {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.0},
            "lr_schedule": {"kind": "constant", "warmup_epochs": 0.0},
            "augment": {"views": 1, "ops": []},
            "precision": "auto", "class_weights": "none", "label_smoothing": 0.0
        },
        "metric": "val/accuracy", "direction": "maximize", "seed": 7, "replicate": 0
    }))
    .unwrap()
}

fn manifest() -> Manifest {
    let sample = |number: u32| Sample {
        path: format!("{}/{number}.png", number % 2),
        label: number % 2,
        split: match number {
            0..12 => Split::Train,
            12..16 => Split::Val,
            _ => Split::Test,
        },
        group: number,
        file: Digest::of(&number.to_be_bytes()),
        pixels: Digest::of(&number.to_be_bytes()),
    };
    Manifest {
        archive: Digest::of(b"tar"),
        options: ImportOptions::default(),
        classes: vec!["bird".into(), "cat".into()],
        samples: (0..20).map(sample).collect(),
        problems: Vec::new(),
    }
}

/// Observations of some reports: step, epoch and metrics.
pub fn observed(reports: &[Report]) -> Vec<(u64, u32, BTreeMap<String, f64>)> {
    let seen = reports.iter().filter_map(|report| match &report.body {
        ReportBody::Observed {
            step,
            epoch,
            metrics,
            ..
        } => Some((*step, *epoch, metrics.clone())),
        ReportBody::Started { .. }
        | ReportBody::Meets { .. }
        | ReportBody::Checkpoint { .. }
        | ReportBody::Result { .. }
        | ReportBody::TrialEnded { .. }
        | ReportBody::Exited { .. } => None,
    });
    seen.collect()
}

/// Steps of the checkpoints of a kind.
pub fn checkpoints(reports: &[Report], wanted: CheckpointKind) -> Vec<u64> {
    let kept = reports.iter().filter_map(|report| match &report.body {
        ReportBody::Checkpoint {
            checkpoint, step, ..
        } if *checkpoint == wanted => Some(*step),
        ReportBody::Checkpoint { .. }
        | ReportBody::Started { .. }
        | ReportBody::Meets { .. }
        | ReportBody::Observed { .. }
        | ReportBody::Result { .. }
        | ReportBody::TrialEnded { .. }
        | ReportBody::Exited { .. } => None,
    });
    kept.collect()
}

/// An outcome in a few words.
pub fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Finished => "finished".to_owned(),
        Outcome::Stopped => "stopped".to_owned(),
        Outcome::Killed => "killed".to_owned(),
        Outcome::Failed { fault, retry } => format!("failed {} {retry}: {fault}", fault.code),
        Outcome::Crashed { fault } => format!("crashed {}: {fault}", fault.code),
        Outcome::NotStarted { fault } => format!("not started {}: {fault}", fault.code),
    }
}
