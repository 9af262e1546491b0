//! What an operator decides about a cluster and no event changes: how projects share it, and which
//! machines may join it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::worker::SlotKind;

/// A project's part of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its name, as in the experiment file.
    pub name: String,
    /// Its part when several want slots: a project of weight 2 gets twice as many as one of 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Most slots that its trials hold at once; without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_slots: Option<u32>,
}

/// Machines of one shape that may join, and may all be away now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Slots of one worker.
    pub slots: u32,
    /// What they are.
    #[serde(default = "cpu")]
    pub kind: SlotKind,
    /// Labels that its workers will have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Most workers of it; 0 closes the pool.
    #[serde(default = "one")]
    pub max_workers: u32,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Projects that are not as all others.
    pub projects: Vec<Project>,
    /// Pools.
    pub pools: Vec<Pool>,
}

impl Policy {
    /// A project's weight, at least 1.
    pub fn weight(&self, project: &str) -> u32 {
        self.project(project).map_or(1, |row| row.weight.max(1))
    }

    /// Most slots that a project's trials hold at once, if that is limited.
    pub fn quota(&self, project: &str) -> Option<u32> {
        self.project(project)?.quota_slots
    }

    fn project(&self, name: &str) -> Option<&Project> {
        self.projects.iter().find(|row| row.name == name)
    }
}

fn one() -> u32 {
    1
}

fn cpu() -> SlotKind {
    SlotKind::Cpu
}
