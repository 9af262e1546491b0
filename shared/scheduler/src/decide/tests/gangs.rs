//! Leases on several workers: all of it or nothing, and one decision when it ends.

use crate::testing::{House, crashed, grid, observed};
use crate::{Event, unplaceable};
use pomona_domain::change::Subject;
use pomona_domain::lease::{Lease, Rendezvous, StopKind};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::{Code, ExperimentId, Fault, WorkerId};

const FOUR: &str = "resources: {slots_per_trial: 4}";

/// A trial of four slots on two workers: that of rank 0, the other one.
fn gang(rest: &str) -> (House, ExperimentId, Lease, [WorkerId; 2]) {
    let mut house = House::new();
    house.joins_on("a", 2, "x");
    house.joins_on("b", 2, "x");
    let id = house.submits(grid(1, &format!("{FOUR}\n{rest}")));
    let lease = house.lease_of(id, 1);
    let workers = lease.workers();
    (house, id, lease, [workers[0], workers[1]])
}

fn exited(outcome: Outcome) -> ReportBody {
    ReportBody::Exited { outcome }
}

fn lost_a_peer() -> Outcome {
    Outcome::Failed {
        fault: Fault::new(Code::RankLost, "a peer is gone"),
        retry: true,
    }
}

#[test]
fn a_trial_gets_slots_of_two_workers_and_ends_when_both_have() {
    let (mut house, id, lease, [lead, other]) = gang("");
    assert_eq!(lease.slots.len(), 4);
    let trial = house.trial(id, 1).id;
    house.says(&lease, observed(trial, 10, 0.5));
    house.says_on(other, &lease, exited(Outcome::Finished));
    // Rank 0 may have more to do.
    assert_eq!(house.lease(lease.id).stop(), None);
    assert_eq!(house.cluster.leases_of(other).count(), 0);
    house.says(&lease, observed(trial, 20, 0.7));
    assert_eq!(house.trial(id, 1).last_step, 20);
    house.says_on(lead, &lease, exited(Outcome::Finished));
    assert_eq!(house.state(id, 1).name(), "completed");
    assert_eq!(house.cluster.leases().count(), 0);
}

#[test]
fn only_the_worker_of_rank_0_speaks_for_the_trial_and_says_where_ranks_meet() {
    let (mut house, id, lease, [lead, other]) = gang("");
    let trial = house.trial(id, 1).id;
    house.says_on(other, &lease, observed(trial, 10, 0.5));
    assert!(house.trial(id, 1).latest.is_empty());
    let at = |port| Rendezvous {
        host: "h".to_owned(),
        port,
    };
    house.says_on(other, &lease, ReportBody::Meets { at: at(1) });
    assert_eq!(house.lease(lease.id).meets_at, None);
    house.says_on(lead, &lease, ReportBody::Meets { at: at(2) });
    house.says_on(lead, &lease, ReportBody::Meets { at: at(3) });
    assert_eq!(house.lease(lease.id).meets_at, Some(at(2)));
}

#[test]
fn a_crash_of_one_part_ends_the_other_and_counts_once() {
    let (mut house, id, lease, [lead, other]) = gang("max_restarts: 2");
    house.says_on(lead, &lease, exited(lost_a_peer()));
    assert_eq!(house.state(id, 1).name(), "running");
    assert_eq!(house.lease(lease.id).stop(), Some(StopKind::Kill));
    assert_eq!(house.reasons().len(), 1, "{:?}", house.reasons());
    house.says_on(other, &lease, exited(crashed("boom")));
    let row = house.trial(id, 1);
    assert_eq!((row.state.name(), row.restarts), ("waiting", 1));
    let said = house.reasons().join("; ");
    assert!(said.contains("boom"), "the culprit is told: {said}");
    // A late copy of a part's words is nothing.
    house.says_on(lead, &lease, exited(crashed("again")));
    assert_eq!(house.trial(id, 1).restarts, 1);
}

#[test]
fn the_loss_of_one_worker_is_no_attempt_even_if_its_peers_complain_first() {
    let (mut house, id, lease, [lead, other]) = gang("max_restarts: 0");
    house.says_on(lead, &lease, exited(lost_a_peer()));
    house.passes(31_000, &[lead]);
    let row = house.trial(id, 1);
    assert_eq!((row.state.name(), row.restarts), ("waiting", 0));
    assert_eq!(house.cluster.leases().count(), 0);
    // Both are back: it is leased again as a whole.
    let event = house.poll(other, Vec::new());
    house.tell(&event);
    house.passes(1_000, &[lead, other]);
    let again = house.lease_of(id, 1);
    assert!(again.is_wide() && again.generation > lease.generation);
}

#[test]
fn slots_are_free_only_when_every_part_is_over() {
    let (mut house, id, lease, [lead, other]) = gang("");
    house.registers_again("b", 2);
    let small = house.submits(grid(2, "share: off"));
    let row = house.lease(lease.id);
    assert_eq!(row.stop(), Some(StopKind::Kill));
    assert!(
        house
            .cluster
            .trials_of(small)
            .all(|trial| trial.lease().is_none())
    );
    let left = if row.is_open_on(lead) { lead } else { other };
    house.says_on(left, &lease, exited(Outcome::Killed));
    assert_eq!(house.trial(id, 1).restarts, 0);
    assert!(house.cluster.leases().count() > 0);
}

#[test]
fn what_never_answers_is_revoked_and_what_broke_counts() {
    let (mut house, id, lease, [lead, other]) = gang("max_restarts: 2");
    house.says_on(other, &lease, exited(crashed("boom")));
    house.passes(20_000, &[lead, other]);
    house.passes(11_000, &[lead, other]);
    assert_eq!(house.trial(id, 1).restarts, 1);
    assert_eq!(house.cluster.leases().count(), 0);
}

#[test]
fn a_drain_of_one_worker_makes_the_whole_yield() {
    let (mut house, id, lease, [lead, other]) = gang("");
    house.tell(&Event::Drain {
        worker: other,
        grace_ms: 0,
    });
    assert_eq!(house.lease(lease.id).stop(), Some(StopKind::Checkpoint));
    house.says_on(lead, &lease, exited(Outcome::Stopped));
    assert_eq!(house.state(id, 1).name(), "stopping");
    house.says_on(other, &lease, exited(Outcome::Stopped));
    assert_eq!(house.state(id, 1).name(), "waiting");
    let spec = house.experiment(id).spec;
    let fault = unplaceable(&house.cluster, &spec).expect("one worker is not enough");
    assert_eq!(
        fault.message,
        "a trial asks for 4 slots, the largest worker has 2"
    );
}

#[test]
fn both_places_are_told() {
    let (house, id, _, _) = gang("");
    let said = house.explains(Subject::Trial(house.trial(id, 1).id));
    assert!(said.starts_with("it runs on worker `"), "{said}");
    assert!(said.contains("slots 0, 1 and worker `"), "{said}");
}
