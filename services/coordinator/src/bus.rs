//! Live events: what was committed, kept for a while for readers of `GET /api/v1/events`.
//!
//! A reader that comes back with an id gets what it missed; when that is gone it is told so. The
//! bus never holds more than its limits and never waits for a reader, nor for Redis ([`relay`]).

pub mod relay;

use bytes::Bytes;
use pomona_api::v1::events::{LiveEvent, Topic, What};
use pomona_domain::Change;
use pomona_domain::trial::TrialState;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Notify, mpsc, watch};

use relay::Said;

/// Events of the newest commits.
#[derive(Debug)]
pub struct Bus {
    kept: usize,
    kept_bytes: usize,
    ring: Mutex<Ring>,
    /// Grows whenever there is something to read.
    newest: watch::Sender<u64>,
    /// Grows whenever the events that follow come from elsewhere.
    turn: watch::Sender<u64>,
    /// Whether another coordinator's events come here.
    relayed: AtomicBool,
    /// To the other coordinators.
    say: OnceLock<mpsc::Sender<Said>>,
    /// Rung when the leader says that it resigns.
    pub wake: Notify,
    /// Rung when something was committed that webhooks may be told of.
    pub told: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    /// The leader's generation: ids of an earlier coordinator are known to be another's.
    epoch: u64,
    next: u64,
    bytes: usize,
    entries: VecDeque<Entry>,
}

impl Ring {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.frame.len();
        self.entries.push_back(entry);
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn shrink(&mut self, kept: usize, kept_bytes: usize) {
        while self.entries.len() > kept || self.bytes > kept_bytes {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.frame.len();
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    topic: Topic,
    frame: Bytes,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    epoch: u64,
    next: u64,
}

impl Bus {
    /// A bus that keeps at most so many events and bytes.
    pub fn new(kept: usize, kept_bytes: usize) -> Self {
        Self {
            kept,
            kept_bytes,
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
            turn: watch::Sender::new(0),
            relayed: AtomicBool::new(false),
            say: OnceLock::new(),
            wake: Notify::new(),
            told: Notify::new(),
        }
    }

    /// This coordinator leads: names the events that follow.
    pub fn begin(&self, epoch: u64) {
        let mut ring = self.lock();
        ring.clear();
        ring.epoch = epoch;
        ring.next = 1;
        drop(ring);
        self.relayed.store(false, Ordering::Release);
        self.turn.send_modify(|turn| *turn += 1);
    }

    /// This coordinator leads no more; `resigned` when it was its own will.
    pub fn end(&self, resigned: bool) {
        if resigned {
            let mut ring = self.lock();
            let number = ring.next;
            ring.next += 1;
            self.say(Said {
                epoch: ring.epoch,
                number,
                event: None,
            });
        }
        self.turn.send_modify(|turn| *turn += 1);
    }

    /// Whether readers may be served here while another coordinator leads.
    pub fn is_relayed(&self) -> bool {
        self.relayed.load(Ordering::Acquire)
    }

    fn relayed(&self, relayed: bool) {
        if self.relayed.swap(relayed, Ordering::AcqRel) != relayed {
            self.turn.send_modify(|turn| *turn += 1);
        }
    }

    fn relay_through(&self, say: mpsc::Sender<Said>) {
        // There is one relay.
        let _ = self.say.set(say);
    }

    fn say(&self, said: Said) {
        if let Some(say) = self.say.get() {
            // Nobody waits for Redis: the others see a hole in the numbers.
            let _ = say.try_send(said);
        }
    }

    /// Adds what a commit changed.
    pub fn publish<'a>(&self, changes: impl Iterator<Item = &'a Change>) {
        let mut ring = self.lock();
        let epoch = ring.epoch;
        let mut told = false;
        let changes = changes.inspect(|change| told |= is_told(change));
        for (topic, what) in changes.filter_map(event_of) {
            let number = ring.next;
            ring.next += 1;
            let frame = frame(&id(epoch, number), topic, what);
            let event = Some((topic, frame.clone()));
            self.say(Said {
                epoch,
                number,
                event,
            });
            ring.push(Entry {
                number,
                topic,
                frame,
            });
        }
        self.show(ring);
        if told {
            self.told.notify_one();
        }
    }

    /// Forgets what is over the limits, and wakes readers.
    fn show(&self, mut ring: MutexGuard<'_, Ring>) {
        ring.shrink(self.kept, self.kept_bytes);
        drop(ring);
        self.newest.send_modify(|count| *count += 1);
    }

    /// Where a reader begins: after `last_id`, or now. `true` when something was missed.
    pub fn position(&self, last_id: Option<&str>) -> (Position, bool) {
        let ring = self.lock();
        let (epoch, next) = (ring.epoch, ring.next);
        let now = Position { epoch, next };
        let Some(text) = last_id else {
            return (now, false);
        };
        let after = text
            .split_once('-')
            .filter(|(of, _)| of.parse() == Ok(epoch))
            .and_then(|(_, number)| number.parse::<u64>().ok())
            .filter(|number| *number < next);
        match after {
            Some(number) => {
                let next = number + 1;
                (Position { epoch, next }, false)
            }
            None => (now, true),
        }
    }

    /// What a reader has not seen of its topics, as frames on the wire, and where it is now. A
    /// reader that was too slow gets `missed` first.
    pub fn read(&self, from: Position, topics: &BTreeSet<Topic>) -> (Vec<Bytes>, Position) {
        let ring = self.lock();
        let (epoch, next) = (ring.epoch, ring.next);
        let mut frames = Vec::new();
        let oldest = ring.entries.front().map_or(next, |entry| entry.number);
        // The events of another leader: nobody knows what came between.
        let from = if from.epoch == epoch { from.next } else { 0 };
        if from < oldest {
            let missed = id(epoch, oldest.saturating_sub(1));
            frames.push(frame(&missed, Topic::Experiments, What::Missed));
        }
        let is_new = |entry: &&Entry| entry.number >= from && topics.contains(&entry.topic);
        let new = ring.entries.iter().filter(is_new);
        frames.extend(new.map(|entry| entry.frame.clone()));
        (frames, Position { epoch, next })
    }

    /// A frame that says that events were missed.
    pub fn missed(at: Position) -> Bytes {
        let id = id(at.epoch, at.next.saturating_sub(1));
        frame(&id, Topic::Experiments, What::Missed)
    }

    /// Wakes up when the events that follow come from elsewhere: a reader comes back with its id.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.turn.subscribe()
    }

    /// Wakes up after each commit that published.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
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

/// Whether a change has a row in the outbox.
fn is_told(change: &Change) -> bool {
    match change {
        Change::Experiment(row) => row.is_ended(),
        Change::Trial(row) => matches!(row.state, TrialState::Failed { .. }),
        Change::Version(_) | Change::AliasMoved(_) => true,
        Change::Worker(_)
        | Change::Task(_)
        | Change::Lease(_)
        | Change::Observed(_)
        | Change::Dataset(_)
        | Change::Backbone(_)
        | Change::Checkpoint(_)
        | Change::CheckpointDeleted(..)
        | Change::Described(_)
        | Change::Removed(_)
        | Change::Audited(_)
        | Change::Gates(_)
        | Change::Reason(_) => false,
    }
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
        | Change::Described(_)
        | Change::Removed(_)
        | Change::Audited(_)
        | Change::Gates(_)
        | Change::Reason(_) => return None,
    })
}

#[cfg(test)]
mod tests;
