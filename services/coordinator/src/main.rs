//! The coordinator: routes, the engine, and everything at rest behind one address.
//!
//! It decides nothing itself (the scheduler does) and never sees a tensor or a pixel.

mod args;
mod bus;
mod clock;
mod config;
mod desired;
mod engine;
mod http;
mod longpoll;
mod metrics;
mod openapi;
mod resolve;
mod serve;

use clap::Parser as _;
use pomona_domain::error::Blame;
use pomona_domain::{Code, Fault};
use std::io::Write as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

use args::{BackupArgs, Cli, Command, CommonArgs, ServeArgs};
use config::Config;

/// Threads of the engine and the store's callers; requests have threads of their own.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&fault);
            match fault.code.blame() {
                Blame::Caller => ExitCode::from(1),
                Blame::Ours => ExitCode::from(2),
            }
        }
    }
}

fn run(command: Command) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| Fault::new(Code::Internal, format!("no runtime: {error}")))?;
    let done = match command {
        Command::Serve(args) => {
            let config = Config::load(&args)?;
            start_log(&config)?;
            runtime.block_on(serve::serve(config))
        }
        Command::Migrate(args) => runtime.block_on(migrate(args)),
        Command::Backup(args) => runtime.block_on(backup(args)),
        Command::CheckConfig(args) => say(&Config::load(&args)?.render()),
    };
    // A thread that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    done
}

fn config_of(common: CommonArgs) -> Result<Config, Fault> {
    Config::load(&ServeArgs {
        common,
        ..ServeArgs::default()
    })
}

async fn migrate(args: CommonArgs) -> Result<(), Fault> {
    let store = serve::open(&config_of(args)?).await?;
    store.migrate().await?;
    let version = store.schema_version().await?;
    store.close().await?;
    say(&format!("{}\n", serde_json::json!({ "schema": version })))
}

async fn backup(args: BackupArgs) -> Result<(), Fault> {
    let store = serve::open(&config_of(args.common)?).await?;
    let report = store.backup(&args.target).await?;
    store.close().await?;
    say(&format!(
        "{}\n",
        serde_json::json!({
            "target": args.target,
            "blobs": report.blobs,
            "bytes": report.bytes,
        })
    ))
}

fn start_log(config: &Config) -> Result<(), Fault> {
    let filter = EnvFilter::try_new(&config.log.filter).map_err(|error| {
        Fault::new(
            Code::BadConfig,
            format!("`log.filter` cannot be read: {error}"),
        )
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    if config.log.format == "json" {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    Ok(())
}

/// Data goes to stdout.
fn say(text: &str) -> Result<(), Fault> {
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
