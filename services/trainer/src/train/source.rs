//! What steps and evaluations take in: pixels that go through the frozen blocks each time, or features
//! that were computed once.
//!
//! Which of the two is settled before the first step and never changes: their bits may differ.

use super::epoch::Step;
use super::life::{Lap, beat};
use crate::data::{Dataset, Loader, Pick};
use crate::fault;
use crate::features::{Features, Outcome, Pace, Request, Store};
use crate::network::Network;
use crate::protocol::{self, Listener};
use pomona_api::trainer::{Event, FeatureResult, FeatureStore};
use pomona_domain::dataset::Split;
use pomona_domain::spec::Train;
use pomona_domain::view::View;
use pomona_domain::{Code, Digest, Fault};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tch::Tensor;

/// Where images come from.
pub(super) struct Source {
    pub(super) dataset: Arc<Dataset>,
    /// Labels of the training split.
    pub(super) labels: Vec<u32>,
    /// Features of the frozen blocks, when they are read instead of pixels.
    pub(super) features: Option<Features>,
    /// Threads that decode.
    pub(super) threads: usize,
}

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

impl Input {
    /// What a step of `heads` side by side took.
    pub(super) fn lap(&self, heads: usize, begun: Instant) -> Lap {
        Lap {
            samples: self.labels.len() * heads,
            waited_seconds: self.waited_seconds,
            seconds: begun.elapsed().as_secs_f64(),
        }
    }
}

/// Features that are asked for.
pub(super) struct Wish<'a> {
    pub(super) place: &'a FeatureStore,
    pub(super) network: &'a Network,
    /// Of the trials that will read them, which agree on views and precision.
    pub(super) train: &'a Train,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) listener: &'a dyn Listener,
    pub(super) rank: u32,
}

/// What came of it.
pub(super) enum Mine {
    Ready(Box<Features>),
    NoRoom,
    Stopped,
}

impl Source {
    pub(super) fn new(dataset: Arc<Dataset>, threads: usize) -> Self {
        Self {
            labels: dataset.labels(Split::Train),
            dataset,
            features: None,
            threads,
        }
    }

    /// Finds or computes features, and says how that came out.
    pub(super) fn ask(&self, wish: &Wish<'_>) -> Result<Mine, Fault> {
        let begun = Instant::now();
        let request = Request {
            network: wish.network,
            dataset: &self.dataset,
            views: View::all(&wish.train.augment),
            precision: wish.train.precision,
            environment: wish.environment,
            threads: self.threads,
        };
        let mut beat = beat(wish.listener, wish.rank);
        let store = Store::open(&wish.place.folder, wish.place.max_bytes)?;
        let pace = store.pace();
        let outcome = request.get(&store, || {
            beat();
            tell_pace(wish, &pace);
            !wish.listener.stop_wanted()
        })?;
        let say = |result, bytes| {
            wish.listener.say(&Event::Features {
                rank: wish.rank,
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
                tell(wish.network, &features, begun);
                Mine::Ready(Box::new(features))
            }
            Outcome::NoRoom(bytes) => {
                say(FeatureResult::NoRoom, bytes);
                protocol::log(&format!(
                    "features of {bytes} bytes do not fit into {} bytes beside those in use: the \
                     frozen blocks run in every epoch",
                    wish.place.max_bytes
                ));
                Mine::NoRoom
            }
            Outcome::Stopped => Mine::Stopped,
        })
    }

    /// What `steps` take in, for who reads features where they are, or goes on without.
    pub(super) fn feed(&self, steps: &[Step], reads_features: bool) -> Feed {
        if reads_features && self.features.is_some() {
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
        let loader = Loader::new(dataset, Split::Train, picks, sizes, self.threads);
        Feed::Pixels(loader)
    }

    /// This rank's part of the next step, if it has one.
    pub(super) fn input(
        &self,
        network: &Network,
        feed: &mut Feed,
        step: &Step,
    ) -> Result<Option<Input>, Fault> {
        if step.local.is_empty() {
            return Ok(None);
        }
        let begun = Instant::now();
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
                let side = self.dataset.size();
                let x = network.input(&batch.pixels, batch.labels.len(), side);
                (network.at_cut(&x), waited)
            }
            (Feed::Features, None) => return Err(fault::internal("the features are gone")),
        };
        let labels = step.local.iter().map(|pick| self.labels[pick.index]);
        Ok(Some(Input {
            x,
            labels: labels.collect(),
            samples: step.local.iter().map(|pick| pick.index).collect(),
            waited_seconds,
        }))
    }
}

/// A trial that began on some features, or without, goes on with the same.
pub(super) fn same_features(
    (began, step): (Option<Digest>, u64),
    found: Option<Digest>,
) -> Result<(), Fault> {
    if step == 0 || began == found {
        return Ok(());
    }
    Err(Fault::new(
        Code::ResumeMismatch,
        "the trial began on other features of its frozen blocks than this machine has",
    )
    .hint(
        "resume it on a machine like the first, with as much room for features \
         (`features.max_bytes`)",
    ))
}

/// What the worker needs to know to fetch shards that other machines have.
fn tell_pace(wish: &Wish<'_>, pace: &Pace) {
    let rank = wish.rank;
    if let Some(shards) = pace.take_missing() {
        wish.listener.say(&Event::FeaturesMissing { rank, shards });
    }
    if let Some(bytes_per_s) = pace.due() {
        wish.listener
            .say(&Event::FeaturesPace { rank, bytes_per_s });
    }
}

/// A line for people.
fn tell(network: &Network, features: &Features, begun: Instant) {
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
