//! Features of frozen blocks, as the workers keep them: `GET /api/v1/features`,
//! `POST /api/v1/features/{digest}/evict`.

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
