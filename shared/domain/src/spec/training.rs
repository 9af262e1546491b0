//! The sections `transfer` and `train`: what one trial does.

use serde_json::Value;

use super::kinds::{self, Kinds};
use super::section::{Faults, Limits, Section, choices, describe, shorten};
use super::{
    Augment, AugmentOp, ClassWeights, FrozenDepth, Head, LrSchedule, Optimizer, Precision, Train,
    Transfer,
};
use crate::{Code, Fault};

const SHARE_BELOW_ONE: Limits = Limits::below(0.0, 1.0);
const DECAY: Limits = Limits::closed(0.0, 10.0);
/// Views of an image: features of each are computed and kept.
const MAX_VIEWS: u32 = 32;

/// Reads `transfer`.
pub(super) fn transfer(mut section: Section<'_>) -> Transfer {
    let frozen_depth = section
        .optional("frozen_depth")
        .and_then(|value| frozen_depth(&section, value))
        .unwrap_or_else(|| FrozenDepth::Named("all".to_owned()));
    let head = head(section.section("head"));
    neutral_kind(
        &mut section,
        "schedule",
        &["constant"],
        &["lp_ft", "gradual"],
    );
    neutral_kind(&mut section, "regularizer", &["none"], &["l2_sp", "lwf"]);
    if let Some(value) = section.optional("layer_decay")
        && section
            .as_number("layer_decay", value, Limits::above(0.0, 1.0))
            .is_some_and(|decay| decay != 1.0)
    {
        section.advise(
            Code::NotBuilt,
            "layer_decay",
            format_args!("a layer decay of {value} is not built yet"),
            "leave the key out, or write `layer_decay: 1.0`: all blocks learn at the same rate",
        );
    }
    section.finish(|_| None);
    Transfer { frozen_depth, head }
}

fn frozen_depth(section: &Section<'_>, value: &Value) -> Option<FrozenDepth> {
    const KEY: &str = "frozen_depth";
    match value {
        Value::Number(_) => section
            .as_whole(KEY, value, 0..=1_000)
            .and_then(|blocks| u32::try_from(blocks).ok())
            .map(FrozenDepth::Blocks),
        Value::String(text) if is_block_name(text) => Some(FrozenDepth::Named(text.clone())),
        Value::String(text) if text.parse::<u32>().is_ok() => {
            section.wrong(KEY, "a number of blocks", value);
            None
        }
        Value::String(text) => {
            section.advise(
                Code::OutOfRange,
                KEY,
                format_args!("`{}` cannot be the name of a block", shorten(text)),
                "write `all`, a number of blocks from the input, or the name of the last frozen \
                 block as `pomona backbone show` lists it",
            );
            None
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            section.complain(
                Code::WrongType,
                KEY,
                format_args!(
                    "expected `all`, a number of blocks or the name of a block, found {}",
                    describe(value)
                ),
            );
            None
        }
    }
}

/// Published block names: letters, digits, `_` and `.`, not a number.
fn is_block_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// A section of a feature that is not built: only its neutral value is accepted.
fn neutral_kind(
    section: &mut Section<'_>,
    key: &'static str,
    built: &[&'static str],
    planned: &[&'static str],
) {
    let mut inner = section.section(key);
    if !inner.is_written() {
        return;
    }
    let example = format!("kind: {}", built[0]);
    let kind = inner
        .required("kind", &example)
        .map(|value| inner.as_word("kind", value, built, planned));
    if kind.flatten().is_some() {
        inner.finish(|_| None);
    }
}

/// The kind of a mapping, and the faults of keys that belong to another kind.
fn kind_of(section: &mut Section<'_>, kinds: &Kinds, default: &'static str) -> &'static str {
    let names = kinds.names();
    if !section.is_written() {
        return default;
    }
    let example = format!("kind: {default}");
    section
        .required("kind", &example)
        .and_then(|value| section.as_word("kind", value, &names, &[]))
        .unwrap_or("")
}

fn finish_kind(section: Section<'_>, kinds: &Kinds, kind: &str) {
    if kind.is_empty() {
        // The kind itself is at fault: which keys belong here cannot be said.
        return;
    }
    let path = section.path_of("");
    section.finish(|key| {
        let owners = kinds.with_key(key);
        if owners.is_empty() {
            return None;
        }
        Some(
            Fault::new(
                Code::Contradiction,
                format!(
                    "{path}{key}: belongs to kind {}, and this is kind `{kind}`",
                    choices(&owners)
                ),
            )
            .hint("change the kind, or take the key out"),
        )
    });
}

fn head(mut section: Section<'_>) -> Head {
    let kind = kind_of(&mut section, &kinds::HEAD, "linear");
    let head = if kind == "mlp" {
        Head::Mlp {
            hidden: section.count("hidden", 256, 1..=16_384),
            dropout: section.number("dropout", 0.2, SHARE_BELOW_ONE),
        }
    } else {
        Head::Linear
    };
    finish_kind(section, &kinds::HEAD, kind);
    head
}

fn optimizer(mut section: Section<'_>) -> Optimizer {
    let kind = kind_of(&mut section, &kinds::OPTIMIZER, "adamw");
    let optimizer = if kind == "sgd" {
        Optimizer::Sgd {
            momentum: section.number("momentum", 0.9, SHARE_BELOW_ONE),
            weight_decay: section.number("weight_decay", 0.0, DECAY),
        }
    } else {
        Optimizer::Adamw {
            beta1: section.number("beta1", 0.9, SHARE_BELOW_ONE),
            beta2: section.number("beta2", 0.999, SHARE_BELOW_ONE),
            eps: section.number("eps", 1e-8, Limits::above(0.0, 1.0)),
            weight_decay: section.number("weight_decay", 0.01, DECAY),
        }
    };
    finish_kind(section, &kinds::OPTIMIZER, kind);
    optimizer
}

fn lr_schedule(mut section: Section<'_>, epochs: u32) -> LrSchedule {
    let kind = kind_of(&mut section, &kinds::LR_SCHEDULE, "cosine");
    // The section left out means the product's default, one epoch of warm-up, where it fits.
    let default = if section.is_written() { 0.0 } else { 1.0 };
    let warmup_epochs = section.number("warmup_epochs", default, Limits::closed(0.0, 10_000.0));
    if warmup_epochs > f64::from(epochs) {
        section.advise(
            Code::Contradiction,
            "warmup_epochs",
            format_args!("{warmup_epochs} epochs of warm-up do not fit into {epochs} of training"),
            format!("at most {epochs}, or raise `train.epochs`"),
        );
    }
    let schedule = match kind {
        "constant" => LrSchedule::Constant { warmup_epochs },
        "step" => LrSchedule::Step {
            warmup_epochs,
            every_epochs: section
                .required("every_epochs", "every_epochs: 5")
                .and_then(|value| section.as_whole("every_epochs", value, 1..=10_000))
                .and_then(|every| u32::try_from(every).ok())
                .unwrap_or(1),
            gamma: section.number("gamma", 0.1, Limits::above(0.0, 1.0)),
        },
        _ => LrSchedule::Cosine { warmup_epochs },
    };
    finish_kind(section, &kinds::LR_SCHEDULE, kind);
    schedule
}

fn augment(mut section: Section<'_>, faults: &Faults) -> Augment {
    let before = faults.borrow().len();
    let views = section.count("views", 1, 1..=MAX_VIEWS);
    let ops = augment_ops(&mut section);
    if faults.borrow().len() == before {
        views_fit_ops(&mut section, views, &ops);
    }
    section.finish(|_| None);
    Augment { views, ops }
}

fn augment_ops(section: &mut Section<'_>) -> Vec<AugmentOp> {
    let mut ops = Vec::new();
    match section.optional("ops") {
        None => {}
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let key = format!("ops.{index}");
                let known = ["horizontal_flip", "random_resized_crop"];
                let op = match section.as_word(&key, item, &known, &[]) {
                    Some("random_resized_crop") => AugmentOp::RandomResizedCrop,
                    Some(_) => AugmentOp::HorizontalFlip,
                    None => continue,
                };
                if ops.contains(&op) {
                    section.complain(Code::Contradiction, &key, "stands there twice");
                } else {
                    ops.push(op);
                }
            }
        }
        Some(other) => section.wrong("ops", "a list such as `[horizontal_flip]`", other),
    }
    ops
}

/// Views must differ, and operations be used.
fn views_fit_ops(section: &mut Section<'_>, views: u32, ops: &[AugmentOp]) {
    if views > 1 && ops.is_empty() {
        section.advise(
            Code::Contradiction,
            "views",
            format_args!("{views} views of an image need an operation that makes them differ"),
            "add `ops: [horizontal_flip]` for two views or `ops: [random_resized_crop]` for any \
             number, or write `views: 1`",
        );
    }
    if views > 2 && ops == [AugmentOp::HorizontalFlip] {
        section.advise(
            Code::Contradiction,
            "views",
            format_args!("mirroring alone makes two views of an image, not {views}"),
            "write `views: 2`, or add `random_resized_crop` to `ops`",
        );
    }
    if views == 1 && !ops.is_empty() {
        section.advise(
            Code::Contradiction,
            "ops",
            "with one view the image stays as it is, so no operation is ever used",
            "write `views: 2`, or take `ops` out",
        );
    }
}

/// Reads `train`.
pub(super) fn train(mut section: Section<'_>, faults: &Faults) -> Train {
    let epochs = section.count("epochs", 10, 1..=10_000);
    let batch_size = section.count("batch_size", 64, 1..=65_536);
    let optimizer = optimizer(section.section("optimizer"));
    let learning_rate = section.number("learning_rate", 1e-3, Limits::above(0.0, 100.0));
    let lr_schedule = lr_schedule(section.section("lr_schedule"), epochs);
    let augment = augment(section.section("augment"), faults);
    let precision = match section.word("precision", &["auto", "f32"], &["bf16"]) {
        Some("f32") => Precision::F32,
        Some(_) | None => Precision::Auto,
    };
    let class_weights = match section.word("class_weights", &["none", "balanced"], &[]) {
        Some("balanced") => ClassWeights::Balanced,
        Some(_) | None => ClassWeights::None,
    };
    let label_smoothing = section.number("label_smoothing", 0.0, SHARE_BELOW_ONE);
    section.finish(|_| None);
    Train {
        epochs,
        batch_size,
        optimizer,
        learning_rate,
        lr_schedule,
        augment,
        precision,
        class_weights,
        label_smoothing,
    }
}
