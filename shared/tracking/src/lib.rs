//! The language of the MLflow-compatible server: filters, orders, names and limits, page tokens,
//! request parameters, run names, and which points of a curve are shown.
//!
//! It turns text that a client sent into typed values, or into a [`Refusal`] with MLflow's code and
//! wording. It must never do I/O, read a clock, draw randomness, know SQL, or panic on any input.

mod error;
pub mod filter;
pub mod limits;
pub mod names;
pub mod order;
pub mod params;
pub mod token;

pub use error::{ErrorCode, Refusal};
