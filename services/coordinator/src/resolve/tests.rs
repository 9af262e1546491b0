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

const GRID: &str = "
name: grid
backbone: net
dataset: set
train: {epochs: 4, batch_size: 4, optimizer: {kind: adamw}, learning_rate: 0.01}
search:
  metric: val/accuracy
  space:
    train.learning_rate: {values: [0.001, 0.01]}
    transfer.frozen_depth: {values: [2, all]}
";

/// Ten training images and five for validation, at the size that blocks were measured at.
fn resolved(file: &str, image_size: u32) -> Resolved {
    let mut backbone = backbone(&["a", "b", "c"]);
    for (block, macs) in backbone.blocks.iter_mut().zip([100, 200, 300]) {
        block.macs = macs;
    }
    let dataset = serde_json::json!({
        "name": "set", "number": 1,
        "manifest": Digest::of(b"manifest"), "archive": Digest::of(b"archive"),
        "options": {
            "image_size": image_size, "fit": "pad", "filter": "bilinear",
            "split": [60, 20, 20], "seed": 0, "group_pattern": null
        },
        "summary": {
            "classes": {"x": [6, 3, 1], "y": [4, 2, 1]},
            "groups": 17, "duplicates": 0, "set_aside": {}, "problems": []
        },
        "created_at": "2026-01-01T00:00:00Z"
    });
    Resolved {
        spec: spec::parse(file, &[]).unwrap(),
        source: file.to_owned(),
        dataset: serde_json::from_value(dataset).unwrap(),
        backbone,
    }
}

#[test]
fn a_preview_counts_the_frozen_blocks_once_for_each_cut() {
    let shown = preview(&resolved(GRID, 224)).unwrap();
    // Above the cut at 2: 4 epochs, 300 multiply-adds, thrice for 10 images, once for 5. Below: 300
    // for 15 images, in 4 epochs or once. With all frozen: 600 for 15 images. Two trials each.
    let (above, below, all) = (4 * 300 * 35, 300 * 15, 600 * 15);
    assert_eq!(
        shown.multiply_adds_unshared,
        2 * (above + 4 * below + 4 * all)
    );
    assert_eq!(shown.multiply_adds, 2 * above + below + all);
    // f32: 8 × 4 × 4 values for 15 images, or 8 pooled ones.
    let bytes: Vec<u64> = shown.cuts.iter().map(|cut| cut.feature_bytes).collect();
    assert_eq!(bytes, [8 * 4 * 4 * 4 * 15, 8 * 4 * 15]);
}

#[test]
fn a_preview_follows_the_size_of_images_views_and_what_is_shared() {
    let full = preview(&resolved(GRID, 224)).unwrap();
    let half = preview(&resolved(GRID, 112)).unwrap();
    assert_eq!(half.multiply_adds * 4, full.multiply_adds);
    assert_eq!(half.cuts[0].feature_bytes * 4, full.cuts[0].feature_bytes);
    assert_eq!(half.cuts[1].feature_bytes, full.cuts[1].feature_bytes);
    // Training images in two views.
    let flips = GRID.replace(
        "learning_rate: 0.01}",
        "learning_rate: 0.01, augment: {views: 2, ops: [horizontal_flip]}}",
    );
    let two = preview(&resolved(&flips, 224)).unwrap();
    assert_eq!(two.multiply_adds - full.multiply_adds, (300 + 600) * 10);
    assert_eq!(two.multiply_adds_unshared, full.multiply_adds_unshared);
    assert_eq!(two.cuts[1].feature_bytes, 8 * 4 * 25);
    let off = preview(&resolved(&format!("{GRID}share: off\n"), 224)).unwrap();
    assert_eq!(off.multiply_adds, off.multiply_adds_unshared);
    assert_eq!(off.multiply_adds, full.multiply_adds_unshared);
    assert!(off.cuts.iter().all(|cut| cut.feature_bytes == 0));
}
