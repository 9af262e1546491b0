//! The trainer of a simulated world: its curve depends on trial and step alone, so that a resume
//! measures what an uninterrupted run would have measured.

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::{Code, Digest, Fault, TrialId};
use std::collections::BTreeMap;

use crate::coordinator::Job;

/// Steps of one epoch; a trainer moves by half of it.
pub const EPOCH: u64 = 10;

/// What becomes of a trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It trains to the end.
    Well,
    /// It trains to the end, at a tenth of the speed.
    Slow,
    /// It dies without a word after so many moves.
    Crashes(u32),
    /// It stops moving after so many moves; its worker ends it in the end.
    Hangs(u32),
    /// Its loss becomes NaN after so many moves.
    Diverges(u32),
    /// It fails after so many moves and says that no other attempt would help.
    Fails(u32),
    /// The worker cannot start it.
    CannotStart,
    /// It does not react when it is asked to stop.
    Deaf,
}

/// What a trainer did in one move.
pub struct Move {
    pub said: Vec<ReportBody>,
    pub over: Option<Outcome>,
    /// It will not move again by itself.
    pub hangs: bool,
}

/// A trainer at work.
#[derive(Debug, Clone)]
pub struct Trainer {
    pub job: Job,
    pub mood: Mood,
    pub step: u64,
    best: Option<u64>,
    moves: u32,
    started: bool,
}

/// The metric of a trial at a step.
pub fn curve(trial: TrialId, step: u64) -> f64 {
    let mixed =
        (trial.0 ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

impl Trainer {
    pub fn new(job: Job, mood: Mood) -> Self {
        let (step, best) = match &job {
            Job::Train {
                resume,
                resume_best,
                ..
            } => (*resume, *resume_best),
            Job::Task { .. } => (0, None),
        };
        Self {
            job,
            mood,
            step,
            best,
            moves: 0,
            started: false,
        }
    }

    /// One move.
    pub fn work(&mut self) -> Move {
        let mut said = Vec::new();
        if !self.started {
            self.started = true;
            let environment = BTreeMap::from([("threads".to_owned(), "1".to_owned())]);
            said.push(ReportBody::Started { environment });
        }
        self.moves += 1;
        let crashed = |code, text: &str| Outcome::Crashed {
            fault: Fault::new(code, text),
        };
        let over = match self.mood {
            Mood::CannotStart => {
                said.clear();
                let fault = Fault::new(Code::MissingProgram, "no trainer is there");
                Some(Outcome::NotStarted { fault })
            }
            Mood::Crashes(after) if self.moves > after => Some(crashed(
                Code::TrainerCrashed,
                "the trainer was killed by signal 9",
            )),
            Mood::Hangs(after) if self.moves > after + 1 => {
                Some(crashed(Code::Stalled, "no step for too long"))
            }
            Mood::Hangs(after) if self.moves > after => {
                return Move {
                    said,
                    over: None,
                    hangs: true,
                };
            }
            Mood::Fails(after) if self.moves > after => Some(Outcome::Failed {
                fault: Fault::new(Code::BadCheckpoint, "the checkpoint is of another spec"),
                retry: false,
            }),
            Mood::Diverges(_)
            | Mood::Crashes(_)
            | Mood::Hangs(_)
            | Mood::Fails(_)
            | Mood::Well
            | Mood::Slow
            | Mood::Deaf => self.advance(&mut said),
        };
        Move {
            said,
            over,
            hangs: false,
        }
    }

    fn advance(&mut self, said: &mut Vec<ReportBody>) -> Option<Outcome> {
        let (trial, epochs) = match &self.job {
            Job::Task { task, answer } => {
                said.push(ReportBody::Result {
                    task: *task,
                    result: answer.clone(),
                });
                return Some(Outcome::Finished);
            }
            Job::Train { trial, epochs, .. } => (*trial, u64::from(*epochs)),
        };
        let diverges = matches!(self.mood, Mood::Diverges(after) if self.moves > after);
        if self.step < epochs * EPOCH {
            self.step += EPOCH / 2;
            if self.step.is_multiple_of(EPOCH) {
                self.evaluate(trial, diverges, said);
            }
        }
        (self.step >= epochs * EPOCH).then_some(Outcome::Finished)
    }

    fn evaluate(&mut self, trial: TrialId, diverges: bool, said: &mut Vec<ReportBody>) {
        let value = curve(trial, self.step);
        let shown = if diverges { f64::NAN } else { value };
        said.push(ReportBody::Observed {
            trial,
            step: self.step,
            epoch: (self.step / EPOCH) as u32,
            metrics: BTreeMap::from([
                ("val/accuracy".to_owned(), shown),
                ("val/loss".to_owned(), 1.0 - value),
            ]),
            confusion: Vec::new(),
        });
        if self.best.is_none_or(|best| value > curve(trial, best)) {
            self.best = Some(self.step);
            said.push(self.checkpoint(trial, CheckpointKind::Best));
        }
        said.push(self.checkpoint(trial, CheckpointKind::Last));
    }

    /// What a trainer says that was asked to stop.
    pub fn stop(&self) -> Vec<ReportBody> {
        match &self.job {
            Job::Train { trial, .. } if self.step > 0 => {
                vec![self.checkpoint(*trial, CheckpointKind::Last)]
            }
            Job::Train { .. } | Job::Task { .. } => Vec::new(),
        }
    }

    fn checkpoint(&self, trial: TrialId, kind: CheckpointKind) -> ReportBody {
        ReportBody::Checkpoint {
            trial,
            checkpoint: kind,
            step: self.step,
            epoch: (self.step / EPOCH) as u32,
            digest: Digest(std::array::from_fn(|index| {
                (trial.0 >> (8 * (index % 8))) as u8 ^ (self.step as u8) ^ (kind as u8)
            })),
            size: 1,
        }
    }
}
