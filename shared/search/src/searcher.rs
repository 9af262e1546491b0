//! The searchers: what is drawn, what is heard, and what is answered.

use pomona_domain::metric::Direction;
use pomona_domain::space::{Conditions, Space, Tree};
use pomona_domain::spec::{ExperimentSpec, MAX_TRIALS, Search, Strategy, Tpe, grid_size};
use pomona_domain::{Code, Fault, Hparams};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::Score;
use crate::course::Costs;
use crate::draw::{random_point, shuffled};
use crate::ladder::{Ladders, Standing};
use crate::tpe::{Known, Past};
use crate::warm;

/// One trial that should exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Its point of the space.
    pub hparams: Hparams,
    /// Which of the point's seeds, from 0.
    pub replicate: u32,
}

/// What a searcher wants. Trials are named by their number: the n-th that was drawn is number n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new trial.
    Create(Point),
    /// A trial ends with what it has.
    Stop {
        /// Its number.
        trial: u32,
        /// Why, a sentence.
        reason: String,
    },
    /// A trial keeps its checkpoint and gives its slots back.
    Pause {
        /// Its number.
        trial: u32,
        /// Why, a sentence.
        reason: String,
    },
    /// A trial that was paused goes on.
    Resume {
        /// Its number.
        trial: u32,
        /// Why, a sentence.
        reason: String,
    },
}

/// Draws the trials of one experiment and says how far they train. Its serialised form is the
/// snapshot an experiment keeps; what it does after a restart is what it would have done without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Searcher {
    space: Space,
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    when: Conditions,
    replicates: u32,
    max_trials: u32,
    /// Trials drawn so far.
    drawn: u32,
    /// Points of earlier experiments that are drawn before all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    first: Vec<Hparams>,
    method: Method,
    /// How trials are compared on their way, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ladders: Option<Box<Ladders>>,
    /// Why no more trials are drawn, although there would be some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    halted: Option<String>,
}

/// How the next point is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// Paths in order, the last varies fastest; a trial's number says its point.
    Grid,
    /// The same points in an order that the seed shuffles: where trials are compared with those that
    /// came before, neighbours must not come together.
    Shuffled {
        seed: u64,
        /// Places of the order that were looked at.
        place: u64,
        /// The point whose replicates are being handed out.
        current: Option<Hparams>,
    },
    /// A number per path, in order of the paths.
    Random {
        generator: ChaCha8Rng,
        /// The point whose replicates are being handed out.
        current: Option<Hparams>,
    },
    /// Like the better part of those before.
    Tpe {
        settings: Tpe,
        direction: Direction,
        generator: ChaCha8Rng,
        /// In the order they were drawn.
        tried: Vec<Tried>,
    },
}

/// A point that was drawn, and how its trials ended: `None` for one that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tried {
    hparams: Hparams,
    ended: BTreeMap<u32, Option<Score>>,
}

/// Whether what a search does depends on what it hears.
pub fn listens(search: &Search) -> bool {
    search.halving().is_some() || search.strategy == Strategy::Tpe
}

impl Searcher {
    /// The searcher of a snapshot.
    pub fn restore(snapshot: &Value) -> Result<Self, Fault> {
        Self::deserialize(snapshot).map_err(|error| {
            let text = format!("the searcher's snapshot cannot be read: {error}");
            Fault::new(Code::Internal, text)
        })
    }

    /// A searcher at its beginning, where an epoch costs the same at every frozen depth. Every trial
    /// that it can know of is tried against the file first, so that an experiment does not find out
    /// in the middle that two of its values do not go together.
    pub fn new(spec: &ExperimentSpec) -> Result<Self, Fault> {
        Self::with_costs(spec, &Costs::default())
    }

    /// The same with what an epoch costs at each frozen depth, which says at which epochs trials are
    /// compared.
    pub fn with_costs(spec: &ExperimentSpec, costs: &Costs) -> Result<Self, Fault> {
        let searcher = Self::unchecked(spec, costs)?;
        let mut trial_run = searcher.clone();
        // Nothing here is heard, and comparing costs more than drawing.
        trial_run.ladders = None;
        let template = spec.template();
        while let Some(point) = trial_run.next() {
            if point.replicate == 0
                && let Some(fault) = template.point_fault(&point.hparams, 0)
            {
                return Err(fault);
            }
        }
        Ok(searcher)
    }

    /// The same for a file whose points were tried: drawing ten thousand takes a while.
    pub fn unchecked(spec: &ExperimentSpec, costs: &Costs) -> Result<Self, Fault> {
        let search = &spec.search;
        if search.max_trials == 0 || search.max_trials > MAX_TRIALS || search.replicates == 0 {
            return Err(Fault::new(
                Code::OutOfRange,
                format!(
                    "search.max_trials: must be from 1 to {MAX_TRIALS}, with at least one replicate"
                ),
            ));
        }
        let is_judged = search.halving().is_some() || search.strategy == Strategy::Tpe;
        if is_judged && !search.max_trials.is_multiple_of(search.replicates) {
            let (trials, seeds) = (search.max_trials, search.replicates);
            let whole = (trials / seeds).max(1) * seeds;
            return Err(Fault::new(
                Code::Contradiction,
                format!(
                    "search.max_trials: {trials} trials are not whole points of {seeds} seeds \
                     each, and a point is judged by all of them"
                ),
            )
            .hint(format!("write `max_trials: {whole}`")));
        }
        let size = grid_size(&search.space, &search.when, search.replicates);
        let generator = ChaCha8Rng::seed_from_u64(spec.seed);
        let method = match search.strategy {
            Strategy::Grid => {
                size?;
                Method::Grid
            }
            Strategy::Asha | Strategy::Hyperband if size.is_ok() => Method::Shuffled {
                seed: spec.seed,
                place: 0,
                current: None,
            },
            Strategy::Random | Strategy::Asha | Strategy::Hyperband => Method::Random {
                generator,
                current: None,
            },
            Strategy::Tpe => Method::Tpe {
                settings: search.tpe.unwrap_or_default(),
                direction: search.direction,
                generator,
                tried: Vec::new(),
            },
        };
        Ok(Self {
            space: search.space.clone(),
            when: search.when.clone(),
            replicates: search.replicates,
            max_trials: search.max_trials,
            drawn: 0,
            first: warm::points(spec).0,
            method,
            ladders: Ladders::new(spec, costs).map(Box::new),
            halted: None,
        })
    }

    /// Draws the next trial; `None` when there is none left. Its number is [`Self::drawn`] then.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would invite adapters that lose the position"
    )]
    pub fn next(&mut self) -> Option<Point> {
        if self.is_over() {
            return None;
        }
        let replicate = self.drawn % self.replicates;
        let hparams = self.point(replicate)?;
        self.drawn += 1;
        if let Some(ladders) = &mut self.ladders {
            ladders.begin(self.drawn, &hparams);
        }
        Some(Point { hparams, replicate })
    }

    fn point(&mut self, replicate: u32) -> Option<Hparams> {
        let tree = Tree::new(&self.space, &self.when);
        let index = u64::from(self.drawn / self.replicates);
        let warm = self.first.get(index as usize).cloned();
        match &mut self.method {
            Method::Grid => tree.point(index),
            Method::Shuffled {
                seed,
                place,
                current,
            } => {
                if replicate == 0 {
                    let is_first = |point: &Hparams| self.first.contains(point);
                    let mut next = || {
                        *place += 1;
                        tree.point(shuffled(*seed, tree.size()?, *place - 1)?)
                    };
                    *current = warm
                        .or_else(|| std::iter::from_fn(&mut next).find(|point| !is_first(point)));
                }
                current.clone()
            }
            Method::Random { generator, current } => {
                if replicate == 0 || current.is_none() {
                    let draw = || random_point(&tree, &self.space, generator);
                    *current = warm.or_else(draw);
                }
                current.clone()
            }
            Method::Tpe {
                settings,
                direction,
                generator,
                tried,
            } => {
                if replicate > 0 {
                    return tried.last().map(|tried| tried.hparams.clone());
                }
                let past = Past {
                    settings: *settings,
                    direction: *direction,
                    tried: tried
                        .iter()
                        .map(|tried| tried.known(self.replicates))
                        .collect(),
                };
                let hparams = warm.or_else(|| past.next(&tree, &self.space, generator))?;
                tried.push(Tried {
                    hparams: hparams.clone(),
                    ended: BTreeMap::new(),
                });
                Some(hparams)
            }
        }
    }

    /// What it wants next while there is room for one more trial: to promote one that waits, else a
    /// new one, else to let those go that wait in vain. Nothing: to wait for what it will hear.
    pub fn act(&mut self) -> Vec<Action> {
        let no_more = self.is_over();
        if let Some(ladders) = &mut self.ladders {
            let promoted = ladders.promote(no_more);
            if !promoted.is_empty() {
                return promoted;
            }
        }
        if let Some(point) = self.next() {
            return vec![Action::Create(point)];
        }
        let ladders = self.ladders.as_mut();
        ladders.map_or_else(Vec::new, |ladders| ladders.release(true))
    }

    /// Hears that a trial has come to an epoch, with its best so far. Answers what follows.
    pub fn hear(&mut self, trial: u32, epoch: u32, best: Score) -> Vec<Action> {
        let ladders = self.ladders.as_mut();
        ladders.map_or_else(Vec::new, |ladders| ladders.hear(trial, epoch, best))
    }

    /// Hears that a trial has ended: with its best, or with nothing to show. Answers what follows.
    pub fn ended(&mut self, trial: u32, best: Option<Score>) -> Vec<Action> {
        let index = trial.saturating_sub(1) / self.replicates;
        if let Method::Tpe { tried, .. } = &mut self.method
            && let Some(tried) = tried.get_mut(index as usize)
        {
            tried.ended.insert(trial, best);
        }
        let ladders = self.ladders.as_mut();
        ladders.map_or_else(Vec::new, |ladders| ladders.ended(trial))
    }

    /// Whether it wants to hear how a trial ends and has not.
    pub fn awaits(&self, trial: u32) -> bool {
        let index = trial.saturating_sub(1) / self.replicates;
        if let Method::Tpe { tried, .. } = &self.method
            && let Some(tried) = tried.get(index as usize)
            && !tried.ended.contains_key(&trial)
        {
            return true;
        }
        (self.ladders.as_ref()).is_some_and(|ladders| ladders.awaits(trial))
    }

    /// Whether a trial waits at a rung: only [`Self::act`] lets it go on.
    pub fn is_held(&self, trial: u32) -> bool {
        (self.ladders.as_ref()).is_some_and(|ladders| ladders.is_held(trial))
    }

    /// Draws nothing more, for a reason.
    pub fn halt(&mut self, reason: impl Into<String>) {
        self.halted = Some(reason.into());
    }

    /// Why it draws nothing more, if it was told so.
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Whether it will draw no more trials.
    fn is_over(&self) -> bool {
        self.halted.is_some() || self.drawn >= self.total()
    }

    /// Trials it draws in all.
    pub fn total(&self) -> u32 {
        match self.method {
            Method::Grid | Method::Shuffled { .. } => {
                grid_size(&self.space, &self.when, self.replicates)
                    .unwrap_or(0)
                    .min(self.max_trials)
            }
            Method::Random { .. } | Method::Tpe { .. } => self.max_trials,
        }
    }

    /// Trials drawn so far.
    pub fn drawn(&self) -> u32 {
        self.drawn
    }

    /// Every rung with what reached it, in the order it came: what each decision rested on.
    pub fn standings(&self) -> Vec<Standing> {
        (self.ladders.as_ref()).map_or_else(Vec::new, |ladders| ladders.standings())
    }
}

impl Tried {
    fn known(&self, replicates: u32) -> (&Hparams, Known) {
        let scores = || self.ended.values().flatten();
        let known = if (self.ended.len() as u32) < replicates {
            Known::Nothing
        } else {
            Score::mean(scores()).map_or(Known::Nothing, Known::Scored)
        };
        (&self.hparams, known)
    }
}
