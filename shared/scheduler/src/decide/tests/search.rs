//! What a searcher wants is done: trials end, wait and go on at rungs, and an experiment that cannot
//! measure its objective says so early.

use crate::testing::{House, grid, observed, spec};
use crate::{Config, Event};
use pomona_domain::change::Subject;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::trial::{AfterStop, TrialState};
use pomona_domain::{Code, ExperimentId};
use std::collections::BTreeMap;

/// Four points, compared after epochs 1 and 2 of 4.
fn asha(form: &str, more: &str) -> pomona_domain::spec::ExperimentSpec {
    spec(&format!(
        "train: {{epochs: 4}}\nseed: 1\nsearch: {{strategy: asha, asha: {{eta: 2, form: {form}}}, {more} \
         space: {{train.learning_rate: {{values: [0.1, 0.2, 0.3, 0.4]}}}}}}"
    ))
}

fn says(house: &mut House, id: ExperimentId, number: u32, epoch: u32, value: f64) {
    let lease = house.lease_of(id, number);
    let trial = house.trial(id, number).id;
    house.says(&lease, observed(trial, u64::from(epoch) * 10, value));
}

fn stops(house: &mut House, id: ExperimentId, number: u32) {
    let lease = house.lease_of(id, number);
    house.exits(&lease, Outcome::Stopped);
}

#[test]
fn who_is_behind_at_a_rung_is_stopped_and_counts_as_completed() {
    let mut house = House::new();
    house.joins("a", 4);
    let id = house.submits(asha("stop", ""));
    says(&mut house, id, 1, 1, 0.8);
    assert!(matches!(house.state(id, 1), TrialState::Running { .. }));
    says(&mut house, id, 2, 1, 0.5);
    let lease = house.lease_of(id, 2);
    let then = AfterStop::Completed;
    assert_eq!(
        house.state(id, 2),
        TrialState::Stopping {
            lease: lease.id,
            then
        }
    );
    insta::assert_snapshot!(
        house.reasons().join("\n"),
        @"asked to write a checkpoint and stop: at epoch 1 its `val/accuracy` is 0.5, the rung's 2nd of 2 points at frozen depth `all`, 4 epochs (rung 1 of 2); the best one goes on"
    );
    // What it still says is kept and changes nothing more.
    says(&mut house, id, 2, 2, 0.9);
    stops(&mut house, id, 2);
    assert_eq!(house.state(id, 2), TrialState::Completed);
    assert_eq!(house.experiment(id).best, Some(house.trial(id, 2).id));
    // Equals are not behind.
    says(&mut house, id, 3, 1, 0.8);
    assert!(matches!(house.state(id, 3), TrialState::Running { .. }));
}

#[test]
fn the_same_stops_after_a_restart() {
    let mut house = House::new();
    house.joins("a", 4);
    let id = house.submits(asha("stop", ""));
    says(&mut house, id, 1, 1, 0.8);
    house.restarts();
    let worker = house.lease_of(id, 1).slots[0].worker;
    house.passes(10, &[worker]);
    says(&mut house, id, 2, 1, 0.5);
    assert!(matches!(house.state(id, 2), TrialState::Stopping { .. }));
}

#[test]
fn an_observation_that_passes_several_rungs_counts_at_each() {
    let mut house = House::new();
    house.joins("a", 4);
    let id = house.submits(asha("stop", ""));
    for number in [1, 2] {
        says(&mut house, id, number, 3, 0.8 + f64::from(number) / 100.0);
    }
    says(&mut house, id, 3, 1, 0.1);
    assert!(matches!(house.state(id, 3), TrialState::Stopping { .. }));
    says(&mut house, id, 4, 3, 0.83);
    assert!(matches!(house.state(id, 4), TrialState::Running { .. }));
}

#[test]
fn promoted_trials_go_on_from_their_checkpoints_and_the_others_end() {
    let config = Config {
        queue_ahead: 4,
        ..Config::default()
    };
    let mut house = House::with(config);
    house.joins("a", 1);
    let id = house.submits(asha("promote", ""));
    says(&mut house, id, 1, 1, 0.5);
    stops(&mut house, id, 1);
    assert_eq!(house.state(id, 1), TrialState::Paused);
    assert_eq!(
        house.explains(Subject::Trial(house.trial(id, 1).id)),
        "it waits at a rung, and goes on if it is among the best there"
    );
    // A user's pause and resume does not promote it.
    house.tell(&Event::Pause(id));
    house.tell(&Event::Resume(id));
    assert_eq!(house.state(id, 1), TrialState::Paused);
    stops(&mut house, id, 2);
    // The best one of two goes on at once, and waits at the next rung.
    says(&mut house, id, 2, 1, 0.8);
    assert!(matches!(house.state(id, 2), TrialState::Running { .. }));
    says(&mut house, id, 2, 2, 0.8);
    stops(&mut house, id, 2);
    says(&mut house, id, 3, 1, 0.6);
    stops(&mut house, id, 3);
    // So does the second of four; then the better one of the two that came so far is promoted.
    says(&mut house, id, 4, 1, 0.7);
    assert!(matches!(house.state(id, 4), TrialState::Running { .. }));
    says(&mut house, id, 4, 2, 0.7);
    assert!(matches!(house.state(id, 2), TrialState::Waiting { .. }));
    stops(&mut house, id, 4);
    // One of two trains to the end; those that wait in vain end with what they have.
    let lease = house.lease_of(id, 2);
    for number in [1, 3, 4] {
        assert_eq!(house.state(id, number), TrialState::Completed, "{number}");
    }
    house.exits(&lease, Outcome::Finished);
    assert_eq!(house.standing(id), ExperimentState::Completed);
}

fn says_only_loss(house: &mut House, id: ExperimentId, number: u32, step: u64) {
    let lease = house.lease_of(id, number);
    let trial = house.trial(id, number).id;
    house.says(
        &lease,
        ReportBody::Observed {
            trial,
            step,
            epoch: 1,
            metrics: BTreeMap::from([("train/loss".to_owned(), 0.5)]),
            confusion: Vec::new(),
        },
    );
}

fn code(state: &TrialState) -> Option<Code> {
    match state {
        TrialState::Failed { fault } => Some(fault.code),
        TrialState::Waiting { .. }
        | TrialState::Running { .. }
        | TrialState::Stopping { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Canceled => None,
    }
}

#[test]
fn a_trial_that_does_not_measure_the_objective_fails_at_its_second_evaluation() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(spec(""));
    says_only_loss(&mut house, id, 1, 10);
    assert_eq!(code(&house.state(id, 1)), None);
    says_only_loss(&mut house, id, 1, 20);
    assert_eq!(code(&house.state(id, 1)), Some(Code::MetricAbsent));
    let ExperimentState::Failed { fault } = house.standing(id) else {
        panic!("{:?}", house.standing(id));
    };
    assert_eq!(
        fault.message,
        "`val/accuracy` is not among what the trial measured up to step 20: `train/loss`"
    );
}

#[test]
fn one_that_ends_after_a_single_evaluation_fails_too() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(spec(""));
    says_only_loss(&mut house, id, 1, 10);
    let lease = house.only_lease();
    house.exits(&lease, Outcome::Finished);
    assert_eq!(code(&house.state(id, 1)), Some(Code::MetricAbsent));
}

#[test]
fn an_experiment_whose_first_trials_measure_nothing_does_not_try_the_others() {
    let mut house = House::new();
    house.joins("a", 2);
    let id = house.submits(crate::testing::grid(40, ""));
    for number in 1..=5 {
        let lease = house.lease_of(id, number);
        let trial = house.trial(id, number).id;
        house.says(&lease, observed(trial, 10, f64::NAN));
        assert_eq!(code(&house.state(id, number)), Some(Code::NotANumber));
    }
    // The one that still trains is asked to stop, the others are taken back.
    assert_eq!(house.standing(id), ExperimentState::Active);
    for number in 7..=40 {
        assert_eq!(house.state(id, number), TrialState::Canceled, "{number}");
    }
    stops(&mut house, id, 6);
    let ExperimentState::Failed { fault } = house.standing(id) else {
        panic!("{:?}", house.standing(id));
    };
    assert_eq!(fault.code, Code::NotANumber);
    assert_eq!(house.state(id, 6), TrialState::Canceled);
}

#[test]
fn one_good_trial_is_enough_to_go_on() {
    let mut house = House::new();
    house.joins("a", 2);
    let id = house.submits(crate::testing::grid(40, ""));
    says(&mut house, id, 1, 1, 0.5);
    for number in 2..=9 {
        let lease = house.lease_of(id, number);
        let trial = house.trial(id, number).id;
        house.says(&lease, observed(trial, 10, f64::NAN));
    }
    assert!(matches!(house.state(id, 10), TrialState::Running { .. }));
}

#[test]
fn more_slots_than_are_drawn_ahead_are_all_used() {
    let config = Config {
        queue_ahead: 2,
        ..Config::default()
    };
    let mut house = House::with(config);
    house.joins("a", 5);
    let id = house.submits(grid(9, ""));
    assert_eq!(house.cluster.leases().count(), 5);
    house.joins("b", 3);
    assert_eq!(house.cluster.leases().count(), 8);
    house.joins("c", 3);
    assert_eq!(house.cluster.leases().count(), 9, "there are no more");
    assert_eq!(house.experiment(id).created_trials, 9);
}

#[test]
fn what_learns_from_results_draws_when_there_is_a_slot_and_not_before() {
    let drawn = |values: [f64; 2]| {
        let mut house = House::new();
        let id = house.submits(spec(
            "search: {strategy: tpe, tpe: {startup: 2}, max_trials: 6, max_concurrent: 3, \
             space: {train.learning_rate: {log_uniform: [0.001, 0.1]}}}",
        ));
        assert_eq!(house.experiment(id).created_trials, 1);
        house.joins("a", 2);
        assert_eq!(
            house.experiment(id).created_trials,
            2,
            "both slots are taken"
        );
        for (number, value) in (1..).zip(values) {
            says(&mut house, id, number, 1, value);
            let lease = house.lease_of(id, number);
            house.exits(&lease, Outcome::Finished);
            assert_eq!(house.experiment(id).created_trials, number + 2);
        }
        house.trial(id, 4).hparams
    };
    assert_ne!(
        drawn([0.2, 0.8]),
        drawn([0.8, 0.2]),
        "it has learnt nothing"
    );
}
