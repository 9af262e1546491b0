//! What is missing and how fast it is computed: what a worker needs to know to fetch shards that
//! other machines have before this process comes to them.

use pomona_api::trainer::MissingShard;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two figures.
const EVERY: Duration = Duration::from_millis(500);

/// Shards that were missing, and what was computed of them.
#[derive(Debug, Default)]
pub struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    missing: Vec<MissingShard>,
    since: Option<Instant>,
    said: Option<Instant>,
    /// The first batch, which pays for the preparation of the blocks.
    first: Option<Work>,
    /// All others.
    rest: Work,
}

/// Bytes of rows and what they took.
#[derive(Debug, Default, Clone, Copy)]
struct Work {
    bytes: u64,
    time: Duration,
}

impl Pace {
    /// These shards are not there.
    pub(super) fn misses(&self, shards: Vec<MissingShard>) {
        self.state(|state| state.missing = shards);
    }

    /// A shard is begun.
    pub(super) fn begins(&self) {
        self.state(|state| state.since = Some(Instant::now()));
    }

    /// A batch of rows is computed.
    pub(super) fn wrote(&self, bytes: u64) {
        let now = Instant::now();
        self.state(|state| {
            let since = state.since.replace(now).unwrap_or(now);
            let time = now - since;
            if state.first.is_none() {
                state.first = Some(Work { bytes, time });
            } else {
                state.rest.bytes += bytes;
                state.rest.time += time;
            }
        });
    }

    /// The missing shards, once.
    pub fn take_missing(&self) -> Option<Vec<MissingShard>> {
        let missing = self.state(|state| std::mem::take(&mut state.missing));
        Some(missing).filter(|missing| !missing.is_empty())
    }

    /// Bytes of rows in a second, when it is time to say so.
    pub fn due(&self) -> Option<f64> {
        self.state(|state| {
            if state.said.is_some_and(|said| said.elapsed() < EVERY) {
                return None;
            }
            let known = if state.rest.bytes > 0 {
                state.rest
            } else {
                state.first?
            };
            state.said = Some(Instant::now());
            Some(known.bytes as f64 / known.time.as_secs_f64().max(1e-6))
        })
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pomona_domain::Digest;

    #[test]
    fn missing_shards_are_told_once_and_the_first_batch_is_no_measure() {
        let pace = Pace::default();
        assert_eq!((pace.take_missing(), pace.due()), (None, None));
        let shard = MissingShard {
            shard: Digest::of(b"a"),
            bytes: 100,
        };
        pace.misses(vec![shard]);
        assert_eq!(pace.take_missing(), Some(vec![shard]));
        assert_eq!(pace.take_missing(), None);
        let work = |bytes, ms| Work {
            bytes,
            time: Duration::from_millis(ms),
        };
        pace.state(|state| state.first = Some(work(100, 1000)));
        assert_eq!(pace.due(), Some(100.0));
        assert_eq!(pace.due(), None, "said a moment ago");
        pace.state(|state| (state.rest, state.said) = (work(300, 300), None));
        assert_eq!(pace.due(), Some(1000.0));
    }
}
