//! What an experiment would do, before it does it.

use pomona_domain::Fault;
use pomona_domain::spec::{ExperimentSpec, Runner, Strategy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

use crate::course::{Costs, Course};
use crate::{Point, Searcher};

/// What an experiment would do. `pomona experiment preview` shows it; nothing is submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// How points are chosen.
    pub strategy: Strategy,
    /// Trials.
    pub trials: u32,
    /// Different points among them.
    pub points_total: u32,
    /// Seeds per point.
    pub replicates: u32,
    /// Every trial, in the order it will be created.
    pub points: Vec<Point>,
    /// What varies, path by path.
    pub paths: Vec<PathValues>,
    /// Epochs of all trials together; 0 for a program of one's own.
    pub epochs: u64,
    /// Ranks of one trial.
    pub slots_per_trial: u32,
    /// Trials that may run at once.
    pub max_concurrent: u32,
    /// Points that are drawn before the first that is chosen (TPE); those after them are here as if
    /// nothing were ever measured.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub startup_points: u32,
    /// Where trials are compared on their way, phase by phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rungs: Vec<PhaseRungs>,
    /// Slots that are busy when as many trials run as may.
    pub slots: u64,
    /// Upper bound of the time on slots in milliseconds, when the file limits a trial's time.
    pub slot_ms_limit: Option<u64>,
}

/// Where the trials of one phase are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseRungs {
    /// Who is compared with each other.
    pub phase: String,
    /// Trials of it.
    pub trials: u32,
    /// After how many epochs.
    pub epochs: Vec<u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The values one path takes among the previewed points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathValues {
    /// The path.
    pub path: String,
    /// `values`, `range`, `uniform`, `log_uniform` or `int`.
    pub kind: String,
    /// Different values, in order of first use.
    pub values: Vec<Value>,
}

/// Draws every trial of an experiment without creating any, an epoch costing the same at every
/// frozen depth.
pub fn preview(spec: &ExperimentSpec) -> Result<Preview, Fault> {
    preview_with(spec, &Costs::default())
}

/// The same with what an epoch costs at each frozen depth.
pub fn preview_with(spec: &ExperimentSpec, costs: &Costs) -> Result<Preview, Fault> {
    // Each point is tried here.
    let mut searcher = Searcher::unchecked(spec, costs)?;
    let template = spec.template();
    let mut points = Vec::new();
    let mut epochs = 0u64;
    while let Some(point) = searcher.next() {
        match &spec.runner {
            Runner::Trainer => {
                let trial = template.trial_spec(&point.hparams, point.replicate)?;
                epochs += u64::from(trial.train.epochs);
            }
            // How long it trains only the program knows.
            Runner::Command(_) => {
                template.program_spec(&point.hparams, point.replicate)?;
            }
        }
        points.push(point);
    }
    let paths = spec
        .search
        .space
        .iter()
        .map(|(path, domain)| {
            let values = points.iter().filter_map(|point| point.hparams.0.get(path));
            let mut seen = BTreeSet::new();
            PathValues {
                path: path.clone(),
                kind: domain.kind().to_owned(),
                values: values
                    .filter(|value| seen.insert(value.to_string()))
                    .cloned()
                    .collect(),
            }
        })
        .collect();
    let rungs = phases(spec, costs, &points);
    let trials = u32::try_from(points.len()).unwrap_or(u32::MAX);
    let firsts = points.iter().filter(|point| point.replicate == 0).count();
    let slots_per_trial = spec.resources.slots_per_trial;
    let at_once = u64::from(trials.min(spec.search.max_concurrent));
    let slot_ms_limit = spec.time_limit_ms.map(|limit| {
        limit
            .saturating_mul(u64::from(trials))
            .saturating_mul(u64::from(slots_per_trial))
    });
    Ok(Preview {
        strategy: spec.search.strategy,
        trials,
        points_total: u32::try_from(firsts).unwrap_or(u32::MAX),
        replicates: spec.search.replicates,
        points,
        startup_points: spec.search.tpe.map_or(0, |tpe| tpe.startup),
        rungs,
        paths,
        epochs,
        slots_per_trial,
        max_concurrent: spec.search.max_concurrent,
        slots: at_once * u64::from(slots_per_trial),
        slot_ms_limit,
    })
}

/// Phases in the order in which they first come.
fn phases(spec: &ExperimentSpec, costs: &Costs, points: &[Point]) -> Vec<PhaseRungs> {
    let Some(course) = Course::new(spec, costs) else {
        return Vec::new();
    };
    let mut phases: Vec<PhaseRungs> = Vec::new();
    for point in points {
        let phase = course.phase(&point.hparams);
        match phases.iter_mut().find(|row| row.phase == phase) {
            Some(row) => row.trials += 1,
            None => phases.push(PhaseRungs {
                phase,
                trials: 1,
                epochs: course.rungs(&point.hparams),
            }),
        }
    }
    phases
}
