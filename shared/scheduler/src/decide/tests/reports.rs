//! Reports count once, with the current generation, from the lease's own worker (S3, S4).

use crate::Event;
use crate::testing::{House, checkpoint, crashed, grid, observed};
use pomona_domain::change::Change;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::lease::{Generation, Lease};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::trial::TrialState;
use pomona_domain::{Code, ExperimentId};
use std::collections::BTreeMap;

fn one_trial() -> (House, ExperimentId, Lease) {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let lease = house.only_lease();
    (house, id, lease)
}

fn observations(house: &House) -> usize {
    let is = |change: &&Change| matches!(change, Change::Observed(_));
    house.last.iter().filter(is).count()
}

#[test]
fn a_poll_that_comes_twice_counts_once() {
    let (mut house, id, lease) = one_trial();
    let trial = house.trial(id, 1).id;
    let report = house.report(&lease, observed(trial, 10, 0.5));
    let event = house.poll(lease.slots[0].worker, vec![report]);
    house.tell(&event);
    assert_eq!(observations(&house), 1);
    assert_eq!(
        house
            .cluster
            .worker(lease.slots[0].worker)
            .unwrap()
            .acked_seq,
        1
    );
    house.tell(&event);
    assert_eq!(house.last, Vec::new());
}

#[test]
fn reports_of_one_poll_count_in_their_order_and_each_once() {
    let (mut house, id, lease) = one_trial();
    let trial = house.trial(id, 1).id;
    let first = house.report(&lease, observed(trial, 10, 0.5));
    let second = house.report(&lease, observed(trial, 20, 0.7));
    let reports = vec![second.clone(), first.clone(), second];
    let event = house.poll(lease.slots[0].worker, reports);
    house.tell(&event);
    assert_eq!(observations(&house), 2);
    assert_eq!(house.trial(id, 1).last_step, 20);
}

#[test]
fn a_step_that_was_seen_is_ignored_and_acknowledged() {
    let (mut house, id, lease) = one_trial();
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 20, 0.5);
    for step in [20, 10] {
        house.observes(&lease, trial, step, 0.9);
        assert_eq!(observations(&house), 0);
    }
    let row = house.trial(id, 1);
    assert_eq!((row.last_step, row.latest["val/accuracy"]), (20, 0.5));
    assert_eq!(
        house
            .cluster
            .worker(lease.slots[0].worker)
            .unwrap()
            .acked_seq,
        3
    );
}

#[test]
fn the_first_observation_may_be_of_step_zero() {
    let (mut house, id, lease) = one_trial();
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 0, 0.5);
    assert_eq!(observations(&house), 1);
    house.observes(&lease, trial, 0, 0.5);
    assert_eq!(observations(&house), 0);
}

#[test]
fn the_best_point_of_the_curve_is_kept_with_its_metrics() {
    let (mut house, id, lease) = one_trial();
    let trial = house.trial(id, 1).id;
    for (step, accuracy, loss) in [
        (10, 0.5, 0.9),
        (20, 0.7, 0.8),
        (30, 0.7, 0.6),
        (40, 0.6, 0.1),
    ] {
        let metrics = [("val/accuracy", accuracy), ("val/loss", loss)];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value));
        house.says(
            &lease,
            ReportBody::Observed {
                trial,
                step,
                epoch: 1,
                metrics: BTreeMap::from(metrics),
                confusion: vec![vec![1, 0], vec![0, 1]],
            },
        );
    }
    let best = house.trial(id, 1).best.unwrap();
    assert_eq!((best.step, best.value, best.tie), (30, 0.7, 0.6));
    assert_eq!(house.trial(id, 1).latest["val/loss"], 0.1);
}

#[test]
fn older_generations_are_fenced() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let id = house.submits(grid(1, ""));
    let old = house.only_lease();
    let trial = house.trial(id, 1).id;
    house.observes(&old, trial, 10, 0.5);
    let b = house.joins("b", 1);
    house.passes(30_001, &[b]);
    let new = house.only_lease();
    assert!(new.generation > old.generation && new.slots[0].worker == b);
    // The worker that was cut off has trained on and says so now.
    for body in [
        observed(trial, 20, 0.9),
        checkpoint(trial, CheckpointKind::Last, 20),
        ReportBody::Exited {
            outcome: Outcome::Finished,
        },
    ] {
        house.says(&old, body);
    }
    let row = house.trial(id, 1);
    assert_eq!(
        (row.last_step, row.state),
        (10, TrialState::Running { lease: new.id })
    );
    assert!(
        house
            .cluster
            .checkpoint(trial, CheckpointKind::Last)
            .is_none()
    );
    assert_eq!(house.cluster.worker(a).unwrap().acked_seq, 4);
}

#[test]
fn only_the_worker_of_a_lease_may_report_of_it() {
    let (mut house, id, lease) = one_trial();
    let b = house.joins("b", 1);
    let trial = house.trial(id, 1).id;
    let mut report = house.report(&lease, observed(trial, 10, 0.5));
    let event = house.poll(b, vec![report.clone()]);
    house.tell(&event);
    assert_eq!(observations(&house), 0);
    report.generation = Generation(lease.generation.0 + 1);
    let event = house.poll(lease.slots[0].worker, vec![report]);
    house.tell(&event);
    assert_eq!(observations(&house), 0);
}

#[test]
fn a_trial_reports_only_of_itself() {
    let mut house = House::new();
    house.joins("a", 2);
    let id = house.submits(grid(2, ""));
    let first = house.lease_of(id, 1);
    let other = house.trial(id, 2).id;
    house.observes(&first, other, 10, 0.5);
    house.keeps(&first, other, CheckpointKind::Best, 10);
    assert_eq!(house.trial(id, 2).last_step, 0);
    assert!(
        house
            .cluster
            .checkpoint(other, CheckpointKind::Best)
            .is_none()
    );
}

#[test]
fn a_number_that_is_none_fails_the_trial_and_nothing_after_it_counts() {
    let (mut house, id, lease) = one_trial();
    let trial = house.trial(id, 1).id;
    let bodies = [
        observed(trial, 10, 0.5),
        observed(trial, 20, f64::NAN),
        checkpoint(trial, CheckpointKind::Last, 20),
        observed(trial, 30, 0.9),
    ];
    let reports: Vec<_> = bodies
        .into_iter()
        .map(|body| house.report(&lease, body))
        .collect();
    let event = house.poll(lease.slots[0].worker, reports);
    house.tell(&event);
    assert_eq!(observations(&house), 1);
    let TrialState::Failed { fault } = house.state(id, 1) else {
        panic!("{:?}", house.state(id, 1));
    };
    assert_eq!(fault.code, Code::NotANumber);
    assert!(matches!(house.standing(id), ExperimentState::Failed { .. }));
    assert!(house.generations().is_empty());
}

#[test]
fn checkpoints_only_grow_and_a_repeat_is_ignored() {
    let (mut house, id, lease) = one_trial();
    let trial = house.trial(id, 1).id;
    let kept = |house: &House| {
        let row = house.cluster.checkpoint(trial, CheckpointKind::Last);
        row.map(|row| row.step)
    };
    for (step, then) in [(10, 10), (10, 10), (30, 30), (20, 30)] {
        house.keeps(&lease, trial, CheckpointKind::Last, step);
        assert_eq!(kept(&house), Some(then));
    }
    assert!(
        house
            .cluster
            .checkpoint(trial, CheckpointKind::Best)
            .is_none()
    );
}

#[test]
fn what_was_resolved_at_the_first_start_stays() {
    let (mut house, id, lease) = one_trial();
    let started = |threads: &str| ReportBody::Started {
        environment: BTreeMap::from([("threads".to_owned(), threads.to_owned())]),
    };
    house.says(&lease, started("2"));
    let at = house.now;
    house.exits(&lease, crashed("gone"));
    house.passes(1_000, &[lease.slots[0].worker]);
    let again = house.only_lease();
    house.says(&again, started("4"));
    let row = house.trial(id, 1);
    assert_eq!(
        (row.environment["threads"].as_str(), row.started_at),
        ("2", Some(at))
    );
}

#[test]
fn an_unknown_worker_or_process_is_told_to_register() {
    let (mut house, _, lease) = one_trial();
    let worker = lease.slots[0].worker;
    let poll = |worker, incarnation| Event::Polled {
        worker,
        incarnation,
        running: Vec::new(),
        reports: Vec::new(),
        evidence: Vec::new(),
    };
    assert_eq!(house.refused(&poll(worker, 7)), Code::UnknownWorker);
    let nobody = crate::testing::worker_id("nobody");
    assert_eq!(house.refused(&poll(nobody, 1)), Code::UnknownWorker);
}
