//! A trial that is trained by itself, over one rank or several, its gradients by autograd: its data,
//! its network and where it stands; how it starts, resumes and saves.

use super::Ended;
use super::epoch::{Plan, Step, steps_of};
use super::evaluate::{Evaluation, evaluate, evaluate_features};
use super::learner::{Learner, Loss};
use super::life::{Lap, Life, beat};
use super::record::Record;
use super::source::{Mine, Source, Wish, same_features};
use super::start::{build_network, device, freeze_plan, fresh_state, settle_environment, stand};
use crate::checkpoint::{self, State};
use crate::data::Dataset;
use crate::dist::Group;
use crate::network::{Arch, Network};
use crate::optim::Optimizer;
use crate::protocol::{self, Listener};
use pomona_api::trainer::{Command, TrainWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::Split;
use pomona_domain::spec::{Share, TrialSpec};
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A trial under way.
pub struct Trial<'a> {
    pub(super) learner: Learner,
    pub(super) spec: &'a TrialSpec,
    pub(super) record: Record<'a>,
    pub(super) source: Source,
    pub(super) steps_per_epoch: u64,
    work: &'a TrainWork,
    life: Life,
}

impl<'a> Trial<'a> {
    /// Reads everything, joins the ranks, and stands where the checkpoint stood.
    pub fn prepare(
        command: &Command,
        work: &'a TrainWork,
        listener: &'a dyn Listener,
    ) -> Result<Self, Fault> {
        let [member] = work.members.as_slice() else {
            return Err(Fault::new(
                Code::BadRequest,
                "only trials whose backbone is frozen as a whole, in one rank, share a lease",
            ));
        };
        let resumed = member.resume.as_deref().map(checkpoint::read).transpose()?;
        let environment = settle_environment(command, &resumed);
        let dataset = Arc::new(Dataset::open(&work.data.manifest, &work.data.archive)?);
        Arch::parse(&work.backbone.arch)?.check_image(dataset.size())?;
        let fresh = fresh_state(command, work, environment, &dataset);
        let mut state = stand(member, resumed.as_ref(), &fresh)?;
        let (spec, device) = (&member.spec, device(command)?);
        let network = build_network(&work.backbone, spec, state.classes, device)?;
        network.draw_head(spec.seed, spec.replicate);
        freeze_plan(&mut state, network.depth())?;
        let mut optimizer = Optimizer::new(&spec.train.optimizer, network.trainable());
        if let Some((content, _)) = &resumed {
            checkpoint::load_live(content, network.live())?;
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
        let source = Source::new(dataset, command.threads.max(1) as usize);
        let classes = state.classes as usize;
        let loss = Loss::new(&network, &spec.train, classes, &source.labels);
        let steps_per_epoch = steps_of(source.labels.len(), spec.train.batch_size);
        let total_steps = steps_per_epoch * u64::from(spec.train.epochs);
        let trial = Self {
            life: Life::new(group.rank(), total_steps),
            record: Record::open(member, state, listener, group.rank() == 0, false)?,
            learner: Learner::new(group, network, optimizer, loss)?,
            spec,
            source,
            steps_per_epoch,
            work,
        };
        trial.tell_start();
        Ok(trial)
    }

    /// The network as it stands.
    pub fn network(&self) -> &Network {
        &self.learner.network
    }

    /// Where it stands.
    pub(super) fn state(&self) -> &State {
        &self.record.state
    }

    pub(super) fn total_steps(&self) -> u64 {
        self.steps_per_epoch * u64::from(self.spec.train.epochs)
    }

    /// Finds or computes the features that the trial reads, if it reads any. Says `Stopped` when
    /// any rank was asked to stop meanwhile: nothing new is to be saved.
    pub(super) fn find_features(&mut self) -> Result<Ended, Fault> {
        let mine = self.ask_for_features()?;
        // All ranks read features, or none does.
        let mut counts = [
            matches!(mine, Some(Mine::Stopped)),
            matches!(mine, Some(Mine::NoRoom)),
        ]
        .map(|so| f64::from(u8::from(so)));
        self.learner.group.sum(&mut counts)?;
        let [stopped, without_room] = counts;
        if stopped > 0.0 {
            return Ok(Ended::Stopped);
        }
        let found = match mine {
            Some(Mine::Ready(features)) if without_room == 0.0 => Some(*features),
            Some(Mine::Ready(_) | Mine::NoRoom | Mine::Stopped) | None => None,
        };
        let digest = found.as_ref().map(|features| features.digest);
        let state = &mut self.record.state;
        same_features((state.features, state.step), digest)?;
        state.features = digest;
        self.source.features = found;
        Ok(Ended::Finished)
    }

    fn ask_for_features(&self) -> Result<Option<Mine>, Fault> {
        let (network, state) = (&self.learner.network, self.state());
        let began_without = state.step > 0 && state.features.is_none();
        let Some(place) = &self.work.features else {
            return Ok(None);
        };
        if self.spec.share == Share::Off || network.depth() == 0 || began_without {
            return Ok(None);
        }
        let wish = Wish {
            place,
            network,
            train: &self.spec.train,
            environment: &state.environment,
            listener: self.record.listener,
            rank: self.learner.group.rank(),
        };
        self.source.ask(&wish).map(Some)
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
        plan.steps(&self.source.labels, self.state().epoch)
            .split_off(self.state().position as usize)
    }

    /// Evaluates, says so, and keeps the checkpoints.
    pub(super) fn end_epoch(&mut self) -> Result<(), Fault> {
        self.learner.share_statistics()?;
        let evaluation = self.validate()?;
        let classes = self.source.dataset.classes();
        if self
            .record
            .end_epoch(classes, &evaluation.report, BTreeMap::new())?
        {
            self.save(CheckpointKind::Best)?;
        }
        self.save(CheckpointKind::Last)
    }

    /// Evaluates the validation split as the network stands.
    fn validate(&self) -> Result<Evaluation, Fault> {
        let (network, group) = (&self.learner.network, &self.learner.group);
        let Source {
            dataset, threads, ..
        } = &self.source;
        let beat = beat(self.record.listener, group.rank());
        match &self.source.features {
            Some(features) => evaluate_features(network, features, dataset, group, beat),
            None => evaluate(network, dataset, Split::Val, group, *threads, beat),
        }
    }

    /// Where the trial stands, for people.
    fn tell_start(&self) {
        let network = &self.learner.network;
        let (group, state) = (&self.learner.group, self.state());
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
            self.source.labels.len(),
            self.steps_per_epoch,
            self.source.threads
        ));
    }

    /// Writes and announces a checkpoint; rank 0's work.
    pub(super) fn save(&mut self, kind: CheckpointKind) -> Result<(), Fault> {
        if !self.record.keeps() {
            return Ok(());
        }
        let Learner {
            network, optimizer, ..
        } = &self.learner;
        let bytes = checkpoint::encode(network.live(), optimizer, &self.record.state)?;
        let at = (self.state().step, self.state().epoch);
        self.record.keep(kind, at, &bytes)
    }

    /// Counts a step, and now and then says so.
    pub(super) fn progress(&mut self, lap: Lap) {
        let state = &self.record.state;
        let is_last = state.position == self.steps_per_epoch;
        let at = (state.step, state.epoch + 1);
        self.life.step(self.record.listener, at, lap, is_last);
    }
}
