//! Stdin, stdout and stderr as the protocol has them, and files that are whole or not there.

use pomona_api::PROTOCOL;
use pomona_api::trainer::{Command, Event, Signal};
use pomona_domain::{Code, Digest, Fault};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status when the worker is gone.
const EXIT_ORPHAN: i32 = 5;

/// Whether a stop was asked for.
#[derive(Debug, Default)]
pub struct Line {
    stop: Arc<AtomicBool>,
}

impl Line {
    /// Reads the command and listens for signals from then on; the process ends with the worker.
    pub fn open() -> Result<(Self, Command), Fault> {
        let bad = |why: String| Fault::new(Code::BadRequest, why);
        let mut text = String::new();
        std::io::stdin()
            .read_line(&mut text)
            .map_err(|error| bad(format!("stdin cannot be read: {error}")))?;
        let command: Command = serde_json::from_str(&text)
            .map_err(|error| bad(format!("the first line is no command: {error}")))?;
        if command.protocol != PROTOCOL {
            let text = format!(
                "the worker speaks protocol {}, this trainer {PROTOCOL}",
                command.protocol
            );
            return Err(Fault::new(Code::VersionMismatch, text)
                .hint("install worker and trainer of one version"));
        }
        let line = Self::default();
        let stop = Arc::clone(&line.stop);
        std::thread::spawn(move || {
            for text in std::io::stdin().lines() {
                let Ok(text) = text else { break };
                match serde_json::from_str::<Signal>(&text) {
                    Ok(Signal::Stop) => stop.store(true, Ordering::Relaxed),
                    Err(error) => log(&format!("a line on stdin is no signal: {error}")),
                }
            }
            std::process::exit(EXIT_ORPHAN);
        });
        Ok((line, command))
    }

    /// Whether a stop was asked for.
    pub fn stop_wanted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One event.
pub fn say(event: &Event) {
    if let Ok(text) = serde_json::to_string(event) {
        print(&text);
    }
}

/// Any text as a line of stdout.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(EXIT_ORPHAN);
    }
}

/// A line of the log.
pub fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A file cannot be read or written.
pub fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Fault {
    let code = if pomona_worker::is_full(error) {
        Code::DiskFull
    } else {
        Code::LocalFile
    };
    Fault::new(code, format!("cannot {verb} `{}`: {error}", path.display()))
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| cannot("read", path, &error))
}

/// Writes a file so that it is whole or not there; its folder is made.
pub fn write(path: &Path, bytes: &[u8]) -> Result<Digest, Fault> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .and_then(|()| {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            File::open(folder)?.sync_all()
        })
        .map_err(|error| cannot("write", path, &error))?;
    Ok(Digest::of(bytes))
}
