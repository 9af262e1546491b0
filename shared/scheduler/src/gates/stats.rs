//! The statistics of gates: two classifiers on the same samples.
//!
//! Pure functions of counts and samples; what is random is drawn from a seed, so that a decision can
//! be computed again. It must never know what a version or an alias is.
//!
//! - [`mcnemar`]: the exact test of McNemar (1947), one-sided: of the samples that only one of the
//!   two has right, the candidate wins so many or more of a fair coin's throws.
//! - [`tango`]: the score test of Tango (1998, *Statistics in Medicine* 17:891–908) for a paired
//!   difference of proportions, and [`tango_bound`], the one-sided bound that inverts it. It holds
//!   its level where nobody is discordant, which a bootstrap does not: five samples without a
//!   mistake prove nothing.
//! - [`resample`]: the paired bootstrap (Efron & Tibshirani 1993, chapter 13), percentile bounds.
//! - [`corrected`]: Bonferroni over the uses of a test split.

use super::metrics::Measure;
use pomona_domain::gate::TestOutcomes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Samples drawn of all resamples together, unless that is too few resamples: 20 million take 0.6 s
/// for macro F1 and loss, 1.4 s for calibration.
const MOST_DRAWS: usize = 20_000_000;
/// Resamples, unless that is too many draws.
const RESAMPLES: usize = 10_000;
/// Resamples however many draws that are.
const LEAST_RESAMPLES: usize = 2_000;

/// The probability of `wins` or more of `wins + losses` throws of a fair coin. Without throws it
/// is 1.
pub fn mcnemar(wins: u32, losses: u32) -> f64 {
    let throws = wins + losses;
    // The tail with fewer terms, each from its logarithm: no term underflows before the sum does.
    let tail = |from: u32, to: u32| -> f64 { (from..=to).map(|wins| coin(throws, wins)).sum() };
    if wins == 0 {
        return 1.0;
    }
    let p = if wins > losses {
        tail(wins, throws)
    } else {
        1.0 - tail(0, wins - 1)
    };
    p.clamp(0.0, 1.0)
}

/// The probability of exactly `wins` of `throws`.
fn coin(throws: u32, wins: u32) -> f64 {
    let factorial = |n: u32| libm::lgamma(f64::from(n) + 1.0);
    let ways = factorial(throws) - factorial(wins) - factorial(throws - wins);
    libm::exp(ways - f64::from(throws) * std::f64::consts::LN_2)
}

/// The fewest wins among `throws` whose [`mcnemar`] is at most `alpha`; none if not even all are.
pub fn wins_needed(throws: u32, alpha: f64) -> Option<u32> {
    (mcnemar(throws, 0) <= alpha).then(|| {
        let enough = |wins: u32| mcnemar(wins, throws - wins) <= alpha;
        let (mut low, mut high) = (0, throws);
        while low < high {
            let middle = low + (high - low) / 2;
            if enough(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    })
}

/// The fewest throws of which all wins are enough for `alpha`.
pub fn throws_needed(alpha: f64) -> u32 {
    libm::ceil(-libm::log2(alpha.clamp(f64::MIN_POSITIVE, 1.0)) - 1e-9).max(1.0) as u32
}

/// The one-sided p-value of the hypothesis that the candidate's accuracy is lower than the
/// champion's by `margin` or more (Tango's score test). Without samples it is 1.
pub fn tango(samples: u32, wins: u32, losses: u32, margin: f64) -> f64 {
    normal_tail(score(samples, wins, losses, -margin))
}

/// Tango's score of a difference: positive when more was seen than that.
fn score(samples: u32, wins: u32, losses: u32, difference: f64) -> f64 {
    let (n, b, c) = (f64::from(samples), f64::from(wins), f64::from(losses));
    // The share of samples that only the champion has right, most likely under the difference.
    let half = -b - c + (2.0 * n - b + c) * difference;
    let rest = -c * difference * (1.0 - difference);
    let root = (half * half - 8.0 * n * rest).max(0.0).sqrt();
    let losing = ((root - half) / (4.0 * n)).clamp(0.0, 1.0);
    let variance = n * (2.0 * losing + difference * (1.0 - difference));
    let seen = b - c - n * difference;
    if variance <= 0.0 || variance.is_nan() {
        return if seen > 0.0 {
            f64::INFINITY
        } else {
            f64::NEG_INFINITY
        };
    }
    seen / variance.sqrt()
}

/// The lower bound of the difference of accuracies at a one-sided confidence.
pub fn tango_bound(samples: u32, wins: u32, losses: u32, confidence: f64) -> f64 {
    let alpha = 1.0 - confidence;
    let (mut low, mut high) = (-1.0, 1.0);
    // The p-value falls as the margin grows: 60 halvings leave 1e-18.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if tango(samples, wins, losses, -middle) <= alpha {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The probability of more than `z` under the standard normal distribution.
fn normal_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * std::f64::consts::FRAC_1_SQRT_2)
}

/// The point above which the standard normal distribution has `tail`.
fn normal_point(tail: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if normal_tail(middle) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The confidence of one decision out of `uses` on one test split, so that all of them together hold
/// the confidence asked for: Bonferroni (Dunn 1961), 1 − (1 − c) / k for the k-th. Several gates of
/// one decision need no correction: all must pass (intersection–union, Berger 1982).
///
/// The k-th decision gets a k-th of the error whatever comes later, so the sum over many decisions
/// grows like the harmonic series: that is why uses beyond a number are called out.
pub fn corrected(confidence: f64, uses: u32) -> f64 {
    1.0 - (1.0 - confidence) / f64::from(uses.max(1))
}

/// How much better the candidate is in a metric: as measured, and on resamples of the same samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// As measured; positive is better, whichever way the metric goes.
    pub observed: f64,
    /// On each resample, sorted.
    pub resampled: Vec<f64>,
}

/// The paired bootstrap: samples are drawn with their two outcomes together. Costs `resamples ×
/// samples` draws, which may be a second; it is no work for a decision itself.
///
/// The two must be of one split.
pub fn resample(
    measure: Measure,
    candidate: &TestOutcomes,
    champion: &TestOutcomes,
    seed: [u8; 32],
) -> Difference {
    let samples = candidate.labels.len();
    let times = (MOST_DRAWS / samples.max(1)).clamp(LEAST_RESAMPLES, RESAMPLES);
    resample_times(measure, (candidate, champion), seed, times)
}

/// The same, so many times.
pub fn resample_times(
    measure: Measure,
    (candidate, champion): (&TestOutcomes, &TestOutcomes),
    seed: [u8; 32],
    times: usize,
) -> Difference {
    let samples = candidate.labels.len();
    let (mut ours, mut theirs) = (measure.over(candidate), measure.over(champion));
    let mut better = |draw: &mut dyn FnMut(usize) -> usize| {
        ours.clear();
        theirs.clear();
        for place in 0..samples {
            let at = draw(place);
            ours.add(at);
            theirs.add(at);
        }
        measure.sign() * (ours.value() - theirs.value())
    };
    let observed = better(&mut |place| place);
    let mut random = ChaCha8Rng::from_seed(seed);
    let mut below = |_| below(&mut random, samples as u64) as usize;
    let mut resampled: Vec<f64> = (0..if samples == 0 { 0 } else { times })
        .map(|_| better(&mut below))
        .collect();
    resampled.sort_by(f64::total_cmp);
    Difference {
        observed,
        resampled,
    }
}

/// A number below `end`, each alike (Lemire 2019 without the rejection: the bias is below 2⁻⁴⁰).
fn below(random: &mut ChaCha8Rng, end: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(end)) >> 64) as u64
}

impl Difference {
    /// The lower bound at a one-sided confidence: the percentile, of rank (R + 1)·α. Where that is
    /// among the very last resamples they say nothing reliable; then it is the lower one of the
    /// percentile and the normal bound of the same standard error.
    pub fn bound(&self, confidence: f64) -> f64 {
        /// Resamples that a percentile needs below it.
        const TAIL: f64 = 10.0;
        let alpha = 1.0 - confidence;
        let count = self.resampled.len() as f64;
        let rank = (count + 1.0) * alpha;
        let place = (rank.floor() as usize).clamp(1, self.resampled.len().max(1)) - 1;
        let Some(percentile) = self.resampled.get(place).copied() else {
            return f64::NEG_INFINITY;
        };
        if rank >= TAIL {
            return percentile;
        }
        let mean = self.resampled.iter().sum::<f64>() / count;
        let spread: f64 = self.resampled.iter().map(|x| (x - mean) * (x - mean)).sum();
        let error = (spread / (count - 1.0).max(1.0)).sqrt();
        percentile.min(self.observed - normal_point(alpha) * error)
    }
}
