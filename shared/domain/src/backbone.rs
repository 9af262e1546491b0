//! Backbones: pretrained feature extractors in the catalogue.

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp};

/// The unit of freezing, counted from the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Its published name (`_blocks.14`, `layer3.1`).
    pub name: String,
    /// Parameters in it.
    pub parameters: u64,
    /// Multiply-adds of one image at the catalogue's size.
    pub macs: u64,
    /// Bytes per image of its output, in bf16: what a cut after it would cache.
    pub cut_bytes: u64,
    /// Output shape without the batch.
    pub output_shape: Vec<u64>,
}

/// A backbone that was imported. Immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backbone {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Blob: canonical safetensors under the published names, the source head included.
    pub weights: Digest,
    /// Blob: the file as the user gave it.
    pub source: Digest,
    /// Side of the square image that blocks were measured at.
    pub image_size: u32,
    /// Blocks from the input to the pooled features.
    pub blocks: Vec<Block>,
    /// Tensors in the file.
    pub tensors: u32,
    /// Parameters of the source head (its classes are what it was trained on).
    pub head_parameters: u64,
    /// When it was added.
    pub created_at: Timestamp,
}
