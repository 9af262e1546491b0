//! What crosses a process boundary: bodies of `/api/v1`, the worker's poll, the lines and
//! files between worker and trainer, and (feature `client`) a typed HTTP client.
//!
//! It must never decide anything or touch a database.

#[cfg(feature = "client")]
pub mod client;
pub mod shard;
pub mod split;
pub mod trainer;
pub mod v1;

/// The protocol that workers and coordinators of one cluster share; they refuse each other politely
/// (`E0003`) when it differs.
pub const PROTOCOL: u32 = 5;
