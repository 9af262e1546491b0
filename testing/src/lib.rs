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

mod postgres;
mod redis;

use std::path::PathBuf;

pub use postgres::Postgres;
pub use redis::Redis;

/// The folder that `scripts/setup.py` makes for an engine.
fn fetched(engine: &str) -> Option<PathBuf> {
    let given = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = given("POMONA_CACHE")
        .or_else(|| given("XDG_CACHE_HOME").map(|folder| folder.join("pomona")))
        .or_else(|| given("HOME").map(|folder| folder.join(".cache/pomona")))?;
    Some(cache.join(engine))
}
