//! `pomona-worker`: the agent of Pomona on one machine.

use clap::{Parser, Subcommand};
use pomona_daemon::{arguments, ended, say, start_log};
use pomona_domain::{Code, Fault};
use pomona_worker::config::{Config, Flags};
use pomona_worker::process::EXIT_NO_PROGRAM;
use pomona_worker::{agent, process};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// The worker of Pomona: runs trainers on this machine's slots as the coordinator says.
#[derive(Debug, Parser)]
#[command(name = "pomona-worker", version, max_term_width = 100)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Work until SIGTERM or SIGINT: trainers write a checkpoint first; a second signal kills them.
    Run(Flags),
    /// Print the effective configuration.
    CheckConfig(Flags),
    /// Run a program and end all that it started when this worker is gone.
    #[command(hide = true)]
    Keep {
        /// The program and its arguments.
        #[arg(required = true, last = true)]
        program: Vec<OsString>,
    },
    /// Become a trainer that dies with this worker (the worker starts its trainers through this).
    #[command(hide = true)]
    Rank {
        /// Process id of the worker.
        #[arg(long)]
        parent: u32,
        /// The program and its arguments.
        #[arg(required = true, last = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli: Cli = match arguments() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let done = match cli.command {
        Command::Rank { parent, program } => return rank(parent, &program),
        Command::Keep { program } => return keep(&program),
        Command::Run(flags) => run(&flags),
        Command::CheckConfig(flags) => {
            Config::load(&flags).and_then(|config| say(&config.render()))
        }
    };
    ended(done)
}

fn rank(parent: u32, program: &[OsString]) -> ExitCode {
    let error = process::become_rank(parent, program);
    let name = program.first().map(|name| name.to_string_lossy());
    // The worker reads it as the rank's last words.
    let _ = writeln!(std::io::stderr(), "`{}`: {error}", name.unwrap_or_default());
    ExitCode::from(u8::try_from(EXIT_NO_PROGRAM).unwrap_or(1))
}

/// On the main thread: its program ends with the thread that started it.
fn keep(program: &[OsString]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let kept = runtime.and_then(|runtime| {
        let kept = runtime.block_on(process::keep(program));
        runtime.shutdown_background();
        kept
    });
    match kept {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the program cannot be kept: {error}");
            ExitCode::from(u8::try_from(EXIT_NO_PROGRAM).unwrap_or(1))
        }
    }
}

/// One thread, the main one: ranks die with the thread that started them.
fn run(flags: &Flags) -> Result<(), Fault> {
    let config = Config::load(flags)?;
    start_log(&config.log.filter, &config.log.format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::new(Code::Internal, format!("no runtime: {error}")))?;
    let done = runtime.block_on(agent::run(config));
    // A disk that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}
