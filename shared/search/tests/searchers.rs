//! What searchers promise: the same points after every restart, never more than the budget, a grid
//! that is exactly the product, random points inside their sets.

use pomona_domain::Hparams;
use pomona_domain::space::{Domain, Space};
use pomona_domain::spec::{ExperimentSpec, Strategy as SearchStrategy, parse};
use pomona_search::{Point, Searcher, preview};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn base() -> ExperimentSpec {
    parse("{name: a, backbone: b, dataset: c}", &[]).expect("the smallest file")
}

fn with_search(yaml: &str) -> ExperimentSpec {
    let text = format!("name: a\nbackbone: b\ndataset: c\nsearch: {yaml}");
    parse(&text, &[]).unwrap_or_else(|faults| panic!("{yaml}: {faults:#?}"))
}

fn draw_all(searcher: &mut Searcher) -> Vec<Point> {
    std::iter::from_fn(|| searcher.next()).collect()
}

fn draws(spec: &ExperimentSpec) -> Vec<Point> {
    draw_all(&mut Searcher::new(spec).expect("a searcher"))
}

/// One text line per trial.
fn lines(points: &[Point]) -> String {
    let line = |point: &Point| format!("{} #{}\n", point.hparams.canonical(), point.replicate);
    points.iter().map(line).collect()
}

/// A set for each path, small enough that grids stay below the limit.
fn spaces() -> impl Strategy<Value = Space> {
    let rate = prop_oneof![
        prop::collection::btree_set(1u32..1_000, 1..5).prop_map(|set| {
            Domain::Values(
                set.into_iter()
                    .map(|n| (f64::from(n) / 1e4).into())
                    .collect(),
            )
        }),
        (1e-5..1e-3, 1e-2..1.0, 2u32..5).prop_map(|(low, high, count)| Domain::LogUniform {
            low,
            high,
            count: Some(count),
        }),
        (0.001..0.1, 0.2..1.0, 2u32..5).prop_map(|(low, high, count)| Domain::Uniform {
            low,
            high,
            count: Some(count),
        }),
        (0.001..0.1, 0.2..1.0, 2u32..5).prop_map(|(low, high, count)| Domain::Range {
            low,
            high,
            count
        }),
    ];
    let epochs = (1i64..4, 0i64..5, 1i64..3).prop_map(|(low, span, step)| Domain::Int {
        low,
        high: low + span,
        step,
    });
    let depth = Just(Domain::Values(vec![
        "all".into(),
        0.into(),
        "layer3".into(),
    ]));
    (
        prop::option::of(rate),
        prop::option::of(epochs),
        prop::option::of(depth),
    )
        .prop_map(|(rate, epochs, depth)| {
            let mut space = Space::new();
            let named = [
                ("train.learning_rate", rate),
                ("train.epochs", epochs),
                ("transfer.frozen_depth", depth),
            ];
            for (path, domain) in named {
                space.extend(domain.map(|domain| (path.to_owned(), domain)));
            }
            space
        })
}

fn specs() -> impl Strategy<Value = ExperimentSpec> {
    (spaces(), any::<bool>(), 1u32..4, 1u32..40, any::<u32>()).prop_map(
        |(space, random, replicates, max_trials, seed)| {
            let mut spec = base();
            spec.search.space = space;
            spec.search.replicates = replicates;
            spec.search.max_trials = max_trials;
            spec.search.strategy = if random {
                SearchStrategy::Random
            } else {
                SearchStrategy::Grid
            };
            spec.seed = u64::from(seed);
            spec
        },
    )
}

proptest! {
    #[test]
    fn a_restart_at_any_position_changes_nothing(spec in specs(), cut in 0usize..40) {
        let straight = draws(&spec);
        let mut first = Searcher::new(&spec).expect("a searcher");
        let mut points: Vec<Point> = std::iter::from_fn(|| first.next()).take(cut).collect();
        let snapshot = serde_json::to_value(&first).expect("a snapshot");
        let text = serde_json::to_string(&snapshot).expect("a text");
        let read = serde_json::from_str::<serde_json::Value>(&text).expect("a tree");
        let mut second: Searcher = serde_json::from_value(read).expect("a searcher");
        prop_assert_eq!(&second, &first);
        points.extend(draw_all(&mut second));
        prop_assert_eq!(points, straight);
    }

    #[test]
    fn never_more_than_the_budget(spec in specs()) {
        let mut searcher = Searcher::new(&spec).expect("a searcher");
        let total = searcher.total();
        let points = draw_all(&mut searcher);
        prop_assert!(points.len() <= spec.search.max_trials as usize);
        prop_assert_eq!(points.len(), total as usize);
        prop_assert_eq!(searcher.drawn(), total);
        prop_assert_eq!(searcher.next(), None);
    }

    #[test]
    fn a_grid_is_exactly_the_product(mut spec in specs()) {
        spec.search.strategy = SearchStrategy::Grid;
        spec.search.max_trials = 10_000;
        let points = draws(&spec);
        let product: u64 = spec.search.space.values().map(|d| d.size().expect("countable")).product();
        prop_assert_eq!(points.len() as u64, product * u64::from(spec.search.replicates));
        let different: BTreeSet<(String, u32)> = points
            .iter()
            .map(|point| (point.hparams.canonical(), point.replicate))
            .collect();
        prop_assert_eq!(different.len(), points.len());
        for point in &points {
            for (path, domain) in &spec.search.space {
                prop_assert!(domain.points().expect("countable").contains(&point.hparams.0[path]));
            }
        }
    }

    #[test]
    fn random_points_lie_in_their_sets(mut spec in specs()) {
        spec.search.strategy = SearchStrategy::Random;
        for point in draws(&spec) {
            prop_assert_eq!(
                point.hparams.0.keys().collect::<Vec<_>>(),
                spec.search.space.keys().collect::<Vec<_>>()
            );
            for (path, domain) in &spec.search.space {
                let value = &point.hparams.0[path];
                prop_assert!(domain.contains(value), "{path}: {value} is not in {domain:?}");
            }
        }
    }

    #[test]
    fn replicates_follow_their_point(spec in specs()) {
        let points = draws(&spec);
        for group in points.chunks(spec.search.replicates as usize) {
            for (replicate, point) in group.iter().enumerate() {
                prop_assert_eq!(point.replicate as usize, replicate);
                prop_assert_eq!(&point.hparams, &group[0].hparams);
            }
        }
    }
}

#[test]
fn a_grid_goes_through_its_paths_in_order_and_the_last_varies_fastest() {
    let spec = with_search(
        "{replicates: 2, space: {train.learning_rate: {log_uniform: [1.0e-4, 1.0e-2], count: 3}, \
         train.epochs: {int: [2, 6], step: 4}}}",
    );
    insta::assert_snapshot!(lines(&draws(&spec)), @r#"
    {"train.epochs":2,"train.learning_rate":0.0001} #0
    {"train.epochs":2,"train.learning_rate":0.0001} #1
    {"train.epochs":2,"train.learning_rate":0.001} #0
    {"train.epochs":2,"train.learning_rate":0.001} #1
    {"train.epochs":2,"train.learning_rate":0.01} #0
    {"train.epochs":2,"train.learning_rate":0.01} #1
    {"train.epochs":6,"train.learning_rate":0.0001} #0
    {"train.epochs":6,"train.learning_rate":0.0001} #1
    {"train.epochs":6,"train.learning_rate":0.001} #0
    {"train.epochs":6,"train.learning_rate":0.001} #1
    {"train.epochs":6,"train.learning_rate":0.01} #0
    {"train.epochs":6,"train.learning_rate":0.01} #1
    "#);
}

/// What a seed draws must never change: experiments are repeated by their seed.
#[test]
fn what_seed_seven_draws() {
    let mut spec = with_search(
        "{strategy: random, max_trials: 5, space: {train.learning_rate: {log_uniform: [1.0e-4, 0.1]}, \
         train.batch_size: {int: [16, 64], step: 16}, train.label_smoothing: {uniform: [0, 0.2]}, \
         transfer.frozen_depth: {values: [all, layer3, 0]}}}",
    );
    spec.seed = 7;
    insta::assert_snapshot!(lines(&draws(&spec)));
}

#[test]
fn another_seed_draws_other_points() {
    let mut spec = with_search(
        "{strategy: random, max_trials: 5, space: {train.learning_rate: {uniform: [0.1, 1]}}}",
    );
    let first = draws(&spec);
    spec.seed += 1;
    assert_ne!(draws(&spec), first);
}

#[test]
fn random_draws_fill_the_whole_set() {
    let spec = with_search(
        "{strategy: random, max_trials: 400, space: {train.epochs: {int: [1, 4]}, \
         train.label_smoothing: {uniform: [0, 0.8]}, train.learning_rate: {log_uniform: [1.0e-4, 1]}}}",
    );
    let points = draws(&spec);
    let number = |point: &Point, path: &str| point.hparams.0[path].as_f64().expect("a number");
    for epochs in 1..=4 {
        let seen = points
            .iter()
            .filter(|p| number(p, "train.epochs") == f64::from(epochs));
        assert!(
            (70..=130).contains(&seen.clone().count()),
            "{epochs}: {}",
            seen.count()
        );
    }
    for quarter in 0..4 {
        let linear = |p: &&Point| (number(p, "train.label_smoothing") / 0.2) as i32 == quarter;
        let decade =
            |p: &&Point| (number(p, "train.learning_rate").log10() + 4.0) as i32 == quarter;
        for count in [
            points.iter().filter(linear).count(),
            points.iter().filter(decade).count(),
        ] {
            assert!((70..=130).contains(&count), "{quarter}: {count}");
        }
    }
}

#[test]
fn without_a_space_there_is_one_trial_per_replicate() {
    let points = draws(&with_search("{replicates: 3}"));
    assert_eq!(points.len(), 3);
    assert!(
        points
            .iter()
            .all(|point| point.hparams == Hparams::default())
    );
}

#[test]
fn values_that_do_not_go_together_are_found_before_anything_runs() {
    let spec = with_search(
        "{space: {train.epochs: {values: [2, 10]}, train.lr_schedule.warmup_epochs: {values: [0, 5]}}}",
    );
    let fault = Searcher::new(&spec).expect_err("2 epochs with 5 of warm-up");
    insta::assert_snapshot!(
        format!("{}: {}", fault.code, fault.message),
        @r#"E0210: the point {"train.epochs":2,"train.lr_schedule.warmup_epochs":5.0} does not fit: train.lr_schedule.warmup_epochs: 5 epochs of warm-up do not fit into 2 of training"#
    );
    assert_eq!(preview(&spec).expect_err("the same"), fault);
}

#[test]
fn a_continuous_set_cannot_be_a_grid() {
    let mut spec = base();
    let domain = Domain::Uniform {
        low: 0.1,
        high: 0.2,
        count: None,
    };
    spec.search.space = Space::from([("train.learning_rate".to_owned(), domain)]);
    let fault = Searcher::new(&spec).expect_err("no count");
    assert_eq!(fault.code.as_str(), "E0207");
}

#[test]
fn the_preview_of_the_demo_grid() {
    let text = include_str!("../../../config/examples/demo-grid.yaml");
    let spec = parse(text, &[]).expect("the demo");
    insta::assert_json_snapshot!(preview(&spec).expect("a preview"));
}

#[test]
fn a_preview_counts_epochs_trial_by_trial() {
    let text = "{name: a, backbone: b, dataset: c, time_limit: 1h, resources: {slots_per_trial: 2}, \
                search: {max_concurrent: 3, replicates: 2, space: {train.epochs: {values: [1, 10]}}}}";
    let preview = preview(&parse(text, &[]).expect("a file")).expect("a preview");
    assert_eq!(preview.trials, 4);
    assert_eq!(preview.points_total, 2);
    assert_eq!(preview.epochs, 22);
    assert_eq!(preview.slots, 6);
    assert_eq!(preview.slot_ms_limit, Some(4 * 2 * 3_600_000));
}

#[test]
fn the_largest_grid_is_tried_in_full_and_one_more_is_refused() {
    let spec = with_search(
        "{space: {seed: {int: [1, 100]}, train.learning_rate: {log_uniform: [1.0e-5, 1], count: 100}}}",
    );
    assert_eq!(preview(&spec).expect("10,000 trials").trials, 10_000);
    let mut larger = spec;
    larger.search.replicates = 2;
    let fault = Searcher::new(&larger).expect_err("20,000 trials");
    assert_eq!(fault.code.as_str(), "E0207");
}
