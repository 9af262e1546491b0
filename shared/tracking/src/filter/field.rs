//! The fields that each kind of entity can be searched by.
//!
//! A name that is not here does not exist for a client. It must never hold a column's name: that is
//! the SQL layer's.

/// What runs are searched by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunField {
    /// The latest value of this metric.
    Metric(String),
    /// The value of this parameter.
    Param(String),
    /// The value of this tag.
    Tag(String),
    /// What every run has.
    Attribute(RunAttribute),
    /// Any of the run's datasets.
    Dataset(DatasetField),
}

/// What every run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunAttribute {
    /// `run_id`
    RunId,
    /// `run_name`, which is also the tag `mlflow.runName`.
    RunName,
    /// `user_id`
    UserId,
    /// `status`, by its name.
    Status,
    /// `artifact_uri`
    ArtifactUri,
    /// `start_time`, in milliseconds.
    StartTime,
    /// `end_time`, in milliseconds.
    EndTime,
}

/// What is known of a dataset that a run used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatasetField {
    /// `name`
    Name,
    /// `digest`
    Digest,
    /// `context`: the input's tag `mlflow.data.context`.
    Context,
}

/// What experiments are searched by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExperimentField {
    /// The value of this tag.
    Tag(String),
    /// What every experiment has.
    Attribute(ExperimentAttribute),
}

/// What every experiment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExperimentAttribute {
    /// `name`
    Name,
    /// `experiment_id`
    ExperimentId,
    /// `creation_time`, in milliseconds.
    CreationTime,
    /// `last_update_time`, in milliseconds.
    LastUpdateTime,
}

/// What registered models are searched by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegisteredModelField {
    /// The value of this tag.
    Tag(String),
    /// `name`
    Name,
}

/// What model versions are searched by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelVersionField {
    /// The value of this tag.
    Tag(String),
    /// What every version has.
    Attribute(ModelVersionAttribute),
}

/// What every model version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelVersionAttribute {
    /// `name`: the model's.
    Name,
    /// `version_number`
    VersionNumber,
    /// `run_id`
    RunId,
    /// `source_path`: where the version was made from.
    SourcePath,
}

/// What logged models are searched by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoggedModelField {
    /// The latest value of this metric.
    Metric(String),
    /// The value of this parameter.
    Param(String),
    /// The value of this tag.
    Tag(String),
    /// What every logged model has.
    Attribute(LoggedModelAttribute),
}

/// What every logged model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoggedModelAttribute {
    /// `model_id`
    ModelId,
    /// `experiment_id`
    ExperimentId,
    /// `name`
    Name,
    /// `artifact_location`
    ArtifactLocation,
    /// `creation_timestamp`, `creation_time`, `creation_timestamp_ms`: in milliseconds.
    CreationTimestamp,
    /// `last_updated_timestamp`, `last_updated_timestamp_ms`: in milliseconds.
    LastUpdatedTimestamp,
    /// `status`: `PENDING`, `READY`, `FAILED` or `UNSPECIFIED`.
    Status,
    /// `lifecycle_stage`
    LifecycleStage,
    /// `model_type`
    ModelType,
    /// `source_run_id`
    SourceRunId,
    /// `status_message`
    StatusMessage,
}

impl RunAttribute {
    pub(crate) const NAMES: [&str; 7] = [
        "artifact_uri",
        "end_time",
        "run_id",
        "run_name",
        "start_time",
        "status",
        "user_id",
    ];

    pub(crate) fn read(name: &str) -> Option<Self> {
        match name {
            "run_id" => Some(Self::RunId),
            "run_name" | "run name" | "Run name" | "Run Name" => Some(Self::RunName),
            "user_id" => Some(Self::UserId),
            "status" => Some(Self::Status),
            "artifact_uri" => Some(Self::ArtifactUri),
            "start_time" | "created" | "Created" => Some(Self::StartTime),
            "end_time" => Some(Self::EndTime),
            _ => None,
        }
    }
}

impl DatasetField {
    pub(crate) const NAMES: [&str; 3] = ["name", "digest", "context"];

    pub(crate) fn read(name: &str) -> Option<Self> {
        match name {
            "name" => Some(Self::Name),
            "digest" => Some(Self::Digest),
            "context" => Some(Self::Context),
            _ => None,
        }
    }
}

impl ExperimentAttribute {
    pub(crate) const NAMES: [&str; 4] =
        ["name", "experiment_id", "creation_time", "last_update_time"];

    pub(crate) fn read(name: &str) -> Option<Self> {
        match name {
            "name" => Some(Self::Name),
            "experiment_id" => Some(Self::ExperimentId),
            "creation_time" => Some(Self::CreationTime),
            "last_update_time" => Some(Self::LastUpdateTime),
            _ => None,
        }
    }
}

impl ModelVersionAttribute {
    pub(crate) const NAMES: [&str; 4] = ["name", "version_number", "run_id", "source_path"];

    pub(crate) fn read(name: &str) -> Option<Self> {
        match name {
            "name" => Some(Self::Name),
            "version_number" => Some(Self::VersionNumber),
            "run_id" => Some(Self::RunId),
            "source_path" => Some(Self::SourcePath),
            _ => None,
        }
    }
}

impl LoggedModelAttribute {
    pub(crate) const NAMES: [&str; 11] = [
        "model_id",
        "experiment_id",
        "name",
        "artifact_location",
        "creation_timestamp",
        "last_updated_timestamp",
        "status",
        "lifecycle_stage",
        "model_type",
        "source_run_id",
        "status_message",
    ];
    /// The values of `status`.
    pub(crate) const STATUSES: [&str; 4] = ["UNSPECIFIED", "PENDING", "READY", "FAILED"];

    pub(crate) fn read(name: &str) -> Option<Self> {
        match name {
            "model_id" => Some(Self::ModelId),
            "experiment_id" => Some(Self::ExperimentId),
            "name" => Some(Self::Name),
            "artifact_location" => Some(Self::ArtifactLocation),
            "creation_timestamp" | "creation_time" | "creation_timestamp_ms" => {
                Some(Self::CreationTimestamp)
            }
            "last_updated_timestamp" | "last_updated_timestamp_ms" => {
                Some(Self::LastUpdatedTimestamp)
            }
            "status" => Some(Self::Status),
            "lifecycle_stage" => Some(Self::LifecycleStage),
            "model_type" => Some(Self::ModelType),
            "source_run_id" => Some(Self::SourceRunId),
            "status_message" => Some(Self::StatusMessage),
            _ => None,
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::CreationTimestamp | Self::LastUpdatedTimestamp)
    }
}
