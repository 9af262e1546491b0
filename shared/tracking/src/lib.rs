//! The language of the MLflow-compatible server: filters, orders, names and limits, page tokens,
//! request parameters, run names, and which points of a curve are shown.
//!
//! It turns text that a client sent into typed values, or into a [`Refusal`] with MLflow's code and
//! wording. It must never do I/O, read a clock, draw randomness, know SQL, or panic on any input.

pub mod artifact_path;
pub mod downsample;
mod error;
pub mod filter;
pub mod limits;
pub mod names;
pub mod order;
pub mod params;
mod run_name;
pub mod token;
pub mod webhooks;

pub use error::{ErrorCode, Refusal};
pub use params::Body;
pub use run_name::run_name;
