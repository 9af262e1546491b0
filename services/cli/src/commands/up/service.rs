//! A program that is kept running: started tied to our life, its words passed on, started again
//! with a growing pause when it ends, given up when that does not help.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pomona_domain::{Code, Fault};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::printer::Printer;

/// One that ends more often than this in a row is given up.
const MAX_ENDS: u32 = 5;
/// One that ran this long ended for a new reason.
const STEADY: Duration = Duration::from_mins(1);
/// Pause before it is started again; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// Last lines that are kept for the fault.
const TAIL: usize = 12;
/// Its last words come within this time after its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Something that happened to a service.
#[derive(Debug)]
pub enum Happened {
    /// It ended by itself.
    Ended(ExitStatus),
    /// It is time to start it again.
    Due,
}

type Tail = Arc<Mutex<VecDeque<String>>>;

/// A program that is kept running.
pub struct Service {
    name: &'static str,
    program: PathBuf,
    /// What it is started with.
    pub arguments: Vec<OsString>,
    printer: Printer,
    running: Option<Running>,
    due: Option<Instant>,
    ends: u32,
}

struct Running {
    child: Child,
    since: Instant,
    tail: Tail,
    words: JoinHandle<()>,
}

impl Service {
    /// One that does not run yet.
    pub fn new(
        name: &'static str,
        program: PathBuf,
        arguments: Vec<OsString>,
        printer: &Printer,
    ) -> Self {
        Self {
            name,
            program,
            arguments,
            printer: printer.clone(),
            running: None,
            due: None,
            ends: 0,
        }
    }

    /// Starts it, and gives its stdout. Only the main thread may call this: the kernel ends the
    /// program when the *thread* that started it ends.
    pub fn start(&mut self) -> Result<ChildStdout, Fault> {
        self.due = None;
        let started = Command::new("/proc/self/exe")
            .arg("tether")
            .arg(std::process::id().to_string())
            .arg(&self.program)
            .args(&self.arguments)
            // A group of its own: Ctrl-C in a terminal reaches us alone, and we stop it in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let broken = |why: String| {
            Fault::new(
                Code::Internal,
                format!("the {} cannot be started: {why}", self.name),
            )
        };
        let mut child = started.map_err(|error| broken(error.to_string()))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(broken("it has no pipes".to_owned()));
        };
        let tail = Tail::default();
        let words = pass_on(stderr, self.name, Arc::clone(&tail), self.printer.clone());
        self.running = Some(Running {
            child,
            since: Instant::now(),
            tail,
            words: tokio::spawn(words),
        });
        Ok(stdout)
    }

    /// Starts it again, when nobody reads its stdout.
    pub fn start_again(&mut self) -> Result<(), Fault> {
        let mut stdout = self.start()?;
        tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
        Ok(())
    }

    /// What happens next. Safe to drop half-way.
    pub async fn next(&mut self) -> Happened {
        if let Some(running) = &mut self.running {
            let status = running.child.wait().await.unwrap_or_default();
            return Happened::Ended(status);
        }
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        Happened::Due
    }

    /// It ended by itself: when it will be started again, or why it will not.
    pub async fn ended(&mut self, status: ExitStatus) -> Result<(), Fault> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let lived = running.since.elapsed();
        let fault = last_words(self.name, running, status).await;
        self.ends = if lived >= STEADY { 1 } else { self.ends + 1 };
        // Status 1 is an input that it refuses: it would refuse it again.
        if self.ends > MAX_ENDS || status.code() == Some(1) {
            return Err(fault);
        }
        let pause = (PAUSE * 2u32.saturating_pow(self.ends - 1)).min(MAX_PAUSE);
        self.due = Some(Instant::now() + pause);
        let hint = fault
            .hint
            .map(|hint| format!(" ({hint})"))
            .unwrap_or_default();
        self.printer
            .warn(&format!("{}{hint}; it is started again", fault.message));
        Ok(())
    }

    /// It ended before it was ready: why.
    pub async fn failed(&mut self, status: Option<ExitStatus>) -> Fault {
        let Some(mut running) = self.running.take() else {
            return Fault::new(Code::Internal, format!("the {} does not run", self.name));
        };
        let status = match status {
            Some(status) => status,
            None => running.child.wait().await.unwrap_or_default(),
        };
        last_words(self.name, running, status).await
    }

    /// Asks it to end, waits until it has, and makes it when it takes longer than `limit` or
    /// `hurry` resolves.
    pub async fn stop(&mut self, limit: Duration, hurry: impl Future<Output = ()>) {
        self.due = None;
        let Some(mut running) = self.running.take() else {
            return;
        };
        self.printer.say(&format!("stopping the {}", self.name));
        signal(&running.child, Signal::SIGTERM);
        tokio::select! {
            _ = running.child.wait() => {}
            () = tokio::time::sleep(limit) => {
                let name = self.name;
                self.printer.warn(&format!("the {name} does not end: it is killed"));
            }
            () = hurry => {}
        }
        // No error when it has ended.
        let _ = running.child.kill().await;
        let _ = tokio::time::timeout(LAST_WORDS, running.words).await;
        let tail = running.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = coded(self.name, &tail) {
            self.printer.warn(&fault.message);
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Its lines, with its name before them; the last ones are kept.
async fn pass_on(stream: impl AsyncRead + Unpin, name: &'static str, tail: Tail, printer: Printer) {
    let style = printer.talk_style();
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // On a terminal, only what somebody should know; in a file, everything. What it ends with
        // is told once, as our own fault.
        if !is_verdict(&line) && (!printer.is_live() || !is_routine(&line)) {
            printer.say(&format!("{} {line}", style.dim(&format!("{name:>11} |"))));
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
}

/// A line of the coded error that a program ends with.
fn is_verdict(line: &str) -> bool {
    line.starts_with("error[E") || line.starts_with("hint: ")
}

/// A line of a log at a level that tells of everyday things.
fn is_routine(line: &str) -> bool {
    line.split_whitespace()
        .take(2)
        .any(|word| matches!(word, "INFO" | "DEBUG" | "TRACE"))
}

async fn last_words(name: &str, running: Running, status: ExitStatus) -> Fault {
    let _ = tokio::time::timeout(LAST_WORDS, running.words).await;
    let tail = running.tail.lock().unwrap_or_else(PoisonError::into_inner);
    fault_of(name, &status.to_string(), &tail)
}

/// The coded error among the last lines of a program, or what is known of its end.
fn fault_of(name: &str, status: &str, tail: &VecDeque<String>) -> Fault {
    if let Some(fault) = coded(name, tail) {
        return fault;
    }
    let fault = Fault::new(Code::Internal, format!("the {name} ended ({status})"));
    match tail.back() {
        Some(line) => fault.hint(format!("its last words were: {line}")),
        None => fault,
    }
}

/// The coded error among the last lines of a program.
fn coded(name: &str, tail: &VecDeque<String>) -> Option<Fault> {
    let fault = tail.iter().rev().find_map(|line| {
        let (code, message) = line.strip_prefix("error[")?.split_once("]: ")?;
        Some(Fault::new(
            Code::parse(code)?,
            format!("the {name} ended: {message}"),
        ))
    })?;
    let hint = tail
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("hint: "));
    Some(match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: &[&str]) -> VecDeque<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn the_last_coded_error_of_a_program_becomes_ours() {
        let said = tail(&[
            "2026-05-03T12:00:00Z  INFO starting",
            "error[E0904]: the data folder `x` is in use by another coordinator",
            "hint: stop the other one",
        ]);
        let fault = fault_of("coordinator", "exit status: 1", &said);
        assert_eq!(fault.code, Code::BadDataDir);
        assert!(
            fault.message.ends_with("is in use by another coordinator"),
            "{fault}"
        );
        assert_eq!(fault.hint.as_deref(), Some("stop the other one"));
    }

    #[test]
    fn a_program_that_says_nothing_is_told_by_its_status() {
        let fault = fault_of("worker", "signal: 9 (SIGKILL)", &tail(&[]));
        assert_eq!(fault.code, Code::Internal);
        assert_eq!(fault.message, "the worker ended (signal: 9 (SIGKILL))");
        let fault = fault_of("worker", "exit status: 101", &tail(&["thread panicked"]));
        assert_eq!(
            fault.hint.as_deref(),
            Some("its last words were: thread panicked")
        );
    }

    #[test]
    fn routine_is_told_from_what_matters() {
        assert!(is_routine(
            "2026-05-03T12:00:00Z  INFO listening address=127.0.0.1:1"
        ));
        assert!(!is_routine(
            "2026-05-03T12:00:00Z  WARN cannot collect blobs: INFO"
        ));
        assert!(!is_routine("thread 'main' panicked at src/main.rs"));
    }
}
