//! Bodies about the cluster as a whole: `GET /api/v1/cluster`, `GET /api/v1/explain/…` and
//! Prometheus service discovery.

use pomona_domain::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Answer of `GET /api/v1/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Program version of the coordinator.
    pub version: String,
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// Workers that beat and get work.
    pub workers_alive: u32,
    /// Workers that beat and get nothing new.
    pub workers_draining: u32,
    /// Workers that were not heard of for too long.
    pub workers_lost: u32,
    /// Slots of workers that beat.
    pub slots_total: u32,
    /// Slots in a live lease.
    pub slots_busy: u32,
    /// Experiments that have not ended.
    pub experiments: u32,
    /// Trials on slots.
    pub trials_running: u32,
    /// Trials that want a lease.
    pub trials_waiting: u32,
    /// Tasks on slots.
    pub tasks_running: u32,
    /// Tasks that want a slot.
    pub tasks_waiting: u32,
}

/// Answer of `GET /api/v1/explain/…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// About whom: an id, or `NAME@ALIAS`.
    pub subject: String,
    /// A sentence about its present state.
    pub now: String,
    /// What was decided about it, oldest first.
    pub reasons: Vec<Because>,
}

/// Why something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Because {
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// The sentence.
    pub text: String,
}

/// One group of `GET /api/v1/prometheus/targets` (Prometheus' HTTP service discovery).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetGroup {
    /// `host:port` of `/metrics`.
    pub targets: Vec<String>,
    /// Labels of those targets.
    pub labels: BTreeMap<String, String>,
}
