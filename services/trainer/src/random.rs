//! Randomness by counter: every draw is a pure function of a key and an index.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011). A key is never a trial's: the points of a grid are compared with the same order,
//! the same augmentation and the same masks. Nothing here is ambient: no clock, no entropy, no
//! state, so that a resumed trial draws what the uninterrupted one would have drawn. Logarithm
//! and cosine come from `libm`, so that machines agree to the last bit.

use pomona_domain::Digest;

#[cfg(test)]
mod tests;

/// What a stream of draws belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The experiment's seed.
    pub seed: u64,
    /// Which repetition of a point.
    pub replicate: u32,
    /// What is drawn (`order`, `flip`, `init`, …).
    pub purpose: &'static str,
    /// Which pass over the data; 0 where there is none.
    pub epoch: u32,
}

impl Key {
    /// The draws of this key. Keep it when many are needed: making it costs a hash.
    pub fn stream(&self) -> Stream {
        self.named("")
    }

    /// The draws of this key for one thing that has a name, such as a parameter.
    pub fn named(&self, name: &str) -> Stream {
        let mut text = Vec::with_capacity(64);
        text.extend_from_slice(b"pomona.random.1\0");
        text.extend_from_slice(&self.seed.to_le_bytes());
        text.extend_from_slice(&self.replicate.to_le_bytes());
        text.extend_from_slice(&self.epoch.to_le_bytes());
        text.extend_from_slice(self.purpose.as_bytes());
        text.push(0);
        text.extend_from_slice(name.as_bytes());
        let Digest(hash) = Digest::of(&text);
        let word =
            |at: usize| u32::from_le_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]);
        Stream {
            key: [word(0), word(4)],
            high: [word(8), word(12)],
        }
    }

    /// 64 random bits.
    pub fn bits(&self, index: u64) -> u64 {
        self.stream().bits(index)
    }

    /// Uniform in [0, 1) with 53 random bits.
    pub fn uniform(&self, index: u64) -> f64 {
        self.stream().uniform(index)
    }

    /// Standard normal.
    pub fn normal(&self, index: u64) -> f64 {
        self.stream().normal(index)
    }

    /// A random order of `0..n`.
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        self.stream().permutation(n)
    }
}

/// The draws of one key: 2^64 of them, each by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    high: [u32; 2],
}

impl Stream {
    fn block(&self, index: u64) -> [u64; 2] {
        let counter = [
            index as u32,
            (index >> 32) as u32,
            self.high[0],
            self.high[1],
        ];
        let [a, b, c, d] = philox4x32(counter, self.key);
        [
            u64::from(a) | u64::from(b) << 32,
            u64::from(c) | u64::from(d) << 32,
        ]
    }

    /// 64 random bits.
    pub fn bits(&self, index: u64) -> u64 {
        self.block(index)[0]
    }

    /// Uniform in [0, 1) with 53 random bits.
    pub fn uniform(&self, index: u64) -> f64 {
        unit(self.bits(index))
    }

    /// Standard normal (Box and Muller 1958, the cosine half of one block).
    pub fn normal(&self, index: u64) -> f64 {
        let [a, b] = self.block(index);
        // 1 - u lies in (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * libm::log(1.0 - unit(a))).sqrt();
        radius * libm::cos(std::f64::consts::TAU * unit(b))
    }

    /// A random order of `0..n` (Fisher and Yates).
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last as u64, last as u64 + 1) as usize);
        }
        order
    }

    /// An integer below `n`, which is not 0. The bias is under n / 2^64.
    pub fn below(&self, index: u64, n: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(n)) >> 64) as u64
    }
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Philox4x32 with ten rounds.
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let first = u64::from(counter[0]) * 0xD251_1F53;
        let second = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}
