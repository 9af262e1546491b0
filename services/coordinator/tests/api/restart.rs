//! What was acknowledged outlives the process, and a backup of a running house is a house.

use pomona_api::v1::PageQuery;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::report::Outcome;
use pomona_domain::trial::TrialState;
use reqwest::Method;
use serde_json::json;

use crate::harness::House;
use crate::worker::{published, trial_of};
use crate::{GRID, PROMOTED, experiment, furnished, submit};

#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged_and_leases_go_on() {
    let (mut house, mut machine) = furnished(2).await;
    let owner = submit(&house, GRID, "grid").await;
    let leases = machine.has(2).await;
    machine.observe(&leases[0], 10, 0.5, 1.0);
    let digest = machine
        .checkpoint(&leases[0], CheckpointKind::Last, 10)
        .await;
    machine.poll(0).await;
    let first = trial_of(&leases[0]).to_string();
    let before = house.client.trial_get(&first).await.unwrap();
    // Produced, and not yet told when the coordinator dies.
    machine.observe(&leases[0], 20, 0.6, 0.9);
    house.kill();
    house.restart().await;
    machine.meet(&house.client);
    assert_eq!(house.client.trial_get(&first).await.unwrap(), before);
    let checkpoints = house.client.trial_checkpoints(&first).await.unwrap().items;
    assert_eq!(
        checkpoints.iter().map(|row| row.digest).collect::<Vec<_>>(),
        [digest]
    );
    let again = machine.has(2).await;
    let held = |rows: &[pomona_api::v1::workers::DesiredLease]| {
        rows.iter()
            .map(|row| (row.lease, row.generation))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        held(&again),
        held(&leases),
        "the same leases, the same generations"
    );
    let after = house.client.trial_get(&first).await.unwrap();
    assert_eq!((after.latest["val/accuracy"], after.leases), (0.6, 1));
    for lease in again {
        machine.exit(&lease, Outcome::Finished);
    }
    machine.poll(0).await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.7, 0.8).await;
    assert_eq!(
        experiment(&house, &owner).await.state,
        ExperimentState::Completed
    );
}

#[tokio::test]
async fn a_kill_between_submission_and_answer_leaves_one_experiment_for_a_repeat_to_find() {
    let (mut house, _machine) = furnished(1).await;
    let body = json!({"file": GRID, "set": []}).to_string();
    let headers = [("Idempotency-Key", "mine")];
    let first = house
        .raw(Method::POST, "/api/v1/experiments", &headers, &body)
        .await;
    house.kill();
    house.restart().await;
    let again = house
        .raw(Method::POST, "/api/v1/experiments", &headers, &body)
        .await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    let listed = house
        .client
        .experiment_list(&PageQuery::default())
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1);
}

#[tokio::test]
async fn a_publication_of_an_ended_experiment_outlives_a_kill() {
    let (mut house, mut machine) = furnished(1).await;
    submit(&house, GRID, "grid").await;
    let mut trial = None;
    for _ in 0..3 {
        let lease = machine.has(1).await.remove(0);
        trial = Some(trial_of(&lease));
        machine.train(&lease, 0.5, 1.0).await;
    }
    let body = pomona_api::v1::models::PublishVersion {
        trial: trial.unwrap(),
        alias: Some("champion".to_owned()),
    };
    house
        .client
        .version_publish("by-hand", &body, "publish")
        .await
        .unwrap();
    house.kill();
    house.restart().await;
    machine.meet(&house.client);
    // The trial and its experiment had left memory: they were read again with the task.
    let lease = machine.has(1).await.remove(0);
    let result = published(&house.client, 0.6).await;
    machine.answer(&lease, result).await;
    let version = house
        .client
        .version_get("by-hand", "champion")
        .await
        .unwrap();
    assert_eq!(version.trained().unwrap().trial, body.trial);
}

#[tokio::test]
async fn a_promotion_under_way_outlives_a_kill() {
    let (mut house, mut machine) = furnished(1).await;
    let owner = submit(&house, PROMOTED, "one").await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.6, 1.0).await;
    let lease = machine.has(1).await.remove(0);
    house.kill();
    house.restart().await;
    machine.meet(&house.client);
    assert_eq!(machine.has(1).await[0].lease, lease.lease);
    let result = published(&house.client, 0.6).await;
    machine.answer(&lease, result).await;
    assert_eq!(
        experiment(&house, &owner).await.state,
        ExperimentState::Completed
    );
    house
        .client
        .version_get("flowers", "champion")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_worker_that_restarts_gets_its_trials_anew_from_their_checkpoints() {
    let (house, mut machine) = furnished(1).await;
    let owner = submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    let digest = machine.checkpoint(&lease, CheckpointKind::Last, 10).await;
    machine.poll(0).await;
    let mut body = crate::worker::introduction(1, 1);
    body.incarnation = 2;
    house.client.worker_register(&body).await.unwrap();
    let old = machine.body(0);
    let fault = machine.send(&old).await.unwrap_err();
    assert_eq!(
        fault.code,
        pomona_domain::Code::UnknownWorker,
        "the old process is told"
    );
    let id = trial_of(&lease).to_string();
    let row = house.client.trial_get(&id).await.unwrap();
    assert_eq!(
        (row.restarts, row.leases),
        (0, 2),
        "nobody's fault, and leased again at once"
    );
    assert!(matches!(row.state, TrialState::Running { lease: new } if new != lease.lease));
    assert_eq!(
        house.client.trial_checkpoints(&id).await.unwrap().items[0].digest,
        digest
    );
    assert_eq!(
        experiment(&house, &owner).await.state,
        ExperimentState::Active
    );
}

#[tokio::test]
async fn a_backup_of_a_running_house_is_restored_and_started() {
    let (house, mut machine) = furnished(1).await;
    submit(&house, PROMOTED, "one").await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.6, 1.0).await;
    let lease = machine.has(1).await.remove(0);
    let result = published(&house.client, 0.6).await;
    machine.answer(&lease, result).await;
    submit(&house, GRID, "grid").await;
    let running = machine.has(1).await.remove(0);

    let target = house.path("backup");
    let output = house.command(&["backup"], Some(&target));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["blobs"].as_u64() >= Some(5), "{report}");
    assert!(target.join("blobs.json").exists(), "the backup is finished");
    house.client.ready().await.unwrap();
    // A folder that holds something is not written over.
    let again = house.command(&["backup"], Some(&target));
    assert_eq!(again.status.code(), Some(1));

    // Nor is a house made where none was.
    let mistyped = house.path("mistyped");
    let target2 = house.path("other");
    let words = ["backup", "--data-dir", mistyped.to_str().unwrap()];
    let refused = crate::harness::run(&[&words[..], &[target2.to_str().unwrap()]].concat());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.starts_with("error[E0904]"), "{told}");
    assert!(told.contains(mistyped.to_str().unwrap()), "{told}");
    assert!(!mistyped.exists() && !target2.exists());
    std::fs::create_dir(&mistyped).unwrap();
    let empty = crate::harness::run(&[&words[..], &[target2.to_str().unwrap()]].concat());
    assert_eq!(empty.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(&mistyped).unwrap().count(), 0);
    assert!(!target2.exists());

    let folder = tempfile::tempdir().unwrap();
    std::fs::rename(&target, folder.path().join("data")).unwrap();
    let restored = House::start(folder, &[]).await;
    let version = restored
        .client
        .version_get("flowers", "champion")
        .await
        .unwrap();
    assert_eq!(
        version,
        house
            .client
            .version_get("flowers", "champion")
            .await
            .unwrap()
    );
    for file in &version.files {
        let digest = format!("sha256:{}", file.sha256).parse().unwrap();
        restored.client.blob_bytes(digest).await.unwrap();
    }
    let listed = |house: &House| {
        let client = house.client.clone();
        async move {
            client
                .experiment_list(&PageQuery::default())
                .await
                .unwrap()
                .items
        }
    };
    assert_eq!(listed(&restored).await, listed(&house).await);
    // The worker that was training goes on with the restored house.
    machine.meet(&restored.client);
    assert_eq!(machine.has(1).await[0].lease, running.lease);
    machine.train(&running, 0.6, 1.0).await;
}
