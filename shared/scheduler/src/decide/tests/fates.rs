//! What becomes of a trial when its lease ends: the table of states and causes, and what follows.

use crate::decide::lease::Cause;
use crate::decide::trial::{Company, Fate, fate};
use crate::testing::{House, crashed, grid};
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::report::Outcome;
use pomona_domain::trial::{AfterStop, Trial, TrialState};
use pomona_domain::{Code, Fault, LeaseId, Timestamp};
use std::fmt::Write as _;

fn causes() -> Vec<(&'static str, Outcome)> {
    let fault = || Fault::new(Code::TrainerCrashed, "gone");
    let failed = |retry| Outcome::Failed {
        fault: fault(),
        retry,
    };
    vec![
        ("finished", Outcome::Finished),
        ("stopped", Outcome::Stopped),
        ("killed", Outcome::Killed),
        ("failed, retry", failed(true)),
        ("failed for good", failed(false)),
        ("crashed", Outcome::Crashed { fault: fault() }),
        (
            "over its time limit",
            Outcome::Crashed {
                fault: Fault::new(Code::TimeLimit, "too long"),
            },
        ),
        ("not started", Outcome::NotStarted { fault: fault() }),
    ]
}

fn name(fate: &Fate) -> String {
    match fate {
        Fate::Fails(fault) => format!("fails {}", fault.code),
        Fate::Stays => "stays".to_owned(),
        Fate::Waits => "waits".to_owned(),
        Fate::Retries => "waits, an attempt is counted".to_owned(),
        Fate::BacksOff => "waits after a back-off".to_owned(),
        Fate::Completes => "is completed".to_owned(),
        Fate::Pauses => "is paused".to_owned(),
        Fate::IsCanceled => "is canceled".to_owned(),
    }
}

fn fates_of(row: &Trial, company: Company) -> Vec<(&'static str, String)> {
    let causes = causes();
    let of = |cause| {
        let fate = fate(row, 2, cause, company);
        match company.halved(cause) {
            Some(limit) if matches!(fate, Fate::Waits | Fate::Pauses) => {
                format!("{}, then shares with {} others", name(&fate), limit - 1)
            }
            Some(_) | None => name(&fate),
        }
    };
    let mut fates: Vec<(&str, String)> = (causes.iter())
        .map(|(cause, outcome)| (*cause, of(Cause::Exited(outcome))))
        .collect();
    fates.push(("lost", of(Cause::Lost("gone"))));
    fates.push(("grace over", of(Cause::GraceOver)));
    fates
}

fn write_fates(table: &mut String, fates: &[(&str, String)]) {
    if fates.iter().all(|(_, fate)| *fate == fates[0].1) {
        let _ = writeln!(table, "  {:<20} {}", "whatever happens", fates[0].1);
        return;
    }
    for (cause, fate) in fates {
        let _ = writeln!(table, "  {cause:<20} {fate}");
    }
}

/// The fates that differ from others.
fn write_others(table: &mut String, with: &str, from: &[(&str, String)], fates: &[(&str, String)]) {
    let differ: Vec<_> = fates.iter().filter(|fate| !from.contains(fate)).collect();
    if !differ.is_empty() {
        let _ = writeln!(table, "  {with}");
    }
    for (cause, fate) in differ {
        let _ = writeln!(table, "    {cause:<20} {fate}");
    }
}

/// Every state × every cause, and what differs when the lease was shared; that table is the
/// documentation.
#[test]
fn every_state_and_cause() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let fresh = house.trial(id, 1);
    let lease = LeaseId(1);
    let at = Timestamp(1);
    let fault = Fault::new(Code::TrainerCrashed, "gone");
    let measured = |mut row: Trial| {
        row.latest.insert("val/loss".to_owned(), 1.0);
        row
    };
    let stopping = |then| TrialState::Stopping { lease, then };
    let on = |state: TrialState| Trial {
        state,
        ..fresh.clone()
    };
    let rows = [
        ("running", on(TrialState::Running { lease })),
        (
            "running, no restart left",
            Trial {
                restarts: 2,
                ..on(TrialState::Running { lease })
            },
        ),
        ("stopping to wait", on(stopping(AfterStop::Waiting))),
        ("stopping to pause", on(stopping(AfterStop::Paused))),
        ("stopping to cancel", on(stopping(AfterStop::Canceled))),
        (
            "stopping, with a result",
            measured(on(stopping(AfterStop::Completed))),
        ),
        ("stopping, without one", on(stopping(AfterStop::Completed))),
        (
            "waiting",
            on(TrialState::Waiting {
                since: at,
                not_before: at,
            }),
        ),
        ("paused", on(TrialState::Paused)),
        ("completed", on(TrialState::Completed)),
        ("failed", on(TrialState::Failed { fault })),
        ("canceled", on(TrialState::Canceled)),
    ];
    let shared = Company {
        others: 4,
        is_late: false,
    };
    let late = Company {
        is_late: true,
        ..shared
    };
    let mut table = String::new();
    for (state, row) in rows {
        let _ = writeln!(table, "{state}");
        let fates = fates_of(&row, Company::NONE);
        write_fates(&mut table, &fates);
        let among = fates_of(&row, shared);
        write_others(&mut table, "shared with 4 others", &fates, &among);
        let late = fates_of(&row, late);
        write_others(&mut table, "and its own time is over", &among, &late);
    }
    insta::assert_snapshot!(table);
}

#[test]
fn crashes_back_off_twice_as_long_each_time_and_resume_from_the_checkpoint() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = house.submits(grid(1, "max_restarts: 3"));
    let trial = house.trial(id, 1).id;
    let first = house.only_lease();
    house.keeps(&first, trial, CheckpointKind::Last, 10);
    for (restarts, wait) in [(1, 1_000), (2, 2_000), (3, 4_000)] {
        let lease = house.only_lease();
        house.exits(&lease, crashed("gone"));
        assert_eq!(house.trial(id, 1).restarts, restarts);
        let TrialState::Waiting { not_before, .. } = house.state(id, 1) else {
            panic!("{:?}", house.state(id, 1));
        };
        assert_eq!(not_before.since_ms(house.now), wait);
        house.passes(wait - 1, &[a]);
        assert_eq!(house.state(id, 1).name(), "waiting");
        house.passes(1, &[a]);
        assert_eq!(house.state(id, 1).name(), "running");
    }
    assert!(
        house
            .cluster
            .checkpoint(trial, CheckpointKind::Last)
            .is_some()
    );
    let lease = house.only_lease();
    house.exits(&lease, crashed("gone"));
    let TrialState::Failed { fault } = house.state(id, 1) else {
        panic!("{:?}", house.state(id, 1));
    };
    assert_eq!(fault.code, Code::RestartsExhausted);
    assert_eq!(fault.message, "it crashed 4 times, the last time: gone");
}

#[test]
fn the_longest_back_off_is_the_limit() {
    let config = crate::Config::default();
    let waits: Vec<i64> = [0, 1, 2, 9, 10, 50, u32::MAX]
        .map(|n| config.backoff_ms(n))
        .to_vec();
    assert_eq!(
        waits,
        [1_000, 1_000, 2_000, 256_000, 300_000, 300_000, 300_000]
    );
}

#[test]
fn what_cannot_start_is_tried_elsewhere_and_costs_no_attempt() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, "max_restarts: 0"));
    let mut waits = Vec::new();
    for _ in 0..3 {
        let lease = house.only_lease();
        let fault = Fault::new(Code::MissingProgram, "no trainer");
        house.exits(&lease, Outcome::NotStarted { fault });
        let TrialState::Waiting { not_before, .. } = house.state(id, 1) else {
            panic!("{:?}", house.state(id, 1));
        };
        let wait = not_before.since_ms(house.now);
        waits.push(wait);
        if waits.len() == 3 {
            break;
        }
        house.passes(wait, &[crate::testing::worker_id("a")]);
    }
    assert_eq!(waits, [1_000, 2_000, 4_000]);
    assert_eq!(house.trial(id, 1).restarts, 0);
    let said = house.explains(Subject::Worker(crate::testing::worker_id("a")));
    assert!(said.contains("work fails to start there"), "{said}");
    let b = house.joins("b", 3);
    house.passes(4_000, &[b, crate::testing::worker_id("a")]);
    // `a` would leave no slot free and be preferred, were it not in doubt.
    assert_eq!(house.only_lease().slots[0].worker, b);
}

#[test]
fn a_lost_worker_costs_no_attempt_and_time_on_slots_adds_up() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = house.submits(grid(1, "max_restarts: 0\ntime_limit: 60s"));
    let trial = house.trial(id, 1).id;
    assert_eq!(house.cluster.time_left_ms(trial), Some(60_000));
    house.passes(10_000, &[a]);
    house.passes(30_000, &[]);
    assert_eq!(house.state(id, 1).name(), "running");
    house.passes(1, &[]);
    assert_eq!(house.state(id, 1).name(), "waiting");
    assert_eq!(house.trial(id, 1).restarts, 0);
    assert_eq!(house.trial(id, 1).active_ms, 40_001);
    assert_eq!(house.cluster.time_left_ms(trial), Some(19_999));
    assert!(house.generations().is_empty());
}

#[test]
fn an_exit_and_the_next_lease_are_one_decision() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(2, ""));
    let first = house.only_lease();
    house.exits(&first, Outcome::Finished);
    assert_eq!(house.state(id, 2).name(), "running");
    assert!(house.only_lease().generation > first.generation);
}
