//! Numbers and points from a seeded generator.

use pomona_domain::Hparams;
use pomona_domain::space::{Space, Tree};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use std::collections::BTreeMap;

/// A number in [0, 1) with 53 random bits. Written out here, not taken from a sampling library: what
/// a seed draws must not change with a dependency.
pub(crate) fn unit(generator: &mut ChaCha8Rng) -> f64 {
    const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
    (generator.next_u64() >> 11) as f64 * SCALE
}

/// A point: a number for each path that has a value, parents first.
pub(crate) fn random_point(
    tree: &Tree,
    space: &Space,
    generator: &mut ChaCha8Rng,
) -> Option<Hparams> {
    let mut point = BTreeMap::new();
    for path in tree.order() {
        if tree.is_active(path, &point) {
            let value = space.get(*path)?.at(unit(generator))?;
            point.insert((*path).to_owned(), value);
        }
    }
    Some(Hparams(point))
}

/// The `index`-th of `size` numbers in an order that a seed shuffles; any place is found at once.
///
/// A Feistel network of four rounds permutes the numbers of an even count of bits, and what falls
/// outside is permuted again until it falls inside (cycle walking: Black and Rogaway 2002).
pub(crate) fn shuffled(seed: u64, size: u64, index: u64) -> Option<u64> {
    if index >= size {
        return None;
    }
    let bits = 64 - (size - 1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let permute = |number: u64| {
        let (mut left, mut right) = (number >> half, number & mask);
        for round in 0..4 {
            let key = mixed(seed ^ mixed(round));
            (left, right) = (right, left ^ (mixed(right ^ key) & mask));
        }
        (left << half) | right
    };
    let mut number = permute(index);
    while number >= size {
        number = permute(number);
    }
    Some(number)
}

/// The finaliser of SplitMix64 (Steele et al. 2014).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_shuffled_order_has_every_number_once_and_follows_from_the_seed() {
        for size in [1, 2, 3, 7, 16, 17, 100, 1_000] {
            let order = |seed| -> Vec<u64> {
                (0..size)
                    .filter_map(|index| shuffled(seed, size, index))
                    .collect()
            };
            let all: BTreeSet<u64> = order(7).into_iter().collect();
            assert_eq!(all, (0..size).collect(), "{size}");
            assert_eq!(order(7), order(7));
            assert_eq!(shuffled(7, size, size), None);
            if size >= 16 {
                assert_ne!(order(7), order(8), "{size}");
                assert_ne!(order(7), (0..size).collect::<Vec<_>>(), "{size}");
            }
        }
    }
}
