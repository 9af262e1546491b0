//! `experiment` and `trial`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `pomona experiment`.
#[derive(Debug, Subcommand)]
pub enum ExperimentCommand {
    /// Send an experiment file
    #[command(after_help = "Examples:
  pomona experiment submit grid.yaml
  pomona experiment submit grid.yaml --watch
  pomona experiment submit grid.yaml --set seed=8 --set train.epochs=20

With --watch the exit status is 1 when the experiment is cancelled, a gate of its promotion fails or
it fails by what its file asked for, and 2 when it fails by a fault of ours. Ctrl-C detaches with
130; the experiment goes on.")]
    Submit {
        /// The file, and what to change in it.
        #[command(flatten)]
        file: FileArgs,
        /// Follow it to its end.
        #[arg(long, short)]
        watch: bool,
    },
    /// Check a file and say what it would do; works without a server
    #[command(after_help = "Examples:
  pomona experiment preview grid.yaml
  pomona experiment preview grid.yaml --set search.strategy=random")]
    Preview(FileArgs),
    /// Experiments, the newest first
    #[command(after_help = "Example:
  pomona experiment list --output json")]
    List,
    /// State and leaderboard
    #[command(after_help = "Examples:
  pomona experiment show emoji-topics
  pomona experiment show exp_91c4 --all")]
    Show {
        /// The experiment.
        #[command(flatten)]
        id: ExperimentRef,
        /// Every trial, not only the first 24 of the leaderboard.
        #[arg(long, short)]
        all: bool,
    },
    /// Follow an experiment to its end
    #[command(after_help = "Example:
  pomona experiment watch emoji-topics")]
    Watch(ExperimentRef),
    /// Write checkpoints and give the slots back
    #[command(after_help = "Example:
  pomona experiment pause emoji-topics")]
    Pause(ExperimentRef),
    /// Go on from the checkpoints
    #[command(after_help = "Example:
  pomona experiment resume emoji-topics")]
    Resume(ExperimentRef),
    /// End it; what runs is stopped
    #[command(after_help = "Example:
  pomona experiment cancel emoji-topics")]
    Cancel(ExperimentRef),
}

/// Which experiment.
#[derive(Debug, Args)]
pub struct ExperimentRef {
    /// The experiment: its id, the beginning of it, or its name.
    #[arg(value_name = "EXPERIMENT")]
    pub experiment: String,
}

/// An experiment file, and what to change in it.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The experiment file (YAML); `-` reads stdin.
    pub file: PathBuf,
    /// Change a value of the file (repeatable).
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
}

/// `pomona trial`.
#[derive(Debug, Subcommand)]
pub enum TrialCommand {
    /// Trials of an experiment, by number
    #[command(after_help = "Example:
  pomona trial list emoji-topics")]
    List(ExperimentRef),
    /// Its point, curve and checkpoints
    #[command(after_help = "Example:
  pomona trial show tri_0b7d")]
    Show(TrialRef),
    /// What its ranks wrote
    #[command(after_help = "Examples:
  pomona trial logs tri_0b7d
  pomona trial logs tri_0b7d --follow")]
    Logs {
        /// The trial.
        #[command(flatten)]
        id: TrialRef,
        /// Go on until the trial has ended.
        #[arg(long, short)]
        follow: bool,
    },
    /// End it now; it counts as completed with what it has
    #[command(after_help = "Example:
  pomona trial stop tri_0b7d")]
    Stop(TrialRef),
    /// Keep its checkpoints whatever becomes of its experiment
    #[command(after_help = "Example:
  pomona trial pin tri_0b7d")]
    Pin(TrialRef),
    /// Let go of its checkpoints: they stay as its experiment says
    #[command(after_help = "Example:
  pomona trial unpin tri_0b7d")]
    Unpin(TrialRef),
}

/// Which trial.
#[derive(Debug, Args)]
pub struct TrialRef {
    /// The trial: its id, or the beginning of it.
    #[arg(value_name = "TRIAL")]
    pub trial: String,
}
