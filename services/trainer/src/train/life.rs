//! Signs of life: what the progress line says, and now and then.

use crate::protocol::Listener;
use pomona_api::trainer::Event;
use std::time::{Duration, Instant};

/// Between two signs of life.
const EVERY: Duration = Duration::from_millis(250);

/// What the progress line says.
#[derive(Debug)]
pub(super) struct Life {
    rank: u32,
    total_steps: u64,
    samples: u64,
    data_wait_seconds: f64,
    step_seconds: f64,
    said: Option<Instant>,
}

/// What a step took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lap {
    pub(super) samples: usize,
    pub(super) waited_seconds: f64,
    pub(super) seconds: f64,
}

impl Life {
    pub(super) fn new(rank: u32, total_steps: u64) -> Self {
        Self {
            rank,
            total_steps,
            samples: 0,
            data_wait_seconds: 0.0,
            step_seconds: 0.0,
            said: None,
        }
    }

    /// Counts a step, and says so when it is time or `is_last` of an epoch. `step` are those done,
    /// `epoch` is the pass under way, from 1.
    pub(super) fn step(
        &mut self,
        listener: &dyn Listener,
        (step, epoch): (u64, u32),
        lap: Lap,
        is_last: bool,
    ) {
        self.samples += lap.samples as u64;
        self.data_wait_seconds += lap.waited_seconds;
        self.step_seconds += lap.seconds;
        let due = self.said.is_none_or(|said| said.elapsed() >= EVERY);
        if due || is_last {
            self.said = Some(Instant::now());
            listener.say(&Event::Progress {
                rank: self.rank,
                step,
                total_steps: self.total_steps,
                epoch,
                samples: self.samples,
                data_wait_seconds: self.data_wait_seconds,
                step_seconds: self.step_seconds,
            });
        }
    }
}

/// Says now and then that this rank works, though it makes no step.
pub(super) fn beat(listener: &dyn Listener, rank: u32) -> impl FnMut() + '_ {
    let mut last = Instant::now();
    move || {
        if last.elapsed() > EVERY {
            last = Instant::now();
            listener.say(&Event::Evaluating { rank });
        }
    }
}
