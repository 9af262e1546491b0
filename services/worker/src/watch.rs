//! Whether a lease still makes progress, by the steps it reports. Pure: told the time.
//!
//! A trainer that beats without making a step is stalled all the same. Before its first step
//! (loading, decoding, feature passes) any line is a sign of life.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Step intervals the median is taken over.
const WINDOW: usize = 64;

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Never stalled before this long without a step.
    pub floor: Duration,
    /// Nor before this many median steps.
    pub factor: u32,
    /// Without any line before the first step: this long.
    pub start: Duration,
}

/// The watch over one lease.
#[derive(Debug)]
pub struct Watch {
    limits: Limits,
    step: Option<u64>,
    stepped: bool,
    alive_at: Instant,
    intervals: VecDeque<Duration>,
}

impl Watch {
    /// A watch that begins now.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            step: None,
            stepped: false,
            alive_at: now,
            intervals: VecDeque::new(),
        }
    }

    /// A line said that `step` steps are done.
    pub fn progress(&mut self, now: Instant, step: u64) {
        let Some(before) = self.step else {
            self.step = Some(step);
            self.alive_at = now;
            return;
        };
        if step > before {
            let passed = now.duration_since(self.alive_at);
            let steps = u32::try_from(step - before).unwrap_or(u32::MAX);
            if self.intervals.len() == WINDOW {
                self.intervals.pop_front();
            }
            self.intervals.push_back(passed / steps);
            self.step = Some(step);
            self.stepped = true;
            self.alive_at = now;
        } else if !self.stepped {
            self.alive_at = now;
        }
    }

    /// Work that is not a step was done (an evaluation, a checkpoint), or the wait was ours.
    pub fn touch(&mut self, now: Instant) {
        self.alive_at = now;
    }

    /// How long it may go on without a sign.
    pub fn allowance(&self) -> Duration {
        if !self.stepped {
            return self.limits.start;
        }
        let mut sorted: Vec<_> = self.intervals.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        self.limits
            .floor
            .max(median.saturating_mul(self.limits.factor))
    }

    /// Whether it has made a step under this watch.
    pub fn has_stepped(&self) -> bool {
        self.stepped
    }

    /// When it will count as stalled.
    pub fn deadline(&self) -> Instant {
        self.alive_at + self.allowance()
    }

    /// The newest step.
    pub fn step(&self) -> u64 {
        self.step.unwrap_or(0)
    }
}
