//! Relatives and parts: which images must stay together, and which part each group goes to.
//!
//! Pure: a seed and facts in, groups and splits out.

use crate::random::Key;
use pomona_domain::dataset::Split;
use pomona_domain::{Code, Digest, Fault};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

const PARTS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// What is known of an image before it has a group.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Index of its class.
    pub(super) class: usize,
    /// Its stem without what the group pattern matches, when there is a pattern.
    pub(super) stem: Option<String>,
    /// Digest of its pixels.
    pub(super) pixels: Digest,
    /// Digest of the pixels of its mirror image.
    pub(super) mirror: Digest,
}

/// Images and the groups they fell into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Groups {
    /// The group of each image, numbered in the order of first appearance.
    pub(super) of: Vec<u32>,
    /// Images that are a copy or the mirror image of an earlier one.
    pub(super) duplicates: u32,
}

/// Finds relatives: within one class, the same stem, the same pixels or mirrored pixels.
pub(super) fn relatives(images: &[Facts]) -> Groups {
    let mut sets = Sets::new(images.len());
    let mut by_pixels: BTreeMap<(usize, Digest), usize> = BTreeMap::new();
    let mut by_stem: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    let mut duplicates = 0;
    for (index, image) in images.iter().enumerate() {
        let copy = by_pixels.get(&(image.class, image.pixels)).copied();
        let mirrored = by_pixels.get(&(image.class, image.mirror)).copied();
        duplicates += u32::from(copy.is_some() || mirrored.is_some());
        for twin in [copy, mirrored].into_iter().flatten() {
            sets.join(twin, index);
        }
        by_pixels
            .entry((image.class, image.pixels))
            .or_insert(index);
        if let Some(stem) = &image.stem {
            let first = *by_stem.entry((image.class, stem)).or_insert(index);
            sets.join(first, index);
        }
    }
    let mut numbers = BTreeMap::new();
    let of = (0..images.len())
        .map(|index| {
            let next = numbers.len() as u32;
            *numbers.entry(sets.root(index)).or_insert(next)
        })
        .collect();
    Groups { of, duplicates }
}

/// Gives every image its part. Class by class, groups are shuffled by the seed, then taken from
/// large to small; each goes to the part that lies furthest behind its share (Sainte-Laguë's
/// rule, with sizes). Every class gets at least one group in each part, or `EmptyClass` says how
/// many it needs.
pub(super) fn assign(
    classes: &[String],
    class_of: &[usize],
    groups: &[u32],
    shares: [u32; 3],
    seed: u64,
) -> Result<Vec<Split>, Fault> {
    let mut members: Vec<BTreeMap<u32, Vec<usize>>> = vec![BTreeMap::new(); classes.len()];
    for (index, (&class, &group)) in class_of.iter().zip(groups).enumerate() {
        members[class].entry(group).or_default().push(index);
    }
    let key = Key {
        seed,
        replicate: 0,
        purpose: "split",
        epoch: 0,
    };
    let mut splits = vec![Split::Train; class_of.len()];
    for (name, groups) in classes.iter().zip(&members) {
        if groups.len() < PARTS.len() {
            return Err(too_few(name, groups));
        }
        let groups: Vec<&Vec<usize>> = groups.values().collect();
        let mut order = key.named(name).permutation(groups.len());
        order.sort_by_key(|&group| std::cmp::Reverse(groups[group].len()));
        let mut filled = [0u64; 3];
        for (done, &group) in order.iter().enumerate() {
            let size = groups[group].len() as u64;
            let part = next_part(&filled, shares, size, order.len() - done);
            filled[part] += size;
            for &index in groups[group] {
                splits[index] = PARTS[part];
            }
        }
    }
    Ok(splits)
}

/// The part with the smallest (filled + size / 2) / share; when only as many groups are left as
/// there are empty parts, one of the empty ones.
fn next_part(filled: &[u64; 3], shares: [u32; 3], size: u64, left: usize) -> usize {
    let empty = filled.iter().filter(|count| **count == 0).count();
    let must_be_empty = left <= empty;
    let mut best: Option<usize> = None;
    for part in 0..3 {
        if must_be_empty && filled[part] > 0 {
            continue;
        }
        let behind =
            |p: usize, other: usize| u128::from(2 * filled[p] + size) * u128::from(shares[other]);
        if best.is_none_or(|best| behind(part, best) < behind(best, part)) {
            best = Some(part);
        }
    }
    best.unwrap_or(0)
}

fn too_few(name: &str, groups: &BTreeMap<u32, Vec<usize>>) -> Fault {
    let images: usize = groups.values().map(Vec::len).sum();
    let of_relatives = if images > groups.len() {
        format!(
            " in {} group(s) of relatives, which stay together",
            groups.len()
        )
    } else {
        String::new()
    };
    Fault::new(
        Code::EmptyClass,
        format!(
            "class `{name}` has {images} usable image(s){of_relatives}: a split into train, val \
             and test needs 3 unrelated ones"
        ),
    )
    .hint(format!("add images to `{name}` or take its folder out"))
}

/// Disjoint sets with path halving; the smallest member is the root.
struct Sets(Vec<usize>);

impl Sets {
    fn new(n: usize) -> Self {
        Self((0..n).collect())
    }

    fn root(&mut self, mut of: usize) -> usize {
        while self.0[of] != of {
            self.0[of] = self.0[self.0[of]];
            of = self.0[of];
        }
        of
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}
