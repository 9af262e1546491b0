//! What a program says to whoever started it: data on stdout, talk on stderr, and how it ended.

use clap::Parser;
use clap::error::ErrorKind;
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

/// The command line. Help and the version are printed; a mistake is a coded error of the caller.
/// Both end the program with the status that comes back.
pub fn arguments<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        if !error.use_stderr() {
            return ended(say(&error.to_string()));
        }
        let program = T::command().get_name().to_owned();
        let help = format!("`{program} --help` says what it understands");
        ended(Err(Fault::new(Code::BadRequest, mistake(&error)).hint(help)))
    })
}

/// The first paragraph of what clap says, as a sentence.
fn mistake(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".to_owned();
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = first.lines().map(str::trim).collect();
    let words = lines.join(" ");
    words.trim_start_matches("error: ").replace('\'', "`")
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
