//! Which trials may share a lease: one process trains them over the same features of a backbone
//! that is wholly frozen.
//!
//! Pure. It must never ask where a trial is, how far it came or what it measured: who may share may
//! always share, so a lease stays right (S5) whatever becomes of its members.

use crate::Cluster;
use pomona_domain::Hparams;
use pomona_domain::backbone::{Backbone, frozen_blocks};
use pomona_domain::experiment::Experiment;
use pomona_domain::spec::{FrozenDepth, Precision};
use pomona_domain::trial::Trial;
use pomona_domain::view::View;
use pomona_search::planner::may_fuse;
use std::collections::BTreeMap;

/// Paths of a point that decide about sharing; all others the trainer sorts out.
const PATHS: [&str; 3] = ["transfer.frozen_depth", "train.augment.", "train.precision"];

/// What must be equal for two trials of one experiment to share a lease. They may differ in
/// everything else: head, optimiser, learning rate, batch, epochs, replicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    /// The last view of an image that it sees, which tells all of them.
    last_view: View,
    /// How features are computed.
    precision: Precision,
    /// What the machine was on which it first started, which a resume must match; empty before.
    environment: &'a BTreeMap<String, String>,
}

/// A trial's key; `None` when it needs a lease for itself.
pub(crate) fn key<'a>(cluster: &Cluster, trial: &'a Trial) -> Option<Key<'a>> {
    let owner = cluster.experiment(trial.experiment)?;
    if !may_fuse(&owner.spec) {
        return None;
    }
    let backbone = cluster.backbone(&owner.spec.backbone)?;
    let (depth, last_view, precision) = settings(owner, trial)?;
    is_head_only(backbone, &depth).then_some(Key {
        last_view,
        precision,
        environment: &trial.environment,
    })
}

/// What the point of a trial says about depth, views and precision. Putting a point into the file
/// costs much more than the rest of a plan, so it is done only when the point names one of them.
fn settings(owner: &Experiment, trial: &Trial) -> Option<(FrozenDepth, View, Precision)> {
    let file = &owner.spec;
    if !names_one(&trial.hparams) {
        let depth = file.transfer.frozen_depth.clone();
        let train = &file.train;
        return Some((depth, View::last(&train.augment), train.precision));
    }
    let point = file.trial_spec(&trial.hparams, trial.replicate).ok()?;
    let train = point.train;
    Some((
        point.transfer.frozen_depth,
        View::last(&train.augment),
        train.precision,
    ))
}

fn names_one(point: &Hparams) -> bool {
    let decides = |path: &String| PATHS.iter().any(|start| path.starts_with(start));
    point.0.keys().any(decides)
}

fn is_head_only(backbone: &Backbone, depth: &FrozenDepth) -> bool {
    let names = backbone.blocks.iter().map(|block| block.name.as_str());
    let all = names.len();
    all > 0 && frozen_blocks(names, depth) == Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{House, grid};

    /// The last view that the trials of a grid of two see, when they may share.
    fn keys(mut house: House, rest: &str) -> Vec<Option<View>> {
        let id = house.submits(grid(2, rest));
        let trials = house.cluster.trials_of(id);
        trials
            .map(|trial| key(&house.cluster, trial).map(|key| key.last_view))
            .collect()
    }

    #[test]
    fn head_only_trials_of_one_rank_share_unless_the_file_says_not_to() {
        for (rest, expect) in [
            ("", Some(View::AS_IS)),
            ("transfer: {frozen_depth: all}", Some(View::AS_IS)),
            ("transfer: {frozen_depth: 3}", Some(View::AS_IS)),
            ("transfer: {frozen_depth: layer1}", Some(View::AS_IS)),
            ("transfer: {frozen_depth: layer1.0}", None),
            ("transfer: {frozen_depth: 2}", None),
            ("transfer: {frozen_depth: 0}", None),
            ("transfer: {frozen_depth: layer9}", None),
            ("share: off", None),
            ("resources: {slots_per_trial: 2}", None),
            (
                "train: {augment: {views: 2, ops: [horizontal_flip]}}",
                Some(View::Whole { mirrored: true }),
            ),
            (
                "train: {augment: {views: 10, ops: [random_resized_crop]}}",
                Some(View::Crop {
                    crop: 9,
                    flips: false,
                }),
            ),
        ] {
            assert_eq!(keys(House::sharing(), rest), [expect; 2], "{rest}");
        }
    }

    #[test]
    fn a_backbone_that_nobody_knows_or_without_blocks_is_not_shared() {
        assert_eq!(keys(House::new(), ""), [None; 2]);
        let mut house = House::sharing();
        let mut row = crate::testing::backbone();
        row.blocks.clear();
        let change = pomona_domain::Change::Backbone(Box::new(row));
        house.cluster.apply(house.now, &change);
        assert_eq!(keys(house, ""), [None; 2]);
    }

    #[test]
    fn a_point_may_say_otherwise_than_the_file() {
        let mut house = House::sharing();
        let file = "search: {space: {transfer.frozen_depth: {values: [all, layer1.0, 3]}}}";
        let id = house.submits(crate::testing::spec(file));
        let keys: Vec<_> = (house.cluster.trials_of(id))
            .map(|trial| {
                let depth = trial.hparams.0["transfer.frozen_depth"].to_string();
                (depth, key(&house.cluster, trial).is_some())
            })
            .collect();
        let expect = [("\"all\"", true), ("\"layer1.0\"", false), ("3", true)];
        assert_eq!(
            keys,
            expect.map(|(depth, shares)| (depth.to_owned(), shares))
        );
        // Trials that see other views read other features.
        let file = "train: {augment: {views: 2, ops: [random_resized_crop]}}\n\
                    search: {space: {train.augment.views: {values: [2, 10]}}}";
        let crops = house.submits(crate::testing::spec(file));
        let views: Vec<_> = (house.cluster.trials_of(crops))
            .map(|trial| key(&house.cluster, trial).map(|key| key.last_view.number()))
            .collect();
        assert_eq!(views, [Some(1), Some(9)]);
        // A point that does not fit the file trains nowhere.
        let mut row = house.trial(id, 1);
        let path = "train.augment.views".to_owned();
        row.hparams.0.insert(path, 2.into());
        assert_eq!(key(&house.cluster, &row), None);
    }
}
