//! Frozen depths against a backbone's blocks.

use super::*;
use pomona_domain::{Digest, Timestamp};

fn backbone(blocks: &[&str]) -> Backbone {
    let block = |name: &&str| Block {
        name: (*name).to_owned(),
        parameters: 10,
        macs: 0,
        cut_bytes: 100,
        output_shape: vec![8, 4, 4],
    };
    Backbone {
        name: "resnet18".to_owned(),
        arch: "resnet18".to_owned(),
        weights: Digest::of(b""),
        source: Digest::of(b""),
        image_size: 224,
        blocks: blocks.iter().map(block).collect(),
        tensors: 0,
        head_parameters: 0,
        created_at: Timestamp(0),
    }
}

fn depth(text: &str) -> FrozenDepth {
    text.parse()
        .map_or_else(|_| FrozenDepth::Named(text.to_owned()), FrozenDepth::Blocks)
}

#[test]
fn a_depth_is_a_number_all_a_block_or_a_stage() {
    let backbone = backbone(&["stem", "layer1.0", "layer1.1", "layer10.0", "pool"]);
    let check = |text: &str| match frozen_blocks(&backbone, &depth(text)) {
        Ok(blocks) => format!("{text}: {blocks}"),
        Err(fault) => format!(
            "{text}: {} {fault} ({})",
            fault.code,
            fault.hint.as_deref().unwrap_or_default()
        ),
    };
    let cases = [
        "0", "5", "6", "all", "stem", "layer1", "layer1.0", "layer1.2", "head",
    ];
    insta::assert_snapshot!(cases.map(check).join("\n"));
}
