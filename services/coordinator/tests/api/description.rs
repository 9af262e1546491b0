//! The description at `/openapi.json`, held by schemathesis against what the coordinator does.

use pomona_testing::clients_python;
use std::process::Command;

use crate::harness::House;
use crate::{GRID, furnished, submit};

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// Asks what the description allows and what it does not, some for each operation, the same in every
/// run. Live events are left out: that answer does not end.
fn held(house: &House) {
    let home = tempfile::tempdir().expect("a folder");
    let program = clients_python().with_file_name("schemathesis");
    let done = Command::new(program)
        .arg("run")
        .arg(format!("{}/openapi.json", house.server()))
        .args(["--phases", "examples,coverage,fuzzing"])
        .args([
            "--max-examples",
            "8",
            "--generation-deterministic",
            "--no-shrink",
        ])
        .args(["--checks", CHECKS, "--continue-on-failure"])
        .args(["--exclude-path", "/api/v1/events"])
        .args(["--request-timeout", "20", "--warnings", "off", "--no-color"])
        .current_dir(home.path())
        .env("HOME", home.path())
        .env("NO_PROXY", "*")
        .output()
        .expect("schemathesis runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(said.contains("No issues found"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_coordinator_does_what_its_description_says() {
    held(&House::open().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_with_rows_does_what_its_description_says() {
    let (house, mut machine) = furnished(2).await;
    submit(&house, GRID, "one").await;
    machine.has(2).await;
    held(&house);
}
