//! `webhook`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `pomona webhook`.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Tell an address what happens from now on
    #[command(after_help = "Examples:
  pomona webhook add ci https://ci.example.org/hooks/pomona
  pomona webhook add ci https://ci.example.org/hooks/pomona --event model_version_alias.created
  pomona webhook add ci https://ci.example.org/hooks/pomona --secret-file ci.secret

What is sent is signed as Standard Webhooks says (`webhook-signature`); every library of theirs
verifies it. The secret is drawn here and shown once, or it stands in FILE, which is made when it is
not there.")]
    Add(AddArgs),
    /// Webhooks, and how many deliveries wait or failed
    #[command(after_help = "Example:
  pomona webhook list")]
    List,
    /// One webhook
    #[command(after_help = "Example:
  pomona webhook show ci")]
    Show(WebhookRef),
    /// Send a made-up event now and say what became of it
    #[command(after_help = "Examples:
  pomona webhook test ci
  pomona webhook test ci --event experiment.ended

Exit status 1 when the receiver does not answer 2xx.")]
    Test {
        /// The webhook.
        #[command(flatten)]
        webhook: WebhookRef,
        /// The event; the first that it is told of when nothing is said.
        #[arg(long)]
        event: Option<String>,
    },
    /// What was sent, what waits, and what became of it
    #[command(after_help = "Examples:
  pomona webhook deliveries ci
  pomona webhook deliveries ci --state failed --output json")]
    Deliveries {
        /// The webhook.
        #[command(flatten)]
        webhook: WebhookRef,
        /// Only those that are pending, delivered, failed or dropped.
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Newest deliveries to show.
        #[arg(long, value_name = "N", default_value_t = 50,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Send something once more, under its old id
    #[command(after_help = "Examples:
  pomona webhook replay ci msg_0b7d5c3a91e2f048
  pomona webhook replay ci --since 2026-05-03T12:00:00Z

A receiver tells by the header `webhook-id` what it has seen before.")]
    Replay {
        /// The webhook.
        #[command(flatten)]
        webhook: WebhookRef,
        /// The delivery.
        #[arg(required_unless_present = "since", conflicts_with = "since")]
        delivery: Option<String>,
        /// Everything that happened from this moment on (RFC 3339, or a date for its beginning in UTC).
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Send nothing more, and note nothing for it
    #[command(after_help = "Example:
  pomona webhook disable ci")]
    Disable(WebhookRef),
    /// Send again; what waits goes first
    #[command(after_help = "Example:
  pomona webhook enable ci")]
    Enable(WebhookRef),
    /// Forget a webhook and what is on its way to it
    #[command(after_help = "Example:
  pomona webhook remove ci")]
    Remove(WebhookRef),
}

/// `pomona webhook add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// What to call it.
    pub name: String,
    /// Where it is told.
    pub url: String,
    /// What it is told, once for each event; all there is when nothing is said.
    #[arg(long = "event", value_name = "EVENT")]
    pub events: Vec<String>,
    /// What it is for.
    #[arg(long)]
    pub description: Option<String>,
    /// The file of its secret (`whsec_…`).
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

/// Which webhook.
#[derive(Debug, Args)]
pub struct WebhookRef {
    /// The webhook: its name or id.
    #[arg(value_name = "WEBHOOK")]
    pub which: String,
}
