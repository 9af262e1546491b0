//! The whole house, end to end: real coordinator, real worker, the fake trainer (same protocol, drawn
//! learning curves), driven by the `pomona` binary as a user would, with real kills.

#[path = "house/chaos.rs"]
mod chaos;
#[path = "house/coordinators.rs"]
mod coordinators;
#[path = "house/digest.rs"]
mod digest;
#[path = "house/gangs.rs"]
mod gangs;
#[path = "house/harness.rs"]
mod harness;
#[path = "house/processes.rs"]
mod processes;
#[path = "house/programs.rs"]
mod programs;
#[path = "house/refusals.rs"]
mod refusals;
#[path = "house/retention.rs"]
mod retention;
#[path = "house/several.rs"]
mod several;
#[path = "house/shown.rs"]
mod shown;
#[path = "house/up.rs"]
mod up;
#[path = "house/verbs.rs"]
mod verbs;
#[path = "house/workers.rs"]
mod workers;

use harness::{GRID, House, Process, TRIALS};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn states(trials: &[Value]) -> Vec<&str> {
    trials
        .iter()
        .filter_map(|trial| trial["state"].as_str())
        .collect()
}

/// Waits until so many trials are completed and others run.
fn wait_some_completed(house: &House, experiment: &str, least: usize) {
    house.wait_trials(experiment, "some are completed", |trials| {
        let states = states(trials);
        let ended = states.iter().filter(|state| **state == "completed");
        ended.count() >= least && states.contains(&"running")
    });
}

/// Every trial completed, none twice, every epoch of every trial observed exactly once.
fn nothing_lost(house: &House, experiment: &str) -> Vec<Value> {
    let trials = house.trials(experiment);
    assert_eq!(states(&trials), vec!["completed"; TRIALS]);
    let mut points: Vec<String> = trials
        .iter()
        .map(|trial| trial["hparams"].to_string())
        .collect();
    points.sort();
    points.dedup();
    assert_eq!(points.len(), TRIALS, "each point was trained once");
    for trial in &trials {
        let id = trial["id"].as_str().expect("an id");
        let epochs: Vec<u64> = house
            .observations(id)
            .iter()
            .filter_map(|seen| seen["epoch"].as_u64())
            .collect();
        assert_eq!(
            epochs,
            (1..=harness::EPOCHS).collect::<Vec<u64>>(),
            "observations of {id}"
        );
        assert_eq!(trial["restarts"], 0, "no kill of ours counts against {id}");
    }
    trials
}

#[test]
fn a_grid_ends_promoted_and_its_model_is_pulled_with_the_digest_it_was_published_with() {
    let house = House::open();
    let _worker = house.worker("a", 2);
    let experiment = house.submit(GRID);
    house.wait_ended(&experiment);
    nothing_lost(&house, &experiment);

    let model = house.json(&["model", "show", "flowers"]);
    assert_eq!(model["aliases"][0]["alias"], "champion");
    let digest = model["versions"][0]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let target = house.path("pulled");
    house.json(&[
        "model",
        "pull",
        "flowers@champion",
        target.to_str().expect("UTF-8"),
    ]);
    assert_eq!(harness::folder_digest(&target), digest);

    let why = house
        .json(&["explain", "model", "flowers@champion"])
        .to_string();
    assert!(
        why.contains("test/accuracy"),
        "the gate's numbers are told: {why}"
    );
}

#[test]
fn the_coordinator_is_killed_in_mid_grid_and_trials_in_flight_go_on() {
    let mut house = House::open();
    // A trial takes seconds: one that has just started is in flight for a while.
    let worker = house.slow_worker("a", 2);
    let experiment = house.submit(GRID);
    house.wait_trials(&experiment, "three are completed", |trials| {
        let completed = states(trials)
            .iter()
            .filter(|state| **state == "completed")
            .count();
        completed >= 3 && states(trials).contains(&"running")
    });
    let mut command = house.command(&["experiment", "watch", &experiment]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut watching = Process(command.spawn().expect("pomona runs"));
    let mut said = BufReader::new(watching.0.stderr.take().expect("its stderr")).lines();
    let mut hear = |word: &str| {
        let line = said.find(|line| line.as_ref().is_ok_and(|line| line.contains(word)));
        assert!(line.is_some(), "who watches never said `{word}`");
    };
    hear("completed");
    hear("started");
    // Started means leased: only what has measured something is surely running on the worker.
    house.wait_trials(&experiment, "one is in its first epochs", |trials| {
        trials.iter().any(|trial| {
            trial["state"] == "running" && matches!(trial["last_epoch"].as_u64(), Some(1..=3))
        })
    });
    house.kill_coordinator();
    // Training goes on without it: the worker's own counter moves.
    let before = worker.samples_trained();
    harness::wait("training goes on without a coordinator", || {
        worker.samples_trained() > before
    });
    hear("it is waited for, training goes on");
    house.start_coordinator();
    house.wait_ended(&experiment);
    // Who watched sees the end.
    hear("[24/24]");
    assert_eq!(watching.end().0, Some(0));
    for trial in nothing_lost(&house, &experiment) {
        assert_eq!(
            trial["leases"], 1,
            "a trial in flight was not started over: {trial}"
        );
    }
}

#[test]
fn the_database_is_killed_in_mid_grid_with_the_coordinator_and_nothing_is_lost() {
    let mut house = House::open_on_postgres();
    let worker = house.slow_worker("a", 2);
    let experiment = house.submit(GRID);
    for round in 1..=3 {
        wait_some_completed(&house, &experiment, 2 * round);
        let postgres = house.postgres.as_mut().expect("its own server");
        postgres.stop();
        if round == 2 {
            house.kill_coordinator();
        }
        let before = worker.samples_trained();
        harness::wait("training goes on without a database", || {
            worker.samples_trained() > before
        });
        let postgres = house.postgres.as_mut().expect("its own server");
        postgres.restart();
        if round == 2 {
            house.start_coordinator();
        }
    }
    house.wait_ended(&experiment);
    for trial in nothing_lost(&house, &experiment) {
        assert_eq!(trial["leases"], 1, "none was started over: {trial}");
    }
}

#[test]
fn the_object_store_is_killed_in_mid_grid_and_the_coordinator_in_mid_upload() {
    let mut house = House::open_as_team();
    let worker = house.slow_worker("a", 2);
    let weights = house.file("large.pth", vec![7; 96 << 20]);
    let mut words = vec!["backbone", "add", "large", "--arch", "efficientnet-lite0"];
    words.extend(["--weights", &weights]);
    let mut command = house.command(&words);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let adding = Process(command.spawn().expect("pomona runs"));
    harness::wait("some parts are in the bucket", || {
        house.bucket.as_ref().expect("its own").parts() >= 2
    });
    house.kill_coordinator();
    house.start_coordinator();
    let (status, said) = adding.end();
    assert_eq!(status, Some(0), "the upload goes on: {said}");
    let experiment = house.submit(GRID);
    for round in 1..=2 {
        house.wait_trials(&experiment, "some more are completed", |trials| {
            let ended = states(trials);
            let ended = ended.iter().filter(|state| **state == "completed");
            ended.count() >= 4 * round
        });
        house.bucket.as_mut().expect("its own").stop();
        let before = worker.samples_trained();
        harness::wait("training goes on without an object store", || {
            worker.samples_trained() > before
        });
        house.bucket.as_mut().expect("its own").restart();
    }
    house.wait_ended(&experiment);
    for trial in nothing_lost(&house, &experiment) {
        assert_eq!(trial["leases"], 1, "none was started over: {trial}");
    }
    let target = house.path("pulled");
    let path = target.to_str().expect("UTF-8");
    house.json(&["model", "pull", "flowers@champion", path]);
    let model = house.json(&["model", "show", "flowers"]);
    let digest = model["versions"][0]["digest"].as_str().expect("a digest");
    assert_eq!(harness::folder_digest(&target), digest);
    let bucket = house.bucket.as_ref().expect("its own");
    assert_eq!(bucket.parts(), 0, "no upload is left half done");
}

#[test]
fn the_worker_is_killed_in_mid_grid_and_its_trials_resume_from_their_checkpoints() {
    let house = House::open();
    let worker = house.worker("a", 2);
    let experiment = house.submit(GRID);
    house.wait_trials(
        &experiment,
        "five are completed and one has a checkpoint",
        |trials| {
            states(trials)
                .iter()
                .filter(|state| **state == "completed")
                .count()
                >= 5
                && trials.iter().any(|trial| {
                    trial["state"] == "running" && trial["last_epoch"].as_u64() >= Some(2)
                })
        },
    );
    let ranks = worker.ranks();
    assert!(!ranks.is_empty(), "ranks run");
    worker.kill();
    harness::wait("no rank outlives its worker", || {
        ranks.iter().all(|pid| !harness::is_alive(*pid))
    });
    let _again = house.worker("a", 2);
    house.wait_ended(&experiment);
    let trials = nothing_lost(&house, &experiment);
    assert!(
        trials
            .iter()
            .any(|trial| trial["leases"].as_u64() > Some(1)),
        "some trial was leased again"
    );
}

#[test]
fn a_paused_experiment_gives_its_slots_back_and_goes_on_where_it_was() {
    let house = House::open();
    let _worker = house.worker("a", 2);
    let experiment = house.submit(GRID);
    house.wait_trials(&experiment, "two have an observation", |trials| {
        trials
            .iter()
            .filter(|trial| trial["last_epoch"].as_u64() >= Some(1))
            .count()
            >= 2
    });
    house.json(&["experiment", "pause", &experiment]);
    house.wait_trials(&experiment, "nothing runs", |trials| {
        !states(trials)
            .iter()
            .any(|state| ["running", "stopping"].contains(state))
    });
    house.json(&["experiment", "resume", &experiment]);
    house.wait_ended(&experiment);
    nothing_lost(&house, &experiment);
}

#[test]
fn a_backup_taken_in_mid_grid_is_a_house_that_opens() {
    let mut house = House::open();
    let _worker = house.worker("a", 2);
    let experiment = house.submit(GRID);
    house.wait_trials(&experiment, "three are completed", |trials| {
        states(trials)
            .iter()
            .filter(|state| **state == "completed")
            .count()
            >= 3
    });
    let copy = house.path("backup");
    house.backup(&copy);
    house.kill_coordinator();
    let restored = House::at(&copy);
    let _second = restored.worker("b", 2);
    restored.wait_ended(&experiment);
    assert_eq!(
        states(&restored.trials(&experiment)),
        vec!["completed"; TRIALS]
    );
}
