//! Folders of every kind become manifests, or say why not.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "data_fixtures/pictures.rs"]
mod pictures;

use image::ImageFormat;
use pictures::{Folder, encoded, manifest, options, picture, png};
use pomona_domain::Code;
use pomona_domain::dataset::{ImportOptions, SetAside, Split};
use std::collections::{BTreeMap, BTreeSet};

fn refusal(folder: Folder, options: &ImportOptions) -> (Code, String) {
    let fault = folder.pack().import(options).unwrap_err();
    (fault.code, fault.message)
}

#[test]
fn a_folder_of_classes_becomes_a_stratified_split() {
    let packed = Folder::with_classes(&[("pear", 10), ("apple", 20)]).pack();
    let imported = packed.import(&options()).unwrap();
    let classes = &imported.summary.classes;
    assert_eq!(classes["apple"], [12, 4, 4]);
    assert_eq!(classes["pear"], [6, 2, 2]);
    assert_eq!(imported.summary.groups, 30);
    assert_eq!(imported.summary.duplicates, 0);
    assert!(imported.summary.set_aside.is_empty());
    let manifest = manifest(&imported);
    assert_eq!(manifest.classes, ["apple", "pear"]);
    assert_eq!(manifest.archive, packed.digest);
    assert!(manifest.samples.is_sorted_by_key(|sample| &sample.path));
}

#[test]
fn the_same_folder_gives_the_same_bytes_whatever_the_threads() {
    let packed = Folder::with_classes(&[("a", 9), ("b", 7)])
        .file("a/broken.png", b"\x89PNG\r\n\x1a\nrest")
        .pack();
    let digests: BTreeSet<_> = [1, 2, 7]
        .map(|threads| packed.import_with(&options(), threads).unwrap().digest)
        .into();
    assert_eq!(digests.len(), 1);
    let other_seed = ImportOptions {
        seed: 1,
        ..options()
    };
    assert!(!digests.contains(&packed.import(&other_seed).unwrap().digest));
}

/// The order of entries in the tar is no part of the data.
#[test]
fn the_order_of_the_tar_does_not_matter() {
    let there = Folder::with_classes(&[("a", 5), ("b", 5)]).pack();
    let mut back = Folder::new();
    for (class, name) in ["b", "a"].into_iter().enumerate() {
        for n in (0..5).rev() {
            let seed = (1 - class as u32) * 1000 + n;
            back = back.file(&format!("{name}/{n:02}.png"), &png(seed));
        }
    }
    let samples = |imported| manifest(&imported).samples;
    assert_eq!(
        samples(there.import(&options()).unwrap()),
        samples(back.pack().import(&options()).unwrap())
    );
}

#[test]
fn files_that_cannot_be_used_are_set_aside_with_their_reason() {
    let mut cut_png = png(1);
    cut_png.truncate(cut_png.len() / 2);
    let mut cut_jpeg = encoded(picture(2, 40, 40), ImageFormat::Jpeg);
    cut_jpeg.truncate(cut_jpeg.len() * 2 / 3);
    let packed = Folder::with_classes(&[("a", 4), ("b", 4)])
        .file("a/cut.png", &cut_png)
        .file("a/cut.jpg", &cut_jpeg)
        .file("a/notes.txt", b"no image")
        .file("a/named.jpeg", b"no image either")
        .file("a/empty.png", b"")
        .file("a/old.tif", b"II*\0and so on")
        .file("a/huge.bmp", &huge_bmp())
        .file("a/huge.png", &huge_png())
        .file("stray.png", &png(77))
        .link("a/link.png", "/etc/passwd")
        .link("c", "/")
        .file(".DS_Store", b"x")
        .file("a/.hidden.png", &png(5))
        .file("b/Thumbs.db", b"x")
        .file("__MACOSX/a/._00.png", b"x")
        .pack();
    let imported = packed.import(&options()).unwrap();
    let expected: BTreeMap<String, u32> = [
        ("corrupt", 4),
        ("ignored", 4),
        ("link", 2),
        ("no_class", 1),
        ("not_an_image", 2),
        ("too_many_pixels", 2),
    ]
    .map(|(why, n)| (why.to_owned(), n))
    .into();
    assert_eq!(imported.summary.set_aside, expected);
    let manifest = manifest(&imported);
    assert_eq!(manifest.samples.len(), 8);
    assert_eq!(manifest.problems, imported.summary.problems);
    assert!(manifest.problems.is_sorted_by_key(|problem| &problem.path));
    let of = |path: &str| {
        let problem = manifest
            .problems
            .iter()
            .find(|problem| problem.path == path);
        let problem = problem.unwrap();
        (problem.why, problem.detail.as_str())
    };
    assert_eq!(
        of("a/cut.jpg"),
        (SetAside::Corrupt, "is a JPEG that is cut off")
    );
    assert_eq!(of("a/named.jpeg").0, SetAside::Corrupt);
    assert_eq!(
        of("a/huge.png"),
        (
            SetAside::TooManyPixels,
            "has 20000 × 20000 pixels, the limit is 100 megapixels"
        )
    );
    assert_eq!(
        of("a/link.png"),
        (SetAside::Link, "is a link, which is not followed")
    );
    assert_eq!(
        of("stray.png"),
        (SetAside::NoClass, "lies in no class folder")
    );
}

/// Only a header: had anything been allocated or decoded first, it would be called corrupt.
fn huge_bmp() -> Vec<u8> {
    let mut file = b"BM".to_vec();
    for word in [
        54u32 + 1_200_000_000,
        0,
        54,
        40,
        20_000,
        20_000,
        1 | 24 << 16,
        0,
        0,
        0,
        0,
        0,
        0,
    ] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file
}

fn huge_png() -> Vec<u8> {
    let mut file = png(0);
    file[16..20].copy_from_slice(&20_000u32.to_be_bytes());
    file[20..24].copy_from_slice(&20_000u32.to_be_bytes());
    let mut crc = u32::MAX;
    for byte in &file[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    file[29..33].copy_from_slice(&(!crc).to_be_bytes());
    file
}

#[test]
fn names_may_have_spaces_and_letters_of_any_script() {
    let classes = [("Äpfel & Birnen", 4), ("белый гриб", 4), ("桜 の花", 4)];
    let imported = Folder::with_classes(&classes)
        .pack()
        .import(&options())
        .unwrap();
    let names: Vec<_> = imported.summary.classes.keys().cloned().collect();
    assert_eq!(names, classes.map(|(name, _)| name));
}

#[test]
fn one_folder_around_all_is_left_out_of_account() {
    let inner = Folder::with_classes(&[("set/a", 4), ("set/b/deep", 2), ("set/b/er", 2)])
        .folder("set")
        .file("set/README.md", b"about")
        .pack();
    let imported = inner.import(&options()).unwrap();
    let names: Vec<_> = imported.summary.classes.keys().cloned().collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(imported.summary.set_aside["no_class"], 1);
    assert!(manifest(&imported).samples[0].path.starts_with("set/a/"));
}

#[test]
fn folders_that_are_no_data_set_are_refused_with_their_code() {
    let cases = [
        (Folder::new(), Code::EmptyDataset, "no class folder"),
        (
            Folder::new().file("a.png", &png(1)),
            Code::EmptyDataset,
            "no class folder",
        ),
        (
            Folder::with_classes(&[("only", 5)]),
            Code::OneClass,
            "`only`",
        ),
        (
            Folder::with_classes(&[("a", 4)]).folder("b"),
            Code::EmptyClass,
            "class `b` has no usable image",
        ),
        (
            Folder::with_classes(&[("a", 4)]).file("b/broken.png", b"x"),
            Code::EmptyClass,
            "class `b` has no usable image (1 files were set aside, the first is `b/broken.png`",
        ),
        (
            Folder::with_classes(&[("a", 4), ("b", 2)]),
            Code::EmptyClass,
            "class `b` has 2 usable image(s): a split into train, val and test needs 3",
        ),
        (
            Folder::new().file("a/x.png", b"x").file("b/x.png", b"x"),
            Code::EmptyDataset,
            "no usable image",
        ),
    ];
    for (folder, code, text) in cases {
        let (found, message) = refusal(folder, &options());
        assert_eq!(found, code, "{message}");
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let fine = || Folder::with_classes(&[("a", 4), ("b", 4)]);
    for split in [[60, 20, 10], [100, 0, 0], [60, 60, u32::MAX]] {
        let options = ImportOptions { split, ..options() };
        assert_eq!(refusal(fine(), &options).0, Code::BadSplit);
    }
    for pattern in ["(", "x{1000}{1000}", &"x".repeat(2000)] {
        let group_pattern = Some(pattern.to_owned());
        let options = ImportOptions {
            group_pattern,
            ..options()
        };
        assert_eq!(refusal(fine(), &options).0, Code::BadRequest);
    }
    let options = ImportOptions {
        image_size: 7,
        ..options()
    };
    assert_eq!(refusal(fine(), &options).0, Code::OutOfRange);
}

#[test]
fn a_tar_that_is_cut_off_is_refused() {
    let packed = Folder::with_classes(&[("a", 4), ("b", 4)]).pack();
    let whole = std::fs::read(&packed.archive).unwrap();
    // In a header, in a file, in the zeros after a file, between two files, before the end's zeros.
    for length in [100, 700, 3000, 1024, whole.len() - 1024, whole.len() - 1] {
        std::fs::write(&packed.archive, &whole[..length]).unwrap();
        let fault = packed.import(&options()).unwrap_err();
        assert_eq!(
            fault.code,
            Code::CorruptDataset,
            "{length}: {}",
            fault.message
        );
    }
}

#[test]
fn relatives_stay_in_one_part() {
    let mut folder = Folder::with_classes(&[("a", 12), ("b", 12)]);
    for n in 0..6 {
        // A mirror image in pixels only, under a name that tells nothing; a copy in another
        // format; and a different picture whose name says that it is a relative.
        let mut mirrored = picture(n, 12, 10);
        image::imageops::flip_horizontal_in_place(&mut mirrored);
        let mirrored = encoded(mirrored, ImageFormat::Png);
        let copy = encoded(picture(n, 12, 10), ImageFormat::Bmp);
        folder = folder
            .file(&format!("a/m{n}.png"), &mirrored)
            .file(&format!("a/deep/c{n}.bmp"), &copy)
            .file(&format!("a/{n:02}_mirror.png"), &png(500 + n));
    }
    let packed = folder.pack();
    let options = ImportOptions {
        group_pattern: Some("_mirror$".into()),
        ..options()
    };
    let imported = packed.import(&options).unwrap();
    assert_eq!(imported.summary.duplicates, 12);
    assert_eq!(imported.summary.groups, 24);
    let manifest = manifest(&imported);
    let by_path: BTreeMap<&str, (u32, Split)> = manifest
        .samples
        .iter()
        .map(|sample| (sample.path.as_str(), (sample.group, sample.split)))
        .collect();
    for n in 0..6 {
        let base = by_path[format!("a/{n:02}.png").as_str()];
        for relative in [
            format!("a/m{n}.png"),
            format!("a/deep/c{n}.bmp"),
            format!("a/{n:02}_mirror.png"),
        ] {
            assert_eq!(by_path[relative.as_str()], base, "{relative}");
        }
    }
}

#[test]
fn the_same_pixels_in_two_classes_are_set_aside_in_both() {
    let same = encoded(picture(0, 12, 10), ImageFormat::Bmp);
    let imported = Folder::with_classes(&[("a", 5), ("b", 5)])
        .file("b/same.bmp", &same)
        .pack()
        .import(&options())
        .unwrap();
    assert_eq!(imported.summary.set_aside["conflicting_label"], 2);
    let paths: Vec<_> = imported
        .summary
        .problems
        .iter()
        .map(|p| p.path.as_str())
        .collect();
    assert_eq!(paths, ["a/00.png", "b/same.bmp"]);
    assert_eq!(
        imported.summary.problems[0].detail,
        "has the same pixels as an image of `b`"
    );
}
