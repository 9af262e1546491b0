use super::*;
use pomona_api::v1::workers::DesiredWork;
use pomona_domain::{Digest, TaskId};
use proptest::prelude::*;

fn want(id: u64, generation: u64, slots: &[u32], stop: Option<StopKind>) -> DesiredLease {
    DesiredLease {
        lease: LeaseId(id),
        generation: Generation(generation),
        slots: slots.to_vec(),
        gang: None,
        stop,
        time_left_ms: None,
        work: DesiredWork::ImportBackbone {
            task: TaskId(id),
            arch: "resnet18".into(),
            weights: Digest::of(b"w"),
        },
    }
}

fn here(id: u64, generation: u64, slots: &[u32], phase: Phase) -> Local {
    Local {
        lease: LeaseId(id),
        generation: Generation(generation),
        slots: slots.to_vec(),
        phase,
    }
}

const RUNS: Phase = Phase::Live { stop: None };
const STOPS: Phase = Phase::Live {
    stop: Some(StopKind::Checkpoint),
};
const DIES: Phase = Phase::Live {
    stop: Some(StopKind::Kill),
};
const CHECKPOINT: Option<StopKind> = Some(StopKind::Checkpoint);
const KILL: Option<StopKind> = Some(StopKind::Kill);

/// What is wanted, where it stands, what to do.
type Row<'a> = (Option<Option<StopKind>>, Option<Phase>, &'a [Action]);

#[test]
fn every_pair_of_wish_and_phase() {
    let one = LeaseId(1);
    let table: &[Row<'_>] = &[
        (None, None, &[]),
        (None, Some(RUNS), &[Action::Kill(one)]),
        (None, Some(STOPS), &[Action::Kill(one)]),
        (None, Some(DIES), &[]),
        (None, Some(Phase::Ended), &[]),
        (Some(None), None, &[Action::Start(one)]),
        (Some(None), Some(RUNS), &[]),
        (Some(None), Some(STOPS), &[]),
        (Some(None), Some(DIES), &[]),
        (Some(None), Some(Phase::Ended), &[]),
        (
            Some(CHECKPOINT),
            None,
            &[Action::Decline(one, StopKind::Checkpoint)],
        ),
        (Some(CHECKPOINT), Some(RUNS), &[Action::Stop(one)]),
        (Some(CHECKPOINT), Some(STOPS), &[]),
        (Some(CHECKPOINT), Some(DIES), &[]),
        (Some(CHECKPOINT), Some(Phase::Ended), &[]),
        (Some(KILL), None, &[Action::Decline(one, StopKind::Kill)]),
        (Some(KILL), Some(RUNS), &[Action::Kill(one)]),
        (Some(KILL), Some(STOPS), &[Action::Kill(one)]),
        (Some(KILL), Some(DIES), &[]),
        (Some(KILL), Some(Phase::Ended), &[]),
    ];
    for (wish, phase, expect) in table {
        let desired: Vec<_> = wish.iter().map(|stop| want(1, 1, &[0], *stop)).collect();
        let local: Vec<_> = phase.iter().map(|phase| here(1, 1, &[0], *phase)).collect();
        assert_eq!(&reconcile(&desired, &local), expect, "{wish:?} {phase:?}");
    }
}

#[test]
fn a_new_lease_waits_until_the_old_one_has_left_its_slot() {
    let desired = [want(2, 2, &[0, 1], None)];
    assert_eq!(
        reconcile(&desired, &[here(1, 1, &[1], RUNS)]),
        [Action::Kill(LeaseId(1))]
    );
    assert_eq!(reconcile(&desired, &[here(1, 1, &[1], DIES)]), []);
    assert_eq!(
        reconcile(&desired, &[here(1, 1, &[1], Phase::Ended)]),
        [Action::Start(LeaseId(2))]
    );
}

#[test]
fn two_desired_leases_never_share_a_slot() {
    let desired = [want(1, 1, &[0], None), want(2, 2, &[0, 1], None)];
    assert_eq!(reconcile(&desired, &[]), [Action::Start(LeaseId(1))]);
}

#[test]
fn another_generation_of_the_lease_is_not_the_one_wanted() {
    assert_eq!(
        reconcile(&[want(1, 2, &[0], None)], &[here(1, 1, &[0], RUNS)]),
        [Action::Kill(LeaseId(1))]
    );
}

fn stop() -> impl Strategy<Value = Option<StopKind>> {
    prop_oneof![Just(None), Just(CHECKPOINT), Just(KILL)]
}

proptest! {
    #[test]
    fn asking_again_asks_for_nothing_and_slots_are_never_shared(
        wishes in proptest::collection::btree_map(0u64..6, (proptest::collection::btree_set(0u32..4, 1..3), stop()), 0..6),
        phases in proptest::collection::btree_map(0u64..6, (0u32..4, prop_oneof![Just(RUNS), Just(STOPS), Just(DIES), Just(Phase::Ended)]), 0..4),
    ) {
        let desired: Vec<_> = wishes
            .iter()
            .map(|(id, (slots, stop))| want(*id, 1, &slots.iter().copied().collect::<Vec<_>>(), *stop))
            .collect();
        let mut taken = BTreeSet::new();
        let mut local: Vec<_> = phases
            .iter()
            .filter(|(_, (slot, phase))| *phase == Phase::Ended || taken.insert(*slot))
            .map(|(id, (slot, phase))| here(*id, 1, &[*slot], *phase))
            .collect();
        for action in reconcile(&desired, &local) {
            let asked = |local: &mut Vec<Local>, id, how| {
                let entry: &mut Local = local.iter_mut().find(|l| l.lease == id).unwrap();
                entry.phase = Phase::Live { stop: Some(how) };
            };
            match action {
                Action::Start(id) => {
                    let slots = &desired.iter().find(|d| d.lease == id).unwrap().slots;
                    local.push(here(id.0, 1, slots, RUNS));
                }
                Action::Stop(id) => asked(&mut local, id, StopKind::Checkpoint),
                Action::Kill(id) => asked(&mut local, id, StopKind::Kill),
                Action::Decline(id, _) => local.push(here(id.0, 1, &[], Phase::Ended)),
            }
        }
        prop_assert_eq!(reconcile(&desired, &local), []);
        let mut live = BTreeSet::new();
        for slot in local.iter().filter(|l| l.phase != Phase::Ended).flat_map(|l| &l.slots) {
            prop_assert!(live.insert(*slot), "slot {} twice", slot);
        }
    }
}
