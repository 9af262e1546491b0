//! Keyed requests, log lines, and what is forgotten with time.

use pomona_domain::{Change, Code, Digest, Timestamp};
use pomona_store::{
    Answer, LOG_LINE_BYTES, LOG_LINES_PER_OWNER, LogRow, NewLogRow, Retention, Store,
};

use crate::harness::{Home, for_each_backend};
use crate::rows::{alias_move, at, of_version, version};

for_each_backend!(
    a_repeated_request_gets_the_first_answer,
    a_key_is_not_for_two_requests,
    of_two_answers_at_once_one_is_kept,
    lines_are_read_in_the_order_they_were_written,
    a_long_line_is_cut_between_characters,
    an_owner_keeps_its_newest_lines,
    what_is_older_than_its_time_is_forgotten,
);

fn answer(body: &str, at: Timestamp) -> Answer {
    Answer {
        request: Digest::of(b"request"),
        status: 201,
        body: body.to_owned(),
        at,
    }
}

async fn a_repeated_request_gets_the_first_answer(home: Home) {
    let store = home.open().await;
    let first = answer("{\"id\":\"exp_1\"}", at(1));
    assert_eq!(
        store.idempotency_get("key", first.request).await.unwrap(),
        None
    );
    assert!(store.idempotency_put("key", &first).await.unwrap());
    assert!(
        !store
            .idempotency_put("key", &answer("{}", at(2)))
            .await
            .unwrap()
    );
    let kept = store.idempotency_get("key", first.request).await.unwrap();
    assert_eq!(kept, Some(first.clone()));
    assert_eq!(
        store.idempotency_get("Key", first.request).await.unwrap(),
        None
    );
}

async fn a_key_is_not_for_two_requests(home: Home) {
    let store = home.open().await;
    store
        .idempotency_put("key", &answer("{}", at(1)))
        .await
        .unwrap();
    let error = store
        .idempotency_get("key", Digest::of(b"other"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::IdempotencyConflict);
}

async fn of_two_answers_at_once_one_is_kept(home: Home) {
    let store = home.open().await;
    let puts = (0..8).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let answer = answer(&number.to_string(), at(number));
            let is_first = store.idempotency_put("key", &answer).await.unwrap();
            is_first.then_some(answer)
        })
    });
    let mut winners = Vec::new();
    for put in puts.collect::<Vec<_>>() {
        winners.extend(put.await.unwrap());
    }
    let kept = store
        .idempotency_get("key", Digest::of(b"request"))
        .await
        .unwrap();
    assert_eq!(winners, [kept.unwrap()]);
}

fn line(owner: &str, text: &str) -> NewLogRow {
    NewLogRow {
        owner: owner.to_owned(),
        rank: 1,
        at: at(1),
        line: text.to_owned(),
    }
}

async fn texts(store: &Store, owner: &str, after: u64) -> Vec<String> {
    let rows = store.log_list(owner, after, 1000).await.unwrap();
    rows.into_iter().map(|row| row.line).collect()
}

async fn lines_are_read_in_the_order_they_were_written(home: Home) {
    let store = home.open().await;
    store.log_append(&[]).await.unwrap();
    store
        .log_append(&[line("a", "1"), line("b", "x"), line("a", "2")])
        .await
        .unwrap();
    store.log_append(&[line("a", "")]).await.unwrap();
    assert_eq!(texts(&store, "a", 0).await, ["1", "2", ""]);
    assert_eq!(texts(&store, "b", 0).await, ["x"]);
    let first: Vec<LogRow> = store.log_list("a", 0, 1).await.unwrap();
    assert_eq!((first.len(), first[0].rank, first[0].at), (1, 1, at(1)));
    assert_eq!(texts(&store, "a", first[0].seq).await, ["2", ""]);
    let newest = store.log_list("a", 0, 1000).await.unwrap()[2].seq;
    assert!(texts(&store, "a", newest).await.is_empty());
    let error = store.log_list("a", 0, 100_000).await.unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
}

async fn a_long_line_is_cut_between_characters(home: Home) {
    let store = home.open().await;
    // `é` has two bytes, and the limit is even.
    let text = format!("a{}", "é".repeat(LOG_LINE_BYTES));
    store.log_append(&[line("a", &text)]).await.unwrap();
    let kept = &texts(&store, "a", 0).await[0];
    assert_eq!(kept.len(), LOG_LINE_BYTES - 1);
    assert!(text.starts_with(kept));
}

async fn an_owner_keeps_its_newest_lines(home: Home) {
    let store = home.open().await;
    let beyond = 5;
    let lines: Vec<NewLogRow> = (0..LOG_LINES_PER_OWNER + beyond)
        .map(|number| line("a", &number.to_string()))
        .collect();
    store.log_append(&[line("b", "mine")]).await.unwrap();
    store.log_append(&lines).await.unwrap();
    assert_eq!(texts(&store, "a", 0).await[0], beyond.to_string());
    let (mut count, mut after) = (0, 0);
    while let Some(last) = store.log_list("a", after, 1000).await.unwrap().last() {
        count += store.log_list("a", after, 1000).await.unwrap().len() as u64;
        after = last.seq;
    }
    assert_eq!(count, LOG_LINES_PER_OWNER);
    assert_eq!(texts(&store, "b", 0).await, ["mine"]);
}

async fn what_is_older_than_its_time_is_forgotten(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let blob = leader.put(b"abc", at(0)).await.digest;
    leader
        .commit(&[of_version(&version("flowers", 1, blob))])
        .await;
    let retention = Retention {
        logs_ms: 10_000,
        idempotency_ms: 20_000,
        outbox_ms: 30_000,
    };
    // All of it happens at 100 s.
    let step = alias_move("flowers", 1, None, 1);
    assert_eq!(step.at, at(100));
    leader.commit(&[Change::AliasMoved(step)]).await;
    let mut row = line("a", "old");
    row.at = at(100);
    store.log_append(&[row]).await.unwrap();
    store
        .idempotency_put("key", &answer("{}", at(100)))
        .await
        .unwrap();
    for (now, expect) in [
        (at(110), [true, true, true]),
        (at(110).plus_ms(1), [false, true, true]),
        (at(120), [false, true, true]),
        (at(120).plus_ms(1), [false, false, true]),
        (at(130), [false, false, true]),
        (at(130).plus_ms(1), [false, false, false]),
    ] {
        store.retain(now, &retention).await.unwrap();
        let key = store
            .idempotency_get("key", Digest::of(b"request"))
            .await
            .unwrap();
        let left = [
            !store.log_list("a", 0, 10).await.unwrap().is_empty(),
            key.is_some(),
            !store.outbox_list(0, 10).await.unwrap().is_empty(),
        ];
        assert_eq!(left, expect, "at {now}");
    }
    let page = pomona_store::PageRequest::default();
    let history = store
        .alias_history("flowers", "champion", None, &page)
        .await
        .unwrap();
    assert_eq!(history.items.len(), 1, "history is not forgotten");
}
