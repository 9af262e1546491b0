//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// The coordinator of Pomona: schedules experiments, keeps everything at rest, serves the API.
#[derive(Debug, Parser)]
#[command(name = "pomona-coordinator", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API until SIGTERM or SIGINT.
    Serve(ServeArgs),
    /// Bring the database's schema up to this program's.
    Migrate(CommonArgs),
    /// Copy the database and the blobs, consistently, while a coordinator may run.
    Backup(BackupArgs),
    /// Print the effective configuration, secrets masked.
    CheckConfig(ServeArgs),
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// Configuration file (TOML); environment variables and flags go before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the database and the blobs.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What `serve` takes.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// What every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Allow an address beyond loopback: a proxy in front checks who may do what.
    #[arg(long)]
    pub insecure_behind_proxy: bool,
}

/// What `backup` takes.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// What every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Folder to write; it must not exist or be empty.
    pub target: PathBuf,
}
