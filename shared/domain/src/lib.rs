//! The vocabulary of Pomona: ids, the experiment file, states and their transitions, and the
//! `Change`s that a decision makes.
//!
//! It must never do I/O, read a clock, draw randomness or know how a thing is stored or sent.

pub mod backbone;
pub mod change;
pub mod checkpoint;
pub mod dataset;
pub mod digest;
pub mod error;
pub mod experiment;
pub mod explain;
pub mod gate;
pub mod hook;
pub mod hparams;
pub mod id;
pub mod lease;
pub mod metric;
pub mod model;
pub mod moves;
pub mod name;
pub mod plan;
pub mod policy;
pub mod report;
pub mod snapshot;
pub mod space;
pub mod spec;
pub mod task;
pub mod time;
pub mod trial;
pub mod view;
pub mod words;
pub mod worker;

pub use change::Change;
pub use digest::Digest;
pub use error::{Code, Fault};
pub use explain::explain;
pub use hparams::Hparams;
pub use id::{DeliveryId, ExperimentId, HookId, LeaseId, TaskId, TrialId, VersionId, WorkerId};
pub use lease::Generation;
pub use time::Timestamp;
