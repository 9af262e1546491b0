//! Who yields, for whom, and when not.

use crate::testing::{House, grid, worker_id};
use crate::{Config, Event, preemptions};
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::lease::{LeaseState, StopReason};
use pomona_domain::report::Outcome;
use pomona_domain::task::TaskSpec;
use pomona_domain::trial::{AfterStop, TrialState};
use pomona_domain::{Digest, ExperimentId, TaskId};

const AFTER_MS: i64 = 120_000;

/// Time passes while workers `a` and `b` are heard of.
fn passes(house: &mut House, ms: i64) {
    let mut left = ms;
    while left > 0 {
        let step = left.min(20_000);
        house.passes(step, &[worker_id("a"), worker_id("b")]);
        left -= step;
    }
}

/// A cluster of two slots on `a` that two trials of priority 50 hold for long enough.
fn house() -> (House, ExperimentId) {
    let mut house = House::new();
    house.joins("a", 2);
    let low = house.submits(grid(2, ""));
    passes(&mut house, AFTER_MS);
    (house, low)
}

/// Numbers of the trials that were asked to yield.
fn yielding(house: &House, id: ExperimentId) -> Vec<u32> {
    let asked = |row: &&pomona_domain::trial::Trial| {
        let then = AfterStop::Waiting;
        matches!(row.state, TrialState::Stopping { then: it, .. } if it == then)
    };
    let trials = house.cluster.trials_of(id).filter(asked);
    trials.map(|row| row.number).collect()
}

#[test]
fn one_lease_yields_for_one_trial_and_its_slot_goes_to_it() {
    let (mut house, low) = house();
    let high = house.submits(grid(1, "priority: 60"));
    let asked = yielding(&house, low);
    assert_eq!(asked.len(), 1);
    let lease = house.lease_of(low, asked[0]);
    assert!(matches!(
        lease.state,
        LeaseState::Stopping {
            why: StopReason::Priority,
            ..
        }
    ));
    assert!(house.reasons().contains(
        &"asked to write a checkpoint and stop: preempted by trial 1 of `e`, whose priority is 60, \
          its own is 50"
            .to_owned()
    ));
    // Nobody else is asked while it writes its checkpoint.
    passes(&mut house, 5_000);
    assert_eq!(yielding(&house, low), asked);
    let said = house.explains(Subject::Trial(house.trial(high, 1).id));
    assert_eq!(
        said,
        "it waits: all 2 slots are busy; 1 slot was asked to come free"
    );
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.state(high, 1).name(), "running");
    let row = house.trial(low, asked[0]);
    assert_eq!((row.state.name(), row.restarts), ("waiting", 0));
    let said = house.explains(Subject::Trial(row.id));
    assert_eq!(said, "it waits: all 2 slots are busy");
}

#[test]
fn equals_the_nearly_equal_the_young_and_tasks_are_left_alone() {
    for priority in [0, 50, 59] {
        let (mut house, low) = house();
        house.submits(grid(1, &format!("priority: {priority}")));
        assert_eq!(yielding(&house, low), Vec::<u32>::new(), "{priority}");
    }
    let mut house = House::new();
    house.joins("a", 1);
    let low = house.submits(grid(1, ""));
    house.submits(grid(1, "priority: 90"));
    passes(&mut house, AFTER_MS - 1);
    assert_eq!(yielding(&house, low), Vec::<u32>::new());
    passes(&mut house, 1);
    assert_eq!(yielding(&house, low), [1]);
}

#[test]
fn a_task_neither_yields_nor_asks_others_to() {
    let import = |id| Event::TaskSubmitted {
        id: TaskId(id),
        spec: TaskSpec::ImportBackbone {
            name: "r".to_owned(),
            arch: "resnet18".to_owned(),
            weights: Digest([1; 32]),
        },
        priority: 60,
    };
    let (mut house, low) = house();
    house.tell(&import(1));
    assert_eq!(yielding(&house, low), Vec::<u32>::new());
    let mut house = House::new();
    house.joins("a", 1);
    house.tell(&import(1));
    passes(&mut house, AFTER_MS);
    house.submits(grid(1, "priority: 90"));
    assert_eq!(house.only_lease().state, LeaseState::Live);
}

#[test]
fn the_lowest_priority_yields_first_then_who_loses_least() {
    let mut house = House::new();
    house.joins("a", 3);
    let lower = house.submits(grid(1, "priority: 30"));
    let low = house.submits(grid(2, "priority: 40"));
    passes(&mut house, AFTER_MS);
    // Trial 2 has just saved what it has.
    let lease = house.lease_of(low, 2);
    let trial = house.trial(low, 2).id;
    house.keeps(&lease, trial, CheckpointKind::Last, 10);
    passes(&mut house, 1_000);
    house.submits(grid(2, "priority: 90"));
    assert_eq!(yielding(&house, lower), [1]);
    assert_eq!(yielding(&house, low), [2]);
}

#[test]
fn a_gang_takes_the_worker_where_the_fewest_yield() {
    let mut house = House::new();
    let a = house.joins("a", 2);
    let b = house.joins("b", 2);
    let low = house.submits(grid(3, ""));
    passes(&mut house, AFTER_MS);
    let on = |house: &House, worker| house.cluster.leases_of(worker).count();
    let lone = if on(&house, a) == 1 { a } else { b };
    let gang = house.submits(grid(1, "priority: 70\nresources: {slots_per_trial: 2}"));
    let asked = yielding(&house, low);
    assert_eq!(asked.len(), 1);
    let lease = house.lease_of(low, asked[0]);
    assert_eq!(lease.slots[0].worker, lone);
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.state(gang, 1).name(), "running");
}

#[test]
fn a_shared_lease_yields_as_a_whole_and_nobody_is_blamed() {
    let mut house = House::sharing();
    house.joins("a", 1);
    let low = house.submits(grid(3, ""));
    passes(&mut house, AFTER_MS);
    let lease = house.only_lease();
    let high = house.submits(grid(1, "priority: 70"));
    assert_eq!(yielding(&house, low), [1, 2, 3]);
    house.exits(&lease, Outcome::Stopped);
    assert_eq!(house.state(high, 1).name(), "running");
    for number in 1..=3 {
        let row = house.trial(low, number);
        assert_eq!(
            (row.state.name(), row.restarts, row.share_limit),
            ("waiting", 0, None)
        );
    }
}

#[test]
fn who_was_preempted_comes_back_and_is_left_alone_for_its_least_time() {
    let mut house = House::new();
    house.joins("a", 1);
    let low = house.submits(grid(1, ""));
    let high = house.submits(grid(1, "priority: 70"));
    passes(&mut house, AFTER_MS);
    let lease = house.lease_of(low, 1);
    house.exits(&lease, Outcome::Stopped);
    let lease = house.lease_of(high, 1);
    house.exits(&lease, Outcome::Finished);
    assert_eq!(house.state(low, 1).name(), "running");
    house.submits(grid(1, "priority: 70"));
    passes(&mut house, AFTER_MS - 1);
    assert_eq!(yielding(&house, low), Vec::<u32>::new());
}

#[test]
fn a_gang_that_no_victims_make_room_for_asks_nobody() {
    let mut house = House::new();
    house.joins("a", 2);
    let equal = house.submits(grid(1, "priority: 65"));
    let low = house.submits(grid(1, ""));
    passes(&mut house, AFTER_MS);
    house.submits(grid(1, "priority: 70\nresources: {slots_per_trial: 2}"));
    assert_eq!(yielding(&house, equal), Vec::<u32>::new());
    assert_eq!(yielding(&house, low), Vec::<u32>::new());
}

#[test]
fn a_quota_is_met_by_waiting_not_by_preemption() {
    use pomona_domain::policy::{Policy, Project};
    let quota = Project {
        name: "p".to_owned(),
        weight: 1,
        quota_slots: Some(1),
    };
    let mut house = House::with(Config {
        policy: Policy {
            projects: vec![quota],
            pools: Vec::new(),
        },
        ..Config::default()
    });
    house.joins("a", 2);
    let own = house.submits(grid(1, "project: p"));
    let other = house.submits(grid(1, ""));
    passes(&mut house, AFTER_MS);
    house.submits(grid(1, "project: p\npriority: 90"));
    assert_eq!(yielding(&house, own), Vec::<u32>::new());
    assert_eq!(yielding(&house, other), Vec::<u32>::new());
}

#[test]
fn a_gap_of_zero_turns_it_off() {
    let mut house = House::with(Config {
        preempt_gap: 0,
        ..Config::default()
    });
    house.joins("a", 1);
    house.submits(grid(1, ""));
    passes(&mut house, AFTER_MS);
    house.submits(grid(1, "priority: 100"));
    assert_eq!(preemptions(&house.cluster, house.now), Vec::new());
    assert_eq!(house.only_lease().state, LeaseState::Live);
}
