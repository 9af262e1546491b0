//! Webhooks: what a receiver hears, in which order, how often, and what it is never told.

mod kills;
mod mlflow;
mod tls;

use pomona_api::v1::webhooks::{
    CreateWebhook, DeliveriesQuery, ReplayWebhook, TestWebhook, UpdateWebhook, WebhookView,
};
use pomona_domain::hook::{Delivery, DeliveryState, HookStatus};
use pomona_domain::{Code, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

use crate::harness::{House, until};
use crate::receiver::{Heard, Receiver, SECRET};
use crate::registry::publish;
use crate::worker::Machine;
use crate::{GRID, submit};

/// Loopback is allowed, and patience is short.
const OPEN: &[(&str, &str)] = &[
    ("webhooks.allow_private", "true"),
    ("webhooks.backoff_base_ms", "30"),
    ("webhooks.backoff_max_ms", "200"),
    ("webhooks.max_attempts", "5"),
    ("webhooks.timeout_ms", "5000"),
];

const ENDED: &str = "experiment.ended";
const MOVED: &str = "model_version_alias.created";

async fn opened(keys: &[(&str, &str)]) -> (House, Machine, Receiver) {
    let house = House::with(keys).await;
    let mut machine = Machine::join(&house.client, 1, 1).await;
    machine.furnish().await;
    (house, machine, Receiver::open())
}

fn wanted(name: &str, url: String, events: &[&str]) -> CreateWebhook {
    CreateWebhook {
        name: name.to_owned(),
        url,
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        secret: SECRET.to_owned(),
        description: None,
        status: None,
    }
}

async fn hook(house: &House, receiver: &Receiver, events: &[&str]) -> WebhookView {
    let body = wanted("ci", receiver.url("127.0.0.1"), events);
    house
        .client
        .webhook_create(&body, "key-ci")
        .await
        .expect("a webhook")
}

/// An experiment that ends at once; gives its id.
async fn end(house: &House, key: &str) -> String {
    let owner = submit(house, GRID, key).await;
    let id = owner.id.to_string();
    house.client.experiment_cancel(&id).await.expect("it ends");
    id
}

async fn log(house: &House, state: Option<DeliveryState>) -> Vec<Delivery> {
    let query = DeliveriesQuery {
        state,
        ..DeliveriesQuery::default()
    };
    let mut rows = house
        .client
        .webhook_deliveries("ci", &query)
        .await
        .expect("a log")
        .items;
    rows.reverse();
    rows
}

async fn all_in(house: &House, state: DeliveryState, count: usize) -> Vec<Delivery> {
    until("all deliveries are in this state", || async {
        let rows = log(house, None).await;
        (rows.len() == count && rows.iter().all(|row| row.state == state)).then_some(rows)
    })
    .await
}

/// Two versions of `flowers`, between which an alias can move.
async fn versions(house: &House, machine: &mut Machine) {
    publish(house, machine, "one", 0.6).await;
    publish(house, machine, "two", 0.7).await;
}

/// The `number`-th move of an alias: to the other version each time.
async fn moved(house: &House, number: u32) -> String {
    let reason = format!("move-{number}");
    let body = pomona_api::v1::models::SetAlias {
        version: 1 + number % 2,
        expected_revision: None,
        reason: Some(reason.clone()),
    };
    let client = &house.client;
    let set = client.alias_set("flowers", "next", &body, &reason).await;
    set.expect("it moves");
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_of_a_promotion_with_a_signature_that_verifies() {
    let (house, mut machine, receiver) = opened(OPEN).await;
    publish(&house, &mut machine, "before", 0.6).await;
    let view = hook(&house, &receiver, &[MOVED, ENDED]).await;
    publish(&house, &mut machine, "after", 0.7).await;
    let heard = receiver.hears(2).await;
    let of = |kind: &str| {
        heard
            .iter()
            .find(|one| one.kind() == kind)
            .expect("it came")
    };
    for one in &heard {
        one.verify();
        assert_eq!(one.headers["content-type"], "application/json");
        assert_eq!(one.path, "/hook?token=a");
    }
    let data = of(MOVED).json()["data"].clone();
    assert_eq!(
        (&data["alias"], &data["to"]),
        (&json!("champion"), &json!(2)),
        "{data}"
    );
    assert_eq!(of(ENDED).json()["data"]["outcome"], "completed");
    let rows = all_in(&house, DeliveryState::Delivered, 2).await;
    assert!(
        rows.iter()
            .all(|row| row.attempts == 1 && row.last_status == Some(204)),
        "{rows:?}"
    );
    let ids: Vec<_> = rows.iter().map(|row| row.id.to_string()).collect();
    assert!(heard.iter().all(|one| ids.contains(&one.id().to_owned())));
    let metrics = house.client.metrics().await.expect("metrics");
    assert!(
        metrics.contains("pomona_webhook_deliveries_total{result=\"delivered\"} 2"),
        "{metrics}"
    );
    assert!(metrics.contains("pomona_webhook_outbox_oldest_seconds"));
    assert_eq!(
        house
            .client
            .webhook_get(&view.hook.id.to_string())
            .await
            .expect("it")
            .waiting,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_subject_events_come_in_order_whatever_the_receiver_does_and_others_do_not_wait() {
    let (mut house, mut machine, receiver) = opened(OPEN).await;
    house.set("webhooks.max_attempts", "1000");
    house.restart().await;
    machine.meet(&house.client);
    versions(&house, &mut machine).await;
    // The first move is not taken before the other subject was heard, and three times at least.
    let (mut failures, mut others) = (0, 0);
    receiver.answer(move |heard| {
        others += u32::from(heard.kind() == ENDED);
        if heard.kind() == MOVED && (failures < 3 || others == 0) {
            failures += 1;
            return (503, None);
        }
        (200, None)
    });
    hook(&house, &receiver, &[MOVED, ENDED]).await;
    for number in 0..3 {
        moved(&house, number).await;
    }
    let ended = end(&house, "other").await;
    let rows = all_in(&house, DeliveryState::Delivered, 4).await;
    let heard = receiver.heard();
    let moves: Vec<&Heard> = heard.iter().filter(|one| one.kind() == MOVED).collect();
    let reason = |one: &&Heard| {
        one.json()["data"]["reason"]
            .as_str()
            .expect("why")
            // What gates say of a move follows.
            .split(';')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut reasons: Vec<String> = moves.iter().map(reason).collect();
    let first = moves.iter().filter(|one| one.id() == moves[0].id()).count();
    assert!(
        first >= 4 && reasons[..first].iter().all(|why| why == "move-0"),
        "{reasons:?}"
    );
    reasons.dedup();
    assert_eq!(reasons, ["move-0", "move-1", "move-2"]);
    assert_eq!(moves.len(), first + 2, "what was taken is not sent again");
    assert!(
        moves[..first].iter().all(|one| one.body == moves[0].body),
        "the same bytes"
    );
    for one in &moves {
        one.verify();
    }
    let pause = |n: usize| moves[n + 1].at.duration_since(moves[n].at);
    assert!(pause(0) >= Duration::from_millis(30), "{:?}", pause(0));
    assert!(
        pause(2) >= Duration::from_millis(120),
        "pauses grow: {:?}",
        pause(2)
    );
    let other = heard
        .iter()
        .find(|one| one.kind() == ENDED)
        .expect("it came");
    assert_eq!(other.json()["data"]["experiment"], json!(ended));
    assert_eq!(rows[0].attempts as usize, first);
    assert!(rows[1..].iter().all(|row| row.attempts == 1), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirections_are_not_followed_and_what_is_given_up_lets_the_next_go() {
    let (house, mut machine, receiver) = opened(OPEN).await;
    versions(&house, &mut machine).await;
    let elsewhere = Receiver::open();
    let target = elsewhere.url("127.0.0.1");
    receiver.answer(move |heard| {
        if heard.json()["data"]["reason"] == "move-0" {
            return (307, Some(("Location", target.clone())));
        }
        (200, None)
    });
    hook(&house, &receiver, &[MOVED]).await;
    moved(&house, 0).await;
    moved(&house, 1).await;
    let heard = receiver.hears(6).await;
    assert_eq!(heard.len(), 6, "five attempts, then the next event");
    let rows = until("both are settled", || async {
        let rows = log(&house, None).await;
        rows.iter()
            .all(|row| row.state != DeliveryState::Pending)
            .then_some(rows)
    })
    .await;
    assert_eq!(
        (rows[0].state, rows[0].attempts),
        (DeliveryState::Failed, 5)
    );
    assert_eq!(rows[0].last_status, Some(307));
    assert!(
        rows[0]
            .last_error
            .as_ref()
            .expect("why")
            .contains("not followed"),
        "{rows:?}"
    );
    assert_eq!(rows[1].state, DeliveryState::Delivered);
    assert!(elsewhere.heard().is_empty());
    assert_eq!(log(&house, Some(DeliveryState::Failed)).await.len(), 1);
    assert_eq!(house.client.webhook_get("ci").await.expect("it").failed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_disables_its_webhook() {
    let (house, _machine, receiver) = opened(OPEN).await;
    receiver.answer(|_| (410, None));
    hook(&house, &receiver, &[ENDED]).await;
    end(&house, "one").await;
    let rows = all_in(&house, DeliveryState::Failed, 1).await;
    assert_eq!(rows[0].last_status, Some(410));
    let view = house.client.webhook_get("ci").await.expect("it");
    assert_eq!(view.hook.status, HookStatus::Disabled);
    end(&house, "two").await;
    let enable = UpdateWebhook {
        status: Some(HookStatus::Active),
        ..UpdateWebhook::default()
    };
    receiver.answer(|_| (200, None));
    house
        .client
        .webhook_update("ci", &enable)
        .await
        .expect("it is active");
    let third = end(&house, "three").await;
    let heard = receiver.hears(2).await;
    assert_eq!(
        heard[1].json()["data"]["experiment"],
        json!(third),
        "nothing of while it was disabled"
    );
    // A replay brings that, too, and what had failed.
    let body = ReplayWebhook {
        since: Timestamp(0),
    };
    let sent = house
        .client
        .webhook_replay("ci", &body, "again")
        .await
        .expect("a replay");
    assert_eq!(sent.deliveries, 3);
    let repeated = house
        .client
        .webhook_replay("ci", &body, "again")
        .await
        .expect("the same");
    assert_eq!(repeated, sent, "one key, one replay");
    receiver.hears(5).await;
    all_in(&house, DeliveryState::Delivered, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_sent_again_under_its_id() {
    let (house, _machine, receiver) = opened(OPEN).await;
    hook(&house, &receiver, &[ENDED]).await;
    end(&house, "one").await;
    let row = all_in(&house, DeliveryState::Delivered, 1).await.remove(0);
    let id = row.id.to_string();
    let again = house
        .client
        .webhook_replay_one("ci", &id)
        .await
        .expect("a delivery");
    assert_eq!((again.id, again.state), (row.id, DeliveryState::Pending));
    let heard = receiver.hears(2).await;
    assert_eq!(heard[0].id(), heard[1].id());
    assert_eq!(heard[0].body, heard[1].body);
    for missing in ["msg_0000000000000001", "nonsense"] {
        let fault = house
            .client
            .webhook_replay_one("ci", missing)
            .await
            .unwrap_err();
        assert_eq!(fault.code, Code::NotFound, "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_inside_are_refused_when_a_webhook_is_made_and_when_it_is_told() {
    let (mut house, _machine, receiver) = opened(OPEN).await;
    let body = wanted("ci", receiver.url("localhost"), &[ENDED]);
    house
        .client
        .webhook_create(&body, "key")
        .await
        .expect("it is allowed here");
    // The same name leads to the same address, which is not allowed any more.
    house.set("webhooks.allow_private", "false");
    house.set("webhooks.max_attempts", "1000");
    house.restart().await;
    end(&house, "one").await;
    let row = until("it was attempted", || async {
        let rows = log(&house, None).await;
        rows.into_iter().find(|row| row.attempts > 0)
    })
    .await;
    let why = row.last_error.expect("why");
    assert!(
        why.starts_with("refused: `") && why.ends_with("is an address of this machine"),
        "{why}"
    );
    let tested = house
        .client
        .webhook_test("ci", &TestWebhook::default())
        .await
        .expect("a test");
    assert!(!tested.success && tested.error.expect("why").starts_with("refused"));
    assert!(receiver.heard().is_empty(), "nobody knocked");
    for url in [
        receiver.url("localhost"),
        receiver.url("127.0.0.1"),
        receiver.url("[::1]"),
        receiver.url("[::ffff:127.0.0.1]"),
        receiver.url("2130706433"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "https://user:hush@example.org/".to_owned(),
        "ftp://example.org/".to_owned(),
        "nonsense".to_owned(),
    ] {
        let body = wanted("other", url.clone(), &[ENDED]);
        let fault = house.client.webhook_create(&body, &url).await.unwrap_err();
        assert_eq!(fault.code, Code::BadWebhook, "{url}");
        assert!(!fault.message.contains("hush"), "{fault:?}");
    }
    house.set("webhooks.allow_networks", "[\"127.0.0.0/8\", \"::1/128\"]");
    house.restart().await;
    receiver.hears(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_goes_in_and_never_comes_out() {
    let (house, _machine, receiver) = opened(OPEN).await;
    let body =
        serde_json::to_value(wanted("ci", receiver.url("127.0.0.1"), &[ENDED])).expect("JSON");
    let mut shown = vec![house.post("/api/v1/webhooks", &body).await.text];
    let mut bad = body.clone();
    bad["secret"] = json!("whsec_hushhush");
    shown.push(house.post("/api/v1/webhooks", &bad).await.text);
    bad["secret"] = json!(7);
    shown.push(house.post("/api/v1/webhooks", &bad).await.text);
    let changed = json!({ "secret": SECRET }).to_string();
    shown.push(
        house
            .raw(Method::PATCH, "/api/v1/webhooks/ci", &[], &changed)
            .await
            .text,
    );
    end(&house, "one").await;
    receiver.hears(1).await[0].verify();
    for path in ["webhooks", "webhooks/ci", "webhooks/ci/deliveries"] {
        shown.push(house.get(&format!("/api/v1/{path}")).await.text);
    }
    shown.push(house.client.metrics().await.expect("metrics"));
    shown.push(house.words());
    for text in shown {
        assert!(
            !text.contains("whsec_Mf") && !text.contains("hushhush"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_a_code() {
    let (house, _machine, receiver) = opened(OPEN).await;
    let good =
        serde_json::to_value(wanted("ci", receiver.url("127.0.0.1"), &[ENDED])).expect("JSON");
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (body, expect) in [
        (json!({}), "E0101 400"),
        (with("name", json!("a b")), "E0107 400"),
        (with("events", json!([])), "E0721 400"),
        (with("events", json!(["experiment.began"])), "E0721 400"),
        (with("events", json!([ENDED, ENDED])), "E0721 400"),
        (with("secret", json!("hush")), "E0722 400"),
        (with("url", json!("http://")), "E0721 400"),
        (with("status", json!("ASLEEP")), "E0101 400"),
        (with("description", json!("x".repeat(1001))), "E0105 413"),
        (with("more", json!(1)), "E0101 400"),
    ] {
        let raw = house.post("/api/v1/webhooks", &body).await;
        assert_eq!(raw.refused(), expect, "{body} {}", raw.text);
    }
    assert_eq!(house.post("/api/v1/webhooks", &good).await.status, 201);
    assert_eq!(
        house.post("/api/v1/webhooks", &good).await.refused(),
        "E0103 409"
    );
    for path in [
        "webhooks/none",
        "webhooks/whk_0000000000000001",
        "webhooks/none/deliveries",
    ] {
        assert_eq!(
            house.get(&format!("/api/v1/{path}")).await.refused(),
            "E0102 404",
            "{path}"
        );
    }
    let check = async |path: &str, expect: &str| {
        assert_eq!(
            house
                .get(&format!("/api/v1/webhooks/ci/{path}"))
                .await
                .refused(),
            expect,
            "{path}"
        );
    };
    check("deliveries?state=lost", "E0101 400").await;
    check("deliveries?page_token=x", "E0101 400").await;
    check("deliveries?page_size=0", "E0101 400").await;
    let raw = house
        .post(
            "/api/v1/webhooks/ci/replay",
            &json!({ "since": "yesterday" }),
        )
        .await;
    assert_eq!(raw.refused(), "E0101 400");
    let raw = house
        .post("/api/v1/webhooks/ci/test", &json!({ "event": "x" }))
        .await;
    assert_eq!(raw.refused(), "E0721 400");
    house.client.webhook_delete("ci").await.expect("it goes");
    assert_eq!(house.get("/api/v1/webhooks/ci").await.status, 404);
}
