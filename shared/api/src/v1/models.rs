//! Bodies of the registry.

use pomona_domain::model::Alias;
use pomona_domain::{Digest, Timestamp, TrialId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A model: its versions and its aliases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Its versions, newest first, at most [`MAX_VERSIONS_SHOWN`].
    pub versions: Vec<VersionSummary>,
    /// Its aliases, by name.
    #[schema(value_type = Vec<Object>)]
    pub aliases: Vec<Alias>,
    /// What people say of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Body of `PATCH /api/v1/models/{name}` and of its versions: words, which move nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeWords {
    /// A description instead of the one it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tags to set; those without a value are removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Option<String>>,
}

/// What is said of a model or a version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Words {
    /// A description.
    pub description: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// Query of `GET /api/v1/models/{name}/versions/{which}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionQuery {
    /// Where the alias pointed at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub as_of: Option<Timestamp>,
    /// Its files are pulled: it is not deleted for ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<bool>,
}

/// Query of `GET /api/v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only what was done to this (`model/flowers`), and to what belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Entries of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// The page after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// Most versions of a [`ModelView`].
pub const MAX_VERSIONS_SHOWN: usize = 100;

/// A version in a list; `GET /api/v1/models/{name}/versions/{n}` gives all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionSummary {
    /// Its number.
    pub number: u32,
    /// Digest of the list of files.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The trial it comes from, if it was trained here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub trial: Option<TrialId>,
    /// Bytes of all files.
    pub size: u64,
    /// Whether every gate passed when it was published.
    pub gates_passed: bool,
    /// Test and validation metrics.
    pub metrics: BTreeMap<String, f64>,
    /// When it was published.
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

/// Body of `POST /api/v1/models/{name}/versions`; answered with the publish `Task`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishVersion {
    /// The trial whose best checkpoint is published.
    #[schema(value_type = String)]
    pub trial: TrialId,
    /// The alias to move when the gates pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

/// Body of `PUT /api/v1/models/{name}/aliases/{alias}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAlias {
    /// The version it shall point to.
    pub version: u32,
    /// Refuse (`E0702`) unless the alias has this revision (0: does not exist).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /api/v1/models/{name}/aliases/{alias}/rollback`: back to the version before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackAlias {
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Query of `GET /api/v1/models/{name}/aliases/{alias}/history`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Only moves up to this moment: the last of them says what was in place then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub as_of: Option<Timestamp>,
}
