//! Webhooks as MLflow's client manages them.

use pomona_testing::clients_python;
use serde_json::{Value, json};
use std::process::Command;

use super::{ENDED, OPEN, wanted};
use crate::harness::House;

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_mlflow_client_manages_webhooks() {
    let house = House::with(OPEN).await;
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/mlflow_webhooks.py"
    );
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

/// The events of a request.
fn events() -> Value {
    json!([{ "entity": "MODEL_VERSION", "action": "CREATED" }])
}

/// What MLflow's server refuses, and how its sentence begins.
fn refusals() -> Vec<(Value, &'static str)> {
    let of = |url: &str| json!({ "name": "a", "url": url, "events": events() });
    vec![
        (json!({}), "Missing value for required parameter 'name'."),
        (
            json!({ "name": "a" }),
            "Missing value for required parameter 'url'.",
        ),
        (
            json!({ "name": "a", "url": "https://1.1.1.1/" }),
            "Missing value for required parameter 'events'.",
        ),
        (
            json!({ "name": 123 }),
            "Invalid value 123 for parameter 'name' supplied",
        ),
        (
            of("http://1.1.1.1/"),
            "Invalid webhook URL scheme: 'http'. Allowed schemes are: https.",
        ),
        (
            of(" "),
            "Webhook URL cannot be empty or just whitespace: ' '",
        ),
        (
            of("https://127.0.0.1/"),
            "Webhook URL must not resolve to a non-public IP address. '127.0.0.1' resolves to 127.0.0.1.",
        ),
        (
            of("https://localhost/"),
            "Webhook URL must not resolve to a non-public IP address. 'localhost' resolves to ",
        ),
        (
            of("https://does-not-exist.invalid/"),
            "Cannot resolve Webhook URL hostname 'does-not-exist.invalid': ",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn mlflows_endpoints_refuse_in_its_words_and_want_https_and_public_addresses() {
    let house = House::open().await;
    let create = async |body: Value| {
        let raw = house.post("/api/2.0/mlflow/webhooks", &body).await;
        let answer = raw.json();
        let word = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        (raw.status, word("error_code"), word("message"))
    };
    let of = |url: &str| json!({ "name": "a", "url": url, "events": events() });
    for (body, expect) in refusals() {
        let (status, code, message) = create(body.clone()).await;
        assert_eq!(
            (status, code.as_str()),
            (400, "INVALID_PARAMETER_VALUE"),
            "{body}"
        );
        assert!(message.starts_with(expect), "{body}: {message}");
    }
    assert_eq!(create(of("https://1.1.1.1/hook")).await.0, 200);
    // Ours are not MLflow's to see: it could not read their events.
    let body = wanted("ours", "https://1.1.1.1/".to_owned(), &[ENDED]);
    let ours = house
        .client
        .webhook_create(&body, "ours")
        .await
        .expect("a webhook");
    let listed = house.get("/api/2.0/mlflow/webhooks").await.json();
    assert_eq!(listed["webhooks"].as_array().expect("a list").len(), 1);
    let got = house
        .get(&format!("/api/2.0/mlflow/webhooks/{}", ours.hook.id))
        .await;
    assert_eq!(
        (got.status, &got.json()["error_code"]),
        (404, &json!("RESOURCE_DOES_NOT_EXIST"))
    );
    let all = house
        .client
        .webhook_list(&pomona_api::v1::PageQuery::default())
        .await
        .expect("a list");
    assert_eq!(all.items.len(), 2);
}
