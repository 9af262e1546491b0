//! Order of service: priority, aging, fair share, quotas.

use crate::testing::{House, grid, worker_id};
use crate::{Config, Event};
use pomona_domain::ExperimentId;
use pomona_domain::change::Subject;
use pomona_domain::policy::{Policy, Project};
use pomona_domain::report::Outcome;
use pomona_domain::trial::Trial;

const MINUTE_MS: i64 = 60_000;

fn project(name: &str, weight: u32, quota_slots: Option<u32>) -> Project {
    Project {
        name: name.to_owned(),
        weight,
        quota_slots,
    }
}

fn house(projects: Vec<Project>) -> House {
    House::with(Config {
        policy: Policy {
            projects,
            pools: Vec::new(),
        },
        preempt_gap: 0,
        ..Config::default()
    })
}

/// How many trials of each experiment run.
fn running(house: &House, of: &[ExperimentId]) -> Vec<usize> {
    let live = |id: &ExperimentId| {
        let trials = house.cluster.trials_of(*id);
        trials.filter(|row| row.lease().is_some()).count()
    };
    of.iter().map(live).collect()
}

fn explained(house: &House, id: ExperimentId, number: u32) -> String {
    house.explains(Subject::Trial(house.trial(id, number).id))
}

#[test]
fn projects_of_equal_priority_share_by_weight() {
    for (slots, weights, expect) in [
        (6, (1, 1), [3, 3]),
        (6, (2, 1), [4, 2]),
        (6, (1, 2), [2, 4]),
        (8, (3, 1), [6, 2]),
        (2, (9, 1), [1, 1]),
    ] {
        let mut house = house(vec![
            project("p", weights.0, None),
            project("q", weights.1, None),
        ]);
        // Nothing runs yet, so that both wait when the slots come.
        let ids = ["p", "q"].map(|name| house.submits(grid(9, &format!("project: {name}"))));
        house.joins("a", slots);
        assert_eq!(
            running(&house, &ids),
            expect,
            "{slots} slots, weights {weights:?}"
        );
    }
}

#[test]
fn a_project_that_comes_late_gets_the_next_slots_until_it_has_its_part() {
    let mut house = house(Vec::new());
    house.joins("a", 4);
    let first = house.submits(grid(12, "project: p"));
    let late = house.submits(grid(12, "project: q"));
    assert_eq!(running(&house, &[first, late]), [4, 0]);
    let said = explained(&house, first, 9);
    assert_eq!(
        said,
        "it waits: all 4 slots are busy; `e` is served first (project `q` holds 0 slots and `p` 4, \
         for their weights 1 and 1)"
    );
    for expect in [[3, 1], [2, 2], [2, 2]] {
        let runs = house.cluster.trials_of(first).find_map(Trial::lease);
        let lease = house.lease(runs.expect("it runs"));
        house.exits(&lease, Outcome::Finished);
        assert_eq!(running(&house, &[first, late]), expect);
    }
}

#[test]
fn trials_that_may_share_use_no_more_leases_than_the_quota_allows() {
    let mut house = House::sharing_with(Config {
        policy: Policy {
            projects: vec![project("p", 1, Some(1))],
            pools: Vec::new(),
        },
        ..Config::default()
    });
    house.joins("a", 4);
    house.submits(grid(8, "project: p"));
    let lease = house.only_lease();
    assert_eq!(house.members(&lease), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn priority_goes_before_fair_share() {
    let mut house = house(vec![project("p", 1, None), project("q", 99, None)]);
    let low = house.submits(grid(4, "project: q\npriority: 50"));
    let high = house.submits(grid(4, "project: p\npriority: 51"));
    house.joins("a", 5);
    assert_eq!(running(&house, &[low, high]), [1, 4]);
}

#[test]
fn a_quota_bounds_what_a_project_holds_and_says_so() {
    let mut house = house(vec![project("p", 1, Some(3))]);
    house.joins("a", 8);
    let ids = [
        house.submits(grid(4, "project: p\nresources: {slots_per_trial: 2}")),
        house.submits(grid(4, "project: p")),
        house.submits(grid(2, "project: q")),
    ];
    assert_eq!(running(&house, &ids), [1, 1, 2]);
    assert_eq!(
        explained(&house, ids[0], 2),
        "it waits: project `p` holds 3 of the 3 slots that its quota allows"
    );
    let lease = house.lease_of(ids[1], 1);
    house.exits(&lease, Outcome::Finished);
    assert_eq!(
        running(&house, &ids),
        [1, 1, 2],
        "the gang still has no room in the quota"
    );
    let lease = house.lease_of(ids[0], 1);
    house.exits(&lease, Outcome::Finished);
    assert_eq!(running(&house, &ids), [1, 1, 2]);
}

/// One slot, work of priority 70 without end, and an experiment of priority 50.
fn starving() -> (House, ExperimentId) {
    let mut house = house(Vec::new());
    house.joins("a", 1);
    house.submits(grid(200, "priority: 70"));
    let low = house.submits(grid(2, "priority: 50"));
    (house, low)
}

/// The running trial ends after so long.
fn goes_on(house: &mut House, ms: i64) {
    let a = worker_id("a");
    let mut left = ms;
    while left > 0 {
        let step = left.min(20_000);
        house.passes(step, &[a]);
        left -= step;
    }
    let lease = house.only_lease();
    house.exits(&lease, Outcome::Finished);
}

#[test]
fn what_starves_gains_a_point_each_ten_minutes_and_loses_them_with_its_first_slot() {
    let (mut house, low) = starving();
    goes_on(&mut house, 200 * MINUTE_MS);
    assert_eq!(
        running(&house, &[low]),
        [0],
        "equal to 70, and submitted later"
    );
    let said = explained(&house, low, 1);
    assert!(
        said.ends_with("`e` is served first (submitted earlier)"),
        "{said}"
    );
    goes_on(&mut house, 10 * MINUTE_MS);
    assert_eq!(running(&house, &[low]), [1]);
    // Its second trial begins to wait anew.
    goes_on(&mut house, 200 * MINUTE_MS);
    assert_eq!(running(&house, &[low]), [0]);
    let said = explained(&house, low, 2);
    assert!(
        said.ends_with("`e` is served first (priority 70, its own is 50)"),
        "{said}"
    );
}

#[test]
fn time_in_which_it_was_paused_is_no_waiting() {
    let (mut house, low) = starving();
    house.tell(&Event::Pause(low));
    goes_on(&mut house, 300 * MINUTE_MS);
    house.tell(&Event::Resume(low));
    goes_on(&mut house, 10 * MINUTE_MS);
    assert_eq!(running(&house, &[low]), [0]);
}

#[test]
fn a_restart_of_the_coordinator_changes_no_order() {
    let (mut house, low) = starving();
    goes_on(&mut house, 209 * MINUTE_MS);
    house.restarts();
    goes_on(&mut house, MINUTE_MS);
    assert_eq!(running(&house, &[low]), [1]);
}
