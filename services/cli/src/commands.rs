//! What each command does: one file for each family. A command asks, waits and hands rows to a
//! view; it must never print by itself.

mod backbone;
mod dataset;
mod doctor;
mod experiment;
mod explain;
mod feature;
mod live;
mod model;
mod predict;
mod pull;
mod session;
mod submit;
mod task;
mod tether;
mod top;
mod trial;
mod up;
mod watch;
mod worker;

use clap::CommandFactory as _;
use pomona_domain::{Code, Fault};
use std::process::ExitCode;

use crate::args::{Cli, Command, GlobalArgs};
use crate::printer::Printer;
use session::Session;

/// How a command ended that met no fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// As it should.
    Well,
    /// It did its work, and what it found is not good (`doctor`).
    Poorly,
    /// The user interrupted it.
    Interrupted,
}

impl Done {
    /// The exit status.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Well => ExitCode::SUCCESS,
            Self::Poorly => ExitCode::from(1),
            // What shells use for SIGINT.
            Self::Interrupted => ExitCode::from(130),
        }
    }
}

/// Does what was typed.
pub fn run(cli: Cli, printer: &Printer) -> Result<Done, Fault> {
    let Cli { global, command } = cli;
    let global = &global;
    match command {
        Command::Up(args) => up::run(&args, printer),
        Command::Tether(args) => Err(tether::run(&args)),
        Command::Doctor(args) => doctor::run(&args, global, printer),
        Command::Completions { shell } => Ok(completions(shell, printer)),
        Command::Explain(args) => explain::run(args, global, printer),
        Command::Experiment(command) => experiment::run(command, global, printer),
        Command::Dataset(command) => ask(global, printer, |s| dataset::run(command, s)),
        Command::Backbone(command) => ask(global, printer, |s| backbone::run(command, s)),
        Command::Trial(command) => ask(global, printer, |s| trial::run(command, s)),
        Command::Model(command) => model::run(command, global, printer),
        Command::Audit(args) => ask(global, printer, |s| model::audit(args, s)),
        Command::Predict(args) => ask(global, printer, |s| predict::run(args, s)),
        Command::Worker(command) => ask(global, printer, |s| worker::run(command, s)),
        Command::Feature(command) => ask(global, printer, |s| feature::run(command, s)),
        Command::Top(args) => ask(global, printer, |s| top::run(args, s)),
    }
}

/// Runs a command that talks to a coordinator. Ctrl-C ends it where it stands; temporary files go.
fn ask<F: Future<Output = Result<Done, Fault>>>(
    global: &GlobalArgs,
    printer: &Printer,
    work: impl FnOnce(Session) -> F,
) -> Result<Done, Fault> {
    talk(global, printer, |session| async {
        tokio::select! {
            done = work(session) => done,
            () = session::interrupted() => Ok(Done::Interrupted),
        }
    })
}

/// The same for a command that hears Ctrl-C itself.
fn talk<F: Future<Output = Result<Done, Fault>>>(
    global: &GlobalArgs,
    printer: &Printer,
    work: impl FnOnce(Session) -> F,
) -> Result<Done, Fault> {
    runtime()?.block_on(async { work(Session::new(global, printer)?).await })
}

/// One thread: the command line waits more than it works.
fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::new(Code::Internal, format!("no runtime: {error}")))
}

fn completions(shell: clap_complete::Shell, printer: &Printer) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pomona", &mut script);
    printer.text(&String::from_utf8_lossy(&script));
    Done::Well
}
