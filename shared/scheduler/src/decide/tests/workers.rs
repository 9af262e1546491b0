//! Workers come, beat, drain, vanish and come back.

use crate::Event;
use crate::testing::{House, crashed, grid, worker_id};
use pomona_domain::change::Subject;
use pomona_domain::lease::LeaseState;
use pomona_domain::report::Outcome;
use pomona_domain::task::TaskSpec;
use pomona_domain::trial::{AfterStop, TrialState};
use pomona_domain::worker::{SlotKind, WorkerState};
use pomona_domain::{Code, Digest, TaskId, WorkerId};

fn standing(house: &House, id: WorkerId) -> WorkerState {
    house.cluster.worker(id).unwrap().state
}

#[test]
fn the_same_introduction_again_changes_nothing() {
    let mut house = House::new();
    house.joins("a", 2);
    house.joins("a", 2);
    assert_eq!(house.last, Vec::new());
}

#[test]
fn another_process_means_that_nothing_it_ran_lives() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, "max_restarts: 0"));
    let old = house.only_lease();
    house.registers("a", 2, &[SlotKind::Cpu]);
    let new = house.only_lease();
    assert!(new.generation > old.generation);
    assert_eq!(house.trial(id, 1).restarts, 0);
    assert_eq!(house.trial(id, 1).leases, 2);
}

#[test]
fn the_same_process_keeps_its_leases_when_it_registers_again() {
    let mut house = House::new();
    house.joins("a", 1);
    house.submits(grid(1, ""));
    let lease = house.only_lease();
    house.registers("a", 1, &[SlotKind::Cpu, SlotKind::Cpu]);
    assert_eq!(house.only_lease(), lease);
}

#[test]
fn leases_on_slots_that_are_gone_end() {
    let mut house = House::new();
    house.joins("a", 2);
    let id = house.submits(grid(2, ""));
    house.registers("a", 1, &[SlotKind::Cpu]);
    assert_eq!(house.state(id, 1).name(), "running");
    assert_eq!(house.state(id, 2).name(), "waiting");
}

#[test]
fn a_silent_worker_loses_its_leases_after_a_term_and_is_lost() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    house.passes(30_000, &[]);
    assert_eq!(
        (standing(&house, a), house.state(id, 1).name()),
        (WorkerState::Alive, "running")
    );
    house.passes(1, &[]);
    assert_eq!(
        (standing(&house, a), house.state(id, 1).name()),
        (WorkerState::Lost, "waiting")
    );
    let beat = house.poll(a, Vec::new());
    house.tell(&beat);
    assert_eq!(
        (standing(&house, a), house.state(id, 1).name()),
        (WorkerState::Alive, "running")
    );
}

#[test]
fn a_restart_of_the_coordinator_grants_a_full_term() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    house.now = house.now.plus_ms(3_600_000);
    house.restarts();
    house.passes(30_000, &[]);
    assert_eq!(house.only_lease(), lease);
    house.passes(1, &[]);
    assert_eq!(house.state(id, 1).name(), "waiting");
}

#[test]
fn after_a_restart_a_worker_gets_nothing_new_before_it_is_heard_of() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    house.restarts();
    let id = house.submits(grid(1, ""));
    house.passes(1_000, &[]);
    assert_eq!(house.state(id, 1).name(), "waiting");
    let trial = pomona_domain::change::Subject::Trial(house.trial(id, 1).id);
    let said = house.explains(trial);
    assert_eq!(
        said,
        "it waits: no worker was heard of since the coordinator started"
    );
    house.passes(1_000, &[a]);
    assert_eq!(house.state(id, 1).name(), "running");
    // So is a new process of it.
    house.restarts();
    house.registers("a", 2, &[SlotKind::Cpu]);
    assert_eq!(house.state(id, 1).name(), "running");
}

fn drain(worker: WorkerId, grace_ms: i64) -> Event {
    Event::Drain { worker, grace_ms }
}

#[test]
fn what_runs_on_a_drained_worker_yields_by_checkpoint_and_nothing_new_comes() {
    let mut house = House::new();
    let a = house.joins("a", 2);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    house.tell(&drain(a, 0));
    let then = AfterStop::Waiting;
    let stopping = TrialState::Stopping {
        lease: lease.id,
        then,
    };
    assert_eq!(house.state(id, 1), stopping);
    let said = house.explains(Subject::Trial(house.trial(id, 1).id));
    assert_eq!(
        said,
        "it was asked to stop on worker `a`, slot 0, because the worker drains, and will wait for \
         another lease; it is revoked in 30 s"
    );
    // To say it again changes nothing.
    house.tell(&drain(a, 0));
    assert_eq!(house.last, Vec::new());
    house.exits(&lease, Outcome::Stopped);
    let row = house.trial(id, 1);
    assert_eq!((row.state.name(), row.restarts), ("waiting", 0));
    let said = house.explains(Subject::Trial(row.id));
    assert_eq!(said, "it waits: every worker drains and takes nothing new");
    house.tell(&Event::Undrain(a));
    assert_eq!(standing(&house, a), WorkerState::Alive);
    assert_eq!(house.state(id, 1).name(), "running");
    house.tell(&Event::Undrain(a));
    assert_eq!(house.last, Vec::new());
}

#[test]
fn a_deadline_lets_what_runs_go_on_until_it_is_over() {
    let mut house = House::new();
    let a = house.joins("a", 2);
    let id = house.submits(grid(1, ""));
    house.tell(&drain(a, 10_000));
    let late = house.submits(grid(1, ""));
    house.passes(9_999, &[a]);
    assert_eq!(house.state(id, 1).name(), "running");
    assert_eq!(house.state(late, 1).name(), "waiting");
    let said = house.explains(Subject::Worker(a));
    assert!(
        said.ends_with("it gets nothing new; what runs there yields in 0.0 s"),
        "{said}"
    );
    house.passes(1, &[a]);
    assert_eq!(house.state(id, 1).name(), "stopping");
}

#[test]
fn tasks_on_a_drained_worker_end_first() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = TaskId(1);
    house.tell(&Event::TaskSubmitted {
        id,
        spec: TaskSpec::ImportBackbone {
            name: "r".to_owned(),
            arch: "resnet18".to_owned(),
            weights: Digest([1; 32]),
        },
        priority: 60,
    });
    house.tell(&drain(a, 0));
    assert_eq!(house.only_lease().state, LeaseState::Live);
}

#[test]
fn a_drain_outlives_silence_and_not_the_process() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    house.tell(&drain(a, 0));
    house.passes(30_001, &[]);
    assert_eq!(standing(&house, a), WorkerState::Lost);
    let poll = house.poll(a, Vec::new());
    house.tell(&poll);
    assert_eq!(standing(&house, a), WorkerState::Draining);
    // Its process keeps draining when it registers again; a new process does not.
    house.registers("a", 1, &[SlotKind::Cpu; 3]);
    assert_eq!(standing(&house, a), WorkerState::Draining);
    house.registers("a", 2, &[SlotKind::Cpu; 3]);
    assert_eq!(standing(&house, a), WorkerState::Alive);
}

#[test]
fn only_a_worker_that_beats_is_drained() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let nobody = worker_id("nobody");
    assert_eq!(house.refused(&drain(nobody, 0)), Code::NotFound);
    assert_eq!(house.refused(&Event::Undrain(nobody)), Code::NotFound);
    house.passes(30_001, &[]);
    assert_eq!(house.refused(&drain(a, 0)), Code::WrongState);
}

#[test]
fn a_crash_casts_no_doubt_on_the_worker() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let b = house.joins("b", 4);
    // The tighter fit is `a`.
    house.submits(grid(1, ""));
    assert_eq!(house.only_lease().slots[0].worker, a);
    let lease = house.only_lease();
    house.exits(&lease, crashed("gone"));
    // A crash is the trial's, not the worker's.
    house.passes(1_000, &[a, b]);
    assert_eq!(house.only_lease().slots[0].worker, a);
}

#[test]
fn generations_grow_over_restarts_even_when_no_lease_is_live() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    house.submits(grid(1, ""));
    let old = house.only_lease();
    house.exits(&old, pomona_domain::report::Outcome::Finished);
    assert!(house.generations().is_empty());
    house.restarts();
    house.passes(0, &[a]);
    house.submits(grid(1, ""));
    assert!(house.only_lease().generation > old.generation);
}
