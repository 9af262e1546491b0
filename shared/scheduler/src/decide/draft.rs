//! A decision in the making: changes are applied to a copy of the cluster as they are made, so that
//! what follows sees them. Nothing of it is visible to anybody until it is committed.

use crate::gates::Evidence;
use crate::{Cluster, Config};
use pomona_domain::change::{Reason, Subject};
use pomona_domain::experiment::Experiment;
use pomona_domain::lease::Lease;
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use pomona_domain::{Change, ExperimentId, LeaseId, TaskId, Timestamp, TrialId, WorkerId};
use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Experiment(ExperimentId),
    Trial(TrialId),
    Lease(LeaseId),
    Worker(WorkerId),
    Task(TaskId),
}

pub(crate) struct Draft<'a> {
    view: Cow<'a, Cluster>,
    pub(crate) now: Timestamp,
    changes: Vec<Change>,
    /// Those that stay even if the event is refused.
    kept: Vec<Change>,
    /// What came with the event for gates.
    pub(crate) evidence: &'a [Evidence],
    /// Row → its place in `changes` and its version: a row is written once, however often a
    /// decision moves it (a poll may bring 500 observations of one trial).
    rows: BTreeMap<Row, (usize, u64)>,
    /// Whether what changed may let something start or ask something to yield.
    stirs: bool,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(cluster: &'a Cluster, now: Timestamp) -> Self {
        Self {
            view: Cow::Borrowed(cluster),
            now,
            changes: Vec::new(),
            kept: Vec::new(),
            evidence: &[],
            rows: BTreeMap::new(),
            stirs: false,
        }
    }

    /// Whether what was decided may let something start or ask something to yield: a lease, or the
    /// state of what owns, waits for or offers slots. What a trial measured does not.
    pub(crate) fn stirs(&self) -> bool {
        self.stirs
    }

    pub(crate) fn finish(self) -> Vec<Change> {
        self.changes
    }

    /// What remains of an event that was refused.
    pub(crate) fn refuse(self) -> Vec<Change> {
        self.kept
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.view
    }

    pub(crate) fn config(&self) -> &Config {
        self.view.config()
    }

    /// A fact that is no versioned row.
    pub(crate) fn push(&mut self, change: Change) {
        self.view.to_mut().apply(self.now, &change);
        self.changes.push(change);
    }

    /// The same, and it stays even if the event is refused.
    pub(crate) fn keep(&mut self, change: Change) {
        self.kept.push(change.clone());
        self.push(change);
    }

    pub(crate) fn reason(&mut self, subject: Subject, text: impl Into<String>) {
        self.changes.push(Change::Reason(Reason {
            subject,
            at: self.now,
            text: text.into(),
        }));
    }

    pub(crate) fn experiment(&mut self, mut row: Experiment) {
        let key = Row::Experiment(row.id);
        let old = self.cluster().experiment(row.id);
        self.stirs |= old.is_none_or(|old| old.state != row.state);
        row.version = self.version(&key, row.version);
        self.write(key, row.version, Change::Experiment(Box::new(row)));
    }

    pub(crate) fn trial(&mut self, mut row: Trial) {
        let key = Row::Trial(row.id);
        let old = self.cluster().trial(row.id);
        self.stirs |= old.is_none_or(|old| old.state != row.state);
        row.version = self.version(&key, row.version);
        self.write(key, row.version, Change::Trial(Box::new(row)));
    }

    pub(crate) fn lease(&mut self, mut row: Lease) {
        let key = Row::Lease(row.id);
        self.stirs = true;
        row.version = self.version(&key, row.version);
        self.write(key, row.version, Change::Lease(Box::new(row)));
    }

    pub(crate) fn worker(&mut self, mut row: Worker) {
        let key = Row::Worker(row.id);
        let old = self.cluster().worker(row.id);
        self.stirs |= old.is_none_or(|old| offers(old) != offers(&row));
        row.version = self.version(&key, row.version);
        self.write(key, row.version, Change::Worker(Box::new(row)));
    }

    pub(crate) fn task(&mut self, mut row: Task) {
        let key = Row::Task(row.id);
        self.stirs = true;
        row.version = self.version(&key, row.version);
        self.write(key, row.version, Change::Task(Box::new(row)));
    }

    /// The version a row gets: one more than it had before this decision.
    fn version(&self, key: &Row, current: u64) -> u64 {
        self.rows
            .get(key)
            .map_or(current + 1, |(_, version)| *version)
    }

    fn write(&mut self, key: Row, version: u64, change: Change) {
        self.view.to_mut().apply(self.now, &change);
        if let Some((place, _)) = self.rows.get(&key) {
            self.changes[*place] = change;
        } else {
            self.rows.insert(key, (self.changes.len(), version));
            self.changes.push(change);
        }
    }
}

/// What a worker has for those who wait.
fn offers(row: &Worker) -> impl PartialEq + '_ {
    (row.incarnation, row.state, &row.slots, &row.labels)
}
