//! What a trial's steps and evaluations take in: pixels that go through the frozen blocks each time,
//! or features that were computed once.
//!
//! Which of the two is settled before the first step and never changes: their bits may differ.

use super::Ended;
use super::epoch::Step;
use super::evaluate::{Evaluation, evaluate, evaluate_features};
use super::trial::{PROGRESS_EVERY, Trial};
use crate::data::{Loader, Pick};
use crate::fault;
use crate::features::{Features, Outcome, Request, Store};
use crate::protocol;
use pomona_api::trainer::{Event, FeatureResult};
use pomona_domain::dataset::Split;
use pomona_domain::spec::Share;
use pomona_domain::{Code, Fault};
use std::sync::Arc;
use std::time::Instant;
use tch::Tensor;

/// The images of an epoch, on their way.
pub(super) enum Feed {
    /// Batches of pixels; steps without a part for this rank have none.
    Pixels(Loader),
    /// Rows of the features.
    Features,
}

/// This rank's part of a step.
pub(super) struct Input {
    /// The activations at the cut.
    pub(super) x: Tensor,
    /// Labels.
    pub(super) labels: Vec<u32>,
    /// Numbers in the training split.
    pub(super) samples: Vec<usize>,
    /// Seconds that the network waited for data.
    pub(super) waited_seconds: f64,
}

/// What a rank got, as the others count it.
enum Mine {
    Ready(Box<Features>),
    NoRoom,
    NotWanted,
    Stopped,
}

impl Trial<'_> {
    /// Finds or computes the features that the trial reads, if it reads any. Says `Stopped` when
    /// any rank was asked to stop meanwhile: nothing new is to be saved.
    pub(super) fn find_features(&mut self) -> Result<Ended, Fault> {
        let begun = Instant::now();
        let mine = self.ask_for_features()?;
        // All ranks read features, or none does.
        let mut counts = [matches!(mine, Mine::Stopped), matches!(mine, Mine::NoRoom)]
            .map(|so| f64::from(u8::from(so)));
        self.learner.group.sum(&mut counts)?;
        let [stopped, without_room] = counts;
        if stopped > 0.0 {
            return Ok(Ended::Stopped);
        }
        let found = match mine {
            Mine::Ready(features) if without_room == 0.0 => Some(*features),
            Mine::Ready(_) | Mine::NoRoom | Mine::NotWanted | Mine::Stopped => None,
        };
        if let Some(features) = &found {
            self.tell_features(features, begun);
        }
        let digest = found.as_ref().map(|features| features.digest);
        if self.state.step > 0 && digest != self.state.features {
            return Err(Fault::new(
                Code::ResumeMismatch,
                "the trial began on other features of its frozen blocks than this machine has",
            )
            .hint("resume it on a machine like the first, with as much room for features (`features.max_bytes`)"));
        }
        self.state.features = digest;
        self.features = found;
        Ok(Ended::Finished)
    }

    fn ask_for_features(&self) -> Result<Mine, Fault> {
        let network = &self.learner.network;
        let began_without = self.state.step > 0 && self.state.features.is_none();
        let place = match &self.work.features {
            Some(place)
                if self.spec.share == Share::Auto && network.depth() > 0 && !began_without =>
            {
                place
            }
            Some(_) | None => return Ok(Mine::NotWanted),
        };
        let begun = Instant::now();
        let rank = self.learner.group.rank();
        let request = Request {
            network,
            dataset: &self.dataset,
            mirrored: self.spec.train.augment.mirrors(),
            environment: &self.state.environment,
            precision: self.spec.train.precision,
            threads: self.threads,
        };
        let mut beat = self.beat();
        let outcome = request.get(&Store::open(&place.folder, place.max_bytes)?, || {
            beat();
            !self.listener.stop_wanted()
        })?;
        let say = |result, bytes| {
            self.listener.say(&Event::Features {
                rank,
                result,
                bytes,
                seconds: begun.elapsed().as_secs_f64(),
            });
        };
        Ok(match outcome {
            Outcome::Ready(features) => {
                let result = match features.computed {
                    0 => FeatureResult::Hit,
                    _ => FeatureResult::Built,
                };
                say(result, features.bytes);
                Mine::Ready(Box::new(features))
            }
            Outcome::NoRoom(bytes) => {
                say(FeatureResult::NoRoom, bytes);
                protocol::log(&format!(
                    "features of {bytes} bytes do not fit into {} bytes beside those in use: the \
                     frozen blocks run in every epoch",
                    place.max_bytes
                ));
                Mine::NoRoom
            }
            Outcome::Stopped => Mine::Stopped,
        })
    }

    /// A line for people.
    fn tell_features(&self, features: &Features, begun: Instant) {
        let network = &self.learner.network;
        let block = network.blocks().get(network.depth().wrapping_sub(1));
        let how = match features.computed {
            0 => "all there".to_owned(),
            computed if computed == features.bytes => "computed now".to_owned(),
            computed => format!("{computed} bytes of them computed now"),
        };
        protocol::log(&format!(
            "reads {} bytes of features at `{}`, {how}, {:.1} s",
            features.bytes,
            block.map_or("", |block| block.name.as_str()),
            begun.elapsed().as_secs_f64()
        ));
    }

    /// Says now and then that this rank works, though it makes no step.
    fn beat(&self) -> impl FnMut() + '_ {
        let rank = self.learner.group.rank();
        let mut last = Instant::now();
        move || {
            if last.elapsed() > PROGRESS_EVERY {
                last = Instant::now();
                self.listener.say(&Event::Evaluating { rank });
            }
        }
    }

    /// What `steps` take in.
    pub(super) fn feed(&self, steps: &[Step]) -> Feed {
        if self.features.is_some() {
            return Feed::Features;
        }
        let picks: Vec<Pick> = steps
            .iter()
            .flat_map(|step| step.local.iter().copied())
            .collect();
        let sizes = steps
            .iter()
            .map(|step| step.local.len())
            .filter(|&size| size > 0)
            .collect();
        let dataset = Arc::clone(&self.dataset);
        Feed::Pixels(Loader::new(
            dataset,
            Split::Train,
            picks,
            sizes,
            self.threads,
        ))
    }

    /// This rank's part of the next step, if it has one.
    pub(super) fn input(&self, feed: &mut Feed, step: &Step) -> Result<Option<Input>, Fault> {
        if step.local.is_empty() {
            return Ok(None);
        }
        let begun = Instant::now();
        let network = &self.learner.network;
        let (x, waited_seconds) = match (feed, &self.features) {
            (Feed::Features, Some(features)) => {
                let x = features.gather(&step.local, network.device());
                (x, begun.elapsed().as_secs_f64())
            }
            (Feed::Pixels(loader), _) => {
                let batch = loader
                    .next()
                    .ok_or_else(|| fault::internal("the loader ended before the epoch"))??;
                let waited = begun.elapsed().as_secs_f64();
                let x = network.arch().preprocess().apply(
                    &batch.pixels,
                    batch.labels.len(),
                    self.dataset.size(),
                    network.kind(),
                    network.device(),
                );
                (network.at_cut(&x), waited)
            }
            (Feed::Features, None) => return Err(fault::internal("the features are gone")),
        };
        Ok(Some(Input {
            x,
            labels: step
                .local
                .iter()
                .map(|pick| self.labels[pick.index])
                .collect(),
            samples: step.local.iter().map(|pick| pick.index).collect(),
            waited_seconds,
        }))
    }

    /// Evaluates the validation split as the network stands.
    pub(super) fn validate(&self) -> Result<Evaluation, Fault> {
        let (network, group) = (&self.learner.network, &self.learner.group);
        let beat = self.beat();
        match &self.features {
            Some(features) => evaluate_features(network, features, &self.dataset, group, beat),
            None => evaluate(
                network,
                &self.dataset,
                Split::Val,
                group,
                self.threads,
                beat,
            ),
        }
    }
}
