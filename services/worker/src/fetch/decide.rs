//! Whether a shard is fetched or left to the trainer: a comparison of two predicted times.

use std::fmt;
use std::time::{Duration, Instant};

/// A rate that was not measured again for this long says nothing any more: what was slow then may
/// be fast now.
const RATE_TERM: Duration = Duration::from_mins(5);

/// Bytes that came in a second: half the last shard, half those before it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate(Option<(f64, Instant)>);

impl Rate {
    /// The rate, unless nobody knows it any more.
    pub fn get(self, now: Instant) -> Option<f64> {
        let (rate, at) = self.0?;
        (now.saturating_duration_since(at) < RATE_TERM).then_some(rate)
    }

    /// A shard came at this rate.
    pub fn saw(&mut self, rate: f64, now: Instant) {
        let mean = |old| f64::midpoint(old, rate);
        self.set(self.get(now).map_or(rate, mean), now);
    }

    /// This is the rate, whatever it was.
    pub fn set(&mut self, rate: f64, now: Instant) {
        self.0 = Some((rate, now));
    }
}

/// What is known when a shard could be fetched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Bytes of the shard.
    pub bytes: u64,
    /// Bytes that trainers compute until they have it: those before it, and its own.
    pub until: u64,
    /// Bytes that trainers compute in a second.
    pub computed_per_s: f64,
    /// Bytes that came in a second, so far.
    pub fetched_per_s: Option<f64>,
}

/// What is done, and the figures that say why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// Whether the shard is fetched.
    pub fetch: bool,
    figures: Figures,
}

/// A shard is fetched when that takes less time than trainers take until they have it. While nobody
/// knows how fast shards come, one is fetched to measure, if it is not the one that they come to next.
pub fn decide(figures: Figures) -> Decision {
    let fetch = match figures.fetched_per_s {
        Some(rate) => seconds(figures.bytes, rate) < figures.computed_s(),
        None => figures.until >= figures.bytes.saturating_mul(2),
    };
    Decision { fetch, figures }
}

impl Figures {
    fn computed_s(&self) -> f64 {
        seconds(self.until, self.computed_per_s)
    }
}

impl Decision {
    /// A fetch that takes longer is given up: trainers would have the shard by then, even if they
    /// had waited for it until now.
    pub fn limit(&self) -> Duration {
        let own = seconds(self.figures.bytes, self.figures.computed_per_s);
        let longest = Duration::MAX;
        Duration::try_from_secs_f64(self.figures.computed_s() + own).unwrap_or(longest)
    }
}

impl fmt::Display for Decision {
    /// The half of a sentence that gives the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            bytes,
            computed_per_s,
            fetched_per_s,
            ..
        } = self.figures;
        let megabytes = |bytes: f64| bytes / 1e6;
        write!(f, "{:.3} MB ", megabytes(bytes as f64))?;
        match fetched_per_s {
            Some(rate) => write!(
                f,
                "come in {:.3} s at {:.1} MB/s",
                seconds(bytes, rate),
                megabytes(rate)
            )?,
            None => write!(f, "come at a rate that this one will tell")?,
        }
        write!(
            f,
            ", computing has them in {:.3} s at {:.1} MB/s",
            self.figures.computed_s(),
            megabytes(computed_per_s)
        )
    }
}

fn seconds(bytes: u64, per_s: f64) -> f64 {
    bytes as f64 / per_s.max(f64::MIN_POSITIVE)
}
