//! Features of frozen blocks.

use pomona_api::v1::features::FeatureCopy;
use pomona_domain::dataset::Split;
use pomona_domain::{Digest, Timestamp};
use std::collections::BTreeMap;

use crate::human::{ago, bytes, plural};
use crate::printer::Style;
use crate::table::{self, Grid, Tone, toned};

/// Digits of a digest that are shown.
const SHOWN: usize = 8;

/// What each worker keeps.
pub fn list(
    style: Style,
    now: Timestamp,
    copies: &[FeatureCopy],
    names: &BTreeMap<Digest, String>,
) -> String {
    let mut grid = Grid::new(
        style,
        &[
            "shard", "worker", "network", "cut", "data set", "part", ">images", ">size", "used",
        ],
    );
    for copy in copies {
        let key = &copy.shard.plan.key;
        grid.row(vec![
            copy.shard.digest.hex()[..SHOWN].into(),
            (&copy.worker_name).into(),
            (&key.arch).into(),
            (&key.block).into(),
            dataset(copy, names).into(),
            // Only training images have more than one view.
            (if key.mirrored {
                "mirrored".to_owned()
            } else {
                part(copy)
            })
            .into(),
            copy.shard.plan.rows.into(),
            bytes(copy.shard.bytes).into(),
            toned(ago(copy.shard.used_at, now), Tone::Dim),
        ]);
    }
    let total = copies.iter().map(|copy| copy.shard.bytes).sum();
    format!(
        "{}\n{} in {}",
        grid.render(),
        bytes(total),
        plural(copies.len() as u64, "shard")
    )
}

/// Everything about one shard.
pub fn card(
    style: Style,
    now: Timestamp,
    copies: &[FeatureCopy],
    names: &BTreeMap<Digest, String>,
) -> String {
    let Some(copy) = copies.first() else {
        return String::new();
    };
    let (plan, key) = (&copy.shard.plan, &copy.shard.plan.key);
    let shape: Vec<String> = plan.shape.iter().map(ToString::to_string).collect();
    let machine: Vec<String> = key
        .environment
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let places: Vec<String> = copies
        .iter()
        .map(|copy| {
            format!(
                "{}, used {}",
                copy.worker_name,
                ago(copy.shard.used_at, now)
            )
        })
        .collect();
    table::card(
        style,
        vec![
            ("shard", copy.shard.digest.into()),
            ("network", (&key.arch).into()),
            (
                "cut",
                format!(
                    "{} ({} frozen)",
                    key.block,
                    plural(u64::from(key.cut), "block")
                )
                .into(),
            ),
            ("frozen weights", key.weights.into()),
            ("data set", dataset(copy, names).into()),
            ("manifest", key.dataset.into()),
            ("part", part(copy).into()),
            (
                "rows",
                format!("{} of {} f32 values", plan.rows, shape.join("×")).into(),
            ),
            ("size", bytes(copy.shard.bytes).into()),
            ("computed by", machine.join(", ").into()),
            ("kept by", places.join("; ").into()),
        ],
    )
}

fn dataset(copy: &FeatureCopy, names: &BTreeMap<Digest, String>) -> String {
    let digest = copy.shard.plan.key.dataset;
    names
        .get(&digest)
        .cloned()
        .unwrap_or_else(|| digest.hex()[..SHOWN].to_owned())
}

/// Which images, and how.
fn part(copy: &FeatureCopy) -> String {
    let key = &copy.shard.plan.key;
    let part = match key.split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Test => "test",
    };
    let view = if key.mirrored { ", mirrored" } else { "" };
    format!("{part}{view}")
}
