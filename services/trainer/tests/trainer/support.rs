//! A small data set, a small backbone, and trainer processes.

use pomona_api::PROTOCOL;
use pomona_api::trainer::{
    BackboneFiles, Command, DataFiles, Event, FeatureStore, Member, Rendezvous, TrainWork,
    TrainerWork,
};
use pomona_domain::dataset::{Filter, Fit, ImportOptions};
use pomona_domain::metric::Direction;
use pomona_domain::spec::{
    Augment, AugmentOp, ClassWeights, FrozenDepth, Head, LrSchedule, Optimizer, Precision, Share,
    Train, Transfer, TrialSpec,
};
use pomona_domain::worker::SlotKind;
use pomona_domain::{Digest, Generation, LeaseId, TaskId, TrialId};
use pomona_trainer::checkpoint::file::{self, Content};
use pomona_trainer::data;
use pomona_trainer::dist::StoreServer;
use pomona_trainer::network::{Arch, HeadPlan, Network, host_tensor};
use pomona_trainer::random::Key;
use std::io::{BufRead, BufReader, Cursor, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use tch::{Device, Kind};

/// What `make setup` leaves: `$POMONA_CACHE`, else `$XDG_CACHE_HOME/pomona`, else
/// `~/.cache/pomona`, as scripts/setup.py has it.
fn fetched(name: &str) -> PathBuf {
    let set = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let cache = set("POMONA_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_default().join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("pomona")
    });
    let path = cache.join(name);
    assert!(
        path.exists(),
        "there is no `{}`: run `make setup`",
        path.display()
    );
    path
}

/// The published lite0 weights.
pub fn published_weights() -> PathBuf {
    fetched("weights/efficientnet-lite0.pth")
}

/// A Python with ONNX and ONNX Runtime, from `scripts/setup.py clients`.
pub fn clients_python() -> PathBuf {
    fetched("clients/bin/python")
}

/// Tux Paint's photographs, a folder for each of six classes.
pub fn photographs() -> PathBuf {
    fetched("tux")
}

/// Pictures of `classes` kinds, 40 pixels wide, noisy so that a network has something to learn, as
/// a tar.
pub fn pictures(path: &Path, classes: usize, each: usize) {
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    for class in 0..classes {
        for number in 0..each {
            let bytes = picture(class, number);
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            let name = format!("class {class}/{number:03}.png");
            tar.append_data(&mut header, name, bytes.as_slice())
                .unwrap();
        }
    }
    tar.into_inner().unwrap().sync_all().unwrap();
}

fn picture(class: usize, number: usize) -> Vec<u8> {
    const SIDE: u32 = 40;
    let key = Key {
        seed: class as u64,
        replicate: number as u32,
        purpose: "picture",
        epoch: 0,
    };
    let noise = key.stream();
    let image = image::RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let value = noise.bits(u64::from(y * SIDE + x));
        let mut pixel = [value as u8, (value >> 8) as u8, (value >> 16) as u8];
        pixel[class % 3] = pixel[class % 3] / 2 + 127;
        image::Rgb(pixel)
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Everything that a trial reads.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub data: DataFiles,
    pub backbone: BackboneFiles,
}

/// A data set of 32-pixel images and a seeded backbone.
pub fn fixture(arch: &str, classes: usize, each: usize) -> Fixture {
    fixture_of_size(arch, classes, each, 32)
}

/// The same with larger images.
pub fn fixture_of_size(arch: &str, classes: usize, each: usize, image_size: u32) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("pictures.tar");
    pictures(&archive, classes, each);
    let digest = Digest::of(&std::fs::read(&archive).unwrap());
    let options = ImportOptions {
        image_size,
        fit: Fit::Pad,
        filter: Filter::Bilinear,
        split: [60, 20, 20],
        seed: 0,
        group_pattern: None,
    };
    let imported = data::import(&archive, digest, &options, folder.path(), 1, || ()).unwrap();
    let weights = folder.path().join("backbone.safetensors");
    let network = Network::new(
        Arch::parse(arch).unwrap(),
        &HeadPlan::linear(5),
        Kind::Float,
        Device::Cpu,
    );
    network.draw(11, 0, |_| true);
    let content: Content = network
        .entries()
        .iter()
        .map(|entry| (entry.name.clone(), host_tensor(&entry.tensor)))
        .collect();
    let written = file::write(&weights, &content, None).unwrap();
    Fixture {
        data: DataFiles {
            manifest: imported.manifest,
            archive,
        },
        backbone: BackboneFiles {
            name: "test".into(),
            arch: arch.into(),
            weights,
            digest: written.digest,
        },
        folder,
    }
}

/// A spec that uses every part that holds state: batch norm that trains, dropout, flips, moments,
/// class weights and a schedule.
pub fn spec() -> TrialSpec {
    TrialSpec {
        transfer: Transfer {
            frozen_depth: FrozenDepth::Named("layer1".into()),
            head: Head::Mlp {
                hidden: 16,
                dropout: 0.25,
            },
        },
        train: Train {
            epochs: 2,
            batch_size: 4,
            optimizer: Optimizer::Adamw {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.01,
            },
            learning_rate: 0.003,
            lr_schedule: LrSchedule::Cosine { warmup_epochs: 0.5 },
            augment: Augment {
                views: 2,
                ops: vec![AugmentOp::HorizontalFlip],
            },
            precision: Precision::F32,
            class_weights: ClassWeights::Balanced,
            label_smoothing: 0.1,
        },
        metric: "val/accuracy".into(),
        direction: Direction::Maximize,
        validation: None,
        seed: 7,
        replicate: 0,
        share: Share::Auto,
    }
}

pub fn train_work(
    fixture: &Fixture,
    spec: &TrialSpec,
    output: &Path,
    resume: Option<PathBuf>,
) -> TrainWork {
    TrainWork {
        members: vec![Member {
            trial: TrialId(1),
            spec: spec.clone(),
            output: output.to_owned(),
            resume,
        }],
        data: fixture.data.clone(),
        backbone: fixture.backbone.clone(),
        features: Some(FeatureStore {
            folder: fixture.folder.path().join("features"),
            max_bytes: 1 << 30,
        }),
    }
}

pub fn command(work: TrainerWork) -> Command {
    Command {
        protocol: PROTOCOL,
        lease: LeaseId(1),
        generation: Generation(1),
        rank: 0,
        world_size: 1,
        local_rank: 0,
        device: slot_kind(),
        slot: 0,
        threads: 1,
        rendezvous: None,
        work,
    }
}

/// What ranks of these tests run on: GPUs with `POMONA_TEST_DEVICE=cuda` (`make test-gpu`), else CPUs.
pub fn slot_kind() -> SlotKind {
    match std::env::var("POMONA_TEST_DEVICE").as_deref() {
        Ok("cuda") => SlotKind::Cuda,
        Ok(other) => panic!("POMONA_TEST_DEVICE is `{other}`, not `cuda`"),
        Err(_) => SlotKind::Cpu,
    }
}

/// The slot of a rank. More ranks than GPUs share them, which NCCL must be told to allow.
fn slot(rank: u32) -> u32 {
    match slot_kind() {
        SlotKind::Cpu => rank,
        SlotKind::Cuda => rank % tch::Cuda::device_count() as u32,
    }
}

/// The device of a rank, as the trainer chooses it.
pub fn device(rank: u32) -> Device {
    let mut command = command(TrainerWork::Predict {
        task: TaskId(1),
        model: PathBuf::new(),
        pictures: PathBuf::new(),
        top: 1,
    });
    command.slot = slot(rank);
    pomona_trainer::train::device(&command).unwrap()
}

/// A running trainer. Dropping it kills it.
pub struct Trainer {
    child: Child,
    pub stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Trainer {
    pub fn start(command: &Command, environment: &[(&str, &str)]) -> Self {
        Self::start_line(&serde_json::to_string(command).unwrap(), environment)
    }

    /// The same with any first line.
    pub fn start_line(line: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_pomona-trainer"))
            .envs(environment.iter().copied())
            .env("TORCH_CPP_LOG_LEVEL", "ERROR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{line}").unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            stdin: Some(stdin),
            lines,
        }
    }

    /// Events up to the one that `until` takes, or to the end.
    pub fn events_until(&mut self, until: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        for line in self.lines.by_ref() {
            let event: Event = serde_json::from_str(&line.unwrap()).unwrap();
            let last = until(&event);
            events.push(event);
            if last {
                break;
            }
        }
        events
    }

    /// A line on its stdin.
    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The ranks of a lease and the store where they meet.
pub struct Lease {
    pub ranks: Vec<Trainer>,
    _store: Option<StoreServer>,
}

impl Lease {
    /// Only rank 0 gets `environment`.
    pub fn start(work: &TrainWork, world_size: u32, environment: &[(&str, &str)]) -> Self {
        let store = (world_size > 1).then(|| StoreServer::bind("127.0.0.1").unwrap());
        let ranks = (0..world_size)
            .map(|rank| {
                let mut command = command(TrainerWork::Train(Box::new(work.clone())));
                (command.rank, command.local_rank, command.slot) = (rank, rank, slot(rank));
                command.world_size = world_size;
                command.rendezvous = store.as_ref().map(|store| Rendezvous {
                    host: "127.0.0.1".into(),
                    port: store.port(),
                });
                Trainer::start(&command, if rank == 0 { environment } else { &[] })
            })
            .collect();
        Self {
            ranks,
            _store: store,
        }
    }

    pub fn kill(mut self) {
        self.ranks.iter_mut().for_each(Trainer::kill);
    }
}
