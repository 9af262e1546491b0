//! What a submitted file means here: its data set and backbone are looked up, every frozen depth it
//! names is checked against the backbone's blocks, and the data set's images against what its
//! architecture needs. All faults are told at once.

use pomona_api::v1::experiments::{
    ExperimentPreview, MAX_PREVIEW_POINTS, PreviewCut, PreviewPoint, SubmitExperiment,
};
use pomona_domain::backbone::{self, Backbone, Block, check_image};
use pomona_domain::dataset::Dataset;
use pomona_domain::spec::{ExperimentSpec, FrozenDepth, Share, TrialSpec};
use pomona_domain::{Code, Fault, name, spec};
use pomona_search::preview as points_of;
use pomona_store::{PageRequest, Store};
use std::collections::BTreeMap;

use crate::http::Refusal;

/// Names that a hint lists.
const MAX_LISTED: u32 = 20;
/// The path of the frozen depth in the file.
const FROZEN_DEPTH: &str = "transfer.frozen_depth";

/// A checked file with what it refers to.
#[derive(Debug)]
pub struct Resolved {
    /// The checked file; its data set is `NAME@V`.
    pub spec: ExperimentSpec,
    /// The file as it is kept.
    pub source: String,
    /// The data set.
    pub dataset: Dataset,
    /// The backbone.
    pub backbone: Backbone,
}

/// Parses and resolves a submission.
pub async fn experiment(store: &Store, body: &SubmitExperiment) -> Result<Resolved, Refusal> {
    let mut spec = spec::parse::parse(&body.file, &body.set).map_err(Refusal::many)?;
    let source = spec::parse::source(&body.file, &body.set).map_err(Refusal::many)?;
    let dataset = dataset(store, &spec.dataset).await?;
    let backbone = backbone(store, &spec.backbone).await?;
    let mut faults = Vec::new();
    if let Ok(backbone) = &backbone {
        faults.extend(depths(&spec).into_iter().filter_map(|(path, depth)| {
            frozen_blocks(backbone, &depth)
                .err()
                .map(|fault| at(&path, fault))
        }));
    }
    if let (Ok(dataset), Ok(backbone)) = (&dataset, &backbone) {
        let side = dataset.options.image_size;
        faults.extend(check_image(&backbone.arch, side).err());
    }
    match (dataset, backbone) {
        (Ok(dataset), Ok(backbone)) if faults.is_empty() => {
            spec.dataset = format!("{}@{}", dataset.name, dataset.number);
            Ok(Resolved {
                spec,
                source,
                dataset,
                backbone,
            })
        }
        (dataset, backbone) => {
            let missing = [backbone.err(), dataset.err()];
            faults.splice(0..0, missing.into_iter().flatten());
            Err(Refusal::many(faults))
        }
    }
}

fn at(path: &str, mut fault: Fault) -> Fault {
    fault.message = format!("{path}: {}", fault.message);
    fault
}

async fn dataset(store: &Store, text: &str) -> Result<Result<Dataset, Fault>, Refusal> {
    let (name, number) = name::dataset_reference("dataset", text)?;
    if let Some(row) = store.dataset_get(&name, number).await? {
        return Ok(Ok(row));
    }
    let page = store.dataset_list(&PageRequest::first(MAX_LISTED)).await?;
    let names = page
        .items
        .iter()
        .map(|row| format!("{}@{}", row.name, row.number));
    Ok(Err(missing(
        "dataset",
        "data set",
        text,
        &names.collect::<Vec<_>>(),
    )))
}

async fn backbone(store: &Store, name: &str) -> Result<Result<Backbone, Fault>, Refusal> {
    if let Some(row) = store.backbone_get(name).await? {
        return Ok(Ok(row));
    }
    let page = store.backbone_list(&PageRequest::first(MAX_LISTED)).await?;
    let names = page.items.into_iter().map(|row| row.name);
    Ok(Err(missing(
        "backbone",
        "backbone",
        name,
        &names.collect::<Vec<_>>(),
    )))
}

fn missing(path: &str, what: &str, name: &str, there: &[String]) -> Fault {
    let hint = if there.is_empty() {
        format!("there is none yet; add one with `pomona {path} add`")
    } else {
        format!("there is `{}`", there.join("`, `"))
    };
    Fault::new(
        Code::NotFound,
        format!("{path}: there is no {what} `{name}`"),
    )
    .hint(hint)
}

/// Every frozen depth that trials may have, with the place that says so.
fn depths(spec: &ExperimentSpec) -> Vec<(String, FrozenDepth)> {
    let place = format!("search.space.{FROZEN_DEPTH}");
    match spec
        .search
        .space
        .get(FROZEN_DEPTH)
        .map(|set| (set, set.points()))
    {
        None => vec![(FROZEN_DEPTH.to_owned(), spec.transfer.frozen_depth.clone())],
        // A continuous set of depths is refused when the file is parsed.
        Some((_, None)) => Vec::new(),
        Some((_, Some(values))) => values
            .into_iter()
            .filter_map(|value| serde_json::from_value(value).ok())
            .map(|depth| (place.clone(), depth))
            .collect(),
    }
}

/// How many blocks a depth freezes; `E0509` when the backbone has no such block.
pub fn frozen_blocks(backbone: &Backbone, depth: &FrozenDepth) -> Result<u32, Fault> {
    let names = || backbone.blocks.iter().map(|block| block.name.as_str());
    if let Some(frozen) = backbone::frozen_blocks(names(), depth) {
        return Ok(u32::try_from(frozen).unwrap_or(u32::MAX));
    }
    let count = backbone.blocks.len();
    match depth {
        FrozenDepth::Blocks(blocks) => Err(Fault::new(
            Code::UnknownBlock,
            format!(
                "backbone `{}` has {count} blocks, not {blocks}",
                backbone.name
            ),
        )
        .hint("`all` freezes all of them")),
        FrozenDepth::Named(name) => Err(unknown_block(backbone, name)),
    }
}

fn unknown_block(backbone: &Backbone, name: &str) -> Fault {
    let fault = Fault::new(
        Code::UnknownBlock,
        format!("backbone `{}` has no block `{name}`", backbone.name),
    );
    let names = backbone.blocks.iter().map(|block| block.name.as_str());
    let near = backbone::nearest_block(names, name);
    match near {
        Some(block) => fault.hint(format!("did you mean `{block}`?")),
        None => fault.hint(format!(
            "`pomona backbone show {}` lists its blocks",
            backbone.name
        )),
    }
}

/// What a resolved file would do.
pub fn preview(resolved: &Resolved) -> Result<ExperimentPreview, Fault> {
    let spec = &resolved.spec;
    let drawn = points_of(spec)?;
    let images = Images::of(resolved);
    let mut samples = 0;
    let mut work = Work::default();
    let mut cuts: BTreeMap<u32, PreviewCut> = BTreeMap::new();
    for point in &drawn.points {
        let trial = spec.trial_spec(&point.hparams, point.replicate)?;
        samples += u64::from(trial.train.epochs) * images.train;
        let shown = cut(resolved, &trial, images)?;
        work.add(resolved, &trial, &shown, images);
        let entry = cuts.entry(shown.frozen_blocks).or_insert(PreviewCut {
            trials: 0,
            feature_bytes: 0,
            ..shown.clone()
        });
        entry.trials += 1;
        entry.feature_bytes = entry.feature_bytes.max(shown.feature_bytes);
    }
    let points = drawn.points.into_iter().take(MAX_PREVIEW_POINTS);
    Ok(ExperimentPreview {
        name: spec.name.clone(),
        backbone: spec.backbone.clone(),
        dataset: spec.dataset.clone(),
        trials: drawn.trials,
        max_concurrent: drawn.max_concurrent,
        slots_per_trial: drawn.slots_per_trial,
        epochs: drawn.epochs,
        samples,
        multiply_adds: work.shared(),
        multiply_adds_unshared: work.unshared,
        points: points
            .map(|point| PreviewPoint {
                hparams: point.hparams,
                replicate: point.replicate,
            })
            .collect(),
        cuts: cuts.into_values().collect(),
        warnings: Vec::new(),
    })
}

/// Images of a data set by part.
#[derive(Clone, Copy)]
struct Images {
    train: u64,
    val: u64,
}

impl Images {
    fn of(resolved: &Resolved) -> Self {
        let images = |part: usize| -> u64 {
            let counts = resolved.dataset.summary.classes.values();
            counts.map(|split| u64::from(split[part])).sum()
        };
        Self {
            train: images(0),
            val: images(1),
        }
    }

    /// Images that a pass over the frozen blocks sees.
    fn once(self, trial: &TrialSpec) -> u64 {
        let views = u64::from(trial.train.augment.views.max(1));
        self.train * views + self.val
    }
}

/// What a trial's frozen depth means.
fn cut(resolved: &Resolved, trial: &TrialSpec, images: Images) -> Result<PreviewCut, Fault> {
    let depth = &trial.transfer.frozen_depth;
    let frozen = frozen_blocks(&resolved.backbone, depth)?;
    let blocks = &resolved.backbone.blocks;
    let split = frozen as usize;
    let feature_bytes = match trial.share {
        Share::Auto => bytes_at_cut(resolved, split).saturating_mul(images.once(trial)),
        Share::Off => 0,
    };
    Ok(PreviewCut {
        frozen_depth: match depth {
            FrozenDepth::Blocks(blocks) => blocks.to_string(),
            FrozenDepth::Named(name) => name.clone(),
        },
        frozen_blocks: frozen,
        trials: 1,
        trained_parameters: blocks
            .iter()
            .skip(split)
            .map(|block| block.parameters)
            .sum(),
        feature_bytes,
    })
}

/// Bytes of one image's features in f32 at the data set's size; pooled when all blocks are frozen.
fn bytes_at_cut(resolved: &Resolved, split: usize) -> u64 {
    let blocks = &resolved.backbone.blocks;
    let Some(block) = split.checked_sub(1).and_then(|index| blocks.get(index)) else {
        return 0;
    };
    let values = if split == blocks.len() {
        block.output_shape.first().copied().unwrap_or(0)
    } else {
        let values = block.output_shape.iter().product();
        let spatial = block.output_shape.iter().skip(1).any(|side| *side > 1);
        if spatial {
            at_size(resolved, values)
        } else {
            values
        }
    };
    values.saturating_mul(4)
}

/// What grows with an image's area; blocks were measured at the backbone's size.
fn at_size(resolved: &Resolved, measured: u64) -> u64 {
    let here = u64::from(resolved.dataset.options.image_size);
    let there = u64::from(resolved.backbone.image_size.max(1));
    measured.saturating_mul(here * here) / (there * there)
}

/// Multiply-adds of an experiment.
#[derive(Default)]
struct Work {
    unshared: u64,
    /// What trains above a cut, and frozen blocks that are not shared.
    each_epoch: u64,
    /// The frozen blocks up to each cut, run once.
    once: BTreeMap<u32, u64>,
}

impl Work {
    fn add(&mut self, resolved: &Resolved, trial: &TrialSpec, cut: &PreviewCut, images: Images) {
        let split = cut.frozen_blocks as usize;
        let blocks = &resolved.backbone.blocks;
        let macs =
            |blocks: &[Block]| at_size(resolved, blocks.iter().map(|block| block.macs).sum());
        let (frozen, live) = blocks.split_at(split.min(blocks.len()));
        let (frozen, live) = (macs(frozen), macs(live));
        let epochs = u64::from(trial.train.epochs);
        let all = |macs: u64, images: u64| epochs.saturating_mul(macs).saturating_mul(images);
        let above = all(live, 3 * images.train + images.val);
        let below = all(frozen, images.train + images.val);
        self.unshared = self.unshared.saturating_add(above).saturating_add(below);
        self.each_epoch = self.each_epoch.saturating_add(above);
        match trial.share {
            Share::Auto => {
                let once = self.once.entry(cut.frozen_blocks).or_default();
                *once = (*once).max(frozen.saturating_mul(images.once(trial)));
            }
            Share::Off => self.each_epoch = self.each_epoch.saturating_add(below),
        }
    }

    fn shared(&self) -> u64 {
        let once = self.once.values().copied();
        once.fold(self.each_epoch, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests;
