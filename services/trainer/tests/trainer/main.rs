//! The trainer's tests: real networks, real rank processes, real files.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends at the first surprise"
)]

mod catalogue;
mod cross;
mod decode;
mod features;
mod fused;
mod house;
mod learner;
mod lite0;
mod loader;
mod onnx;
mod optimizer;
mod protocol;
mod publish;
mod ranks;
mod resume;
mod sharing;
mod square;
mod support;
mod together;
