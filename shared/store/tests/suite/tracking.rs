//! Runs: what is logged with them, and trials as runs.

use std::collections::BTreeMap;

use pomona_domain::trial::TrialState;
use pomona_domain::{Change, Timestamp};
use pomona_store::{
    ExperimentRefusal, NewRun, NewRunExperiment, Point, RunChange, RunRefusal, RunWrite, Series,
    Store,
};

use crate::harness::{Home, for_each_backend, number};
use crate::rows::{at, experiment, observation, of_experiment, of_trial, trial};

for_each_backend!(
    experiments_are_numbered_and_names_stay_taken,
    a_deleted_experiment_takes_its_runs_with_it_and_back,
    a_run_says_what_was_logged_with_it,
    a_parameter_never_changes_and_a_refused_request_writes_nothing,
    one_request_that_is_refused_takes_no_other_with_it,
    a_deleted_run_takes_nothing_more,
    a_point_is_shown_once_whether_settled_or_not,
    settling_keeps_every_point_and_the_newest_value,
    runs_that_are_settled_together_keep_to_themselves,
    many_writers_and_settlers_lose_nothing,
    an_old_history_keeps_its_shape_and_its_newest_value,
    a_trial_is_a_run_and_takes_what_its_code_logs,
);

fn point(timestamp: i64, step: i64, value: f64) -> Point {
    Point {
        timestamp,
        step,
        value,
    }
}

fn points(key: &str, points: &[Point]) -> Series {
    BTreeMap::from([(key.to_owned(), points.to_vec())])
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

async fn with_run(store: &Store) -> String {
    with_run_named(store, "0123456789abcdef".repeat(2)).await
}

async fn with_run_named(store: &Store, id: String) -> String {
    let run = NewRun {
        id,
        experiment: "0".to_owned(),
        name: "kind-fox-1".to_owned(),
        user: "me".to_owned(),
        start: Some(5),
        tags: vec![pair("mlflow.runName", "kind-fox-1")],
    };
    store.run_create(&run).await.unwrap().unwrap().id
}

async fn log(store: &Store, run: &str, series: Series) {
    let write = RunWrite {
        run: run.to_owned(),
        points: series,
        ..RunWrite::default()
    };
    assert_eq!(store.run_write(&[write]).await.unwrap(), [Ok(())]);
}

async fn experiments_are_numbered_and_names_stay_taken(home: Home) {
    let store = home.open().await;
    let default = store
        .run_experiment_named("Default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(default.id, "0");
    let new = NewRunExperiment {
        name: "mine".to_owned(),
        artifact_location: None,
        tags: vec![pair("team", "a"), pair("team", "b")],
    };
    let id = store
        .run_experiment_create(&new, at(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(id, "1");
    let found = store.run_experiment_named("mine").await.unwrap().unwrap();
    assert_eq!(found.artifact_location, "mlflow-artifacts:/1");
    assert_eq!(found.tags["team"], "b");
    store
        .run_experiment_delete(&id, true, at(2))
        .await
        .unwrap()
        .unwrap();
    let again = store.run_experiment_create(&new, at(3)).await.unwrap();
    assert_eq!(again, Err(ExperimentRefusal::NameTaken { deleted: true }));
    let renamed = store
        .run_experiment_rename("0", "mine", at(4))
        .await
        .unwrap();
    assert_eq!(renamed, Err(ExperimentRefusal::NameTaken { deleted: true }));
    store
        .run_experiment_delete(&id, false, at(5))
        .await
        .unwrap()
        .unwrap();
    let renamed = store
        .run_experiment_rename(&id, "other", at(6))
        .await
        .unwrap();
    assert_eq!(renamed, Ok(()));
    assert_eq!(store.run_experiment_named("mine").await.unwrap(), None);
    let next = store.run_experiment_create(&new, at(7)).await.unwrap();
    assert_eq!(next, Ok("2".to_owned()));
    let missing = store
        .run_experiment_tag("9", ("a", Some("b")), at(8))
        .await
        .unwrap();
    assert_eq!(missing, Err(ExperimentRefusal::Missing));
}

async fn a_deleted_experiment_takes_its_runs_with_it_and_back(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    store
        .run_experiment_delete("0", true, at(1))
        .await
        .unwrap()
        .unwrap();
    assert!(store.run_get(&run).await.unwrap().unwrap().deleted);
    let twice = store.run_experiment_delete("0", true, at(1)).await.unwrap();
    assert_eq!(twice, Err(ExperimentRefusal::WrongState { deleted: true }));
    let new = NewRun {
        id: "b".repeat(32),
        experiment: "0".to_owned(),
        name: String::new(),
        user: String::new(),
        start: None,
        tags: Vec::new(),
    };
    let refused = store.run_create(&new).await.unwrap();
    assert_eq!(
        refused,
        Err(ExperimentRefusal::WrongState { deleted: true })
    );
    store
        .run_experiment_delete("0", false, at(2))
        .await
        .unwrap()
        .unwrap();
    assert!(!store.run_get(&run).await.unwrap().unwrap().deleted);
}

async fn a_run_says_what_was_logged_with_it(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    let write = RunWrite {
        run: run.clone(),
        points: points("loss", &[point(1, 0, f64::NAN), point(2, 1, 0.5)]),
        params: vec![pair("lr", "0.1"), pair("lr", "0.1")],
        tags: vec![
            pair("a", "1"),
            pair("a", "2"),
            pair("mlflow.runName", "new"),
        ],
    };
    assert_eq!(store.run_write(&[write]).await.unwrap(), [Ok(())]);
    let change = RunChange {
        status: Some("FINISHED".to_owned()),
        end: Some(9),
        name: None,
    };
    store.run_update(&run, &change).await.unwrap().unwrap();
    let row = store.run_get(&run).await.unwrap().unwrap();
    assert_eq!(
        (row.name.as_str(), row.status.as_str(), row.end),
        ("new", "FINISHED", Some(9))
    );
    assert_eq!(
        row.artifact_uri,
        format!("mlflow-artifacts:/0/{run}/artifacts")
    );
    let data = store
        .run_data(std::slice::from_ref(&run))
        .await
        .unwrap()
        .remove(&run)
        .unwrap();
    assert_eq!(data.params, [pair("lr", "0.1")]);
    assert_eq!(data.tags, [pair("a", "2"), pair("mlflow.runName", "new")]);
    assert_eq!(data.latest[0].point, point(2, 1, 0.5));
    assert_eq!(store.run_untag(&run, "a").await.unwrap(), Ok(true));
    assert_eq!(store.run_untag(&run, "a").await.unwrap(), Ok(false));
}

async fn a_parameter_never_changes_and_a_refused_request_writes_nothing(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    let mut write = RunWrite {
        run: run.clone(),
        params: vec![pair("lr", "1")],
        ..RunWrite::default()
    };
    assert_eq!(store.run_write(&[write.clone()]).await.unwrap(), [Ok(())]);
    write.params = vec![pair("new", "1"), pair("lr", "2")];
    write.tags = vec![pair("tag", "1")];
    write.points = points("m", &[point(1, 1, 1.0)]);
    let changed = RunRefusal::ParamChanged {
        key: "lr".to_owned(),
        old: "1".to_owned(),
        new: "2".to_owned(),
    };
    assert_eq!(store.run_write(&[write]).await.unwrap(), [Err(changed)]);
    let data = store
        .run_data(std::slice::from_ref(&run))
        .await
        .unwrap()
        .remove(&run)
        .unwrap();
    assert_eq!(data.params, [pair("lr", "1")]);
    assert_eq!(data.tags.len(), 1);
    assert_eq!(store.run_history(&run, "m").await.unwrap(), []);
}

async fn one_request_that_is_refused_takes_no_other_with_it(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    let write = |run: &str, value: &str| RunWrite {
        run: run.to_owned(),
        params: vec![pair("lr", value)],
        points: points("m", &[point(1, 1, 1.0)]),
        ..RunWrite::default()
    };
    let writes = [
        write("nobody", "1"),
        write(&run, "1"),
        write(&run, "2"),
        write(&run, "1"),
    ];
    let answers = store.run_write(&writes).await.unwrap();
    assert_eq!(answers[0], Err(RunRefusal::Missing));
    assert_eq!(answers[1], Ok(()));
    assert!(matches!(answers[2], Err(RunRefusal::ParamChanged { .. })));
    assert_eq!(answers[3], Ok(()));
    assert_eq!(store.run_history(&run, "m").await.unwrap().len(), 1);
}

async fn a_deleted_run_takes_nothing_more(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    assert!(store.run_delete(&run, true, at(1)).await.unwrap());
    let write = RunWrite {
        run: run.clone(),
        points: points("m", &[point(1, 1, 1.0)]),
        ..RunWrite::default()
    };
    let answers = store.run_write(&[write]).await.unwrap();
    assert_eq!(answers, [Err(RunRefusal::Deleted)]);
    let update = store.run_update(&run, &RunChange::default()).await.unwrap();
    assert_eq!(update, Err(RunRefusal::Deleted));
    assert!(store.run_delete(&run, false, at(2)).await.unwrap());
    log(&store, &run, points("m", &[point(1, 1, 1.0)])).await;
}

async fn a_point_is_shown_once_whether_settled_or_not(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    let same = [point(3, 1, 0.5), point(3, 1, f64::NAN), point(1, 1, 0.5)];
    log(&store, &run, points("m", &same)).await;
    store.runs_settle(std::slice::from_ref(&run)).await.unwrap();
    log(&store, &run, points("m", &same)).await;
    log(&store, &run, points("m", &[point(2, 0, 1.0)])).await;
    let seen = store.run_history(&run, "m").await.unwrap();
    let seen: Vec<(i64, i64)> = seen.iter().map(|one| (one.timestamp, one.step)).collect();
    assert_eq!(seen, [(1, 1), (2, 0), (3, 1), (3, 1)]);
    store.runs_settle(std::slice::from_ref(&run)).await.unwrap();
    assert_eq!(store.run_history(&run, "m").await.unwrap().len(), 4);
}

async fn settling_keeps_every_point_and_the_newest_value(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    for round in 0..5 {
        let mut series = Series::new();
        for key in 0..700 {
            let at = |n: i64| point(round * 100 + n, round * 10 + n, f64::from(key));
            series.insert(format!("key{key}"), (0..10).map(at).collect());
        }
        series.insert(
            "big".to_owned(),
            (0..3000).map(|n| point(n, round * 3000 + n, 1.0)).collect(),
        );
        log(&store, &run, series).await;
        store.runs_settle(std::slice::from_ref(&run)).await.unwrap();
    }
    let raw = home.raw().await;
    assert_eq!(number(&raw, "SELECT count(*) FROM run_log").await, 0);
    let chunks = "SELECT count(*) FROM run_chunks WHERE key = 'big'";
    assert_eq!(number(&raw, chunks).await, 4);
    assert_eq!(store.run_history(&run, "big").await.unwrap().len(), 15_000);
    assert_eq!(store.run_history(&run, "key699").await.unwrap().len(), 50);
    // An older point is no newer value.
    log(&store, &run, points("key1", &[point(1, 3, 99.0)])).await;
    let data = store
        .run_data(std::slice::from_ref(&run))
        .await
        .unwrap()
        .remove(&run)
        .unwrap();
    assert_eq!(data.latest.len(), 701);
    let key1 = data.latest.iter().find(|one| one.key == "key1").unwrap();
    assert_eq!((key1.point.step, key1.point.value), (49, 1.0));
    assert!(store.runs_unsettled(1).await.unwrap().is_empty());
}

async fn runs_that_are_settled_together_keep_to_themselves(home: Home) {
    const RUNS: i64 = 230;
    let store = home.open().await;
    let mut runs = Vec::new();
    for number in 0..RUNS {
        runs.push(with_run_named(&store, format!("{number:032x}")).await);
    }
    for round in 0..2 {
        for (run, id) in (0..).zip(&runs) {
            let value = (run + 1000 * round) as f64;
            // One whose chunk is full, and one that the next run does not have.
            let size = if run % 50 == 0 { 4096 } else { 3 };
            let of = |step: i64| point(step, 10_000 * round + step, value);
            let mut series = points("m", &(0..size).map(of).collect::<Vec<_>>());
            series.insert(format!("only {}", run % 7), vec![of(1)]);
            log(&store, id, series).await;
        }
        store.runs_settle(&runs).await.unwrap();
        assert!(store.runs_unsettled(1).await.unwrap().is_empty());
    }
    for (run, id) in (0..).zip(&runs) {
        let size = if run % 50 == 0 { 4096 } else { 3 };
        let history = store.run_history(id, "m").await.unwrap();
        let of_round = |round: i64| {
            let value = (run + 1000 * round) as f64;
            history.iter().filter(|point| point.value == value).count()
        };
        assert_eq!((of_round(0), of_round(1)), (size, size), "run {run}");
        let own = store.run_history(id, &format!("only {}", run % 7)).await;
        assert_eq!(own.unwrap().len(), 2);
        let other = store
            .run_history(id, &format!("only {}", (run + 1) % 7))
            .await;
        assert_eq!(other.unwrap().len(), 0);
        let data = store.run_data(std::slice::from_ref(id)).await.unwrap();
        let latest: Vec<f64> = data[id].latest.iter().map(|one| one.point.value).collect();
        assert_eq!(latest, [(run + 1000) as f64; 2]);
    }
}

async fn many_writers_and_settlers_lose_nothing(home: Home) {
    let store = home.open().await;
    let run = with_run(&store).await;
    let writer = |writer: i64| {
        let (store, run) = (store.clone(), run.clone());
        async move {
            for step in 0..20 {
                let step = writer * 100 + step;
                log(&store, &run, points("m", &[point(1, step, 1.0)])).await;
            }
        }
    };
    let settler = || {
        let (store, run) = (store.clone(), run.clone());
        async move {
            for _ in 0..10 {
                store.runs_settle(std::slice::from_ref(&run)).await.unwrap();
            }
        }
    };
    let mut all: Vec<_> = (0..4).map(|n| tokio::spawn(writer(n))).collect();
    all.extend((0..2).map(|_| tokio::spawn(settler())));
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(store.run_history(&run, "m").await.unwrap().len(), 80);
    store.runs_settle(std::slice::from_ref(&run)).await.unwrap();
    assert_eq!(store.run_history(&run, "m").await.unwrap().len(), 80);
}

async fn a_trial_is_a_run_and_takes_what_its_code_logs(home: Home) {
    let mut leader = home.lead().await;
    let owner = experiment(1);
    let mut row = trial(owner.id, 1);
    leader
        .commit(&[of_experiment(&owner), of_trial(&row)])
        .await;
    let (experiment, run) = (owner.id.to_string(), row.id.to_string());
    let store = leader.store.clone();
    let face = store
        .run_experiment_named(&owner.spec.name)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(face.id, experiment);
    store.run_face(&run).await.unwrap();
    let write = RunWrite {
        run: run.clone(),
        points: points("mine", &[point(1, 1, 2.0)]),
        tags: vec![pair("mlflow.runName", "my trial")],
        ..RunWrite::default()
    };
    assert_eq!(store.run_write(&[write]).await.unwrap(), [Ok(())]);
    let seen = observation(row.id, 7);
    row.version += 1;
    row.last_step = 7;
    row.latest.clone_from(&seen.metrics);
    row.state = TrialState::Completed;
    row.ended_at = Some(at(50));
    leader
        .commit(&[of_trial(&row), Change::Observed(seen.clone())])
        .await;
    store.runs_of(&[experiment]).await.unwrap();
    let found = store.run_get(&run).await.unwrap().unwrap();
    assert_eq!(
        (found.status.as_str(), found.name.as_str()),
        ("FINISHED", "my trial")
    );
    let data = store
        .run_data(std::slice::from_ref(&run))
        .await
        .unwrap()
        .remove(&run)
        .unwrap();
    assert_eq!(data.params.len(), row.hparams.0.len());
    assert_eq!(data.latest.len(), seen.metrics.len() + 1);
    let (name, value) = seen.metrics.iter().next().unwrap();
    let history = store.run_history(&run, name).await.unwrap();
    assert_eq!(history, [point(seen.at.0, 7, *value)]);
    assert_eq!(
        store.run_history(&run, "mine").await.unwrap(),
        [point(1, 1, 2.0)]
    );
}

async fn an_old_history_keeps_its_shape_and_its_newest_value(home: Home) {
    const DAY_MS: i64 = 86_400_000;
    let store = home.open().await;
    let id = with_run(&store).await;
    let mut many: Vec<Point> = (0..9000).map(|n| point(n, n, 1.0)).collect();
    many[4321].value = 99.0;
    many[8999].value = 0.5;
    log(&store, &id, points("loss", &many)).await;
    log(&store, &id, points("few", &many[..3])).await;
    let keep_a_day = (pomona_tracking::names::FULL_DAYS, Some("1"));
    let tagged = store.run_experiment_tag("0", keep_a_day, at(0)).await;
    tagged.unwrap().unwrap();
    let (day, later) = (Timestamp(DAY_MS), Timestamp(2 * DAY_MS));

    // It has not ended, so it is never past its time.
    store.runs_settle(std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(store.runs_thin(later).await.unwrap(), 0);
    let end = RunChange {
        end: Some(1000),
        ..RunChange::default()
    };
    store.run_update(&id, &end).await.unwrap().unwrap();
    assert_eq!(store.runs_thin(day).await.unwrap(), 0);
    assert_eq!(store.run_history(&id, "loss").await.unwrap().len(), 9000);

    assert_eq!(store.runs_thin(later).await.unwrap(), 1);
    let kept = store.run_history(&id, "loss").await.unwrap();
    assert!((400..=500).contains(&kept.len()), "{}", kept.len());
    assert!(kept.iter().all(|point| many.contains(point)));
    assert!(kept.contains(&many[4321]) && kept.contains(&many[0]));
    assert_eq!(kept.last(), Some(&many[8999]));
    assert_eq!(store.run_history(&id, "few").await.unwrap(), many[..3]);
    let data = store.run_data(std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(data[&id].latest.len(), 2);
    assert_eq!(data[&id].latest[1].point, many[8999]);
    // Once is enough.
    assert_eq!(store.runs_thin(later).await.unwrap(), 0);
}
