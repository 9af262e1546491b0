//! What people see of rungs, before and while an experiment runs.

use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::plan::Spent;
use pomona_domain::spec::{ExperimentSpec, parse};
use pomona_domain::{Digest, ExperimentId, Timestamp};
use pomona_search::{Action, Cost, Costs, Score, Searcher, preview_with};
use std::collections::BTreeMap;

use super::reached;
use crate::printer::Style;
use crate::views::preview::{Outlook, view};

const PLAIN: Style = Style {
    color: false,
    width: 120,
};

fn asha() -> ExperimentSpec {
    let text = include_str!("../../../../../config/examples/asha-mixed-depths.yaml");
    parse(text, &[]).expect("the example")
}

fn costs() -> Costs {
    let cost = |frozen_blocks, epoch| Cost {
        frozen_blocks,
        epoch,
    };
    let depths = [
        ("all", 18, 0.1),
        ("_blocks.14", 16, 4.0),
        ("_blocks.10", 12, 10.0),
    ];
    let depths = depths.map(|(name, blocks, epoch)| (name.to_owned(), cost(blocks, epoch)));
    Costs(BTreeMap::from(depths))
}

#[test]
fn a_preview_says_where_trials_are_compared() {
    let spec = asha();
    let outlook = Outlook {
        spec: &spec,
        preview: preview_with(&spec, &costs()).expect("a preview"),
        server: None,
    };
    insta::assert_snapshot!(view(PLAIN, &outlook));
}

#[test]
fn a_preview_of_points_that_are_chosen_later() {
    let text = include_str!("../../../../../config/examples/tpe-heads.yaml");
    let spec = parse(text, &[]).expect("the example");
    let outlook = Outlook {
        spec: &spec,
        preview: preview_with(&spec, &Costs::default()).expect("a preview"),
        server: None,
    };
    insta::assert_snapshot!(view(PLAIN, &outlook));
}

#[test]
fn an_experiment_shows_what_has_come_to_each_rung() {
    let spec = asha();
    let mut searcher = Searcher::with_costs(&spec, &costs()).expect("a searcher");
    for trial in 1..=9 {
        let created = searcher.act();
        assert!(matches!(created.as_slice(), [Action::Create(_)]));
        searcher.hear(trial, 3, Score::of(0.5 + f64::from(trial) / 100.0));
    }
    let row = Experiment {
        id: ExperimentId(1),
        version: 1,
        spec,
        source: String::new(),
        dataset: Some(Digest([1; 32])),
        backbone: Some(Digest([2; 32])),
        state: ExperimentState::Active,
        searcher: serde_json::to_value(&searcher).expect("a snapshot"),
        created_trials: 9,
        best: None,
        plan: None,
        spent: Spent::default(),
        submitted_at: Timestamp(0),
        ended_at: None,
    };
    insta::assert_snapshot!(reached(PLAIN, &row));
}
