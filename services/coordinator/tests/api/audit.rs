//! What is deleted, who did it, and what clients of MLflow see of a version of ours.

use pomona_api::client::Client;
use pomona_api::v1::models::{AuditQuery, ChangeWords};
use pomona_domain::model::{Audit, version_digest};
use pomona_domain::{Code, Digest};
use reqwest::Method;
use serde_json::{Value, json};

use crate::furnished;
use crate::harness::House;
use crate::registry::{publish, to};

#[tokio::test(flavor = "multi_thread")]
async fn of_moves_that_saw_the_same_alias_exactly_one_is_done() {
    let (house, mut machine) = furnished(1).await;
    publish(&house, &mut machine, "one", 0.6).await;
    publish(&house, &mut machine, "two", 0.7).await;
    let mut wanted = to(1);
    wanted.expected_revision = Some(2);
    let moves = (0..16).map(|at| {
        let (client, wanted) = (house.client.clone(), wanted.clone());
        tokio::spawn(async move {
            let key = format!("move-{at}");
            client.alias_set("flowers", "champion", &wanted, &key).await
        })
    });
    let mut done = 0;
    for one in moves.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(alias) => {
                assert_eq!((alias.number, alias.revision), (1, 3));
                done += 1;
            }
            Err(fault) => assert_eq!(fault.code, Code::AliasMoved),
        }
    }
    assert_eq!(done, 1);
    let history = house
        .client
        .alias_history("flowers", "champion", None)
        .await;
    assert_eq!(history.unwrap().len(), 3);
    let audit = house.client.audit(&AuditQuery::default()).await.unwrap();
    let refused = |row: &&Audit| row.action == "alias.moved" && row.result == "refused";
    assert_eq!(audit.items.iter().filter(refused).count(), 15);
}

#[tokio::test]
async fn what_an_alias_or_a_pull_needs_is_not_deleted_and_numbers_are_never_given_again() {
    let (mut house, mut machine) = furnished(1).await;
    let client = house.client.clone().used_by("ann@desk");
    publish(&house, &mut machine, "one", 0.6).await;
    publish(&house, &mut machine, "two", 0.7).await;
    let needed = client
        .version_delete("flowers", "2", "a")
        .await
        .unwrap_err();
    assert_eq!(needed.code, Code::WrongState);
    assert!(needed.message.contains("`champion`"), "{needed}");
    assert!(needed.hint.is_some());
    client.version_pull("flowers", "1").await.unwrap();
    let pulled = client
        .version_delete("flowers", "1", "b")
        .await
        .unwrap_err();
    assert!(pulled.message.contains("is being pulled"), "{pulled}");
    let gone = client.model_delete("flowers", "c").await.unwrap_err();
    assert!(gone.message.contains("`champion`"), "{gone}");

    let moved = client
        .alias_history("flowers", "champion", None)
        .await
        .unwrap();
    client
        .alias_delete("flowers", "champion", "d")
        .await
        .unwrap();
    let none = client.version_get("flowers", "champion").await.unwrap_err();
    assert_eq!(none.code, Code::NotFound);
    let then = client.version_at("flowers", "champion", moved[1].at).await;
    assert_eq!(then.unwrap().number, 2, "where it pointed then");
    client.version_delete("flowers", "2", "e").await.unwrap();
    let none = client.version_get("flowers", "2").await.unwrap_err();
    assert_eq!(none.code, Code::NotFound);
    let history = client
        .alias_history("flowers", "champion", None)
        .await
        .unwrap();
    assert!(history.last().unwrap().deleted, "{history:?}");
    assert_eq!(history.last().unwrap().by.name, "ann@desk");
    house.restart().await;
    let client = house.client.clone();
    let refused = client.alias_set("flowers", "champion", &to(2), "f").await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);
    let new = client
        .alias_set("flowers", "champion", &to(1), "g")
        .await
        .unwrap();
    assert_eq!(new.revision, 4, "a revision only grows");
    let made = house
        .post(
            "/api/2.0/mlflow/model-versions/create",
            &json!({ "name": "flowers", "source": "s3://bucket/model" }),
        )
        .await;
    assert_eq!(made.json()["model_version"]["version"], json!("3"));
}

/// The same entries come page by page.
async fn paged(client: &Client, query: AuditQuery, audit: &[Audit]) {
    let first = AuditQuery {
        page_size: Some(4),
        ..query
    };
    let page = client.audit(&first).await.expect("a page");
    let rest = AuditQuery {
        page_token: page.next_page_token,
        ..first
    };
    let rest = client.audit(&rest).await.expect("a page");
    assert_eq!([page.items, rest.items].concat(), audit);
    let bad = AuditQuery {
        page_token: Some("x".to_owned()),
        ..AuditQuery::default()
    };
    let refused = client.audit(&bad).await.expect_err("no token of ours");
    assert_eq!(refused.code, Code::BadRequest);
}

#[tokio::test]
async fn the_audit_says_who_did_what_and_from_where() {
    let (house, mut machine) = furnished(1).await;
    publish(&house, &mut machine, "one", 0.6).await;
    let client = house.client.clone().used_by("ann@desk");
    let words = ChangeWords {
        description: Some("of the garden".to_owned()),
        tags: [("team".to_owned(), Some("vision".to_owned()))].into(),
    };
    let said = client.words_change("flowers", None, &words).await.unwrap();
    assert_eq!(
        (said.description.as_str(), said.tags["team"].as_str()),
        ("of the garden", "vision")
    );
    let shown = client.model_get("flowers").await.unwrap();
    assert_eq!(
        (shown.description, shown.tags),
        (said.description, said.tags)
    );
    client
        .alias_set("flowers", "challenger", &to(1), "x")
        .await
        .unwrap();
    client
        .alias_set("flowers", "challenger", &to(9), "y")
        .await
        .unwrap_err();
    let query = AuditQuery {
        subject: Some("model/flowers".to_owned()),
        ..AuditQuery::default()
    };
    let audit = client.audit(&query).await.unwrap().items;
    let told: Vec<_> = (audit.iter())
        .map(|row| {
            (
                row.action.as_str(),
                row.result.as_str(),
                row.by.name.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("alias.moved", "refused", "ann@desk"),
            ("alias.moved", "done", "ann@desk"),
            ("model.tagged", "done", "ann@desk"),
            ("model.described", "done", "ann@desk"),
            ("version.published", "done", "pomona"),
            ("alias.moved", "done", "pomona"),
        ]
    );
    assert_eq!(audit[0].by.origin, "cli 127.0.0.1");
    let other = AuditQuery {
        subject: Some("model/flower".to_owned()),
        ..AuditQuery::default()
    };
    assert!(client.audit(&other).await.unwrap().items.is_empty());
    paged(&client, query, &audit).await;
}

#[tokio::test]
async fn a_version_of_ours_is_what_clients_of_mlflow_download() {
    let (house, mut machine) = furnished(1).await;
    publish(&house, &mut machine, "one", 0.6).await;
    let ours = house
        .client
        .version_get("flowers", "champion")
        .await
        .unwrap();
    let get = async |path: &str| house.get(&format!("/api/2.0/{path}")).await;
    let face = get("mlflow/registered-models/alias?name=flowers&alias=champion").await;
    let face = face.json()["model_version"].clone();
    let trial = ours.trained().unwrap().trial.to_string();
    assert_eq!(
        (&face["version"], &face["run_id"]),
        (&json!("1"), &json!(trial))
    );
    let run = get(&format!("mlflow/runs/get?run_id={trial}")).await;
    assert_eq!(run.status, 200, "{}", run.text);
    let uri = get("mlflow/model-versions/get-download-uri?name=flowers&version=1").await;
    let uri = uri.json()["artifact_uri"].as_str().unwrap().to_owned();
    let root = uri.strip_prefix("mlflow-artifacts:/").unwrap();
    let list = get(&format!("mlflow-artifacts/artifacts?path={root}")).await;
    let listed: Vec<String> = (list.json()["files"].as_array().unwrap().iter())
        .map(|file| file["path"].as_str().unwrap().to_owned())
        .collect();
    let files: Vec<String> = ours.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(listed, files);
    for file in &ours.files {
        let got = get(&format!("mlflow-artifacts/artifacts/{root}/{}", file.path)).await;
        assert_eq!(
            Digest::of(got.text.as_bytes()).hex(),
            file.sha256,
            "{}",
            file.path
        );
        let path = format!(
            "/model-versions/get-artifact?name=flowers&version=1&path={}",
            file.path
        );
        assert_eq!(house.get(&path).await.text, got.text);
    }
    let path = format!("/api/2.0/mlflow-artifacts/artifacts/{root}/{}", files[0]);
    for method in [Method::PUT, Method::DELETE] {
        let refused = house.raw(method, &path, &[], "other").await;
        assert_eq!(refused.status, 400, "{}", refused.text);
    }
}

#[tokio::test]
async fn a_version_that_a_client_registered_is_pulled_like_one_of_ours() {
    let house = House::open().await;
    let post = async |path: &str, body: Value| {
        let answer = house.post(&format!("/api/2.0/mlflow/{path}"), &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    };
    let made = post("runs/create", json!({ "experiment_id": "0" })).await;
    let run = made["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    for (name, text) in [("MLmodel", "flavors: {}"), ("deep/weights", "bytes")] {
        let path = format!("/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model/{name}");
        let put = house.raw(Method::PUT, &path, &[], text).await;
        assert_eq!(put.status, 200, "{}", put.text);
    }
    post("registered-models/create", json!({ "name": "theirs" })).await;
    let source = format!("runs:/{run}/model");
    let body = json!({ "name": "theirs", "source": source, "run_id": run });
    post("model-versions/create", body).await;
    let alias = json!({ "name": "theirs", "alias": "champion", "version": "1" });
    post("registered-models/alias", alias).await;

    let version = house
        .client
        .version_pull("theirs", "champion")
        .await
        .unwrap();
    assert_eq!(version.digest, version_digest(&version.files));
    assert_eq!(version.registered().unwrap().source, source);
    let mut pulled = Vec::new();
    for file in &version.files {
        let digest: Digest = format!("sha256:{}", file.sha256).parse().unwrap();
        let bytes = house.client.blob_bytes(digest).await.unwrap();
        pulled.push((
            file.path.as_str(),
            String::from_utf8(bytes.to_vec()).unwrap(),
        ));
    }
    let expect = [("MLmodel", "flavors: {}"), ("deep/weights", "bytes")];
    assert_eq!(pulled, expect.map(|(path, text)| (path, text.to_owned())));
    // What a run's files become later is nothing to the version.
    let path = format!("/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model");
    assert_eq!(house.raw(Method::DELETE, &path, &[], "").await.status, 200);
    let list = "/api/2.0/mlflow-artifacts/artifacts?path=pomona-models/theirs/1/deep";
    let list = house.get(list).await.json();
    let expect = json!([{ "path": "weights", "is_dir": false, "file_size": 5 }]);
    assert_eq!(list["files"], expect);
    let query = AuditQuery {
        subject: Some("model/theirs".to_owned()),
        ..AuditQuery::default()
    };
    let audit = house.client.audit(&query).await.unwrap().items;
    assert!(
        audit.iter().all(|row| row.by.origin == "mlflow 127.0.0.1"),
        "{audit:?}"
    );
    assert_eq!(audit.len(), 3);
}
