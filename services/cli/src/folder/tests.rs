//! Pulled folders: whole or not there, and never anything but the version.

use super::*;
use pomona_domain::model::{Lineage, Origin};
use pomona_domain::{ExperimentId, Timestamp, TrialId, VersionId};
use std::collections::BTreeMap;

const FILES: [(&str, &[u8]); 3] = [
    ("README.md", b"# tux"),
    ("config.json", b"{}"),
    ("onnx/model.onnx", b"graph"),
];

fn version() -> Version {
    let files: Vec<ModelFile> = FILES
        .iter()
        .map(|(path, bytes)| ModelFile {
            path: (*path).to_owned(),
            sha256: Digest::of(bytes).hex(),
            size: bytes.len() as u64,
        })
        .collect();
    Version {
        id: VersionId(1),
        model: "tux".to_owned(),
        number: 3,
        digest: version_digest(&files),
        files,
        origin: Origin::Trained(Lineage {
            experiment: ExperimentId(1),
            trial: TrialId(1),
            step: 10,
            seed: 7,
            checkpoint: Digest::of(b"c"),
            dataset: Digest::of(b"d"),
            backbone: Digest::of(b"b"),
            code: "0.1.0".to_owned(),
        }),
        metrics: BTreeMap::new(),
        gates: Vec::new(),
        created_at: Timestamp(0),
    }
}

fn fill(staging: &Staging, version: &Version) {
    for (file, (_, bytes)) in version.files.iter().zip(FILES) {
        std::fs::write(staging.place(file).unwrap(), bytes).unwrap();
    }
}

fn pulled() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("deep/model");
    let staging = Staging::new(&target).unwrap();
    fill(&staging, &version());
    staging.finish(&version()).unwrap();
    (home, target)
}

#[test]
fn a_pulled_folder_is_the_version_and_nothing_is_left_beside_it() {
    let (home, target) = pulled();
    assert_eq!(check(&target, &version()).unwrap(), version().digest);
    let beside = std::fs::read_dir(home.path().join("deep")).unwrap().count();
    assert_eq!(beside, 1);
    assert_eq!(super::target(&target, &version()).unwrap(), Target::Same);
}

#[test]
fn an_empty_folder_may_be_in_the_way() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(
        super::target(home.path(), &version()).unwrap(),
        Target::Free
    );
    let target = home.path().join("model");
    std::fs::create_dir(&target).unwrap();
    let staging = Staging::new(&target).unwrap();
    fill(&staging, &version());
    staging.finish(&version()).unwrap();
    assert!(check(&target, &version()).is_ok());
}

#[test]
fn another_folder_is_refused_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("mine.txt"), "mine").unwrap();
    let fault = super::target(home.path(), &version()).unwrap_err();
    assert_eq!(fault.code, Code::AlreadyExists);
    assert!(home.path().join("mine.txt").exists());
}

#[test]
fn every_kind_of_tampering_is_named() {
    let (_home, target) = pulled();
    let complaint = || check(&target, &version()).unwrap_err().message;

    std::fs::write(target.join("config.json"), "[]").unwrap();
    assert!(
        complaint().contains("`config.json` has other bytes"),
        "{}",
        complaint()
    );

    std::fs::write(target.join("config.json"), "[1]").unwrap();
    assert!(
        complaint().contains("`config.json` has 3 bytes instead of 2"),
        "{}",
        complaint()
    );

    std::fs::remove_file(target.join("config.json")).unwrap();
    assert!(
        complaint().contains("`config.json` is missing"),
        "{}",
        complaint()
    );

    std::fs::write(target.join("config.json"), "{}").unwrap();
    std::fs::write(target.join("extra"), "").unwrap();
    assert!(
        complaint().contains("`extra` is not part of it"),
        "{}",
        complaint()
    );
}

#[test]
fn a_link_in_place_of_a_file_is_refused() {
    let (_home, target) = pulled();
    let other = target.parent().unwrap().join("other");
    std::fs::rename(target.join("config.json"), &other).unwrap();
    std::os::unix::fs::symlink(&other, target.join("config.json")).unwrap();
    let fault = check(&target, &version()).unwrap_err();
    assert_eq!(fault.code, Code::DigestMismatch);
    assert!(
        fault.message.contains("no ordinary file"),
        "{}",
        fault.message
    );
}

#[test]
fn a_download_with_other_bytes_never_comes_to_stand() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("model");
    let staging = Staging::new(&target).unwrap();
    fill(&staging, &version());
    std::fs::write(staging.place(&version().files[0]).unwrap(), "# not").unwrap();
    let fault = staging.finish(&version()).unwrap_err();
    assert_eq!(fault.code, Code::DigestMismatch);
    assert!(!target.exists());
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_registry_that_names_files_outside_the_folder_is_refused() {
    for path in ["../evil", "/etc/evil", "a/../../evil", ""] {
        let mut version = version();
        version.files[0].path = path.to_owned();
        version.digest = version_digest(&version.files);
        assert_eq!(
            check_listing(&version).unwrap_err().code,
            Code::BadName,
            "{path}"
        );
    }
}

#[test]
fn a_registry_whose_digest_is_not_that_of_its_files_is_refused() {
    let mut version = version();
    version.files[0].size += 1;
    assert_eq!(
        check_listing(&version).unwrap_err().code,
        Code::DigestMismatch
    );
}
