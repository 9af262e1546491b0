//! Requests that are not as they should be, or too much: each is refused with a code.

use pomona_api::v1::workers::LogLine;
use pomona_api::v1::{MAX_PAGE_SIZE, PageQuery};
use pomona_domain::Code;
use pomona_store::{LOG_LINE_BYTES, LOG_LINES_PER_OWNER};
use reqwest::Method;
use serde_json::json;

use crate::harness::House;
use crate::worker::{AT, Machine, introduction, trial_of};
use crate::{GRID, experiment, file, furnished, submit};

#[tokio::test]
async fn a_path_that_nothing_serves_is_not_found() {
    let house = House::open().await;
    for path in [
        "/",
        "/api/v1",
        "/api/v1/weather",
        "/api/v1/trials/",
        "/api/v2/trials/x",
    ] {
        assert_eq!(house.get(path).await.refused(), "E0102 404", "{path}");
    }
}

#[tokio::test]
async fn the_api_describes_itself() {
    let house = House::open().await;
    let document = house.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for path in paths.keys().filter(|path| !path.contains('{')) {
        // Whatever is described is served: it may refuse, but it is there.
        let served = house.raw(Method::OPTIONS, path, &[], "").await;
        assert_eq!(served.status, 405, "{path}");
    }
    assert!(paths.len() > 30);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_it_has() {
    let house = House::open().await;
    for (method, path, allowed) in [
        (Method::DELETE, "/api/v1/workers", "POST, GET"),
        (Method::POST, "/healthz", "GET"),
        (Method::GET, "/api/v1/trials/tri_1/stop", "POST"),
        (Method::POST, "/api/v1/blobs/x", "PUT, HEAD, GET"),
    ] {
        let refused = house.raw(method, path, &[], "").await;
        assert_eq!(refused.refused(), "E0101 405", "{path}");
        assert_eq!(refused.headers["allow"], allowed, "{path}");
    }
}

#[tokio::test]
async fn bodies_and_queries_that_cannot_be_read_are_refused() {
    let house = House::open().await;
    let broken = house
        .raw(Method::POST, "/api/v1/experiments", &[], "{\"file\":")
        .await;
    assert_eq!(broken.refused(), "E0101 400");
    let unknown = house
        .post("/api/v1/experiments", &json!({"file": "", "sett": []}))
        .await;
    assert_eq!(unknown.refused(), "E0101 400");
    assert!(unknown.text.contains("sett"), "{}", unknown.text);
    let query = house.get("/api/v1/workers?page_sise=3").await;
    assert_eq!(query.refused(), "E0101 400");
    let digest = house.get("/api/v1/blobs/md5:0").await;
    assert_eq!(digest.refused(), "E0101 400");
    let token = house.get("/api/v1/experiments?page_token=next").await;
    assert_eq!(token.refused(), "E0101 400");
    let id = house.get("/api/v1/explain/flowers").await;
    assert_eq!(id.refused(), "E0101 400");
    let poll = house
        .post(
            "/api/v1/workers/me/poll",
            &json!({"incarnation": 1, "running": [], "reports": [], "wait_ms": 0}),
        )
        .await;
    assert_eq!(poll.refused(), "E0101 400");
}

#[tokio::test]
async fn what_is_over_its_limit_is_refused() {
    let house = House::with(&[("http.max_body_bytes", "2000")]).await;
    let large = house
        .post("/api/v1/experiments", &json!({"file": "x".repeat(3000)}))
        .await;
    assert_eq!(large.refused(), "E0105 413");
    let size = MAX_PAGE_SIZE + 1;
    let path = format!("/api/v1/workers?page_size={size}");
    assert_eq!(house.get(&path).await.refused(), "E0105 413");
    let none = house.get("/api/v1/workers?page_size=0").await;
    assert_eq!(none.refused(), "E0101 400");
    assert!(none.json()["error"]["hint"].is_string(), "{}", none.text);
}

#[tokio::test]
async fn an_empty_page_token_asks_for_the_first_page() {
    let house = House::open().await;
    Machine::join(&house.client, 1, 1).await;
    for list in ["workers", "experiments", "tasks", "models"] {
        let page = house.get(&format!("/api/v1/{list}?page_token=")).await;
        let plain = house.get(&format!("/api/v1/{list}")).await;
        assert_eq!((page.status, &page.text), (200, &plain.text), "{list}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap() {
    let house = House::open().await;
    for number in 1..=5 {
        Machine::join(&house.client, number, 1).await;
    }
    let mut seen = Vec::new();
    let mut query = PageQuery {
        page_size: Some(2),
        page_token: None,
    };
    loop {
        let page = house.client.worker_list(&query).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|row| row.worker.name));
        query.page_token = page.next_page_token;
        if query.page_token.is_none() {
            break;
        }
    }
    assert_eq!(
        seen,
        [
            "machine-1",
            "machine-2",
            "machine-3",
            "machine-4",
            "machine-5"
        ]
    );
}

#[tokio::test]
async fn every_fault_of_a_file_is_told_at_once() {
    let (house, _machine) = furnished(1).await;
    let text = GRID
        .replace("backbone: lite", "backbone: heavy")
        .replace("flowers\ntrain", "roses\ntrain");
    let refused = house
        .post("/api/v1/experiments", &json!({"file": text}))
        .await;
    assert_eq!(refused.refused(), "E0102 404");
    let body = refused.json();
    let faults = body["error"]["details"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2, "{body}");
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`heavy`"),
        "{body}"
    );
    let hint = faults[1]["hint"].as_str().unwrap();
    assert!(hint.contains("`flowers@1`"), "{body}");
    let depth = format!("{GRID}transfer: {{frozen_depth: _blocks.7}}\n");
    let fault = house
        .client
        .experiment_submit(&file(&depth), "depth")
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::UnknownBlock, "{fault}");
}

#[tokio::test]
async fn a_request_with_a_key_is_done_once() {
    let (house, _machine) = furnished(1).await;
    let body = json!({"file": GRID, "set": []}).to_string();
    let headers = [("Idempotency-Key", "mine")];
    let first = house
        .raw(Method::POST, "/api/v1/experiments", &headers, &body)
        .await;
    let again = house
        .raw(Method::POST, "/api/v1/experiments", &headers, &body)
        .await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.text, again.text, "a repeat answers the first answer");
    let listed = house
        .client
        .experiment_list(&PageQuery::default())
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1);
    let other = json!({"file": GRID.replace("flowers", "roses"), "set": []}).to_string();
    let reused = house
        .raw(Method::POST, "/api/v1/experiments", &headers, &other)
        .await;
    assert_eq!(reused.refused(), "E0106 409");
    let long = "k".repeat(129);
    let headers = [("Idempotency-Key", long.as_str())];
    let refused = house
        .raw(Method::POST, "/api/v1/experiments", &headers, &body)
        .await;
    assert_eq!(refused.refused(), "E0101 400");
    // Without a key each request is a new one.
    house
        .post("/api/v1/experiments", &json!({"file": GRID}))
        .await;
    let listed = house
        .client
        .experiment_list(&PageQuery::default())
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 2);
}

#[tokio::test]
async fn a_control_with_a_key_is_done_once_and_answers_its_first_answer() {
    let (house, mut machine) = furnished(1).await;
    let row = submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    let task = pomona_api::v1::catalogue::AddBackbone {
        name: "res".to_owned(),
        arch: "resnet18".to_owned(),
        weights: house.client.blob_put_bytes("weights").await.unwrap(),
    };
    let task = house.client.backbone_add(&task, "res").await.unwrap();
    for (number, path) in [
        format!("tasks/{}/cancel", task.id),
        format!("trials/{}/stop", trial_of(&lease)),
        format!("experiments/{}/pause", row.id),
        format!("experiments/{}/resume", row.id),
        format!("experiments/{}/cancel", row.id),
        format!("workers/{}/drain", machine.id()),
        format!("workers/{}/undrain", machine.id()),
    ]
    .iter()
    .enumerate()
    {
        let key = format!("key-{number}");
        let headers = [("Idempotency-Key", key.as_str())];
        let path = format!("/api/v1/{path}");
        let first = house.raw(Method::POST, &path, &headers, "").await;
        assert_eq!(first.status, 200, "{path}: {}", first.text);
        if path.ends_with("/stop") {
            machine.exit(&lease, pomona_domain::report::Outcome::Stopped);
            machine.poll(0).await;
        }
        let again = house.raw(Method::POST, &path, &headers, "").await;
        assert_eq!((again.status, &again.text), (200, &first.text), "{path}");
        if path.ends_with("/cancel") || path.ends_with("/stop") {
            let other = house.raw(Method::POST, &path, &[], "").await;
            assert_eq!(other.refused(), "E0104 409", "{path}");
        }
    }
}

#[tokio::test]
async fn a_name_that_several_have_is_not_enough_for_a_control() {
    let (house, _machine) = furnished(1).await;
    let first = submit(&house, GRID, "one").await;
    let second = submit(&house, GRID, "two").await;
    let by_name = house.client.experiment_get("flowers").await.unwrap();
    assert_eq!(by_name.id, second.id, "a look goes to the newest");
    for control in ["pause", "resume", "cancel"] {
        let path = format!("/api/v1/experiments/flowers/{control}");
        let refused = house.post(&path, &json!({})).await;
        assert_eq!(refused.refused(), "E0108 400", "{control}");
        assert!(refused.text.contains("`flowers`"), "{}", refused.text);
    }
    let newest = second.id.to_string();
    house.client.experiment_cancel(&newest).await.unwrap();
    let left = house.client.experiment_cancel("flowers").await.unwrap();
    assert_eq!(left.id, first.id, "the one that has not ended");
    let none = house.client.experiment_cancel("flowers").await.unwrap_err();
    assert_eq!(none.code, Code::WrongState);
}

#[tokio::test]
async fn images_that_the_network_cannot_take_are_refused_before_any_trial() {
    let (house, mut machine) = furnished(1).await;
    machine.add_dataset_of("tiny", "tiny", 8).await;
    let text = GRID.replace("dataset: flowers", "dataset: tiny");
    let submitted = house.client.experiment_submit(&file(&text), "small").await;
    let previewed = house.client.experiment_preview(&file(&text)).await;
    for fault in [submitted.unwrap_err(), previewed.unwrap_err()] {
        assert_eq!(fault.code, Code::BadImageSize, "{fault}");
        assert!(fault.message.contains("at least 32 pixels"), "{fault}");
        assert!(fault.hint.is_some(), "{fault}");
    }
}

#[tokio::test]
async fn what_waits_for_a_worker_that_may_come_is_said_at_once_and_until_it_comes() {
    let house = House::with(&[("pools", "[{name = \"big\", slots = 4}]")]).await;
    let mut machine = Machine::join(&house.client, 1, 2).await;
    machine.furnish().await;
    let text = format!("{GRID}resources: {{slots_per_trial: 4}}\n");
    let preview = house.client.experiment_preview(&file(&text)).await.unwrap();
    let submitted = house.client.experiment_submit(&file(&text), "wide").await;
    let submitted = submitted.unwrap();
    let id = submitted.id.to_string();
    let shown = house.client.experiment_get(&id).await.unwrap();
    for warnings in [&preview.warnings, &submitted.warnings, &shown.warnings] {
        let [fault] = warnings.as_slice() else {
            panic!("one warning: {warnings:?}");
        };
        assert_eq!(fault.code, Code::Unplaceable);
        assert!(fault.message.contains("4 slots"), "{fault}");
        assert!(fault.hint.as_ref().unwrap().contains("pool `big`"));
    }
    let why = house.client.explain(&id).await.unwrap();
    assert!(why.now.contains(&shown.warnings[0].message), "{why:?}");
    let fits = house.client.experiment_preview(&file(GRID)).await.unwrap();
    assert_eq!(fits.warnings, []);
    // A worker that drains gets nothing new, so it could not run anything either.
    let id_of_machine = machine.id().to_string();
    let drained = house.client.worker_drain(&id_of_machine, None).await;
    drained.unwrap();
    let none = house.client.experiment_preview(&file(GRID)).await.unwrap();
    assert_eq!(none.warnings[0].code, Code::Unplaceable);
    let back = house.client.worker_undrain(&id_of_machine).await;
    back.unwrap();
    let fits = house.client.experiment_preview(&file(GRID)).await.unwrap();
    assert_eq!(fits.warnings, []);
    Machine::join(&house.client, 2, 4).await;
    let shown = house.client.experiment_get(&id).await.unwrap();
    assert_eq!(shown.warnings, []);
}

#[tokio::test]
async fn what_nothing_could_ever_run_is_refused_and_the_preview_says_the_same() {
    let projects = "[{name = \"small\", quota_slots = 1}]";
    let house = House::with(&[("projects", projects)]).await;
    let mut machine = Machine::join(&house.client, 1, 2).await;
    machine.furnish().await;
    let refusals = [
        (
            "resources: {slots_per_trial: 4}",
            Code::Unplaceable,
            "worker `machine-1` has 2 slots of a kind",
        ),
        (
            "resources: {selector: {zone: [a, b]}}",
            Code::Unplaceable,
            "a trial of 1 slot where zone=a|b: worker `machine-1` has other labels",
        ),
        (
            "project: small\nresources: {slots_per_trial: 2}",
            Code::OverQuota,
            "project `small` may hold 1 at once",
        ),
    ];
    for (number, (rest, code, said)) in refusals.into_iter().enumerate() {
        let text = format!("{GRID}{rest}\n");
        let key = format!("key-{number}");
        let refused = house.client.experiment_submit(&file(&text), &key).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, code, "{rest}");
        assert!(refused.message.contains(said), "{refused}");
        let preview = house.client.experiment_preview(&file(&text)).await.unwrap();
        assert_eq!(preview.warnings, [refused], "{rest}");
    }
    let chip = "resources: {selector: {processor: [chip 0, chip 7]}}";
    let row = submit(&house, &format!("{GRID}{chip}\n"), "chip").await;
    assert_eq!(
        experiment(&house, &row).await.spec.resources.selector.len(),
        1
    );
    machine.has(2).await;
}

#[tokio::test]
async fn a_refused_request_with_a_key_may_be_tried_again() {
    let (house, mut machine) = furnished(1).await;
    let text = GRID.replace("dataset: flowers", "dataset: roses");
    let refused = house
        .client
        .experiment_submit(&file(&text), "mine")
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    machine.add_dataset("roses", "roses").await;
    let row = submit(&house, &text, "mine").await;
    assert_eq!(experiment(&house, &row).await.spec.dataset, "roses@1");
}

#[tokio::test]
async fn a_worker_of_another_protocol_is_refused_politely() {
    let house = House::open().await;
    let mut body = introduction(1, 1);
    body.protocol += 1;
    let fault = house.client.worker_register(&body).await.unwrap_err();
    assert_eq!(fault.code, Code::VersionMismatch);
    assert_eq!(fault.code.http_status(), 426);
    assert!(fault.message.contains("machine-1"), "{fault}");
    assert!(fault.hint.is_some());
    let workers = house
        .client
        .worker_list(&PageQuery::default())
        .await
        .unwrap();
    assert!(workers.items.is_empty());
}

#[tokio::test]
async fn of_another_protocol_nothing_but_its_number_is_read() {
    let house = House::open().await;
    let mut machine = Machine::join(&house.client, 1, 1).await;
    let slot = json!({"index": 0, "kind": "quantum", "name": "q"});
    let later = json!({"protocol": 99, "name": "late", "slots": [slot]});
    for body in [json!({"protocol": 99}), later, json!({"name": "early"})] {
        let refused = house.post("/api/v1/workers", &body).await;
        assert_eq!(refused.refused(), "E0003 426", "{body}");
    }
    let ours = json!({"protocol": pomona_api::PROTOCOL});
    let broken = house.post("/api/v1/workers", &ours).await;
    assert_eq!(broken.refused(), "E0101 400");
    // A worker outlives an upgrade of its coordinator: each poll says what it speaks.
    let poll = serde_json::to_value(machine.body(0)).unwrap();
    let path = format!("/api/v1/workers/{}/poll", machine.id());
    assert_eq!(house.post(&path, &poll).await.status, 200);
    for protocol in [json!(99), json!(null)] {
        let mut poll = poll.clone();
        poll["protocol"] = protocol;
        let refused = house.post(&path, &poll).await;
        assert_eq!(refused.refused(), "E0003 426", "{poll}");
    }
}

#[tokio::test]
async fn a_poll_of_a_worker_that_is_not_known_says_so() {
    let house = House::open().await;
    let mut machine = Machine::join(&house.client, 1, 1).await;
    let mut body = machine.body(0);
    body.incarnation = 2;
    let fault = machine.send(&body).await.unwrap_err();
    assert_eq!(fault.code, Code::UnknownWorker);
    let fault = house
        .client
        .worker_poll(pomona_domain::WorkerId(77), &body)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::UnknownWorker);
}

#[tokio::test]
async fn log_lines_are_kept_in_order_and_within_their_bounds() {
    let (house, mut machine) = furnished(1).await;
    submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    let trial = trial_of(&lease).to_string();
    let line = |owner: &str, line: String| LogLine {
        owner: owner.to_owned(),
        rank: 0,
        at: AT,
        line,
    };
    let total = LOG_LINES_PER_OWNER + 500;
    let mut written = 0;
    while written < total {
        let batch = (written..total.min(written + 2000)).map(|n| line(&trial, format!("line {n}")));
        machine.logs = batch.collect();
        written += machine.logs.len() as u64;
        machine.poll(0).await;
    }
    machine.logs = vec![
        line(&trial, "ä".repeat(LOG_LINE_BYTES)),
        line("somebody", "nobody's".to_owned()),
    ];
    machine.poll(0).await;
    let mut lines = Vec::new();
    let mut after = 0;
    loop {
        let page = house
            .client
            .trial_logs(&trial, after, Some(1000))
            .await
            .unwrap();
        let Some(last) = page.items.last() else { break };
        after = last.seq;
        lines.extend(page.items.into_iter().map(|entry| entry.line));
    }
    assert_eq!(lines.len() as u64, LOG_LINES_PER_OWNER);
    assert_eq!(lines[0], "line 501", "the oldest went first");
    assert_eq!(lines.last().unwrap().len(), LOG_LINE_BYTES);
    assert!(lines.iter().all(|line| !line.contains("nobody")));
}
