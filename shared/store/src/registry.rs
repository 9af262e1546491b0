//! The registry's faces: what people and MLflow's clients say of models and versions, and who did
//! what.
//!
//! What a version is, and where an alias points, is decided by the leader and written by `commit`.
//! This must never touch either: words, tags and stages move nothing, so any coordinator writes them.

mod audit;
mod faces;
mod words;

pub use faces::{ModelFace, ModelSearch, VersionFace, VersionSearch};
