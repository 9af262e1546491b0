//! What an epoch costs at each frozen depth, and from that the epochs at which a trial is compared.

use pomona_domain::Hparams;
use pomona_domain::plan::Plan;
use pomona_domain::space::Domain;
use pomona_domain::spec::ExperimentSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::planner::written;

const DEPTH: &str = "transfer.frozen_depth";
const EPOCHS: &str = "train.epochs";
/// What moves a trial from one phase to the next: trials that differ here are not compared.
const SCHEDULE: &str = "transfer.schedule.";

/// Frozen depth as the file writes it → what an epoch costs there. A depth that is not in it is a
/// phase of its own, at the cost of 1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Costs(pub BTreeMap<String, Cost>);

/// What an epoch costs at a frozen depth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Blocks that are frozen: depths that freeze the same are the same phase, however written.
    pub frozen_blocks: u32,
    /// In any unit, the same for all; above 0.
    pub epoch: f64,
}

impl Costs {
    /// The multiply-adds that a plan predicts.
    pub fn of(plan: Option<&Plan>) -> Self {
        let depths = plan.into_iter().flat_map(|plan| &plan.depths);
        let cost = |blocks, epoch: u64| Cost {
            frozen_blocks: blocks,
            epoch: epoch.max(1) as f64,
        };
        Self(
            depths
                .map(|row| (row.frozen_depth.clone(), cost(row.frozen_blocks, row.epoch)))
                .collect(),
        )
    }
}

/// The way of every trial of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Course {
    costs: Costs,
    /// The file's own, where a point says nothing else.
    depth: String,
    epochs: u32,
    /// Costs at which trials are compared, low to high.
    levels: Vec<f64>,
}

impl Course {
    /// `None` when trials are not compared on their way.
    pub(crate) fn new(spec: &ExperimentSpec, costs: &Costs) -> Option<Self> {
        let halving = spec.search.halving()?;
        let epochs = spec.train.epochs;
        let searched = spec.search.space.get(EPOCHS).and_then(Domain::points);
        let longest = (searched.iter().flatten())
            .filter_map(Value::as_u64)
            .max()
            .map_or(epochs, |longest| u32::try_from(longest).unwrap_or(u32::MAX));
        let dearest = costs.0.values().map(|cost| cost.epoch).fold(0.0, f64::max);
        let dearest = if dearest > 0.0 { dearest } else { 1.0 };
        let most = f64::from(longest) * dearest;
        let mut levels = Vec::new();
        let mut level = f64::from(halving.min_epochs) * dearest;
        while level < most {
            levels.push(level);
            level *= f64::from(halving.eta);
        }
        Some(Self {
            costs: costs.clone(),
            depth: written(&spec.transfer.frozen_depth),
            epochs,
            levels,
        })
    }

    fn depth(&self, point: &Hparams) -> String {
        match point.0.get(DEPTH) {
            Some(Value::String(name)) => name.clone(),
            Some(other) => other.to_string(),
            None => self.depth.clone(),
        }
    }

    fn epochs(&self, point: &Hparams) -> u32 {
        own_epochs(point).unwrap_or(self.epochs)
    }

    /// With whom a point may be compared: `frozen depth all, 10 epochs`.
    pub(crate) fn phase(&self, point: &Hparams) -> String {
        let depth = self.depth(point);
        let depth = match self.costs.0.get(&depth) {
            Some(cost) => {
                let same = self.costs.0.iter();
                let mut same = same.filter(|(_, other)| other.frozen_blocks == cost.frozen_blocks);
                same.next().map_or(depth, |(name, _)| name.clone())
            }
            None => depth,
        };
        let mut phase = format!("frozen depth `{depth}`, {} epochs", self.epochs(point));
        for (path, value) in point
            .0
            .iter()
            .filter(|(path, _)| path.starts_with(SCHEDULE))
        {
            // Writing into a text cannot fail.
            let _ = write!(phase, ", `{path}` {value}");
        }
        phase
    }

    /// The epochs after which a point is compared; its last is none of them.
    pub(crate) fn rungs(&self, point: &Hparams) -> Vec<u32> {
        let cost = self.costs.0.get(&self.depth(point));
        let epoch = cost.map_or(1.0, |cost| cost.epoch);
        let last = self.epochs(point);
        let mut epochs: Vec<u32> = (self.levels.iter())
            .map(|level| (level / epoch - 1e-9).ceil().max(1.0))
            .filter(|epochs| *epochs < f64::from(last))
            .map(|epochs| epochs as u32)
            .collect();
        epochs.dedup();
        epochs
    }
}

fn own_epochs(point: &Hparams) -> Option<u32> {
    let own = point.0.get(EPOCHS).and_then(Value::as_u64)?;
    Some(u32::try_from(own).unwrap_or(u32::MAX))
}

/// Epochs of a point that trains to its end.
pub fn epochs(spec: &ExperimentSpec, point: &Hparams) -> u32 {
    own_epochs(point).unwrap_or(spec.train.epochs)
}

/// The epochs at which a point of an experiment may be compared with others; none when trials run to
/// their end. Cheap: whoever hears observations asks this before it reads a searcher.
pub fn rungs(spec: &ExperimentSpec, plan: Option<&Plan>, point: &Hparams) -> Vec<u32> {
    let course = Course::new(spec, &Costs::of(plan));
    course.map_or_else(Vec::new, |course| course.rungs(point))
}
