//! Backups, made while others write and collect, and opened again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::trial::Trial;
use pomona_domain::{Change, Code, Digest};
use pomona_store::{BLOB_GRACE_MS, BLOB_KEEP_MS, BackupReport, PageRequest, Store};
use tokio::sync::watch;

use crate::harness::{Home, Leader, blob_file, check, in_folder, open, read};
use crate::rows::{
    at, checkpoint, dataset, experiment, observation, of_dataset, of_experiment, of_trial, trial,
};

mod sqlite {
    crate::harness::tests_on!(
        Sqlite,
        a_backup_opens_as_the_store_was,
        a_backup_survives_its_source,
        a_backup_made_amid_commits_and_collections_has_every_blob,
        a_folder_with_something_in_it_is_left_alone,
        a_store_that_lost_a_blob_has_no_backup,
    );
}

/// Something that hangs fails in a minute instead of for ever.
const HANGS: Duration = Duration::from_mins(1);

/// Puts a backup in the place of a data folder, as the manual says.
pub fn restore(backup: &Path, folder: &Path) {
    fs::create_dir(folder).unwrap();
    fs::copy(backup.join("pomona.db"), folder.join("pomona.db")).unwrap();
    copy_folder(&backup.join("blobs"), &folder.join("blobs"));
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The list of a finished backup.
fn list(target: &Path) -> BTreeMap<Digest, u64> {
    let text = fs::read_to_string(target.join("blobs.json")).unwrap();
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entry = |entry: &serde_json::Value| {
        let digest = entry["digest"].as_str().unwrap().parse().unwrap();
        (digest, entry["size"].as_u64().unwrap())
    };
    list["blobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(entry)
        .collect()
}

/// A leader whose store refers to three blobs and has a fourth, and the four digests.
async fn filled(home: &Home) -> (Leader, Trial, [Digest; 4]) {
    let mut leader = home.lead().await;
    let mut digests = [Digest::of(b""); 4];
    for (digest, bytes) in digests
        .iter_mut()
        .zip([&b"manifest"[..], b"archive", b"weights", b"x"])
    {
        *digest = leader.put(bytes, at(0)).await.digest;
    }
    let owner = experiment(1);
    let row = trial(owner.id, 1);
    leader
        .commit(&[
            of_experiment(&owner),
            of_trial(&row),
            of_dataset(&dataset("flowers", 1, digests[0], digests[1])),
            Change::Checkpoint(checkpoint(row.id, CheckpointKind::Last, digests[2])),
            Change::Observed(observation(row.id, 1)),
        ])
        .await;
    (leader, row, digests)
}

async fn a_backup_opens_as_the_store_was(home: Home) {
    let (mut leader, row, digests) = filled(&home).await;
    let store = leader.store.clone();
    let target = home.path().join("a backup");
    let report = store.backup(&target).await.unwrap();
    assert_eq!(names(&target), ["blobs", "blobs.json", "pomona.db"]);
    let database = fs::metadata(target.join("pomona.db")).unwrap().len();
    let expect = BackupReport {
        blobs: 3,
        bytes: database + 22,
    };
    assert_eq!(report, expect);
    let sizes = digests[..3].iter().copied().zip([8, 7, 7]);
    assert_eq!(list(&target), sizes.collect());
    let before = store.load().await.unwrap();
    // What happens later is not in it.
    leader
        .commit(&[Change::Observed(observation(row.id, 2))])
        .await;
    let folder = home.path().join("restored");
    restore(&target, &folder);
    let mut restored = Leader::of(open(in_folder(&folder)).await).await;
    assert_eq!(restored.store.load().await.unwrap(), before);
    assert_eq!(restored.last, 1);
    assert!(
        restored.generation > leader.generation,
        "the old leader stays out"
    );
    let page = restored
        .store
        .observation_list(row.id, &PageRequest::default())
        .await;
    assert_eq!(page.unwrap().items, [observation(row.id, 1)]);
    for digest in &digests[..3] {
        read(&restored.store, *digest).await.unwrap();
    }
    assert_eq!(restored.store.blob_stat(digests[3]).await.unwrap(), None);
    let unknown = Change::Checkpoint(checkpoint(row.id, CheckpointKind::Best, digests[3]));
    assert_eq!(restored.refused(&[unknown]).await, Code::BlobMissing);
    restored
        .commit(&[Change::Observed(observation(row.id, 3))])
        .await;
}

async fn a_backup_survives_its_source(home: Home) {
    let (mut leader, row, digests) = filled(&home).await;
    let target = home.path().join("backup");
    leader.store.backup(&target).await.unwrap();
    // The blob is replaced and collected, and the next one is changed on the disk.
    let next = leader.put(b"next", at(0)).await.digest;
    let replaced = Change::Checkpoint(checkpoint(row.id, CheckpointKind::Last, next));
    leader.commit(&[replaced]).await;
    leader.store.blob_gc(at(1_000_000)).await.unwrap();
    leader.store.blob_gc(at(2_000_000)).await.unwrap();
    assert!(!home.blob_file(digests[2]).exists());
    fs::remove_file(home.blob_file(digests[0])).unwrap();
    let store = open(in_folder(&target)).await;
    for (digest, bytes) in digests
        .iter()
        .zip([&b"manifest"[..], b"archive", b"weights"])
    {
        assert_eq!(read(&store, *digest).await.unwrap(), bytes);
    }
}

/// Replaces a trial's checkpoint and collects, with a clock that runs away, until nobody listens;
/// tells how many blobs it removed.
async fn churn(mut leader: Leader, mut row: Trial, removed: watch::Sender<u64>) {
    let mut now = at(0);
    while !removed.is_closed() {
        row.version += 1;
        row.last_step += 1;
        let bytes = format!("checkpoint {}", row.last_step);
        let digest = leader.put(bytes.as_bytes(), now).await.digest;
        let mut newest = checkpoint(row.id, CheckpointKind::Last, digest);
        newest.step = row.last_step;
        leader
            .commit(&[of_trial(&row), Change::Checkpoint(newest)])
            .await;
        now = now.plus_ms(BLOB_KEEP_MS + BLOB_GRACE_MS);
        let gone = leader.store.blob_gc(now).await.unwrap().removed;
        removed.send_modify(|removed| *removed += gone);
    }
}

/// Opens a backup and looks at all of it; says at which step the trial is.
async fn inspect(home: &Home, target: &Path) -> u64 {
    let list = list(target);
    let store = open(in_folder(target)).await;
    let raw = sea_orm::Database::connect(in_folder(target).url)
        .await
        .unwrap();
    check(&raw, home.backend).await;
    let loaded = store.load().await.unwrap();
    let (trial, newest) = (&loaded.trials[0], &loaded.checkpoints[0]);
    let of = |digest| read(&store, digest);
    if newest.step == trial.last_step {
        let expect = format!("checkpoint {}", trial.last_step);
        assert_eq!(of(newest.digest).await.unwrap(), expect.as_bytes());
    } else {
        assert_eq!(
            trial.last_step, 0,
            "the trial and its checkpoint are of one batch"
        );
    }
    for digest in list.keys() {
        of(*digest).await.unwrap();
    }
    assert!(list.contains_key(&newest.digest));
    trial.last_step
}

async fn a_backup_made_amid_commits_and_collections_has_every_blob(home: Home) {
    let (leader, row, _) = filled(&home).await;
    // As the backup command does: with a store of its own.
    let other: Store = home.open().await;
    let (sender, mut removed) = watch::channel(0);
    let churning = tokio::spawn(churn(leader, row, sender));
    let mut targets: Vec<PathBuf> = Vec::new();
    for number in 0..12 {
        // Something goes between any two of them.
        let before = *removed.borrow_and_update();
        let going = removed.wait_for(|removed| *removed > before);
        tokio::time::timeout(HANGS, going).await.unwrap().unwrap();
        let target = home.path().join(format!("backup-{number}"));
        other.backup(&target).await.unwrap();
        targets.push(target);
    }
    drop(removed);
    churning.await.unwrap();
    let mut steps = Vec::new();
    for target in &targets {
        steps.push(inspect(&home, target).await);
    }
    assert!(
        steps.is_sorted_by(|a, b| a < b),
        "the store moved on: {steps:?}"
    );
}

async fn a_folder_with_something_in_it_is_left_alone(home: Home) {
    let (leader, ..) = filled(&home).await;
    let target = home.path().join("backup");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("mine.txt"), "mine").unwrap();
    let error = leader.store.backup(&target).await.unwrap_err();
    assert_eq!(error.code(), Code::BadDataDir);
    assert_eq!(names(&target), ["mine.txt"]);
    fs::remove_file(target.join("mine.txt")).unwrap();
    leader.store.backup(&target).await.unwrap();
    let again = leader.store.backup(&target).await.unwrap_err();
    assert_eq!(again.code(), Code::BadDataDir);
}

async fn a_store_that_lost_a_blob_has_no_backup(home: Home) {
    let (leader, _, digests) = filled(&home).await;
    let file = home.blob_file(digests[1]);
    for (bytes, code) in [
        (None, Code::BlobMissing),
        (Some("short"), Code::BlobCorrupt),
    ] {
        fs::remove_file(&file).unwrap();
        if let Some(bytes) = bytes {
            fs::write(&file, bytes).unwrap();
        }
        let target = home.path().join(format!("backup-{code:?}"));
        assert_eq!(leader.store.backup(&target).await.unwrap_err().code(), code);
        assert!(!target.join("blobs.json").exists(), "it is not finished");
        leader.put(b"archive", at(0)).await;
        let target = home.path().join(format!("repaired-{code:?}"));
        leader.store.backup(&target).await.unwrap();
        let copy = blob_file(&target.join("blobs"), digests[1]);
        assert_eq!(fs::read(copy).unwrap(), b"archive");
    }
}
