//! Numbers from a seeded generator.

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

/// A number in [0, 1) with 53 random bits. Written out here, not taken from a sampling library: what
/// a seed draws must not change with a dependency.
pub(crate) fn unit(generator: &mut ChaCha8Rng) -> f64 {
    const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
    (generator.next_u64() >> 11) as f64 * SCALE
}
