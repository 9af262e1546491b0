//! Backbones: pretrained feature extractors in the catalogue.

use serde::{Deserialize, Serialize};

use crate::spec::FrozenDepth;
use crate::{Code, Digest, Fault, Timestamp};

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

/// How many blocks a depth freezes, of blocks named from the input; `None` when there is no such
/// block, stage or number. A stage (`layer3`) stands for its last block. Every room resolves with
/// this one and refuses in its own words.
pub fn frozen_blocks<'a, N>(names: N, depth: &FrozenDepth) -> Option<usize>
where
    N: IntoIterator<Item = &'a str, IntoIter: ExactSizeIterator + DoubleEndedIterator>,
{
    let mut names = names.into_iter();
    match depth {
        FrozenDepth::Blocks(count) => Some(*count as usize).filter(|count| *count <= names.len()),
        FrozenDepth::Named(name) if name == "all" => Some(names.len()),
        FrozenDepth::Named(name) => names.rposition(|block| is_in(block, name)).map(|at| at + 1),
    }
}

/// Whether a block is the one that is named, or of the stage that is named.
fn is_in(block: &str, name: &str) -> bool {
    let rest = block.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The block that a reader most likely meant, if one is near.
pub fn nearest_block<'a>(names: impl IntoIterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    names
        .into_iter()
        .map(|block| (strsim::damerau_levenshtein(name, block), block))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, block)| block)
}

/// The smallest side of an image that leaves an architecture at least one value before the
/// pooling. The one place that says so.
pub fn smallest_image(arch: &str) -> Option<u32> {
    match arch {
        "resnet18" | "resnet50" | "vgg16" | "efficientnet-lite0" => Some(32),
        "inception_v3" => Some(75),
        "test-convnet" | "test-resnet" => Some(4),
        _ => None,
    }
}

/// Whether an architecture can be fed with images of this side; `E0510` when they are too small.
/// An architecture that is not known here is left to the trainer.
pub fn check_image(arch: &str, side: u32) -> Result<(), Fault> {
    let Some(smallest) = smallest_image(arch).filter(|smallest| side < *smallest) else {
        return Ok(());
    };
    Err(Fault::new(
        Code::BadImageSize,
        format!("`{arch}` needs images of at least {smallest} pixels, the data set has {side}"),
    )
    .hint(format!(
        "import the data set with an image size of {smallest} or more"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_a_number_all_a_block_or_a_stage() {
        let names = ["stem", "layer1.0", "layer1.1", "layer10.0", "pool"];
        let named = |name: &str| FrozenDepth::Named(name.to_owned());
        for (depth, wanted) in [
            (FrozenDepth::Blocks(0), Some(0)),
            (FrozenDepth::Blocks(5), Some(5)),
            (FrozenDepth::Blocks(6), None),
            (named("all"), Some(5)),
            (named("stem"), Some(1)),
            (named("layer1"), Some(3)),
            (named("layer1.0"), Some(2)),
            (named("layer10"), Some(4)),
            (named("layer"), None),
            (named(""), None),
        ] {
            assert_eq!(frozen_blocks(names, &depth), wanted, "{depth:?}");
        }
        assert_eq!(nearest_block(names, "layer1.2"), Some("layer1.0"));
        assert_eq!(nearest_block(names, "nothing like it"), None);
    }

    #[test]
    fn images_are_as_large_as_the_architecture_needs() {
        for (arch, side, fits) in [
            ("efficientnet-lite0", 31, false),
            ("efficientnet-lite0", 32, true),
            ("inception_v3", 74, false),
            ("inception_v3", 75, true),
            ("test-resnet", 3, false),
            ("test-resnet", 4, true),
            ("of tomorrow", 1, true),
        ] {
            let checked = check_image(arch, side).map_err(|fault| fault.code);
            let wanted = if fits {
                Ok(())
            } else {
                Err(Code::BadImageSize)
            };
            assert_eq!(checked, wanted, "{arch} {side}");
        }
    }
}
