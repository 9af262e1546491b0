//! Bodies for data sets, backbones, tasks and predictions.

use pomona_domain::Digest;
use pomona_domain::dataset::ImportOptions;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of `POST /api/v1/datasets`; answered with the import `Task`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDataset {
    /// Name of the data set; a known name gets a new version.
    pub name: String,
    /// Blob: an uncompressed tar of the folder, uploaded before.
    #[schema(value_type = String)]
    pub archive: Digest,
    /// Sizes, split and grouping.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub options: ImportOptions,
}

/// Query of `GET /api/v1/datasets/{name}` and of its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetQuery {
    /// Version number; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Body of `POST /api/v1/backbones`; answered with the import `Task`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddBackbone {
    /// Name of the backbone; it must be new.
    pub name: String,
    /// Architecture (`efficientnet-lite0`, `resnet18`, …).
    pub arch: String,
    /// Blob: the weights file as the user has it, uploaded before.
    #[schema(value_type = String)]
    pub weights: Digest,
}

/// Body of `POST /api/v1/predictions`; answered with the `Task` whose result holds the predictions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Predict {
    /// `NAME@ALIAS` or `NAME@NUMBER`.
    pub model: String,
    /// Blob: an uncompressed tar of the pictures, uploaded before.
    #[schema(value_type = String)]
    pub pictures: Digest,
    /// Classes to answer for each picture, from 1.
    pub top: u32,
}
