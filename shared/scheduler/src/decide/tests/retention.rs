//! Which checkpoints stay when an experiment has ended. R6 is checked after every decision.

use crate::event::Ended;
use crate::testing::{House, grid};
use crate::{Event, Recalled};
use pomona_domain::change::Change;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::model::ModelFile;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::task::{TaskResult, TaskSpec};
use pomona_domain::trial::Trial;
use pomona_domain::{Code, Digest, ExperimentId, TaskId, TrialId};
use proptest::prelude::*;
use std::collections::BTreeMap;

const KINDS: [CheckpointKind; 2] = [CheckpointKind::Last, CheckpointKind::Best];

/// A grid of which every trial measured something and has both checkpoints; all but the last have
/// ended. Values fall with the number, but for the last.
fn almost_over(trials: u32, rest: &str) -> (House, ExperimentId) {
    let mut house = House::new();
    house.joins("a", trials as usize);
    let id = house.submits(grid(trials, rest));
    for number in 1..=trials {
        let lease = house.lease_of(id, number);
        let trial = house.trial(id, number).id;
        house.observes(&lease, trial, 10, 1.0 - f64::from(number) / 100.0);
        for kind in KINDS {
            house.keeps(&lease, trial, kind, 10);
        }
        if number < trials {
            house.exits(&lease, Outcome::Finished);
        }
    }
    (house, id)
}

fn ends(house: &mut House, id: ExperimentId, trials: u32) {
    let lease = house.lease_of(id, trials);
    house.exits(&lease, Outcome::Finished);
    assert!(house.experiment(id).is_ended());
}

/// Numbers of trials and the kinds that they lost in the last decision.
fn lost(house: &House, id: ExperimentId, trials: u32) -> Vec<(u32, CheckpointKind)> {
    let mut lost: Vec<_> = (house.last.iter())
        .filter_map(|change| {
            let Change::CheckpointDeleted(trial, kind) = change else {
                return None;
            };
            let number = (1..=trials).find(|number| house_id(id, *number) == *trial)?;
            Some((number, *kind))
        })
        .collect();
    lost.sort_unstable();
    lost
}

fn house_id(id: ExperimentId, number: u32) -> TrialId {
    TrialId::derive(&id.to_string(), u64::from(number))
}

fn pin(trial: TrialId, pinned: bool) -> Event {
    Event::Pin {
        trial,
        pinned,
        ended: None,
    }
}

fn both(numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, CheckpointKind)> {
    let each = |number| KINDS.map(|kind| (number, kind));
    numbers.into_iter().flat_map(each).collect()
}

#[test]
fn the_best_trials_keep_their_checkpoints_and_the_others_say_why_they_do_not() {
    let (mut house, id) = almost_over(4, "retention: {best: 2}");
    assert!(
        house
            .cluster
            .checkpoint(house_id(id, 3), CheckpointKind::Best)
            .is_some()
    );
    ends(&mut house, id, 4);
    assert_eq!(lost(&house, id, 4), both([3, 4]));
    let reasons = house.reasons();
    let told = "deleted its last checkpoint at step 10 and its best checkpoint at step 10 (2 B): it \
                is not among the best 2 trials of its experiment";
    assert!(reasons.iter().any(|text| text == told), "{reasons:#?}");
    let told = "deleted checkpoints of 2 trials (4 B in all), as `retention` says";
    assert!(reasons.iter().any(|text| text == told), "{reasons:#?}");
    let row = house.trial(id, 3);
    let why = "it is not among the best 2 trials of its experiment";
    assert_eq!(row.deleted.as_deref(), Some(why));
}

#[test]
fn a_file_may_keep_all_none_or_only_the_best_one_of_each() {
    for (rest, expect) in [
        ("", both([6])),
        ("retention: {best: all}", Vec::new()),
        ("retention: {best: 0}", both(1..=6)),
        (
            "retention: {best: all, last: false}",
            (1..=6).map(|n| (n, CheckpointKind::Last)).collect(),
        ),
    ] {
        let (mut house, id) = almost_over(6, rest);
        ends(&mut house, id, 6);
        assert_eq!(lost(&house, id, 6), expect, "{rest}");
    }
}

#[test]
fn what_never_measured_anything_ranks_last_and_its_only_checkpoint_counts_as_the_best() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, "retention: {best: 1, last: false}"));
    let (lease, trial) = (house.only_lease(), house_id(id, 1));
    house.keeps(&lease, trial, CheckpointKind::Last, 10);
    house.exits(&lease, Outcome::Finished);
    assert_eq!(lost(&house, id, 1), []);
}

/// The rows of an ended trial, as a handler reads them.
fn rows(house: &House, trial: Trial, checkpoints: &[Checkpoint]) -> Box<Ended> {
    assert!(house.cluster.trial(trial.id).is_none(), "it has ended");
    let checkpoints = checkpoints.to_vec();
    Box::new(Ended { trial, checkpoints })
}

#[test]
fn a_pin_keeps_what_would_go_and_an_end_of_it_lets_go() {
    let (mut house, id) = almost_over(3, "retention: {best: 1}");
    let trial = house_id(id, 3);
    house.tell(&pin(trial, true));
    assert!(house.trial(id, 3).pinned);
    house.tell(&pin(trial, true));
    assert_eq!(house.last, [], "it is pinned already");
    let held: Vec<Checkpoint> = KINDS
        .iter()
        .filter_map(|kind| house.cluster.checkpoint(trial, *kind).cloned())
        .collect();
    ends(&mut house, id, 3);
    assert_eq!(lost(&house, id, 3), both([2]));
    let row = house.trial(id, 3);
    assert!(row.expendable && row.deleted.is_none());
    let gone = house.trial(id, 2);
    assert_eq!(
        house.refused(&pin(trial, false)),
        Code::NotFound,
        "rows must come along"
    );
    let event = Event::Pin {
        trial,
        pinned: false,
        ended: Some(rows(&house, row, &held)),
    };
    house.tell(&event);
    assert_eq!(lost(&house, id, 3), both([3]));
    assert!(!house.trial(id, 3).pinned);
    let event = Event::Pin {
        trial: gone.id,
        pinned: true,
        ended: Some(rows(&house, gone, &[])),
    };
    assert_eq!(
        house.refused(&event),
        Code::CheckpointDeleted,
        "there is nothing to pin"
    );
}

fn publish(id: TaskId, trial: TrialId) -> Event {
    Event::TaskSubmitted {
        id,
        spec: TaskSpec::Publish {
            model: "m".to_owned(),
            trial,
            alias: None,
        },
        priority: 60,
    }
}

#[test]
fn what_a_version_was_made_of_and_what_is_being_published_stays() {
    let (mut house, id) = almost_over(4, "retention: {best: 0}");
    for (task, number) in [(1, 1), (2, 2)] {
        house.tell(&publish(TaskId(task), house_id(id, number)));
    }
    let lease = (house.cluster.leases())
        .find(|lease| lease.work == pomona_domain::lease::Work::Task(TaskId(1)))
        .cloned()
        .unwrap();
    let result = TaskResult::Published {
        files: vec![ModelFile {
            path: "model".to_owned(),
            sha256: Digest([3; 32]).hex(),
            size: 1,
        }],
        metrics: BTreeMap::new(),
        confusion: Vec::new(),
        predictions: Vec::new(),
        outcomes: None,
    };
    let task = TaskId(1);
    let result = Box::new(result);
    house.says(&lease, ReportBody::Result { task, result });
    ends(&mut house, id, 4);
    assert_eq!(lost(&house, id, 4), both([3, 4]));
    let reasons = house.reasons();
    for holder in ["a version was made of them", "they are being published"] {
        let told = format!("its checkpoints stay although its experiment has ended: {holder}");
        assert!(reasons.contains(&told), "{reasons:#?}");
    }
    // A restart forgets none of it.
    house.restarts();
    assert!(house.cluster.is_published(&Digest::of(
        format!("{} Best 10", house_id(id, 1)).as_bytes()
    )));
}

#[test]
fn what_was_deleted_is_not_published_whenever_its_rows_were_read() {
    let (mut house, id) = almost_over(2, "retention: {best: 0}");
    let read = |house: &House, number| Recalled {
        experiment: house.experiment(id),
        trial: house.trial(id, number),
        checkpoint: (house.cluster)
            .checkpoint(house_id(id, number), CheckpointKind::Best)
            .cloned(),
    };
    let before = read(&house, 1);
    ends(&mut house, id, 2);
    let after = read(&house, 1);
    house.cluster.recall(before);
    let event = publish(TaskId(1), house_id(id, 1));
    assert_eq!(house.refused(&event), Code::Conflict);
    house.cluster.recall(after);
    assert_eq!(house.refused(&event), Code::CheckpointDeleted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is measured, pinned and kept: those that stay are the pinned ones and the best, and
    /// nothing is deleted that R6 keeps.
    #[test]
    fn of_any_experiment_the_best_and_the_pinned_stay(
        values in proptest::collection::vec((0u32..4, any::<bool>(), any::<bool>()), 1..8),
        best in proptest::option::of(0u32..5),
    ) {
        let count = values.len() as u32;
        let rest = match best {
            Some(best) => format!("retention: {{best: {best}}}"),
            None => "retention: {best: all}".to_owned(),
        };
        let mut house = House::new();
        house.joins("a", values.len());
        let id = house.submits(grid(count, &rest));
        let leases: Vec<_> = (1..=count).map(|number| house.lease_of(id, number)).collect();
        for (at, (value, pinned, fails)) in values.iter().enumerate() {
            let (lease, trial) = (&leases[at], house_id(id, at as u32 + 1));
            house.observes(lease, trial, 10, f64::from(*value));
            for kind in KINDS {
                house.keeps(lease, trial, kind, 10);
            }
            if *pinned {
                house.tell(&pin(trial, true));
            }
            let fault = pomona_domain::Fault::new(Code::NotANumber, "it diverged");
            let outcome = if *fails {
                Outcome::Failed { fault, retry: false }
            } else {
                Outcome::Finished
            };
            house.exits(lease, outcome);
        }
        prop_assert!(house.experiment(id).is_ended());
        let mut order: Vec<u32> = (1..=count).collect();
        order.sort_by_key(|number| {
            let (value, _, fails) = values[*number as usize - 1];
            (fails, std::cmp::Reverse(value), *number)
        });
        let kept = best.map_or(values.len(), |best| best as usize);
        let mut gone: Vec<u32> = order.into_iter().skip(kept).collect();
        gone.retain(|number| !values[*number as usize - 1].1);
        gone.sort_unstable();
        prop_assert_eq!(lost(&house, id, count), both(gone));
    }
}
