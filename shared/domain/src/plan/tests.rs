//! What is counted and how it reads.

use super::*;
use crate::lease::{Generation, LeaseState, SlotRef};
use crate::{LeaseId, TaskId, TrialId, WorkerId};

fn lease(slots: u32, work: Work) -> Lease {
    let slot = |index| SlotRef {
        worker: WorkerId(1),
        index,
    };
    Lease {
        id: LeaseId(1),
        version: 1,
        generation: Generation(1),
        work,
        slots: (0..slots).map(slot).collect(),
        state: LeaseState::Live,
        granted_at: Timestamp(1_000),
        meets_at: None,
        parts: Vec::new(),
    }
}

#[test]
fn a_lease_counts_once_and_by_its_slots() {
    let one = Work::Trials(vec![TrialId(1)]);
    let three = Work::Trials(vec![TrialId(1), TrialId(2), TrialId(3)]);
    for (lease, until, expect) in [
        (lease(1, one.clone()), 3_500, (2_500, 1, 0)),
        (lease(2, one.clone()), 3_500, (5_000, 1, 0)),
        (lease(1, three), 3_500, (2_500, 1, 1)),
        (lease(1, Work::Task(TaskId(1))), 2_000, (1_000, 1, 0)),
        // A clock that went back costs nothing.
        (lease(1, one), 500, (0, 1, 0)),
    ] {
        let mut spent = Spent::default();
        assert!(spent.is_nothing());
        spent.add(&lease, Timestamp(until));
        let found = (spent.slot_ms, spent.leases, spent.shared_leases);
        assert_eq!(found, expect, "{lease:?}");
        assert!(!spent.is_nothing());
    }
}

#[test]
fn what_was_spent_is_a_sentence() {
    for ((slot_ms, leases, shared_leases), expect) in [
        (
            (23_400, 4, 2),
            "23.4 slot-seconds in 4 leases, 2 of them shared",
        ),
        ((1_000, 1, 1), "1.0 slot-seconds in 1 lease, a shared one"),
        ((1_000, 1, 0), "1.0 slot-seconds in 1 lease"),
        ((0, 0, 0), "no lease"),
        ((1_000, 3, 0), "1.0 slot-seconds in 3 leases"),
        ((36_000_000, 3, 0), "10.0 slot-hours in 3 leases"),
    ] {
        let spent = Spent {
            slot_ms,
            leases,
            shared_leases,
        };
        assert_eq!(spent.sentence(), expect);
    }
}

#[test]
fn a_saving_that_nobody_would_notice_is_not_told() {
    let plan = |multiply_adds, multiply_adds_unshared| Plan {
        samples: 0,
        multiply_adds,
        multiply_adds_unshared,
        frozen_images: 0,
        frozen_images_unshared: 0,
        feature_budget_bytes: None,
        parallel: Parallel::Trials,
        parallel_reason: String::new(),
        advice: Vec::new(),
        cuts: Vec::new(),
        depths: Vec::new(),
    };
    assert_eq!(
        plan(1_200, 8_000).cost(),
        "1.2 k multiply-adds instead of 8.0 k (6.7 times less)"
    );
    assert_eq!(plan(1_000, 1_099).cost(), "1.0 k multiply-adds");
    assert_eq!(plan(0, 0).cost(), "0 multiply-adds");
}
