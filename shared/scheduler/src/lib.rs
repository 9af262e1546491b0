//! Where and when trials and tasks run: `decide` turns an event into changes, `plan` places what
//! waits on free slots, `explain` says why something is as it is.
//!
//! It is told the time and never reads it; it must never reach a network, a disk or a database.
//! Nothing outside this crate decides. The theory is in the README beside it.

mod admission;
mod cluster;
mod decide;
mod event;
mod explain;
pub mod invariants;
mod plan;
mod preempt;
mod queue;
mod sharing;
#[cfg(test)]
mod testing;

pub use admission::{admission, largest_gang, unplaceable};
pub use cluster::{Cluster, Config, Recalled, Source};
pub use decide::decide;
pub use event::{Decision, Ended, Event, RegistryWish};
pub use explain::{exclusion, explain, running, warning};
pub use plan::{Placement, plan};
pub use preempt::{Preemption, preemptions};
