use super::*;
use proptest::prelude::*;

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

/// Four samples, three classes, worked out by hand.
#[test]
fn a_table_worked_out_by_hand() {
    let labels = [0, 0, 1, 2];
    #[rustfmt::skip]
    let probabilities = [
        0.5, 0.25, 0.25, // right
        0.25, 0.5, 0.25, // says 1
        0.0, 1.0, 0.0, // right, sure
        0.5, 0.25, 0.25, // says 0
    ];
    let found = Classification::from_probabilities(3, &labels, &probabilities);
    assert_eq!(
        found.confusion,
        vec![vec![1, 1, 0], vec![0, 1, 0], vec![1, 0, 0]]
    );
    close(found.accuracy, 0.5);
    assert_eq!(found.recall, vec![0.5, 1.0, 0.0]);
    // F1: class 0 = 2·1/(2+2), class 1 = 2·1/(1+2), class 2 = 0.
    close(found.macro_f1, (0.5 + 2.0 / 3.0) / 3.0);
    // The bin of 0.5 holds three, one right: |1 - 1.5|; the bin of 1.0 holds one, right.
    close(found.ece, 0.5 / 4.0);
    let nats = (2f64.ln() + 4f64.ln() + 0.0 + 4f64.ln()) / 4.0;
    close(found.log_loss, nats);
}

#[test]
fn a_class_that_does_not_occur_is_no_part_of_macro_f1() {
    let found = Classification::from_probabilities(3, &[0, 1], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    close(found.macro_f1, 1.0);
    assert_eq!(found.recall, vec![1.0, 1.0, 0.0]);
}

#[test]
fn a_sure_mistake_costs_a_finite_loss() {
    let found = Classification::from_probabilities(2, &[0], &[0.0, 1.0]);
    close(found.log_loss, -(1e-15f64).ln());
    close(found.ece, 1.0);
}

#[test]
fn a_broken_network_is_seen_in_the_loss() {
    let found = Classification::from_probabilities(2, &[0], &[f32::NAN, f32::NAN]);
    assert!(found.log_loss.is_nan());
}

#[test]
fn no_samples_give_nought() {
    let found = Classification::from_probabilities(2, &[], &[]);
    assert_eq!(
        (found.accuracy, found.macro_f1, found.ece, found.log_loss),
        (0.0, 0.0, 0.0, 0.0)
    );
}

#[test]
fn a_confidence_on_an_edge_belongs_to_the_lower_bin() {
    assert_eq!(bin_of(0.0), 0);
    assert_eq!(bin_of(1.0 / 15.0), 0);
    assert_eq!(bin_of(1.0 / 15.0 + 1e-9), 1);
    assert_eq!(bin_of(1.0), 14);
}

/// Against the tables of Brown, Cai & DasGupta (2001) and closed forms.
#[test]
fn wilson_intervals_are_the_published_ones() {
    let z = 1.959_963_984_540_054;
    let (low, high) = wilson(5, 10, z);
    assert!((low - 0.236_593).abs() < 1e-6 && (high - 0.763_407).abs() < 1e-6);
    let (low, high) = wilson(0, 10, z);
    close(low, 0.0);
    close(high, z * z / (10.0 + z * z));
    assert_eq!(wilson(0, 0, z), (0.0, 1.0));
}

fn evaluated() -> impl Strategy<Value = (usize, Vec<u32>, Vec<f32>)> {
    (2usize..6, 1usize..60).prop_flat_map(|(classes, samples)| {
        (
            Just(classes),
            prop::collection::vec(0..classes as u32, samples),
            prop::collection::vec(0.001f32..1.0, samples * classes).prop_map(move |mut all| {
                for row in all.chunks_mut(classes) {
                    let sum: f32 = row.iter().sum();
                    for value in row {
                        *value /= sum;
                    }
                }
                all
            }),
        )
    })
}

proptest! {
    #[test]
    fn every_share_lies_between_nought_and_one((classes, labels, rows) in evaluated()) {
        let found = Classification::from_probabilities(classes, &labels, &rows);
        let mut shares = vec![found.accuracy, found.macro_f1, found.ece];
        shares.extend(&found.recall);
        for share in shares {
            prop_assert!((0.0..=1.0).contains(&share), "{}", share);
        }
        prop_assert!(found.log_loss >= 0.0 && found.log_loss.is_finite());
        let counted: u64 = found.confusion.iter().flatten().sum();
        prop_assert_eq!(counted, labels.len() as u64);
    }

    #[test]
    fn the_order_of_classes_does_not_matter((classes, labels, rows) in evaluated()) {
        let found = Classification::from_probabilities(classes, &labels, &rows);
        let turned: Vec<u32> = labels.iter().map(|l| classes as u32 - 1 - l).collect();
        let mirrored: Vec<f32> =
            rows.chunks(classes).flat_map(|row| row.iter().rev().copied()).collect();
        // Equal probabilities go to the first class: skip those.
        let tie = rows.chunks(classes).any(|row| {
            row.iter().enumerate().any(|(i, a)| row[..i].contains(a))
        });
        prop_assume!(!tie);
        let other = Classification::from_probabilities(classes, &turned, &mirrored);
        prop_assert_eq!(found.accuracy, other.accuracy);
        prop_assert!((found.macro_f1 - other.macro_f1).abs() < 1e-12);
        prop_assert_eq!(found.log_loss, other.log_loss);
    }

    #[test]
    fn wilson_holds_the_proportion(n in 1u64..10_000, part in 0.0f64..=1.0) {
        let successes = (n as f64 * part) as u64;
        let (low, high) = wilson(successes, n, 1.96);
        let p = successes as f64 / n as f64;
        prop_assert!(0.0 <= low && low <= p + 1e-12 && p <= high + 1e-12 && high <= 1.0);
    }
}
