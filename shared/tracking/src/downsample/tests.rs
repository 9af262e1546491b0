use super::*;
use proptest::prelude::*;

fn line(values: &[f64]) -> Vec<(f64, f64)> {
    values
        .iter()
        .enumerate()
        .map(|(x, y)| (x as f64, *y))
        .collect()
}

#[test]
fn few_points_are_all_shown() {
    let points = line(&[1.0, f64::NAN, f64::INFINITY]);
    assert_eq!(curve(&points, 3), [0, 1, 2]);
    assert_eq!(curve(&points, 2), [0, 2]);
    assert_eq!(curve(&points, 1), [2]);
    assert_eq!(curve(&points, 0), [0; 0]);
    assert_eq!(curve(&[], 5), [0; 0]);
}

#[test]
fn a_spike_is_shown() {
    let mut values = vec![0.0; 10_000];
    values[6_543] = 100.0;
    values[1_234] = -100.0;
    let shown = curve(&line(&values), 50);
    assert!(shown.contains(&6_543) && shown.contains(&1_234));
    assert_eq!(shown.len(), 50);
}

#[test]
fn the_corner_of_a_curve_is_shown() {
    let values: Vec<f64> = (0..100)
        .map(|x| f64::from(if x < 50 { 50 - x } else { 0 }))
        .collect();
    let shown = curve(&line(&values), 5);
    assert!(
        shown.iter().any(|place| (48..=52).contains(place)),
        "{shown:?}"
    );
}

#[test]
fn what_is_no_number_gives_its_place_to_what_is() {
    let mut values = vec![f64::NAN; 1_000];
    values[400] = 1.0;
    values[500] = f64::INFINITY;
    assert_eq!(curve(&line(&values), 10), [0, 400, 500, 999]);
    let infinite = line(&[f64::NEG_INFINITY; 1_000]);
    assert_eq!(curve(&infinite, 10).len(), 10);
}

#[test]
fn triangles_are_steinarssons() {
    // Three buckets of one, two and two: each choice can be computed by hand.
    let points = line(&[0.0, 5.0, 1.0, 9.0, 2.0, 2.5, 0.0]);
    assert_eq!(curve(&points, 5), [0, 1, 3, 4, 6]);
}

#[test]
fn steps_of_an_interval() {
    let check = |runs: &[&[i64]], most, expect: &[i64]| {
        let shown: Vec<i64> = steps(runs.iter().copied(), most).into_iter().collect();
        assert_eq!(shown, expect, "{runs:?} {most}");
    };
    check(&[], 5, &[]);
    check(&[&[3, 1, 2]], 3, &[1, 2, 3]);
    check(&[&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]], 4, &[0, 3, 6, 9]);
    check(
        &[&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[4, 5, 7]],
        3,
        &[0, 4, 5, 7, 9],
    );
    check(&[&[-5, 0, 5]], 1, &[-5, 5]);
    check(&[&[-5, 0, 5]], 0, &[-5, 5]);
    check(&[&[], &[7]], 1, &[7]);
    check(&[&[i64::MIN, 0, i64::MAX]], 2, &[i64::MIN, i64::MAX]);
}

#[test]
fn a_spread_has_both_ends() {
    let check = |count, most, expect: &[usize]| {
        assert_eq!(
            spread(count, most).collect::<Vec<_>>(),
            expect,
            "{count} {most}"
        );
    };
    check(0, 5, &[]);
    check(5, 0, &[]);
    check(5, 1, &[4]);
    check(1, 5, &[0]);
    check(5, 2, &[0, 4]);
    check(5, 3, &[0, 2, 4]);
    check(5, 5, &[0, 1, 2, 3, 4]);
    check(usize::MAX, 2, &[0, usize::MAX - 1]);
}

proptest! {
    #[test]
    fn a_curve_keeps_its_promises(
        values in prop::collection::vec(
            prop_oneof![
                8 => -1e3..1e3,
                1 => Just(f64::NAN),
                1 => Just(f64::INFINITY),
                1 => Just(-f64::MAX),
            ],
            0..400,
        ),
        limit in 0usize..60,
    ) {
        let shown = curve(&line(&values), limit);
        prop_assert!(shown.len() <= limit.min(values.len()));
        prop_assert!(shown.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(shown.iter().all(|place| *place < values.len()));
        if limit >= 2 && !values.is_empty() {
            prop_assert_eq!(shown.first(), Some(&0));
            prop_assert_eq!(shown.last(), Some(&(values.len() - 1)));
        }
        let numbers = values.iter().filter(|value| !value.is_nan()).count();
        prop_assert!(shown.len() >= limit.min(numbers));
    }

    #[test]
    fn steps_keep_their_promises(
        runs in prop::collection::vec(prop::collection::vec(-50i64..50, 0..40), 0..5),
        most in 0usize..30,
    ) {
        let shown = steps(runs.iter().map(Vec::as_slice), most);
        prop_assert!(shown.is_sorted_by(|a, b| a < b));
        let shown = BTreeSet::from_iter(shown);
        let all: BTreeSet<i64> = runs.iter().flatten().copied().collect();
        prop_assert!(shown.is_subset(&all));
        prop_assert!(shown.len() <= most + 2 * runs.len());
        for run in runs.iter().filter(|run| !run.is_empty()) {
            prop_assert!(shown.contains(run.iter().min().unwrap()));
            prop_assert!(shown.contains(run.iter().max().unwrap()));
        }
        if all.len() <= most {
            prop_assert_eq!(shown, all);
        }
    }
}
