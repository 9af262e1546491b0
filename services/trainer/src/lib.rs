//! The trainer: networks, training, evaluation, export and prediction. One process is one rank.
//!
//! The only crate that links libtorch. It knows files and the lines on its stdin and stdout; it
//! must never know that a coordinator exists. It must never call tch's own dropout, initialisers
//! or shuffles: everything random comes from [`random`].

pub mod checkpoint;
pub mod data;
pub mod dist;
pub mod fault;
pub mod features;
pub mod measure;
pub mod metrics;
pub mod network;
pub mod onnx;
pub mod optim;
pub mod predict;
pub mod protocol;
pub mod publish;
pub mod random;
pub mod train;
pub mod weights;
pub mod work;
