//! The lines between a worker and this process: one JSON object a line, up on stdout, down on
//! stdin. Nothing else reaches the stdout that this process was given.

use pomona_api::PROTOCOL;
use pomona_api::trainer::{Command, Event, Signal, TrainerWork};
use pomona_domain::{Code, Fault};
use std::fs::File;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Exit status when the worker is gone: neither side can be told anything more.
pub const EXIT_ORPHAN: u8 = 5;

/// Threads a rank may be told to use.
const MOST_THREADS: u32 = 4096;

/// Where events go.
pub trait Listener: Sync {
    /// One event.
    fn say(&self, event: &Event);

    /// Whether a stop was asked for.
    fn stop_wanted(&self) -> bool;
}

/// What was stdout, and the signals that came on stdin.
#[derive(Debug)]
pub struct Line {
    out: Mutex<File>,
    stop: AtomicBool,
    ending: AtomicBool,
}

impl Line {
    /// Takes stdout for events alone. Libraries print there too (NCCL its version, oneDNN its
    /// primitives): from now on that goes to the log.
    pub fn take_stdout() -> std::io::Result<Self> {
        let out = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(Self {
            out: Mutex::new(File::from(out)),
            stop: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        })
    }

    /// The last event: after it the worker may close the other end.
    pub fn end(&self, event: &Event) {
        self.ending.store(true, Ordering::SeqCst);
        self.say(event);
    }
}

impl Listener for Line {
    fn say(&self, event: &Event) {
        let Ok(mut text) = serde_json::to_string(event) else {
            return;
        };
        text.push('\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.write_all(text.as_bytes()).is_err() {
            leave(EXIT_ORPHAN);
        }
    }

    fn stop_wanted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The first line of `input`.
pub fn command(input: &mut impl BufRead) -> Result<Command, Fault> {
    let mut line = String::new();
    input
        .read_line(&mut line)
        .map_err(|error| Fault::new(Code::BadRequest, format!("stdin cannot be read: {error}")))?;
    let command: Command = serde_json::from_str(&line).map_err(|error| {
        Fault::new(
            Code::BadRequest,
            format!("the first line is no command: {error}"),
        )
    })?;
    if command.protocol != PROTOCOL {
        let theirs = command.protocol;
        let message = format!("the worker speaks protocol {theirs}, this trainer {PROTOCOL}");
        return Err(Fault::new(Code::VersionMismatch, message)
            .hint("install worker and trainer of one version"));
    }
    in_its_place(&command)?;
    Ok(command)
}

/// A rank that trained beside its group would write over what the group writes.
fn in_its_place(command: &Command) -> Result<(), Fault> {
    let (rank, ranks) = (command.rank, command.world_size);
    let wrong = if command.threads > MOST_THREADS {
        format!("{} threads are more than {MOST_THREADS}", command.threads)
    } else if rank >= ranks {
        format!("rank {rank} is none of {ranks} ranks")
    } else if ranks > 1 && command.rendezvous.is_none() {
        format!("{ranks} ranks have no rendezvous")
    } else if ranks > 1 && !matches!(command.work, TrainerWork::Train(_)) {
        format!("a task runs in one rank, not in {ranks}")
    } else {
        return Ok(());
    };
    Err(Fault::new(Code::BadRequest, wrong))
}

/// Reads signals until the worker is gone, and then ends the process at once.
pub fn listen(line: &'static Line, input: impl BufRead + Send + 'static) {
    std::thread::spawn(move || {
        for text in input.lines() {
            let Ok(text) = text else { break };
            match serde_json::from_str::<Signal>(&text) {
                Ok(Signal::Stop) => line.stop.store(true, Ordering::Relaxed),
                // A newer worker may know more signals; this one is told to the log.
                Err(error) => log(&format!("a line on stdin is no signal: {error}")),
            }
        }
        if !line.ending.load(Ordering::SeqCst) {
            leave(EXIT_ORPHAN);
        }
    });
}

/// Ends the process at once. Everything said is written, line by line.
pub fn leave(status: u8) -> ! {
    crate::dist::ffi::exit_at_once(i32::from(status))
}

/// A line of the log, for people.
#[expect(clippy::print_stderr, reason = "stderr is the log of a rank")]
pub fn log(line: &str) {
    eprintln!("{line}");
}
