//! Live events: what was committed, kept for a while for readers of `GET /api/v1/events`.
//!
//! A reader that comes back with an id gets what it missed; when that is gone it is told so. The
//! bus never holds more than its limits and never waits for a reader.

use bytes::Bytes;
use pomona_api::v1::events::{LiveEvent, Topic, What};
use pomona_domain::Change;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Events of the newest commits.
#[derive(Debug)]
pub struct Bus {
    kept: usize,
    kept_bytes: usize,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The leader's generation: ids of an earlier coordinator are known to be another's.
    epoch: u64,
    next: u64,
    bytes: usize,
    entries: VecDeque<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    topic: Topic,
    frame: Bytes,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy)]
pub struct Position(u64);

impl Bus {
    /// A bus that keeps at most so many events and bytes.
    pub fn new(kept: usize, kept_bytes: usize) -> Self {
        Self {
            kept,
            kept_bytes,
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }

    /// Names the events that follow.
    pub fn begin(&self, epoch: u64) {
        let mut ring = self.lock();
        ring.epoch = epoch;
        ring.next = 1;
    }

    /// Adds what a commit changed.
    pub fn publish<'a>(&self, changes: impl Iterator<Item = &'a Change>) {
        let mut ring = self.lock();
        for (topic, what) in changes.filter_map(event_of) {
            let number = ring.next;
            ring.next += 1;
            let frame = frame(&id(ring.epoch, number), topic, what);
            ring.bytes += frame.len();
            ring.entries.push_back(Entry {
                number,
                topic,
                frame,
            });
        }
        while ring.entries.len() > self.kept || ring.bytes > self.kept_bytes {
            let Some(oldest) = ring.entries.pop_front() else {
                break;
            };
            ring.bytes -= oldest.frame.len();
        }
        let newest = ring.next;
        drop(ring);
        self.newest.send_replace(newest);
    }

    /// Where a reader begins: after `last_id`, or now. `true` when something was missed.
    pub fn position(&self, last_id: Option<&str>) -> (Position, bool) {
        let ring = self.lock();
        let now = Position(ring.next);
        let Some(text) = last_id else {
            return (now, false);
        };
        let after = text
            .split_once('-')
            .filter(|(epoch, _)| epoch.parse() == Ok(ring.epoch))
            .and_then(|(_, number)| number.parse::<u64>().ok())
            .filter(|number| *number < ring.next);
        match after {
            Some(number) => (Position(number + 1), false),
            None => (now, true),
        }
    }

    /// What a reader has not seen of its topics, as frames on the wire, and where it is now. A
    /// reader that was too slow gets `missed` first.
    pub fn read(&self, from: Position, topics: &BTreeSet<Topic>) -> (Vec<Bytes>, Position) {
        let ring = self.lock();
        let mut frames = Vec::new();
        let oldest = ring.entries.front().map_or(ring.next, |entry| entry.number);
        if from.0 < oldest {
            frames.push(frame(
                &id(ring.epoch, oldest - 1),
                Topic::Experiments,
                What::Missed,
            ));
        }
        let skip = usize::try_from(from.0.saturating_sub(oldest)).unwrap_or(usize::MAX);
        for entry in ring.entries.iter().skip(skip) {
            if topics.contains(&entry.topic) {
                frames.push(entry.frame.clone());
            }
        }
        (frames, Position(ring.next))
    }

    /// A frame that says that events were missed.
    pub fn missed(&self, at: Position) -> Bytes {
        let epoch = self.lock().epoch;
        frame(
            &id(epoch, at.0.saturating_sub(1)),
            Topic::Experiments,
            What::Missed,
        )
    }

    /// Wakes up after each commit that published.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // The ring is whole between statements: a reader that panicked broke nothing.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id(epoch: u64, number: u64) -> String {
    format!("{epoch}-{number}")
}

fn frame(id: &str, topic: Topic, what: What) -> Bytes {
    let event = LiveEvent {
        id: id.to_owned(),
        what,
    };
    let data = serde_json::to_string(&event).unwrap_or_default();
    Bytes::from(format!(
        "id: {id}\nevent: {}\ndata: {data}\n\n",
        topic.as_str()
    ))
}

fn event_of(change: &Change) -> Option<(Topic, What)> {
    Some(match change {
        Change::Experiment(row) => {
            let mut row = row.clone();
            row.searcher = Value::Null;
            row.source = String::new();
            (Topic::Experiments, What::Experiment(row))
        }
        Change::Trial(row) => (Topic::Trials, What::Trial(row.clone())),
        Change::Worker(row) => (Topic::Workers, What::Worker(row.clone())),
        Change::Task(row) => (Topic::Tasks, What::Task(row.clone())),
        Change::Observed(row) => (Topic::Trials, What::Observed(row.clone())),
        Change::Dataset(row) => (Topic::Models, What::Dataset(row.clone())),
        Change::Backbone(row) => (Topic::Models, What::Backbone(row.clone())),
        Change::Version(row) => (Topic::Models, What::Version(row.clone())),
        Change::AliasMoved(row) => (Topic::Models, What::AliasMoved(row.clone())),
        Change::Lease(_)
        | Change::Checkpoint(_)
        | Change::CheckpointDeleted(..)
        | Change::Reason(_) => return None,
    })
}

#[cfg(test)]
mod tests;
