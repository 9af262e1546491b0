//! What a submitted file means here: its data set and backbone are looked up, every frozen depth it
//! names is checked against the backbone's blocks, and the data set's images against what its
//! architecture needs. All faults are told at once. What it would cost the planner works out.

use pomona_api::v1::experiments::{
    ExperimentPreview, MAX_PREVIEW_POINTS, PreviewPoint, SubmitExperiment,
};
use pomona_domain::backbone::{self, Backbone, check_image};
use pomona_domain::dataset::Dataset;
use pomona_domain::plan::{Images, Plan};
use pomona_domain::spec::{ExperimentSpec, FrozenDepth, Validation};
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Code, Fault, name, spec};
use pomona_scheduler::{Cluster, largest_gang};
use pomona_search::planner::{self, Ground, Machines, Sizes};
use pomona_search::{preview as points_of, warm};
use pomona_store::{PageRequest, Store, TrialOrder};

use crate::desired::FEATURE_BUDGET;
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
    /// What our trainer would train on; a program of one's own has nothing that is known here.
    pub base: Option<Base>,
}

/// What our trainer trains on.
#[derive(Debug)]
pub struct Base {
    /// The data set.
    pub dataset: Dataset,
    /// The backbone.
    pub backbone: Backbone,
}

/// Parses and resolves a submission.
pub async fn experiment(store: &Store, body: &SubmitExperiment) -> Result<Resolved, Refusal> {
    let mut spec = spec::parse::parse(&body.file, &body.set).map_err(Refusal::many)?;
    let source = spec::parse::source(&body.file, &body.set).map_err(Refusal::many)?;
    if !spec.runner.is_trainer() {
        let base = None;
        return Ok(Resolved { spec, source, base });
    }
    let dataset = dataset(store, &spec.dataset).await?;
    let backbone = backbone(store, &spec.backbone).await?;
    let mut faults = warm(store, &mut spec).await?;
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
        faults.extend(check_folds(&spec, dataset, backbone));
    }
    match (dataset, backbone) {
        (Ok(dataset), Ok(backbone)) if faults.is_empty() => {
            spec.dataset = format!("{}@{}", dataset.name, dataset.number);
            let base = Some(Base { dataset, backbone });
            Ok(Resolved { spec, source, base })
        }
        (dataset, backbone) => {
            let missing = [backbone.err(), dataset.err()];
            faults.splice(0..0, missing.into_iter().flatten());
            Err(Refusal::many(faults))
        }
    }
}

/// Looks up the best points of the experiments that a file starts from: what they are now stays with
/// the experiment.
async fn warm(store: &Store, spec: &mut ExperimentSpec) -> Result<Vec<Fault>, Refusal> {
    let mut faults = Vec::new();
    let Some(warm) = &mut spec.search.warm_start else {
        return Ok(faults);
    };
    for name in &warm.experiments {
        let Some(row) = store.experiment_find(name).await? else {
            let text = format!("search.warm_start.experiments: there is no experiment `{name}`");
            let hint = "`pomona experiment list` shows them";
            faults.push(Fault::new(Code::BadWarmStart, text).hint(hint));
            continue;
        };
        let order = TrialOrder::Leaderboard(row.spec.search.direction);
        let page = PageRequest::first(warm.points);
        let best = store.trial_list(row.id, order, &page).await?.items;
        let is_good = |trial: &Trial| trial.best.is_some() && trial.state == TrialState::Completed;
        let points = best.into_iter().filter(is_good).map(|trial| trial.hparams);
        warm.found.extend(warm::found(name, points));
    }
    Ok(faults)
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

/// Why the file's cross-validation is none: it trains heads, and each fold needs an image.
fn check_folds(spec: &ExperimentSpec, dataset: &Dataset, backbone: &Backbone) -> Option<Fault> {
    let folds = spec.search.folds()?;
    let is_whole =
        |depth: &FrozenDepth| frozen_blocks(backbone, depth) == Ok(backbone.blocks.len() as u32);
    if let Some((path, _)) = (depths(spec).into_iter()).find(|(_, depth)| !is_whole(depth)) {
        let message =
            format!("search.validation: folds train heads alone, but `{path}` trains blocks");
        let hint = "freeze `all` blocks, or write `validation: holdout`";
        return Some(Fault::new(Code::Contradiction, message).hint(hint));
    }
    let images: u32 = dataset.summary.classes.values().map(|split| split[0]).sum();
    (images < folds.kfold).then(|| {
        let message = format!(
            "search.validation.kfold: {} folds are more than the {images} training images",
            folds.kfold
        );
        Fault::new(Code::Contradiction, message).hint("use fewer folds, or add images")
    })
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

/// What a resolved file would do, on machines of which this much is known.
pub fn preview(resolved: &mut Resolved, machines: Machines) -> Result<ExperimentPreview, Fault> {
    let plan = resolved.settle(machines)?;
    let spec = &resolved.spec;
    let drawn = points_of(spec)?;
    let points = drawn.points.into_iter().take(MAX_PREVIEW_POINTS);
    Ok(ExperimentPreview {
        name: spec.name.clone(),
        backbone: spec.backbone.clone(),
        dataset: spec.dataset.clone(),
        trials: drawn.trials,
        max_concurrent: drawn.max_concurrent,
        slots_per_trial: drawn.slots_per_trial,
        epochs: drawn.epochs,
        validation: spec.search.validation,
        points: points
            .map(|point| PreviewPoint {
                hparams: point.hparams,
                replicate: point.replicate,
            })
            .collect(),
        plan,
        warnings: Vec::new(),
    })
}

/// What a cluster tells a plan: trials may go to any worker, so the smallest budget counts.
pub fn machines(cluster: &Cluster) -> Machines {
    let slots = u32::try_from(largest_gang(cluster)).ok();
    let alive = cluster.workers().filter(|row| cluster.takes_work(row));
    let budgets = alive.filter_map(|row| row.labels.get(FEATURE_BUDGET)?.parse().ok());
    Machines {
        slots: slots.filter(|slots| *slots > 0),
        feature_budget_bytes: budgets.min(),
    }
}

impl Resolved {
    /// Settles what the file leaves open, and says what it is expected to cost and why so; of a
    /// program of one's own nothing can be said.
    pub fn settle(&mut self, machines: Machines) -> Result<Option<Plan>, Fault> {
        let points = points_of(&self.spec)?.points;
        let Some(base) = &self.base else {
            return Ok(None);
        };
        let mut plan = planner::plan(&self.spec, &points, &base.ground(machines))?;
        if self.spec.search.validation.is_none() {
            // A cross-validation measures a trial at its end only: there is nothing at a rung.
            let (validation, told) = match self.spec.search.halving() {
                Some(_) => (Validation::Holdout, None),
                None => planner::validation(&plan, base.sizes()),
            };
            self.spec.search.validation = Some(validation);
            plan.advice.extend(told);
        }
        if self.spec.search.halving().is_some() {
            let told =
                "costs are the most there may be: trials that are behind at a rung end there";
            plan.advice.push(told.to_owned());
        }
        plan.advice.extend(warm::points(&self.spec).1);
        Ok(Some(plan))
    }
}

impl Base {
    fn images(&self, part: usize) -> u64 {
        let counts = self.dataset.summary.classes.values();
        counts.map(|split| u64::from(split[part])).sum()
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            images: (0..3).map(|part| self.images(part)).sum(),
            train: self.images(0),
            classes: self.dataset.summary.classes.len() as u64,
        }
    }

    fn ground(&self, machines: Machines) -> Ground<'_> {
        Ground {
            backbone: &self.backbone,
            images: Images {
                train: self.images(0),
                val: self.images(1),
                side: self.dataset.options.image_size,
            },
            machines,
        }
    }
}

#[cfg(test)]
mod tests;
