//! A process that is killed while it commits: everything it acknowledged is there afterwards.
//!
//! The test runs itself again as a child, which is the process to be killed.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::trial::Trial;
use pomona_domain::{Change, Digest};
use pomona_store::{BlobsAt, PageRequest, Store, StoreConfig};

use crate::harness::{Backend, Home, Leader, for_each_backend, open, read};
use crate::rows::{at, checkpoint, experiment, observation, of_experiment, of_trial, trial};

for_each_backend!(what_was_acknowledged_survives_a_kill);

/// The child's database and blobs; in the parent it is not set.
const CHILD: &str = "POMONA_STORE_SUITE_CHILD";
/// How the child's lines begin.
const ACKNOWLEDGED: &str = "acknowledged ";

fn row() -> Trial {
    trial(experiment(1).id, 1)
}

/// The bytes of a step's checkpoint.
fn bytes(step: u64) -> Vec<u8> {
    format!("checkpoint {step} ").repeat(50_000).into_bytes()
}

async fn what_was_acknowledged_survives_a_kill(home: Home) {
    if let Ok(child) = std::env::var(CHILD) {
        let (url, blobs) = child.split_once('\n').unwrap();
        let config = StoreConfig {
            url: url.to_owned(),
            blobs: BlobsAt::Folder(blobs.into()),
        };
        commit_for_ever(open(config).await).await;
    }
    let mut leader = home.lead().await;
    leader
        .commit(&[of_experiment(&experiment(1)), of_trial(&row())])
        .await;
    leader.store.close().await.unwrap();
    let mut acknowledged = BTreeSet::new();
    for count in [1, 2, 5, 11, 23] {
        acknowledged.extend(kill_after(count, &home));
        let store = home.open().await;
        assert!(
            home.incoming().is_empty(),
            "half an upload was cleared away"
        );
        home.check().await;
        let reached = inspect(&store).await;
        let last = *acknowledged.last().unwrap();
        assert!(acknowledged.is_subset(&(1..=reached).collect()));
        assert!(
            reached <= last + 1,
            "one batch may be written and not acknowledged"
        );
        store.close().await.unwrap();
    }
    assert!(acknowledged.len() >= 1 + 2 + 5 + 11 + 23);
}

/// Commits one step after the other, and says each that is on disk. Uploads break off meanwhile.
async fn commit_for_ever(store: Store) -> ! {
    let mut leader = Leader::of(store.clone()).await;
    let mut row = store.trial_get(row().id).await.unwrap().unwrap();
    tokio::spawn(async move {
        loop {
            let endless = store
                .blob_writer(Digest::of(b"never"), u64::MAX, at(0))
                .await;
            let mut endless = endless.unwrap();
            for _ in 0..32 {
                endless.write(&vec![7; 1 << 18]).await.unwrap();
            }
        }
    });
    loop {
        row.version += 1;
        row.last_step += 1;
        let step = row.last_step;
        let digest = leader.put(&bytes(step), at(0)).await.digest;
        let newest = checkpoint(row.id, CheckpointKind::Last, digest);
        leader
            .commit(&[
                of_trial(&row),
                Change::Observed(observation(row.id, step)),
                Change::Checkpoint(newest),
            ])
            .await;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{ACKNOWLEDGED}{step}").unwrap();
        out.flush().unwrap();
    }
}

/// Lets a child work until it has acknowledged `count` steps, kills it, and says which it did.
fn kill_after(count: usize, home: &Home) -> Vec<u64> {
    let backend = match home.backend {
        Backend::Sqlite => "sqlite",
        Backend::Postgres | Backend::Team => "postgres",
    };
    let test = format!("killed::{backend}::what_was_acknowledged_survives_a_kill");
    let config = home.config();
    let child = format!("{}\n{}", config.url, home.folder().display());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(CHILD, child)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    for line in out.lines().map_while(Result::ok) {
        // The harness writes a test's name without ending the line.
        if let Some((_, step)) = line.split_once(ACKNOWLEDGED) {
            acknowledged.push(step.parse().unwrap());
        }
        if acknowledged.len() == count {
            // SIGKILL; what it still says is read to the end.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= count, "the child ended by itself");
    acknowledged
}

/// Checks that every batch is whole, and says which was the last.
async fn inspect(store: &Store) -> u64 {
    let row = store.trial_get(row().id).await.unwrap().unwrap();
    let (mut steps, mut page) = (Vec::new(), PageRequest::first(1000));
    loop {
        let read = store.observation_list(row.id, &page).await.unwrap();
        steps.extend(read.items.iter().map(|row| row.step));
        let Some(token) = read.next_page_token else {
            break;
        };
        page = page.after(Some(token));
    }
    assert_eq!(steps, (1..=row.last_step).collect::<Vec<_>>());
    let newest = store.checkpoint_list(row.id).await.unwrap();
    assert_eq!(newest.len(), 1);
    assert!(read(store, newest[0].digest).await.unwrap() == bytes(row.last_step));
    row.last_step
}
