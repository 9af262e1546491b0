//! The statistics against SciPy and statsmodels (`tests/reference/make_gates.py`), properties, and a
//! table of outcomes.

use super::stats::{
    Difference, corrected, mcnemar, resample_times, tango, tango_bound, throws_needed, wins_needed,
};
use super::{Case, Measure, Pairs, Weighed, judge, weigh};
use pomona_domain::gate::{Approval, Role, TestOutcomes};
use pomona_domain::model::GateOutcome;
use pomona_domain::spec::Gate;
use pomona_domain::{Digest, Timestamp};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn reference() -> Value {
    serde_json::from_str(include_str!("../../tests/reference/gates.json")).unwrap()
}

fn near(ours: f64, theirs: f64, what: &str) {
    let scale = theirs.abs().max(1e-12);
    assert!(
        (ours - theirs).abs() <= 1e-6 * scale + 1e-9,
        "{what}: {ours} is not {theirs}"
    );
}

fn count(case: &Value, key: &str) -> u32 {
    u32::try_from(case[key].as_u64().unwrap()).unwrap()
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap()
}

#[test]
fn mcnemar_is_that_of_scipy_and_statsmodels() {
    let all = reference();
    for case in all["mcnemar"].as_array().unwrap() {
        let (wins, losses) = (count(case, "wins"), count(case, "losses"));
        let ours = mcnemar(wins, losses);
        near(ours, number(case, "one_sided"), &format!("{case}"));
        let two = (2.0 * ours.min(mcnemar(losses, wins))).min(1.0);
        near(two, number(case, "two_sided"), &format!("{case}"));
    }
}

#[test]
fn tango_is_what_a_numerical_maximum_of_the_likelihood_gives() {
    let all = reference();
    for case in all["tango"].as_array().unwrap() {
        let of = (
            count(case, "samples"),
            count(case, "wins"),
            count(case, "losses"),
        );
        let p = tango(of.0, of.1, of.2, number(case, "margin"));
        let bound = tango_bound(of.0, of.1, of.2, number(case, "confidence"));
        assert!((p - number(case, "p")).abs() < 1e-5, "{case}: {p}");
        assert!(
            (bound - number(case, "bound")).abs() < 1e-5,
            "{case}: {bound}"
        );
    }
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(read).collect()
}

fn version(all: &Value, which: &str) -> TestOutcomes {
    let whole = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let labels = list(&all["labels"], whole);
    TestOutcomes {
        split: Digest::of(b"split"),
        classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
        confidence: vec![0.9; labels.len()],
        predicted: list(&all[which]["predicted"], whole),
        truth: list(&all[which]["truth"], |value| value.as_f64().unwrap() as f32),
        labels,
    }
}

#[test]
fn the_bootstrap_agrees_with_scipy_within_its_own_spread() {
    let all = &reference()["bootstrap"];
    let (ours, theirs) = (version(all, "candidate"), version(all, "champion"));
    for case in all["cases"].as_array().unwrap() {
        let measure = Measure::parse(case["metric"].as_str().unwrap()).unwrap();
        let found = resample_times(measure, (&ours, &theirs), [7; 32], 10_000);
        near(found.observed, number(case, "observed"), &format!("{case}"));
        let bound = found.bound(number(case, "confidence"));
        // The spread of a percentile of 10,000 resamples is some hundredths of the error.
        let off = (bound - number(case, "bound")).abs() / number(case, "error");
        assert!(off < 0.1, "{case}: {bound}");
        let again = resample_times(measure, (&ours, &theirs), [7; 32], 10_000);
        assert_eq!(found, again);
    }
}

#[test]
fn a_bound_far_out_is_not_closer_than_the_normal_one() {
    let flat = Difference {
        observed: 0.5,
        resampled: (0..1000).map(|at| f64::from(at) / 1000.0).collect(),
    };
    assert_eq!(flat.bound(0.95), 0.049);
    assert!(flat.bound(0.9999) < 0.0, "{}", flat.bound(0.9999));
    let none = Difference {
        observed: 0.0,
        resampled: Vec::new(),
    };
    assert_eq!(none.bound(0.95), f64::NEG_INFINITY);
}

#[test]
fn the_error_is_divided_among_the_uses() {
    let shown = |uses| format!("{:.6}", corrected(0.95, uses));
    assert_eq!(shown(0), "0.950000");
    assert_eq!(shown(1), "0.950000");
    assert_eq!(shown(2), "0.975000");
    assert_eq!(shown(20), "0.997500");
    assert_eq!([0.05, 0.025, 0.5, 1.0].map(throws_needed), [5, 6, 1, 1]);
    assert_eq!(wins_needed(20, 0.05), Some(15));
    assert_eq!(wins_needed(4, 0.05), None);
}

proptest! {
    #[test]
    fn mcnemar_is_a_probability_that_falls_with_each_win(throws in 0u32..400, wins in 0u32..400) {
        let wins = wins.min(throws);
        let p = mcnemar(wins, throws - wins);
        prop_assert!((0.0..=1.0).contains(&p));
        if wins < throws {
            prop_assert!(mcnemar(wins + 1, throws - wins - 1) <= p + 1e-12);
            // Who does not win so many loses the others: the two sides overlap in one throw.
            let other = mcnemar(throws - wins, wins);
            prop_assert!(p + other >= 1.0 - 1e-9);
        }
        if let Some(needed) = wins_needed(throws, 0.05) {
            prop_assert_eq!(p <= 0.05, wins >= needed);
        }
    }

    #[test]
    fn tango_is_monotone_and_its_bound_inverts_it(
        samples in 1u32..2000, some in 0u32..300, part in 0u32..300, margin in 0.001f64..0.5,
    ) {
        let discordant = some.min(samples);
        let wins = part.min(discordant);
        let losses = discordant - wins;
        let p = tango(samples, wins, losses, margin);
        prop_assert!((0.0..=1.0).contains(&p), "{}", p);
        if losses > 0 {
            prop_assert!(tango(samples, wins + 1, losses - 1, margin) <= p + 1e-9);
        }
        prop_assert!(tango(samples, wins, losses, margin + 0.01) <= p + 1e-9);
        let bound = tango_bound(samples, wins, losses, 0.95);
        prop_assert!((-1.0..=1.0).contains(&bound));
        if (bound + margin).abs() > 1e-6 {
            prop_assert_eq!(p <= 0.05, bound > -margin, "p {} bound {}", p, bound);
        }
    }

    #[test]
    fn two_versions_that_change_places_differ_by_the_opposite(seed in any::<u64>()) {
        let one = drawn(seed, 40);
        let other = drawn(seed ^ 1, 40);
        for measure in [Measure::Accuracy, Measure::MacroF1, Measure::Loss, Measure::Ece] {
            let there = resample_times(measure, (&one, &other), [1; 32], 50);
            let back = resample_times(measure, (&other, &one), [1; 32], 50);
            prop_assert!((there.observed + back.observed).abs() < 1e-12);
            let turned: Vec<f64> = back.resampled.iter().rev().map(|x| -x).collect();
            for (a, b) in there.resampled.iter().zip(turned) {
                prop_assert!((a - b).abs() < 1e-12);
            }
        }
    }
}

/// Outcomes of three classes that follow from a seed.
fn drawn(seed: u64, samples: u64) -> TestOutcomes {
    let draw = |what: u64, at: u64, end: u32| {
        let digest = Digest::of(format!("{seed}/{what}/{at}").as_bytes());
        u32::from(digest.0[0]) % end
    };
    let labels: Vec<u32> = (0..samples).map(|at| at as u32 % 3).collect();
    let share = |at: u64| 0.01 + draw(2, at, 90) as f32 / 100.0;
    TestOutcomes {
        split: Digest::of(b"split"),
        classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
        predicted: (0..samples).map(|at| draw(1, at, 3)).collect(),
        confidence: (0..samples).map(share).collect(),
        truth: (0..samples).map(share).collect(),
        labels,
    }
}

/// Forty samples of two classes; the candidate has those of `wrong` wrong.
fn with_wrong(wrong: std::ops::Range<u32>) -> TestOutcomes {
    let labels: Vec<u32> = (0..40).map(|at| at % 2).collect();
    let predict = |at: u32| {
        if wrong.contains(&at) {
            1 - at % 2
        } else {
            at % 2
        }
    };
    TestOutcomes {
        split: Digest::of(b"split"),
        classes: vec!["cat".to_owned(), "dog".to_owned()],
        predicted: (0..40).map(predict).collect(),
        confidence: vec![0.9; 40],
        truth: vec![0.5; 40],
        labels,
    }
}

fn better(metric: &str) -> Gate {
    Gate::BetterThan {
        better_than: "champion".to_owned(),
        metric: metric.to_owned(),
        confidence: 0.95,
    }
}

fn no_worse(metric: &str, margin: f64) -> Gate {
    Gate::NoWorseThan {
        no_worse_than: "champion".to_owned(),
        metric: metric.to_owned(),
        margin,
        confidence: 0.95,
    }
}

fn shown(outcomes: &[GateOutcome]) -> String {
    let mut text = String::new();
    for row in outcomes {
        let verdict = if row.passed { "passed" } else { "FAILED" };
        let _ = writeln!(text, "  {verdict} {}: {}", row.gate, row.sentence());
    }
    text
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn what_passes_and_what_would_have() {
    let ours = with_wrong(0..2);
    let metrics = BTreeMap::from([
        ("test/accuracy".to_owned(), 0.95),
        ("test/latency_p95_ms".to_owned(), 81.5),
    ]);
    let mut text = String::new();
    let mut case = |what: &str, gate: Gate, champion: Option<&TestOutcomes>, uses: u32| {
        let gates = [gate];
        let weighed = weigh(&gates, Some(&ours), champion);
        let case = Case {
            metrics: &metrics,
            weighed: &weighed,
            champion: champion.map(|_| 3),
            stale: false,
            uses,
            approvals: &[
                approval("ann", Role::Deployer),
                approval("ann", Role::Deployer),
            ],
        };
        let _ = write!(text, "{what}\n{}", shown(&judge(&gates, &case)));
    };
    let threshold = |metric: &str, at_least, at_most| Gate::Threshold {
        metric: metric.to_owned(),
        at_least,
        at_most,
    };
    case(
        "enough",
        threshold("test/accuracy", Some(0.9), None),
        None,
        1,
    );
    case(
        "not enough",
        threshold("test/accuracy", Some(0.99), None),
        None,
        1,
    );
    case(
        "slow",
        threshold("test/latency_p95_ms", None, Some(80.0)),
        None,
        1,
    );
    case(
        "not measured",
        threshold("test/ece", None, Some(0.1)),
        None,
        1,
    );
    let floor = |every_class_at_least| Gate::ClassFloor {
        metric: "test/recall".to_owned(),
        every_class_at_least,
    };
    case("every class", floor(0.9), None, 1);
    case("a class too low", floor(0.96), None, 1);
    case("the first champion", better("test/accuracy"), None, 1);
    case(
        "clearly better",
        better("test/accuracy"),
        Some(&with_wrong(2..12)),
        1,
    );
    case(
        "better, but asked for the 20th time",
        better("test/accuracy"),
        Some(&with_wrong(2..12)),
        20,
    );
    case(
        "not better",
        better("test/accuracy"),
        Some(&with_wrong(1..4)),
        1,
    );
    case(
        "too few differ",
        better("test/accuracy"),
        Some(&with_wrong(0..4)),
        1,
    );
    case(
        "no worse",
        no_worse("test/accuracy", 0.2),
        Some(&with_wrong(1..3)),
        1,
    );
    case(
        "maybe worse",
        no_worse("test/accuracy", 0.05),
        Some(&with_wrong(1..3)),
        1,
    );
    case(
        "by a bootstrap",
        better("test/macro_f1"),
        Some(&with_wrong(0..14)),
        1,
    );
    case(
        "not by a bootstrap",
        better("test/macro_f1"),
        Some(&with_wrong(1..4)),
        1,
    );
    let other = TestOutcomes {
        split: Digest::of(b"another"),
        ..with_wrong(0..9)
    };
    case(
        "another test split",
        better("test/accuracy"),
        Some(&other),
        1,
    );
    let people = |count| Gate::Approvals {
        approvals: BTreeMap::from([(Role::Deployer, count)]),
    };
    case("approved", people(1), None, 1);
    case("the same one twice is one", people(2), None, 1);
    insta::assert_snapshot!(text);
}

fn approval(actor: &str, role: Role) -> Approval {
    Approval {
        model: "m".to_owned(),
        number: 1,
        role,
        actor: actor.to_owned(),
        at: Timestamp(1),
        reason: String::new(),
    }
}

#[test]
fn what_is_not_known_passes_nothing() {
    let ours = with_wrong(0..1);
    let gates = [better("test/accuracy"), no_worse("test/loss", 0.1)];
    for (weighed, stale) in [
        (Weighed::default(), false),
        (weigh(&gates, Some(&ours), None), false),
        (weigh(&gates, Some(&ours), Some(&with_wrong(0..30))), true),
    ] {
        let case = Case {
            metrics: &BTreeMap::new(),
            weighed: &weighed,
            champion: Some(1),
            stale,
            uses: 1,
            approvals: &[],
        };
        assert!(judge(&gates, &case).iter().all(|gate| !gate.passed));
    }
    let weighed = weigh(&[], Some(&ours), Some(&with_wrong(0..3)));
    let pairs = Pairs {
        samples: 40,
        wins: 2,
        losses: 0,
    };
    assert_eq!(weighed.pairs, Some(pairs));
}
