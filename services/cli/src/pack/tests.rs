//! Folders as tars.

use super::*;
use std::os::unix::fs::symlink;

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn names(packed: &Packed) -> Vec<String> {
    let mut archive = tar::Archive::new(File::open(packed.file.path()).unwrap());
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(header.mtime().unwrap(), 0);
            assert_eq!(header.uid().unwrap(), 0);
            let path = entry.path().unwrap().display().to_string();
            format!(
                "{:?} {path} {}",
                header.entry_type(),
                header.size().unwrap()
            )
        })
        .collect()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "rose/b.png", b"bb");
    write(root, "rose/a b ä.png", b"a");
    write(root, "tulip/1/deep.jpg", b"deep");
    std::fs::create_dir(root.join("empty")).unwrap();
    symlink("/etc/passwd", root.join("rose/link.png")).unwrap();
    symlink("..", root.join("tulip/up")).unwrap();
    folder
}

#[test]
fn links_are_recorded_and_not_followed_and_empty_classes_are_seen() {
    let folder = folder();
    let listing = walk(folder.path()).unwrap();
    assert_eq!((listing.files, listing.bytes), (3, 7));
    let packed = pack(&listing, |_| Ok(())).unwrap();
    assert_eq!(
        names(&packed),
        [
            "Directory empty 0",
            "Regular rose/a b ä.png 1",
            "Regular rose/b.png 2",
            "Symlink rose/link.png 0",
            "Regular tulip/1/deep.jpg 4",
            "Symlink tulip/up 0",
        ]
    );
    assert_eq!(
        packed.digest,
        Digest::of(&std::fs::read(packed.file.path()).unwrap())
    );
}

#[test]
fn the_same_content_has_the_same_digest() {
    let digest = |folder: &tempfile::TempDir| {
        pack(&walk(folder.path()).unwrap(), |_| Ok(()))
            .unwrap()
            .digest
    };
    assert_eq!(digest(&folder()), digest(&folder()));
}

#[test]
fn names_longer_than_a_header_survive() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("class/{}.png", "x".repeat(180));
    write(folder.path(), &long, b"x");
    let packed = pack(&walk(folder.path()).unwrap(), |_| Ok(())).unwrap();
    assert_eq!(names(&packed), [format!("Regular {long} 1")]);
}

#[test]
fn a_missing_folder_and_a_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "file", b"");
    let fault = walk(&folder.path().join("nothing")).unwrap_err();
    assert_eq!(fault.code, Code::BadDatasetPath);
    let fault = walk(&folder.path().join("file")).unwrap_err();
    assert_eq!(fault.code, Code::BadDatasetPath);
    assert!(fault.hint.is_some());
}

#[test]
fn pictures_of_one_name_do_not_collide() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a/x.png", b"1");
    write(folder.path(), "b/x.png", b"22");
    let files = [("00000/x.png", "a/x.png"), ("00001/x.png", "b/x.png")]
        .map(|(name, path)| (name.to_owned(), folder.path().join(path)));
    let packed = pack_pictures(&files).unwrap();
    assert_eq!(
        names(&packed),
        ["Regular 00000/x.png 1", "Regular 00001/x.png 2"]
    );
}

#[test]
fn packing_ends_when_it_is_told_to() {
    let folder = folder();
    let stop = |_| Err(Fault::new(Code::LocalFile, "enough"));
    let fault = pack(&walk(folder.path()).unwrap(), stop).unwrap_err();
    assert_eq!(fault.message, "enough");
}
