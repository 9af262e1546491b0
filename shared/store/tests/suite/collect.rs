//! Collection: what nothing refers to goes after its time, and nothing else ever does.

use std::fs::{self, File};

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::task::TaskState;
use pomona_domain::{Change, Code, Digest, Timestamp, TrialId};
use pomona_store::{BLOB_GRACE_MS, BLOB_KEEP_MS, GC_BATCH, GcReport, Store};

use crate::harness::{Home, Leader, execute, for_each_place, read, tests_on};
use crate::rows::{at, checkpoint, experiment, import, of_experiment, of_task, of_trial, trial};

for_each_place!(
    a_blob_goes_after_its_time_and_the_grace,
    a_marked_blob_comes_back_when_it_is_needed,
    a_reference_that_ends_lets_its_blob_go,
    a_collection_that_was_killed_is_finished,
    an_upload_brings_back_what_was_being_deleted,
    one_call_has_a_limit,
);

mod folder_with_sqlite {
    super::tests_on!(
        Sqlite,
        a_file_without_a_row_is_adopted_and_collected,
        a_file_without_a_row_that_is_needed_stays,
        nothing_is_removed_while_a_backup_runs,
    );
}
mod folder_with_postgres {
    super::tests_on!(
        Postgres,
        a_file_without_a_row_is_adopted_and_collected,
        a_file_without_a_row_that_is_needed_stays,
        nothing_is_removed_while_a_backup_runs,
    );
}

/// The last moment that an upload at `at(0)` is kept for.
const KEPT: Timestamp = Timestamp(crate::rows::START.0 + BLOB_KEEP_MS);

async fn gc(store: &Store, now: Timestamp) -> (u64, u64) {
    let report = store.blob_gc(now).await.unwrap();
    (report.marked, report.removed)
}

/// A leader whose store has trials 1 and 2 of an experiment.
pub async fn with_trials(home: &Home) -> (Leader, [TrialId; 2]) {
    let mut leader = home.lead().await;
    let owner = experiment(1);
    let trials = [trial(owner.id, 1), trial(owner.id, 2)];
    leader
        .commit(&[
            of_experiment(&owner),
            of_trial(&trials[0]),
            of_trial(&trials[1]),
        ])
        .await;
    (leader, trials.map(|row| row.id))
}

/// A trial's newest checkpoint becomes a blob.
pub fn refer(trial: TrialId, digest: Digest) -> Change {
    Change::Checkpoint(checkpoint(trial, CheckpointKind::Last, digest))
}

async fn a_blob_goes_after_its_time_and_the_grace(home: Home) {
    let store = home.open().await;
    let stat = store.blob_put(b"abc", at(0)).await.unwrap();
    assert_eq!(gc(&store, KEPT).await, (0, 0), "its time has not passed");
    let marked = KEPT.plus_ms(1);
    assert_eq!(gc(&store, marked).await, (1, 0));
    assert_eq!(
        store.blob_stat(stat.digest).await.unwrap(),
        Some(stat),
        "it is still here"
    );
    let last = marked.plus_ms(BLOB_GRACE_MS - 1);
    assert_eq!(gc(&store, last).await, (0, 0), "the grace has not passed");
    let report = store.blob_gc(last.plus_ms(1)).await.unwrap();
    let expect = GcReport {
        removed: 1,
        freed: 3,
        ..GcReport::default()
    };
    assert_eq!(report, expect);
    assert_eq!(store.blob_stat(stat.digest).await.unwrap(), None);
    assert!(!home.blob_file(stat.digest).exists());
    assert!(home.incoming().is_empty());
    assert_eq!(gc(&store, at(1_000_000)).await, (0, 0));
}

async fn a_marked_blob_comes_back_when_it_is_needed(home: Home) {
    let (mut leader, [first, _]) = with_trials(&home).await;
    let store = leader.store.clone();
    let marked = KEPT.plus_ms(1);
    let mut digests = Vec::new();
    for bytes in [b"referred", b"uploaded", b"inquired", b"let gone"] {
        digests.push(leader.put(bytes, at(0)).await.digest);
    }
    assert_eq!(gc(&store, marked).await, (4, 0));
    leader.commit(&[refer(first, digests[0])]).await;
    leader.put(b"uploaded", marked).await;
    assert!(store.blob_keep(digests[2], marked).await.unwrap().is_some());
    assert_eq!(gc(&store, marked.plus_ms(BLOB_GRACE_MS)).await, (0, 1));
    let mut left = Vec::new();
    for digest in &digests {
        left.push(store.blob_stat(*digest).await.unwrap().is_some());
    }
    assert_eq!(left, [true, true, true, false]);
    let late = marked.plus_ms(BLOB_KEEP_MS + 1);
    assert_eq!(gc(&store, late).await, (2, 0), "a reference needs no time");
    assert_eq!(gc(&store, late.plus_ms(BLOB_GRACE_MS)).await, (0, 2));
    assert_eq!(read(&store, digests[0]).await.unwrap(), b"referred");
}

async fn a_reference_that_ends_lets_its_blob_go(home: Home) {
    let (mut leader, [first, _]) = with_trials(&home).await;
    let store = leader.store.clone();
    let old = leader.put(b"old checkpoint", at(0)).await.digest;
    let archive = leader.put(b"archive", at(0)).await.digest;
    let mut task = import(1, archive);
    leader.commit(&[refer(first, old), of_task(&task)]).await;
    let late = at(1_000_000);
    assert_eq!(gc(&store, late).await, (0, 0));
    let new = leader.put(b"new checkpoint", late).await.digest;
    task.version = 2;
    task.state = TaskState::Canceled;
    leader.commit(&[refer(first, new), of_task(&task)]).await;
    assert_eq!(gc(&store, late).await, (2, 0));
    assert_eq!(gc(&store, late.plus_ms(BLOB_KEEP_MS + 1)).await, (0, 2));
    assert_eq!(store.blob_stat(old).await.unwrap(), None);
    assert_eq!(store.blob_stat(archive).await.unwrap(), None);
    assert_eq!(read(&store, new).await.unwrap(), b"new checkpoint");
}

/// As a collection that was killed after it had decided, before or after it moved the file.
async fn a_collection_that_was_killed_is_finished(home: Home) {
    let (mut leader, [first, _]) = with_trials(&home).await;
    for is_moved in [false, true] {
        let digest = leader.put(b"abc", at(0)).await.digest;
        execute(&home.raw().await, "UPDATE blobs SET state = 'deleting'").await;
        if is_moved {
            fs::remove_file(home.blob_file(digest)).unwrap();
        }
        assert_eq!(leader.store.blob_stat(digest).await.unwrap(), None);
        assert_eq!(leader.store.blob_keep(digest, at(0)).await.unwrap(), None);
        let error = read(&leader.store, digest).await.unwrap_err();
        assert_eq!(error.code(), Code::BlobMissing);
        assert_eq!(
            leader.refused(&[refer(first, digest)]).await,
            Code::BlobMissing
        );
        assert_eq!(gc(&leader.store, at(1)).await, (0, 1));
        assert!(!home.blob_file(digest).exists());
    }
    home.check().await;
}

async fn an_upload_brings_back_what_was_being_deleted(home: Home) {
    let (mut leader, [first, _]) = with_trials(&home).await;
    let digest = leader.put(b"abc", at(0)).await.digest;
    execute(&home.raw().await, "UPDATE blobs SET state = 'deleting'").await;
    leader.put(b"abc", at(0)).await;
    assert_eq!(gc(&leader.store, at(1)).await, (0, 0));
    leader.commit(&[refer(first, digest)]).await;
    assert_eq!(gc(&leader.store, at(1_000_000)).await, (0, 0));
    assert_eq!(read(&leader.store, digest).await.unwrap(), b"abc");
}

/// Calls that look at every folder once.
async fn adopt(store: &Store, now: Timestamp) -> u64 {
    let mut adopted = 0;
    for _ in 0..16 {
        adopted += store.blob_gc(now).await.unwrap().adopted;
    }
    adopted
}

async fn a_file_without_a_row_is_adopted_and_collected(home: Home) {
    let store = home.open().await;
    let known = store
        .blob_put(b"known", at(1_000_000))
        .await
        .unwrap()
        .digest;
    let stray = home.blob_file(Digest::of(b"stray"));
    fs::write(&stray, "stray").unwrap();
    let foreign = stray.with_file_name("notes.txt");
    fs::write(&foreign, "not ours").unwrap();
    assert_eq!(adopt(&store, at(0)).await, 1);
    assert_eq!(adopt(&store, at(0)).await, 0);
    assert!(stray.exists());
    assert_eq!(gc(&store, at(0).plus_ms(BLOB_GRACE_MS)).await, (0, 1));
    assert!(!stray.exists());
    assert!(foreign.exists());
    assert_eq!(read(&store, known).await.unwrap(), b"known");
}

async fn a_file_without_a_row_that_is_needed_stays(home: Home) {
    let (mut leader, [first, _]) = with_trials(&home).await;
    let digest = Digest::of(b"stray");
    fs::write(home.blob_file(digest), "stray").unwrap();
    assert_eq!(
        leader.refused(&[refer(first, digest)]).await,
        Code::BlobMissing
    );
    assert_eq!(adopt(&leader.store, at(0)).await, 1);
    leader.commit(&[refer(first, digest)]).await;
    assert_eq!(gc(&leader.store, at(1_000_000)).await, (0, 0));
    assert_eq!(read(&leader.store, digest).await.unwrap(), b"stray");
}

async fn nothing_is_removed_while_a_backup_runs(home: Home) {
    let store = home.open().await;
    let digest = store.blob_put(b"abc", at(0)).await.unwrap().digest;
    let path = home.folder().join("collect.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    lock.lock_shared().unwrap();
    let report = store.blob_gc(at(1_000_000)).await.unwrap();
    assert_eq!(
        (report.marked, report.postponed),
        (1, true),
        "marks do no harm"
    );
    let report = store.blob_gc(at(2_000_000)).await.unwrap();
    assert_eq!((report.removed, report.postponed), (0, true));
    assert_eq!(read(&store, digest).await.unwrap(), b"abc");
    lock.unlock().unwrap();
    let report = store.blob_gc(at(2_000_000)).await.unwrap();
    assert_eq!((report.removed, report.postponed), (1, false));
}

async fn one_call_has_a_limit(home: Home) {
    let store = home.open().await;
    let rows: Vec<String> = (0..GC_BATCH + 5)
        .map(|number| format!("('sha256:{number:064x}', 1, 'stored', 0, NULL)"))
        .collect();
    let insert = format!(
        "INSERT INTO blobs (digest, size, state, keep_until, marked_at) VALUES {}",
        rows.join(", ")
    );
    execute(&home.raw().await, &insert).await;
    assert_eq!(gc(&store, at(0)).await, (GC_BATCH, 0));
    assert_eq!(gc(&store, at(0)).await, (5, 0));
    let late = at(0).plus_ms(BLOB_GRACE_MS);
    assert_eq!(gc(&store, late).await, (0, GC_BATCH));
    assert_eq!(gc(&store, late).await, (0, 5));
}
