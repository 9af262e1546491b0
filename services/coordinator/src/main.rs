//! The coordinator: routes, the engine, and everything at rest behind one address.
//!
//! It decides nothing itself (the scheduler does) and never sees a tensor or a pixel.

mod args;
mod bus;
mod clock;
mod config;
mod desired;
mod engine;
mod features;
mod http;
mod longpoll;
mod metrics;
mod mlflow;
mod oci;
mod openapi;
mod resolve;
mod serve;
mod signer;
mod webhooks;

use pomona_daemon::{arguments, ended, say, start_log};
use pomona_domain::{Code, Fault};
use std::process::ExitCode;

use args::{BackupArgs, Cli, Command, CommonArgs, ServeArgs};
use config::Config;

/// Threads of the engine and the store's callers; requests have threads of their own.
const THREADS: usize = 2;

/// Rows are made on one thread and dropped on another, thousands of small pieces at a time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match arguments::<Cli>() {
        Ok(cli) => ended(run(cli.command)),
        Err(status) => status,
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
            start_log(&config.log.filter, &config.log.format)?;
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
    let config = config_of(args.common)?;
    serve::check_there(&config)?;
    let store = serve::open(&config).await?;
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
