//! Folds of a cross-validation: which images are held out together.
//!
//! Pure: facts and a stream of draws in, folds out.

use crate::random::Key;
use std::collections::BTreeMap;

/// The fold of each image, below `count`. Groups of relatives stay together, and the images of each
/// class are spread as evenly as that allows: class by class, groups in random order are taken from
/// large to small, each to the fold with the fewest images of the class, then of all (the stratified
/// cross-validation of Kohavi 1995, with groups).
pub fn folds(labels: &[u32], groups: &[u32], count: u32, key: &Key) -> Vec<u32> {
    let mut by_class: BTreeMap<u32, BTreeMap<u32, Vec<usize>>> = BTreeMap::new();
    for (index, (&label, &group)) in labels.iter().zip(groups).enumerate() {
        let class = by_class.entry(label).or_default();
        class.entry(group).or_default().push(index);
    }
    let mut folds = vec![0; labels.len()];
    let mut all = vec![0usize; count as usize];
    for (label, groups) in by_class {
        let groups: Vec<Vec<usize>> = groups.into_values().collect();
        let mut order = key.named(&label.to_string()).permutation(groups.len());
        order.sort_by_key(|&group| std::cmp::Reverse(groups[group].len()));
        let mut own = vec![0usize; count as usize];
        for group in order {
            let fold = (0..count).min_by_key(|&fold| (own[fold as usize], all[fold as usize]));
            let fold = fold.unwrap_or(0);
            own[fold as usize] += groups[group].len();
            all[fold as usize] += groups[group].len();
            for &index in &groups[group] {
                folds[index] = fold;
            }
        }
    }
    folds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(repeat: u32) -> Key {
        Key {
            seed: 3,
            replicate: 0,
            purpose: "fold",
            epoch: repeat,
        }
    }

    /// Images of each class in each fold.
    fn table(labels: &[u32], folds: &[u32], count: u32) -> Vec<Vec<usize>> {
        let classes = labels.iter().max().map_or(0, |most| most + 1);
        let of = |class, fold| {
            let both = labels.iter().zip(folds);
            both.filter(|(l, f)| (**l, **f) == (class, fold)).count()
        };
        (0..classes)
            .map(|class| (0..count).map(|fold| of(class, fold)).collect())
            .collect()
    }

    #[test]
    fn classes_are_spread_evenly_and_so_are_all_images() {
        let labels: Vec<u32> = (0..53)
            .map(|i| u32::from(i % 7 == 0) + u32::from(i > 30))
            .collect();
        let groups: Vec<u32> = (0..53).collect();
        for repeat in 0..20 {
            let found = folds(&labels, &groups, 5, &key(repeat));
            for class in table(&labels, &found, 5) {
                let (least, most) = (class.iter().min(), class.iter().max());
                assert!(most.unwrap() - least.unwrap() <= 1, "{class:?}");
            }
            let sizes = table(&vec![0; 53], &found, 5).remove(0);
            assert_eq!(
                sizes.iter().max().unwrap() - sizes.iter().min().unwrap(),
                1,
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn relatives_stay_together_and_repeats_differ() {
        let labels = vec![0; 40];
        let groups: Vec<u32> = (0..40).map(|i| i / 4).collect();
        let first = folds(&labels, &groups, 3, &key(0));
        assert!(
            first
                .chunks(4)
                .all(|group| group.iter().all(|fold| *fold == group[0]))
        );
        assert_eq!(first, folds(&labels, &groups, 3, &key(0)));
        assert_ne!(first, folds(&labels, &groups, 3, &key(1)));
    }

    #[test]
    fn a_class_of_one_image_is_in_one_fold() {
        let found = folds(&[0, 1, 1, 1], &[0, 1, 2, 3], 3, &key(0));
        assert_eq!(table(&[0, 1, 1, 1], &found, 3)[1], [1, 1, 1]);
        assert!(found.iter().all(|fold| *fold < 3));
    }
}
