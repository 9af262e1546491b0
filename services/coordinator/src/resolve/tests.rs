//! Frozen depths against a backbone's blocks.

use super::*;
use pomona_domain::backbone::Block;
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
        base: Some(Base {
            dataset: serde_json::from_value(dataset).unwrap(),
            backbone,
        }),
    }
}

#[test]
fn a_preview_has_the_plan_and_submission_the_same() {
    let machines = Machines::default();
    let shown = preview(&mut resolved(GRID, 224), machines).unwrap();
    assert_eq!(shown.plan, resolved(GRID, 224).settle(machines).unwrap());
    let plan = shown.plan.unwrap();
    assert_eq!((shown.trials, plan.samples), (4, 160));
    let planned: Vec<_> = (plan.cuts.iter())
        .map(|cut| (cut.frozen_blocks, cut.trials, cut.choice.name()))
        .collect();
    assert_eq!(planned, [(2, 2, "features"), (3, 2, "fused")]);
}

#[test]
fn a_small_grid_of_heads_is_cross_validated_and_says_so() {
    let heads = GRID.replace("{values: [2, all]}", "{values: [all]}");
    let machines = Machines {
        slots: None,
        feature_budget_bytes: Some(1 << 30),
    };
    let mut resolved = resolved(&heads, 224);
    let plan = resolved.settle(machines).unwrap().unwrap();
    assert_eq!(resolved.spec.search.objective(), "cv/accuracy");
    assert_eq!(
        resolved.spec.search.metric, "val/accuracy",
        "the file's own"
    );
    let told = plan
        .advice
        .iter()
        .find(|text| text.contains("cross-validation"));
    assert!(told.is_some(), "{:?}", plan.advice);
    let before = resolved.spec.clone();
    resolved.settle(Machines::default()).unwrap();
    assert_eq!(resolved.spec, before, "what is settled stays");
}

#[test]
fn folds_need_heads_and_images() {
    let check = |search: &str, depth: &str| {
        let file = GRID
            .replace("{values: [2, all]}", depth)
            .replace("search:", &format!("search:\n  validation: {search}"));
        let resolved = resolved(&file, 224);
        let base = resolved.base.unwrap();
        check_folds(&resolved.spec, &base.dataset, &base.backbone)
            .map(|fault| format!("{} {fault}", fault.code))
    };
    assert_eq!(check("{kfold: 5}", "{values: [3, all]}"), None);
    assert_eq!(check("{kfold: 10}", "{values: [all]}"), None);
    assert_eq!(check("holdout", "{values: [2]}"), None);
    insta::assert_snapshot!(
        [
            check("{kfold: 11}", "{values: [all]}"),
            check("{kfold: 5}", "{values: [2, all]}"),
        ]
        .map(Option::unwrap_or_default)
        .join("\n")
    );
}
