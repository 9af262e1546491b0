//! What is let in, and what refuses it.

use crate::testing::{House, grid, spec};
use crate::{Config, Event, unplaceable};
use pomona_domain::policy::{Policy, Pool, Project};
use pomona_domain::worker::SlotKind;
use pomona_domain::{Code, Digest, ExperimentId};
use std::collections::BTreeMap;

fn labels(zone: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("zone".to_owned(), zone.to_owned())])
}

fn pool(name: &str, slots: u32, zone: &str, max_workers: u32) -> Pool {
    Pool {
        name: name.to_owned(),
        slots,
        kind: SlotKind::Cuda,
        labels: labels(zone),
        max_workers,
    }
}

fn house(pools: Vec<Pool>) -> House {
    let projects = vec![Project {
        name: "small".to_owned(),
        weight: 1,
        quota_slots: Some(2),
    }];
    House::with(Config {
        policy: Policy { projects, pools },
        ..Config::default()
    })
}

fn submitted(rest: &str) -> Event {
    Event::Submitted {
        id: ExperimentId(77),
        spec: Box::new(spec(rest)),
        source: String::new(),
        dataset: Some(Digest([1; 32])),
        backbone: Some(Digest([2; 32])),
        plan: None,
    }
}

/// What a file is told where worker `a` has two slots in zone `x`.
fn told(pools: Vec<Pool>, rest: &str) -> String {
    let mut house = house(pools);
    house.joins_in("a", 2, "x");
    match house.decide(&submitted(rest)) {
        Ok(()) => "let in".to_owned(),
        Err(fault) => format!("{}: {fault}", fault.code),
    }
}

const FOUR: &str = "resources: {slots_per_trial: 4}";

#[test]
fn what_no_worker_or_pool_could_ever_run_is_refused_with_what_each_lacks() {
    let wide = "no worker or pool could ever run a trial of 4 slots";
    for (pools, rest, expect) in [
        (vec![], "", "let in".to_owned()),
        (
            vec![],
            FOUR,
            format!("E0301: {wide}: worker `a` has 2 slots of a kind"),
        ),
        (vec![pool("p", 4, "y", 1)], FOUR, "let in".to_owned()),
        (vec![pool("p", 1, "y", 4)], FOUR, "let in".to_owned()),
        (
            vec![pool("p", 1, "y", 3)],
            FOUR,
            format!(
                "E0301: {wide}: worker `a` has 2 slots of a kind; a worker of pool `p` has 1 slot, \
                 and there are at most 3"
            ),
        ),
        (
            vec![pool("p", 4, "y", 0), pool("q", 3, "y", 1)],
            FOUR,
            format!(
                "E0301: {wide}: worker `a` has 2 slots of a kind; pool `p` is closed; a worker of \
                 pool `q` has 3 slots"
            ),
        ),
        (
            vec![pool("p", 4, "y", 1)],
            "resources: {slots_per_trial: 4, selector: {zone: z}}",
            format!(
                "E0301: {wide} where zone=z: worker `a` has other labels; workers of pool `p` have \
                 other labels"
            ),
        ),
        (
            vec![],
            "resources: {selector: {zone: [z, x]}}",
            "let in".to_owned(),
        ),
        (
            vec![],
            "resources: {selector: {zone: x, disk: ssd}}",
            "E0301: no worker or pool could ever run a trial of 1 slot where disk=ssd, zone=x: \
             worker `a` has other labels"
                .to_owned(),
        ),
    ] {
        assert_eq!(told(pools, rest), expect, "{rest}");
    }
}

#[test]
fn workers_that_are_alike_count_together() {
    let mut house = house(Vec::new());
    house.joins_on("a", 2, "x");
    house.joins_on("b", 1, "x");
    house.joins_on("c", 2, "y");
    let fault = house
        .decide(&submitted(FOUR))
        .expect_err("three are not four");
    assert_eq!(
        fault.message,
        "no worker or pool could ever run a trial of 4 slots: worker `a` has 2 slots of a kind; \
         worker `c` has 2 slots of a kind; worker `b` has 1 slot of a kind; 3 slots of all workers \
         are alike"
    );
    house.joins_on("d", 2, "y");
    house.tell(&submitted(FOUR));
}

#[test]
fn a_long_list_of_what_lacks_is_cut() {
    let pools = (0..9).map(|n| pool(&format!("p{n}"), 1, "y", 1)).collect();
    let said = told(pools, FOUR);
    assert!(said.ends_with("pool `p3` has 1 slot; and 5 more"), "{said}");
}

#[test]
fn a_quota_that_never_lets_a_trial_run_refuses_it() {
    let said = told(
        vec![pool("p", 4, "y", 1)],
        &format!("project: small\n{FOUR}"),
    );
    assert_eq!(
        said,
        "E0307: a trial asks for 4 slots, and project `small` may hold 2 at once"
    );
    assert_eq!(told(vec![], "project: small"), "let in");
}

#[test]
fn where_nothing_is_known_nothing_is_refused() {
    let mut house = house(Vec::new());
    house.tell(&submitted(FOUR));
}

#[test]
fn a_worker_that_is_lost_or_drains_may_come_back() {
    let mut house = house(Vec::new());
    let a = house.joins("a", 4);
    house.tell(&Event::Drain {
        worker: a,
        grace_ms: 0,
    });
    house.submits(grid(1, FOUR));
    house.passes(40_000, &[]);
    house.submits(grid(1, FOUR));
}

#[test]
fn what_waits_for_a_pool_says_for_which() {
    let mut house = house(vec![pool("p", 4, "y", 1)]);
    house.joins_in("a", 2, "x");
    for (rest, message) in [
        (FOUR, "a trial asks for 4 slots, the largest worker has 2"),
        (
            "resources: {selector: {zone: y}}",
            "no worker has the labels it selects (zone=y)",
        ),
    ] {
        let fault = unplaceable(&house.cluster, &spec(rest)).expect("it waits");
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (Code::Unplaceable, message)
        );
        let hint = "it starts when a worker of pool `p` joins";
        assert_eq!(fault.hint.as_deref(), Some(hint));
    }
}
