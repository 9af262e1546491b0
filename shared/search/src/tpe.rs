//! Tree-structured Parzen estimators (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
//! Optimization", section 4): each value is drawn where good points are denser than bad ones.
//!
//! Points that have a score are split: the best `ceil(0.15 · n)`, 25 at most, are the good ones.
//! Along the tree of the space, parents first, each path that has a value is drawn by itself: from
//! the density `l` of the good points that have it, and of some candidates the one with the largest
//! `l / g`, `g` being the density of all others, which maximises the expected improvement (section
//! 4.1). A number lies on a line from 0 to 1 (its logarithm for `log_uniform`, its rank in a finite
//! set), where a density is a mixture of truncated normals as wide as the gap to the neighbour, and
//! one over the whole line; words have their counts plus one.
//!
//! What is still training has no score. It counts as bad ("constant liar" with the worst score, as
//! in Ginsbourger et al. 2010), so trials that run side by side are spread instead of being all
//! drawn from the same hill; ignoring them would draw the same point again for every free slot.
//! Failed points count as bad, too. A point is never drawn twice.
//!
//! It knows points and scores, and nothing of trials.

use pomona_domain::Hparams;
use pomona_domain::metric::Direction;
use pomona_domain::space::{Domain, Tree};
use pomona_domain::spec::Tpe;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::Score;
use crate::draw::{random_point, unit};

/// The good part of what was scored, and the most of them (Bergstra et al. 2011, section 6).
const GOOD: f64 = 0.15;
const MOST_GOOD: usize = 25;
/// Times that a point is drawn again because it was there before.
const AGAIN: u32 = 16;
/// A finite set of more numbers is drawn from as if it were continuous.
const MANY: u64 = 1_000;

/// What became of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Known {
    /// It still trains, or it failed.
    Nothing,
    /// It was scored.
    Scored(Score),
}

/// What the next point follows from.
pub(crate) struct Past<'a> {
    pub(crate) settings: Tpe,
    pub(crate) direction: Direction,
    /// Points in the order they were drawn.
    pub(crate) tried: Vec<(&'a Hparams, Known)>,
}

impl Past<'_> {
    /// The next point; `None` when every point of the space was tried.
    pub(crate) fn next(
        &self,
        tree: &Tree,
        domains: &BTreeMap<String, Domain>,
        generator: &mut ChaCha8Rng,
    ) -> Option<Hparams> {
        let is_new = |point: &Hparams| self.tried.iter().all(|(tried, _)| *tried != point);
        let (good, bad) = self.split();
        let is_blind = self.tried.len() < self.settings.startup as usize || good.is_empty();
        for _ in 0..AGAIN {
            let point = if is_blind {
                random_point(tree, domains, generator)?
            } else {
                self.suggest(tree, domains, (&good, &bad), generator)?
            };
            if is_new(&point) {
                return Some(point);
            }
        }
        // Nearly everything was tried: whatever is left, from a random place on.
        let size = tree.size()?;
        let first = (unit(generator) * size as f64) as u64;
        let mut left = (0..size).filter_map(|step| tree.point((first + step) % size));
        left.find(is_new)
    }

    /// The good points, and all others.
    fn split(&self) -> (Vec<&Hparams>, Vec<&Hparams>) {
        let mut scored = Vec::new();
        let mut bad = Vec::new();
        for (point, known) in &self.tried {
            match known {
                Known::Scored(score) => scored.push((*score, *point)),
                Known::Nothing => bad.push(*point),
            }
        }
        // Stable: of equals the one that was drawn first.
        scored.sort_by(|a, b| a.0.order(b.0, self.direction));
        let good = (GOOD * scored.len() as f64).ceil() as usize;
        let rest = scored.split_off(good.min(MOST_GOOD).min(scored.len()));
        bad.extend(rest.into_iter().map(|(_, point)| point));
        (scored.into_iter().map(|(_, point)| point).collect(), bad)
    }

    fn suggest(
        &self,
        tree: &Tree,
        domains: &BTreeMap<String, Domain>,
        (good, bad): (&[&Hparams], &[&Hparams]),
        generator: &mut ChaCha8Rng,
    ) -> Option<Hparams> {
        let mut point = BTreeMap::new();
        for path in tree.order() {
            if !tree.is_active(path, &point) {
                continue;
            }
            let axis = Axis::of(domains.get(*path)?);
            let at = |points: &[&Hparams]| -> Vec<f64> {
                let values = points.iter().filter_map(|point| point.0.get(*path));
                values.filter_map(|value| axis.place(value)).collect()
            };
            let l = Density::of(&axis, &at(good));
            let g = Density::of(&axis, &at(bad));
            let mut best: Option<(f64, Value)> = None;
            for _ in 0..self.settings.candidates.max(1) {
                let value = axis.value(l.draw(generator))?;
                let place = axis.place(&value)?;
                let gain = l.at(place).ln() - g.at(place).ln();
                if best.as_ref().is_none_or(|(most, _)| gain > *most) {
                    best = Some((gain, value));
                }
            }
            point.insert((*path).to_owned(), best?.1);
        }
        Some(Hparams(point))
    }
}

/// A set of values as places from 0 to 1.
enum Axis<'a> {
    /// Numbers without end.
    Line(&'a Domain),
    /// A finite number of them, in order.
    Steps(Vec<Value>),
    /// Words: places have no order.
    Words(&'a [Value]),
}

impl<'a> Axis<'a> {
    fn of(domain: &'a Domain) -> Self {
        match domain {
            Domain::Values(values) if values.iter().all(Value::is_number) => {
                let mut sorted = values.clone();
                let number = |value: &Value| value.as_f64().unwrap_or_default();
                sorted.sort_by(|a, b| number(a).total_cmp(&number(b)));
                Self::Steps(sorted)
            }
            Domain::Values(values) => Self::Words(values),
            Domain::Range { .. } | Domain::Int { .. } if domain.size() <= Some(MANY) => {
                Self::Steps(domain.points().unwrap_or_default())
            }
            Domain::Range { .. }
            | Domain::Int { .. }
            | Domain::Uniform { .. }
            | Domain::LogUniform { .. } => Self::Line(domain),
        }
    }

    fn place(&self, value: &Value) -> Option<f64> {
        let within = |values: &[Value]| {
            let index = values.iter().position(|other| other == value)?;
            Some((index as f64 + 0.5) / values.len() as f64)
        };
        match self {
            Self::Steps(values) => within(values),
            Self::Words(values) => within(values),
            Self::Line(domain) => {
                let number = value.as_f64()?;
                let share = match domain {
                    Domain::LogUniform { low, high, .. } => (number / low).ln() / (high / low).ln(),
                    Domain::Uniform { low, high, .. } | Domain::Range { low, high, .. } => {
                        (number - low) / (high - low)
                    }
                    Domain::Int { low, high, .. } => {
                        (number - *low as f64) / (*high as f64 - *low as f64)
                    }
                    Domain::Values(_) => return None,
                };
                Some(share.clamp(0.0, 1.0))
            }
        }
    }

    fn value(&self, place: f64) -> Option<Value> {
        let within = |values: &[Value]| {
            let index = (place * values.len() as f64) as usize;
            values
                .get(index.min(values.len().saturating_sub(1)))
                .cloned()
        };
        match self {
            Self::Steps(values) => within(values),
            Self::Words(values) => within(values),
            Self::Line(domain) => domain.at(place),
        }
    }
}

/// A density over places.
enum Density {
    /// Normals cut off at 0 and 1: middle, width, and their part of the whole between the two ends.
    Mixture(Vec<(f64, f64, f64)>),
    /// The likelihood of each word.
    Counts(Vec<f64>),
}

impl Density {
    fn of(axis: &Axis, places: &[f64]) -> Self {
        if let Axis::Words(words) = axis {
            let mut counts = vec![1.0; words.len()];
            for place in places {
                let index = (place * words.len() as f64) as usize;
                if let Some(count) = counts.get_mut(index) {
                    *count += 1.0;
                }
            }
            let total: f64 = counts.iter().sum();
            return Self::Counts(counts.into_iter().map(|count| count / total).collect());
        }
        // The prior is one more normal, over the whole line.
        let mut middles: Vec<f64> = places.to_vec();
        middles.push(0.5);
        middles.sort_by(f64::total_cmp);
        let count = middles.len();
        let narrowest = 1.0 / (count as f64 + 1.0).min(100.0);
        let mut prior_is_due = true;
        let width = |(at, middle): (usize, &f64)| {
            if *middle == 0.5 && prior_is_due {
                prior_is_due = false;
                return (0.5, 1.0, inside(0.5, 1.0));
            }
            // The ends of the line are no neighbours: beside them a hill may be as steep as anywhere.
            let below = at.checked_sub(1).map_or(0.0, |at| middle - middles[at]);
            let above = middles.get(at + 1).map_or(0.0, |next| next - middle);
            let width = below.max(above).clamp(narrowest, 1.0);
            (*middle, width, inside(*middle, width))
        };
        Self::Mixture(middles.iter().enumerate().map(width).collect())
    }

    fn draw(&self, generator: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::Counts(counts) => {
                let mut left = unit(generator);
                for (index, part) in counts.iter().enumerate() {
                    if left < *part {
                        return (index as f64 + 0.5) / counts.len() as f64;
                    }
                    left -= part;
                }
                1.0 - 0.5 / counts.len() as f64
            }
            Self::Mixture(parts) => {
                let which = (unit(generator) * parts.len() as f64) as usize;
                let (middle, width, _) = parts[which.min(parts.len() - 1)];
                // By rejection: no normal has less than a third of itself inside, so so many draws
                // all fall outside once in 10^11 times.
                for _ in 0..64 {
                    let place = middle + width * normal(generator);
                    if (0.0..1.0).contains(&place) {
                        return place;
                    }
                }
                unit(generator)
            }
        }
    }

    fn at(&self, place: f64) -> f64 {
        match self {
            Self::Counts(counts) => {
                let index = (place * counts.len() as f64) as usize;
                counts.get(index).copied().unwrap_or(0.0)
            }
            Self::Mixture(parts) => {
                let one = |(middle, width, inside): &(f64, f64, f64)| {
                    let far = (place - middle) / width;
                    (-0.5 * far * far).exp() / (width * inside * (std::f64::consts::TAU).sqrt())
                };
                parts.iter().map(one).sum::<f64>() / parts.len() as f64
            }
        }
    }
}

/// A draw from the standard normal distribution (Box and Muller 1958).
fn normal(generator: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - unit(generator)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(generator)).cos()
}

/// How much of a normal lies between 0 and 1.
fn inside(middle: f64, width: f64) -> f64 {
    let below = |x: f64| 0.5 * (1.0 + libm::erf((x - middle) / (width * std::f64::consts::SQRT_2)));
    below(1.0) - below(0.0)
}
