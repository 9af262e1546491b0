//! The lines between a worker and this process: one JSON object a line, up on stdout, down on
//! stdin. The only place that writes to stdout.

use pomona_api::PROTOCOL;
use pomona_api::trainer::{Command, Event, Signal, TrainerWork};
use pomona_domain::{Code, Fault};
use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Stdout, and the signals that came on stdin.
#[derive(Debug, Default)]
pub struct Line {
    stdout: Mutex<()>,
    stop: AtomicBool,
    ending: AtomicBool,
}

impl Line {
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
        let _one_at_a_time = self.stdout.lock();
        let mut out = std::io::stdout().lock();
        if out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
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

/// Ends the process at once. Everything said is written: stdout is flushed line by line.
pub fn leave(status: u8) -> ! {
    crate::dist::ffi::exit_at_once(i32::from(status))
}

/// A line of the log, for people.
#[expect(clippy::print_stderr, reason = "stderr is the log of a rank")]
pub fn log(line: &str) {
    eprintln!("{line}");
}
