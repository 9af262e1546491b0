//! Supervision of real processes: the fake trainer, started as a worker starts a trainer.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "lease/bench.rs"]
mod bench;
#[path = "lease/faults.rs"]
mod faults;
#[path = "lease/orphans.rs"]
mod orphans;
#[path = "lease/ranks.rs"]
mod ranks;
#[path = "lease/tasks.rs"]
mod tasks;
#[path = "lease/trial.rs"]
mod trial;
