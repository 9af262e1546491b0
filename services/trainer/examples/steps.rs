//! Optimiser steps a second of the trainer against a plain tch loop, for `make bench`.
//!
//! Both train EfficientNet-lite0 above `_blocks.14` on 128-pixel images in batches of 32 with AdamW
//! on one thread. Ours is the real [`train::train`]: manifest and tar, loader, flips, preprocessing,
//! schedule, checkpoints, events. The plain one is what tch's own `nn` gives, over tensors that
//! already lie normalised in memory. `rss_mb` is this process after a trial of ours. Prints one line
//! of JSON. Weights are random: the time does not depend on them.

use anyhow::Context;
use pomona_api::PROTOCOL;
use pomona_api::trainer::{
    BackboneFiles, Command, DataFiles, Event, Member, TrainWork, TrainerWork,
};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::{Filter, Fit, ImportOptions};
use pomona_domain::metric::Direction;
use pomona_domain::spec::{
    Augment, AugmentOp, ClassWeights, FrozenDepth, Head, LrSchedule, Optimizer, Precision, Share,
    Train, Transfer, TrialSpec,
};
use pomona_domain::worker::SlotKind;
use pomona_domain::{Digest, Generation, LeaseId, TrialId};
use pomona_trainer::checkpoint::file;
use pomona_trainer::network::{Arch, HeadPlan, Network, host_tensor};
use pomona_trainer::protocol::Listener;
use pomona_trainer::random::Key;
use pomona_trainer::{data, train, work};
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tch::nn::{self, ModuleT, OptimizerConfig};
use tch::{Device, Kind, Tensor};

const SIDE: u32 = 128;
const CLASSES: u32 = 4;
/// Of 80 images a class, 64 are trained on: 8 steps of 32 images an epoch.
const IMAGES_PER_CLASS: u32 = 80;
const BATCH: u32 = 32;
const STEPS_PER_EPOCH: u32 = 8;
/// The first one warms up and is not counted.
const EPOCHS: u32 = 3;
/// Both sides in turn; the best of each counts, as nothing but a busy machine makes one slower.
const ROUNDS: usize = 3;

fn main() -> anyhow::Result<()> {
    work::settle(1);
    let folder = tempfile::tempdir()?;
    let work = prepare(folder.path())?;
    let (mut ours, mut plain, mut rss_mb) = (0f64, 0f64, 0.0);
    for round in 0..ROUNDS {
        ours = ours.max(trainer(&work)?);
        if round == 0 {
            rss_mb = resident_mb()?;
        }
        plain = plain.max(plain_loop());
    }
    let line = serde_json::json!({"ours": ours, "plain": plain, "rss_mb": rss_mb});
    writeln!(std::io::stdout(), "{line}").context("stdout is closed")
}

fn resident_mb() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// Wall time of whole epochs after the first: from the end of an epoch's checkpoint, so that the
/// start of the loader counts, to its last step. Evaluation and its checkpoint are between epochs.
#[derive(Default)]
struct Clock(Mutex<Lap>);

#[derive(Default)]
struct Lap {
    begun: Option<Instant>,
    steps: u64,
    seconds: f64,
}

impl Listener for Clock {
    fn say(&self, event: &Event) {
        let now = Instant::now();
        let ends = |step: &u64| step.is_multiple_of(u64::from(STEPS_PER_EPOCH));
        let mut lap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Progress { step, .. } = event
            && ends(step)
            && let Some(begun) = lap.begun.take()
        {
            lap.steps += u64::from(STEPS_PER_EPOCH);
            lap.seconds += (now - begun).as_secs_f64();
        }
        if let Event::Checkpoint {
            checkpoint: CheckpointKind::Last,
            ..
        } = event
        {
            lap.begun = Some(now);
        }
    }

    fn stop_wanted(&self) -> bool {
        false
    }
}

fn trainer(work: &TrainWork) -> anyhow::Result<f64> {
    let command = Command {
        protocol: PROTOCOL,
        lease: LeaseId(1),
        generation: Generation(1),
        rank: 0,
        world_size: 1,
        local_rank: 0,
        device: SlotKind::Cpu,
        slot: 0,
        threads: 1,
        rendezvous: None,
        work: TrainerWork::Train(Box::new(work.clone())),
    };
    let clock = Clock::default();
    train::train(&command, work, &clock)?;
    let lap = clock.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    anyhow::ensure!(lap.steps > 0, "the trial ended without steps");
    Ok(lap.steps as f64 / lap.seconds)
}

/// Noise pictures and a drawn backbone as files.
fn prepare(folder: &Path) -> anyhow::Result<TrainWork> {
    let archive = folder.join("pictures.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive)?);
    for class in 0..CLASSES {
        for number in 0..IMAGES_PER_CLASS {
            let bytes = picture(class * IMAGES_PER_CLASS + number)?;
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(
                &mut header,
                format!("class{class}/{number}.png"),
                bytes.as_slice(),
            )?;
        }
    }
    tar.into_inner()?;
    let options = ImportOptions {
        image_size: SIDE,
        fit: Fit::Pad,
        filter: Filter::Bilinear,
        split: [80, 10, 10],
        seed: 0,
        group_pattern: None,
    };
    let digest = Digest::of(&std::fs::read(&archive)?);
    let imported = data::import(&archive, digest, &options, folder, 1, || ())?;
    let network = Network::new(
        Arch::EfficientnetLite0,
        &HeadPlan::linear(1000),
        Kind::Float,
        Device::Cpu,
    );
    network.draw(1, 0, |_| true);
    let tensors = network.entries().iter();
    let content = tensors
        .map(|entry| (entry.name.clone(), host_tensor(&entry.tensor)))
        .collect();
    let weights = folder.join("backbone.safetensors");
    let written = file::write(&weights, &content, None)?;
    Ok(TrainWork {
        members: vec![Member {
            trial: TrialId(1),
            spec: spec(),
            output: folder.join("checkpoints"),
            resume: None,
        }],
        data: DataFiles {
            manifest: imported.manifest,
            archive,
        },
        backbone: BackboneFiles {
            name: "lite0".to_owned(),
            arch: Arch::EfficientnetLite0.name().to_owned(),
            weights,
            digest: written.digest,
        },
        features: None,
    })
}

fn picture(number: u32) -> anyhow::Result<Vec<u8>> {
    let key = Key {
        seed: 3,
        replicate: number,
        purpose: "picture",
        epoch: 0,
    };
    let stream = key.stream();
    let values = (0..u64::from(SIDE * SIDE * 3))
        .map(|index| stream.bits(index) as u8)
        .collect();
    let image = image::RgbImage::from_raw(SIDE, SIDE, values).context("the size fits")?;
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

fn spec() -> TrialSpec {
    TrialSpec {
        transfer: Transfer {
            frozen_depth: FrozenDepth::Named("_blocks.14".to_owned()),
            head: Head::Linear,
        },
        train: Train {
            epochs: EPOCHS,
            batch_size: BATCH,
            optimizer: Optimizer::Adamw {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.01,
            },
            learning_rate: 1e-3,
            lr_schedule: LrSchedule::Constant { warmup_epochs: 0.0 },
            augment: Augment {
                views: 2,
                ops: vec![AugmentOp::HorizontalFlip],
            },
            precision: Precision::F32,
            class_weights: ClassWeights::None,
            label_smoothing: 0.0,
        },
        metric: "val/accuracy".to_owned(),
        direction: Direction::Maximize,
        validation: None,
        seed: 7,
        replicate: 0,
        share: Share::Off,
    }
}

/// The same network and optimiser in tch's own words, and nothing else.
fn plain_loop() -> f64 {
    let mut frozen = nn::VarStore::new(Device::Cpu);
    let live = nn::VarStore::new(Device::Cpu);
    let (prefix, suffix) = lite0(&frozen.root(), &live.root());
    frozen.freeze();
    let rule = nn::AdamW {
        wd: 0.01,
        ..nn::AdamW::default()
    };
    // Infallible but for an empty list of parameters.
    let Ok(mut optimizer) = rule.build(&live, 1e-3) else {
        return 0.0;
    };
    let side = i64::from(SIDE);
    let batches: Vec<(Tensor, Tensor)> = (0..STEPS_PER_EPOCH)
        .map(|_| {
            let x = Tensor::randn(
                [i64::from(BATCH), 3, side, side],
                (Kind::Float, Device::Cpu),
            );
            let y = Tensor::randint(
                i64::from(CLASSES),
                [i64::from(BATCH)],
                (Kind::Int64, Device::Cpu),
            );
            (x, y)
        })
        .collect();
    let mut begun = Instant::now();
    for epoch in 0..EPOCHS {
        if epoch == 1 {
            begun = Instant::now();
        }
        for (x, y) in &batches {
            let cut = tch::no_grad(|| prefix.forward_t(x, false));
            let loss = suffix.forward_t(&cut, true).cross_entropy_for_logits(y);
            optimizer.zero_grad();
            loss.backward();
            optimizer.step();
            let _ = loss.double_value(&[]);
        }
    }
    f64::from((EPOCHS - 1) * STEPS_PER_EPOCH) / begun.elapsed().as_secs_f64()
}

/// Repeats, output channels, kernel, stride of the first, expansion.
const STAGES: [(usize, i64, i64, i64, i64); 7] = [
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
];

/// What lies below the cut and what lies above it.
fn lite0(frozen: &nn::Path<'_>, live: &nn::Path<'_>) -> (nn::SequentialT, nn::SequentialT) {
    let mut prefix = conv_norm(nn::seq_t(), frozen, [3, 32], [3, 2, 1], true);
    let mut suffix = nn::seq_t();
    let (mut input, mut index) = (32, 0);
    for (repeats, output, kernel, first_stride, expand) in STAGES {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { first_stride } else { 1 };
            if index <= 14 {
                prefix = prefix.add(inverted(frozen, [input, output], [kernel, stride], expand));
            } else {
                suffix = suffix.add(inverted(live, [input, output], [kernel, stride], expand));
            }
            (input, index) = (output, index + 1);
        }
    }
    let head = nn::linear(
        live / "fc",
        1280,
        i64::from(CLASSES),
        nn::LinearConfig::default(),
    );
    let suffix = conv_norm(suffix, live, [input, 1280], [1, 1, 1], true)
        .add_fn(|x| x.mean_dim([2i64, 3].as_slice(), false, Kind::Float))
        .add(head);
    (prefix, suffix)
}

/// Convolution with TensorFlow's padding, batch norm and, with `relu`, ReLU6.
fn conv_norm(
    layers: nn::SequentialT,
    path: &nn::Path<'_>,
    [input, output]: [i64; 2],
    [kernel, stride, groups]: [i64; 3],
    relu: bool,
) -> nn::SequentialT {
    let even = if stride == 1 { (kernel - 1) / 2 } else { 0 };
    let config = nn::ConvConfig {
        stride,
        padding: even,
        groups,
        bias: false,
        ..nn::ConvConfig::default()
    };
    let layers = if stride == 1 {
        layers
    } else {
        let zeros = kernel - stride;
        layers.add_fn(move |x| {
            x.constant_pad_nd([zeros / 2, zeros - zeros / 2, zeros / 2, zeros - zeros / 2])
        })
    };
    let norm = nn::BatchNormConfig {
        eps: 1e-3,
        momentum: 0.01,
        ..nn::BatchNormConfig::default()
    };
    let layers = layers
        .add(nn::conv2d(path, input, output, kernel, config))
        .add(nn::batch_norm2d(path, output, norm));
    if relu {
        layers.add_fn(|x| x.shallow_clone().relu6_())
    } else {
        layers
    }
}

fn inverted(
    path: &nn::Path<'_>,
    [input, output]: [i64; 2],
    [kernel, stride]: [i64; 2],
    expand: i64,
) -> nn::SequentialT {
    let wide = input * expand;
    let mut layers = nn::seq_t();
    if expand != 1 {
        layers = conv_norm(layers, path, [input, wide], [1, 1, 1], true);
    }
    layers = conv_norm(layers, path, [wide, wide], [kernel, stride, wide], true);
    layers = conv_norm(layers, path, [wide, output], [1, 1, 1], false);
    if stride == 1 && input == output {
        nn::seq_t().add(nn::func_t(move |x, train| layers.forward_t(x, train) + x))
    } else {
        layers
    }
}
