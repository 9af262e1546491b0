//! Lists page by page, their order, and looking things up.

use std::fmt::Debug;

use pomona_domain::change::Subject;
use pomona_domain::experiment::Experiment;
use pomona_domain::metric::Direction;
use pomona_domain::{Change, Code, Digest, ExperimentId, TaskId, TrialId, WorkerId};
use pomona_store::{DEFAULT_PAGE, MAX_PAGE, Page, PageRequest, Store, StoreError, TrialOrder};

use crate::harness::{Home, Leader, for_each_backend};
use crate::rows::{
    alias_move, at, backbone, dataset, experiment, import, observation, of_backbone, of_dataset,
    of_experiment, of_task, of_trial, of_version, of_worker, reason, scored, trial, version,
    worker,
};

for_each_backend!(
    every_list_reads_the_same_in_pages_of_any_size,
    rows_of_the_same_moment_are_all_listed_once,
    the_leaderboard_has_the_best_first_and_those_without_a_value_last,
    a_page_has_a_limit,
    a_token_of_another_list_is_refused,
    an_experiment_is_found_by_id_prefix_or_name,
    a_trial_a_task_and_a_worker_are_found_by_prefix,
    the_newest_version_of_a_data_set_is_the_default,
);

/// Reads a list with pages of 1, 2, 3 and 100 rows and as one page: the same every time.
macro_rules! pages {
    ($store:expr, |$page:ident| $call:expr) => {{
        let mut readings = Vec::new();
        for size in [1, 2, 3, 100, MAX_PAGE] {
            let (mut rows, mut $page) = (Vec::new(), PageRequest::first(size));
            loop {
                let page: Page<_> = $call.await.unwrap();
                assert!(page.items.len() <= size as usize);
                let is_full = page.items.len() == size as usize;
                rows.extend(page.items);
                let Some(token) = page.next_page_token else {
                    break;
                };
                assert!(is_full, "only full pages are followed by another one");
                $page = PageRequest::first(size).after(Some(token));
            }
            readings.push(rows);
        }
        same(readings)
    }};
}

fn same<T: Debug + PartialEq>(mut readings: Vec<Vec<T>>) -> Vec<T> {
    let last = readings.pop().unwrap();
    assert!(last.len() >= 3, "too few rows to show anything: {last:?}");
    for reading in readings {
        assert_eq!(reading, last);
    }
    last
}

/// Seven of everything.
async fn filled(home: &Home) -> (Leader, Digest) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let owner = experiment(1);
    let mut changes = Vec::new();
    for number in [3_u32, 1, 7, 2, 6, 5, 4] {
        let many = u64::from(number);
        let row = trial(owner.id, number);
        changes.push(of_experiment(&experiment(many)));
        changes.push(of_trial(&row));
        changes.push(of_task(&import(many, blob)));
        changes.push(of_worker(&worker(many)));
        changes.push(Change::Observed(observation(trial(owner.id, 1).id, many)));
        changes.push(reason(Subject::Worker(WorkerId(1)), &number.to_string()));
        changes.push(of_dataset(&dataset("flowers", number, blob, blob)));
        changes.push(of_dataset(&dataset(
            &format!("trees.{number}"),
            1,
            blob,
            blob,
        )));
        changes.push(of_backbone(&backbone(&format!("b{number}"), blob, blob)));
        changes.push(of_version(&version("flowers", number, blob)));
        changes.push(of_version(&version(&format!("m{number}"), 1, blob)));
    }
    for revision in 1..=7_u32 {
        let from = (revision > 1).then_some(revision - 1);
        let step = alias_move("flowers", u64::from(revision), from, revision);
        changes.push(Change::AliasMoved(step));
    }
    leader.commit(&changes).await;
    (leader, blob)
}

async fn every_list_reads_the_same_in_pages_of_any_size(home: Home) {
    let (leader, _) = filled(&home).await;
    let store = &leader.store;
    let owner = ExperimentId(1);
    let first = trial(owner, 1).id;
    let down: Vec<u64> = (1..=7).rev().collect();
    let up: Vec<u64> = (1..=7).collect();

    let rows = pages!(store, |page| store.experiment_list(&page));
    assert_eq!(
        rows.iter().map(|row| row.id.0).collect::<Vec<_>>(),
        down,
        "newest first"
    );
    let rows = pages!(store, |page| store.task_list(&page));
    assert_eq!(
        rows.iter().map(|row| row.id.0).collect::<Vec<_>>(),
        down,
        "newest first"
    );
    let rows = pages!(store, |page| store.trial_list(
        owner,
        TrialOrder::Number,
        &page
    ));
    assert_eq!(
        rows.iter()
            .map(|row| u64::from(row.number))
            .collect::<Vec<_>>(),
        up
    );
    let rows = pages!(store, |page| store.worker_list(&page));
    assert_eq!(rows.iter().map(|row| row.id.0).collect::<Vec<_>>(), up);
    let rows = pages!(store, |page| store.observation_list(first, &page));
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), up);
    let rows = pages!(store, |page| store
        .reason_list(Subject::Worker(WorkerId(1)), &page));
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    assert_eq!(
        texts,
        ["3", "1", "7", "2", "6", "5", "4"],
        "as they were given"
    );

    let rows = pages!(store, |page| store.dataset_list(&page));
    let mut sorted = rows.clone();
    sorted.sort_by_key(|row| (row.name.clone(), row.number));
    assert_eq!((rows.len(), &rows), (14, &sorted));
    let rows = pages!(store, |page| store.backbone_list(&page));
    assert!(rows.is_sorted_by_key(|row| row.name.clone()));
    let rows = pages!(store, |page| store.model_list(&page));
    assert_eq!(rows.len(), 8);
    assert!(rows.is_sorted_by_key(|row| row.name.clone()));
    let rows = pages!(store, |page| store.version_list("flowers", &page));
    assert_eq!(
        rows.iter()
            .map(|row| u64::from(row.number))
            .collect::<Vec<_>>(),
        down
    );
    let rows = pages!(store, |page| store
        .alias_history("flowers", "champion", None, &page));
    assert_eq!(
        rows.iter().map(|row| row.revision).collect::<Vec<_>>(),
        down
    );
}

async fn rows_of_the_same_moment_are_all_listed_once(home: Home) {
    let mut leader = home.lead().await;
    let rows: Vec<Experiment> = (1..=9)
        .map(|number: u64| Experiment {
            submitted_at: at(number.cast_signed() / 4),
            ..experiment(number)
        })
        .collect();
    leader
        .commit(&rows.iter().map(of_experiment).collect::<Vec<_>>())
        .await;
    let store = &leader.store;
    let listed = pages!(store, |page| store.experiment_list(&page));
    let ids: Vec<u64> = listed.iter().map(|row| row.id.0).collect();
    assert_eq!(ids, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
}

async fn the_leaderboard_has_the_best_first_and_those_without_a_value_last(home: Home) {
    let mut leader = home.lead().await;
    let owner = experiment(1);
    let score = |number, value, tie| of_trial(&scored(trial(owner.id, number), value, tie));
    leader
        .commit(&[
            of_experiment(&owner),
            of_trial(&trial(owner.id, 1)),
            score(2, 0.5, 0.3),
            score(3, 0.9, 0.3),
            score(4, 0.5, 0.2),
            score(5, 0.5, 0.2),
            of_trial(&trial(owner.id, 6)),
            score(7, -1.0, 0.1),
        ])
        .await;
    let store = &leader.store;
    for (direction, expect) in [
        (Direction::Maximize, [3, 4, 5, 2, 7, 1, 6]),
        (Direction::Minimize, [7, 4, 5, 2, 3, 1, 6]),
    ] {
        let order = TrialOrder::Leaderboard(direction);
        let rows = pages!(store, |page| store.trial_list(owner.id, order, &page));
        let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
        assert_eq!(numbers, expect, "{direction:?}");
    }
}

async fn a_page_has_a_limit(home: Home) {
    let mut leader = home.lead().await;
    let rows: Vec<Change> = (1..=u64::from(DEFAULT_PAGE) + 5)
        .map(|number| of_worker(&worker(number)))
        .collect();
    leader.commit(&rows).await;
    let store = &leader.store;
    let page = store.worker_list(&PageRequest::default()).await.unwrap();
    assert_eq!(page.items.len(), DEFAULT_PAGE as usize);
    let page = store.worker_list(&PageRequest::first(0)).await.unwrap();
    assert_eq!(
        page.items.len(),
        1,
        "a page that leads nowhere would be read for ever"
    );
    let error = store
        .worker_list(&PageRequest::first(MAX_PAGE + 1))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
}

async fn a_token_of_another_list_is_refused(home: Home) {
    let (leader, _) = filled(&home).await;
    let store = &leader.store;
    let owner = ExperimentId(1);
    let first = trial(owner, 1).id;
    let number = TrialOrder::Number;
    for token in [
        "",
        "x",
        "-1",
        "1.",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616.exp",
    ] {
        let page = &PageRequest::first(2).after(Some(token.to_owned()));
        let mut answers = vec![
            refusal(store.trial_list(owner, number, page).await),
            refusal(store.worker_list(page).await),
            refusal(store.observation_list(first, page).await),
        ];
        if token.parse::<i64>().is_err() {
            answers.push(refusal(
                store.reason_list(Subject::Trial(first), page).await,
            ));
            answers.push(refusal(store.version_list("flowers", page).await));
            answers.push(refusal(
                store.alias_history("flowers", "champion", None, page).await,
            ));
        }
        if !token.starts_with("1.") {
            answers.push(refusal(store.experiment_list(page).await));
            answers.push(refusal(store.task_list(page).await));
            answers.push(refusal(store.dataset_list(page).await));
        }
        let count = answers.len();
        assert_eq!(answers, vec![Some(Code::BadRequest); count], "`{token}`");
    }
    let last = PageRequest::first(2).after(Some(i64::MAX.to_string()));
    let page = store.observation_list(first, &last).await.unwrap();
    assert_eq!(page.items, [], "nothing follows the largest step");
}

fn refusal<T>(answer: Result<Page<T>, StoreError>) -> Option<Code> {
    answer.err().map(|error| error.code())
}

async fn found(store: &Store, text: &str) -> Result<Option<u64>, Code> {
    let row = store.experiment_find(text).await;
    row.map(|row| row.map(|row| row.id.0))
        .map_err(|error| error.code())
}

async fn an_experiment_is_found_by_id_prefix_or_name(home: Home) {
    let mut leader = home.lead().await;
    let ids = [
        0xab12_0000_0000_0000,
        0xab34_0000_0000_0000,
        0xcd00_0000_0000_0000,
    ];
    for (number, id) in (1..).zip(ids) {
        let mut row = experiment(number);
        row.id = ExperimentId(id);
        if number > 1 {
            row.spec.name = String::from("ab12");
        }
        leader.commit(&[of_experiment(&row)]).await;
    }
    let expect = [
        ("exp_ab12000000000000", Ok(Some(ids[0]))),
        ("exp_ab1", Ok(Some(ids[0]))),
        ("exp_ab", Err(Code::Ambiguous)),
        ("ab", Err(Code::Ambiguous)),
        ("ab3", Ok(Some(ids[1]))),
        // A name comes before a prefix, and its newest bearer before others.
        ("ab12", Ok(Some(ids[2]))),
        ("flowers-1", Ok(Some(ids[0]))),
        ("exp_", Ok(None)),
        ("", Ok(None)),
        ("exp_AB12", Ok(None)),
        ("exp_ab%", Ok(None)),
        ("tri_ab12", Ok(None)),
        ("exp_ffff", Ok(None)),
    ];
    for (text, answer) in expect {
        assert_eq!(found(&leader.store, text).await, answer, "`{text}`");
    }
    let meant = async |text: &str| {
        let row = leader.store.experiment_meant(text).await;
        row.map(|row| row.map(|row| row.id.0))
            .map_err(|error| error.code())
    };
    assert_eq!(meant("flowers-1").await, Ok(Some(ids[0])));
    assert_eq!(meant("exp_ab1").await, Ok(Some(ids[0])));
    assert_eq!(meant("ab12").await, Err(Code::Ambiguous));
    assert_eq!(meant("nobody").await, Ok(None));
    let long = "a".repeat(10_000);
    assert_eq!(found(&leader.store, &long).await, Ok(None));
}

async fn a_trial_a_task_and_a_worker_are_found_by_prefix(home: Home) {
    let (leader, _) = filled(&home).await;
    let store = &leader.store;
    let one = trial(ExperimentId(1), 1);
    assert_eq!(
        store.trial_find(&one.id.to_string()).await.unwrap(),
        Some(one.clone())
    );
    assert_eq!(
        store.trial_number(one.experiment, 1).await.unwrap(),
        Some(one)
    );
    assert_eq!(store.trial_number(ExperimentId(1), 9).await.unwrap(), None);
    assert_eq!(
        store.trial_find("tri_0").await.unwrap_err().code(),
        Code::Ambiguous
    );
    assert_eq!(store.trial_get(TrialId(9)).await.unwrap(), None);
    let task = store.task_find("tsk_0000000000000003").await.unwrap();
    assert_eq!(task.map(|row| row.id), Some(TaskId(3)));
    assert_eq!(
        store.task_find("0").await.unwrap_err().code(),
        Code::Ambiguous
    );
    let by_name = store.worker_find("machine-4").await.unwrap();
    assert_eq!(by_name.map(|row| row.id), Some(WorkerId(4)));
    let by_id = store.worker_find("wrk_0000000000000004").await.unwrap();
    assert_eq!(by_id.map(|row| row.id), Some(WorkerId(4)));
    assert_eq!(store.worker_find("machine").await.unwrap(), None);
}

async fn the_newest_version_of_a_data_set_is_the_default(home: Home) {
    let (leader, blob) = filled(&home).await;
    let store = &leader.store;
    let expect = |number| Some(dataset("flowers", number, blob, blob));
    assert_eq!(store.dataset_get("flowers", None).await.unwrap(), expect(7));
    assert_eq!(
        store.dataset_get("flowers", Some(2)).await.unwrap(),
        expect(2)
    );
    assert_eq!(store.dataset_get("flowers", Some(8)).await.unwrap(), None);
    assert_eq!(store.dataset_get("weeds", None).await.unwrap(), None);
    let backbone = backbone("b3", blob, blob);
    assert_eq!(store.backbone_get("b3").await.unwrap(), Some(backbone));
    assert_eq!(store.backbone_get("b9").await.unwrap(), None);
}
