//! Leases with several trials: who shares, who leaves, and what a fault that nobody owns means.

use crate::Event;
use crate::testing::{House, checkpoint, crashed, grid, observed};
use pomona_domain::change::{Change, Subject};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::lease::{Lease, LeaseState};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::trial::{AfterStop, Trial, TrialState};
use pomona_domain::{Code, ExperimentId, Fault};

/// So many trials on the only slot.
fn shared(trials: u32, rest: &str) -> (House, ExperimentId, Lease) {
    let mut house = House::sharing();
    house.joins("a", 1);
    let id = house.submits(grid(trials, rest));
    let lease = house.only_lease();
    assert_eq!(house.members(&lease).len(), trials as usize);
    (house, id, lease)
}

fn ended(house: &House, id: ExperimentId, number: u32, outcome: Outcome) -> ReportBody {
    ReportBody::TrialEnded {
        trial: house.trial(id, number).id,
        outcome,
    }
}

fn failed(retry: bool) -> Outcome {
    Outcome::Failed {
        fault: Fault::new(Code::BadCheckpoint, "of another spec"),
        retry,
    }
}

fn rows(house: &House, id: ExperimentId, numbers: &[u32]) -> Vec<Trial> {
    numbers.iter().map(|n| house.trial(id, *n)).collect()
}

fn names(house: &House, id: ExperimentId) -> Vec<&'static str> {
    let trials = house.cluster.trials_of(id);
    trials.map(|trial| trial.state.name()).collect()
}

#[test]
fn head_only_trials_share_and_it_is_said() {
    let (mut house, id, lease) = shared(12, "");
    let said = "placed on worker `a`, slot 0, in one process with 11 other trials over the same \
                features (generation 1)";
    assert_eq!(
        house.reasons().iter().filter(|text| *text == said).count(),
        12
    );
    let subject = Subject::Trial(house.trial(id, 7).id);
    let said = |others: &str| {
        format!(
            "it runs on worker `a`, slot 0, in one process with {others} over the same features, \
             at step 0"
        )
    };
    assert_eq!(house.explains(subject), said("11 other trials"));
    for number in [1, 2, 3, 4, 5, 6, 8, 9, 10, 11] {
        let body = ended(&house, id, number, Outcome::Finished);
        house.says(&lease, body);
    }
    assert_eq!(house.explains(subject), said("1 other trial"));
}

#[test]
fn a_member_that_is_done_leaves_the_others_as_they_are() {
    let (mut house, id, lease) = shared(3, "");
    let first = house.trial(id, 1).id;
    house.observes(&lease, first, 10, 0.5);
    let before = rows(&house, id, &[2, 3]);
    house.now = house.now.plus_ms(5_000);
    let body = ended(&house, id, 1, Outcome::Finished);
    house.says(&lease, body.clone());
    assert_eq!(house.state(id, 1), TrialState::Completed);
    assert_eq!(house.trial(id, 1).active_ms, 5_000);
    assert_eq!(house.experiment(id).best, Some(first));
    assert_eq!(rows(&house, id, &[2, 3]), before);
    assert_eq!(house.only_lease(), lease);
    // What comes of it later counts for nothing.
    for body in [
        observed(first, 20, 0.9),
        checkpoint(first, CheckpointKind::Last, 20),
        body,
    ] {
        house.says(&lease, body);
        assert_eq!(house.last.len(), 1, "{:?}", house.last);
        assert!(matches!(house.last[0], Change::Worker(_)));
    }
    house.exits(&lease, Outcome::Finished);
    assert_eq!(house.standing(id), ExperimentState::Completed);
    assert_eq!(house.trial(id, 3).active_ms, 5_000);
}

#[test]
fn the_last_member_that_is_done_ends_the_lease() {
    let (mut house, id, lease) = shared(2, "");
    let bodies = [1, 2].map(|number| ended(&house, id, number, Outcome::Finished));
    let exit = ReportBody::Exited {
        outcome: Outcome::Finished,
    };
    let reports: Vec<_> = (bodies.into_iter().chain([exit]))
        .map(|body| house.report(&lease, body))
        .collect();
    let event = house.poll(lease.slots[0].worker, reports);
    house.tell(&event);
    assert!(house.generations().is_empty());
    assert_eq!(house.standing(id), ExperimentState::Completed);
}

#[test]
fn a_members_own_fault_is_its_own() {
    let (mut house, id, lease) = shared(4, "max_restarts: 1");
    let before = rows(&house, id, &[3, 4]);
    let body = ended(&house, id, 1, failed(false));
    house.says(&lease, body);
    let body = ended(&house, id, 2, failed(true));
    house.says(&lease, body);
    assert!(matches!(house.state(id, 1), TrialState::Failed { .. }));
    let row = house.trial(id, 2);
    assert_eq!((row.restarts, row.share_limit), (1, None));
    let TrialState::Waiting { not_before, .. } = row.state else {
        panic!("{:?}", row.state);
    };
    assert_eq!(not_before.since_ms(house.now), 1_000);
    let broken = row.id;
    let nan = house.trial(id, 3).id;
    house.observes(&lease, nan, 10, f64::NAN);
    assert_eq!(
        names(&house, id),
        ["failed", "waiting", "failed", "running"]
    );
    assert_eq!(house.trial(id, 4), before[1]);
    // It is leased again while the others go on, and its old process counts no more.
    let b = house.joins("b", 1);
    house.passes(1_000, &[lease.slots[0].worker, b]);
    let next = house.lease_of(id, 2);
    assert!(next.generation > lease.generation);
    house.observes(&lease, broken, 10, 0.5);
    assert_eq!(house.trial(id, 2).last_step, 0);
    house.observes(&next, broken, 10, 0.5);
    assert_eq!(house.trial(id, 2).last_step, 10);
    let again = ReportBody::TrialEnded {
        trial: broken,
        outcome: failed(true),
    };
    house.says(&lease, again.clone());
    assert_eq!(house.state(id, 2).name(), "running");
    house.exits(&lease, crashed("gone"));
    assert_eq!(
        (house.state(id, 2).name(), house.trial(id, 2).restarts),
        ("running", 1)
    );
    house.says(&next, again);
    let TrialState::Failed { fault } = house.state(id, 2) else {
        panic!("{:?}", house.state(id, 2));
    };
    assert_eq!(fault.code, Code::RestartsExhausted);
}

#[test]
fn a_crash_that_nobody_owns_is_no_attempt_and_halves_the_company() {
    let (mut house, id, lease) = shared(12, "max_restarts: 0");
    house.exits(&lease, crashed("gone"));
    let said = "waits for another lease, no attempt is counted: the lease it shared with 11 other \
                trials crashed: gone; it will share with at most 5 others";
    assert_eq!(
        house.reasons().iter().filter(|text| *text == said).count(),
        12
    );
    // At once, in the same decision.
    let lease = house.only_lease();
    assert_eq!(house.members(&lease), [1, 2, 3, 4, 5, 6]);
    for number in 1..=12 {
        let row = house.trial(id, number);
        assert_eq!((row.restarts, row.share_limit), (0, Some(6)));
    }
    // Who left before is not counted.
    for number in [1, 2, 3] {
        let body = ended(&house, id, number, Outcome::Finished);
        house.says(&lease, body);
    }
    house.exits(&lease, failed(false));
    let limits: Vec<_> = (4..=7).map(|n| house.trial(id, n).share_limit).collect();
    assert_eq!(limits, [Some(2), Some(2), Some(2), Some(6)]);
    assert_eq!(house.members(&house.only_lease()), [4, 5]);
    let lease = house.only_lease();
    house.exits(&lease, crashed("gone"));
    assert!(
        house
            .reasons()
            .iter()
            .any(|text| text.ends_with("; it will have the next one alone"))
    );
    // Alone it counts as it always did.
    let lease = house.only_lease();
    assert_eq!(house.members(&lease), [4]);
    house.exits(&lease, crashed("gone"));
    assert_eq!(house.state(id, 4).name(), "failed");
    assert_eq!(house.members(&house.only_lease()), [5]);
}

#[test]
fn what_is_nobodys_fault_leaves_the_company_as_it_is() {
    for outcome in [Outcome::Stopped, Outcome::Killed] {
        let (mut house, id, lease) = shared(3, "");
        house.exits(&lease, outcome);
        assert_eq!(house.members(&house.only_lease()), [1, 2, 3]);
        assert_eq!(house.trial(id, 1).share_limit, None);
    }
    let (mut house, id, _) = shared(3, "");
    let b = house.joins("b", 1);
    house.passes(30_001, &[b]);
    assert_eq!(house.members(&house.only_lease()), [1, 2, 3]);
    assert_eq!(house.trial(id, 1).share_limit, None);
}

/// A lease of two ends with the time of the first, who may have left it.
fn time_ends(left_before: bool) -> (House, ExperimentId) {
    let mut house = House::sharing();
    let a = house.joins("a", 1);
    let b = house.joins("b", 1);
    let id = house.submits(grid(2, "time_limit: 60s"));
    let (first, second) = (house.lease_of(id, 1), house.lease_of(id, 2));
    house.tell(&Event::Drain {
        worker: b,
        grace_ms: 90_000,
    });
    house.passes(10_000, &[a, b]);
    house.exits(&second, Outcome::Killed);
    house.passes(30_000, &[a, b]);
    house.exits(&first, Outcome::Stopped);
    let lease = house.only_lease();
    assert_eq!(house.members(&lease), [1, 2]);
    house.passes(20_000, &[a, b]);
    if left_before {
        let body = ended(&house, id, 1, Outcome::Finished);
        house.says(&lease, body);
    }
    let fault = Fault::new(Code::TimeLimit, "60 s are over");
    house.exits(&lease, Outcome::Crashed { fault });
    let row = house.trial(id, 2);
    assert_eq!((row.state.name(), row.restarts), ("running", 0));
    assert_eq!((row.share_limit, row.active_ms), (None, 30_000));
    (house, id)
}

#[test]
fn time_is_over_for_whom_it_is_over() {
    let (house, id) = time_ends(false);
    assert!(matches!(house.state(id, 1), TrialState::Failed { .. }));
    for said in [
        "failed for good: it crashed: 60 s are over",
        "waits for another lease, no attempt is counted: its lease ended with the time of another \
         trial: 60 s are over",
    ] {
        assert!(house.reasons().iter().any(|text| text == said), "{said}");
    }
}

#[test]
fn the_time_of_one_that_has_left_is_no_fault_of_the_last() {
    let (house, id) = time_ends(true);
    assert_eq!(house.state(id, 1), TrialState::Completed);
}

#[test]
fn a_stop_of_one_asks_the_whole_process_and_the_others_go_on() {
    let (mut house, id, lease) = shared(3, "");
    let first = house.trial(id, 1).id;
    house.observes(&lease, first, 10, 0.5);
    house.tell(&Event::StopTrial(first));
    assert!(matches!(
        house.only_lease().state,
        LeaseState::Stopping { .. }
    ));
    let state = |then| TrialState::Stopping {
        lease: lease.id,
        then,
    };
    assert_eq!(house.state(id, 1), state(AfterStop::Completed));
    assert_eq!(house.state(id, 2), state(AfterStop::Waiting));
    let said = "asked to write a checkpoint and stop: trial 1 in the same process was asked to \
                stop";
    assert_eq!(
        house.reasons().iter().filter(|text| *text == said).count(),
        2
    );
    // Another one, and the experiment is paused and resumed meanwhile.
    house.tell(&Event::StopTrial(house.trial(id, 2).id));
    assert_eq!(house.state(id, 2), state(AfterStop::Completed));
    house.tell(&Event::Pause(id));
    assert_eq!(house.state(id, 3), state(AfterStop::Paused));
    house.tell(&Event::Resume(id));
    assert_eq!(house.state(id, 3), state(AfterStop::Waiting));
    assert_eq!(house.state(id, 1), state(AfterStop::Completed));
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(names(&house, id), ["completed", "canceled", "running"]);
    assert_eq!(house.members(&house.only_lease()), [3]);
}

#[test]
fn a_member_may_be_done_before_its_process_has_stopped() {
    let (mut house, id, lease) = shared(4, "");
    house.tell(&Event::StopTrial(house.trial(id, 1).id));
    for (number, outcome) in [
        (1, Outcome::Finished),
        (2, failed(false)),
        (3, failed(true)),
    ] {
        let body = ended(&house, id, number, outcome);
        house.says(&lease, body);
    }
    // As it was asked to: it waits, and no attempt is counted.
    assert_eq!(
        names(&house, id),
        ["completed", "failed", "waiting", "stopping"]
    );
    assert_eq!(house.trial(id, 3).restarts, 0);
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.members(&house.only_lease()), [3, 4]);
}

#[test]
fn pause_and_resume_move_every_member() {
    let (mut house, id, lease) = shared(3, "");
    house.tell(&Event::Pause(id));
    assert_eq!(names(&house, id), ["stopping"; 3]);
    let body = ended(&house, id, 2, Outcome::Finished);
    house.says(&lease, body);
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(names(&house, id), ["paused", "completed", "paused"]);
    house.tell(&Event::Resume(id));
    assert_eq!(house.members(&house.only_lease()), [1, 3]);
}

#[test]
fn a_crash_while_everybody_stops_is_remembered() {
    let (mut house, id, lease) = shared(3, "");
    house.tell(&Event::Pause(id));
    house.exits(&lease, crashed("gone"));
    assert_eq!(names(&house, id), ["paused"; 3]);
    house.tell(&Event::Resume(id));
    assert_eq!(house.members(&house.only_lease()), [1, 2]);
}

#[test]
fn cancel_counts_the_time_of_every_member() {
    let (mut house, id, _) = shared(3, "");
    house.now = house.now.plus_ms(5_000);
    house.tell(&Event::Cancel(id));
    let spent: Vec<u64> = (1..=3).map(|n| house.trial(id, n).active_ms).collect();
    assert_eq!(spent, [5_000; 3]);
    assert!(house.generations().is_empty());
}
