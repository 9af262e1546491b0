//! `up`, `worker`, `top`, `doctor`.

use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// `pomona up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pomona up
  pomona up --data-dir ./data --slots 2
  pomona up --listen 127.0.0.1:0 --output json       a free port; first line {\"server\": …}

Ctrl-C stops the worker, then the coordinator; training goes on from its last checkpoint at the
next `pomona up`.")]
pub struct UpArgs {
    /// Folder for the database, blobs and the worker's files [default: ~/.local/share/pomona].
    #[arg(
        long,
        env = "POMONA_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub data_dir: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7878")]
    pub listen: String,
    /// Listen where other machines reach it although nobody is asked who they are: a proxy in front
    /// of it decides who may do what.
    #[arg(long)]
    pub insecure_behind_proxy: bool,
    /// Trainer processes that may run at once [default: what the worker finds].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
    /// Only the coordinator.
    #[arg(long)]
    pub no_worker: bool,
    /// The trainer program [default: `pomona-trainer` beside this program or on PATH].
    #[arg(
        long,
        env = "POMONA_TRAINER",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub trainer: Option<PathBuf>,
}

/// `pomona worker`.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Workers, their slots and whether they get work
    #[command(after_help = "Example:
  pomona worker list --output json")]
    List,
    /// Give a worker nothing new; trials there write a checkpoint and go on elsewhere
    #[command(after_help = "Examples:
  pomona worker drain wrk_5f0c2a9be3d41786
  pomona worker drain gpu-box-3 --deadline 2h        trials may end by themselves until then")]
    Drain {
        /// The worker: its id, the beginning of it, or its name.
        id: String,
        /// How long what runs there may go on, like `90s` or `2h` [default: not at all].
        #[arg(long, value_name = "TIME", value_parser = span_s)]
        deadline: Option<u32>,
    },
    /// Give a worker that drains work again
    #[command(after_help = "Example:
  pomona worker undrain gpu-box-3")]
    Undrain {
        /// The worker: its id, the beginning of it, or its name.
        id: String,
    },
}

/// A span of time in seconds, at most 30 days.
fn span_s(text: &str) -> Result<u32, String> {
    const LONGEST_S: i64 = 30 * 24 * 3600;
    let span = text.parse::<jiff::SignedDuration>();
    let seconds = span
        .map_err(|_| "write it as `90s`, `30m` or `2h`".to_owned())?
        .as_secs();
    (0..=LONGEST_S)
        .contains(&seconds)
        .then(|| u32::try_from(seconds).unwrap_or(u32::MAX))
        .ok_or_else(|| "it must be from 0 seconds to 30 days".to_owned())
}

/// `pomona feature`.
#[derive(Debug, Subcommand)]
pub enum FeatureCommand {
    /// What each worker keeps, and how much disk it takes
    #[command(after_help = "Example:
  pomona feature list --output json")]
    List,
    /// Everything that decides the bytes of some features
    #[command(after_help = "Example:
  pomona feature show 3f9c01")]
    Show {
        /// The beginning of its digest.
        shard: String,
    },
    /// Remove features; what a running trial reads stays
    #[command(after_help = "Examples:
  pomona feature evict 3f9c01
  pomona feature evict --all")]
    Evict {
        /// The beginning of a digest.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        shard: Option<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

/// `pomona top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pomona top
  pomona top --once                                  one picture, for a log")]
pub struct TopArgs {
    /// Seconds between two pictures.
    #[arg(long, value_name = "SECONDS", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
    /// One picture, then end (also when stdout is no terminal).
    #[arg(long)]
    pub once: bool,
}

/// `pomona doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pomona doctor
  pomona doctor --data-dir /data/pomona --trainer ./pomona-trainer

Exit status 1 when a check fails; a warning does not count.")]
pub struct DoctorArgs {
    /// Folder that `pomona up` would use.
    #[arg(
        long,
        env = "POMONA_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub data_dir: Option<PathBuf>,
    /// The trainer program.
    #[arg(
        long,
        env = "POMONA_TRAINER",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub trainer: Option<PathBuf>,
}

/// `pomona tether`: hidden.
#[derive(Debug, Args)]
pub struct TetherArgs {
    /// Process id of the parent.
    pub parent: i32,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub program: Vec<OsString>,
}
