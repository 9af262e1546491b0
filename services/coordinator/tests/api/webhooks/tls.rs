//! A receiver behind TLS is told when its authority is trusted, and only then.

use pomona_api::v1::webhooks::TestWebhook;
use pomona_domain::hook::DeliveryState;
use pomona_testing::clients_python;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{ENDED, OPEN, all_in, end, log, wanted};
use crate::harness::{House, until};
use crate::worker::Machine;

/// The receiver's process; it ends with the test.
struct Https {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Https {
    fn open(folder: &std::path::Path) -> (Self, u64) {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/https_receiver.py"
        );
        let mut child = Command::new(clients_python())
            .arg(script)
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver starts");
        let lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let mut receiver = Self { child, lines };
        let port = receiver.says()["port"].as_u64().expect("a port");
        (receiver, port)
    }

    fn says(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("it is text");
        serde_json::from_str(&line).expect("JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_behind_tls_is_told_once_its_authority_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut receiver, port) = Https::open(folder.path());
    let mut house = House::with(OPEN).await;
    house.set("webhooks.max_attempts", "1000");
    house.restart().await;
    let mut machine = Machine::join(&house.client, 1, 1).await;
    machine.furnish().await;
    let body = wanted("ci", format!("https://localhost:{port}/a?b=c"), &[ENDED]);
    house
        .client
        .webhook_create(&body, "ci")
        .await
        .expect("a webhook");
    end(&house, "one").await;
    let row = until("it was attempted", || async {
        log(&house, None)
            .await
            .into_iter()
            .find(|row| row.attempts > 0)
    })
    .await;
    let why = row.last_error.expect("why");
    assert!(
        why.starts_with("no TLS: ") && why.contains("UnknownIssuer"),
        "{why}"
    );
    let authority = folder.path().join("ca.pem");
    house.set("webhooks.ca_file", authority.to_str().expect("a path"));
    house.restart().await;
    let said = receiver.says();
    assert_eq!(said["path"], "/a?b=c");
    assert_eq!(said["host"], format!("localhost:{port}"));
    assert_eq!(said["id"], row.id.to_string());
    all_in(&house, DeliveryState::Delivered, 1).await;
    // The address may stand for the name, if the certificate has it.
    let other = wanted("other", format!("https://127.0.0.1:{port}/"), &[ENDED]);
    house
        .client
        .webhook_create(&other, "other")
        .await
        .expect("a webhook");
    let tested = house
        .client
        .webhook_test("other", &TestWebhook::default())
        .await;
    assert!(tested.as_ref().expect("a test").success, "{tested:?}");
    assert_eq!(receiver.says()["path"], "/");
}
