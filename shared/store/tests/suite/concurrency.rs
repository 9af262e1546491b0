//! Readers and writers at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::{Change, Digest};
use pomona_store::{Answer, NewLogRow, PageRequest, Store};

use crate::harness::{Home, for_each_backend, writing};
use crate::rows::{
    at, checkpoint, experiment, observation, of_experiment, of_trial, of_worker, trial, worker,
};

for_each_backend!(
    readers_see_whole_batches_while_a_writer_commits,
    readers_do_not_wait_for_a_writer,
    a_commit_waits_for_another_writer,
    writers_of_all_kinds_at_once_all_succeed,
    writers_of_two_processes_take_turns,
);

/// Something that hangs fails in a minute instead of for ever.
const HANGS: Duration = Duration::from_mins(1);

async fn readers_see_whole_batches_while_a_writer_commits(home: Home) {
    const BATCHES: u64 = 150;
    let mut leader = home.lead().await;
    let owner = experiment(1);
    let mut row = trial(owner.id, 1);
    let blob = leader.put(b"abc", at(0)).await.digest;
    let newest = |step| {
        let mut newest = checkpoint(row.id, CheckpointKind::Last, blob);
        newest.step = step;
        Change::Checkpoint(newest)
    };
    leader
        .commit(&[of_experiment(&owner), of_trial(&row), newest(0)])
        .await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(watch(leader.store.clone(), Arc::clone(&stop))))
        .collect();
    for step in 1..=BATCHES {
        row.version += 1;
        row.last_step = step;
        let seen = Change::Observed(observation(row.id, step));
        leader.commit(&[of_trial(&row), newest(step), seen]).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut distinct = 0;
    for reader in readers {
        distinct = distinct.max(reader.await.unwrap());
    }
    assert!(distinct > 1, "the readers saw the store change");
    let loaded = leader.store.load().await.unwrap();
    assert_eq!(loaded.trials, [row], "a reader after the commit sees it");
}

/// Loads over and over; says how many states it saw.
async fn watch(store: Store, stop: Arc<AtomicBool>) -> u64 {
    let (mut last, mut distinct) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        let loaded = store.load().await.unwrap();
        let step = loaded.trials[0].last_step;
        assert_eq!(loaded.checkpoints[0].step, step, "two rows of one batch");
        assert!(step >= last, "a reader does not go back");
        distinct += u64::from(step > last);
        last = step;
        let request = PageRequest::first(1000);
        let page = store
            .observation_list(loaded.trials[0].id, &request)
            .await
            .unwrap();
        assert!(page.items.len() as u64 >= step, "a later read sees no less");
    }
    distinct
}

async fn readers_do_not_wait_for_a_writer(home: Home) {
    let mut leader = home.lead().await;
    leader.commit(&[of_worker(&worker(1))]).await;
    let other = writing(&home.raw().await, "DELETE FROM workers").await;
    let read = async {
        leader.store.ping().await.unwrap();
        leader.store.load().await.unwrap()
    };
    let loaded = tokio::time::timeout(HANGS, read).await.unwrap();
    assert_eq!(
        loaded.workers,
        [worker(1)],
        "what is not committed is not seen"
    );
    other.commit().await.unwrap();
    assert!(leader.store.load().await.unwrap().workers.is_empty());
}

async fn a_commit_waits_for_another_writer(home: Home) {
    let mut leader = home.lead().await;
    let other = writing(&home.raw().await, "UPDATE leader SET seq = seq").await;
    let mut copy = leader.clone();
    let commit = tokio::spawn(async move { copy.try_commit(&[of_worker(&worker(1))]).await });
    // Reads go on while it waits, and do not see it.
    for _ in 0..20 {
        assert!(leader.store.load().await.unwrap().workers.is_empty());
    }
    assert!(!commit.is_finished());
    other.commit().await.unwrap();
    tokio::time::timeout(HANGS, commit)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    leader.last += 1;
    assert_eq!(leader.store.load().await.unwrap().workers, [worker(1)]);
}

/// Everything that is not the engine, for a while.
async fn ingest(store: Store, task: i64) {
    for number in 0..15 {
        let owner = format!("tri_{task}");
        let line = NewLogRow {
            owner: owner.clone(),
            rank: 0,
            at: at(0),
            line: number.to_string(),
        };
        store.log_append(&[line]).await.unwrap();
        let answer = Answer {
            request: Digest::of(b"request"),
            status: 200,
            body: "{}".to_owned(),
            at: at(0),
        };
        let key = format!("{task}/{number}");
        assert!(store.idempotency_put(&key, &answer).await.unwrap());
        store.blob_put(key.as_bytes(), at(0)).await.unwrap();
        store.blob_gc(at(0)).await.unwrap();
    }
    let lines = store
        .log_list(&format!("tri_{task}"), 0, 100)
        .await
        .unwrap();
    let numbers: Vec<String> = (0..15).map(|number| number.to_string()).collect();
    let read: Vec<String> = lines.into_iter().map(|row| row.line).collect();
    assert_eq!(read, numbers);
}

async fn writers_of_all_kinds_at_once_all_succeed(home: Home) {
    let mut leader = home.lead().await;
    let tasks: Vec<_> = (0..4)
        .map(|task| tokio::spawn(ingest(leader.store.clone(), task)))
        .collect();
    for number in 1..=60 {
        leader.commit(&[of_worker(&worker(number))]).await;
    }
    for task in tasks {
        tokio::time::timeout(HANGS, task).await.unwrap().unwrap();
    }
    assert_eq!(leader.store.load().await.unwrap().workers.len(), 60);
    home.check().await;
}

async fn writers_of_two_processes_take_turns(home: Home) {
    let mut leader = home.lead().await;
    let other = home.open().await;
    let task = tokio::spawn(ingest(other, 7));
    for number in 1..=60 {
        leader.commit(&[of_worker(&worker(number))]).await;
    }
    tokio::time::timeout(HANGS, task).await.unwrap().unwrap();
    assert_eq!(leader.store.load().await.unwrap().workers.len(), 60);
}
