//! `model`, `predict`, `explain`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `pomona model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Models, their newest version and aliases
    #[command(after_help = "Example:
  pomona model list")]
    List,
    /// Versions, metrics, gates and aliases
    #[command(after_help = "Examples:
  pomona model show flowers
  pomona model show flowers@champion                 one version: files, lineage, gates
  pomona model show flowers@champion --as-of 2026-05-03")]
    Show {
        /// The model: `NAME`, or `NAME@ALIAS` or `NAME@V` for one version.
        #[arg(value_name = "NAME[@ALIAS|@V]")]
        name: String,
        /// Where the alias pointed at this moment (RFC 3339, or a date for its end in UTC).
        #[arg(long, value_name = "TIME")]
        as_of: Option<String>,
    },
    /// Delete a model, a version or an alias
    #[command(after_help = "Examples:
  pomona model delete flowers@2                      a version: no alias may point to it
  pomona model delete flowers@challenger             an alias; its history stays
  pomona model delete flowers                        the model, when it has no alias

Numbers of deleted versions are never given again, and the history keeps them.")]
    Delete {
        /// What goes.
        #[arg(value_name = "NAME[@ALIAS|@V]")]
        name: String,
    },
    /// Say what a model or a version is
    #[command(after_help = "Examples:
  pomona model describe flowers 'Flowers of the garden, five classes'
  pomona model describe flowers@3 'trained on the May photos'")]
    Describe {
        /// The model, or a version of it.
        #[arg(value_name = "NAME[@ALIAS|@V]")]
        name: String,
        /// The description.
        text: String,
    },
    /// Set tags of a model or a version, or remove them
    #[command(after_help = "Examples:
  pomona model tag flowers team=vision
  pomona model tag flowers@3 checked=yes draft=      an empty value removes the tag")]
    Tag {
        /// The model, or a version of it.
        #[arg(value_name = "NAME[@ALIAS|@V]")]
        name: String,
        /// Tags.
        #[arg(value_name = "KEY=VALUE", required = true)]
        tags: Vec<String>,
    },
    /// Publish a trial's best checkpoint as a new version
    #[command(after_help = "Examples:
  pomona model register flowers --trial tri_0b7d
  pomona model register flowers --trial tri_0b7d --alias challenger")]
    Register {
        /// The model.
        name: String,
        /// The trial: its id, or the beginning of it.
        #[arg(long)]
        trial: String,
        /// Point this alias to the new version when its gates pass.
        #[arg(long)]
        alias: Option<String>,
    },
    /// Point an alias to a version
    #[command(after_help = "Example:
  pomona model promote flowers 3 --alias champion --reason 'better on tulips'")]
    Promote {
        /// The model.
        name: String,
        /// The version's number.
        version: u32,
        /// The alias.
        #[arg(long)]
        alias: String,
        /// Why, for the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Point an alias back to the version it had before
    #[command(after_help = "Example:
  pomona model rollback flowers --alias champion")]
    Rollback {
        /// The model.
        name: String,
        /// The alias.
        #[arg(long)]
        alias: String,
        /// Why, for the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Every move of an alias
    #[command(after_help = "Examples:
  pomona model history flowers
  pomona model history flowers --alias champion --as-of 2026-05-03
  pomona model history flowers --as-of 2026-05-03T12:00:00Z")]
    History {
        /// The model.
        name: String,
        /// Only this alias.
        #[arg(long)]
        alias: Option<String>,
        /// Only moves up to this moment (RFC 3339, or a date for its end in UTC).
        #[arg(long, value_name = "TIME")]
        as_of: Option<String>,
    },
    /// Download a version; every digest is checked
    #[command(after_help = "Examples:
  pomona model pull flowers@champion ./model
  pomona model pull flowers@3 ./model --output json
  pomona model pull flowers@champion ./model --verify team.pub.pem

DIR appears whole or not at all. A folder that already holds exactly this version is left as it is;
any other folder that is not empty is refused. A version that was promoted comes with its signature,
`model.sig`; with --verify it is refused unless that key made it.")]
    Pull {
        /// The version.
        #[arg(value_name = "NAME@ALIAS|NAME@V")]
        model: String,
        /// The folder to make.
        dir: PathBuf,
        /// The public key (PEM) that must have signed it.
        #[arg(long, value_name = "KEY")]
        verify: Option<PathBuf>,
    },
    /// Print the public key of this server's signatures
    #[command(after_help = "Examples:
  pomona model key > team.pub.pem

Take it from the server once, over a way that you trust, and keep it.")]
    Key,
    /// Check that a folder holds exactly a published version
    #[command(after_help = "Examples:
  pomona model verify ./model                        looks for its version in the registry
  pomona model verify ./model --model flowers@champion
  pomona model verify ./model --digest sha256:…      works without a server
  pomona model verify ./model --key team.pub.pem     its signature, `model.sig`; without a server, too")]
    Verify {
        /// The folder.
        dir: PathBuf,
        /// The version it should hold.
        #[arg(long, value_name = "NAME@ALIAS|NAME@V", conflicts_with = "digest")]
        model: Option<String>,
        /// The version's digest it should have.
        #[arg(long, value_name = "DIGEST")]
        digest: Option<String>,
        /// The public key (PEM) that must have signed it.
        #[arg(long, value_name = "KEY", conflicts_with_all = ["digest", "model"])]
        key: Option<PathBuf>,
    },
}

/// `pomona audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pomona audit
  pomona audit --model flowers --limit 20

A name is what the caller claimed: there are no tokens yet.")]
pub struct AuditArgs {
    /// Only what was done to this model.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// So many entries, the newest.
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// `pomona predict`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pomona predict flowers@champion tulip.jpg rose.png
  pomona predict flowers@3 photos/*.jpg --top 1 --output json

A picture that cannot be read is reported by name; the others are predicted, and the exit status
is 1.")]
pub struct PredictArgs {
    /// The version.
    #[arg(value_name = "NAME@ALIAS|NAME@V")]
    pub model: String,
    /// Pictures.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Classes to answer for each picture.
    #[arg(long, value_name = "K", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub top: u32,
}

/// `pomona explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pomona explain E0203                               what an error code means
  pomona explain trial tri_0b7d                      why it waits, stopped, started again
  pomona explain experiment emoji-topics
  pomona explain model flowers@champion              why this version stands there")]
pub struct ExplainArgs {
    /// An error code, or one of: trial, experiment, task, worker, model.
    #[arg(value_name = "CODE|KIND")]
    pub what: String,
    /// Which one: an id, or `NAME@ALIAS` for a model.
    #[arg(value_name = "ID")]
    pub which: Option<String>,
}
