//! Uploads in several requests.

use pomona_domain::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadView {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// Bytes that are at rest; the next request begins there.
    pub offset: u64,
}

/// Where a request goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResumeUpload {
    /// Bytes before the first one of the request.
    pub offset: u64,
}

/// Where the last request goes on, and what the blob is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FinishUpload {
    /// Bytes before the first one of the request.
    pub offset: u64,
    /// The digest of all bytes.
    #[schema(value_type = String)]
    pub digest: Digest,
}
