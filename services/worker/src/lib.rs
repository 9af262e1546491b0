//! The worker: Pomona's agent on one machine. It says what runs and what was produced, is told what
//! should run, and makes the one become the other: rank processes, blobs, and reports that count
//! exactly once.
//!
//! It must never decide what should run, never touch a tensor, never drop a report that the
//! coordinator has not acknowledged, and never leave a process behind.

pub mod agent;
pub mod cache;
pub mod config;
pub mod features;
pub mod fetch;
pub mod identity;
pub mod lease;
pub mod line;
pub mod logs;
pub mod measure;
pub mod metrics;
pub mod offer;
pub mod process;
pub mod program;
pub mod reach;
pub mod reconcile;
pub mod ship;
pub mod slots;
pub mod spare;
pub mod spool;
pub mod watch;
pub mod work;

use pomona_domain::Timestamp;

/// Whether a disk refused for want of room.
pub fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// The moment it is, by this machine's clock.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
