//! Bodies of `/api/v1`: JSON, snake_case, times RFC 3339 UTC, durations with their unit in the name.
//! Rows of the domain (`Experiment`, `Trial`, `Dataset`, …) cross as they are.

pub mod catalogue;
pub mod cluster;
pub mod events;
pub mod experiments;
pub mod features;
pub mod models;
pub mod uploads;
pub mod workers;

use pomona_domain::Fault;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every error answer, as a reader needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    #[schema(value_type = Object)]
    pub error: Fault,
}

/// Every error answer, as the coordinator writes it: an [`ErrorBody`] with room for details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DetailedErrorBody {
    /// The error.
    pub error: DetailedFault,
}

/// A fault, and every single fault behind it when there are several (all those of a file).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DetailedFault {
    /// The error; its message joins those of `details`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub fault: Fault,
    /// What is behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<FaultDetails>,
}

/// What is behind an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaultDetails {
    /// The single faults, in the order of the file.
    #[schema(value_type = Vec<Object>)]
    pub faults: Vec<Fault>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Ask for this to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Items on it, at most [`MAX_PAGE_SIZE`]; [`DEFAULT_PAGE_SIZE`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// `next_page_token` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// Items of a page when nothing is said.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// Most items of a page.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// Header that makes a mutation safe to repeat: a repeat answers the first answer.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// The header in which a client says who uses it. It is a claim: there are no tokens yet.
pub const ACTOR: &str = "Pomona-Actor";
/// Longest idempotency key in bytes.
pub const MAX_IDEMPOTENCY_KEY: usize = 128;
