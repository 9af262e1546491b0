//! Batches: whole or not at all, by compare-and-swap, and only from the leader.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};

use pomona_domain::change::Subject;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::snapshot::Snapshot;
use pomona_domain::{Change, Code, Digest, ExperimentId, TrialId};
use pomona_store::{Batch, PageRequest};

use crate::harness::{Home, Leader, for_each_backend, number};
use crate::rows::{
    alias_move, at, backbone, checkpoint, dataset, experiment, import, observation, of_backbone,
    of_dataset, of_experiment, of_task, of_trial, of_version, of_worker, reason, scored, trial,
    version, worker,
};

for_each_backend!(
    a_batch_with_one_bad_change_writes_nothing,
    a_row_changes_only_from_the_version_before,
    changes_of_one_row_are_written_once_as_the_last,
    changes_of_one_row_that_do_not_follow_each_other_are_refused,
    changes_may_come_in_any_order,
    an_earlier_leader_writes_nothing,
    a_failed_batch_is_not_the_last_one,
    the_last_batch_tells_what_became_of_a_commit_that_was_given_up,
    a_batch_of_many_rows_is_one_batch,
);

/// What every table holds, as numbers of rows.
async fn sizes(home: &Home) -> Vec<i64> {
    let raw = home.raw().await;
    let mut sizes = Vec::new();
    for table in [
        "experiments",
        "trials",
        "leases",
        "workers",
        "tasks",
        "observations",
        "checkpoints",
        "reasons",
        "datasets",
        "backbones",
        "blob_refs",
        "models",
        "versions",
        "aliases",
        "alias_history",
        "outbox",
    ] {
        sizes.push(number(&raw, &format!("SELECT count(*) FROM {table}")).await);
    }
    sizes
}

/// Something of everything, which depends on nothing but blobs.
fn good(blob: Digest) -> Vec<Change> {
    let owner = experiment(50);
    let first = trial(owner.id, 1);
    vec![
        of_experiment(&owner),
        of_trial(&first),
        of_worker(&worker(50)),
        of_task(&import(50, blob)),
        Change::Observed(observation(first.id, 1)),
        Change::Checkpoint(checkpoint(first.id, CheckpointKind::Last, blob)),
        of_dataset(&dataset("good", 1, blob, blob)),
        of_backbone(&backbone("good", blob, blob)),
        of_version(&version("good", 1, blob)),
        Change::AliasMoved(alias_move("good", 1, None, 1)),
        reason(Subject::Trial(first.id), "because"),
    ]
}

/// What a store has in which bad changes are tried.
fn settled(blob: Digest) -> Vec<Change> {
    let owner = experiment(1);
    vec![
        of_experiment(&owner),
        of_trial(&trial(owner.id, 1)),
        of_dataset(&dataset("tulips", 1, blob, blob)),
        of_backbone(&backbone("tulips", blob, blob)),
        of_version(&version("tulips", 1, blob)),
        Change::AliasMoved(alias_move("tulips", 1, None, 1)),
    ]
}

/// Rows that are there, or whose other rows are not.
fn conflicts(blob: Digest) -> Vec<(&'static str, Change)> {
    let owner = experiment(1);
    let mut skipped = trial(owner.id, 1);
    skipped.version = 3;
    let mut unborn = experiment(2);
    unborn.version = 0;
    let mut other = trial(owner.id, 1);
    other.id = TrialId(77);
    let orphan = trial(ExperimentId(9), 1);
    let seen = Change::Observed(observation(TrialId(9), 1));
    let again = of_dataset(&dataset("tulips", 1, blob, blob));
    let alias = |revision, to| {
        let step = alias_move("tulips", revision, Some(1), to);
        Change::AliasMoved(step)
    };
    vec![
        ("a new row that is there", of_experiment(&owner)),
        ("a change of another version", of_trial(&skipped)),
        ("a row without a version", of_experiment(&unborn)),
        ("a second trial with the number", of_trial(&other)),
        ("a trial of no experiment", of_trial(&orphan)),
        ("an observation of no trial", seen),
        ("a data set that is there", again),
        ("a backbone", of_backbone(&backbone("tulips", blob, blob))),
        ("a version", of_version(&version("tulips", 1, blob))),
        ("an alias to no version", alias(2, 9)),
        ("an alias from another revision", alias(4, 1)),
        ("an alias that is set twice", alias(1, 1)),
        ("an alias without a revision", alias(0, 1)),
    ]
}

/// Rows that name a blob which was never uploaded.
fn dangling(blob: Digest) -> Vec<(&'static str, Change)> {
    let absent = Digest::of(b"was never uploaded");
    let first = trial(experiment(1).id, 1).id;
    let newest = checkpoint(first, CheckpointKind::Best, absent);
    let no_manifest = dataset("tulips", 2, absent, blob);
    let no_archive = dataset("tulips", 2, blob, absent);
    vec![
        ("a checkpoint", Change::Checkpoint(newest)),
        ("a data set without a manifest", of_dataset(&no_manifest)),
        ("a data set without an archive", of_dataset(&no_archive)),
        ("a backbone", of_backbone(&backbone("b", blob, absent))),
        ("a version", of_version(&version("tulips", 2, absent))),
        ("a task", of_task(&import(9, absent))),
    ]
}

/// Rows with numbers that could not be read again.
fn not_finite(blob: Digest) -> Vec<(&'static str, Change)> {
    let owner = experiment(1);
    let mut seen = observation(trial(owner.id, 1).id, 2);
    seen.metrics.insert("val/loss".to_owned(), f64::NAN);
    let mut vast = version("tulips", 2, blob);
    vast.metrics.insert("test/loss".to_owned(), f64::INFINITY);
    let value = scored(trial(owner.id, 2), f64::NAN, 0.0);
    let tie = scored(trial(owner.id, 2), 0.5, f64::NEG_INFINITY);
    vec![
        ("an observation", Change::Observed(seen)),
        ("a version", of_version(&vast)),
        ("a trial's value", of_trial(&value)),
        ("a trial's tie", of_trial(&tie)),
    ]
}

/// All changes that must be refused after `settled`, with the code.
fn bad(blob: Digest) -> Vec<(&'static str, Change, Code)> {
    let mut nowhere = version("tulips", 2, blob);
    nowhere.files[0].sha256 = String::from("0");
    let nameless = vec![("a version with a file of no digest", of_version(&nowhere))];
    let with = |code, rows: Vec<(&'static str, Change)>| {
        rows.into_iter()
            .map(move |(what, change)| (what, change, code))
    };
    with(Code::Conflict, conflicts(blob))
        .chain(with(Code::BlobMissing, dangling(blob)))
        .chain(with(Code::NotANumber, not_finite(blob)))
        .chain(with(Code::NotFound, nameless))
        .collect()
}

async fn a_batch_with_one_bad_change_writes_nothing(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    leader.commit(&settled(blob)).await;
    let before = (leader.store.load().await.unwrap(), sizes(&home).await);
    for (what, change, code) in bad(blob) {
        let mut changes = good(blob);
        changes.push(change);
        assert_eq!(leader.refused(&changes).await, code, "{what}");
        let after = (leader.store.load().await.unwrap(), sizes(&home).await);
        assert_eq!(after, before, "{what}");
        assert_eq!(leader.store.last_batch().await.unwrap(), 1, "{what}");
    }
    leader.commit(&good(blob)).await;
    assert_ne!(
        sizes(&home).await,
        before.1,
        "without the bad one it is written"
    );
    home.check().await;
}

async fn a_row_changes_only_from_the_version_before(home: Home) {
    let mut leader = home.lead().await;
    let mut row = experiment(1);
    leader.commit(&[of_experiment(&row)]).await;
    row.version = 2;
    row.state = ExperimentState::Paused;
    leader.commit(&[of_experiment(&row)]).await;
    let mut late = experiment(1);
    late.version = 2;
    late.state = ExperimentState::Canceled;
    assert_eq!(
        leader.refused(&[of_experiment(&late)]).await,
        Code::Conflict
    );
    assert_eq!(
        leader.store.experiment_get(row.id).await.unwrap(),
        Some(row)
    );
}

async fn changes_of_one_row_are_written_once_as_the_last(home: Home) {
    let mut leader = home.lead().await;
    let steps = |from: u64, to: u64| {
        (from..=to).map(|version| {
            let mut row = experiment(1);
            row.version = version;
            row.created_trials = u32::try_from(version).unwrap();
            of_experiment(&row)
        })
    };
    leader.commit(&steps(1, 3).collect::<Vec<_>>()).await;
    leader.commit(&steps(4, 6).collect::<Vec<_>>()).await;
    let row = leader
        .store
        .experiment_get(ExperimentId(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.version, row.created_trials), (6, 6));
}

async fn changes_of_one_row_that_do_not_follow_each_other_are_refused(home: Home) {
    let mut leader = home.lead().await;
    for versions in [[1, 1], [1, 3], [2, 1]] {
        let changes = versions.map(|version| {
            let mut row = experiment(1);
            row.version = version;
            of_experiment(&row)
        });
        assert_eq!(
            leader.refused(&changes).await,
            Code::Conflict,
            "{versions:?}"
        );
    }
    assert_eq!(leader.store.load().await.unwrap(), Snapshot::default());
}

async fn changes_may_come_in_any_order(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let mut changes = good(blob);
    changes.reverse();
    leader.commit(&changes).await;
    let loaded = leader.store.load().await.unwrap();
    assert_eq!((loaded.trials.len(), loaded.aliases.len()), (1, 1));
}

async fn an_earlier_leader_writes_nothing(home: Home) {
    let mut first = home.lead().await;
    first.commit(&[of_experiment(&experiment(1))]).await;
    let mut second = Leader::of(home.open().await).await;
    assert!(second.generation > first.generation);
    assert_eq!(second.last, 1, "the batches go on");
    let row = of_experiment(&experiment(2));
    assert_eq!(
        first.refused(std::slice::from_ref(&row)).await,
        Code::NotReady
    );
    assert_eq!(first.store.last_batch().await.unwrap(), 1);
    second.commit(&[row]).await;
    assert_eq!(
        first.refused(&[of_experiment(&experiment(3))]).await,
        Code::NotReady
    );
    let loaded = second.store.load().await.unwrap();
    assert_eq!(loaded.experiments, [experiment(1), experiment(2)]);
}

async fn a_failed_batch_is_not_the_last_one(home: Home) {
    let mut leader = home.lead().await;
    leader.commit(&[of_experiment(&experiment(1))]).await;
    assert_eq!(leader.store.last_batch().await.unwrap(), 1);
    assert_eq!(
        leader.refused(&[of_experiment(&experiment(1))]).await,
        Code::Conflict
    );
    assert_eq!(leader.store.last_batch().await.unwrap(), 1);
    leader.commit(&[of_experiment(&experiment(2))]).await;
    assert_eq!(leader.store.last_batch().await.unwrap(), 2);
}

/// A commit is polled a number of times and dropped; `last_batch` and the rows must agree.
async fn the_last_batch_tells_what_became_of_a_commit_that_was_given_up(home: Home) {
    let mut leader = home.lead().await;
    let (mut outcomes, mut polls) = ([0, 0], 0);
    // More polls get further, so that both outcomes are seen sooner or later.
    while polls < 60 || outcomes.contains(&0) {
        assert!(polls < 1000, "only one outcome was seen: {outcomes:?}");
        let row = experiment(1000 + polls);
        let changes = [of_experiment(&row)];
        let id = leader.last + 1;
        let batch = Batch {
            id,
            generation: leader.generation,
            changes: &changes,
        };
        {
            let mut commit = pin!(leader.store.commit(&batch));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if commit.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                // The database's thread gets a turn, so that later polls get further.
                leader.store.ping().await.unwrap();
            }
        }
        let is_written = leader.store.last_batch().await.unwrap() == id;
        let found = leader.store.experiment_get(row.id).await.unwrap();
        assert_eq!(found.is_some(), is_written, "after {polls} polls");
        outcomes[usize::from(is_written)] += 1;
        leader.last = leader.store.last_batch().await.unwrap();
        leader
            .commit(&[of_experiment(&experiment(10_000 + polls))])
            .await;
        polls += 1;
    }
}

async fn a_batch_of_many_rows_is_one_batch(home: Home) {
    let mut leader = home.lead().await;
    let owner = experiment(1);
    let first = trial(owner.id, 1);
    let mut changes = vec![of_experiment(&owner), of_trial(&first)];
    changes.extend((2..1200).map(|number| of_trial(&trial(owner.id, number))));
    changes.extend((0..2500).map(|step| Change::Observed(observation(first.id, step))));
    leader.commit(&changes).await;
    assert_eq!(leader.store.load().await.unwrap().trials.len(), 1199);
    let request = PageRequest::first(1000).after(Some("1999".to_owned()));
    let page = leader
        .store
        .observation_list(first.id, &request)
        .await
        .unwrap();
    assert_eq!((page.items.len(), page.items[0].step), (500, 2000));
}
