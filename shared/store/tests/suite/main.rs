//! One suite for every database and every place of blobs. A test takes a fresh [`harness::Home`] and knows nothing of what
//! is below it; what only one database has is asked for through the home, or in `only_postgres`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod harness;
mod rows;

mod artifacts;
mod backup;
mod blobs;
mod collect;
mod commits;
mod concurrency;
mod gates;
mod images;
mod interleave;
mod killed;
mod leadership;
mod ledger;
mod lists;
mod objects;
mod only_postgres;
mod registry;
mod resume;
mod schema;
mod service;
mod snapshot;
mod tracking;
mod webhooks;
mod words;
