//! The trainer of a simulated world, of one trial or of several in turn: a curve depends on trial
//! and step alone, so that a resume measures what an uninterrupted run would have measured.

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::task::TaskResult;
use pomona_domain::{Code, Digest, Fault, TaskId, TrialId};
use std::collections::BTreeMap;

use crate::coordinator::{Job, Member};
use crate::mood::Mood;

/// Steps of one epoch; a trial moves by half of it.
pub const EPOCH: u64 = 10;

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
    /// What becomes of the process.
    pub mood: Mood,
    runs: Vec<Run>,
    task: Option<(TaskId, Box<TaskResult>)>,
    moves: u32,
    started: bool,
}

/// One trial of a trainer.
#[derive(Debug, Clone)]
struct Run {
    trial: TrialId,
    mood: Mood,
    /// Steps to train.
    end: u64,
    step: u64,
    best: Option<u64>,
    /// It moves no more.
    is_done: bool,
    /// It said something by which the coordinator ends it, and may go on for a while.
    is_out: bool,
}

/// The metric of a trial at a step.
pub fn curve(trial: TrialId, step: u64) -> f64 {
    let mixed =
        (trial.0 ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

impl Trainer {
    /// A trainer of a job, with a mood for each of its trials.
    pub fn new(job: Job, moods: &[Mood]) -> Self {
        let whole = moods.iter().copied().find(|mood| !mood.is_of_one());
        let (members, task) = match job {
            Job::Train { members } => (members, None),
            Job::Task { task, answer } => (Vec::new(), Some((task, answer))),
        };
        let run = |(member, mood): (Member, &Mood)| Run {
            trial: member.trial,
            mood: *mood,
            end: u64::from(member.epochs) * EPOCH,
            step: member.resume,
            best: member.resume_best,
            is_done: false,
            is_out: false,
        };
        Self {
            mood: whole.unwrap_or(Mood::Well),
            runs: members.into_iter().zip(moods).map(run).collect(),
            task,
            moves: 0,
            started: false,
        }
    }

    /// The only trial that is still on it, as the coordinator sees it: a fault is its own.
    pub fn alone(&self) -> Option<TrialId> {
        let mut on = (self.runs.iter()).filter(|run| !run.is_done && !run.is_out);
        let first = on.next()?;
        on.next().is_none().then_some(first.trial)
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
                fault: misfit(),
                retry: false,
            }),
            Mood::Diverges(_)
            | Mood::Breaks(_)
            | Mood::Stumbles(_)
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

    /// Every trial makes a move. One that is done says so while others go on; of the last ones
    /// some trainers say it and some leave it to the exit.
    fn advance(&mut self, said: &mut Vec<ReportBody>) -> Option<Outcome> {
        if let Some((task, answer)) = &self.task {
            said.push(ReportBody::Result {
                task: *task,
                result: answer.clone(),
            });
            return Some(Outcome::Finished);
        }
        let mut finished = Vec::new();
        for run in self.runs.iter_mut().filter(|run| !run.is_done) {
            match run.advance(self.moves, said) {
                None => {}
                Some(Outcome::Finished) => finished.push(run.trial),
                Some(outcome) => said.push(ReportBody::TrialEnded {
                    trial: run.trial,
                    outcome,
                }),
            }
        }
        let all_done = self.runs.iter().all(|run| run.is_done);
        for trial in finished {
            if !all_done || trial.0.is_multiple_of(2) {
                let outcome = Outcome::Finished;
                said.push(ReportBody::TrialEnded { trial, outcome });
            }
        }
        all_done.then_some(Outcome::Finished)
    }

    /// What a trainer says that was asked to stop.
    pub fn stop(&self) -> Vec<ReportBody> {
        (self.runs.iter())
            .filter(|run| !run.is_done && run.step > 0)
            .map(|run| run.checkpoint(CheckpointKind::Last))
            .collect()
    }
}

fn misfit() -> Fault {
    Fault::new(Code::BadCheckpoint, "the checkpoint is of another spec")
}

impl Run {
    /// Half an epoch; how it ended, when it did.
    fn advance(&mut self, moves: u32, said: &mut Vec<ReportBody>) -> Option<Outcome> {
        if let Some(retry) = self.is_broken(moves) {
            self.is_done = true;
            let fault = misfit();
            return Some(Outcome::Failed { fault, retry });
        }
        if self.step < self.end {
            self.step += EPOCH / 2;
            if self.step.is_multiple_of(EPOCH) {
                let diverges = matches!(self.mood, Mood::Diverges(after) if moves > after);
                self.evaluate(diverges, said);
            }
        }
        self.is_done = self.step >= self.end;
        self.is_done.then_some(Outcome::Finished)
    }

    /// Whether its trainer ends it now, and whether another attempt may help.
    fn is_broken(&self, moves: u32) -> Option<bool> {
        let breaks = matches!(self.mood, Mood::Breaks(after) if moves > after);
        let stumbles = matches!(self.mood, Mood::Stumbles(after) if moves > after);
        (breaks || stumbles).then_some(stumbles)
    }

    fn evaluate(&mut self, diverges: bool, said: &mut Vec<ReportBody>) {
        let value = curve(self.trial, self.step);
        let shown = if diverges { f64::NAN } else { value };
        self.is_out |= diverges;
        said.push(ReportBody::Observed {
            trial: self.trial,
            step: self.step,
            epoch: (self.step / EPOCH) as u32,
            metrics: BTreeMap::from([
                ("val/accuracy".to_owned(), shown),
                ("val/loss".to_owned(), 1.0 - value),
            ]),
            confusion: Vec::new(),
        });
        if (self.best).is_none_or(|best| value > curve(self.trial, best)) {
            self.best = Some(self.step);
            said.push(self.checkpoint(CheckpointKind::Best));
        }
        said.push(self.checkpoint(CheckpointKind::Last));
    }

    fn checkpoint(&self, kind: CheckpointKind) -> ReportBody {
        let (trial, step) = (self.trial, self.step);
        ReportBody::Checkpoint {
            trial,
            checkpoint: kind,
            step,
            epoch: (step / EPOCH) as u32,
            digest: Digest(std::array::from_fn(|index| {
                (trial.0 >> (8 * (index % 8))) as u8 ^ (step as u8) ^ (kind as u8)
            })),
            size: 1,
        }
    }
}
