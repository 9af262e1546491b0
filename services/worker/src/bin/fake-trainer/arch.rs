//! Blocks of the catalogue's architectures by name, with round figures.

use pomona_domain::backbone::{Block, frozen_blocks};
use pomona_domain::spec::FrozenDepth;
use pomona_domain::{Code, Fault};

/// Names of the catalogue.
const NAMES: [&str; 5] = [
    "efficientnet-lite0",
    "inception_v3",
    "resnet18",
    "resnet50",
    "vgg16",
];

/// Side of the image that an architecture was made for.
pub fn image_size(arch: &str) -> u32 {
    if arch == "inception_v3" { 299 } else { 224 }
}

fn stages(counts: [usize; 4]) -> Vec<String> {
    let unit = |stage: usize, unit: usize| format!("layer{}.{unit}", stage + 1);
    let layers = counts.into_iter().enumerate();
    let layers = layers.flat_map(|(stage, count)| (0..count).map(move |n| unit(stage, n)));
    std::iter::once("conv1".to_owned()).chain(layers).collect()
}

/// Names of the blocks, from the input.
fn block_names(arch: &str) -> Result<Vec<String>, Fault> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Ok(match arch {
        "efficientnet-lite0" => {
            let inner = (0..16).map(|index| format!("_blocks.{index}"));
            let stem = std::iter::once("_conv_stem".to_owned());
            stem.chain(inner).chain(["_conv_head".to_owned()]).collect()
        }
        "resnet18" => stages([2, 2, 2, 2]),
        "resnet50" => stages([3, 4, 6, 3]),
        "vgg16" => {
            let convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
            let features = convolutions.iter().map(|index| format!("features.{index}"));
            features
                .chain(["classifier.0".to_owned(), "classifier.3".to_owned()])
                .collect()
        }
        "inception_v3" => owned(&[
            "Conv2d_1a_3x3",
            "Conv2d_2a_3x3",
            "Conv2d_2b_3x3",
            "Conv2d_3b_1x1",
            "Conv2d_4a_3x3",
            "Mixed_5b",
            "Mixed_5c",
            "Mixed_5d",
            "Mixed_6a",
            "Mixed_6b",
            "Mixed_6c",
            "Mixed_6d",
            "Mixed_6e",
            "Mixed_7a",
            "Mixed_7b",
            "Mixed_7c",
        ]),
        other => {
            let text = format!("there is no architecture `{other}`");
            let hint = format!("use one of {}", NAMES.join(", "));
            return Err(Fault::new(Code::UnknownArch, text).hint(hint));
        }
    })
}

/// The blocks, each a little smaller and deeper than the one before.
pub fn blocks(arch: &str) -> Result<Vec<Block>, Fault> {
    let names = block_names(arch)?;
    let count = names.len() as u64;
    let named = names.into_iter().zip(0u64..);
    let blocks = named.map(|(name, index)| {
        let side = u64::from(image_size(arch)) >> (1 + index * 4 / count);
        let channels = 16 << (index * 4 / count);
        Block {
            name,
            parameters: 1000 * (index + 1),
            macs: 10_000_000,
            cut_bytes: 2 * channels * side * side,
            output_shape: vec![channels, side, side],
        }
    });
    Ok(blocks.collect())
}

/// The share of blocks that learn, 0 to 1.
pub fn trained_share(arch: &str, depth: &FrozenDepth) -> Result<f64, Fault> {
    let names = block_names(arch)?;
    let frozen = frozen_blocks(names.iter().map(String::as_str), depth).ok_or_else(|| {
        let depth = match depth {
            FrozenDepth::Blocks(count) => count.to_string(),
            FrozenDepth::Named(name) => name.clone(),
        };
        let text = format!("`{arch}` has no block or stage `{depth}`");
        Fault::new(Code::UnknownBlock, text).hint("use a block's name, a number, or `all`")
    })?;
    Ok(1.0 - frozen as f64 / names.len() as f64)
}
