use super::*;
use proptest::prelude::*;

const KEY: Key = Key {
    seed: 7,
    replicate: 0,
    purpose: "order",
    epoch: 3,
};

/// The known answers of the Random123 distribution (`kat_vectors`).
#[test]
fn philox_gives_the_published_answers() {
    assert_eq!(
        philox4x32([0; 4], [0; 2]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    assert_eq!(
        philox4x32([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox4x32(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0]
        ),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

/// A change of these numbers changes every trial that was ever stored.
#[test]
fn draws_never_change_between_versions() {
    let bits: Vec<u64> = (0..3).map(|i| KEY.bits(i)).collect();
    assert_eq!(bits, GOLDEN_BITS);
    assert_eq!(KEY.permutation(10), GOLDEN_ORDER);
    assert_eq!(KEY.normal(0).to_bits(), GOLDEN_NORMAL);
}

const GOLDEN_BITS: [u64; 3] = [
    3_224_123_881_147_142_826,
    3_921_765_752_108_740_004,
    11_060_161_030_188_753_406,
];
const GOLDEN_ORDER: [usize; 10] = [2, 0, 9, 7, 1, 4, 5, 3, 8, 6];
const GOLDEN_NORMAL: u64 = 13_823_060_084_311_820_228;

#[test]
fn every_part_of_the_key_and_the_name_counts() {
    let others = [
        Key { seed: 8, ..KEY },
        Key {
            replicate: 1,
            ..KEY
        },
        Key {
            purpose: "flip",
            ..KEY
        },
        Key { epoch: 4, ..KEY },
    ];
    for other in others {
        assert_ne!(other.bits(0), KEY.bits(0), "{other:?}");
    }
    assert_ne!(KEY.named("a").bits(0), KEY.named("b").bits(0));
    assert_eq!(KEY.named("").bits(9), KEY.bits(9));
}

#[test]
fn normals_have_mean_nought_and_variance_one() {
    let stream = KEY.stream();
    let n = 100_000;
    let draws: Vec<f64> = (0..n).map(|i| stream.normal(i)).collect();
    let mean = draws.iter().sum::<f64>() / n as f64;
    let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
    assert!(mean.abs() < 0.015, "{mean}");
    assert!((variance - 1.0).abs() < 0.02, "{variance}");
    let within = draws.iter().filter(|x| x.abs() < 1.959_964).count() as f64 / n as f64;
    assert!((within - 0.95).abs() < 0.004, "{within}");
}

#[test]
fn every_order_of_three_is_equally_likely() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..6000 {
        *seen
            .entry(Key { seed, ..KEY }.permutation(3))
            .or_insert(0u32) += 1;
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.values().all(|n| (880..1120).contains(n)), "{seen:?}");
}

proptest! {
    #[test]
    fn a_permutation_holds_every_index_once(seed: u64, n in 0usize..300) {
        let mut order = Key { seed, ..KEY }.permutation(n);
        order.sort_unstable();
        prop_assert_eq!(order, (0..n).collect::<Vec<_>>());
    }

    #[test]
    fn uniform_stays_below_one_and_normal_is_finite(seed: u64, index: u64) {
        let key = Key { seed, ..KEY };
        prop_assert!((0.0..1.0).contains(&key.uniform(index)));
        prop_assert!(key.normal(index).is_finite());
    }

    #[test]
    fn below_stays_below(index: u64, n in 1u64..) {
        prop_assert!(KEY.stream().below(index, n) < n);
    }
}
