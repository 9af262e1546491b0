//! What an experiment has spent: every way a lease ends counts it, and once.

use crate::testing::{House, crashed, grid};
use crate::{Event, running};
use pomona_domain::ExperimentId;
use pomona_domain::lease::Lease;
use pomona_domain::plan::Spent;
use pomona_domain::report::{Outcome, ReportBody};

/// So many trials on one slot, in one lease.
fn house(trials: u32, rest: &str) -> (House, ExperimentId, Lease) {
    let mut house = House::sharing();
    house.joins("a", 1);
    let id = house.submits(grid(trials, rest));
    let lease = house.only_lease();
    (house, id, lease)
}

fn spent(house: &House, id: ExperimentId) -> (u64, u32, u32) {
    let Spent {
        slot_ms,
        leases,
        shared_leases,
    } = house.experiment(id).spent;
    (slot_ms, leases, shared_leases)
}

#[test]
fn a_shared_lease_counts_once_and_not_once_for_each_trial() {
    let (mut house, id, lease) = house(12, "");
    house.now = house.now.plus_ms(5_000);
    assert_eq!(spent(&house, id), (0, 0, 0));
    let so_far = running(&house.cluster, id, house.now).sentence();
    assert_eq!(so_far, "5.0 slot-seconds in 1 lease, a shared one");
    house.exits(&lease, Outcome::Finished);
    assert!(running(&house.cluster, id, house.now).is_nothing());
    assert_eq!(spent(&house, id), (5_000, 1, 1));
    assert_eq!(house.trial(id, 7).active_ms, 5_000);
}

#[test]
fn members_that_leave_count_when_the_last_one_has_left() {
    let (mut house, id, lease) = house(3, "");
    for number in 1..=3 {
        house.now = house.now.plus_ms(1_000);
        assert_eq!(spent(&house, id), (0, 0, 0));
        let body = ReportBody::TrialEnded {
            trial: house.trial(id, number).id,
            outcome: Outcome::Finished,
        };
        house.says(&lease, body);
    }
    assert_eq!(spent(&house, id), (3_000, 1, 1));
}

#[test]
fn every_lease_of_a_trial_counts_by_its_slots() {
    let mut house = House::sharing();
    house.joins("a", 2);
    let rest = "resources: {slots_per_trial: 2}\nmax_restarts: 1";
    let id = house.submits(grid(1, rest));
    for expect in [(2_000, 1, 0), (4_000, 2, 0)] {
        let lease = house.only_lease();
        house.now = house.now.plus_ms(1_000);
        house.exits(&lease, crashed("broken"));
        assert_eq!(spent(&house, id), expect);
        house.passes(10_000, &[crate::testing::worker_id("a")]);
    }
}

#[test]
fn a_lease_counts_however_it_ends() {
    type Act = fn(&mut House, ExperimentId, &Lease);
    let ends: [(&str, Act); 5] = [
        ("canceled", |house, id, _| house.tell(&Event::Cancel(id))),
        ("paused", |house, id, lease| {
            house.tell(&Event::Pause(id));
            house.exits(lease, Outcome::Stopped);
        }),
        ("not started", |house, _, lease| {
            let fault = pomona_domain::Fault::new(pomona_domain::Code::Internal, "no room");
            house.exits(lease, Outcome::NotStarted { fault });
        }),
        ("begun anew", |house, _, _| {
            house.registers("a", 2, &[]);
        }),
        ("stopped", |house, id, lease| {
            for number in [1, 2] {
                let trial = house.trial(id, number).id;
                house.tell(&Event::StopTrial(trial));
            }
            house.exits(lease, Outcome::Stopped);
        }),
    ];
    for (name, act) in ends {
        let (mut house, id, lease) = house(2, "");
        house.now = house.now.plus_ms(2_500);
        act(&mut house, id, &lease);
        assert_eq!(spent(&house, id), (2_500, 1, 1), "{name}");
    }
}

#[test]
fn a_silent_worker_costs_up_to_the_moment_its_leases_are_over() {
    let (mut house, id, _) = house(2, "");
    house.passes(40_000, &[]);
    assert!(house.generations().is_empty());
    assert_eq!(spent(&house, id), (40_000, 1, 1));
    house.restarts();
    assert_eq!(spent(&house, id), (40_000, 1, 1));
}
