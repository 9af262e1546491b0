//! Bodies as they stand on the wire, ids and times taken out.

use pomona_domain::checkpoint::CheckpointKind;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{House, redacted};
use crate::worker::{introduction, published, trial_of};
use crate::{GRID, PROMOTED, furnished, submit};

async fn get(house: &House, path: &str) -> Value {
    let answer = house.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    redacted(&answer.json())
}

#[tokio::test]
async fn health_and_numbers() {
    let house = House::open().await;
    let mut shown = json!({});
    for path in ["/healthz", "/readyz", "/api/v1/cluster", "/api/v1/workers"] {
        shown[path] = get(&house, path).await;
    }
    insta::assert_json_snapshot!(shown);
}

#[tokio::test]
async fn a_worker_from_its_registration_to_its_lease() {
    let (house, mut machine) = furnished(1).await;
    let body = serde_json::to_value(introduction(1, 1)).unwrap();
    let registered = house.post("/api/v1/workers", &body).await.json();
    submit(&house, GRID, "grid").await;
    machine.has(1).await;
    let poll = serde_json::to_value(machine.body(0)).unwrap();
    let path = format!("/api/v1/workers/{}/poll", machine.id());
    let desired = house.post(&path, &poll).await.json();
    let shown = json!({
        "registered": redacted(&registered),
        "poll": redacted(&poll),
        "desired": redacted(&desired),
        "explanation": get(&house, &format!("/api/v1/explain/{}", machine.id())).await,
    });
    insta::assert_json_snapshot!(shown);
}

#[tokio::test]
async fn an_experiment_and_its_trials() {
    let (house, mut machine) = furnished(1).await;
    let preview = house
        .post("/api/v1/experiments/preview", &json!({"file": GRID}))
        .await
        .json();
    let owner = submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    machine.observe(&lease, 10, 0.5, 1.0);
    machine.checkpoint(&lease, CheckpointKind::Last, 10).await;
    machine.poll(0).await;
    let trial = trial_of(&lease);
    let shown = json!({
        "preview": preview,
        "experiment": get(&house, &format!("/api/v1/experiments/{}", owner.id)).await,
        "trials": get(&house, &format!("/api/v1/experiments/{}/trials?page_size=2", owner.id)).await,
        "trial": get(&house, &format!("/api/v1/trials/{trial}")).await,
        "observations": get(&house, &format!("/api/v1/trials/{trial}/observations")).await,
        "checkpoints": get(&house, &format!("/api/v1/trials/{trial}/checkpoints")).await,
        "explanation": get(&house, &format!("/api/v1/explain/{trial}")).await,
    });
    insta::assert_json_snapshot!(shown);
}

#[tokio::test]
async fn the_catalogue_and_the_registry() {
    let (house, mut machine) = furnished(1).await;
    submit(&house, PROMOTED, "one").await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.6, 1.0).await;
    let lease = machine.has(1).await.remove(0);
    let result = published(&house.client, 0.7).await;
    machine.answer(&lease, result).await;
    let mut shown = json!({});
    for path in [
        "/api/v1/datasets",
        "/api/v1/datasets/flowers/manifest",
        "/api/v1/backbones/lite",
        "/api/v1/tasks",
        "/api/v1/models/flowers",
        "/api/v1/models/flowers/versions/champion",
        "/api/v1/models/flowers/aliases/champion/history",
        "/api/v1/explain/model/flowers/champion",
    ] {
        shown[path] = get(&house, path).await;
    }
    insta::assert_json_snapshot!(shown);
}

#[tokio::test]
async fn errors() {
    let (house, _machine) = furnished(1).await;
    let mut shown = json!({});
    for (method, path, body) in [
        (Method::GET, "/api/v1/weather", json!(null)),
        (Method::DELETE, "/api/v1/workers", json!(null)),
        (Method::GET, "/api/v1/trials/tri_0", json!(null)),
        (
            Method::GET,
            "/api/v1/models/flowers/versions/champion",
            json!(null),
        ),
        (Method::GET, "/api/v1/workers?page_size=0", json!(null)),
        (Method::GET, "/api/v1/workers?sort=name", json!(null)),
        (Method::POST, "/api/v1/workers/machine-1/poll", json!({})),
        (
            Method::POST,
            "/api/v1/datasets",
            json!({"name": "a b", "archive": "x"}),
        ),
        (
            Method::POST,
            "/api/v1/experiments",
            json!({"file": "name: x\nbackbon: lite"}),
        ),
        (
            Method::POST,
            "/api/v1/experiments",
            json!({"file": GRID, "set": ["dataset=roses"]}),
        ),
    ] {
        let answer = house
            .raw(method.clone(), path, &[], &body.to_string())
            .await;
        let name = format!("{method} {path} {body}");
        shown[name] = json!({"status": answer.status, "body": redacted(&answer.json())});
    }
    insta::assert_json_snapshot!(shown);
}
