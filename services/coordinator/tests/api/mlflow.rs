//! MLflow's API: the unmodified client, and what no client of theirs would send.

use crate::harness::{House, Raw, until};
use pomona_domain::Digest;
use pomona_testing::{Postgres, clients_python};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn ask(house: &House) {
    for script in ["mlflow_client.py", "mlflow_registry.py"] {
        ask_by(house, script);
    }
}

/// Runs a script with the unmodified client in it.
fn ask_by(house: &House, script: &str) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let script = std::path::Path::new(folder).join(script);
    let home = tempfile::tempdir().expect("a folder");
    let done = Command::new(clients_python())
        .arg(script)
        .arg(house.server())
        .current_dir(home.path())
        .env("HOME", home.path())
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("NO_PROXY", "*")
        .output()
        .expect("the client runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{}{said}",
        String::from_utf8_lossy(&done.stdout)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_client_works_on_sqlite() {
    ask(&House::open().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_client_works_on_postgres() {
    let server = Postgres::start();
    let url = server.url("postgres");
    ask(&House::with(&[("store.url", &url)]).await);
}

/// A request to MLflow's API, and its answer: status, error code, message.
async fn refused(house: &House, method: Method, path: &str, body: &str) -> (u16, String, String) {
    let path = format!("/api/2.0/mlflow/{path}");
    let raw = house
        .raw(method, &path, &[("content-type", "application/json")], body)
        .await;
    let answer = raw.json();
    let word = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    (raw.status, word("error_code"), word("message"))
}

async fn run(house: &House) -> String {
    let made = house
        .post(
            "/api/2.0/mlflow/runs/create",
            &json!({ "experiment_id": "0" }),
        )
        .await;
    let run = made.json()["run"]["info"]["run_id"].clone();
    run.as_str().expect("an id").to_owned()
}

/// What nobody should send, by path.
fn bad_bodies(run: &str) -> Vec<(&'static str, Value)> {
    let mut bodies = bad_experiments();
    bodies.extend(bad_runs(run));
    bodies.extend(bad_models());
    bodies
}

fn bad_experiments() -> Vec<(&'static str, Value)> {
    vec![
        ("experiments/create", json!({})),
        ("experiments/create", json!({ "name": 123 })),
        ("experiments/create", json!({ "name": "" })),
        ("experiments/create", json!({ "name": "x".repeat(600) })),
        (
            "experiments/create",
            json!({ "name": "ok", "tags": [{ "key": "" }] }),
        ),
        ("experiments/delete", json!({ "experiment_id": "nothing" })),
        ("experiments/search", json!({ "max_results": -1 })),
        ("experiments/search", json!({ "page_token": "%%%" })),
        ("experiments/search", json!({ "view_type": "SOME" })),
    ]
}

fn bad_models() -> Vec<(&'static str, Value)> {
    vec![
        ("registered-models/create", json!({})),
        ("registered-models/create", json!({ "name": "a:b" })),
        (
            "registered-models/create",
            json!({ "name": "x".repeat(300) }),
        ),
        (
            "registered-models/rename",
            json!({ "name": "nothing", "new_name": "x" }),
        ),
        (
            "registered-models/alias",
            json!({ "name": "nothing", "alias": "a", "version": "1" }),
        ),
        (
            "registered-models/set-tag",
            json!({ "name": "nothing", "key": "", "value": "x" }),
        ),
        (
            "registered-models/get-latest-versions",
            json!({ "name": "nothing" }),
        ),
        (
            "model-versions/create",
            json!({ "name": "nothing", "source": "s3://b/m" }),
        ),
        (
            "model-versions/create",
            json!({ "name": "nothing", "source": "\u{0}" }),
        ),
        (
            "model-versions/set-tag",
            json!({ "name": "x", "version": "99999999999999999999", "key": "a", "value": "" }),
        ),
        (
            "model-versions/transition-stage",
            json!({ "name": "x", "version": "1", "stage": "Nowhere" }),
        ),
    ]
}

fn bad_runs(run: &str) -> Vec<(&'static str, Value)> {
    let long = "x".repeat(2_000_000);
    let metric = |at: u32| json!({ "key": format!("k{at}"), "value": 1, "timestamp": 1 });
    let metrics: Vec<Value> = (0..1001).map(metric).collect();
    vec![
        ("runs/create", json!({ "experiment_id": "99" })),
        ("runs/create", json!({ "experiment_id": "0", "tags": 7 })),
        ("runs/log-metric", json!({ "run_id": run, "key": "a" })),
        (
            "runs/log-metric",
            json!({ "run_id": run, "key": "../a", "value": 1, "timestamp": 1 }),
        ),
        (
            "runs/log-metric",
            json!({ "run_id": run, "key": "a", "value": "x", "timestamp": 1 }),
        ),
        (
            "runs/log-metric",
            json!({ "run_id": "nothing", "key": "a", "value": 1, "timestamp": 1 }),
        ),
        (
            "runs/log-parameter",
            json!({ "run_id": run, "key": "x".repeat(300), "value": "1" }),
        ),
        (
            "runs/log-batch",
            json!({ "run_id": run, "metrics": metrics }),
        ),
        (
            "runs/log-batch",
            json!({ "run_id": run, "metrics": [{ "key": "a" }] }),
        ),
        (
            "runs/log-batch",
            json!({ "run_id": run, "tags": [{ "key": "a", "value": long }] }),
        ),
        ("runs/update", json!({ "run_id": run, "status": "WELL" })),
        (
            "runs/search",
            json!({ "experiment_ids": ["0"], "order_by": ["nothing.x"] }),
        ),
        (
            "runs/search",
            json!({ "experiment_ids": ["0"], "filter": "metrics." }),
        ),
        ("runs/search", json!([1, 2])),
        (
            "runs/delete-tag",
            json!({ "run_id": run, "key": "nothing" }),
        ),
        (
            "runs/log-inputs",
            json!({ "run_id": run, "datasets": [{ "dataset": {} }] }),
        ),
        (
            "runs/log-model",
            json!({ "run_id": run, "model_json": "{" }),
        ),
        (
            "logged-models",
            json!({ "experiment_id": "0", "name": "a/b" }),
        ),
        ("logged-models/search", json!({ "experiment_ids": [] })),
        ("nothing/at-all", json!({})),
    ]
}

#[tokio::test]
async fn bad_input_is_never_our_fault() {
    let house = House::open().await;
    let run = run(&house).await;
    for (path, body) in bad_bodies(&run) {
        let (status, code, message) = refused(&house, Method::POST, path, &body.to_string()).await;
        assert!(
            (400..500).contains(&status),
            "{path}: {status} {code} {message}"
        );
        assert!(!code.is_empty() && !message.is_empty(), "{path}: {status}");
    }
    for body in ["{", "\u{0}", "[", "nonsense", "\"x\""] {
        let (status, code, _) = refused(&house, Method::POST, "runs/search", body).await;
        assert!((400..500).contains(&status), "{body:?}: {status} {code}");
    }
    for path in [
        "runs/get",
        "runs/get?run_id=",
        "experiments/get?experiment_id=7",
        "traces/search",
        "registered-models/get?name=",
        "registered-models/get?name=%00",
        "registered-models/alias?name=nothing&alias=x",
        "registered-models/search?filter=name",
        "registered-models/search?max_results=0&page_token=x",
        "model-versions/get?name=nothing&version=-1",
        "model-versions/search?filter=version_number%20%3E%20%27x%27",
        "model-versions/get-download-uri?name=nothing&version=1",
        "../../../model-versions/get-artifact?name=nothing&version=1&path=x",
    ] {
        let (status, code, _) = refused(&house, Method::GET, path, "").await;
        assert!((400..500).contains(&status), "{path}: {status} {code}");
    }
}

#[tokio::test]
async fn refusals_are_in_the_words_that_clients_know() {
    let house = House::open().await;
    let (status, code, message) = refused(&house, Method::POST, "experiments/create", "{}").await;
    assert_eq!((status, code.as_str()), (400, "INVALID_PARAMETER_VALUE"));
    assert!(
        message.starts_with("Missing value for required parameter 'name'."),
        "{message}"
    );
    let (_, _, message) = refused(
        &house,
        Method::POST,
        "experiments/create",
        "{\"name\": 123}",
    )
    .await;
    assert!(
        message.starts_with("Invalid value 123 for parameter 'name' supplied"),
        "{message}"
    );
    let (status, code, message) = refused(&house, Method::GET, "runs/get?run_id=nope", "").await;
    assert_eq!((status, code.as_str()), (404, "RESOURCE_DOES_NOT_EXIST"));
    assert_eq!(message, "Run with id=nope not found");
    let raw = house.post("/api/3.0/mlflow/traces", &json!({})).await;
    assert_eq!(
        (raw.status, &raw.json()["error_code"]),
        (404, &json!("ENDPOINT_NOT_FOUND"))
    );
}

#[tokio::test]
async fn a_path_of_a_file_is_safe_or_refused() {
    let house = House::open().await;
    let at = |path: &str| format!("/api/2.0/mlflow-artifacts/artifacts/{path}");
    let put = async |path: &str| -> Raw { house.raw(Method::PUT, &at(path), &[], "bytes").await };
    let name = "x".repeat(300);
    let bad = [
        "..%2f..%2fetc%2fpasswd",
        "0/%2e%2e/%2e%2e/x",
        "0/a/..%2fx",
        "%2fetc%2fpasswd",
        "0/%252e%252e/x",
        "0/a%00b",
        "0/a%5cb",
        "0/a//b",
        &format!("0/{name}"),
    ];
    for path in bad {
        let raw = put(path).await;
        assert!(
            (400..500).contains(&raw.status),
            "{path}: {} {}",
            raw.status,
            raw.text
        );
    }
    assert_eq!(put("0/run/artifacts/a%20b.txt").await.status, 200);
    let got = house.get(&at("0/run/artifacts/a%20b.txt")).await;
    assert_eq!((got.status, got.text.as_str()), (200, "bytes"));
    assert!(
        got.headers["content-disposition"]
            .to_str()
            .expect("text")
            .starts_with("attachment")
    );
    assert_eq!(put("0/run/artifacts/a%20b.txt/c").await.status, 400);
    assert_eq!(put("0/run/artifacts").await.status, 400);
    assert_eq!(house.get(&at("0/run/artifacts/nothing")).await.status, 404);
    let list = house
        .get("/api/2.0/mlflow-artifacts/artifacts?path=..")
        .await;
    assert_eq!(list.status, 400);
    let inside: Vec<PathBuf> = std::fs::read_dir(house.data_dir())
        .expect("it is there")
        .map(|one| one.expect("a file").path())
        .collect();
    assert!(
        inside.iter().all(|path| !path.ends_with("etc")),
        "{inside:?}"
    );
}

/// How many clients send how many batches of how many points.
const CLIENTS: i64 = 10;
const BATCHES: i64 = 100;
const POINTS: i64 = 50;

/// Sends a client's batches, each again until it is acknowledged, wherever the coordinator is.
async fn send(address: Arc<Mutex<String>>, run: String, client: i64) {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client");
    for batch in 0..BATCHES {
        let metrics: Vec<Value> = (0..POINTS)
            .map(|point| batch * POINTS + point)
            .map(|step| json!({ "key": format!("m{client}"), "value": step, "timestamp": step, "step": step }))
            .collect();
        let body = json!({ "run_id": run, "metrics": metrics }).to_string();
        loop {
            let url = format!(
                "{}/api/2.0/mlflow/runs/log-batch",
                address.lock().expect("it").clone()
            );
            let sent = http.post(url).body(body.clone()).send().await;
            match sent.map(|answer| answer.status().as_u16()) {
                Ok(200) => break,
                Ok(status) => assert!(status >= 500, "{status}"),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_there_once_whatever_dies() {
    let mut house = House::open().await;
    let run = run(&house).await;
    let address = Arc::new(Mutex::new(house.server()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(send(Arc::clone(&address), run.clone(), client)))
        .collect();
    let mut kills = 0;
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(150)).await;
        house.kill();
        kills += 1;
        house.restart().await;
        *address.lock().expect("it") = house.server();
        // So long that something is written and settled, too.
        tokio::time::sleep(Duration::from_millis(kills * 300)).await;
    }
    for client in clients {
        client.await.expect("it sent all");
    }
    assert!(kills >= 2, "it was killed {kills} times");
    for client in 0..CLIENTS {
        let path = format!("/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=m{client}");
        let history = house.get(&path).await.json();
        let steps: Vec<i64> = (history["metrics"].as_array().expect("points").iter())
            .map(|point| point["step"].as_i64().expect("a step"))
            .collect();
        assert_eq!(
            steps,
            (0..BATCHES * POINTS).collect::<Vec<i64>>(),
            "client {client}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_another_length_leaves_nothing() {
    let house = House::open().await;
    let mut line = TcpStream::connect(house.address())
        .await
        .expect("it listens");
    let head = "PUT /api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/big HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000000\r\n\r\n";
    line.write_all(head.as_bytes()).await.expect("the head");
    for _ in 0..20 {
        line.write_all(&vec![7; 100_000]).await.expect("some of it");
    }
    line.shutdown().await.expect("the end");
    let mut answer = Vec::new();
    let _ = line.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    drop(line);
    let list = house
        .get("/api/2.0/mlflow-artifacts/artifacts?path=0/r/artifacts")
        .await;
    assert_eq!(list.json()["files"], json!([]));
    let left = || {
        let folder = house.data_dir().join("blobs/incoming");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    };
    until("the bytes that came are gone", async || {
        (left() == 0).then_some(())
    })
    .await;
}

/// Files in the blobs' folder that have no name yet.
fn unnamed(house: &House) -> usize {
    let folder = house.data_dir().join("blobs/unnamed");
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_was_answered_is_there_after_a_kill() {
    let mut house = House::open().await;
    let path = "/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/model/weights.bin";
    let body = "weights and ".repeat(1_500_000);
    assert_eq!(house.raw(Method::PUT, path, &[], &body).await.status, 200);
    house.kill();
    assert_eq!(unnamed(&house), 1, "it is answered before it is hashed");
    house.restart().await;
    let got = house.get(path).await;
    assert_eq!(got.status, 200);
    assert!(got.text == body, "the bytes are those that were sent");
    // Registered right after it came, it is hashed first.
    let body = body.to_uppercase();
    assert_eq!(house.raw(Method::PUT, path, &[], &body).await.status, 200);
    for (path, body) in [
        ("registered-models/create", json!({ "name": "large" })),
        (
            "model-versions/create",
            json!({ "name": "large", "source": "mlflow-artifacts:/0/r/artifacts/model" }),
        ),
    ] {
        let path = format!("/api/2.0/mlflow/{path}");
        let answer = house.post(&path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let version = house.get("/api/v1/models/large/versions/1").await;
    let digest = Digest::of(body.as_bytes()).hex();
    assert!(version.text.contains(&digest), "{}", version.text);
    assert_eq!(unnamed(&house), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_hashed_though_nobody_asks() {
    let house = House::open().await;
    let path = "/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/big.bin";
    let body = "bytes and ".repeat(1_700_000);
    assert_eq!(house.raw(Method::PUT, path, &[], &body).await.status, 200);
    until("it has its name", async || {
        (unnamed(&house) == 0).then_some(())
    })
    .await;
    let digest = Digest::of(body.as_bytes());
    let blob = house.get(&format!("/api/v1/blobs/{digest}")).await;
    assert!(blob.text == body, "it is a blob like any other");
}
