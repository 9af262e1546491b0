//! One trial among those that are trained side by side: its head and its checkpoints.
//!
//! It must never look at another lane.

use super::super::record::Record;
use super::super::start::Resumed;
use super::Hall;
use super::cross::Scores;
use super::trainee::Trainee;
use crate::checkpoint::{self, State};
use crate::metrics::Classification;
use pomona_api::trainer::Member;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::spec::{Head, TrialSpec};
use pomona_domain::{Code, Fault};
use std::time::{Duration, Instant};

/// Longest time between two checkpoints of a trial. Epochs over features take milliseconds: a file
/// for each of them would cost more than it saves.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Set by tests alone: milliseconds instead of the five seconds between checkpoints.
pub const SAVE_ENV: &str = "POMONA_TEST_SAVE_EVERY_MS";
/// Copies of a head's tensors in memory: parameters, gradients, two moments, checkpoints on their
/// way, and the head of a fold.
const COPIES: u64 = 12;

/// A trial.
pub(super) struct Lane<'a> {
    pub(super) record: Record<'a>,
    pub(super) own: Trainee<'a>,
    /// The best checkpoint, while it is not on disk.
    best: Option<Held>,
    saved_at: Instant,
    /// Step and epoch of the last checkpoint: a pass may have had all its steps and not be over.
    saved: (u64, u32),
    save_every: Duration,
}

/// A checkpoint that was taken and not written.
struct Held {
    step: u64,
    epoch: u32,
    bytes: Vec<u8>,
}

/// What lanes must have in common to lie in one stack: the order of their images, and shapes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    seed: u64,
    replicate: u32,
    batch_size: u32,
    hidden: Option<u32>,
    reads_features: bool,
    epoch: u32,
    position: u64,
}

impl<'a> Lane<'a> {
    pub(super) fn open(
        member: &'a Member,
        state: State,
        resumed: Option<&Resumed>,
        hall: &Hall<'a>,
    ) -> Result<Self, Fault> {
        let classes = state.classes as usize;
        let mut own = Trainee::new(&member.spec, &hall.network, classes, &hall.source.labels);
        if let Some((content, _)) = resumed {
            checkpoint::load_live(content, own.head.iter())?;
            checkpoint::load_optimizer(content, &state, &mut own.optimizer)?;
        }
        let saved = (state.step, state.epoch);
        Ok(Self {
            record: Record::open(member, state, hall.listener, true, hall.is_shared)?,
            own,
            best: None,
            saved_at: Instant::now(),
            saved,
            save_every: save_every(),
        })
    }

    pub(super) fn spec(&self) -> &'a TrialSpec {
        &self.record.member.spec
    }

    pub(super) fn key(&self) -> Key {
        let (spec, state) = (self.spec(), &self.record.state);
        Key {
            seed: spec.seed,
            replicate: spec.replicate,
            batch_size: spec.train.batch_size,
            hidden: match spec.transfer.head {
                Head::Linear => None,
                Head::Mlp { hidden, .. } => Some(hidden),
            },
            reads_features: self.reads_features(),
            epoch: state.epoch,
            position: state.position,
        }
    }

    pub(super) fn reads_features(&self) -> bool {
        self.record.state.features.is_some()
    }

    /// Whether earlier steps were made from pixels.
    pub(super) fn began_on_pixels(&self) -> bool {
        self.record.state.step > 0 && !self.reads_features()
    }

    /// Whether the pass under way has had all its steps.
    pub(super) fn is_epoch_over(&self) -> bool {
        self.record.state.position >= self.own.steps_per_epoch
    }

    pub(super) fn is_done(&self) -> bool {
        self.record.state.epoch >= self.spec().train.epochs
    }

    /// Whether the pass under way is its last.
    pub(super) fn is_in_last_epoch(&self) -> bool {
        self.record.state.epoch + 1 >= self.spec().train.epochs
    }

    /// Moves along the gradients.
    pub(super) fn update(&mut self, loss: f64, weight: f64) -> Result<(), Fault> {
        self.own.step(self.record.state.step)?;
        self.record.state.count_step(loss, weight);
        Ok(())
    }

    /// A pass is over; `scores` are those of a cross-validation.
    pub(super) fn end_epoch(
        &mut self,
        classes: &[String],
        report: &Classification,
        scores: Scores,
    ) -> Result<(), Fault> {
        if self.record.end_epoch(classes, report, scores)? {
            self.best = Some(self.taken()?);
        }
        Ok(())
    }

    /// Writes checkpoints when the last ones are old.
    pub(super) fn save_when_due(&mut self) -> Result<(), Fault> {
        if self.saved_at.elapsed() >= self.save_every {
            self.save()?;
        }
        Ok(())
    }

    /// Writes what is not on disk yet: the best checkpoint, then the last.
    pub(super) fn save(&mut self) -> Result<(), Fault> {
        if let Some(best) = self.best.take() {
            let at = (best.step, best.epoch);
            self.record.keep(CheckpointKind::Best, at, &best.bytes)?;
        }
        let state = &self.record.state;
        if (state.step, state.epoch) != self.saved {
            let last = self.taken()?;
            let at = (last.step, last.epoch);
            self.record.keep(CheckpointKind::Last, at, &last.bytes)?;
            self.saved = at;
        }
        self.saved_at = Instant::now();
        Ok(())
    }

    fn taken(&self) -> Result<Held, Fault> {
        let state = &self.record.state;
        Ok(Held {
            step: state.step,
            epoch: state.epoch,
            bytes: checkpoint::encode(self.own.head.iter(), &self.own.optimizer, state)?,
        })
    }
}

fn save_every() -> Duration {
    let wanted = std::env::var(SAVE_ENV).ok();
    let wanted = wanted.and_then(|text| text.parse().ok());
    wanted.map_or(SAVE_EVERY, Duration::from_millis)
}

/// Whether the heads fit into the memory that the machine has left; `E0509` names the sizes, and the
/// trials are leased again in smaller numbers.
pub(super) fn check_memory(lanes: &[Lane<'_>]) -> Result<(), Fault> {
    let heads = lanes.iter().flat_map(|lane| &lane.own.head);
    let elements: u64 = heads.map(|entry| entry.tensor.numel() as u64).sum();
    let needed = elements * 4 * COPIES;
    match available_bytes() {
        Some(left) if needed > left / 2 => {
            let (count, mib) = (lanes.len(), 1 << 20);
            Err(Fault::new(
                Code::OutOfMemory,
                format!(
                    "the heads of {count} trials take {} MiB, the machine has {} MiB left",
                    needed / mib,
                    left / mib
                ),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// Bytes that new work may take, as the kernel estimates them.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
