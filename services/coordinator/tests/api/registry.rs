//! Publication, gates, aliases: what becomes a version, and why an alias points where it does.

use pomona_api::v1::PageQuery;
use pomona_api::v1::catalogue::Predict;
use pomona_api::v1::models::{PublishVersion, RollbackAlias, SetAlias};
use pomona_api::v1::workers::DesiredWork;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::model::version_digest;
use pomona_domain::report::Outcome;
use pomona_domain::task::{Prediction, TaskResult, TaskState};
use pomona_domain::{Code, Digest, Fault, Timestamp, TrialId};

use crate::harness::House;
use crate::worker::{Machine, published, task_of, trial_of};
use crate::{GRID, PROMOTED, experiment, furnished, submit};

/// Trains the one trial of an experiment; the publish lease that follows.
pub async fn trained(
    house: &House,
    machine: &mut Machine,
    key: &str,
) -> (pomona_domain::experiment::Experiment, TrialId) {
    let owner = submit(house, PROMOTED, key).await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.6, 1.0).await;
    (owner, trial_of(&lease))
}

/// Makes a version whose accuracy on test is as given.
pub async fn publish(house: &House, machine: &mut Machine, key: &str, accuracy: f64) -> TrialId {
    let (_, trial) = trained(house, machine, key).await;
    let lease = machine.has(1).await.remove(0);
    let result = published(&house.client, accuracy).await;
    machine.answer(&lease, result).await;
    trial
}

pub fn to(version: u32) -> SetAlias {
    SetAlias {
        version,
        expected_revision: None,
        reason: Some("a test says so".to_owned()),
    }
}

#[tokio::test]
async fn the_best_checkpoint_passes_its_gates_and_becomes_the_champion() {
    let (house, mut machine) = furnished(1).await;
    let (owner, trial) = trained(&house, &mut machine, "one").await;
    let promoting = experiment(&house, &owner).await;
    assert!(
        matches!(promoting.state, ExperimentState::Promoting { .. }),
        "{promoting:?}"
    );
    let lease = machine.has(1).await.remove(0);
    let DesiredWork::Publish {
        lineage,
        model,
        validation,
        checkpoint,
        ..
    } = &lease.work
    else {
        panic!("{lease:?}");
    };
    assert_eq!(
        (model.as_str(), validation["val/accuracy"]),
        ("flowers", 0.6)
    );
    assert_eq!((lineage.trial, lineage.checkpoint), (trial, *checkpoint));
    let result = published(&house.client, 0.7).await;
    machine.answer(&lease, result).await;

    assert_eq!(
        experiment(&house, &owner).await.state,
        ExperimentState::Completed
    );
    let version = house
        .client
        .version_get("flowers", "champion")
        .await
        .unwrap();
    assert_eq!(
        (version.number, version.digest),
        (1, version_digest(&version.files))
    );
    assert_eq!(version.trained(), Some(&**lineage));
    assert_eq!(version.metrics["test/accuracy"], 0.7);
    assert!(
        version.gates.iter().all(|gate| gate.passed),
        "{:?}",
        version.gates
    );
    let moves = house
        .client
        .alias_history("flowers", "champion", None)
        .await
        .unwrap();
    assert_eq!(
        moves
            .iter()
            .map(|row| (row.from, row.to))
            .collect::<Vec<_>>(),
        [(None, 1)]
    );
    let why = house
        .client
        .explain_model("flowers", "champion")
        .await
        .unwrap();
    assert!(
        why.now
            .contains("`test/accuracy at least 0.5` passed: it was measured as 0.7000"),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_promoted_version_has_its_files_and_waits_to_be_told_to_the_outside() {
    let (house, mut machine) = furnished(1).await;
    publish(&house, &mut machine, "one", 0.6).await;
    let version = house.client.version_get("flowers", "1").await.unwrap();
    for file in &version.files {
        let digest: Digest = format!("sha256:{}", file.sha256).parse().unwrap();
        assert_eq!(
            house.client.blob_bytes(digest).await.unwrap().len() as u64,
            file.size
        );
    }
    // R5. No route shows the outbox yet: it is read where it lies.
    let store = pomona_store::Store::open(pomona_store::StoreConfig {
        url: format!("sqlite://{}", house.data_dir().join("pomona.db").display()),
        blobs: pomona_store::BlobsAt::Folder(house.data_dir().join("blobs")),
    });
    let outbox = store.await.unwrap().outbox_list(0, 10).await.unwrap();
    let topics: Vec<&str> = outbox.iter().map(|row| row.topic.as_str()).collect();
    let told = |topic: &str| topics.contains(&topic);
    assert!(
        told("registered_model.created") && told("model_version.created"),
        "{topics:?}"
    );
    let moved = outbox
        .iter()
        .find(|row| row.topic == "model_version_alias.created");
    let moved = moved.unwrap();
    assert!(moved.doc.contains("champion"), "{outbox:?}");
    assert_eq!(moved.subject, "model/flowers");
}

#[tokio::test]
async fn a_gate_that_fails_leaves_the_alias_and_says_why() {
    let (house, mut machine) = furnished(1).await;
    publish(&house, &mut machine, "good", 0.9).await;
    let (owner, _) = trained(&house, &mut machine, "bad").await;
    let lease = machine.has(1).await.remove(0);
    let result = published(&house.client, 0.4).await;
    machine.answer(&lease, result).await;
    let model = house.client.model_get("flowers").await.unwrap();
    assert_eq!(
        model
            .versions
            .iter()
            .map(|v| (v.number, v.gates_passed))
            .collect::<Vec<_>>(),
        [(2, false), (1, true)]
    );
    assert_eq!(model.aliases[0].number, 1, "the champion stays");
    let why = house.client.explain(&owner.id.to_string()).await.unwrap();
    let told = why
        .reasons
        .iter()
        .map(|reason| reason.text.as_str())
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        told.contains("E0701") && told.contains("test/accuracy at least 0.5"),
        "{told}"
    );
    assert!(told.contains("0.4"), "{told}");
}

#[tokio::test]
async fn an_alias_is_moved_rolled_back_and_its_history_is_kept() {
    let (house, mut machine) = furnished(1).await;
    let client = house.client.clone();
    publish(&house, &mut machine, "one", 0.6).await;
    publish(&house, &mut machine, "two", 0.7).await;
    let moves = client
        .alias_history("flowers", "champion", None)
        .await
        .unwrap();
    assert_eq!(moves.iter().map(|row| row.to).collect::<Vec<_>>(), [1, 2]);

    let back = RollbackAlias {
        reason: Some("it was worse in production".to_owned()),
    };
    let alias = client
        .alias_rollback("flowers", "champion", &back, "back")
        .await
        .unwrap();
    assert_eq!((alias.number, alias.revision), (1, 3));
    // The same key is the same request: nothing moves a second time.
    let again = client
        .alias_rollback("flowers", "champion", &back, "back")
        .await
        .unwrap();
    assert_eq!(again, alias);
    let moves = client
        .alias_history("flowers", "champion", None)
        .await
        .unwrap();
    assert_eq!(
        moves.iter().map(|row| row.to).collect::<Vec<_>>(),
        [1, 2, 1]
    );
    assert_eq!(moves[2].reason, "it was worse in production");

    let then = client
        .alias_history("flowers", "champion", Some(moves[1].at))
        .await
        .unwrap();
    assert_eq!(then.last().unwrap().to, 2, "what was in place then");
    let before = client
        .alias_history("flowers", "champion", Some(Timestamp(0)))
        .await
        .unwrap();
    assert!(before.is_empty());

    let mut stale = to(2);
    stale.expected_revision = Some(1);
    let fault = client
        .alias_set("flowers", "champion", &stale, "stale")
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::AliasMoved);
    let new = client
        .alias_set("flowers", "challenger", &to(2), "new")
        .await
        .unwrap();
    assert_eq!((new.number, new.revision), (2, 1));
}

#[tokio::test]
async fn what_does_not_exist_is_refused_with_what_does() {
    let (house, mut machine) = furnished(1).await;
    let client = house.client.clone();
    let none = client.version_get("roses", "champion").await.unwrap_err();
    assert_eq!(none.code, Code::NotFound);
    publish(&house, &mut machine, "one", 0.6).await;
    let alias = client
        .version_get("flowers", "challenger")
        .await
        .unwrap_err();
    assert!(
        alias.hint.clone().unwrap().contains("`champion`"),
        "{alias:?}"
    );
    let beyond = client
        .alias_set("flowers", "champion", &to(9), "k1")
        .await
        .unwrap_err();
    assert_eq!(beyond.code, Code::NotFound);
    let digits = client
        .alias_set("flowers", "7", &to(1), "k2")
        .await
        .unwrap_err();
    assert_eq!(digits.code, Code::BadName);
    let body = RollbackAlias::default();
    let never = client
        .alias_rollback("flowers", "champion", &body, "k3")
        .await
        .unwrap_err();
    assert_eq!(never.code, Code::WrongState);
}

#[tokio::test]
async fn any_trial_that_has_ended_may_be_published_by_hand() {
    let (house, mut machine) = furnished(1).await;
    submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    let body = PublishVersion {
        trial: trial_of(&lease),
        alias: None,
    };
    let early = house
        .client
        .version_publish("by-hand", &body, "early")
        .await
        .unwrap_err();
    assert_eq!(early.code, Code::WrongState);
    let mut lease = lease;
    for _ in 0..3 {
        machine.train(&lease, 0.5, 1.0).await;
        if let Some(next) = machine.leases.first() {
            lease = next.clone();
        }
    }
    // Its experiment has ended and left memory: the rows are recalled.
    let task = house
        .client
        .version_publish("by-hand", &body, "publish")
        .await
        .unwrap();
    let lease = machine.has(1).await.remove(0);
    assert_eq!(task_of(&lease), task.id);
    let result = published(&house.client, 0.2).await;
    machine.answer(&lease, result).await;
    let version = house.client.version_get("by-hand", "1").await.unwrap();
    assert_eq!(version.trained().unwrap().trial, body.trial);
    assert!(
        house
            .client
            .model_get("by-hand")
            .await
            .unwrap()
            .aliases
            .is_empty()
    );
}

#[tokio::test]
async fn a_publication_that_fails_for_good_fails_its_experiment_with_the_reason() {
    let (house, mut machine) = furnished(1).await;
    let (owner, _) = trained(&house, &mut machine, "one").await;
    let lease = machine.has(1).await.remove(0);
    let fault = Fault::new(Code::BadCheckpoint, "the checkpoint has another head");
    machine.exit(
        &lease,
        Outcome::Failed {
            fault,
            retry: false,
        },
    );
    machine.poll(0).await;
    let ended = experiment(&house, &owner).await;
    let ExperimentState::Failed { fault } = ended.state else {
        panic!("{ended:?}");
    };
    assert_eq!(fault.code, Code::BadCheckpoint);
}

#[tokio::test]
async fn pictures_are_predicted_by_a_task() {
    let (house, mut machine) = furnished(1).await;
    publish(&house, &mut machine, "one", 0.6).await;
    let pictures = house
        .client
        .blob_put_bytes("a tar of pictures")
        .await
        .unwrap();
    let mut body = Predict {
        model: "flowers@champion".to_owned(),
        pictures,
        top: 1,
    };
    let task = house.client.predict(&body, "predict").await.unwrap();
    let lease = machine.has(1).await.remove(0);
    let DesiredWork::Predict { files, .. } = &lease.work else {
        panic!("{lease:?}");
    };
    assert_eq!(files.keys().collect::<Vec<_>>(), ["model.safetensors"]);
    let prediction = Prediction {
        path: "a.png".to_owned(),
        classes: Vec::new(),
        fault: None,
    };
    machine
        .answer(
            &lease,
            TaskResult::Predicted {
                pictures: vec![prediction.clone()],
            },
        )
        .await;
    let done = house.client.task_get(&task.id.to_string()).await.unwrap();
    let TaskState::Completed { result } = done.state else {
        panic!("{done:?}");
    };
    assert_eq!(
        *result,
        TaskResult::Predicted {
            pictures: vec![prediction]
        }
    );
    body.model = "flowers".to_owned();
    let fault = house.client.predict(&body, "no version").await.unwrap_err();
    assert_eq!(fault.code, Code::BadRequest);
}

#[tokio::test]
async fn what_an_import_found_becomes_a_row_and_what_it_refused_a_reason() {
    let (house, mut machine) = furnished(1).await;
    let client = house.client.clone();
    machine.add_dataset("flowers", "second").await;
    let listed = client.dataset_list(&PageQuery::default()).await.unwrap();
    assert_eq!(
        listed
            .items
            .iter()
            .map(|row| row.number)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let newest = client.dataset_get("flowers", None).await.unwrap();
    assert_eq!(newest.number, 2);
    let manifest = client.dataset_manifest("flowers", Some(1)).await.unwrap();
    assert_eq!(manifest.classes, ["daisy", "rose"]);
    let backbone = client.backbone_get("lite").await.unwrap();
    assert_eq!(backbone.blocks.len(), 2);

    let weights = client.blob_put_bytes("other weights").await.unwrap();
    let mut body = pomona_api::v1::catalogue::AddBackbone {
        name: "lite".to_owned(),
        arch: "resnet18".to_owned(),
        weights,
    };
    let taken = client.backbone_add(&body, "taken").await.unwrap_err();
    assert_eq!(taken.code, Code::AlreadyExists);
    body.name = "res".to_owned();
    let task = client.backbone_add(&body, "res").await.unwrap();
    let lease = machine.has(1).await.remove(0);
    let fault = Fault::new(Code::UnsafePickle, "the pickle calls `os.system`");
    machine.exit(
        &lease,
        Outcome::Failed {
            fault: fault.clone(),
            retry: false,
        },
    );
    machine.poll(0).await;
    let failed = client.task_get(&task.id.to_string()).await.unwrap();
    assert_eq!(failed.state, TaskState::Failed { fault });
    body.weights = Digest::of(b"never uploaded");
    let absent = client.backbone_add(&body, "absent").await.unwrap_err();
    assert_eq!(absent.code, Code::BlobMissing);
}

#[tokio::test]
async fn a_task_is_taken_back() {
    let (house, mut machine) = furnished(1).await;
    let weights = house.client.blob_put_bytes("other weights").await.unwrap();
    let body = pomona_api::v1::catalogue::AddBackbone {
        name: "res".to_owned(),
        arch: "resnet18".to_owned(),
        weights,
    };
    let task = house.client.backbone_add(&body, "res").await.unwrap();
    machine.has(1).await;
    let id = task.id.to_string();
    let canceled = house.client.task_cancel(&id).await.unwrap();
    assert_eq!(canceled.state, TaskState::Canceled);
    machine.has(0).await;
    assert_eq!(
        house.client.task_cancel(&id).await.unwrap_err().code,
        Code::WrongState
    );
}
