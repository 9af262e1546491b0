//! Decisions, one situation a test. The house checks S1 to S9, R4 and R5 after each.

mod control;
mod exclusion;
mod fates;
mod gangs;
mod programs;
mod promotion;
mod reports;
mod retention;
mod search;
mod sharing;
mod spent;
mod tasks;
mod workers;

use crate::Event;
use crate::testing::{House, grid, spec};
use pomona_domain::change::{Change, Subject};
use pomona_domain::experiment::ExperimentState;
use pomona_domain::report::Outcome;
use pomona_domain::trial::TrialState;
use pomona_domain::{Code, Digest, ExperimentId};

#[test]
fn an_experiment_is_submitted_with_its_trials_and_starts_in_the_same_decision() {
    let mut house = House::new();
    let a = house.joins("a", 2);
    let id = house.submits(grid(3, ""));
    let states: Vec<&str> = (1..=3).map(|n| house.trial(id, n).state.name()).collect();
    assert_eq!(states, ["running", "running", "waiting"]);
    assert_eq!(house.cluster.leases_of(a).count(), 2);
    assert_eq!(house.experiment(id).created_trials, 3);
}

#[test]
fn an_experiment_is_submitted_once() {
    let mut house = House::new();
    let id = house.submits(grid(1, ""));
    let again = Event::Submitted {
        id,
        spec: Box::new(grid(1, "")),
        source: String::new(),
        dataset: Some(Digest([1; 32])),
        backbone: Some(Digest([2; 32])),
        plan: None,
    };
    assert_eq!(house.refused(&again), Code::AlreadyExists);
}

#[test]
fn trials_are_made_ahead_up_to_a_limit_and_more_as_they_start() {
    let config = crate::Config {
        queue_ahead: 2,
        ..crate::Config::default()
    };
    let mut house = House::with(config);
    let id = house.submits(grid(9, ""));
    assert_eq!(house.experiment(id).created_trials, 2);
    house.joins("a", 1);
    let lease = house.lease_of(id, 1);
    house.exits(&lease, Outcome::Finished);
    // One runs, one waits and one more was made.
    assert_eq!(house.experiment(id).created_trials, 3);
}

#[test]
fn what_the_searcher_draws_does_not_depend_on_restarts() {
    let random = "search: {strategy: random, max_trials: 6, \
                  space: {train.learning_rate: {log_uniform: [0.001, 0.1]}}}";
    let draw = |restarts: bool| {
        let config = crate::Config {
            queue_ahead: 1,
            ..crate::Config::default()
        };
        let mut house = House::with(config);
        house.joins("a", 1);
        let id = house.submits(spec(random));
        let mut points = Vec::new();
        for number in 1..=6 {
            points.push(house.trial(id, number).hparams);
            if restarts {
                house.restarts();
            }
            let lease = house.lease_of(id, number);
            house.exits(&lease, Outcome::Finished);
        }
        assert_eq!(house.standing(id), ExperimentState::Completed);
        points
    };
    let points = draw(false);
    assert_eq!(points, draw(true));
    assert!(points.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn an_experiment_that_no_worker_can_serve_says_so_at_once() {
    let mut house = House::new();
    let id = house.submits(grid(1, "resources: {slots_per_trial: 4}"));
    assert!(house.reasons().contains(
        &"it waits: no worker with slots is there; it starts when such a worker joins".to_owned()
    ));
    house.joins("a", 2);
    let said = house.explains(Subject::Experiment(id));
    assert_eq!(
        said,
        "it waits: a trial asks for 4 slots, the largest worker has 2"
    );
    house.joins("b", 4);
    assert_eq!(house.state(id, 1).name(), "running");
}

#[test]
fn the_best_trial_is_known_ties_go_to_the_lower_number() {
    let mut house = House::new();
    house.joins("a", 3);
    let id = house.submits(grid(3, ""));
    for (number, value) in [(3, 0.8), (2, 0.9), (1, 0.9)] {
        let lease = house.lease_of(id, number);
        let trial = house.trial(id, number).id;
        house.observes(&lease, trial, 10, value);
        house.exits(&lease, Outcome::Finished);
    }
    assert_eq!(house.experiment(id).best, Some(house.trial(id, 1).id));
}

#[test]
fn what_has_ended_leaves_memory() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    house.exits(&lease, Outcome::Finished);
    assert_eq!(house.standing(id), ExperimentState::Completed);
    let rows = house.cluster.snapshot();
    assert!(rows.experiments.is_empty() && rows.trials.is_empty() && rows.leases.is_empty());
    assert_eq!(house.refused(&Event::Pause(id)), Code::NotFound);
}

#[test]
fn an_experiment_fails_when_no_trial_completes() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(2, "max_restarts: 0"));
    for number in 1..=2 {
        let lease = house.lease_of(id, number);
        house.exits(&lease, crate::testing::crashed("gone"));
    }
    let ExperimentState::Failed { fault } = house.standing(id) else {
        panic!("{:?}", house.standing(id));
    };
    assert_eq!(fault.code, Code::RestartsExhausted);
}

#[test]
fn a_refused_event_changes_nothing_even_when_something_could_be_placed() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    house.exits(&lease, crate::testing::crashed("gone"));
    assert_eq!(house.state(id, 1).name(), "waiting");
    house.now = house.now.plus_ms(600_000);
    assert_eq!(
        house.refused(&Event::Pause(ExperimentId(99))),
        Code::NotFound
    );
    assert_eq!(house.state(id, 1).name(), "waiting");
    let worker = crate::testing::worker_id("a");
    let grace_ms = 0;
    house.tell(&Event::Drain { worker, grace_ms });
    assert!(matches!(house.state(id, 1), TrialState::Waiting { .. }));
}

#[test]
fn a_row_stands_in_a_decision_once_with_a_version_one_higher() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    let trial = house.trial(id, 1);
    let said = [10, 20, 30].map(|step| crate::testing::observed(trial.id, step, 0.5));
    let reports: Vec<_> = said
        .into_iter()
        .map(|body| house.report(&lease, body))
        .collect();
    let event = house.poll(a, reports);
    house.tell(&event);
    let rows: Vec<u64> = (house.last.iter())
        .filter_map(|change| {
            if let Change::Trial(row) = change {
                Some(row.version)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(rows, [trial.version + 1]);
}
