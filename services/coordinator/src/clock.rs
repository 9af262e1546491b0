//! The coordinator's clock: monotonic, so that a jump of the wall clock ends no lease, and slewed
//! towards the wall clock, so that times that people read stay right.

use pomona_domain::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Most milliseconds that one [`Clock::slew`] moves.
const MAX_SLEW_MS: i64 = 10;

/// A clock that never goes back.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    base_ms: AtomicI64,
}

impl Clock {
    /// A clock that agrees with the wall clock now.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            base_ms: AtomicI64::new(wall_ms()),
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.base_ms.load(Ordering::Relaxed).saturating_add(elapsed))
    }

    /// Moves a little towards the wall clock. Called once a tick, which is much longer than the
    /// move: time still only grows.
    pub fn slew(&self) {
        let off = wall_ms().saturating_sub(self.now().0);
        self.base_ms
            .fetch_add(off.clamp(-MAX_SLEW_MS, MAX_SLEW_MS), Ordering::Relaxed);
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(i64::MAX)
}
