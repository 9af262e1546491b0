//! Webhooks: addresses that are told what happens, and what became of each telling.
//!
//! It must never hold a secret: what is written here may be shown to anybody who may look.

use serde::{Deserialize, Serialize};

use crate::{Code, DeliveryId, Fault, HookId, Timestamp};

/// What can be told, by MLflow's names where MLflow has one.
pub const EVENTS: &[&str] = &[
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    EXPERIMENT_ENDED,
    TRIAL_FAILED,
    "drift.detected",
];
/// An experiment is over.
pub const EXPERIMENT_ENDED: &str = "experiment.ended";
/// A trial failed for good.
pub const TRIAL_FAILED: &str = "trial.failed";

/// Most bytes of a webhook's address.
pub const MAX_URL: usize = 2000;
/// Most bytes of a webhook's description.
pub const MAX_DESCRIPTION: usize = 1000;

macro_rules! words_of {
    ($($(#[$doc:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {$(
            $(#[$inner])*
            #[serde(rename = $word)]
            $variant,
        )*}

        impl $name {
            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$variant => $word,)*}
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    other => Err(format!("`{other}` is no {}", stringify!($name))),
                }
            }
        }
    )*};
}

words_of! {
    /// Whether a webhook is told anything.
    HookStatus {
        /// It is.
        Active = "ACTIVE",
        /// Nothing is sent, and nothing new is noted for it.
        Disabled = "DISABLED",
    }
    /// In whose words a webhook is told.
    Flavour {
        /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
        Pomona = "pomona",
        /// As MLflow's server does: `X-MLflow-…`, and MLflow's payloads.
        Mlflow = "mlflow",
    }
    /// What became of a delivery.
    DeliveryState {
        /// It waits for its first or next attempt.
        Pending = "pending",
        /// The receiver took it.
        Delivered = "delivered",
        /// It was given up: the last attempt failed, or the receiver said that it is gone.
        Failed = "failed",
        /// Too many waited already when it happened: it was noted and not sent.
        Dropped = "dropped",
    }
}

/// An address that is told what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its id.
    pub id: HookId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where it is told.
    pub url: String,
    /// What it is told.
    pub events: Vec<String>,
    /// Whether it is.
    pub status: HookStatus,
    /// In whose words.
    pub flavour: Flavour,
    /// When it was made: it is told what happens from then on.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// One event on its way to one webhook, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The `webhook-id` of every attempt.
    pub id: DeliveryId,
    /// The webhook.
    pub hook: HookId,
    /// The event's number: of two events of one subject the lower one is told first.
    pub event: u64,
    /// What happened.
    pub topic: String,
    /// To what (`model/flowers`).
    pub subject: String,
    /// What became of it.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt may begin.
    pub next_at: Timestamp,
    /// The status of the newest answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status: Option<u16>,
    /// Why the newest attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it happened.
    pub created_at: Timestamp,
    /// When the newest attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted_at: Option<Timestamp>,
}

impl DeliveryId {
    /// The delivery of an event to a webhook: the same on every attempt and after a restart.
    pub fn of(hook: HookId, event: u64) -> Self {
        Self::derive(&hook.to_string(), event)
    }
}

/// Refuses events that do not exist, none, and one twice.
pub fn check_events(events: &[String]) -> Result<(), Fault> {
    let bad = |text: String| Fault::new(Code::BadWebhook, text);
    let all = || format!("there are `{}`", EVENTS.join("`, `"));
    if events.is_empty() {
        return Err(bad("events: there is none".to_owned()).hint(all()));
    }
    for (at, event) in events.iter().enumerate() {
        if !EVENTS.contains(&event.as_str()) {
            let shown: String = event.chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(bad(format!("events[{at}]: there is no event `{shown}`")).hint(all()));
        }
        if events[..at].contains(event) {
            return Err(bad(format!("events[{at}]: `{event}` stands there twice")));
        }
    }
    Ok(())
}
