//! Where and when trials and tasks run: `decide` turns an event into changes, `plan` places what
//! waits on free slots, `explain` says why something is as it is.
//!
//! It is told the time and never reads it; it must never reach a network, a disk or a database.
//! Nothing outside this crate decides. The theory is in the README beside it.

mod cluster;
mod decide;
mod event;
mod explain;
pub mod invariants;
mod plan;
mod sharing;
#[cfg(test)]
mod testing;

pub use cluster::{Cluster, Config, NOT_STARTED, Recalled, Source};
pub use decide::decide;
pub use event::{Decision, Ended, Event};
pub use explain::{explain, running, warning};
pub use plan::{Placement, largest_gang, plan, unplaceable};
