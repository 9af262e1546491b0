use super::*;
use crate::oci::pack::tests::version;
use std::io::Read as _;

type Files<'a> = Vec<(&'a str, Vec<u8>)>;

fn layout(files: &Files<'_>) -> Result<Layout, Fault> {
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, bytes)| (*path, &bytes[..]))
        .collect();
    Layout::of(&version(&files).files)
}

/// What a range of the tar comes to.
fn bytes(files: &Files<'_>, pieces: Vec<Piece>) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
            Piece::Blob(digest, range) => {
                let file = files.iter().find(|(_, bytes)| Digest::of(bytes) == digest);
                let (_, bytes) = file.expect("a file's blob");
                all.extend_from_slice(&bytes[range.start as usize..range.end as usize]);
            }
        }
    }
    all
}

fn some() -> Files<'static> {
    vec![
        ("model.safetensors", vec![3; 1300]),
        ("MLmodel", vec![1; 512]),
        ("data/deep/x.bin", vec![2; 1]),
        ("data/empty", Vec::new()),
    ]
}

#[test]
fn any_reader_of_tars_finds_the_files() {
    let long = ["d".repeat(90), "e".repeat(90), "f".repeat(150)].join("/");
    let mut files = some();
    files.push((&long, vec![9; 700]));
    let layout = layout(&files).expect("a layout");
    let tar = bytes(&files, layout.between(&(0..layout.size())));
    assert_eq!(tar.len() as u64, layout.size());
    assert_eq!(layout.size() % 512, 0);
    let mut archive = tar::Archive::new(&tar[..]);
    let mut found = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        assert_eq!(
            (entry.header().uid().ok(), entry.header().mtime().ok()),
            (Some(0), Some(0))
        );
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its bytes");
            found.push((path, content));
        }
    }
    let mut wanted: Vec<(String, Vec<u8>)> = files
        .iter()
        .map(|(path, bytes)| (format!("models/{path}"), bytes.clone()))
        .collect();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn the_tar_is_the_same_for_ever() {
    let files = some();
    let layout = layout(&files).expect("a layout");
    let tar = bytes(&files, layout.between(&(0..layout.size())));
    // Whoever changes it breaks every pull of an image by digest.
    insta::assert_snapshot!(Digest::of(&tar).to_string());
    let mut other = files.clone();
    other.reverse();
    let turned = super::Layout::of(
        &version(
            &other
                .iter()
                .map(|(path, bytes)| (*path, &bytes[..]))
                .collect::<Vec<_>>(),
        )
        .files,
    )
    .expect("a layout");
    assert_eq!(turned.0, layout.0, "whatever the order of the list");
}

#[test]
fn every_range_is_a_part_of_the_whole() {
    let files = some();
    let layout = layout(&files).expect("a layout");
    let whole = bytes(&files, layout.between(&(0..layout.size())));
    let places = [
        0,
        1,
        511,
        512,
        513,
        1024,
        2000,
        3583,
        3584,
        4097,
        layout.size() - 1,
        layout.size(),
    ];
    for first in places {
        for last in places.into_iter().filter(|last| *last >= first) {
            let part = bytes(&files, layout.between(&(first..last)));
            assert_eq!(
                part,
                whole[first as usize..last as usize],
                "{first}..{last}"
            );
        }
    }
    // A range within one file touches no other blob.
    let touched = layout.between(&(layout.size() - 1024 - 236 - 1000..layout.size() - 1024 - 236));
    assert_eq!(touched, [Piece::Blob(Digest::of(&files[0].1), 300..1300)]);
}

#[test]
fn a_path_out_of_the_folder_is_refused() {
    for path in ["../x", "/etc/passwd", "a//b", "a/./b", "a\0b", "a\\b", ""] {
        assert!(layout(&vec![(path, vec![1])]).is_err(), "{path}");
    }
    assert!(
        layout(&vec![("a", vec![1]), ("a/b", vec![1])]).is_err(),
        "a file is no folder"
    );
}
