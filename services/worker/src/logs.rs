//! Log lines on their way to the coordinator: a bounded ring. Best effort: old lines give way,
//! and a line in the log says how many are missing.

use pomona_api::v1::workers::LogLine;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest line that is kept.
pub const MAX_LINE_BYTES: usize = 4096;
/// Lines kept while the coordinator is away.
const RING: usize = 4000;
/// Most lines in one poll.
pub const MAX_LINES_PER_POLL: usize = 500;

/// The ring.
#[derive(Debug, Default)]
pub struct Logs {
    lines: Mutex<VecDeque<LogLine>>,
    first: Notify,
}

impl Logs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<LogLine>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; the oldest gives way when the ring is full.
    pub fn push(&self, line: LogLine) {
        let mut lines = self.lock();
        if lines.len() == RING {
            lines.pop_front();
        }
        lines.push_back(line);
        drop(lines);
        self.first.notify_one();
    }

    /// Resolves when there is a line.
    pub async fn arrived(&self) {
        self.first.notified().await;
    }

    /// Takes the oldest lines for a poll.
    pub fn take(&self) -> Vec<LogLine> {
        let mut lines = self.lock();
        let most = lines.len().min(MAX_LINES_PER_POLL);
        lines.drain(..most).collect()
    }

    /// Puts lines back whose poll failed.
    pub fn put_back(&self, taken: Vec<LogLine>) {
        let mut lines = self.lock();
        let room = RING.saturating_sub(lines.len());
        let skip = taken.len().saturating_sub(room);
        for line in taken.into_iter().skip(skip).rev() {
            lines.push_front(line);
        }
    }
}

/// At most so many lines a second.
#[derive(Debug)]
pub struct Rate {
    limit: u32,
    window: Instant,
    used: u32,
    dropped: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept; so many before it were not.
    Keep {
        /// Lines dropped since the last one kept.
        dropped: u64,
    },
    /// It is one too many.
    Drop,
}

impl Rate {
    /// A limit that begins now.
    pub fn new(limit: u32, now: Instant) -> Self {
        Self {
            limit,
            window: now,
            used: 0,
            dropped: 0,
        }
    }

    /// Asks for one line.
    pub fn line(&mut self, now: Instant) -> Verdict {
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            self.window = now;
            self.used = 0;
        }
        if self.used == self.limit {
            self.dropped += 1;
            return Verdict::Drop;
        }
        self.used += 1;
        let dropped = std::mem::take(&mut self.dropped);
        Verdict::Keep { dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pomona_domain::Timestamp;

    fn line(n: usize) -> LogLine {
        LogLine {
            owner: "tri_0000000000000001".into(),
            rank: 0,
            at: Timestamp(0),
            line: n.to_string(),
        }
    }

    #[test]
    fn the_oldest_lines_give_way_and_lines_of_a_failed_poll_come_back_in_order() {
        let logs = Logs::default();
        for n in 0..RING + 10 {
            logs.push(line(n));
        }
        let taken = logs.take();
        assert_eq!(taken.len(), MAX_LINES_PER_POLL);
        assert_eq!(taken[0].line, "10");
        logs.put_back(taken);
        assert_eq!(logs.take()[0].line, "10");
    }

    #[test]
    fn a_flood_is_cut_each_second_and_counted() {
        let start = Instant::now();
        let mut rate = Rate::new(2, start);
        let verdicts: Vec<_> = (0..4).map(|_| rate.line(start)).collect();
        let keep = Verdict::Keep { dropped: 0 };
        assert_eq!(verdicts, [keep, keep, Verdict::Drop, Verdict::Drop]);
        assert_eq!(
            rate.line(start + Duration::from_secs(1)),
            Verdict::Keep { dropped: 2 }
        );
    }
}
