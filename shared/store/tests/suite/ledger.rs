//! Observations, checkpoints, explanations.

use pomona_domain::change::Subject;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::{Change, Generation, TrialId};
use pomona_store::{PageRequest, REASONS_PER_SUBJECT, Retention};

use crate::harness::{Home, Leader, for_each_backend, number};
use crate::rows::{
    at, checkpoint, experiment, observation, of_experiment, of_trial, reason, trial,
};

for_each_backend!(
    the_first_observation_of_a_step_counts,
    an_observation_reads_as_it_was_written,
    a_checkpoint_that_is_deleted_lets_its_blob_go_and_may_go_twice,
    a_newer_checkpoint_takes_the_place_of_its_kind,
    explanations_come_in_the_order_they_were_given,
    the_oldest_explanations_of_a_subject_go_first,
);

/// A leader whose store has one trial.
async fn with_trial(home: &Home) -> (Leader, TrialId) {
    let mut leader = home.lead().await;
    let owner = experiment(1);
    let row = trial(owner.id, 1);
    leader
        .commit(&[of_experiment(&owner), of_trial(&row)])
        .await;
    (leader, row.id)
}

async fn the_first_observation_of_a_step_counts(home: Home) {
    let (mut leader, trial) = with_trial(&home).await;
    let first = observation(trial, 7);
    let mut repeat = first.clone();
    repeat.generation = Generation(5);
    repeat.metrics.insert("val/accuracy".to_owned(), 0.9);
    leader
        .commit(&[
            Change::Observed(first.clone()),
            Change::Observed(repeat.clone()),
        ])
        .await;
    leader
        .commit(&[
            Change::Observed(repeat),
            Change::Observed(observation(trial, 8)),
        ])
        .await;
    let page = leader
        .store
        .observation_list(trial, &PageRequest::default())
        .await;
    assert_eq!(page.unwrap().items, [first, observation(trial, 8)]);
}

async fn an_observation_reads_as_it_was_written(home: Home) {
    let (mut leader, trial) = with_trial(&home).await;
    let mut row = observation(trial, u64::from(u32::MAX) + 1);
    row.epoch = u32::MAX;
    row.generation = Generation(u64::MAX);
    row.confusion = vec![vec![u64::MAX, 0, 1], vec![2, 3, 4], vec![5, 6, 7]];
    leader.commit(&[Change::Observed(row.clone())]).await;
    let page = leader
        .store
        .observation_list(trial, &PageRequest::default())
        .await
        .unwrap();
    let bits = |value: &f64| value.to_bits();
    let (read, wrote) = (&page.items[0].metrics, &row.metrics);
    assert!(
        read.values().map(bits).eq(wrote.values().map(bits)),
        "{read:?} {wrote:?}"
    );
    assert_eq!(page.items, [row]);
}

async fn a_checkpoint_that_is_deleted_lets_its_blob_go_and_may_go_twice(home: Home) {
    let (mut leader, trial) = with_trial(&home).await;
    let mut digests = Vec::new();
    for bytes in [b"1", b"2"] {
        digests.push(leader.put(bytes, at(0)).await.digest);
    }
    let (last, best) = (CheckpointKind::Last, CheckpointKind::Best);
    let row = |kind, number: usize| Change::Checkpoint(checkpoint(trial, kind, digests[number]));
    leader.commit(&[row(last, 0), row(best, 0)]).await;
    let raw = home.raw().await;
    let references = format!(
        "SELECT count(*) FROM blob_refs WHERE owner = '{trial}' AND digest = '{}'",
        digests[0]
    );
    assert_eq!(number(&raw, &references).await, 2);
    let gone = |kind| Change::CheckpointDeleted(trial, kind);
    leader.commit(&[gone(last)]).await;
    assert_eq!(number(&raw, &references).await, 1, "the other one stays");
    // Of several changes in one batch the last one stands, and what is not there is no conflict.
    leader
        .commit(&[
            gone(best),
            gone(last),
            row(best, 0),
            row(best, 1),
            gone(best),
            gone(last),
        ])
        .await;
    assert_eq!(leader.store.checkpoint_list(trial).await.unwrap(), []);
    assert_eq!(number(&raw, "SELECT count(*) FROM blob_refs").await, 0);
    leader.commit(&[gone(last), row(last, 1)]).await;
    let kept = [checkpoint(trial, last, digests[1])];
    assert_eq!(leader.store.checkpoint_list(trial).await.unwrap(), kept);
}

async fn a_newer_checkpoint_takes_the_place_of_its_kind(home: Home) {
    let (mut leader, trial) = with_trial(&home).await;
    let mut digests = Vec::new();
    for bytes in [b"1", b"2", b"3", b"4"] {
        digests.push(leader.put(bytes, at(0)).await.digest);
    }
    let row = |kind, number: usize| checkpoint(trial, kind, digests[number]);
    let (last, best) = (CheckpointKind::Last, CheckpointKind::Best);
    leader
        .commit(&[
            Change::Checkpoint(row(best, 0)),
            Change::Checkpoint(row(last, 0)),
        ])
        .await;
    // Twice in one batch: the later one stays.
    leader
        .commit(&[
            Change::Checkpoint(row(last, 1)),
            Change::Checkpoint(row(last, 2)),
        ])
        .await;
    assert_eq!(
        leader.store.checkpoint_list(trial).await.unwrap(),
        [row(last, 2), row(best, 0)]
    );
    let raw = home.raw().await;
    assert_eq!(number(&raw, "SELECT count(*) FROM blob_refs").await, 2);
    let replaced = format!(
        "SELECT count(*) FROM blob_refs WHERE digest = '{}'",
        digests[1]
    );
    assert_eq!(number(&raw, &replaced).await, 0);
}

async fn explanations_come_in_the_order_they_were_given(home: Home) {
    let (mut leader, trial) = with_trial(&home).await;
    let about = Subject::Trial(trial);
    let other = Subject::Experiment(experiment(1).id);
    let given: Vec<Change> = ["first", "second", "second", "last"]
        .map(|text| reason(about, text))
        .into();
    leader.commit(&given[..2]).await;
    leader.commit(&[reason(other, "not yours")]).await;
    leader.commit(&given[2..]).await;
    let page = leader
        .store
        .reason_list(about, &PageRequest::default())
        .await
        .unwrap();
    let read: Vec<Change> = page.items.into_iter().map(Change::Reason).collect();
    assert_eq!(read, given);
}

async fn the_oldest_explanations_of_a_subject_go_first(home: Home) {
    let (mut leader, trial) = with_trial(&home).await;
    let about = Subject::Trial(trial);
    let other = Subject::Experiment(experiment(1).id);
    let beyond = 7;
    let mut changes = vec![reason(other, "mine")];
    for number in 0..REASONS_PER_SUBJECT + beyond {
        changes.push(reason(about, &number.to_string()));
    }
    leader.commit(&changes).await;
    leader
        .store
        .retain(at(10), &Retention::default())
        .await
        .unwrap();
    let request = PageRequest::first(1000);
    let page = leader.store.reason_list(about, &request).await.unwrap();
    assert_eq!(page.items.len() as u64, REASONS_PER_SUBJECT);
    assert_eq!(page.items[0].text, beyond.to_string());
    let page = leader.store.reason_list(other, &request).await.unwrap();
    assert_eq!(page.items.len(), 1);
}
