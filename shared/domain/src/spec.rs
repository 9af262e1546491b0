//! The experiment file: what a user writes, checked and typed.
//!
//! [`parse()`] turns YAML text into an [`ExperimentSpec`] or a list of faults that each name their
//! path; [`ExperimentSpec::trial_spec`] puts a point of the space into it. Keys whose feature is not
//! built are refused with `E0208`, never ignored.

mod apply;
mod check;
mod kinds;
pub mod parse;
mod paths;
mod promote;
mod reach;
mod resources;
mod retention;
mod runner;
mod search;
mod section;
mod strategy;
mod training;
mod when;
mod yaml;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::gate::{GateKind, Role};
use crate::metric::Direction;
use crate::space::{Conditions, Space};
use crate::worker::Selector;

pub use apply::Template;
pub use check::grid_size;
pub use parse::{MAX_EDITS, parse, source};
pub use runner::{Processes, Program, ProgramSpec, Runner, variables};
pub use search::{MAX_TRIALS, natural_direction};
pub use strategy::{Form, Halving, Strategy, Tpe, WarmPoint, WarmStart};
pub use yaml::MAX_FILE_BYTES;

/// One experiment, complete: every default is filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentSpec {
    /// A name for people: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// What a trial runs. A program of one's own has no backbone and no data set (both are empty),
    /// and what stands in `transfer` and `train` says nothing.
    #[serde(default, skip_serializing_if = "Runner::is_trainer")]
    pub runner: Runner,
    /// Hyperparameters of a program of one's own.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
    /// Name of an imported backbone.
    pub backbone: String,
    /// Name of a data set, `NAME` (newest) or `NAME@V`. Resolved to `NAME@V` at submission.
    pub dataset: String,
    /// What is frozen and what is put on top.
    pub transfer: Transfer,
    /// How it is trained.
    pub train: Train,
    /// Which points are tried.
    pub search: Search,
    /// Slots.
    pub resources: Resources,
    /// Project.
    pub project: String,
    /// Higher runs first.
    pub priority: i32,
    /// Whether trials may share work (`auto`) or not (`off`, the oracle).
    pub share: Share,
    /// Time limit of one trial in milliseconds.
    pub time_limit_ms: Option<u64>,
    /// Crashes that are retried.
    pub max_restarts: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Where the best checkpoint goes.
    pub promote: Option<Promote>,
    /// Which checkpoints stay when the experiment has ended.
    #[serde(default, skip_serializing_if = "Retention::is_default")]
    pub retention: Retention,
}

/// Which checkpoints stay when an experiment has ended. While it lives, each trial keeps its newest
/// and its best one. What is pinned, what a version was made of and what is being published stays
/// in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Trials that keep checkpoints, the best ones first; `None`: all.
    pub best: Option<u32>,
    /// Whether they keep their newest one beside their best one.
    pub last: bool,
}

impl Default for Retention {
    /// The five best trials keep both.
    fn default() -> Self {
        Self {
            best: Some(5),
            last: true,
        }
    }
}

impl Retention {
    /// Whether it is what a file without it means.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is frozen and what is put on top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// How many blocks from the input get no gradient.
    pub frozen_depth: FrozenDepth,
    /// The new task layer.
    pub head: Head,
}

/// How many blocks from the input get no gradient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FrozenDepth {
    /// This many blocks (0 trains all).
    Blocks(u32),
    /// `all` (head only), or the name of the last frozen block or stage.
    Named(String),
}

/// The new task layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Head {
    /// One linear layer.
    Linear,
    /// One hidden layer with ReLU and dropout.
    Mlp {
        /// Width.
        hidden: u32,
        /// Share of hidden units dropped in training.
        dropout: f64,
    },
}

/// How a trial is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Passes over the training split.
    pub epochs: u32,
    /// Global batch over all ranks.
    pub batch_size: u32,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// How it moves.
    pub lr_schedule: LrSchedule,
    /// Views of the training images.
    pub augment: Augment,
    /// Numbers.
    pub precision: Precision,
    /// Weights of classes in the loss.
    pub class_weights: ClassWeights,
    /// Share of probability given to all classes evenly.
    pub label_smoothing: f64,
}

/// The optimiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum.
    Sgd {
        /// Momentum.
        momentum: f64,
        /// L2 penalty.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay.
    Adamw {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root.
        eps: f64,
        /// Decoupled decay.
        weight_decay: f64,
    },
}

/// How the learning rate moves. Warm-up is linear from 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LrSchedule {
    /// Stays.
    Constant {
        /// Epochs of warm-up.
        warmup_epochs: f64,
    },
    /// Times `gamma` every `every_epochs`.
    Step {
        /// Epochs of warm-up.
        warmup_epochs: f64,
        /// Epochs between drops.
        every_epochs: u32,
        /// Factor of a drop.
        gamma: f64,
    },
    /// Half a cosine down to 0 at the end.
    Cosine {
        /// Epochs of warm-up.
        warmup_epochs: f64,
    },
}

/// Views of the training images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augment {
    /// How many views an image has (1: the image itself).
    pub views: u32,
    /// What a view may do. The first view is the image itself whatever stands here; which view of
    /// an image an epoch sees is drawn with the seed.
    pub ops: Vec<AugmentOp>,
}

/// What a view may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AugmentOp {
    /// Mirror left and right: the second view when it stands alone, and half of the crops.
    HorizontalFlip,
    /// Show a random part of the image in its full size: another one in each view but the first.
    RandomResizedCrop,
}

/// Numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats throughout: the exact path, and what `auto` means today.
    F32,
    /// Resolved by the trainer.
    Auto,
}

/// Weights of classes in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All one.
    None,
    /// Inverse frequency in the training split, mean one.
    Balanced,
}

/// Which points are tried, and what is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// How points are chosen.
    pub strategy: Strategy,
    /// The objective; never a `test/` metric.
    pub metric: String,
    /// Which way is better.
    pub direction: Direction,
    /// At most this many trials (the grid's size when absent from the file).
    pub max_trials: u32,
    /// At most this many live at once.
    pub max_concurrent: u32,
    /// Seeds per point.
    pub replicates: u32,
    /// How trials are compared. What the file leaves open is settled at submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// The space; empty for one trial as the file stands.
    pub space: Space,
    /// Paths of the space that have a value only beside some values of others.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub when: Conditions,
    /// How trials are stopped at rungs (`strategy: asha`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asha: Option<Halving>,
    /// How trials are stopped at rungs of several brackets (`strategy: hyperband`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperband: Option<Halving>,
    /// How points follow from those before (`strategy: tpe`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpe: Option<Tpe>,
    /// Points of earlier experiments that are tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_start: Option<WarmStart>,
}

impl Search {
    /// The metric that trials are compared by: the file's own, or its estimate by cross-validation.
    pub fn objective(&self) -> String {
        match self.folds() {
            Some(_) => self.metric.replacen(HELD_OUT, CROSS, 1),
            None => self.metric.clone(),
        }
    }

    /// The loss that settles ties.
    pub fn tie_breaker(&self) -> &'static str {
        match self.folds() {
            Some(_) => "cv/loss",
            None => "val/loss",
        }
    }

    /// How trials are stopped at rungs, if they are.
    pub fn halving(&self) -> Option<Halving> {
        match self.strategy {
            Strategy::Asha => Some(self.asha.unwrap_or_default()),
            Strategy::Hyperband => Some(self.hyperband.unwrap_or_default()),
            Strategy::Grid | Strategy::Random | Strategy::Tpe => None,
        }
    }

    /// The cross-validation, if trials are compared by one.
    pub fn folds(&self) -> Option<KFold> {
        match self.validation {
            Some(Validation::KFold(folds)) => Some(folds),
            Some(Validation::Holdout) | None => None,
        }
    }
}

/// What metrics on the validation split begin with.
const HELD_OUT: &str = "val/";
/// What their estimates by cross-validation begin with.
const CROSS: &str = "cv/";

/// How trials are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// On the validation split.
    Holdout,
    /// By cross-validation of the training split.
    #[serde(untagged)]
    KFold(KFold),
}

/// Repeated k-fold cross-validation of the training split: each repeat cuts it anew into folds of
/// whole groups, with classes spread evenly, and trains a head for each fold on all the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KFold {
    /// Folds.
    pub kfold: u32,
    /// Times that the split is cut into folds.
    pub repeats: u32,
}

impl KFold {
    /// What small data sets get.
    pub const DEFAULT: Self = Self {
        kfold: 5,
        repeats: 3,
    };
    /// Data sets of fewer images get it, where heads are all that is trained.
    pub const BELOW_IMAGES: u64 = 2_000;

    /// Images that heads are trained on in an epoch of all folds, of a split of so many.
    pub fn images(self, split: u64) -> u64 {
        let others = u64::from(self.kfold.saturating_sub(1));
        split.saturating_mul(others * u64::from(self.repeats))
    }
}

impl std::fmt::Display for KFold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {} folds", self.repeats, self.kfold)
    }
}

/// Slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Ranks of one trial, each on one slot.
    pub slots_per_trial: u32,
    /// Labels that the worker must have.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
}

/// Whether trials may share work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// When it is safe.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Where the best checkpoint goes when the experiment ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promote {
    /// Registry name.
    pub model: String,
    /// Alias to move.
    pub alias: String,
    /// Conditions.
    pub gates: Vec<Gate>,
}

/// A condition of promotion, measured on the exported files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Gate {
    /// People must say yes.
    Approvals {
        /// Role → different people.
        approvals: BTreeMap<Role, u32>,
    },
    /// No worse than the champion beyond a margin, with confidence.
    NoWorseThan {
        /// Always the version that the alias points to.
        no_worse_than: String,
        /// One of [`COMPARED_METRICS`].
        metric: String,
        /// How much worse is no matter, in the metric's unit.
        margin: f64,
        /// One-sided.
        confidence: f64,
    },
    /// Better than the champion, with confidence.
    BetterThan {
        /// Always the version that the alias points to.
        better_than: String,
        /// One of [`COMPARED_METRICS`].
        metric: String,
        /// One-sided.
        confidence: f64,
    },
    /// A metric of every class.
    ClassFloor {
        /// One of [`CLASS_METRICS`].
        metric: String,
        /// Lowest value of any class that passes.
        every_class_at_least: f64,
    },
    /// Bounds of a metric.
    Threshold {
        /// The metric (`test/…` or `val/…`).
        metric: String,
        /// Lowest value that passes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_least: Option<f64>,
        /// Highest value that passes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_most: Option<f64>,
    },
}

impl Gate {
    /// What it asks for.
    pub fn kind(&self) -> GateKind {
        match self {
            Self::Approvals { .. } => GateKind::Approvals,
            Self::NoWorseThan { .. } => GateKind::NoWorseThan,
            Self::BetterThan { .. } => GateKind::BetterThan,
            Self::ClassFloor { .. } => GateKind::ClassFloor,
            Self::Threshold { .. } => GateKind::Threshold,
        }
    }

    /// The metric, if it has one.
    pub fn metric(&self) -> Option<&str> {
        match self {
            Self::Approvals { .. } => None,
            Self::NoWorseThan { metric, .. }
            | Self::BetterThan { metric, .. }
            | Self::ClassFloor { metric, .. }
            | Self::Threshold { metric, .. } => Some(metric),
        }
    }

    /// Whether what it says depends on the labels of the test split: then it is a use of that.
    pub fn uses_test_labels(&self) -> bool {
        self.metric().is_some_and(|metric| {
            metric.starts_with("test/") && metric != FORGETTING && !is_time(metric)
        })
    }
}

/// How far the answers of the source head on the tuned trunk are from the source's own: nats.
pub const FORGETTING: &str = "test/forgetting";

/// Whether a metric is a time in milliseconds.
pub fn is_time(metric: &str) -> bool {
    metric.ends_with("_ms")
}

/// What one trial trains: the file with a point put in, without what only the search needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialSpec {
    /// What is frozen and what is put on top.
    pub transfer: Transfer,
    /// How it is trained.
    pub train: Train,
    /// The objective.
    pub metric: String,
    /// Which way is better.
    pub direction: Direction,
    /// The cross-validation that gives the objective, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<KFold>,
    /// Seed of everything random, together with the replicate.
    pub seed: u64,
    /// Replicate, from 0.
    pub replicate: u32,
    /// Whether it may read features that were computed once.
    #[serde(default)]
    pub share: Share,
}

/// Metrics a trainer reports each epoch.
pub const METRICS: &[&str] = &[
    "train/loss",
    "val/loss",
    "val/accuracy",
    "val/macro_f1",
    "val/ece",
];

/// Metrics of a trial's last epoch where trials are compared by cross-validation; `cv/accuracy_se` is
/// the standard error of the accuracy.
pub const CROSS_METRICS: &[&str] = &[
    "cv/loss",
    "cv/accuracy",
    "cv/accuracy_se",
    "cv/macro_f1",
    "cv/ece",
];

/// Metrics a gate may name: those of the exported files on the test split (with the ends of the
/// 95 % Wilson interval of the accuracy), what was forgotten of the source task in nats, the time of a
/// prediction of one picture, and those of the checkpoint on the validation split.
pub const GATE_METRICS: &[&str] = &[
    "test/accuracy",
    "test/accuracy_low",
    "test/accuracy_high",
    "test/macro_f1",
    "test/loss",
    "test/ece",
    FORGETTING,
    "test/latency_p50_ms",
    "test/latency_p95_ms",
    "val/accuracy",
    "val/macro_f1",
    "val/loss",
    "val/ece",
];

/// Metrics of each class that a gate may set a floor for.
pub const CLASS_METRICS: &[&str] = &["test/recall", "test/precision", "test/f1"];

/// Metrics that two versions are compared by, on the same samples.
pub const COMPARED_METRICS: &[&str] = &["test/accuracy", "test/macro_f1", "test/loss", "test/ece"];
