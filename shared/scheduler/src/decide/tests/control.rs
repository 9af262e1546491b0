//! What users do: pause, resume, cancel, stop.

use crate::Event;
use crate::testing::{House, grid};
use pomona_domain::Code;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::lease::{LeaseState, StopKind, StopReason};
use pomona_domain::report::Outcome;
use pomona_domain::trial::{AfterStop, TrialState};

fn then(state: &TrialState) -> Option<AfterStop> {
    match state {
        TrialState::Stopping { then, .. } => Some(*then),
        TrialState::Waiting { .. }
        | TrialState::Running { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Failed { .. }
        | TrialState::Canceled => None,
    }
}

#[test]
fn pause_asks_for_checkpoints_and_resume_leases_again() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(2, ""));
    let lease = house.only_lease();
    house.tell(&Event::Pause(id));
    assert_eq!(then(&house.state(id, 1)), Some(AfterStop::Paused));
    let asked = house.lease(lease.id).state;
    let how = StopKind::Checkpoint;
    assert_eq!(
        asked,
        LeaseState::Stopping {
            how,
            since: house.now,
            why: StopReason::Request,
        }
    );
    house.tell(&Event::Pause(id));
    assert_eq!(house.last, Vec::new());
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.state(id, 1), TrialState::Paused);
    assert_eq!(house.state(id, 2).name(), "waiting");
    assert!(house.generations().is_empty());
    house.tell(&Event::Resume(id));
    assert_eq!(house.state(id, 1).name(), "running");
    assert_eq!(house.trial(id, 1).leases, 2);
    house.tell(&Event::Resume(id));
    assert_eq!(house.last, Vec::new());
}

#[test]
fn resume_before_the_stop_is_done_leases_again_once_it_is() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    house.tell(&Event::Pause(id));
    house.tell(&Event::Resume(id));
    assert_eq!(then(&house.state(id, 1)), Some(AfterStop::Waiting));
    house.tell(&Event::Pause(id));
    assert_eq!(then(&house.state(id, 1)), Some(AfterStop::Paused));
    house.tell(&Event::Resume(id));
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.state(id, 1).name(), "running");
}

#[test]
fn a_trial_that_finishes_while_it_is_asked_to_stop_is_completed() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    house.tell(&Event::Pause(id));
    house.exits(&lease, Outcome::Finished);
    assert_eq!(house.state(id, 1), TrialState::Completed);
    // It ends when it is resumed: a paused experiment does not move.
    assert_eq!(house.standing(id), ExperimentState::Paused);
    house.tell(&Event::Resume(id));
    assert_eq!(house.standing(id), ExperimentState::Completed);
}

#[test]
fn a_stop_that_is_not_heard_is_revoked_after_the_grace() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    house.tell(&Event::Pause(id));
    house.passes(30_000, &[a]);
    assert_eq!(house.state(id, 1).name(), "stopping");
    house.passes(1, &[a]);
    assert_eq!(house.state(id, 1), TrialState::Paused);
    assert!(house.generations().is_empty());
}

#[test]
fn cancel_ends_every_lease_in_the_same_decision() {
    let mut house = House::new();
    let a = house.joins("a", 2);
    let id = house.submits(grid(3, ""));
    house.now = house.now.plus_ms(5_000);
    house.tell(&Event::Cancel(id));
    assert_eq!(house.standing(id), ExperimentState::Canceled);
    let states: Vec<&str> = (1..=3).map(|n| house.trial(id, n).state.name()).collect();
    assert_eq!(states, ["canceled"; 3]);
    assert_eq!(house.trial(id, 1).active_ms, 5_000);
    assert_eq!(house.cluster.leases_of(a).count(), 0);
    assert_eq!(house.refused(&Event::Cancel(id)), Code::NotFound);
}

#[test]
fn canceled_slots_serve_the_next_experiment_at_once() {
    let mut house = House::new();
    house.joins("a", 1);
    let first = house.submits(grid(1, ""));
    let second = house.submits(grid(1, ""));
    house.tell(&Event::Cancel(first));
    assert_eq!(house.state(second, 1).name(), "running");
}

#[test]
fn a_stopped_trial_counts_as_completed_with_what_it_has() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 10, 0.5);
    house.tell(&Event::StopTrial(trial));
    house.tell(&Event::StopTrial(trial));
    assert_eq!(house.last, Vec::new());
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.state(id, 1), TrialState::Completed);
    assert_eq!(house.experiment(id).best, Some(trial));
    assert_eq!(house.standing(id), ExperimentState::Completed);
}

#[test]
fn a_stopped_trial_with_nothing_to_show_is_canceled() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(3, ""));
    for number in [2, 1] {
        let trial = house.trial(id, number).id;
        house.tell(&Event::StopTrial(trial));
    }
    assert_eq!(house.state(id, 2), TrialState::Canceled);
    let again = Event::StopTrial(house.trial(id, 2).id);
    assert_eq!(house.refused(&again), Code::WrongState);
    let lease = house.only_lease();
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.state(id, 1), TrialState::Canceled);
    // A user's stop is no fault of the experiment: the third runs.
    assert_eq!(house.state(id, 3).name(), "running");
}

#[test]
fn a_paused_trial_is_stopped_without_a_lease() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 10, 0.5);
    house.tell(&Event::Pause(id));
    house.exits(&lease, Outcome::Stopped);
    house.tell(&Event::StopTrial(trial));
    assert_eq!(house.state(id, 1), TrialState::Completed);
}

#[test]
fn a_stop_replaces_the_wish_to_pause() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let trial = house.trial(id, 1).id;
    house.tell(&Event::Pause(id));
    house.tell(&Event::StopTrial(trial));
    assert_eq!(then(&house.state(id, 1)), Some(AfterStop::Completed));
    // And resuming does not bring it back.
    house.tell(&Event::Resume(id));
    assert_eq!(then(&house.state(id, 1)), Some(AfterStop::Completed));
}
