//! Features of frozen blocks, as the workers keep them: `GET /api/v1/features`,
//! `POST /api/v1/features/{digest}/evict`; and how one worker gets them from another, as blobs:
//! `POST /api/v1/workers/{id}/features/wanted` and `…/uploaded`.

use pomona_domain::{Digest, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::shard::Plan;

/// A shard on a worker's disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeatureShard {
    /// Digest of its key: its name.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What it holds.
    pub plan: Plan,
    /// Bytes on disk.
    pub bytes: u64,
    /// When a trial last asked for it.
    #[schema(value_type = String)]
    pub used_at: Timestamp,
}

/// A shard and where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeatureCopy {
    /// The worker.
    #[schema(value_type = String)]
    pub worker: WorkerId,
    /// Its name.
    pub worker_name: String,
    /// The shard.
    #[serde(flatten)]
    pub shard: FeatureShard,
}

/// Body of `POST /api/v1/workers/{id}/features/wanted`: shards that a trainer is about to compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WantFeatures {
    /// [`crate::PROTOCOL`]; another one is answered `E0003`.
    pub protocol: u32,
    /// As registered; another one is answered `E0303`.
    pub incarnation: u64,
    /// Their names, what is wanted first before others; at most [`MAX_WANTED`].
    #[schema(value_type = Vec<String>)]
    pub shards: Vec<Digest>,
    /// Wait at most this long for the first of them.
    pub wait_ms: u64,
}

pub use pomona_domain::worker::PROCESSOR;

/// Most shards that are asked for at once.
pub const MAX_WANTED: usize = 1000;

/// Answer to [`WantFeatures`]. What is in neither list nobody has, or it has to wait: few come at a
/// time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FoundFeatures {
    /// Those that the blob store has.
    pub ready: Vec<FeatureBlob>,
    /// Those that a worker keeps; it has been asked to upload them.
    #[schema(value_type = Vec<String>)]
    pub coming: Vec<Digest>,
}

/// A shard in the blob store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeatureBlob {
    /// Its name.
    #[schema(value_type = String)]
    pub shard: Digest,
    /// The blob: the file as it is on a worker's disk.
    #[schema(value_type = String)]
    pub blob: Digest,
    /// Bytes of the blob.
    pub bytes: u64,
}

/// Body of `POST /api/v1/workers/{id}/features/uploaded`: what [`Desired`] asked for is there.
///
/// [`Desired`]: crate::v1::workers::Desired
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadedFeature {
    /// [`crate::PROTOCOL`]; another one is answered `E0003`.
    pub protocol: u32,
    /// As registered; another one is answered `E0303`.
    pub incarnation: u64,
    /// The shard.
    #[serde(flatten)]
    pub uploaded: FeatureBlob,
}
