//! Searchers that hear how trials do: the same decisions after every restart, never more than the
//! budget, nobody left behind, and what it is all for: less cost than a grid, better points than
//! chance. The harness tells recorded curves to a searcher, as a benchmark would, without a cluster.

mod played;

use played::{Played, State};
use pomona_domain::Hparams;
use pomona_domain::metric::Direction;
use pomona_domain::spec::{ExperimentSpec, Form, parse};
use pomona_search::{Action, Cost, Costs, Point, Score, Searcher};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn with_search(epochs: u32, yaml: &str) -> ExperimentSpec {
    let text =
        format!("name: a\nbackbone: b\ndataset: c\ntrain: {{epochs: {epochs}}}\nsearch: {yaml}");
    parse(&text, &[]).unwrap_or_else(|faults| panic!("{yaml}: {faults:#?}"))
}

fn number(point: &Hparams, path: &str) -> f64 {
    point
        .0
        .get(path)
        .and_then(serde_json::Value::as_f64)
        .unwrap_or_default()
}

/// A curve that rises to what the learning rate allows, with a little noise of its own.
fn rising(point: &Point, epoch: u32) -> f64 {
    let rate = number(&point.hparams, "train.learning_rate");
    let top = 0.9 - 0.1 * (rate.log10() + 2.0).powi(2);
    let noise = f64::from((point.hparams.canonical().len() as u32 + epoch * 7) % 5) / 1000.0;
    let seed = f64::from(point.replicate) / 500.0;
    top * (1.0 - (-f64::from(epoch) / 3.0).exp()) + noise + seed
}

fn strategies() -> impl Strategy<Value = String> {
    let head = prop_oneof![
        (2u32..5, 1u32..3, any::<bool>()).prop_map(|(eta, least, promotes)| {
            let form = if promotes { "promote" } else { "stop" };
            format!("strategy: asha, asha: {{eta: {eta}, min_epochs: {least}, form: {form}}}")
        }),
        (2u32..5).prop_map(|eta| format!("strategy: hyperband, hyperband: {{eta: {eta}}}")),
        (1u32..6).prop_map(|n| format!("strategy: tpe, tpe: {{startup: {n}, candidates: 8}}")),
    ];
    let space = prop_oneof![
        Just("{train.learning_rate: {log_uniform: [1.0e-4, 1.0]}}"),
        Just(
            "{train.learning_rate: {log_uniform: [1.0e-4, 1.0], count: 8}, \
              transfer.frozen_depth: {values: [all, layer3, 0]}}"
        ),
        Just(
            "{train.learning_rate: {values: [0.001, 0.01, 0.1]}, \
              transfer.head.kind: {values: [linear, mlp]}, \
              transfer.head.hidden: {values: [16, 64], when: {transfer.head.kind: mlp}}, \
              transfer.head.dropout: {uniform: [0, 0.5], count: 2, \
                                      when: {transfer.head.hidden: 64}}}"
        ),
    ];
    (head, space, 1u32..30, 1u32..4).prop_map(|(head, space, most, replicates)| {
        let most = most * replicates;
        format!("{{{head}, max_trials: {most}, replicates: {replicates}, space: {space}}}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_restart_at_any_position_changes_nothing(
        search in strategies(), epochs in 1u32..12, slots in 1usize..6, seed in 0u64..1000,
    ) {
        let mut spec = with_search(epochs, &search);
        spec.seed = seed;
        let costs = Costs::default();
        let straight = Played::of(&spec, &costs, slots, 0, &rising);
        let again = Played::of(&spec, &costs, slots, 1, &rising);
        prop_assert_eq!(straight.log, again.log);
    }

    #[test]
    fn nobody_is_left_behind_and_the_budget_holds(
        search in strategies(), epochs in 1u32..12, slots in 1usize..6, seed in 0u64..1000,
    ) {
        let mut spec = with_search(epochs, &search);
        spec.seed = seed;
        let played = Played::of(&spec, &Costs::default(), slots, 0, &rising);
        prop_assert!(played.runs.iter().all(|run| run.state == State::Ended), "{}", played.log);
        prop_assert!(played.runs.len() <= spec.search.max_trials as usize);
        let whole = played.runs.iter().filter(|run| run.epoch == epochs).count();
        prop_assert!(whole > 0, "nobody trained to the end:\n{}", played.log);
        // A point is tried once, by each of its seeds.
        let points: BTreeSet<(String, u32)> = (played.runs.iter())
            .map(|run| (run.point.hparams.canonical(), run.point.replicate))
            .collect();
        prop_assert_eq!(points.len(), played.runs.len());
        for run in &played.runs {
            prop_assert!(spec.trial_spec(&run.point.hparams, 0).is_ok());
            for (path, when) in &spec.search.when {
                let has = run.point.hparams.0.contains_key(path);
                prop_assert_eq!(has, when.holds(&run.point.hparams.0), "{}", path);
            }
        }
        // Seeds are promoted together. (Where they are stopped, one may have ended long before.)
        if spec.search.halving().is_some_and(|halving| halving.form == Form::Promote) {
            for point in played.runs.chunks(spec.search.replicates as usize) {
                let same = point.iter().all(|run| run.epoch == point[0].epoch);
                prop_assert!(same, "{}", played.log);
            }
        }
    }
}

const LADDER: &str = "{strategy: asha, asha: {eta: 2}, space: {train.learning_rate: \
                      {values: [0.0001, 0.001, 0.01, 0.1]}}}";

#[test]
fn what_a_stop_says() {
    let spec = with_search(5, LADDER);
    let played = Played::of(&spec, &Costs::default(), 2, 0, &rising);
    insta::assert_snapshot!(played.log);
}

#[test]
fn what_a_promotion_says() {
    let search = LADDER.replace("eta: 2", "eta: 2, form: promote");
    let spec = with_search(5, &search);
    let played = Played::of(&spec, &Costs::default(), 2, 0, &rising);
    insta::assert_snapshot!(played.log);
}

/// The stop of a trial is a function of what stands at its rung up to its own entry.
#[test]
fn who_trains_past_the_next_rung_before_it_stops_is_compared_there_too() {
    let spec = with_search(
        4,
        "{strategy: asha, asha: {eta: 2, form: promote}, max_trials: 2, \
          space: {train.learning_rate: {values: [0.1, 0.01]}}}",
    );
    let mut searcher = Searcher::new(&spec).unwrap();
    for _ in 0..2 {
        assert!(matches!(searcher.act()[..], [Action::Create(_)]));
    }
    assert!(matches!(
        searcher.hear(1, 1, Score::of(0.9))[..],
        [Action::Pause { trial: 1, .. }]
    ));
    // It does not hear that it should stop.
    searcher.hear(1, 2, Score::of(0.9));
    searcher.hear(2, 1, Score::of(0.1));
    assert!(matches!(
        searcher.act()[..],
        [Action::Resume { trial: 1, .. }]
    ));
    assert!(!searcher.is_held(1), "it goes on, past both rungs");
    let reached: Vec<usize> = (searcher.standings().iter())
        .map(|rung| rung.entries.len())
        .collect();
    assert_eq!(reached, [2, 1]);
}

#[test]
fn stops_are_worked_out_again_from_what_stands_at_the_rungs() {
    let spec = with_search(
        9,
        "{strategy: asha, max_trials: 60, space: {train.learning_rate: {log_uniform: [1.0e-4, 1]}}}",
    );
    let played = Played::of(&spec, &Costs::default(), 7, 0, &rising);
    let mut stopped = BTreeSet::new();
    for rung in played.searcher.standings() {
        for (at, (trial, score)) in rung.entries.iter().enumerate() {
            let seen = &rung.entries[..=at];
            let better = seen
                .iter()
                .filter(|(_, other)| other.value > score.value)
                .count();
            if better >= (seen.len() / 3).max(1) {
                stopped.insert((*trial, rung.epoch));
            }
        }
    }
    let short: BTreeSet<(u32, u32)> = (played.runs.iter().enumerate())
        .filter(|(_, run)| run.epoch < 9)
        .map(|(at, run)| (at as u32 + 1, run.epoch))
        .collect();
    assert_eq!(stopped, short);
    assert!(short.len() > 20, "{} of 60 stopped", short.len());
}

/// Heads converge at once and stay low, whole networks begin low and end high: an epoch of theirs
/// costs ten times as much. One ladder for all would stop every whole network at its first rung.
fn mixed() -> (ExperimentSpec, Costs) {
    let spec = with_search(
        27,
        "{strategy: asha, space: {transfer.frozen_depth: {values: [all, layer3, 0]}, \
         train.learning_rate: {log_uniform: [1.0e-4, 1.0e-1], count: 12}}}",
    );
    let cost = |frozen_blocks, epoch| Cost {
        frozen_blocks,
        epoch,
    };
    let costs = BTreeMap::from([
        ("all".to_owned(), cost(10, 1.0)),
        ("layer3".to_owned(), cost(8, 4.0)),
        ("0".to_owned(), cost(0, 10.0)),
    ]);
    (spec, Costs(costs))
}

fn by_depth(point: &Point, epoch: u32) -> f64 {
    let rate = number(&point.hparams, "train.learning_rate");
    let depth = &point.hparams.0["transfer.frozen_depth"];
    let (top, speed, at) = match depth.as_str() {
        Some("all") => (0.80, 1.0, -2.0),
        Some(_) => (0.85, 4.0, -2.5),
        None => (0.92, 9.0, -3.0),
    };
    (top - 0.05 * (rate.log10() - at).powi(2)) * (1.0 - (-f64::from(epoch) / speed).exp())
}

#[test]
fn a_mixed_grid_has_no_ranking_fault_and_costs_a_fraction() {
    let (mut spec, costs) = mixed();
    let all = f64::from(27 * 12) * (1.0 + 4.0 + 10.0);
    let mut total = 0.0;
    let mut is_naive_wrong = 0;
    for seed in 0..20 {
        spec.seed = seed;
        let played = Played::of(&spec, &costs, 4, 0, &by_depth);
        let grid = |point: &Point| by_depth(point, 27);
        let best = played
            .runs
            .iter()
            .map(|run| grid(&run.point))
            .fold(0.0, f64::max);
        assert_eq!(played.best(), best, "seed {seed} lost the grid's best");
        total += played.cost(&costs);
        // The same curves on one ladder: every depth is said to freeze the same blocks.
        let mut one = costs.clone();
        for cost in one.0.values_mut() {
            cost.frozen_blocks = 0;
        }
        is_naive_wrong += usize::from(Played::of(&spec, &one, 4, 0, &by_depth).best() < best);
    }
    let share = total / (20.0 * all);
    assert!(share < 0.5, "{share} of the grid's cost");
    assert!(
        is_naive_wrong > 10,
        "one ladder was wrong {is_naive_wrong} times of 20"
    );
}

#[test]
fn rungs_are_counted_in_cost() {
    let (spec, costs) = mixed();
    let preview = pomona_search::preview_with(&spec, &costs).expect("a preview");
    let rungs: Vec<String> = (preview.rungs.iter())
        .map(|row| format!("{}: {:?}", row.phase, row.epochs))
        .collect();
    let rungs: BTreeSet<String> = rungs.into_iter().collect();
    // The first rung is an epoch of the dearest depth, which is 10; the next ones 30, 90.
    insta::assert_snapshot!(rungs.into_iter().collect::<Vec<_>>().join("\n"), @r"
    frozen depth `0`, 27 epochs: [1, 3, 9]
    frozen depth `all`, 27 epochs: [10]
    frozen depth `layer3`, 27 epochs: [3, 8, 23]
    ");
}

#[test]
fn hyperband_gives_each_bracket_its_part() {
    let spec = with_search(
        9,
        "{strategy: hyperband, max_trials: 170, space: {train.learning_rate: {log_uniform: [1.0e-4, 1]}}}",
    );
    let played = Played::of(&spec, &Costs::default(), 5, 0, &rising);
    let mut first: BTreeMap<String, (u32, usize)> = BTreeMap::new();
    for rung in played.searcher.standings() {
        first
            .entry(rung.ladder)
            .or_insert((rung.epoch, rung.entries.len()));
    }
    let brackets: Vec<(u32, usize)> = first.into_values().collect();
    // 9, 5 and 3 of every 17 begin to compare after 1 and 3 epochs, and never.
    assert_eq!(brackets, [(1, 90), (3, 50)]);
    assert!(played.runs.iter().filter(|run| run.epoch == 9).count() >= 30);
}

/// A hill in three dimensions, one of which is there only beside a word.
fn hill(point: &Point, _epoch: u32) -> f64 {
    let rate = number(&point.hparams, "train.learning_rate").log10();
    let smooth = number(&point.hparams, "train.label_smoothing");
    let is_mlp = point.hparams.0["transfer.head.kind"] == "mlp";
    let dropout = number(&point.hparams, "transfer.head.dropout");
    let head = if is_mlp {
        0.3 - (dropout - 0.2).powi(2)
    } else {
        0.0
    };
    1.0 - 0.2 * (rate + 2.3).powi(2) - (smooth - 0.1).powi(2) + head
}

fn best_of(strategy: &str, direction: Direction, seed: u64) -> f64 {
    let word = if direction == Direction::Maximize {
        "val/accuracy"
    } else {
        "val/loss"
    };
    let mut spec = with_search(
        1,
        &format!(
            "{{strategy: {strategy}, metric: {word}, max_trials: 40, space: {{\
             train.learning_rate: {{log_uniform: [1.0e-5, 1.0]}}, \
             train.label_smoothing: {{uniform: [0, 0.9]}}, \
             transfer.head.kind: {{values: [linear, mlp]}}, \
             transfer.head.dropout: {{uniform: [0, 0.9], when: {{transfer.head.kind: mlp}}}}}}}}"
        ),
    );
    spec.seed = seed;
    let sign = if direction == Direction::Maximize {
        1.0
    } else {
        -1.0
    };
    let curve = move |point: &Point, epoch: u32| sign * hill(point, epoch);
    sign * Played::of(&spec, &Costs::default(), 4, 0, &curve).best()
}

#[test]
fn tpe_beats_chance_on_a_known_hill() {
    const SEEDS: u64 = 100;
    let lacks = |strategy: &str| -> Vec<f64> {
        let lack = |seed| 1.3 - best_of(strategy, Direction::Maximize, seed);
        (0..SEEDS).map(lack).collect()
    };
    let (tpe, random) = (lacks("tpe"), lacks("random"));
    let wins = tpe
        .iter()
        .zip(&random)
        .filter(|(tpe, random)| tpe < random)
        .count();
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (tpe, random) = (median(tpe), median(random));
    assert!(
        tpe < 0.5 * random && wins >= 68,
        "tpe lacks {tpe}, chance {random}, in the middle of {SEEDS}; tpe wins {wins}"
    );
}

#[test]
fn a_minimum_is_found_as_a_maximum_is() {
    for seed in 0..5 {
        let [most, least] = [Direction::Maximize, Direction::Minimize]
            .map(|direction| best_of("tpe", direction, seed));
        assert_eq!(most, least, "seed {seed}");
    }
}

#[test]
fn a_part_of_a_point_is_refused() {
    let spec = with_search(
        3,
        "{strategy: tpe, max_trials: 20, replicates: 3, space: {train.learning_rate: {uniform: [0.1, 1]}}}",
    );
    let fault = Searcher::new(&spec).expect_err("20 trials of 3 seeds each");
    insta::assert_snapshot!(
        format!("{}: {} ({})", fault.code, fault.message, fault.hint.unwrap_or_default()),
        @"E0210: search.max_trials: 20 trials are not whole points of 3 seeds each, and a point is judged by all of them (write `max_trials: 18`)"
    );
}

#[test]
fn tpe_tries_every_point_of_a_small_space_once_and_then_stops() {
    let spec = with_search(
        1,
        "{strategy: tpe, tpe: {startup: 2}, max_trials: 100, space: {train.learning_rate: \
         {values: [0.1, 0.2, 0.3]}, train.batch_size: {values: [16, 32]}}}",
    );
    assert_eq!(spec.search.max_trials, 6);
    let played = Played::of(&spec, &Costs::default(), 3, 0, &rising);
    assert_eq!(played.runs.len(), 6);
}

#[test]
fn points_of_earlier_experiments_come_first_and_once() {
    let rates = "space: {train.learning_rate: {values: [0.1, 0.2, 0.3, 0.4]}}";
    for head in [
        "strategy: asha",
        "strategy: random, max_trials: 4",
        "strategy: tpe, max_trials: 4",
    ] {
        let mut spec = with_search(
            3,
            &format!("{{{head}, warm_start: {{experiments: [old]}}, {rates}}}"),
        );
        let hparams = |rate: f64| {
            Hparams(BTreeMap::from([(
                "train.learning_rate".to_owned(),
                rate.into(),
            )]))
        };
        let mut other = hparams(0.2);
        other.0.insert("train.epochs".to_owned(), 5.into());
        let found = [
            hparams(0.3),
            hparams(0.9),
            other,
            hparams(0.2),
            hparams(0.3),
        ];
        let warm = spec.search.warm_start.as_mut().expect("a warm start");
        warm.found = pomona_search::warm::found("old", found.into_iter());
        let (_, skipped) = pomona_search::warm::points(&spec);
        insta::allow_duplicates! {
        insta::assert_snapshot!(skipped.join("\n"), @r#"
        the point {"train.learning_rate":0.9} of `old` is not tried first: `train.learning_rate` is 0.9, which is not in its set
        the point {"train.epochs":5,"train.learning_rate":0.2} of `old` is not tried first: `train.epochs` is not in the space
        "#);
        }
        let played = Played::of(&spec, &Costs::default(), 1, 1, &rising);
        let rates: Vec<f64> = (played.runs.iter())
            .map(|run| number(&run.point.hparams, "train.learning_rate"))
            .collect();
        assert_eq!(rates[..2], [0.3, 0.2], "{head}");
        assert_eq!(rates.len(), 4, "{head}");
        if !head.contains("random") {
            let all: BTreeSet<u64> = rates.iter().map(|rate| rate.to_bits()).collect();
            assert_eq!(all.len(), 4, "{head}: {rates:?}");
        }
    }
}
