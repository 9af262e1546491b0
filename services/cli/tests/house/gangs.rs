//! Trials that have slots of several workers.

use serde_json::Value;

use crate::harness::{EPOCHS, House, Worker};
use crate::states;

/// Two trials that need four slots each.
const WIDE: &str = "
name: wide
backbone: lite
dataset: flowers
train: {epochs: 10, batch_size: 16, optimizer: {kind: adamw}, learning_rate: 0.001}
resources: {slots_per_trial: 4}
search:
  strategy: grid
  metric: val/accuracy
  direction: maximize
  space: {train.learning_rate: {values: [0.001, 0.01]}}
";

fn id(trial: &Value) -> &str {
    trial["id"].as_str().expect("an id")
}

/// Every epoch of every trial was observed once, and nobody is to blame for anything.
fn each_epoch_once(house: &House, experiment: &str) -> Vec<Value> {
    let trials = house.trials(experiment);
    assert_eq!(states(&trials), ["completed"; 2]);
    for trial in &trials {
        let seen = house.observations(id(trial));
        let epochs: Vec<u64> = seen
            .iter()
            .filter_map(|seen| seen["epoch"].as_u64())
            .collect();
        assert_eq!(epochs, (1..=EPOCHS).collect::<Vec<u64>>(), "{trial}");
        assert_eq!(trial["restarts"], 0, "{trial}");
    }
    trials
}

fn leases(trials: &[Value]) -> u64 {
    let leases = trials.iter().filter_map(|row| row["leases"].as_u64());
    leases.sum()
}

fn wait_training(house: &House, experiment: &str, epoch: u64) {
    house.wait_trials(experiment, "a trial is in its middle", |trials| {
        trials
            .iter()
            .any(|trial| trial["state"] == "running" && trial["last_epoch"].as_u64() >= Some(epoch))
    });
}

#[test]
fn a_trial_of_four_slots_trains_on_two_workers_of_two() {
    let house = House::open();
    let workers = ["a", "b"].map(|name| house.worker(name, 2));
    for name in ["a", "b"] {
        house.wait_alive(name);
    }
    let experiment = house.submit(WIDE);
    wait_training(&house, &experiment, 1);
    let first = id(&house.trials(&experiment)[0]).to_owned();
    let why = house.json(&["explain", "trial", &first]).to_string();
    assert!(why.contains("slots 0, 1 and worker `"), "{why}");
    house.wait_ended(&experiment);
    for trial in each_epoch_once(&house, &experiment) {
        assert_eq!(trial["leases"], 1, "{trial}");
        let (_, log, _) = house.shown(&["trial", "logs", id(&trial)]);
        for rank in 0..4 {
            let line = format!("rank {rank} of 4 begins");
            assert_eq!(log.matches(&line).count(), 1, "{line}: {log}");
        }
    }
    let samples = workers.map(|worker| worker.samples_trained());
    assert!(samples[0] > 0 && samples[0] == samples[1], "{samples:?}");
}

#[test]
fn whichever_worker_of_a_gang_is_killed_it_is_leased_again_as_a_whole() {
    let house = House::open();
    let start = |name: &str| house.slow_worker(name, 2);
    let mut workers: Vec<Worker> = ["a", "b"].map(start).into();
    for name in ["a", "b"] {
        house.wait_alive(name);
    }
    let experiment = house.submit(WIDE);
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        // Each time in another trial or further on in the same one.
        wait_training(&house, &experiment, 2 + 3 * at as u64);
        let before = leases(&house.trials(&experiment));
        workers[at].kill();
        workers[at] = start(name);
        house.wait_trials(&experiment, "it is leased again", |trials| {
            leases(trials) > before
        });
    }
    house.wait_ended(&experiment);
    let trials = each_epoch_once(&house, &experiment);
    assert!(leases(&trials) >= 4, "both kills cost a lease");
}
