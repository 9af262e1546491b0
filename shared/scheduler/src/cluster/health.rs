//! Which workers work breaks on. Soft state: a restart of the coordinator forgets it.
//!
//! It never blames a worker for what breaks elsewhere, too: a trial that crashed on two workers
//! counts on neither, and an exclusion holds only while some other worker is not excluded.

use pomona_domain::change::Subject;
use pomona_domain::lease::EndKind;
use pomona_domain::{Timestamp, WorkerId};
use std::collections::BTreeMap;

use super::Config;

/// Most failures that are remembered of one worker.
const MAX_REMEMBERED: usize = 64;

/// What broke on a worker since something last ended well there.
#[derive(Debug, Clone, Default)]
struct Health {
    /// Whose failure was when.
    failed: BTreeMap<Subject, Timestamp>,
    /// Exclusions in a row.
    times: u32,
    /// The end of the newest one.
    until: Timestamp,
}

/// The health of all workers.
#[derive(Debug, Clone, Default)]
pub(super) struct Ward(BTreeMap<WorkerId, Health>);

impl Ward {
    /// Nothing is held against a worker any more.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.0.remove(&worker);
    }

    /// The end of a worker's exclusion; it may have passed.
    pub(super) fn excluded_until(&self, worker: WorkerId) -> Timestamp {
        self.0
            .get(&worker)
            .map_or_else(Timestamp::default, |row| row.until)
    }

    /// Different trials and tasks that failed on a worker since its last exclusion and nowhere else.
    pub(super) fn failures(&self, worker: WorkerId, config: &Config, now: Timestamp) -> usize {
        let Some(own) = self.0.get(&worker) else {
            return 0;
        };
        let is_recent = |at: Timestamp| now.since_ms(at) <= config.exclude_window_ms;
        let elsewhere = |subject: &Subject| {
            (self.0.iter()).any(|(other, row)| {
                *other != worker && row.failed.get(subject).is_some_and(|at| is_recent(*at))
            })
        };
        (own.failed.iter())
            .filter(|(_, at)| is_recent(**at) && **at >= own.until)
            .filter(|(subject, _)| !elsewhere(subject))
            .count()
    }

    /// A lease of one trial or task, or of nobody in particular, ended on a worker.
    pub(super) fn note(
        &mut self,
        config: &Config,
        worker: WorkerId,
        alone: Option<Subject>,
        (kind, at): (EndKind, Timestamp),
    ) {
        match (kind, alone) {
            (EndKind::Finished, _) => self.forget(worker),
            (EndKind::NotStarted | EndKind::Crashed, Some(subject)) => {
                let row = self.0.entry(worker).or_default();
                (row.failed).retain(|_, then| at.since_ms(*then) <= config.exclude_window_ms);
                if row.failed.len() < MAX_REMEMBERED {
                    row.failed.insert(subject, at);
                }
                self.judge(config, worker, at);
            }
            // Of several trials nobody knows whose fault it was, so it may be one of theirs.
            (EndKind::NotStarted | EndKind::Crashed, None) | (EndKind::Neutral, _) => {}
        }
    }

    /// A worker that was excluded before is on probation: one more failure is enough.
    fn judge(&mut self, config: &Config, worker: WorkerId, at: Timestamp) {
        let failures = self.failures(worker, config, at);
        let Some(row) = self.0.get_mut(&worker) else {
            return;
        };
        let enough = if row.times > 0 {
            1
        } else {
            config.exclude_after as usize
        };
        if config.exclude_after > 0 && failures >= enough && row.until <= at {
            row.times += 1;
            row.until = at.plus_ms(config.exclusion_ms(row.times));
        }
    }
}
