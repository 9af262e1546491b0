//! What is said of models and versions, what is deleted or renamed, and the audit of it all.

use pomona_domain::experiment::ExperimentState;
use pomona_domain::model::{Actor, Alias, Audit, Removal};
use pomona_domain::trial::TrialState;
use pomona_domain::{Change, Code, Digest, Fault};
use pomona_store::{ModelSearch, PageRequest, VersionSearch};
use pomona_tracking::{filter, order};

use crate::harness::{Home, Leader, for_each_backend};
use crate::rows::{
    alias_move, at, experiment, of_experiment, of_trial, of_version, trial, version,
};

for_each_backend!(
    models_are_searched_by_name_and_tag,
    versions_are_searched_by_what_is_said_of_them,
    the_newest_version_of_each_stage_is_found_for_many_models,
    what_is_deleted_is_gone_and_its_numbers_are_remembered,
    a_model_takes_all_it_has_to_its_new_name,
    the_audit_is_read_by_subject_and_page,
    a_pull_is_remembered_for_as_long_as_it_says,
    an_end_is_told_once_whatever_is_written_later,
    what_one_batch_does_to_a_model_is_done_in_order,
);

fn ann() -> Actor {
    Actor {
        name: "ann".to_owned(),
        origin: "http 127.0.0.1".to_owned(),
    }
}

/// Versions 1 to 3 of `flowers` and 1 of `trees`, of one blob.
async fn stocked(home: &Home) -> (Leader, Digest) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let mut changes: Vec<Change> = (1..=3)
        .map(|number| of_version(&version("flowers", number, blob)))
        .collect();
    changes.push(of_version(&version("trees", 1, blob)));
    leader.commit(&changes).await;
    (leader, blob)
}

async fn found(leader: &Leader, text: &str, order_by: &[&str]) -> Vec<String> {
    let search = ModelSearch {
        filter: filter::registered_models(text).unwrap(),
        order: order::registered_models(order_by).unwrap(),
        offset: 0,
        limit: 100,
    };
    let faces = leader.store.model_search(&search).await.unwrap();
    faces.into_iter().map(|face| face.name).collect()
}

async fn models_are_searched_by_name_and_tag(home: Home) {
    let (leader, _) = stocked(&home).await;
    let store = &leader.store;
    let tags = [("kind".to_owned(), "wood".to_owned())];
    let words = ("a forest", tags.as_slice());
    assert!(
        store
            .model_create("forest", words, at(5), &ann())
            .await
            .unwrap()
    );
    assert!(
        !store
            .model_create("forest", words, at(6), &ann())
            .await
            .unwrap()
    );
    let prompt = [("mlflow.prompt.is_prompt".to_owned(), "true".to_owned())];
    let by = ann();
    let hidden = store.model_create("prompt", ("", &prompt), at(7), &by);
    assert!(hidden.await.unwrap());
    // What MLflow's client adds to every search.
    let no_prompts = "tag.`mlflow.prompt.is_prompt` != 'true'";
    assert_eq!(
        found(&leader, no_prompts, &[]).await,
        ["flowers", "forest", "trees"]
    );
    assert_eq!(
        found(&leader, "", &[]).await,
        ["flowers", "forest", "trees"]
    );
    assert_eq!(
        found(&leader, "name LIKE 'f%'", &["name DESC"]).await,
        ["forest", "flowers"]
    );
    assert_eq!(
        found(&leader, "name ILIKE 'F%' AND tags.kind = 'wood'", &[]).await,
        ["forest"]
    );
    assert_eq!(found(&leader, "name = 'nothing'", &[]).await, [""; 0]);
    assert_eq!(
        found(&leader, "tags.`mlflow.prompt.is_prompt` = 'true'", &[]).await,
        ["prompt"]
    );
    assert!(
        store
            .model_tag("forest", ("kind", None), at(8), &ann())
            .await
            .unwrap()
    );
    assert!(
        !store
            .model_tag("nothing", ("kind", None), at(8), &ann())
            .await
            .unwrap()
    );
    assert!(
        store
            .model_describe("forest", "trees", at(9), &ann())
            .await
            .unwrap()
    );
    let face = store.model_face("forest").await.unwrap().unwrap();
    assert_eq!((face.description.as_str(), face.tags.len()), ("trees", 0));
    assert_eq!((face.created_at, face.updated_at), (at(5), at(9)));
}

async fn versions_are_searched_by_what_is_said_of_them(home: Home) {
    let (leader, _) = stocked(&home).await;
    let store = &leader.store;
    store
        .version_tag(("flowers", 2), ("by", Some("hand")), at(5), &ann())
        .await
        .unwrap();
    store
        .version_describe(("flowers", 3), "the third", at(6), &ann())
        .await
        .unwrap();
    assert!(
        !store
            .version_describe(("flowers", 9), "x", at(6), &ann())
            .await
            .unwrap()
    );
    let run = version("flowers", 1, Digest::of(b""))
        .trained()
        .unwrap()
        .trial;
    let of_run = format!("run_id = '{run}' AND name LIKE 'flo%'");
    for (text, order_by, expect) in [
        ("name = 'flowers'", "version_number ASC", vec![1, 2, 3]),
        (
            "name = 'flowers'",
            "last_updated_timestamp DESC",
            vec![3, 2, 1],
        ),
        ("tags.by = 'hand'", "name", vec![2]),
        ("tags.by = 'hand' AND tags.by != 'hand'", "name", vec![]),
        (
            "version_number >= 2 AND name IN ('flowers', 'x')",
            "version_number",
            vec![2, 3],
        ),
        (of_run.as_str(), "version_number", vec![1, 2, 3]),
        ("source_path LIKE '%flowers/3'", "name", vec![3]),
    ] {
        let search = VersionSearch {
            filter: filter::model_versions(text).unwrap(),
            order: order::model_versions(&[order_by]).unwrap(),
            offset: 0,
            limit: 100,
        };
        let faces = store.version_search(&search).await.unwrap();
        let numbers: Vec<u32> = faces.iter().map(|face| face.version.number).collect();
        assert_eq!(numbers, expect, "{text}");
    }
    let face = store.version_face("flowers", 2).await.unwrap().unwrap();
    assert_eq!(face.tags, [("by".to_owned(), "hand".to_owned())]);
    let told = store.outbox_list(0, 100).await.unwrap();
    let tagged = told
        .iter()
        .find(|row| row.topic == "model_version_tag.set")
        .unwrap();
    assert_eq!(tagged.subject, "model/flowers");
}

async fn the_newest_version_of_each_stage_is_found_for_many_models(home: Home) {
    let (leader, _) = stocked(&home).await;
    let store = &leader.store;
    let stage = async |number, stage, archive| {
        let of = ("flowers", number);
        store
            .version_stage(of, (stage, archive), at(5), &ann())
            .await
            .unwrap()
    };
    assert!(stage(1, "Production", false).await);
    assert!(stage(2, "Production", true).await);
    assert!(!stage(9, "Production", true).await);
    let names = ["flowers".to_owned(), "trees".to_owned()];
    let latest = store.version_latest(&names).await.unwrap();
    let shown: Vec<_> = (latest.iter())
        .map(|face| {
            (
                face.version.model.as_str(),
                face.stage.as_str(),
                face.version.number,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("flowers", "Archived", 1),
            ("flowers", "None", 3),
            ("flowers", "Production", 2),
            ("trees", "None", 1),
        ]
    );
}

async fn what_is_deleted_is_gone_and_its_numbers_are_remembered(home: Home) {
    let (mut leader, blob) = stocked(&home).await;
    let version_gone = |number| {
        Change::Removed(Removal::Version {
            model: "flowers".to_owned(),
            number,
            at: at(9),
        })
    };
    leader.commit(&[version_gone(3)]).await;
    assert_eq!(leader.store.version_get("flowers", 3).await.unwrap(), None);
    let model = leader.store.model_face("flowers").await.unwrap().unwrap();
    assert_eq!(model.newest, 2);
    let snapshot = leader.store.load().await.unwrap();
    assert_eq!(snapshot.deleted_versions, [("flowers".to_owned(), 3)]);
    let newest = snapshot.versions.iter().find(|row| row.model == "flowers");
    assert_eq!(newest.unwrap().number, 3, "so that the next one is 4");
    let gone = Removal::Model {
        model: "flowers".to_owned(),
        at: at(10),
    };
    leader.commit(&[Change::Removed(gone)]).await;
    assert_eq!(leader.store.model_face("flowers").await.unwrap(), None);
    assert!(leader.store.model_name_is_taken("flowers").await.unwrap());
    assert_eq!(found(&leader, "", &[]).await, ["trees"]);
    leader
        .commit(&[of_version(&version("flowers", 4, blob))])
        .await;
    let model = leader.store.model_face("flowers").await.unwrap().unwrap();
    assert_eq!(model.newest, 4);
    let page = PageRequest::first(10);
    let versions = leader.store.version_list("flowers", &page).await.unwrap();
    assert_eq!(versions.items.len(), 1);
}

async fn a_model_takes_all_it_has_to_its_new_name(home: Home) {
    let (mut leader, _) = stocked(&home).await;
    let first = alias_move("flowers", 1, None, 1);
    leader.commit(&[Change::AliasMoved(first)]).await;
    let store = leader.store.clone();
    store
        .version_tag(("flowers", 2), ("by", Some("hand")), at(5), &ann())
        .await
        .unwrap();
    store
        .model_tag("flowers", ("kind", Some("herb")), at(5), &ann())
        .await
        .unwrap();
    let renamed = Removal::Renamed {
        model: "flowers".to_owned(),
        to: "blossoms".to_owned(),
        at: at(9),
    };
    leader.commit(&[Change::Removed(renamed)]).await;
    assert_eq!(store.model_face("flowers").await.unwrap(), None);
    assert!(!store.model_name_is_taken("flowers").await.unwrap());
    let face = store.model_face("blossoms").await.unwrap().unwrap();
    assert_eq!(face.tags, [("kind".to_owned(), "herb".to_owned())]);
    let page = PageRequest::first(10);
    let versions = store.version_list("blossoms", &page).await.unwrap().items;
    assert!(versions.iter().all(|row| row.model == "blossoms"));
    assert_eq!(versions.len(), 3);
    let tagged = store.version_face("blossoms", 2).await.unwrap().unwrap();
    assert_eq!(tagged.tags, [("by".to_owned(), "hand".to_owned())]);
    let alias = store.alias_get("blossoms", "champion").await.unwrap();
    let is_one = |alias: &Alias| (alias.number, alias.revision) == (1, 1);
    assert!(alias.as_ref().is_some_and(is_one), "{alias:?}");
    let history = store
        .alias_history("blossoms", "champion", None, &page)
        .await;
    assert_eq!(history.unwrap().items.len(), 1);
}

async fn the_audit_is_read_by_subject_and_page(home: Home) {
    let leader = home.lead().await;
    let entry = |at_s: i64, subject: &str| Audit {
        at: at(at_s),
        by: ann(),
        action: "alias.moved".to_owned(),
        subject: subject.to_owned(),
        result: "done".to_owned(),
        detail: "a test".to_owned(),
    };
    let all = [
        "model/a_b",
        "model/a_b/3",
        "model/axb",
        "model/a_bc",
        "model/a_b",
    ];
    for (at, subject) in all.iter().enumerate() {
        let entry = entry(i64::try_from(at).unwrap(), subject);
        leader.store.audit_add(&entry).await.unwrap();
    }
    let list = async |subject: Option<&str>, page: PageRequest| {
        leader.store.audit_list(subject, &page).await.unwrap()
    };
    let whole = list(None, PageRequest::first(10)).await.items;
    assert_eq!(whole.len(), 5);
    assert_eq!(whole[0], entry(4, "model/a_b"), "newest first");
    let first = list(Some("model/a_b"), PageRequest::first(2)).await;
    let shown: Vec<_> = first.items.iter().map(|row| row.subject.as_str()).collect();
    assert_eq!(shown, ["model/a_b", "model/a_b/3"]);
    let rest = PageRequest::first(2).after(first.next_page_token);
    let rest = list(Some("model/a_b"), rest).await;
    assert_eq!(
        (rest.items, rest.next_page_token),
        (vec![entry(0, "model/a_b")], None)
    );
}

async fn a_pull_is_remembered_for_as_long_as_it_says(home: Home) {
    let (leader, _) = stocked(&home).await;
    let store = &leader.store;
    assert_eq!(store.pulled_until("flowers", None).await.unwrap(), None);
    store.version_pulled(("flowers", 2), at(600)).await.unwrap();
    store.version_pulled(("flowers", 1), at(500)).await.unwrap();
    // Not worth a write.
    store.version_pulled(("flowers", 2), at(630)).await.unwrap();
    assert_eq!(
        store.pulled_until("flowers", Some(2)).await.unwrap(),
        Some(at(600))
    );
    assert_eq!(store.pulled_until("flowers", Some(3)).await.unwrap(), None);
    assert_eq!(
        store.pulled_until("flowers", None).await.unwrap(),
        Some(at(600))
    );
    store.version_pulled(("flowers", 2), at(700)).await.unwrap();
    assert_eq!(
        store.pulled_until("flowers", Some(2)).await.unwrap(),
        Some(at(700))
    );
}

async fn an_end_is_told_once_whatever_is_written_later(home: Home) {
    let mut leader = home.lead().await;
    let mut owner = experiment(1);
    let mut broken = trial(owner.id, 1);
    leader
        .commit(&[of_experiment(&owner), of_trial(&broken)])
        .await;
    assert!(leader.store.outbox_list(0, 10).await.unwrap().is_empty());
    broken.version = 2;
    broken.state = TrialState::Failed {
        fault: Fault::new(Code::Internal, "a test says so"),
    };
    broken.ended_at = Some(at(7));
    owner.version = 2;
    owner.state = ExperimentState::Completed;
    owner.ended_at = Some(at(8));
    leader
        .commit(&[of_trial(&broken), of_experiment(&owner)])
        .await;
    // Pinned: written again, ended as before.
    broken.version = 3;
    broken.pinned = true;
    leader.commit(&[of_trial(&broken)]).await;
    let told = leader.store.outbox_list(0, 10).await.unwrap();
    let shown: Vec<_> = (told.iter())
        .map(|row| (row.topic.as_str(), row.subject.clone(), row.at))
        .collect();
    let subject = format!("experiment/{}", owner.id);
    assert_eq!(
        shown,
        [
            ("trial.failed", subject.clone(), at(7)),
            ("experiment.ended", subject, at(8)),
        ]
    );
    assert!(told[0].doc.contains("a test says so"), "{}", told[0].doc);
    assert!(told[1].doc.contains("completed"), "{}", told[1].doc);
}

async fn what_one_batch_does_to_a_model_is_done_in_order(home: Home) {
    let (mut leader, blob) = stocked(&home).await;
    let gone = Removal::Model {
        model: "flowers".to_owned(),
        at: at(9),
    };
    let new = of_version(&version("flowers", 4, blob));
    leader.commit(&[Change::Removed(gone), new]).await;
    let model = leader.store.model_face("flowers").await.unwrap().unwrap();
    assert_eq!(model.newest, 4);
    let snapshot = leader.store.load().await.unwrap();
    assert_eq!(snapshot.deleted_versions.len(), 3);
}
