//! Private instances of the engines that Pomona works with, for tests: each is started from a
//! temporary folder, reachable from this machine alone, and gone when its owner is dropped or dies.
//!
//! A test must never use an engine that happens to run, and no program of ours may depend on this
//! crate. What is missing fails the test with a word about `make setup`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "an engine that does not start fails the test"
)]

mod bucket;
mod clients;
mod postgres;
mod redis;
mod skopeo;

use std::path::PathBuf;

pub use bucket::Bucket;
pub use clients::clients_python;
pub use postgres::Postgres;
pub use redis::Redis;
pub use skopeo::skopeo;

/// What `scripts/setup.py` fetched and built.
fn cache() -> Option<PathBuf> {
    let given = |name| std::env::var_os(name).map(PathBuf::from);
    given("POMONA_CACHE")
        .or_else(|| given("XDG_CACHE_HOME").map(|folder| folder.join("pomona")))
        .or_else(|| given("HOME").map(|folder| folder.join(".cache/pomona")))
}
