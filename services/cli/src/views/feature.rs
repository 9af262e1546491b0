//! Features of frozen blocks.

use pomona_api::shard::Key;
use pomona_api::v1::features::FeatureCopy;
use pomona_domain::dataset::Split;
use pomona_domain::view::View;
use pomona_domain::{Digest, Timestamp};
use std::collections::BTreeMap;

use crate::human::{ago, bytes, plural};
use crate::printer::Style;
use crate::table::{self, Grid, Tone, toned};

/// Digits of a digest that are shown.
const SHOWN: usize = 8;

/// Whether a shard is that, or of the features that are that: the beginning of a digest.
pub fn is_named(copy: &FeatureCopy, begin: &str) -> Option<Digest> {
    let names = [set(copy), copy.shard.digest];
    names.into_iter().find(|name| name.hex().starts_with(begin))
}

/// The name of the features that a shard has some rows of: the digest of its key without the rows.
fn set(copy: &FeatureCopy) -> Digest {
    let key = Key {
        from: 0,
        to: 0,
        ..copy.shard.plan.key.clone()
    };
    Digest::of(&serde_json::to_vec(&key).unwrap_or_default())
}

/// What each worker keeps, one row for all shards of the same features.
pub fn list(
    style: Style,
    now: Timestamp,
    copies: &[FeatureCopy],
    names: &BTreeMap<Digest, String>,
) -> String {
    let mut grid = Grid::new(
        style,
        &[
            "features", "worker", "network", "cut", "data set", "part", ">images", ">size", "used",
        ],
    );
    let mut sets: BTreeMap<(&str, Digest), Vec<&FeatureCopy>> = BTreeMap::new();
    let mut order = Vec::new();
    for copy in copies {
        let name = (copy.worker_name.as_str(), set(copy));
        let shards = sets.entry(name).or_default();
        if shards.is_empty() {
            order.push(name);
        }
        shards.push(copy);
    }
    for name in order {
        let shards = &sets[&name];
        let copy = shards[0];
        let key = &copy.shard.plan.key;
        let sum = |of: fn(&FeatureCopy) -> u64| shards.iter().map(|copy| of(copy)).sum::<u64>();
        let used = shards.iter().map(|copy| copy.shard.used_at).max();
        grid.row(vec![
            name.1.hex()[..SHOWN].into(),
            (&copy.worker_name).into(),
            (&key.arch).into(),
            (&key.block).into(),
            dataset(copy, names).into(),
            // Only training images have more than one view.
            view(copy).unwrap_or_else(|| part(copy).to_owned()).into(),
            sum(|copy| copy.shard.plan.rows).into(),
            bytes(sum(|copy| copy.shard.bytes)).into(),
            toned(ago(used.unwrap_or(now), now), Tone::Dim),
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

/// Everything about the shards of some features, on all workers.
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
    let shards: BTreeMap<Digest, &FeatureCopy> = copies
        .iter()
        .map(|copy| (copy.shard.digest, copy))
        .collect();
    let sum = |of: fn(&FeatureCopy) -> u64| shards.values().map(|copy| of(copy)).sum::<u64>();
    let mut workers: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for copy in copies {
        let used = workers.entry(&copy.worker_name).or_default();
        *used = copy.shard.used_at.max(*used);
    }
    let shape: Vec<String> = plan.shape.iter().map(ToString::to_string).collect();
    let machine: Vec<String> = key
        .environment
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let places: Vec<String> = workers
        .into_iter()
        .map(|(worker, used)| format!("{worker}, used {}", ago(used, now)))
        .collect();
    table::card(
        style,
        vec![
            ("features", set(copy).into()),
            (
                "shards",
                match shards.len() {
                    1 => copy.shard.digest.to_string(),
                    several => several.to_string(),
                }
                .into(),
            ),
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
            ("part", seen(copy).into()),
            (
                "rows",
                format!(
                    "{} of {} f32 values",
                    sum(|copy| copy.shard.plan.rows),
                    shape.join("×")
                )
                .into(),
            ),
            ("size", bytes(sum(|copy| copy.shard.bytes)).into()),
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

/// Which images.
fn part(copy: &FeatureCopy) -> &'static str {
    match copy.shard.plan.key.split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Test => "test",
    }
}

/// How they are seen, when not as they are.
fn view(copy: &FeatureCopy) -> Option<String> {
    match copy.shard.plan.key.view {
        View::Whole { mirrored } => mirrored.then(|| "mirrored".to_owned()),
        View::Crop { crop, .. } => Some(format!("crop {crop}")),
    }
}

/// Both in full.
fn seen(copy: &FeatureCopy) -> String {
    let mut words = vec![part(copy).to_owned()];
    words.extend(view(copy));
    if matches!(copy.shard.plan.key.view, View::Crop { flips: true, .. }) {
        words.push("half of them mirrored".to_owned());
    }
    words.join(", ")
}
