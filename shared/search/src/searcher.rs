//! The searchers: grid and random.

use pomona_domain::space::{Domain, Space};
use pomona_domain::spec::{ExperimentSpec, MAX_TRIALS, Strategy, grid_size};
use pomona_domain::{Code, Fault, Hparams};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::draw::unit;

/// One trial that should exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Its point of the space.
    pub hparams: Hparams,
    /// Which of the point's seeds, from 0.
    pub replicate: u32,
}

/// Draws the trials of one experiment, one after the other. Its serialised form is the snapshot an
/// experiment keeps; what is drawn after a restart is what would have been drawn without it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Searcher {
    space: Space,
    replicates: u32,
    max_trials: u32,
    /// Trials drawn so far.
    drawn: u32,
    method: Method,
}

/// How the next point is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one searcher per experiment, and a box would only hide it"
)]
enum Method {
    /// Paths in order, the last varies fastest; a trial's number says its point.
    Grid,
    /// A number per path, in order of the paths.
    Random {
        generator: ChaCha8Rng,
        /// The point whose replicates are being handed out.
        current: Option<Hparams>,
    },
}

impl Searcher {
    /// A searcher at its beginning. Every trial it will ever draw is tried against the file first,
    /// so that an experiment does not find out in the middle that two of its values do not go
    /// together.
    pub fn new(spec: &ExperimentSpec) -> Result<Self, Fault> {
        let searcher = Self::unchecked(spec)?;
        let mut trial_run = searcher.clone();
        while let Some(point) = trial_run.next() {
            if point.replicate == 0 {
                spec.trial_spec(&point.hparams, 0)?;
            }
        }
        Ok(searcher)
    }

    fn unchecked(spec: &ExperimentSpec) -> Result<Self, Fault> {
        let search = &spec.search;
        if search.max_trials == 0 || search.max_trials > MAX_TRIALS || search.replicates == 0 {
            return Err(Fault::new(
                Code::OutOfRange,
                format!(
                    "search.max_trials: must be from 1 to {MAX_TRIALS}, with at least one replicate"
                ),
            ));
        }
        let method = match search.strategy {
            Strategy::Grid => {
                grid_size(&search.space, search.replicates)?;
                Method::Grid
            }
            Strategy::Random => Method::Random {
                generator: ChaCha8Rng::seed_from_u64(spec.seed),
                current: None,
            },
        };
        Ok(Self {
            space: search.space.clone(),
            replicates: search.replicates,
            max_trials: search.max_trials,
            drawn: 0,
            method,
        })
    }

    /// Draws the next trial; `None` when there is none left.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would invite adapters that lose the position"
    )]
    pub fn next(&mut self) -> Option<Point> {
        if self.drawn >= self.total() {
            return None;
        }
        let replicate = self.drawn % self.replicates;
        let hparams = match &mut self.method {
            Method::Grid => grid_point(&self.space, u64::from(self.drawn / self.replicates))?,
            Method::Random { generator, current } => {
                if replicate == 0 || current.is_none() {
                    *current = Some(random_point(&self.space, generator)?);
                }
                current.clone()?
            }
        };
        self.drawn += 1;
        Some(Point { hparams, replicate })
    }

    /// Trials it draws in all.
    pub fn total(&self) -> u32 {
        match self.method {
            Method::Grid => grid_size(&self.space, self.replicates)
                .unwrap_or(0)
                .min(self.max_trials),
            Method::Random { .. } => self.max_trials,
        }
    }

    /// Trials drawn so far.
    pub fn drawn(&self) -> u32 {
        self.drawn
    }
}

/// The `index`-th point: a number in a mixed radix whose last digit is the last path.
fn grid_point(space: &Space, index: u64) -> Option<Hparams> {
    let mut rest = index;
    let mut point = BTreeMap::new();
    for (path, domain) in space.iter().rev() {
        let size = domain.size()?;
        let value = domain.point(rest.checked_rem(size)?)?;
        rest /= size;
        point.insert(path.clone(), value);
    }
    (rest == 0).then_some(Hparams(point))
}

fn random_point(space: &Space, generator: &mut ChaCha8Rng) -> Option<Hparams> {
    let draw = |(path, domain): (&String, &Domain)| {
        let value = domain.at(unit(generator))?;
        Some((path.clone(), value))
    };
    space.iter().map(draw).collect::<Option<_>>().map(Hparams)
}
