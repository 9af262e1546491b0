//! How a machine's cores are split into processes and threads, as a worker measured it once. The
//! worker writes it to its data folder, and `pomona doctor` reads it.

use pomona_domain::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Name of the file.
pub const FILE: &str = "split.json";

/// So many trainers side by side, with so many threads each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Processes: slots.
    pub processes: u32,
    /// Threads of each.
    pub threads: u32,
}

/// A split and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The split.
    #[serde(flatten)]
    pub split: Split,
    /// Images in a second through frozen blocks, all processes together.
    pub images_per_s: f64,
}

/// What was measured, and on what: on anything else it is measured anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured on.
    #[serde(flatten)]
    pub machine: Machine,
    /// The split that was chosen.
    pub best: Split,
    /// Everything that was tried.
    pub rates: Vec<Rate>,
}

/// What a measurement holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Its cores, as far as this process may use them.
    pub cores: u32,
    /// Digest of the trainer's file.
    pub trainer: Digest,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.processes, self.threads)
    }
}

impl Measured {
    /// `2 × 1: 101 images/s, 1 × 2: 88 images/s` (processes × threads).
    pub fn table(&self) -> String {
        let row = |rate: &Rate| format!("{}: {:.0} images/s", rate.split, rate.images_per_s);
        self.rates.iter().map(row).collect::<Vec<_>>().join(", ")
    }
}
