//! The planner: for each frozen depth of a grid, whether its trials train side by side, each over
//! features that were computed once, or from pixels, and what all of it is expected to cost.
//!
//! It stands beside the preview and not in the scheduler because it says what an experiment would
//! do before there is one: coordinator and scheduler both reach this crate, and a plan needs no
//! cluster, only the two numbers of [`Machines`]. The scheduler asks it who may share a lease
//! ([`may_fuse`]), so that what is planned is what is done. It never changes what the file says.

use pomona_domain::Fault;
use pomona_domain::backbone::{Backbone, Block, frozen_blocks};
use pomona_domain::plan::{Choice, CutPlan, DepthCost, Images, Plan};
use pomona_domain::spec::{ExperimentSpec, FrozenDepth, Share, TrialSpec};
use pomona_domain::view::View;
use pomona_domain::words::bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::Point;

mod slots;
mod validation;

pub use validation::{Sizes, validation};

/// Bytes of a value of features (f32).
const VALUE_BYTES: u64 = 4;

/// How many trials of a process share a pass depends on which of them meet on a lease, which only
/// placement knows: the prediction is the most that it may cost.
const SHARED_PASSES: &str = " (at most: trials side by side with the same batches share each pass)";

/// What is known of the machines. What is not known is `None`, and the plan says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machines {
    /// Most slots of one kind on one worker.
    pub slots: Option<u32>,
    /// Bytes of features that a worker may keep.
    pub feature_budget_bytes: Option<u64>,
}

/// What an experiment stands on.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Its backbone.
    pub backbone: &'a Backbone,
    /// Its images.
    pub images: Images,
    /// Where it would run.
    pub machines: Machines,
}

/// Whether a file lets trials share a process: one rank each, and nothing said against it. They do
/// where all blocks are frozen.
pub fn may_fuse(spec: &ExperimentSpec) -> bool {
    spec.runner.is_trainer() && spec.share == Share::Auto && spec.resources.slots_per_trial == 1
}

/// Plans the trials that a file draws. A depth that the backbone does not have is left out: the
/// coordinator refuses it, and an old row may name it.
pub fn plan(spec: &ExperimentSpec, points: &[Point], ground: &Ground<'_>) -> Result<Plan, Fault> {
    let cuts = cuts(spec, points, ground.backbone)?;
    let kept = kept(spec, &cuts, ground);
    let chosen: Vec<CutPlan> = (cuts.values())
        .map(|cut| cut.planned(spec, &kept, ground))
        .collect();
    let sum = |part: fn(&CutPlan) -> u64| chosen.iter().map(part).fold(0, u64::saturating_add);
    let epochs = cuts.values().map(|cut| cut.epochs).sum::<u64>();
    let (parallel, parallel_reason) = slots::parallel(spec, &cuts, ground);
    let mut advice = slots::advice(spec, &cuts, ground);
    advice.extend(unknown_budget(&chosen, ground.machines));
    Ok(Plan {
        samples: epochs.saturating_mul(ground.images.train),
        multiply_adds: sum(|cut| cut.multiply_adds),
        multiply_adds_unshared: sum(|cut| cut.multiply_adds_unshared),
        frozen_images: sum(|cut| cut.frozen_images),
        frozen_images_unshared: sum(|cut| cut.frozen_images_unshared),
        feature_budget_bytes: ground.machines.feature_budget_bytes,
        parallel,
        parallel_reason,
        advice,
        depths: depths(&cuts, &chosen, ground),
        cuts: chosen,
    })
}

/// What an epoch costs at each depth: what trains, and the frozen blocks where they run every time.
fn depths(cuts: &Cuts, chosen: &[CutPlan], ground: &Ground<'_>) -> Vec<DepthCost> {
    let mut depths = Vec::new();
    for (cut, plan) in cuts.values().zip(chosen) {
        let images = ground.images.train.saturating_add(ground.images.val);
        let again = match plan.choice {
            Choice::Pixels => cut.below(images, ground),
            Choice::Fused | Choice::Features => 0,
        };
        depths.extend(cut.names.iter().map(|name| DepthCost {
            frozen_depth: name.clone(),
            frozen_blocks: plan.frozen_blocks,
            epoch: cut.above_once(ground).saturating_add(again),
        }));
    }
    depths
}

/// The trials of a frozen depth.
#[derive(Debug)]
struct Cut {
    name: String,
    /// Every way in which the file writes it.
    names: BTreeSet<String>,
    frozen: usize,
    trials: u32,
    /// Of all its trials.
    epochs: u64,
    /// What its trials see of an image, all together.
    views: BTreeSet<View>,
}

/// By number of frozen blocks.
type Cuts = BTreeMap<usize, Cut>;

fn cuts(spec: &ExperimentSpec, points: &[Point], backbone: &Backbone) -> Result<Cuts, Fault> {
    let mut cuts = Cuts::new();
    let template = spec.template();
    for point in points {
        let trial = template.trial_spec(&point.hparams, point.replicate)?;
        let names = backbone.blocks.iter().map(|block| block.name.as_str());
        let depth = &trial.transfer.frozen_depth;
        let Some(frozen) = frozen_blocks(names, depth) else {
            continue;
        };
        let cut = cuts.entry(frozen).or_insert_with(|| Cut::of(frozen, depth));
        cut.add(&trial);
    }
    Ok(cuts)
}

impl Cut {
    fn of(frozen: usize, depth: &FrozenDepth) -> Self {
        Self {
            name: written(depth),
            names: BTreeSet::new(),
            frozen,
            trials: 0,
            epochs: 0,
            views: BTreeSet::new(),
        }
    }

    fn add(&mut self, trial: &TrialSpec) {
        self.trials += 1;
        self.names.insert(written(&trial.transfer.frozen_depth));
        self.epochs += u64::from(trial.train.epochs);
        self.views.extend(View::all(&trial.train.augment));
    }

    fn is_head_only(&self, backbone: &Backbone) -> bool {
        self.frozen > 0 && self.frozen == backbone.blocks.len()
    }

    /// The blocks that get no gradient, and those that do.
    fn split<'a>(&self, backbone: &'a Backbone) -> (&'a [Block], &'a [Block]) {
        backbone.blocks.split_at(self.frozen)
    }

    /// Images of a pass over the frozen blocks that makes features.
    fn images_once(&self, images: Images) -> u64 {
        (images.train)
            .saturating_mul(self.views.len() as u64)
            .saturating_add(images.val)
    }

    /// Images that pass through the frozen blocks when that happens in every epoch.
    fn images_always(&self, images: Images) -> u64 {
        self.epochs
            .saturating_mul(images.train.saturating_add(images.val))
    }

    /// Images that a cross-validation takes through the frozen blocks when there are no features.
    fn images_of_folds(&self, spec: &ExperimentSpec, images: Images) -> u64 {
        let Some(folds) = spec.search.folds() else {
            return 0;
        };
        let repeats = u64::from(folds.repeats) * u64::from(self.trials);
        let measured = images.train.saturating_mul(repeats);
        let trained = self.epochs.saturating_mul(folds.images(images.train));
        trained.saturating_add(measured)
    }

    /// Multiply-adds of what trains: forward and twice that backward, and validation.
    fn above(&self, ground: &Ground<'_>) -> u64 {
        self.epochs.saturating_mul(self.above_once(ground))
    }

    /// The same of one epoch.
    fn above_once(&self, ground: &Ground<'_>) -> u64 {
        let images = ground.images;
        let passes = images.train.saturating_mul(3).saturating_add(images.val);
        let each = macs(self.split(ground.backbone).1, ground);
        each.saturating_mul(passes)
    }

    /// Multiply-adds of the frozen blocks, for so many images.
    fn below(&self, images: u64, ground: &Ground<'_>) -> u64 {
        macs(self.split(ground.backbone).0, ground).saturating_mul(images)
    }

    /// Multiply-adds that features save.
    fn saved(&self, ground: &Ground<'_>) -> u64 {
        let always = self.below(self.images_always(ground.images), ground);
        always.saturating_sub(self.below(self.images_once(ground.images), ground))
    }

    /// Bytes of its features.
    fn bytes(&self, ground: &Ground<'_>) -> u64 {
        bytes_at_cut(self.frozen, ground).saturating_mul(self.images_once(ground.images))
    }

    fn planned(&self, spec: &ExperimentSpec, kept: &Kept, ground: &Ground<'_>) -> CutPlan {
        let (choice, reason) = self.choice(spec, kept, ground);
        let always = match self.frozen {
            0 => 0,
            _ => self.images_always(ground.images),
        };
        let (once, feature_bytes) = match choice {
            Choice::Pixels => (
                always.saturating_add(self.images_of_folds(spec, ground.images)),
                0,
            ),
            Choice::Fused | Choice::Features => {
                (self.images_once(ground.images), self.bytes(ground))
            }
        };
        let above = self.above(ground);
        let with = |images| above.saturating_add(self.below(images, ground));
        let trained = self.split(ground.backbone).1;
        CutPlan {
            frozen_depth: self.name.clone(),
            frozen_blocks: u32::try_from(self.frozen).unwrap_or(u32::MAX),
            trials: self.trials,
            trained_parameters: trained.iter().map(|block| block.parameters).sum(),
            views: u32::try_from(self.views.len()).unwrap_or(u32::MAX),
            feature_bytes,
            choice,
            reason,
            multiply_adds: with(once),
            multiply_adds_unshared: with(always),
            frozen_images: once,
            frozen_images_unshared: always,
        }
    }

    fn choice(&self, spec: &ExperimentSpec, kept: &Kept, ground: &Ground<'_>) -> (Choice, String) {
        if self.frozen == 0 {
            let why = "no block is frozen, so there is nothing to share";
            return (Choice::Pixels, why.to_owned());
        }
        if spec.share == Share::Off {
            let why = "`share: off` makes the frozen blocks run in every epoch";
            return (Choice::Pixels, why.to_owned());
        }
        if let Some(budget) = kept.budget
            && !kept.cuts.contains(&self.frozen)
        {
            let mut why = self.no_room(budget, kept, ground);
            if self.is_head_only(ground.backbone) && may_fuse(spec) && self.trials > 1 {
                why.push_str(SHARED_PASSES);
            }
            return (Choice::Pixels, why);
        }
        let [once, always] = [
            self.images_once(ground.images),
            self.images_always(ground.images),
        ];
        let saves = match once.cmp(&always) {
            Ordering::Less => "",
            Ordering::Equal => "; in so few epochs that saves nothing",
            Ordering::Greater => "; so many views in so few epochs cost more than that saves",
        };
        let features = format!(
            "features that are computed once ({})",
            bytes(self.bytes(ground))
        );
        let blocks = ground.backbone.blocks.len();
        let (choice, why) = if !self.is_head_only(ground.backbone) {
            let frozen = self.frozen;
            let why = format!("{frozen} of {blocks} blocks are frozen, so each trial trains the");
            (Choice::Features, format!("{why} others by itself, over"))
        } else if !may_fuse(spec) {
            let ranks = spec.resources.slots_per_trial;
            let why = format!("all {blocks} blocks are frozen, but `resources.slots_per_trial:");
            let own = format!("{why} {ranks}` gives each trial processes of its own, over");
            (Choice::Features, own)
        } else if self.trials == 1 {
            let why = format!("all {blocks} blocks are frozen, so a head alone is trained, over");
            (Choice::Fused, why)
        } else {
            let why = format!("all {blocks} blocks are frozen, so heads train side by side in one");
            (Choice::Fused, format!("{why} process, over"))
        };
        (choice, format!("{why} {features}{saves}"))
    }

    fn no_room(&self, budget: u64, kept: &Kept, ground: &Ground<'_>) -> String {
        let wanted = bytes(self.bytes(ground));
        let every = "so the frozen blocks run in every epoch";
        if budget == 0 {
            return format!("the workers keep no features (`features.max_bytes: 0`), {every}");
        }
        let beside = match kept.names.as_slice() {
            [] => String::new(),
            names => format!(
                " beside those of `{}`, which save more for each byte",
                names.join("`, `")
            ),
        };
        let room = bytes(budget);
        format!(
            "its features of {wanted} do not fit into {room} (`features.max_bytes`){beside}, {every}"
        )
    }
}

/// The cuts whose features are kept.
#[derive(Debug)]
struct Kept {
    budget: Option<u64>,
    cuts: BTreeSet<usize>,
    names: Vec<String>,
}

/// Chooses the cuts to keep features of: those that save most multiply-adds for each byte come
/// first, and whatever still fits is taken (a knapsack filled by density). Without a budget all
/// are: a trainer that finds no room does without.
fn kept(spec: &ExperimentSpec, cuts: &Cuts, ground: &Ground<'_>) -> Kept {
    let budget = ground.machines.feature_budget_bytes;
    let is_wanted = |cut: &&Cut| cut.frozen > 0 && spec.share == Share::Auto;
    let mut wanted: Vec<&Cut> = cuts.values().filter(is_wanted).collect();
    wanted.sort_by(|a, b| {
        // Saved for each byte, as fractions: a/b > c/d is a·d > c·b.
        let one = u128::from(a.saved(ground)) * u128::from(b.bytes(ground));
        let other = u128::from(b.saved(ground)) * u128::from(a.bytes(ground));
        other.cmp(&one)
    });
    let mut room = budget.unwrap_or(u64::MAX);
    wanted.retain(|cut| {
        let bytes = cut.bytes(ground);
        let fits = bytes <= room && budget != Some(0);
        if fits && budget.is_some() {
            room -= bytes;
        }
        fits
    });
    Kept {
        budget,
        cuts: wanted.iter().map(|cut| cut.frozen).collect(),
        names: wanted.iter().map(|cut| cut.name.clone()).collect(),
    }
}

/// What nobody here can know.
fn unknown_budget(cuts: &[CutPlan], machines: Machines) -> Option<String> {
    let total: u64 = cuts.iter().map(|cut| cut.feature_bytes).sum();
    (total > 0 && machines.feature_budget_bytes.is_none()).then(|| {
        format!(
            "the features take {}; whether that fits under `features.max_bytes` only the workers \
             know: what does not fit runs in every epoch",
            bytes(total)
        )
    })
}

/// A depth as the file writes it.
pub(crate) fn written(depth: &FrozenDepth) -> String {
    match depth {
        FrozenDepth::Blocks(blocks) => blocks.to_string(),
        FrozenDepth::Named(name) => name.clone(),
    }
}

fn macs(blocks: &[Block], ground: &Ground<'_>) -> u64 {
    at_size(ground, blocks.iter().map(|block| block.macs).sum())
}

/// Bytes of one image's features at the data set's size; pooled when all blocks are frozen.
fn bytes_at_cut(frozen: usize, ground: &Ground<'_>) -> u64 {
    let blocks = &ground.backbone.blocks;
    let Some(block) = frozen.checked_sub(1).and_then(|index| blocks.get(index)) else {
        return 0;
    };
    let values = if frozen == blocks.len() {
        block.output_shape.first().copied().unwrap_or(0)
    } else {
        let values = block.output_shape.iter().product();
        let spatial = block.output_shape.iter().skip(1).any(|side| *side > 1);
        if spatial {
            at_size(ground, values)
        } else {
            values
        }
    };
    values.saturating_mul(VALUE_BYTES)
}

/// What grows with an image's area; blocks were measured at the backbone's size.
fn at_size(ground: &Ground<'_>, measured: u64) -> u64 {
    let here = u64::from(ground.images.side);
    let there = u64::from(ground.backbone.image_size.max(1));
    measured.saturating_mul(here * here) / (there * there)
}

#[cfg(test)]
mod tests;
