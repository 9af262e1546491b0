//! A trial: its data, its network and where it stands; how it starts, resumes and saves.

use super::epoch::{Plan, Step};
use super::evaluate::metrics;
use super::learner::{Learner, Loss};
use super::not_a_number;
use crate::checkpoint::{self, Best, FORMAT, Keeper, State, file::Content};
use crate::data::Dataset;
use crate::dist::{Group, ffi};
use crate::fault;
use crate::features::Features;
use crate::network::{Arch, HeadPlan, Network};
use crate::optim::Optimizer;
use crate::protocol::{self, Listener};
use crate::weights;
use pomona_api::trainer::{Command, Event, TrainWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::Split;
use pomona_domain::spec::TrialSpec;
use pomona_domain::worker::SlotKind;
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind};

/// Between two signs of life.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// A trial under way.
pub struct Trial<'a> {
    pub(super) learner: Learner,
    pub(super) spec: &'a TrialSpec,
    pub(super) state: State,
    pub(super) listener: &'a dyn Listener,
    pub(super) steps_per_epoch: u64,
    pub(super) work: &'a TrainWork,
    pub(super) dataset: Arc<Dataset>,
    pub(super) labels: Vec<u32>,
    /// Features of the frozen blocks, when it reads them instead of pixels.
    pub(super) features: Option<Features>,
    /// Rank 0's: two ranks that tidy one folder would trip over each other.
    keeper: Option<Keeper>,
    pub(super) threads: usize,
    life: Life,
}

/// What the progress line says.
#[derive(Debug)]
struct Life {
    samples: u64,
    data_wait_seconds: f64,
    step_seconds: f64,
    said: Option<Instant>,
}

/// The device of a slot. A GPU is told to compute what repeats.
pub fn device(command: &Command) -> Result<Device, Fault> {
    match command.device {
        SlotKind::Cpu => Ok(Device::Cpu),
        SlotKind::Cuda if tch::Cuda::is_available() => {
            ffi::exact_on_gpu().map_err(|error| fault::from_exception(&error))?;
            Ok(Device::Cuda(command.slot as usize))
        }
        SlotKind::Cuda => Err(Fault::new(
            Code::MissingProgram,
            "this trainer cannot use a GPU: no CUDA device is there, or it was built for CPUs",
        )),
    }
}

/// What a resume must match to continue bit for bit.
pub fn environment(command: &Command, threads: u32) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("precision".to_owned(), "f32".to_owned()),
        ("libtorch".to_owned(), ffi::torch_version()),
    ]);
    if command.device == SlotKind::Cuda {
        let name = ffi::gpu_name(command.slot as i32).unwrap_or_default();
        all.insert("gpu".to_owned(), name);
        return all;
    }
    all.insert("threads".to_owned(), threads.to_string());
    all.insert("cpu_capability".to_owned(), ffi::cpu_capability());
    for name in ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_CBWR"] {
        if let Ok(value) = std::env::var(name) {
            all.insert(name.to_ascii_lowercase(), value);
        }
    }
    all
}

impl<'a> Trial<'a> {
    /// Reads everything, joins the ranks, and stands where the checkpoint stood.
    pub fn prepare(
        command: &Command,
        work: &'a TrainWork,
        listener: &'a dyn Listener,
    ) -> Result<Self, Fault> {
        let resumed = work.resume.as_deref().map(checkpoint::read).transpose()?;
        let environment = resolve_environment(command, resumed.as_ref())?;
        let dataset = Arc::new(Dataset::open(&work.data.manifest, &work.data.archive)?);
        let labels = dataset.labels(Split::Train);
        let arch = Arch::parse(&work.backbone.arch)?;
        arch.check_image(dataset.size())?;
        let state = first_state(command, work, environment, &dataset)?;
        if let Some((_, saved)) = &resumed {
            check_resume(&state, saved)?;
        }
        let device = device(command)?;
        let network = build_network(work, arch, state.classes, device)?;
        let mut state = State {
            frozen_blocks: network.depth() as u32,
            ..state
        };
        let mut optimizer = Optimizer::new(&work.spec.train.optimizer, network.trainable());
        if let Some((content, saved)) = &resumed {
            if saved.frozen_blocks != state.frozen_blocks {
                return Err(of_another("freeze plan"));
            }
            state = saved.clone();
            checkpoint::load_network(content, &network)?;
            checkpoint::load_optimizer(content, &state, &mut optimizer)?;
        }
        drop(resumed);
        let group = match &command.rendezvous {
            Some(at) if command.world_size > 1 => Group::join(
                at,
                command.generation,
                command.rank,
                command.world_size,
                device,
            )?,
            _ => Group::alone(device),
        };
        let loss = Loss::new(&network, &work.spec.train, state.classes as usize, &labels);
        let batch = u64::from(work.spec.train.batch_size.max(1));
        let keeper = (group.rank() == 0)
            .then(|| Keeper::open(&work.output))
            .transpose()?;
        let trial = Self {
            learner: Learner::new(group, network, optimizer, loss)?,
            spec: &work.spec,
            state,
            listener,
            steps_per_epoch: (labels.len() as u64).div_ceil(batch),
            work,
            dataset,
            labels,
            features: None,
            keeper,
            threads: command.threads.max(1) as usize,
            life: Life {
                samples: 0,
                data_wait_seconds: 0.0,
                step_seconds: 0.0,
                said: None,
            },
        };
        trial.tell_start();
        Ok(trial)
    }

    /// The network as it stands.
    pub fn network(&self) -> &Network {
        &self.learner.network
    }

    pub(super) fn total_steps(&self) -> u64 {
        self.steps_per_epoch * u64::from(self.spec.train.epochs)
    }

    /// What is left of the epoch under way.
    pub(super) fn epoch_steps(&self) -> Vec<Step> {
        let plan = Plan {
            seed: self.spec.seed,
            replicate: self.spec.replicate,
            batch_size: self.spec.train.batch_size as usize,
            augment: &self.spec.train.augment,
            rank: self.learner.group.rank(),
            world_size: self.learner.group.world_size(),
        };
        plan.steps(&self.labels, self.state.epoch)
            .split_off(self.state.position as usize)
    }

    /// Evaluates, says so, and keeps the checkpoints.
    pub(super) fn end_epoch(&mut self) -> Result<(), Fault> {
        self.learner.share_statistics()?;
        let evaluation = self.validate()?;
        let mut found = metrics("val", self.dataset.classes(), &evaluation.report);
        found.insert(
            "train/loss".to_owned(),
            self.state.loss_sum / self.state.weight_sum,
        );
        if let Some((name, _)) = found.iter().find(|(_, value)| !value.is_finite()) {
            return Err(not_a_number(&format!("`{name}`"), self.state.step));
        }
        self.state.epoch += 1;
        self.state.position = 0;
        (self.state.loss_sum, self.state.weight_sum) = (0.0, 0.0);
        self.observed(&found, evaluation.report.confusion);
        let better = self.judge(&found)?;
        self.tell_epoch(&found, better);
        if better {
            self.save(CheckpointKind::Best)?;
        }
        self.save(CheckpointKind::Last)
    }

    /// A line for people.
    fn tell_epoch(&self, found: &BTreeMap<String, f64>, better: bool) {
        if self.learner.group.rank() != 0 {
            return;
        }
        let of = |name: &str| found.get(name).copied().unwrap_or(f64::NAN);
        let metric = &self.spec.metric;
        protocol::log(&format!(
            "epoch {} of {}, step {}: train/loss {:.4}, val/loss {:.4}, {metric} {:.4}{}",
            self.state.epoch,
            self.spec.train.epochs,
            self.state.step,
            of("train/loss"),
            of("val/loss"),
            of(metric),
            if better { ", the best so far" } else { "" }
        ));
    }

    /// Where the trial stands, for people.
    fn tell_start(&self) {
        let network = &self.learner.network;
        let (group, state) = (&self.learner.group, &self.state);
        let place = match state.step {
            0 => "begins".to_owned(),
            step => format!("resumes at step {step}"),
        };
        protocol::log(&format!(
            "rank {} of {} {place}: {}, {} of {} blocks frozen, {} images to train on, {} steps an \
             epoch, {} thread(s)",
            group.rank(),
            group.world_size(),
            network.arch().name(),
            state.frozen_blocks,
            network.blocks().len(),
            self.labels.len(),
            self.steps_per_epoch,
            self.threads
        ));
    }

    fn observed(&self, metrics: &BTreeMap<String, f64>, confusion: Vec<Vec<u64>>) {
        if self.learner.group.rank() == 0 {
            self.listener.say(&Event::Observed {
                trial: self.work.trial,
                step: self.state.step,
                epoch: self.state.epoch,
                metrics: metrics.clone(),
                confusion,
            });
        }
    }

    /// Whether this evaluation is the best so far; ties by validation loss.
    fn judge(&mut self, metrics: &BTreeMap<String, f64>) -> Result<bool, Fault> {
        let name = &self.spec.metric;
        let value = *metrics.get(name).ok_or_else(|| {
            Fault::new(Code::BadMetric, format!("there is no metric `{name}`")).hint(format!(
                "use one of {}",
                pomona_domain::spec::METRICS.join(", ")
            ))
        })?;
        let loss = metrics.get("val/loss").copied().unwrap_or(f64::INFINITY);
        let better = self.state.best.as_ref().is_none_or(|best| {
            self.spec.direction.is_better(value, best.value)
                || (value == best.value && loss < best.loss)
        });
        if better {
            let (step, epoch) = (self.state.step, self.state.epoch);
            self.state.best = Some(Best {
                value,
                loss,
                step,
                epoch,
            });
        }
        Ok(better)
    }

    /// Writes and announces a checkpoint; rank 0's work.
    pub(super) fn save(&mut self, kind: CheckpointKind) -> Result<(), Fault> {
        let Some(keeper) = &mut self.keeper else {
            return Ok(());
        };
        let begun = Instant::now();
        let bytes =
            checkpoint::encode(&self.learner.network, &self.learner.optimizer, &self.state)?;
        let written = keeper.write(kind, self.state.step, &bytes)?;
        self.listener.say(&Event::Checkpoint {
            trial: self.work.trial,
            checkpoint: kind,
            step: self.state.step,
            epoch: self.state.epoch,
            path: written.path.clone(),
            digest: written.digest,
            size: written.size,
            seconds: begun.elapsed().as_secs_f64(),
        });
        keeper.announced(kind, &written.path);
        Ok(())
    }

    /// Counts a step, and now and then says so.
    pub(super) fn progress(&mut self, samples: usize, waited: f64, seconds: f64) {
        self.life.samples += samples as u64;
        self.life.data_wait_seconds += waited;
        self.life.step_seconds += seconds;
        let due = self
            .life
            .said
            .is_none_or(|said| said.elapsed() >= PROGRESS_EVERY);
        if due || self.state.position == self.steps_per_epoch {
            self.life.said = Some(Instant::now());
            self.listener.say(&progress(
                &self.state,
                &self.learner.group,
                &self.life,
                self.total_steps(),
            ));
        }
    }
}

fn progress(state: &State, group: &Group, life: &Life, total_steps: u64) -> Event {
    Event::Progress {
        rank: group.rank(),
        step: state.step,
        total_steps,
        epoch: state.epoch + 1,
        samples: life.samples,
        data_wait_seconds: life.data_wait_seconds,
        step_seconds: life.step_seconds,
    }
}

/// Sets threads as the trial first had them, and refuses what cannot be matched.
fn resolve_environment(
    command: &Command,
    resumed: Option<&(Content, State)>,
) -> Result<BTreeMap<String, String>, Fault> {
    let saved = resumed.map(|(_, state)| &state.environment);
    let threads = saved
        .and_then(|saved| saved.get("threads")?.parse().ok())
        .unwrap_or(command.threads.max(1));
    set_threads(threads);
    let here = environment(command, threads);
    match saved {
        Some(saved) if *saved != here => Err(Fault::new(
            Code::ResumeMismatch,
            format!("the trial began with {saved:?}, this machine has {here:?}"),
        )
        .hint("resume it on a machine like the first, or submit it again")),
        _ => Ok(here),
    }
}

/// Threads are part of a result: convolution gradients differ between one and two.
pub fn set_threads(threads: u32) {
    tch::set_num_threads(threads as i32);
}

fn first_state(
    command: &Command,
    work: &TrainWork,
    environment: BTreeMap<String, String>,
    dataset: &Dataset,
) -> Result<State, Fault> {
    Ok(State {
        format: FORMAT,
        arch: work.backbone.arch.clone(),
        classes: dataset.classes().len() as u32,
        backbone: work.backbone.digest,
        spec: checkpoint::spec_digest(&work.spec)?,
        dataset: dataset.digest(),
        world_size: command.world_size,
        frozen_blocks: 0,
        step: 0,
        epoch: 0,
        position: 0,
        loss_sum: 0.0,
        weight_sum: 0.0,
        best: None,
        environment,
        features: None,
    })
}

fn of_another(what: &str) -> Fault {
    let message = format!("the checkpoint is of another {what}");
    Fault::new(Code::BadCheckpoint, message)
}

/// Whether the checkpoint is the trial's own. Its freeze plan is compared when there is a network.
fn check_resume(fresh: &State, saved: &State) -> Result<(), Fault> {
    let wrong = |what: &str| Err(of_another(what));
    if saved.spec != fresh.spec {
        return wrong("spec");
    }
    if saved.backbone != fresh.backbone || saved.arch != fresh.arch {
        return wrong("backbone");
    }
    if saved.dataset != fresh.dataset || saved.classes != fresh.classes {
        return wrong("data set");
    }
    if saved.world_size != fresh.world_size {
        return wrong("world size");
    }
    Ok(())
}

/// The backbone with a new head, frozen as the spec says.
fn build_network(
    work: &TrainWork,
    arch: Arch,
    classes: u32,
    device: Device,
) -> Result<Network, Fault> {
    let plan = HeadPlan {
        head: work.spec.transfer.head.clone(),
        classes,
    };
    let mut network = Network::new(arch, &plan, Kind::Float, device);
    network.load_backbone(&weights::read_checked(
        &work.backbone.weights,
        work.backbone.digest,
    )?)?;
    network.draw_head(work.spec.seed, work.spec.replicate);
    let depth = network.resolve(&work.spec.transfer.frozen_depth)?;
    network.freeze(depth);
    Ok(network)
}
