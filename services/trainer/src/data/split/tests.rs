use super::*;
use proptest::prelude::*;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn image(class: usize, pixels: &str, mirror: &str, stem: Option<&str>) -> Facts {
    Facts {
        class,
        stem: stem.map(str::to_owned),
        pixels: digest(pixels),
        mirror: digest(mirror),
    }
}

#[test]
fn copies_and_mirror_images_of_one_class_are_relatives() {
    let groups = relatives(&[
        image(0, "ab", "ba", None),
        image(0, "xy", "yx", None),
        image(0, "ab", "ba", None),
        image(0, "yx", "xy", None),
        image(1, "ba", "ab", None),
    ]);
    assert_eq!(groups.of, [0, 1, 0, 1, 2]);
    assert_eq!(groups.duplicates, 2);
}

#[test]
fn a_symmetric_picture_is_no_copy_of_itself() {
    let groups = relatives(&[image(0, "aa", "aa", None), image(0, "bb", "bb", None)]);
    assert_eq!((groups.of, groups.duplicates), (vec![0, 1], 0));
}

#[test]
fn a_stem_joins_within_its_class_and_relatives_are_transitive() {
    let groups = relatives(&[
        image(0, "1", "1m", Some("crow")),
        image(0, "2", "2m", Some("owl")),
        image(0, "2m", "2", Some("crow")),
        image(1, "3", "3m", Some("crow")),
    ]);
    assert_eq!(groups.of, [0, 0, 0, 1]);
}

#[test]
fn singles_are_shared_out_exactly() {
    let class_of = vec![0; 35];
    let groups: Vec<u32> = (0..35).collect();
    let splits = assign(&["a".into()], &class_of, &groups, [60, 20, 20], 0).unwrap();
    assert_eq!(counts(&splits), [21, 7, 7]);
}

#[test]
fn three_groups_fill_three_parts() {
    let splits = assign(&["a".into()], &[0, 0, 0], &[0, 1, 2], [98, 1, 1], 5).unwrap();
    assert_eq!(counts(&splits), [1, 1, 1]);
}

#[test]
fn two_groups_are_too_few() {
    let fault = assign(&["a".into()], &[0; 5], &[0, 0, 0, 1, 1], [60, 20, 20], 0).unwrap_err();
    assert_eq!(fault.code, Code::EmptyClass);
    assert_eq!(
        fault.message,
        "class `a` has 5 usable image(s) in 2 group(s) of relatives, which stay together: a split \
         into train, val and test needs 3 unrelated ones"
    );
}

#[test]
fn another_seed_is_another_split() {
    let groups: Vec<u32> = (0..100).collect();
    let of = |seed| assign(&["a".into()], &[0; 100], &groups, [60, 20, 20], seed).unwrap();
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

fn counts(splits: &[Split]) -> [usize; 3] {
    PARTS.map(|part| splits.iter().filter(|split| **split == part).count())
}

proptest! {
    #[test]
    fn groups_stay_whole_and_no_part_is_empty(
        sizes in prop::collection::vec(1usize..6, 3..60),
        seed: u64,
        train in 1u32..98,
        val in 1u32..50,
    ) {
        let val = val.min(99 - train);
        let shares = [train, val, 100 - train - val];
        let groups: Vec<u32> = sizes
            .iter()
            .enumerate()
            .flat_map(|(group, &size)| std::iter::repeat_n(group as u32, size))
            .collect();
        let splits = assign(&["a".into()], &vec![0; groups.len()], &groups, shares, seed).unwrap();
        let mut of_group = BTreeMap::new();
        for (group, split) in groups.iter().zip(&splits) {
            prop_assert_eq!(*of_group.entry(group).or_insert(*split), *split);
        }
        let found = counts(&splits);
        prop_assert!(found.iter().all(|count| *count > 0));
        // As close to the shares as groups of at most five allow, but for the reserved ones.
        for part in 0..3 {
            let wanted = groups.len() as f64 * f64::from(shares[part]) / 100.0;
            prop_assert!((found[part] as f64 - wanted).abs() <= 11.0, "{:?} {:?}", found, shares);
        }
    }
}
