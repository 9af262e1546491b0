//! Trials whose backbone is frozen as a whole, trained side by side in one process over one pass of
//! the features (Pomona's *fused* lease). A trial that has its lease for itself is trained here too.
//!
//! A trial's result never depends on who trains beside it. Heads of one shape lie in one tensor and
//! are multiplied together; libtorch's batched product gives each of them the same bits beside any
//! others (checked for every shape that tests draw), and everything else is done for each trial by
//! itself, in the same order, by the same code. Randomness is keyed by replicate, never by trial.

mod cross;
mod heads;
mod lane;
mod loss;
mod stack;
mod trainee;

use super::life::Life;
use super::source::{Mine, Source, Wish, same_features};
use super::start::{
    Resumed, build_network, device, freeze_plan, fresh_state, settle_environment, stand,
};
use super::{Ended, worth_a_retry};
use crate::checkpoint;
use crate::data::Dataset;
use crate::fault;
use crate::network::{Arch, HeadPlan, Network};
use crate::protocol::{self, Listener};
use lane::Lane;
use pomona_api::trainer::{Command, Event, Member, TrainWork};
use pomona_domain::dataset::Split;
use pomona_domain::report::Outcome;
use pomona_domain::spec::{FrozenDepth, Share};
use pomona_domain::view::View;
use pomona_domain::{Code, Fault};
use stack::Stack;
use std::sync::Arc;
use tch::{Device, Kind};

pub use heads::Heads;
pub use lane::SAVE_ENV;
pub use loss::CrossEntropy;

/// Whether all trials of the lease can be trained here.
pub fn takes(command: &Command, work: &TrainWork) -> bool {
    let shares = |member: &Member| {
        let spec = &member.spec;
        spec.share == Share::Auto && is_whole(work, &spec.transfer.frozen_depth)
    };
    command.world_size == 1 && !work.members.is_empty() && work.members.iter().all(shares)
}

/// Whether a depth freezes all blocks. What it cannot tell, it leaves to who trains by autograd.
fn is_whole(work: &TrainWork, depth: &FrozenDepth) -> bool {
    if matches!(depth, FrozenDepth::Named(name) if name == "all") {
        return true;
    }
    let Ok(arch) = Arch::parse(&work.backbone.arch) else {
        return false;
    };
    let network = Network::new(arch, &HeadPlan::linear(1), Kind::Float, Device::Cpu);
    let whole = network.blocks().len();
    network.resolve(depth).is_ok_and(|depth| depth == whole)
}

/// Trains the trials of a lease, each from its checkpoint if it has one.
pub fn train(command: &Command, work: &TrainWork, listener: &dyn Listener) -> Result<Ended, Fault> {
    let (mut hall, lanes) = Hall::open(command, work, listener)?;
    let Some(lanes) = hall.find_features(work, lanes)? else {
        return Ok(Ended::Stopped);
    };
    let mut stacks = Stack::sort(lanes, &hall)?;
    while !stacks.is_empty() {
        for at in 0..stacks.len() {
            if stacks[at].run_epoch(&mut hall)? == Ended::Stopped {
                stacks.iter_mut().try_for_each(Stack::save)?;
                return Ok(Ended::Stopped);
            }
            hall.others = (stacks.iter().enumerate())
                .filter(|(other, _)| *other != at)
                .map(|(_, stack)| stack.len())
                .sum();
            if stacks[at].end_epoch(&mut hall)? == Ended::Stopped {
                stacks.iter_mut().try_for_each(Stack::save)?;
                return Ok(Ended::Stopped);
            }
        }
        stacks.retain(|stack| stack.len() > 0);
    }
    Ok(Ended::Finished)
}

/// What all trials of the lease share.
struct Hall<'a> {
    network: Network,
    source: Source,
    listener: &'a dyn Listener,
    life: Life,
    /// Steps made, of all trials together.
    steps: u64,
    /// Whether the lease has several trials.
    is_shared: bool,
    /// Trials under way outside the stack that is at work.
    others: usize,
}

impl<'a> Hall<'a> {
    fn open(
        command: &Command,
        work: &'a TrainWork,
        listener: &'a dyn Listener,
    ) -> Result<(Self, Vec<Lane<'a>>), Fault> {
        let resumed: Vec<Result<Option<Resumed>, Fault>> = (work.members.iter())
            .map(|member| member.resume.as_deref().map(checkpoint::read).transpose())
            .collect();
        let environment = settle_environment(command, resumed.iter().flatten().flatten());
        let dataset = Arc::new(Dataset::open(&work.data.manifest, &work.data.archive)?);
        Arch::parse(&work.backbone.arch)?.check_image(dataset.size())?;
        let fresh = fresh_state(command, work, environment, &dataset);
        let first = &features_agree(work)?.spec;
        let network = build_network(&work.backbone, first, fresh.classes, device(command)?)?;
        let threads = command.threads.max(1) as usize;
        let mut hall = Self {
            source: Source::new(dataset, threads),
            listener,
            life: Life::new(command.rank, 0),
            steps: 0,
            is_shared: work.members.len() > 1,
            others: 0,
            network,
        };
        let mut lanes = Vec::new();
        for (member, resumed) in work.members.iter().zip(resumed) {
            let lane = resumed.and_then(|resumed| {
                let mut state = stand(member, resumed.as_ref(), &fresh)?;
                freeze_plan(&mut state, hall.network.depth())?;
                Lane::open(member, state, resumed.as_ref(), &hall)
            });
            match lane {
                Ok(lane) => lanes.push(lane),
                Err(fault) => hall.failed(member, fault)?,
            }
        }
        lane::check_memory(&lanes)?;
        let images = hall.source.labels.len();
        let steps = |lane: &Lane<'_>| lane.own.total_steps() + cross::steps(lane.spec(), images);
        let total = lanes.iter().map(steps).sum();
        hall.steps = lanes.iter().map(|lane| lane.record.state.step).sum();
        hall.life = Life::new(command.rank, total);
        hall.tell_start(&lanes);
        Ok((hall, lanes))
    }

    /// Finds or computes features. Nothing when it was asked to stop meanwhile.
    fn find_features(
        &mut self,
        work: &TrainWork,
        lanes: Vec<Lane<'a>>,
    ) -> Result<Option<Vec<Lane<'a>>>, Fault> {
        let wants = lanes.iter().find(|lane| !lane.began_on_pixels());
        if let (Some(place), Some(lane)) = (&work.features, wants) {
            let wish = Wish {
                place,
                network: &self.network,
                train: &lane.spec().train,
                environment: &lane.record.state.environment,
                listener: self.listener,
                rank: 0,
            };
            match self.source.ask(&wish)? {
                Mine::Ready(features) => self.source.features = Some(*features),
                Mine::NoRoom => {}
                Mine::Stopped => return Ok(None),
            }
        }
        let found = (self.source.features.as_ref()).map(|features| features.digest);
        let mut kept = Vec::new();
        for mut lane in lanes {
            let state = &mut lane.record.state;
            let digest = found.filter(|_| state.step == 0 || state.features.is_some());
            match same_features((state.features, state.step), digest) {
                Ok(()) => {
                    state.features = digest;
                    kept.push(lane);
                }
                Err(fault) => self.failed(lane.record.member, fault)?,
            }
        }
        Ok(Some(kept))
    }

    /// A trial fails by itself; alone on its lease, the lease fails.
    fn failed(&self, member: &Member, fault: Fault) -> Result<(), Fault> {
        if !self.is_shared {
            return Err(fault);
        }
        let trial = member.trial;
        protocol::log(&format!(
            "{trial}: error[{}]: {}",
            fault.code, fault.message
        ));
        let retry = worth_a_retry(&fault);
        self.listener.say(&Event::TrialEnded {
            trial,
            outcome: Outcome::Failed { fault, retry },
        });
        Ok(())
    }

    /// A trial is done; `left` others are not.
    fn finished(&self, member: &Member, left: usize) {
        if left > 0 {
            self.listener.say(&Event::TrialEnded {
                trial: member.trial,
                outcome: Outcome::Finished,
            });
        }
    }

    /// Where the trials stand, for people.
    fn tell_start(&self, lanes: &[Lane<'a>]) {
        let together = match lanes.len() {
            1 => String::new(),
            count => format!(", {count} trials side by side"),
        };
        protocol::log(&format!(
            "{}, all {} blocks frozen{together}, {} images to train on, {} thread(s)",
            self.network.arch().name(),
            self.network.depth(),
            self.source.labels.len(),
            self.source.threads
        ));
        for lane in lanes {
            let state = &lane.record.state;
            lane.record.log(&match state.step {
                0 => "begins".to_owned(),
                step => format!("resumes at step {step}"),
            });
        }
    }

    /// Labels of the validation split.
    fn validation_labels(&self) -> Vec<u32> {
        self.source.dataset.labels(Split::Val)
    }
}

/// The first member, if all read the same features.
fn features_agree(work: &TrainWork) -> Result<&Member, Fault> {
    let first = (work.members.first()).ok_or_else(|| fault::internal("the lease has no trial"))?;
    let read = |member: &Member| {
        let train = &member.spec.train;
        (View::all(&train.augment), train.precision)
    };
    if (work.members.iter()).any(|member| read(member) != read(first)) {
        return Err(Fault::new(
            Code::BadRequest,
            "the trials of the lease do not see the same views in the same precision",
        ));
    }
    Ok(first)
}
