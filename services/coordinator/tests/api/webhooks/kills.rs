//! Kills between a commit and its delivery: what was acknowledged is delivered when the coordinator is
//! back, at least once, in order, under the same ids.

use pomona_domain::hook::DeliveryState;
use pomona_testing::Postgres;
use std::collections::{BTreeMap, BTreeSet};

use super::{MOVED, OPEN, hook, log, moved, opened, versions};
use crate::harness::until;
use crate::receiver::Heard;

/// What a receiver heard, by event: the order in which events first came, and the ids of each.
fn by_event(heard: &[Heard]) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
    let (mut order, mut ids) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for one in heard {
        let reason = one.json()["data"]["reason"]
            .as_str()
            .expect("a reason")
            // What gates say of a move follows.
            .split(';')
            .next()
            .unwrap_or_default()
            .to_owned();
        let seen = ids.entry(reason.clone()).or_default();
        if seen.is_empty() {
            order.push(reason);
        }
        seen.push(one.id().to_owned());
    }
    (order, ids)
}

async fn killed_between_commit_and_delivery(keys: &[(&str, &str)]) {
    let (mut house, mut machine, receiver) = opened(keys).await;
    versions(&house, &mut machine).await;
    hook(&house, &receiver, &[MOVED]).await;
    let mut expect = Vec::new();
    for round in 0..4 {
        // It takes the connection and never answers: nothing is delivered before the kill.
        receiver.answer(|_| (0, None));
        let before = receiver.heard().len();
        for number in 0..3 {
            expect.push(moved(&house, round * 3 + number).await);
        }
        // Killed while an attempt is under way, and before anybody may have noted anything.
        if round % 2 == 0 {
            receiver.hears(before + 1).await;
        }
        house.kill();
        let undelivered = receiver.heard()[before..].to_vec();
        receiver.answer(|_| (200, None));
        house.restart().await;
        until("all that was acknowledged is delivered", || async {
            let rows = log(&house, None).await;
            let done = rows.iter().all(|row| row.state == DeliveryState::Delivered);
            (done && rows.len() == expect.len()).then_some(())
        })
        .await;
        let after = receiver.heard()[before + undelivered.len()..].to_vec();
        for one in &undelivered {
            let again = after.iter().find(|other| other.id() == one.id());
            assert_eq!(
                again.expect("it comes again").body,
                one.body,
                "the same event"
            );
        }
    }
    let heard = receiver.heard();
    heard.iter().for_each(Heard::verify);
    let (order, ids) = by_event(&heard);
    assert_eq!(order, expect, "each at least once, and in order");
    for (event, ids) in &ids {
        assert!(ids.iter().all(|id| *id == ids[0]), "{event}: {ids:?}");
    }
    let distinct: BTreeSet<_> = ids.values().map(|ids| &ids[0]).collect();
    assert_eq!(distinct.len(), expect.len(), "another event has another id");
    let rows = log(&house, None).await;
    let told: Vec<_> = rows.iter().map(|row| row.id.to_string()).collect();
    let first: Vec<_> = order.iter().map(|event| ids[event][0].clone()).collect();
    assert_eq!(told, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_delivered_after_a_kill_on_sqlite() {
    killed_between_commit_and_delivery(OPEN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_delivered_after_a_kill_on_postgres() {
    let server = Postgres::start();
    let url = server.url("postgres");
    let blobs = tempfile::tempdir().expect("a folder");
    let place = format!("file://{}", blobs.path().display());
    let mut keys = OPEN.to_vec();
    keys.extend([("store.url", url.as_str()), ("blobs.url", place.as_str())]);
    killed_between_commit_and_delivery(&keys).await;
}
