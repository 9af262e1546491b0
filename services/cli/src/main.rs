//! `pomona`: the command line. It reads what a user types, asks a coordinator, and shows the answer.
//!
//! It must never decide anything, train anything, or print outside of [`printer`].

mod args;
mod commands;
mod folder;
mod human;
mod local;
mod pack;
mod printer;
mod spark;
mod table;
mod usage;
mod views;

use clap::Parser as _;
use pomona_domain::Fault;
use pomona_domain::error::Blame;
use std::process::ExitCode;

use args::Cli;
use printer::Printer;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::answer(&error),
    };
    let printer = Printer::new(&cli.global);
    match commands::run(cli, &printer) {
        Ok(done) => done.exit_code(),
        Err(fault) => {
            printer.fault(&fault);
            exit_code(&fault)
        }
    }
}

/// 1 for the caller's input or a failed gate, 2 for a fault of ours.
fn exit_code(fault: &Fault) -> ExitCode {
    match fault.code.blame() {
        Blame::Caller => ExitCode::from(1),
        Blame::Ours => ExitCode::from(2),
    }
}
