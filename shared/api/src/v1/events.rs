//! Messages of `GET /api/v1/events`: server-sent events, resumable by `Last-Event-ID`.
//!
//! Each message's `data` is one [`LiveEvent`]; its `id` is [`LiveEvent::id`]; its `event` is the
//! topic. A comment line comes at least every [`KEEP_ALIVE_MS`].

use pomona_domain::backbone::Backbone;
use pomona_domain::dataset::Dataset;
use pomona_domain::experiment::Experiment;
use pomona_domain::metric::Observation;
use pomona_domain::model::{AliasMove, Version};
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A silent stream carries a comment this often.
pub const KEEP_ALIVE_MS: u64 = 10_000;

/// What a reader may listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Experiments.
    Experiments,
    /// Trials and what they measure.
    Trials,
    /// Workers.
    Workers,
    /// Tasks.
    Tasks,
    /// Versions and aliases; data sets and backbones too.
    Models,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 5] = [
        Self::Experiments,
        Self::Trials,
        Self::Workers,
        Self::Tasks,
        Self::Models,
    ];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Experiments => "experiments",
            Self::Trials => "trials",
            Self::Workers => "workers",
            Self::Tasks => "tasks",
            Self::Models => "models",
        }
    }

    /// The topic written `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == text)
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveEvent {
    /// Grows by one a message; hand it back as `Last-Event-ID`.
    pub id: String,
    /// What changed.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub what: What,
}

/// What changed: the row as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", content = "row", rename_all = "snake_case")]
pub enum What {
    /// Messages were missed (the reader was away or too slow): ask again for what is shown.
    Missed,
    /// An experiment. Its `searcher` is null and its `source` empty here.
    Experiment(Box<Experiment>),
    /// A trial.
    Trial(Box<Trial>),
    /// A trial's new observation.
    Observed(Observation),
    /// A worker.
    Worker(Box<Worker>),
    /// A task.
    Task(Box<Task>),
    /// A data-set version.
    Dataset(Box<Dataset>),
    /// A backbone.
    Backbone(Box<Backbone>),
    /// A model version.
    Version(Box<Version>),
    /// An alias moved.
    AliasMoved(AliasMove),
}
