//! How a training starts: the device, the threads, what a resume must match.

use crate::checkpoint::{self, FORMAT, State, file::Content};
use crate::data::Dataset;
use crate::dist::ffi;
use crate::fault;
use crate::network::{Arch, HeadPlan, Network};
use crate::weights;
use pomona_api::trainer::{BackboneFiles, Command, Member, TrainWork};
use pomona_domain::spec::TrialSpec;
use pomona_domain::worker::SlotKind;
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use tch::{Device, Kind};

/// A checkpoint that was read.
pub(super) type Resumed = (Content, State);

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

/// Threads are part of a result: convolution gradients differ between one and two.
pub fn set_threads(threads: u32) {
    tch::set_num_threads(threads as i32);
}

/// Sets threads as the first of the trials that resume had them, and gives what the machine is.
pub(super) fn settle_environment<'a>(
    command: &Command,
    resumed: impl IntoIterator<Item = &'a Resumed>,
) -> BTreeMap<String, String> {
    let threads = resumed
        .into_iter()
        .find_map(|(_, saved)| saved.environment.get("threads")?.parse().ok())
        .unwrap_or(command.threads.max(1));
    set_threads(threads);
    environment(command, threads)
}

/// Where a trial stands before its first step, or where its checkpoint stood. Its freeze plan is
/// settled when there is a network: [`freeze_plan`].
pub(super) fn stand(
    member: &Member,
    resumed: Option<&Resumed>,
    fresh: &State,
) -> Result<State, Fault> {
    let fresh = State {
        spec: checkpoint::spec_digest(&member.spec)?,
        ..fresh.clone()
    };
    match resumed {
        None => Ok(fresh),
        Some((_, saved)) => {
            check_resume(&fresh, saved)?;
            Ok(saved.clone())
        }
    }
}

/// The freeze plan of a trial is that of its spec, and of its checkpoint.
pub(super) fn freeze_plan(state: &mut State, depth: usize) -> Result<(), Fault> {
    let depth = depth as u32;
    if state.step > 0 && state.frozen_blocks != depth {
        return Err(of_another("freeze plan"));
    }
    state.frozen_blocks = depth;
    Ok(())
}

/// The state of any trial of this work before its first step, but for its spec and freeze plan.
pub(super) fn fresh_state(
    command: &Command,
    work: &TrainWork,
    environment: BTreeMap<String, String>,
    dataset: &Dataset,
) -> State {
    State {
        format: FORMAT,
        arch: work.backbone.arch.clone(),
        classes: dataset.classes().len() as u32,
        backbone: work.backbone.digest,
        spec: work.backbone.digest,
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
    }
}

/// Whether the checkpoint is the trial's own and of a machine like this one.
fn check_resume(fresh: &State, saved: &State) -> Result<(), Fault> {
    let another = |what: &str| Err(of_another(what));
    if saved.environment != fresh.environment {
        let (saved, here) = (&saved.environment, &fresh.environment);
        return Err(Fault::new(
            Code::ResumeMismatch,
            format!("the trial began with {saved:?}, this machine has {here:?}"),
        )
        .hint("resume it on a machine like the first, or submit it again"));
    }
    if saved.spec != fresh.spec {
        return another("spec");
    }
    if saved.backbone != fresh.backbone || saved.arch != fresh.arch {
        return another("backbone");
    }
    if saved.dataset != fresh.dataset || saved.classes != fresh.classes {
        return another("data set");
    }
    if saved.world_size != fresh.world_size {
        return another("world size");
    }
    Ok(())
}

fn of_another(what: &str) -> Fault {
    let message = format!("the checkpoint is of another {what}");
    Fault::new(Code::BadCheckpoint, message)
}

/// The backbone with a new head that is still to be drawn, frozen as the spec says.
pub(super) fn build_network(
    backbone: &BackboneFiles,
    spec: &TrialSpec,
    classes: u32,
    device: Device,
) -> Result<Network, Fault> {
    let plan = HeadPlan {
        head: spec.transfer.head.clone(),
        classes,
    };
    let arch = Arch::parse(&backbone.arch)?;
    let mut network = Network::new(arch, &plan, Kind::Float, device);
    network.load_backbone(&weights::read_checked(&backbone.weights, backbone.digest)?)?;
    let depth = network.resolve(&spec.transfer.frozen_depth)?;
    network.freeze(depth);
    Ok(network)
}
