//! Workers on which work of others breaks get none for a while.

use crate::testing::{House, crashed, grid, worker_id};
use pomona_domain::change::Subject;
use pomona_domain::lease::Lease;
use pomona_domain::report::Outcome;
use pomona_domain::{Code, ExperimentId, Fault, WorkerId};

const COOL_DOWN_MS: i64 = 300_000;

/// Workers `a` and `b` of one slot, and more trials than will ever run.
fn house() -> (House, ExperimentId, [WorkerId; 2]) {
    let mut house = House::new();
    let workers = ["a", "b"].map(|name| house.joins(name, 1));
    let id = house.submits(grid(40, "share: off\nmax_restarts: 9"));
    (house, id, workers)
}

fn on(house: &House, worker: WorkerId) -> Option<Lease> {
    house.cluster.leases_of(worker).next().cloned()
}

fn ends(house: &mut House, worker: WorkerId, outcome: Outcome) {
    let lease = on(house, worker).expect("a lease");
    house.exits(&lease, outcome);
}

fn passes(house: &mut House, ms: i64) {
    let mut left = ms;
    while left > 0 {
        let step = left.min(20_000);
        house.passes(step, &[worker_id("a"), worker_id("b")]);
        left -= step;
    }
}

#[test]
fn failures_of_different_trials_exclude_a_worker_for_a_while() {
    let (mut house, id, [a, b]) = house();
    for left in [2, 1, 0] {
        ends(&mut house, a, crashed("bus error"));
        assert_eq!(on(&house, a).is_some(), left > 0, "{left} more");
    }
    assert_eq!(
        house.explains(Subject::Worker(a)),
        "it is alive, 0 of 1 slots are busy; it is excluded for another 300 s: different trials \
         failed there and nothing ended well"
    );
    let said = house.explains(Subject::Trial(house.trial(id, 30).id));
    assert_eq!(
        said,
        "it waits: all 1 slots are busy; worker `a` excluded after failures"
    );
    // The other one goes on, and what ends there says nothing about the first.
    ends(&mut house, b, Outcome::Finished);
    assert!(on(&house, b).is_some() && on(&house, a).is_none());
    passes(&mut house, COOL_DOWN_MS - 1);
    assert!(on(&house, a).is_none());
    passes(&mut house, 1);
    assert!(on(&house, a).is_some());
    // It is on probation: one more failure is enough, and lasts twice as long.
    ends(&mut house, a, crashed("bus error"));
    passes(&mut house, 2 * COOL_DOWN_MS - 1);
    assert!(on(&house, a).is_none());
    passes(&mut house, 1);
    ends(&mut house, a, Outcome::Finished);
    ends(&mut house, a, crashed("bus error"));
    assert!(on(&house, a).is_some(), "a good end forgets all that was");
}

#[test]
fn a_worker_that_cannot_start_anything_is_excluded_too() {
    let (mut house, _, [a, _]) = house();
    for _ in 0..3 {
        let fault = Fault::new(Code::MissingProgram, "no trainer");
        ends(&mut house, a, Outcome::NotStarted { fault });
    }
    assert!(on(&house, a).is_none());
}

#[test]
fn a_good_end_between_failures_resets_them() {
    let (mut house, _, [a, _]) = house();
    for _ in 0..4 {
        ends(&mut house, a, crashed("bus error"));
        ends(&mut house, a, crashed("bus error"));
        ends(&mut house, a, Outcome::Finished);
    }
    assert!(on(&house, a).is_some());
}

#[test]
fn what_says_nothing_about_the_worker_does_not_count() {
    let (mut house, _, [a, _]) = house();
    let time = Fault::new(Code::TimeLimit, "time is over");
    let own = Fault::new(Code::NotANumber, "NaN");
    for _ in 0..3 {
        ends(
            &mut house,
            a,
            Outcome::Crashed {
                fault: time.clone(),
            },
        );
        let fault = own.clone();
        ends(
            &mut house,
            a,
            Outcome::Failed {
                fault,
                retry: false,
            },
        );
        ends(&mut house, a, Outcome::Killed);
    }
    assert!(on(&house, a).is_some());
}

#[test]
fn trials_that_break_on_two_workers_exclude_neither() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = house.submits(grid(2, "share: off\nmax_restarts: 9"));
    // Both crash here, then there, then a third one here.
    ends(&mut house, a, crashed("bad batch"));
    ends(&mut house, a, crashed("bad batch"));
    house.passes(900, &[a]);
    let b = house.joins("b", 1);
    house.tell(&crate::Event::Drain {
        worker: a,
        grace_ms: 0,
    });
    house.passes(100, &[a, b]);
    ends(&mut house, b, crashed("bad batch"));
    ends(&mut house, b, crashed("bad batch"));
    assert_eq!(house.trial(id, 1).restarts, 2);
    // The other one is busy from now on.
    house.submits(grid(1, "priority: 95"));
    house.tell(&crate::Event::Undrain(a));
    for _ in 0..2 {
        house.submits(grid(1, "priority: 90\nshare: off\nmax_restarts: 9"));
        ends(&mut house, a, crashed("bus error"));
    }
    house.submits(grid(1, "priority: 90"));
    assert!(
        on(&house, a).is_some(),
        "two failures of its own are not three"
    );
}

#[test]
fn where_all_workers_fail_none_is_excluded() {
    let (mut house, _, [a, b]) = house();
    for worker in [a, a, a, b, b] {
        ends(&mut house, worker, crashed("bad file"));
    }
    assert!(on(&house, a).is_none());
    ends(&mut house, b, crashed("bad file"));
    assert!(on(&house, a).is_some() && on(&house, b).is_some());
    assert!(!house.explains(Subject::Worker(a)).contains("excluded"));
}

#[test]
fn a_lone_worker_is_never_excluded() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    house.submits(grid(9, "share: off\nmax_restarts: 9"));
    for _ in 0..6 {
        ends(&mut house, a, crashed("bus error"));
    }
    assert!(on(&house, a).is_some());
}

#[test]
fn another_process_of_the_worker_begins_with_a_clean_slate() {
    let (mut house, _, [a, _]) = house();
    for _ in 0..3 {
        ends(&mut house, a, crashed("bus error"));
    }
    assert!(on(&house, a).is_none());
    house.registers("a", 2, &[pomona_domain::worker::SlotKind::Cpu]);
    assert!(on(&house, a).is_some());
}
