//! Placement of trials that may share a lease.

use super::{Asked, NOW, Room, asked, check, cluster, cpus};
use crate::plan;
use crate::testing::{House, grid};
use pomona_domain::lease::Work;
use pomona_domain::report::Outcome;
use pomona_domain::{Code, Fault};

/// Head-only trials of one rank.
fn sharing(trials: u32) -> Asked {
    Asked {
        shares: true,
        ..asked(1, trials, 50)
    }
}

#[test]
fn trials_that_may_share_are_spread_evenly_over_the_free_slots() {
    for (trials, slots, expect) in [
        (3, 2, vec!["e1/1 2 on w1: 0", "e1/3 on w1: 1"]),
        (5, 1, vec!["e1/1 2 3 4 5 on w1: 0"]),
        (2, 3, vec!["e1/1 on w1: 0", "e1/2 on w1: 1"]),
        (
            7,
            3,
            vec!["e1/1 2 3 on w1: 0", "e1/4 5 on w1: 1", "e1/6 7 on w1: 2"],
        ),
    ] {
        let room = Room {
            workers: vec![cpus(slots)],
            experiments: vec![sharing(trials)],
            tasks: Vec::new(),
        };
        check(&room, &expect);
    }
}

#[test]
fn members_are_of_one_experiment_that_shares_and_wait_for_nothing_else() {
    let later = Asked {
        later: 1,
        ..sharing(3)
    };
    let gangs = Asked {
        slots: 2,
        ..sharing(2)
    };
    let room = Room {
        workers: vec![cpus(1), cpus(2), cpus(1)],
        experiments: vec![later, asked(1, 1, 40), gangs, asked(1, 2, 30)],
        tasks: Vec::new(),
    };
    // Two wait for four slots: each gets its own. The gang sets a worker aside.
    check(
        &room,
        &["e1/2 on w1: 0", "e1/3 on w3: 0", "e3/1 on w2: 0 1"],
    );
    let room = Room {
        workers: vec![cpus(1), cpus(1)],
        ..room
    };
    check(&room, &["e1/2 on w1: 0", "e1/3 on w2: 0"]);
    let room = Room {
        workers: vec![cpus(1)],
        ..room
    };
    check(&room, &["e1/2 3 on w1: 0"]);
}

#[test]
fn a_lease_is_no_larger_than_max_concurrent_and_each_member_allow() {
    let room = |asked: Asked| Room {
        workers: vec![cpus(1)],
        experiments: vec![asked],
        tasks: Vec::new(),
    };
    let few = Asked {
        at_once: 3,
        ..sharing(8)
    };
    check(&room(few), &["e1/1 2 3 on w1: 0"]);
    // The limits of trials 1 to 5 stand from the second on; equal ones keep to themselves.
    for (limits, expect) in [
        (vec![0, 3, 3, 3, 3, 3], "e1/1 2 3 on w1: 0"),
        (vec![0, 1, 0, 0, 0, 0], "e1/1 on w1: 0"),
        (vec![0, 0, 1, 0, 0, 0], "e1/1 3 4 5 on w1: 0"),
        (vec![0, 0, 2, 2, 2, 2], "e1/1 on w1: 0"),
        (vec![0, 2, 0, 2, 0, 1], "e1/1 3 on w1: 0"),
    ] {
        let asked = Asked {
            limits,
            ..sharing(5)
        };
        check(&room(asked), &[expect]);
    }
    let many = room(sharing(70));
    let cluster = cluster(&many);
    let Work::Trials(members) = &plan(&cluster, NOW)[0].work else {
        panic!("a task");
    };
    assert_eq!(members.len(), 64);
}

#[test]
fn what_failed_to_start_several_times_in_a_row_is_started_alone() {
    let mut house = House::sharing();
    let a = house.joins("a", 1);
    let id = house.submits(grid(3, ""));
    for wait in [1_000, 2_000, 4_000] {
        let lease = house.only_lease();
        assert_eq!(house.members(&lease), [1, 2, 3]);
        let fault = Fault::new(Code::MissingProgram, "gone");
        house.exits(&lease, Outcome::NotStarted { fault });
        assert_eq!(house.trial(id, 2).share_limit, None);
        house.passes(wait, &[a]);
    }
    assert_eq!(house.members(&house.only_lease()), [1]);
}
