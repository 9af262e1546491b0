//! `pomona-trainer`: one rank of a lease, told what to do on stdin; or, as `store`, the place where
//! the ranks of a lease find each other; or, as `gpus` and `measure`, what a worker asks before it
//! offers slots.

use anyhow::Context;
use clap::{Parser, Subcommand};
use pomona_trainer::measure::{self, Measure};
use pomona_trainer::protocol::{self, Line};
use std::io::{BufReader, Read, Write};
use std::process::ExitCode;

/// One rank of a lease. Without a subcommand it reads a command from stdin; workers start it.
#[derive(Debug, Parser)]
#[command(name = "pomona-trainer", version)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serves a c10d TCPStore until stdin closes, and prints `{"port":N}` when it is ready.
    Store {
        /// Address of this machine that the ranks reach.
        #[arg(long, default_value = "127.0.0.1")]
        host: String,
    },
    /// Prints `{"cuda":N}`: how many GPUs this trainer can compute on.
    Gpus,
    /// Prints `{"ready":true}`, waits for a line on stdin, and prints how fast this machine runs
    /// frozen blocks, so that several processes can begin together.
    Measure {
        /// Threads.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
        threads: u32,
        /// How long it runs.
        #[arg(long)]
        seconds: f64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().role {
        Some(Role::Store { host }) => serve(&host),
        Some(Role::Gpus) => {
            let count = tch::Cuda::device_count().max(0);
            writeln!(std::io::stdout(), "{{\"cuda\":{count}}}").context("stdout is closed")?;
            // At once: what libtorch takes apart at an exit takes half as long as its start.
            protocol::leave(0)
        }
        Some(Role::Measure { threads, seconds }) => {
            let speed = Measure::of_machine(threads).run(seconds, measure::until_told);
            let speed = speed.map_err(|fault| anyhow::anyhow!("{fault}"))?;
            writeln!(std::io::stdout(), "{}", speed.line()).context("stdout is closed")?;
            protocol::leave(0)
        }
        None => {
            let line = Line::take_stdout().context("stdout cannot be kept for events")?;
            let line: &'static Line = Box::leak(Box::new(line));
            protocol::leave(pomona_trainer::work::run(
                line,
                BufReader::new(std::io::stdin()),
            ))
        }
    }
}

fn serve(host: &str) -> anyhow::Result<ExitCode> {
    let store = pomona_trainer::dist::StoreServer::bind(host)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{{\"port\":{}}}", store.port())
        .and_then(|()| out.flush())
        .context("stdout is closed")?;
    drop(out);
    let mut sink = Vec::new();
    let _end = std::io::stdin().read_to_end(&mut sink);
    protocol::log("the store's worker is gone");
    Ok(ExitCode::SUCCESS)
}
