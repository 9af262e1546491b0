//! Views: rows of the API in, text for people out. Nothing here prints, asks or reads a clock.

pub mod catalogue;
pub mod experiment;
pub mod feature;
pub mod machine;
pub mod model;
pub mod plan;
pub mod preview;
pub mod rungs;
pub mod state;
pub mod trial;
pub mod watch;
pub mod webhook;

#[cfg(test)]
mod tests;
