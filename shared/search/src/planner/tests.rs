//! Plans as tables: what is chosen for whom, why, and what it would cost.

use super::*;
use crate::preview;
use pomona_domain::spec::parse::parse;
use pomona_domain::spec::{KFold, Validation};
use pomona_domain::{Digest, Timestamp};
use std::fmt::Write as _;

/// Three blocks with outputs of 8 × 4 × 4, measured at 224 pixels.
fn backbone() -> Backbone {
    let block = |(name, macs): (&str, u64)| Block {
        name: name.to_owned(),
        parameters: 10,
        macs,
        cut_bytes: 0,
        output_shape: vec![8, 4, 4],
    };
    Backbone {
        name: "net".to_owned(),
        arch: "test-convnet".to_owned(),
        weights: Digest::of(b""),
        source: Digest::of(b""),
        image_size: 224,
        blocks: [("a", 100), ("b", 200), ("c", 300)].map(block).to_vec(),
        tensors: 0,
        head_parameters: 0,
        created_at: Timestamp(0),
    }
}

const IMAGES: Images = Images {
    train: 10,
    val: 5,
    side: 224,
};
const HEADS: &str = "search: {space: {train.learning_rate: {values: [0.001, 0.01, 0.1]}}}";
const MIXED: &str = "search: {space: {train.learning_rate: {values: [0.001, 0.01]}, \
                     transfer.frozen_depth: {values: [2, all]}}}";

fn planned(rest: &str, backbone: &Backbone, images: Images, machines: Machines) -> Plan {
    let train = if rest.contains("train: {") {
        ""
    } else {
        "train: {epochs: 4}\n"
    };
    let text = format!("name: e\nbackbone: net\ndataset: set\n{train}{rest}");
    let spec = parse(&text, &[]).unwrap_or_else(|faults| panic!("{text}: {faults:#?}"));
    let ground = Ground {
        backbone,
        images,
        machines,
    };
    plan(&spec, &preview(&spec).unwrap().points, &ground).unwrap()
}

fn on(rest: &str, machines: Machines) -> Plan {
    planned(rest, &backbone(), IMAGES, machines)
}

fn told(plan: &Plan) -> String {
    let mut text = String::new();
    for cut in &plan.cuts {
        let _ = writeln!(
            text,
            "{} ({} blocks, {} trials, {} views): {}, {} bytes, {}/{} multiply-adds, {}/{} images",
            cut.frozen_depth,
            cut.frozen_blocks,
            cut.trials,
            cut.views,
            cut.choice.name(),
            cut.feature_bytes,
            cut.multiply_adds,
            cut.multiply_adds_unshared,
            cut.frozen_images,
            cut.frozen_images_unshared,
        );
    }
    for sentence in plan.sentences() {
        let _ = writeln!(text, "- {sentence}");
    }
    text
}

fn crops(rest: &str, views: u32) -> String {
    format!("{rest}\ntrain: {{epochs: 4, augment: {{views: {views}, ops: [random_resized_crop]}}}}")
}

#[test]
fn every_situation_has_a_choice_and_a_reason() {
    let budget = |bytes| Machines {
        slots: None,
        feature_budget_bytes: Some(bytes),
    };
    let slots = |slots| Machines {
        slots: Some(slots),
        feature_budget_bytes: None,
    };
    let none = Machines::default();
    let partial = format!("{HEADS}\ntransfer: {{frozen_depth: 2}}");
    let flips =
        format!("{HEADS}\ntrain: {{epochs: 4, augment: {{views: 2, ops: [horizontal_flip]}}}}");
    let two_views = crops(
        "search: {space: {train.augment.views: {values: [2, 10]}}}",
        10,
    );
    let two = "resources: {slots_per_trial: 2}";
    let cases = [
        ("heads only", HEADS.to_owned(), none),
        ("heads only, mirrored too", flips, none),
        ("heads only, ten views", crops(HEADS, 10), none),
        ("one head, more views than epochs", crops("", 10), none),
        ("trials that see other numbers of views", two_views, none),
        (
            "one head, one epoch",
            "train: {epochs: 1, lr_schedule: {kind: constant}}".to_owned(),
            none,
        ),
        ("some blocks train", partial.clone(), none),
        (
            "all blocks train",
            format!("{HEADS}\ntransfer: {{frozen_depth: 0}}"),
            none,
        ),
        ("mixed depths", MIXED.to_owned(), none),
        (
            "mixed depths, not shared",
            format!("{MIXED}\nshare: off"),
            none,
        ),
        ("room for one of two cuts", MIXED.to_owned(), budget(7_680)),
        ("room for both cuts", MIXED.to_owned(), budget(8_160)),
        ("room for neither", MIXED.to_owned(), budget(100)),
        ("workers keep nothing", MIXED.to_owned(), budget(0)),
        ("two ranks for a head", format!("{HEADS}\n{two}"), slots(4)),
        (
            "two ranks, trials for every slot",
            format!("{partial}\n{two}"),
            slots(2),
        ),
        (
            "two ranks, few trials",
            format!("{partial}\n{two}"),
            slots(8),
        ),
        ("one rank, idle slots", partial.clone(), slots(8)),
        ("one rank, no idle slots", partial, slots(4)),
        (
            "one rank, idle slots, heads only",
            HEADS.to_owned(),
            slots(8),
        ),
    ];
    let mut text = String::new();
    for (name, rest, machines) in cases {
        let plan = on(&rest, machines);
        let _ = writeln!(text, "# {name}\n{}", told(&plan));
    }
    insta::assert_snapshot!(text);
}

/// VGG's classifier: parameters without computing.
#[test]
fn parameters_that_compute_little_belong_to_one_rank() {
    let mut backbone = backbone();
    backbone.blocks[2].parameters = 119_000_000;
    backbone.blocks[2].macs = 119_000_000;
    let slots = Machines {
        slots: Some(8),
        feature_budget_bytes: None,
    };
    let mut text = String::new();
    for ranks in [1, 2] {
        let rest =
            format!("transfer: {{frozen_depth: b}}\nresources: {{slots_per_trial: {ranks}}}");
        let _ = writeln!(text, "{}", told(&planned(&rest, &backbone, IMAGES, slots)));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn frozen_blocks_count_once_for_each_cut() {
    let shown = on(MIXED, Machines::default());
    // Above the cut at 2: 4 epochs, 300 multiply-adds, thrice for 10 images, once for 5. Below: 300
    // for 15 images, in 4 epochs or once. With all frozen: 600 for 15 images. Two trials each.
    let (above, below, all) = (4 * 300 * 35, 300 * 15, 600 * 15);
    let unshared = 2 * (above + 4 * below + 4 * all);
    assert_eq!(shown.multiply_adds_unshared, unshared);
    assert_eq!(shown.multiply_adds, 2 * above + below + all);
    assert_eq!(
        (shown.frozen_images, shown.frozen_images_unshared),
        (30, 240)
    );
    assert_eq!(shown.samples, 160);
    // f32: 8 × 4 × 4 values for 15 images, or 8 pooled ones.
    let bytes: Vec<u64> = shown.cuts.iter().map(|cut| cut.feature_bytes).collect();
    assert_eq!(bytes, [8 * 4 * 4 * 4 * 15, 8 * 4 * 15]);
}

#[test]
fn costs_follow_the_size_of_images_views_and_what_is_shared() {
    let none = Machines::default();
    let full = on(MIXED, none);
    let small = Images {
        side: 112,
        ..IMAGES
    };
    let half = planned(MIXED, &backbone(), small, none);
    assert_eq!(half.multiply_adds * 4, full.multiply_adds);
    assert_eq!(half.cuts[0].feature_bytes * 4, full.cuts[0].feature_bytes);
    assert_eq!(half.cuts[1].feature_bytes, full.cuts[1].feature_bytes);
    // Training images in two views.
    let flips = "train: {epochs: 4, augment: {views: 2, ops: [horizontal_flip]}}";
    let two = on(&format!("{MIXED}\n{flips}"), none);
    assert_eq!(two.multiply_adds - full.multiply_adds, (300 + 600) * 10);
    assert_eq!(two.multiply_adds_unshared, full.multiply_adds_unshared);
    assert_eq!(two.cuts[1].feature_bytes, 8 * 4 * 25);
    let off = on(&format!("{MIXED}\nshare: off"), none);
    assert_eq!(off.multiply_adds, off.multiply_adds_unshared);
    assert_eq!(off.multiply_adds, full.multiply_adds_unshared);
    assert!(off.cuts.iter().all(|cut| cut.feature_bytes == 0));
}

#[test]
fn a_backbone_without_blocks_has_nothing_to_share() {
    let mut bare = backbone();
    bare.blocks.clear();
    let plan = planned(HEADS, &bare, IMAGES, Machines::default());
    assert_eq!(plan.cuts[0].choice, Choice::Pixels);
    assert_eq!((plan.multiply_adds, plan.cuts[0].frozen_images), (0, 0));
}

#[test]
fn small_sets_of_heads_are_cross_validated() {
    let small = Sizes {
        images: 1_999,
        train: 1_200,
        classes: 6,
    };
    let budget = |bytes| Machines {
        slots: None,
        feature_budget_bytes: bytes,
    };
    let (room, none) = (budget(Some(1 << 30)), budget(Some(0)));
    let folds = Validation::KFold(KFold::DEFAULT);
    let cases = [
        ("a grid of heads", on(HEADS, room), small, folds),
        (
            "an image for each class and fold",
            on(HEADS, room),
            Sizes { train: 30, ..small },
            folds,
        ),
        (
            "too few for that",
            on(HEADS, room),
            Sizes { train: 29, ..small },
            Validation::Holdout,
        ),
        (
            "many images",
            on(HEADS, room),
            Sizes {
                images: 2_000,
                ..small
            },
            Validation::Holdout,
        ),
        ("one trial", on("", room), small, Validation::Holdout),
        (
            "blocks that train",
            on(MIXED, room),
            small,
            Validation::Holdout,
        ),
        (
            "no room for features",
            on(HEADS, none),
            small,
            Validation::Holdout,
        ),
        (
            "room that nobody knows of",
            on(HEADS, budget(None)),
            small,
            Validation::Holdout,
        ),
        (
            "nothing shared",
            on(&format!("{HEADS}\nshare: off"), room),
            small,
            Validation::Holdout,
        ),
    ];
    for (case, plan, sizes, wanted) in cases {
        let (found, told) = validation(&plan, sizes);
        assert_eq!(found, wanted, "{case}");
        assert_eq!(told.is_some(), wanted == folds, "{case}: {told:?}");
    }
}

#[test]
fn folds_over_pixels_are_counted() {
    let none = Machines {
        feature_budget_bytes: Some(0),
        ..Machines::default()
    };
    let with = |rest: &str| on(&format!("search: {{{rest}}}"), none).frozen_images;
    let without = with("max_concurrent: 1");
    assert_eq!(without, 4 * 15);
    // Two repeats of three folds: 2 × 2 × 10 images in each of 4 epochs, and 2 × 10 measured.
    let folds = with("validation: {kfold: 3, repeats: 2}");
    assert_eq!(folds, without + 4 * 40 + 20);
}
