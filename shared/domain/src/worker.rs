//! Workers and their slots.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{Timestamp, WorkerId};

/// The label by which a worker says what its processor is: features are shared between equal ones,
/// and so are trials whose ranks are on several workers.
pub const PROCESSOR: &str = "processor";

/// What a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotKind {
    /// One CPU thread (or a share of the cores).
    Cpu,
    /// One NVIDIA GPU.
    Cuda,
}

/// One device a trial may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Index on its worker, from 0.
    pub index: u32,
    /// What it is.
    pub kind: SlotKind,
    /// A name for people (`AMD EPYC`, `NVIDIA H100`).
    pub name: String,
    /// Memory, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Whether a worker gets work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It beats and gets work.
    Alive,
    /// It beats, gets nothing new, and what it has yields.
    Draining,
    /// It has not been heard of for longer than a lease's term.
    Lost,
}

impl WorkerState {
    /// Its name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

/// Labels that a worker must have: each key with one of its values.
pub type Selector = BTreeMap<String, Vec<String>>;

/// Whether labels are what a selector asks for.
pub fn is_selected(labels: &BTreeMap<String, String>, selector: &Selector) -> bool {
    (selector.iter()).all(|(key, values)| labels.get(key).is_some_and(|own| values.contains(own)))
}

/// `zone=a, disk=nvme|ssd`, for people.
pub fn show_selector(selector: &Selector) -> String {
    let pairs: Vec<String> = (selector.iter())
        .map(|(key, values)| format!("{key}={}", values.join("|")))
        .collect();
    pairs.join(", ")
}

/// Our agent on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its id, kept in the worker's data folder.
    pub id: WorkerId,
    /// Row version for compare-and-swap; 1 at insertion.
    pub version: u64,
    /// Its name, the host's by default.
    pub name: String,
    /// Drawn anew at each start of the worker process: a change means that nothing it ran lives.
    pub incarnation: u64,
    /// Its slots.
    pub slots: Vec<Slot>,
    /// Labels for selectors.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it gets work.
    pub state: WorkerState,
    /// While it is to be drained: what runs there may go on until then. It outlives a time in which
    /// the worker was not heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_by: Option<Timestamp>,
    /// Every report up to this sequence number is in the store.
    pub acked_seq: u64,
    /// When it first registered.
    pub registered_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
}
