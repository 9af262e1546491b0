//! What the ends of a lease's ranks mean. Pure.

use pomona_domain::report::Outcome;
use pomona_domain::{Code, Fault};
use std::fmt;

use crate::process::EXIT_NO_PROGRAM;

#[cfg(test)]
mod tests;

/// Exit status after `finished`.
const EXIT_FINISHED: i32 = 0;
/// Exit status after `stopped`.
const EXIT_STOPPED: i32 = 3;
/// The kernel's way to end what takes too much memory, and ours to end a group.
const SIGKILL: i32 = 9;
/// Last lines of stderr that a crash is told with.
const TOLD_LINES: usize = 5;
/// Bytes of them.
const TOLD_BYTES: usize = 600;

/// A rank's last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// All done.
    Finished,
    /// Stopped as asked.
    Stopped,
    /// Failed.
    Failed {
        /// Why.
        fault: Fault,
        /// Whether to try again.
        retry: bool,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody knows.
    Unknown,
}

impl From<std::process::ExitStatus> for Status {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with status {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "was ended by signal {signal} ({name})"),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// The end of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its last word.
    pub word: Option<Word>,
    /// How the process ended.
    pub status: Status,
    /// Whether it had said `started`.
    pub started: bool,
    /// Whether it ended after we had killed the group.
    pub killed: bool,
    /// Its last lines of stderr.
    pub tail: Vec<String>,
}

/// Whose processes they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Our trainer.
    Trainer,
    /// A program of one's own, which says nothing at its end.
    Program,
}

/// What the end of a process of a program means: with status 0 it finished, and whatever it does
/// after it was asked to stop is that. Its keeper tells signals as a shell does.
pub fn of_program(status: Status, was_asked: bool) -> (Option<Word>, Status) {
    if was_asked {
        return (Some(Word::Stopped), Status::Code(EXIT_STOPPED));
    }
    match status {
        Status::Code(EXIT_FINISHED) => (Some(Word::Finished), status),
        Status::Code(code) if code > 128 => (None, Status::Signal(code - 128)),
        Status::Code(_) | Status::Signal(_) | Status::Unknown => (None, status),
    }
}

/// Why we ended the ranks.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// The coordinator no longer wants it, or the worker stops.
    Asked,
    /// It was asked to stop and took too long.
    GraceOver,
    /// One rank was lost.
    RankLost,
    /// It stalled, or its time is over.
    Limit(Fault),
    /// What it said cannot be kept or cannot be meant, and what that makes of the lease.
    Broken(Outcome),
}

impl End {
    fn is_finished(&self) -> bool {
        self.word == Some(Word::Finished) && self.status == Status::Code(EXIT_FINISHED)
    }

    fn is_stopped(&self) -> bool {
        self.word == Some(Word::Stopped) && self.status == Status::Code(EXIT_STOPPED)
    }

    /// Whether it ended as it should.
    pub fn is_good(&self) -> bool {
        self.is_finished() || self.is_stopped()
    }

    /// Whether it blames its peers.
    pub fn blames_peers(&self) -> bool {
        matches!(&self.word, Some(Word::Failed { fault, .. }) if fault.code == Code::RankLost)
    }
}

/// How the lease ended here. `whose` says whose processes they were and the number of the first one,
/// when they have numbers; `starved` that this machine killed processes for want of memory meanwhile.
pub fn outcome(
    cause: Option<&Cause>,
    ends: &[End],
    whose: (Whose, Option<u32>),
    starved: bool,
) -> Outcome {
    if let Some(Cause::Broken(outcome)) = cause {
        // A good end would hide that something of it is missing.
        return outcome.clone();
    }
    if ends.iter().all(End::is_finished) {
        return Outcome::Finished;
    }
    if ends.iter().all(End::is_good) {
        return Outcome::Stopped;
    }
    match cause {
        Some(Cause::Asked | Cause::GraceOver) => Outcome::Killed,
        Some(Cause::Limit(fault)) => Outcome::Crashed {
            fault: fault.clone(),
        },
        Some(Cause::Broken(outcome)) => outcome.clone(),
        Some(Cause::RankLost) | None => culprit(ends, whose, starved),
    }
}

/// The end of the rank that began it: one with a reason of its own before one without words,
/// before one that blames its peers.
fn culprit(ends: &[End], (whose, first): (Whose, Option<u32>), starved: bool) -> Outcome {
    let weight = |end: &End| match (&end.word, end.blames_peers()) {
        (_, true) => 2,
        (Some(Word::Failed { .. }), false) => 0,
        (Some(Word::Finished | Word::Stopped) | None, false) => 1,
    };
    let bad = ends.iter().enumerate().filter(|(_, end)| !end.is_good());
    let own = bad.clone().filter(|(_, end)| !end.killed);
    let worst = own.min_by_key(|(_, end)| weight(end));
    let Some((rank, end)) = worst.or_else(|| bad.min_by_key(|(_, end)| weight(end))) else {
        let fault = Fault::new(Code::TrainerCrashed, "the ranks ended without a trace");
        return Outcome::Crashed { fault };
    };
    if let Some(Word::Failed { fault, retry }) = &end.word {
        return Outcome::Failed {
            fault: fault.clone(),
            retry: *retry,
        };
    }
    let said = last_words(&end.tail);
    if !end.started && end.status == Status::Code(EXIT_NO_PROGRAM) {
        let message = format!("the trainer cannot be started{said}");
        let fault = Fault::new(Code::MissingProgram, message)
            .hint("`pomona doctor` on the worker's machine says what is missing");
        return Outcome::NotStarted { fault };
    }
    let who = match (first, whose) {
        (None, Whose::Trainer) => "the trainer".to_owned(),
        (None, Whose::Program) => "the program".to_owned(),
        (Some(first), _) => format!("rank {}", first as usize + rank),
    };
    let fault = if starved && end.status == Status::Signal(SIGKILL) {
        let message = format!("{who} was killed because the machine ran out of memory{said}");
        Fault::new(Code::OutOfMemory, message)
            .hint("use a smaller `train.batch_size`, or fewer slots on this worker")
    } else if whose == Whose::Program {
        Fault::new(Code::ProgramFailed, format!("{who} {}{said}", end.status))
    } else {
        let message = format!("{who} {} without a word{said}", end.status);
        Fault::new(Code::TrainerCrashed, message)
    };
    Outcome::Crashed { fault }
}

/// The end of the log, on one line.
pub fn last_words(tail: &[String]) -> String {
    let from = tail.len().saturating_sub(TOLD_LINES);
    let lines: Vec<&str> = tail[from..]
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let text = lines.join(" / ");
    let skip = text.len().saturating_sub(TOLD_BYTES);
    let skip = (skip..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("; its log ends with: {}", &text[skip..])
}
