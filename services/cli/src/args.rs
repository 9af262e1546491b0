//! The command line as types: every command, flag and example. It must never do anything itself.

pub mod catalogue;
pub mod experiment;
pub mod machine;
pub mod model;

use clap::{Args, Parser, Subcommand, ValueEnum};

use catalogue::{BackboneCommand, DatasetCommand};
use experiment::{ExperimentCommand, TrialCommand};
use machine::{DoctorArgs, FeatureCommand, TetherArgs, TopArgs, UpArgs, WorkerCommand};
use model::{AuditArgs, ExplainArgs, ModelCommand, PredictArgs};

/// Where a coordinator is looked for when nothing is said.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7878";

/// Graft a new head onto a pretrained backbone, prune the trials that will not bear, harvest the
/// best checkpoint.
///
/// Data goes to stdout, talk to stderr. Exit status: 0 done, 1 your input or a failed gate, 2 our
/// fault.
#[derive(Debug, Parser)]
#[command(
    name = "pomona",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Examples:
  pomona up                                          coordinator and one worker, here
  pomona dataset add flowers ./flowers --image-size 224
  pomona experiment submit grid.yaml --watch
  pomona model pull flowers@champion ./model

Begin with `pomona doctor`: it says what this machine can run and what is missing."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Address of the coordinator, or of several with commas between them.
    #[arg(long, global = true, env = "POMONA_SERVER", hide_env_values = true, value_name = "URL",
          default_value = DEFAULT_SERVER)]
    pub server: String,
    /// Form of the data on stdout and of an error on stderr: table or json.
    // The values are in the sentence: listed with a sentence each they would blow up every page.
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        hide_possible_values = true,
        value_name = "FORM",
        default_value = "table"
    )]
    pub output: Format,
    /// No talk: only data and errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// Form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: the bodies of the HTTP API.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a coordinator and one local worker; no other service is needed
    Up(UpArgs),
    /// Labelled images: immutable versions with a frozen split
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Pretrained networks to graft onto
    #[command(subcommand)]
    Backbone(BackboneCommand),
    /// Grids and random searches over an experiment file
    #[command(subcommand)]
    Experiment(ExperimentCommand),
    /// Single points of an experiment: curves, logs
    #[command(subcommand)]
    Trial(TrialCommand),
    /// The registry: versions, aliases, pulls
    #[command(subcommand)]
    Model(ModelCommand),
    /// Who did what to the registry
    Audit(AuditArgs),
    /// Say what is on pictures, with a published model
    Predict(PredictArgs),
    /// Machines that train
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Features of frozen blocks that workers keep for all trials
    #[command(subcommand)]
    Feature(FeatureCommand),
    /// Live view of slots, queue and running trials
    Top(TopArgs),
    /// Why something is as it is, or what an error code means
    Explain(ExplainArgs),
    /// What this machine can run, and what is missing
    Doctor(DoctorArgs),
    /// Completions for a shell
    #[command(after_help = "Example:
  pomona completions bash > ~/.local/share/bash-completion/completions/pomona")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Runs a program that ends when its parent does (what `up` starts its children with).
    #[command(hide = true)]
    Tether(TetherArgs),
}
