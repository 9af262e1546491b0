//! What a program says to whoever started it: data on stdout, talk on stderr, and how it ended.

use pomona_domain::error::Blame;
use pomona_domain::{Code, Fault};
use std::io::Write as _;
use std::process::ExitCode;

/// Data goes to stdout.
pub fn say(text: &str) -> Result<(), Fault> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Fault::new(Code::LocalFile, format!("cannot write to stdout: {error}")))
}

/// Talk goes to stderr.
fn complain(fault: &Fault) {
    let mut err = std::io::stderr().lock();
    // Nothing is left to do when even that fails.
    let _ = writeln!(err, "error[{}]: {fault}", fault.code);
    if let Some(hint) = &fault.hint {
        let _ = writeln!(err, "hint: {hint}");
    }
}

/// The exit status: 0, 1 for the caller's fault, 2 for ours. A fault is complained about.
pub fn ended(done: Result<(), Fault>) -> ExitCode {
    let Err(fault) = done else {
        return ExitCode::SUCCESS;
    };
    complain(&fault);
    match fault.code.blame() {
        Blame::Caller => ExitCode::from(1),
        Blame::Ours => ExitCode::from(2),
    }
}
