//! Each invariant is shown to notice what breaks it: a whole cluster, one row bent.

use super::{check, r2, r4, r5, r6, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10};
use crate::testing::{House, checkpoint, grid, observed};
use crate::{Cluster, Config, Event};
use pomona_domain::change::Change;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::lease::{EndKind, Generation, Lease, LeaseState, SlotRef, Work};
use pomona_domain::metric::Observation;
use pomona_domain::model::{Actor, Alias, AliasMove, Lineage, Origin, Registration};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::snapshot::Snapshot;
use pomona_domain::spec::Share;
use pomona_domain::trial::{AfterStop, TrialState};
use pomona_domain::worker::WorkerState;
use pomona_domain::{Digest, ExperimentId, LeaseId, TrialId};
use std::collections::BTreeMap;

/// Two workers of two slots; a gang of two runs, a second waits for its only free slot.
fn house() -> (House, ExperimentId) {
    let mut house = House::new();
    house.joins("a", 2);
    house.joins("b", 1);
    let id = house.submits(grid(2, "resources: {slots_per_trial: 2}"));
    (house, id)
}

/// The cluster with one thing changed.
fn bent(house: &House, bend: impl Fn(&mut Snapshot)) -> Cluster {
    let mut rows = house.cluster.snapshot();
    bend(&mut rows);
    let mut cluster = Cluster::restore(rows, Config::default(), house.now);
    for worker in house.cluster.workers() {
        cluster.touch(worker.id, house.now);
    }
    cluster
}

fn found(verdict: Result<(), String>, number: &str) {
    let said = verdict.expect_err(number);
    assert_eq!(said.split(' ').next(), Some(number), "{said}");
}

fn another(lease: &Lease) -> Lease {
    Lease {
        id: LeaseId(lease.id.0 ^ 1),
        generation: Generation(lease.generation.0 + 1),
        ..lease.clone()
    }
}

#[test]
fn a_whole_cluster_breaks_none() {
    let (house, _) = house();
    assert_eq!(check(&house.cluster), Ok(()));
    assert_eq!(s8(&house.cluster, house.now), Ok(()));
    assert_eq!(s10(&house.cluster, &house.cluster.snapshot()), Ok(()));
}

#[test]
fn s1_sees_a_slot_in_two_leases_and_s2_a_trial_on_two() {
    let (house, _) = house();
    let twice = bent(&house, |rows| {
        let second = another(&rows.leases[0]);
        rows.leases.push(second);
    });
    found(s1(&twice), "S1");
    found(s2(&twice), "S2");
    found(check(&twice), "S1");
}

#[test]
fn s3_sees_what_counts_without_a_report_of_the_current_lease() {
    let (mut house, id) = house();
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    let kept = |generation, step| {
        Change::Checkpoint(Checkpoint {
            trial,
            kind: CheckpointKind::Last,
            generation,
            step,
            epoch: 1,
            digest: Digest([1; 32]),
            size: 1,
            at: house.now,
        })
    };
    let current = kept(lease.generation, 10);
    let older = kept(Generation(lease.generation.0 - 1), 10);
    let unsaid = kept(lease.generation, 20);
    let report = house.report(&lease, checkpoint(trial, CheckpointKind::Last, 10));
    let event = house.poll(lease.slots[0].worker, vec![report]);
    let before = &house.cluster;
    assert_eq!(s3(before, &event, std::slice::from_ref(&current)), Ok(()));
    for change in [older, unsaid] {
        found(s3(before, &event, &[change]), "S3");
    }
    found(
        s3(before, &Event::Tick, std::slice::from_ref(&current)),
        "S3",
    );
    let mut over = lease.clone();
    over.state = LeaseState::Ended {
        at: house.now,
        reason: "gone".to_owned(),
        kind: EndKind::Neutral,
    };
    let silent = house.poll(lease.slots[0].worker, Vec::new());
    found(s3(before, &silent, &[Change::Lease(Box::new(over))]), "S3");
    // Counted before: its number is acknowledged, and stays so.
    house.tell(&event);
    let mut worker = house
        .cluster
        .worker(lease.slots[0].worker)
        .cloned()
        .unwrap();
    worker.acked_seq = 0;
    found(
        s3(&house.cluster, &event, &[Change::Worker(Box::new(worker))]),
        "S3",
    );
    found(s3(&house.cluster, &event, &[current]), "S3");
}

#[test]
fn s4_sees_a_step_that_does_not_grow() {
    let (mut house, id) = house();
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 10, 0.5);
    let at = |step| {
        Change::Observed(Observation {
            trial,
            generation: lease.generation,
            step,
            epoch: 1,
            at: house.now,
            metrics: BTreeMap::new(),
            confusion: Vec::new(),
        })
    };
    assert_eq!(s4(&house.cluster, &[at(11), at(12)]), Ok(()));
    found(s4(&house.cluster, &[at(10)]), "S4");
    found(s4(&house.cluster, &[at(12), at(11)]), "S4");
}

#[test]
fn s5_sees_half_a_gang_and_slots_of_two_workers() {
    let (house, _) = house();
    let other = house
        .cluster
        .worker(crate::testing::worker_id("b"))
        .unwrap()
        .id;
    let half = bent(&house, |rows| rows.leases[0].slots.truncate(1));
    found(s5(&half), "S5");
    let spread = bent(&house, |rows| {
        rows.leases[0].slots[1] = SlotRef {
            worker: other,
            index: 0,
        };
    });
    found(s5(&spread), "S5");
    let unknown = bent(&house, |rows| rows.leases[0].slots[1].index = 7);
    found(s5(&unknown), "S5");
}

/// Four trials on two leases of two.
fn shared() -> (House, ExperimentId) {
    let mut house = House::sharing();
    house.joins("a", 2);
    let id = house.submits(grid(4, "transfer: {frozen_depth: all}"));
    assert_eq!(house.cluster.leases().count(), 2);
    (house, id)
}

#[test]
fn s5_sees_trials_that_may_not_share() {
    let (house, _) = shared();
    assert_eq!(check(&house.cluster), Ok(()));
    for bend in [
        |rows: &mut Snapshot| rows.experiments[0].spec.share = Share::Off,
        |rows: &mut Snapshot| rows.backbones.clear(),
        |rows: &mut Snapshot| rows.trials[0].share_limit = Some(1),
        |rows: &mut Snapshot| {
            let path = "transfer.frozen_depth".to_owned();
            rows.trials[0].hparams.0.insert(path, 1.into());
        },
        |rows: &mut Snapshot| {
            let Work::Trials(members) = &mut rows.leases[0].work else {
                panic!("a task");
            };
            members.push(TrialId(7));
        },
    ] {
        let bent = bent(&house, bend);
        found(s5(&bent), "S5");
    }
    let (mut house, _) = shared();
    house.joins("b", 1);
    let other = house.submits(grid(1, ""));
    let foreign = house.trial(other, 1).id;
    let mixed = bent(&house, |rows| {
        let Work::Trials(members) = &mut rows.leases[0].work else {
            panic!("a task");
        };
        members.push(foreign);
    });
    found(s5(&mixed), "S5");
}

#[test]
fn a_trial_that_left_a_lease_may_be_on_a_newer_one() {
    let (mut house, id) = shared();
    let old = house.lease_of(id, 1);
    let trial = house.trial(id, 1).id;
    house.joins("b", 1);
    house.says(
        &old,
        ReportBody::TrialEnded {
            trial,
            outcome: Outcome::Stopped,
        },
    );
    let new = house.lease_of(id, 1);
    assert!(house.lease(old.id).is_live() && new.generation > old.generation);
    assert_eq!(s2(&house.cluster), Ok(()));
    let back = bent(&house, |rows| {
        let row = rows.trials.iter_mut().find(|row| row.id == trial).unwrap();
        row.state = TrialState::Running { lease: old.id };
    });
    found(s2(&back), "S2");
}

#[test]
fn what_a_member_says_after_its_end_is_not_valid() {
    let (mut house, id) = shared();
    let lease = house.lease_of(id, 1);
    let (trial, other) = (house.trial(id, 1).id, house.trial(id, 2).id);
    let end = ReportBody::TrialEnded {
        trial,
        outcome: Outcome::Finished,
    };
    let bodies = [
        observed(trial, 10, 0.5),
        end.clone(),
        observed(trial, 20, 0.5),
        end,
        observed(other, 10, 0.5),
    ];
    let reports: Vec<_> = (bodies.into_iter())
        .map(|body| house.report(&lease, body))
        .collect();
    let event = house.poll(lease.slots[0].worker, reports);
    assert_eq!(valid(&house, &event), [1, 2, 5]);
    house.tell(&event);
    // Nor is it in a later poll.
    let late = house.report(&lease, checkpoint(trial, CheckpointKind::Last, 20));
    let event = house.poll(lease.slots[0].worker, vec![late]);
    assert!(valid(&house, &event).is_empty());
}

#[test]
fn s7_sees_a_member_that_does_not_stop_with_the_others() {
    let (house, _) = shared();
    let lease = house.cluster.leases().next().unwrap().clone();
    let deaf = bent(&house, |rows| {
        let row = (rows.trials.iter_mut()).find(|row| row.lease() == Some(lease.id));
        row.unwrap().state = TrialState::Stopping {
            lease: lease.id,
            then: AfterStop::Waiting,
        };
    });
    found(s7(&deaf), "S7");
}

#[test]
fn s6_sees_an_ended_trial_that_moves() {
    let (mut house, id) = house();
    let other = house.trial(id, 2);
    house.tell(&Event::StopTrial(other.id));
    let change = Change::Trial(Box::new(other));
    found(s6(&house.cluster, std::slice::from_ref(&change)), "S6");
    let running = Change::Trial(Box::new(house.trial(id, 1)));
    assert_eq!(s6(&house.cluster, &[running]), Ok(()));
}

#[test]
fn s6_lets_nothing_of_an_ended_trial_change_but_what_becomes_of_its_checkpoints() {
    let (mut house, id) = house();
    let trial = house.trial(id, 2).id;
    house.tell(&Event::StopTrial(trial));
    let mut row = house.trial(id, 2);
    row.version += 1;
    row.pinned = true;
    row.deleted = Some("nobody kept them".to_owned());
    let change = Change::Trial(Box::new(row.clone()));
    assert_eq!(s6(&house.cluster, &[change]), Ok(()));
    row.last_step += 1;
    found(s6(&house.cluster, &[Change::Trial(Box::new(row))]), "S6");
}

#[test]
fn r6_sees_a_checkpoint_go_that_is_wanted() {
    let (mut house, id) = house();
    let lease = house.lease_of(id, 1);
    let trial = house.trial(id, 1).id;
    house.keeps(&lease, trial, CheckpointKind::Best, 10);
    let gone = Change::CheckpointDeleted(trial, CheckpointKind::Best);
    found(
        r6(&house.cluster, &Event::Tick, std::slice::from_ref(&gone)),
        "R6",
    );
    let mut row = house.trial(id, 1);
    row.state = TrialState::Completed;
    let mut owner = house.experiment(id);
    owner.state = pomona_domain::experiment::ExperimentState::Canceled;
    let owner = Change::Experiment(Box::new(owner));
    let all = |row: &pomona_domain::trial::Trial| {
        let row = Change::Trial(Box::new(row.clone()));
        [owner.clone(), row, gone.clone()]
    };
    assert_eq!(r6(&house.cluster, &Event::Tick, &all(&row)), Ok(()));
    found(r6(&house.cluster, &Event::Tick, &all(&row)[1..]), "R6");
    row.pinned = true;
    found(r6(&house.cluster, &Event::Tick, &all(&row)), "R6");
}

#[test]
fn s7_sees_a_trial_without_a_lease_and_a_lease_without_a_trial() {
    let (house, id) = house();
    let trial = house.trial(id, 1).id;
    let row = move |rows: &mut Snapshot, state: &TrialState| {
        let row = rows.trials.iter_mut().find(|row| row.id == trial).unwrap();
        row.state = state.clone();
    };
    let lonely = bent(&house, |rows| rows.leases.clear());
    found(s7(&lonely), "S7");
    let idle = bent(&house, |rows| row(rows, &TrialState::Paused));
    found(s7(&idle), "S7");
    let lease = house.only_lease().id;
    let then = AfterStop::Paused;
    let unasked = bent(&house, |rows| {
        row(rows, &TrialState::Stopping { lease, then });
    });
    found(s7(&unasked), "S7");
    let shared = bent(&house, |rows| rows.generation = Generation(0));
    assert_eq!(
        s7(&shared),
        Ok(()),
        "apply never goes below a lease's generation"
    );
}

#[test]
fn s8_sees_what_could_have_been_placed() {
    let (house, _) = house();
    let room = bent(&house, |rows| {
        let slots = rows.workers[0].slots.clone();
        for row in &mut rows.workers {
            row.slots = [slots.clone(), row.slots.clone()].concat();
            for (index, slot) in row.slots.iter_mut().enumerate() {
                slot.index = u32::try_from(index).unwrap();
            }
        }
    });
    found(s8(&room, house.now), "S8");
}

#[test]
fn s9_sees_too_many_trials_made_and_live() {
    let (house, _) = house();
    let forgotten = bent(&house, |rows| rows.experiments[0].created_trials = 1);
    found(s9(&forgotten), "S9");
    let many = bent(&house, |rows| {
        rows.experiments[0].spec.search.max_trials = 1;
    });
    found(s9(&many), "S9");
    let live = bent(&house, |rows| {
        rows.experiments[0].spec.search.max_concurrent = 0;
    });
    found(s9(&live), "S9");
}

#[test]
fn s10_names_what_differs() {
    let (house, _) = house();
    let mut rows = house.cluster.snapshot();
    rows.workers[0].state = WorkerState::Lost;
    rows.generation = Generation(9);
    let said = s10(&house.cluster, &rows);
    assert_eq!(
        said,
        Err("S10 memory and store differ in workers, the generation".to_owned())
    );
}

#[test]
fn r2_sees_an_alias_to_nowhere() {
    let (house, _) = house();
    let nowhere = bent(&house, |rows| {
        rows.aliases.push(Alias {
            model: "m".to_owned(),
            alias: "champion".to_owned(),
            number: 1,
            revision: 1,
            deleted: false,
        });
    });
    found(r2(&nowhere), "R2");
}

#[test]
fn r4_and_r5_see_a_version_and_a_move_out_of_nothing() {
    let (mut house, id) = house();
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    house.keeps(&lease, trial, CheckpointKind::Best, 10);
    let lineage = house.cluster.source(trial).unwrap().lineage().unwrap();
    let mut version = pomona_domain::model::Version {
        id: pomona_domain::VersionId(1),
        model: "m".to_owned(),
        number: 1,
        digest: Digest([1; 32]),
        files: Vec::new(),
        origin: Origin::Trained(lineage.clone()),
        metrics: BTreeMap::new(),
        gates: Vec::new(),
        created_at: house.now,
    };
    let made =
        |version: &pomona_domain::model::Version| [Change::Version(Box::new(version.clone()))];
    assert_eq!(r4(&house.cluster, &made(&version)), Ok(()));
    version.origin = Origin::Trained(Lineage {
        trial: TrialId(7),
        ..lineage
    });
    found(r4(&house.cluster, &made(&version)), "R4");
    version.origin = Origin::Registered(Registration::default());
    found(r4(&house.cluster, &made(&version)), "R4");
    let moved = |from, revision, reason: &str| {
        Change::AliasMoved(AliasMove {
            model: "m".to_owned(),
            alias: "champion".to_owned(),
            from,
            to: 1,
            revision,
            at: house.now,
            reason: reason.to_owned(),
            deleted: false,
            by: Actor::default(),
        })
    };
    assert_eq!(
        r5(
            &house.cluster,
            &[moved(None, 1, "x"), moved(Some(1), 2, "x")]
        ),
        Ok(())
    );
    for wrong in [
        moved(Some(1), 1, "x"),
        moved(None, 2, "x"),
        moved(None, 1, ""),
    ] {
        found(r5(&house.cluster, &[wrong]), "R5");
    }
}

#[test]
fn a_report_after_the_one_that_ends_its_lease_is_not_valid() {
    let (mut house, id) = house();
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    let exit = ReportBody::Exited {
        outcome: Outcome::Stopped,
    };
    let reports: Vec<_> = [observed(trial, 10, 0.5), exit, observed(trial, 20, 0.5)]
        .into_iter()
        .map(|body| house.report(&lease, body))
        .collect();
    let event = house.poll(lease.slots[0].worker, reports);
    assert_eq!(valid(&house, &event), [1, 2]);
}

/// The numbers of the reports that may count.
fn valid(house: &House, event: &Event) -> Vec<u64> {
    let reports = super::counted::valid_reports(&house.cluster, event);
    reports.iter().map(|report| report.seq).collect()
}
