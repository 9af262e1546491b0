//! From the last trial to the alias: publish tasks, gates, aliases, rollback.

use super::tasks::{answers, row, submits};
use crate::gates::{Champion, Evidence, Weighed, weigh};
use crate::testing::{House, crashed, grid};
use crate::{Config, Event, Recalled, RegistryWish};
use pomona_domain::change::Change;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::gate::{Approval, GateFact, Judgement, Role, TestOutcomes, TestUse};
use pomona_domain::model::{
    Actor, AliasMove, Audit, Lineage, ModelFile, Registration, Removal, Version,
};
use pomona_domain::report::Outcome;
use pomona_domain::report::ReportBody;
use pomona_domain::task::{TaskResult, TaskSpec};
use pomona_domain::{Code, Digest, ExperimentId, TaskId, Timestamp, TrialId};
use std::collections::BTreeMap;

const PROMOTE: &str =
    "promote: {model: m, alias: champion, gates: [{metric: test/accuracy, at_least: 0.6}]}";

fn published(accuracy: f64) -> TaskResult {
    with_outcomes(accuracy, None)
}

fn with_outcomes(accuracy: f64, outcomes: Option<TestOutcomes>) -> TaskResult {
    TaskResult::Published {
        files: vec![ModelFile {
            path: "model.safetensors".to_owned(),
            sha256: "0".repeat(64),
            size: 1,
        }],
        metrics: BTreeMap::from([("test/accuracy".to_owned(), accuracy)]),
        confusion: Vec::new(),
        predictions: Vec::new(),
        outcomes: outcomes.map(Box::new),
    }
}

/// One trial, trained and kept, whose experiment is now promoting.
fn promoting(house: &mut House, rest: &str) -> (ExperimentId, TrialId) {
    let id = house.submits(grid(1, rest));
    let lease = house.lease_of(id, 1);
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 10, 0.8);
    house.keeps(&lease, trial, CheckpointKind::Best, 10);
    house.exits(&lease, Outcome::Finished);
    (id, trial)
}

fn task_of(house: &House, id: ExperimentId) -> TaskId {
    let ExperimentState::Promoting { task } = house.standing(id) else {
        panic!("{:?}", house.standing(id));
    };
    task
}

fn version(house: &House) -> Option<&Version> {
    house.last.iter().find_map(|change| {
        if let Change::Version(row) = change {
            Some(&**row)
        } else {
            None
        }
    })
}

fn made_of(version: &Version) -> &Lineage {
    version.trained().expect("a trial of ours")
}

fn moved(house: &House) -> Option<&AliasMove> {
    house.last.iter().find_map(|change| {
        if let Change::AliasMoved(row) = change {
            Some(row)
        } else {
            None
        }
    })
}

#[test]
fn version_alias_and_the_end_of_the_experiment_are_one_decision() {
    let mut house = House::new();
    house.joins("a", 1);
    let (id, trial) = promoting(&mut house, PROMOTE);
    let task = task_of(&house, id);
    answers(&mut house, task, published(0.7));
    assert_eq!(house.standing(id), ExperimentState::Completed);
    let version = version(&house).unwrap();
    assert_eq!(
        (
            version.number,
            made_of(version).trial,
            made_of(version).step
        ),
        (1, trial, 10)
    );
    assert_eq!(version.metrics["test/accuracy"], 0.7);
    assert_eq!(version.metrics["val/accuracy"], 0.8);
    assert!(version.gates.iter().all(|gate| gate.passed));
    let moved = moved(&house).unwrap();
    assert_eq!((moved.from, moved.to, moved.revision), (None, 1, 1));
}

#[test]
fn a_failed_gate_keeps_the_version_and_not_the_alias() {
    let mut house = House::new();
    house.joins("a", 1);
    let (id, _) = promoting(&mut house, PROMOTE);
    let task = task_of(&house, id);
    answers(&mut house, task, published(0.5));
    assert_eq!(house.standing(id), ExperimentState::Completed);
    let version = version(&house).unwrap();
    assert_eq!(
        (version.gates[0].passed, version.gates[0].measured),
        (false, Some(0.5))
    );
    assert_eq!(moved(&house), None);
    assert!(house.cluster.alias("m", "champion").is_none());
}

#[test]
fn a_gate_on_what_was_not_measured_fails() {
    let mut house = House::new();
    house.joins("a", 1);
    let gates =
        "promote: {model: m, alias: champion, gates: [{metric: test/macro_f1, at_most: 1.0}]}";
    let (id, _) = promoting(&mut house, gates);
    let task = task_of(&house, id);
    answers(&mut house, task, published(0.9));
    let version = version(&house).unwrap();
    assert_eq!(
        (version.gates[0].passed, version.gates[0].measured),
        (false, None)
    );
    assert_eq!(moved(&house), None);
}

/// The checkpoint of the best point never came: what it measured is not said of an older one.
#[test]
fn a_version_says_only_what_its_own_checkpoint_measured() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, PROMOTE));
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 10, 0.5);
    house.keeps(&lease, trial, CheckpointKind::Best, 10);
    house.observes(&lease, trial, 20, 0.9);
    house.exits(&lease, Outcome::Finished);
    let task = task_of(&house, id);
    answers(&mut house, task, published(0.7));
    let version = version(&house).unwrap();
    assert_eq!(
        (made_of(version).step, version.metrics.get("val/accuracy")),
        (10, None)
    );
}

#[test]
fn without_a_checkpoint_nothing_is_promoted_and_the_experiment_is_completed() {
    let mut house = House::new();
    house.joins("a", 1);
    let id = house.submits(grid(1, PROMOTE));
    let lease = house.only_lease();
    let trial = house.trial(id, 1).id;
    house.observes(&lease, trial, 10, 0.8);
    house.exits(&lease, Outcome::Finished);
    assert_eq!(house.standing(id), ExperimentState::Completed);
    let said = house.reasons().join("\n");
    assert!(
        said.contains("nothing is promoted: the best trial has no checkpoint"),
        "{said}"
    );
}

#[test]
fn a_promotion_that_breaks_fails_the_experiment() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let (id, _) = promoting(&mut house, PROMOTE);
    for wait in [1_000, 2_000] {
        let lease = house.only_lease();
        house.exits(&lease, crashed("gone"));
        house.passes(wait, &[a]);
    }
    let lease = house.only_lease();
    house.exits(&lease, crashed("gone"));
    assert!(matches!(house.standing(id), ExperimentState::Failed { .. }));
}

#[test]
fn a_promotion_that_is_taken_back_completes_the_experiment() {
    let mut house = House::new();
    house.joins("a", 1);
    let (id, _) = promoting(&mut house, PROMOTE);
    let task = task_of(&house, id);
    assert_eq!(house.refused(&Event::Pause(id)), Code::WrongState);
    assert_eq!(house.refused(&Event::Resume(id)), Code::WrongState);
    house.tell(&Event::TaskCanceled(task));
    assert_eq!(house.standing(id), ExperimentState::Completed);
    assert!(house.generations().is_empty());
}

#[test]
fn cancel_takes_the_promotion_back_too() {
    let mut house = House::new();
    house.joins("a", 1);
    let (id, _) = promoting(&mut house, PROMOTE);
    let task = task_of(&house, id);
    house.tell(&Event::Cancel(id));
    assert_eq!(house.standing(id), ExperimentState::Canceled);
    assert_eq!(row(&house, task).state.name(), "canceled");
    assert!(house.generations().is_empty());
}

#[test]
fn a_trial_is_published_once_it_has_ended_and_has_a_checkpoint() {
    let mut house = House::new();
    house.joins("a", 2);
    let id = house.submits(grid(2, ""));
    let first = house.lease_of(id, 1);
    let trial = house.trial(id, 1).id;
    let publish = |trial| TaskSpec::Publish {
        model: "m".to_owned(),
        trial,
        alias: Some("tried".to_owned()),
    };
    let event = |trial| Event::TaskSubmitted {
        id: TaskId(1),
        spec: publish(trial),
        priority: 60,
    };
    assert_eq!(house.refused(&event(trial)), Code::WrongState);
    assert_eq!(house.refused(&event(TrialId(5))), Code::NotFound);
    house.observes(&first, trial, 10, 0.8);
    house.keeps(&first, trial, CheckpointKind::Best, 10);
    house.exits(&first, Outcome::Finished);
    let second = house.lease_of(id, 2);
    house.exits(&second, crashed("gone"));
    let other = house.trial(id, 2).id;
    house.tell(&Event::StopTrial(other));
    // The experiment has ended and left memory: the engine hands the rows back.
    assert_eq!(house.refused(&event(trial)), Code::NotFound);
}

#[test]
fn rows_of_an_ended_trial_stay_as_long_as_a_publish_task_needs_them() {
    let mut house = House::new();
    house.joins("a", 2);
    let id = house.submits(grid(2, ""));
    let first = house.lease_of(id, 1);
    let trial = house.trial(id, 1).id;
    house.observes(&first, trial, 10, 0.8);
    house.keeps(&first, trial, CheckpointKind::Best, 10);
    house.exits(&first, Outcome::Finished);
    let publish = TaskSpec::Publish {
        model: "m".to_owned(),
        trial,
        alias: None,
    };
    let task = submits(&mut house, 1, publish.clone());
    let second = house.lease_of(id, 2);
    let kept = house
        .cluster
        .checkpoint(trial, CheckpointKind::Best)
        .cloned();
    let trial_row = house.trial(id, 1);
    house.exits(&second, Outcome::Finished);
    let rows = Recalled {
        experiment: house.experiment(id),
        trial: trial_row,
        checkpoint: kept,
    };
    assert!(house.cluster.trial(trial).is_none());
    assert!(house.cluster.source(trial).is_some());
    // A restart has to ask the store for them.
    house.restarts();
    assert_eq!(house.cluster.missing_sources(), [trial]);
    house.cluster.recall(rows.clone());
    answers(&mut house, task, published(0.7));
    assert_eq!(made_of(version(&house).unwrap()).trial, trial);
    assert_eq!(moved(&house), None);
    assert!(house.cluster.source(trial).is_none());
    house.cluster.recall(rows);
    let again = submits(&mut house, 2, publish);
    answers(&mut house, again, published(0.7));
    assert_eq!(version(&house).unwrap().number, 2);
}

fn sets(number: u32, expected_revision: Option<u64>) -> Event {
    Event::AliasSet {
        model: "m".to_owned(),
        alias: "champion".to_owned(),
        number,
        expected_revision,
        reason: "by hand".to_owned(),
        by: Actor::default(),
        evidence: None,
    }
}

/// The same, with what a handler reads.
fn asks(house: &House, number: u32, evidence: Evidence) -> Event {
    let head = house.cluster.alias("m", "champion");
    Event::AliasSet {
        model: "m".to_owned(),
        alias: "champion".to_owned(),
        number,
        expected_revision: None,
        reason: "by hand".to_owned(),
        by: Actor::default(),
        evidence: Some(Box::new(Evidence {
            revision: head.map_or(0, |head| head.revision),
            champion: evidence.champion.clone().or_else(|| {
                head.map(|head| Champion {
                    number: head.number,
                    policy: None,
                })
            }),
            ..evidence
        })),
    }
}

fn nothing() -> Evidence {
    Evidence {
        task: None,
        revision: 0,
        candidate: None,
        champion: None,
        weighed: Weighed::default(),
        approvals: Vec::new(),
        been_there: false,
    }
}

#[test]
fn an_alias_moves_by_compare_and_swap_to_a_version_that_exists() {
    let mut house = House::new();
    house.joins("a", 1);
    assert_eq!(house.refused(&sets(1, None)), Code::NotFound);
    let mut versions = Vec::new();
    for _ in 0..2 {
        let (id, _) = promoting(&mut house, PROMOTE);
        let task = task_of(&house, id);
        answers(&mut house, task, published(0.7));
        versions.push(version(&house).unwrap().clone());
    }
    let first = versions.remove(0);
    let there = |house: &House| {
        let alias = house.cluster.alias("m", "champion").unwrap();
        (alias.number, alias.revision)
    };
    assert_eq!(there(&house), (2, 2));
    assert_eq!(house.refused(&sets(3, None)), Code::NotFound);
    assert_eq!(house.refused(&sets(0, None)), Code::NotFound);
    assert_eq!(house.refused(&sets(1, Some(1))), Code::AliasMoved);
    // Nobody read what its gates need to know: nothing moves.
    assert_eq!(house.refused(&sets(1, Some(2))), Code::NotReady);
    let back_there = Evidence {
        candidate: Some(Box::new(first)),
        been_there: true,
        ..nothing()
    };
    let event = asks(&house, 1, back_there);
    house.tell(&event);
    assert_eq!(there(&house), (1, 3));
    let why = &moved(&house).unwrap().reason;
    assert!(why.contains("it pointed there before"), "{why}");
    house.tell(&sets(1, None));
    assert_eq!(house.last, Vec::new());
    let back = |alias: &str, to| Event::AliasRollback {
        model: "m".to_owned(),
        alias: alias.to_owned(),
        reason: "it was better".to_owned(),
        to,
        by: Actor::default(),
    };
    house.tell(&back("champion", 2));
    assert_eq!(
        (there(&house), moved(&house).unwrap().from),
        ((2, 4), Some(1))
    );
    assert_eq!(house.refused(&back("nobody", 1)), Code::NotFound);
    assert_eq!(house.refused(&back("champion", 9)), Code::NotFound);
}

fn wishes(model: &str, wish: RegistryWish) -> Event {
    Event::Registry {
        model: model.to_owned(),
        wish,
        by: Actor::default(),
    }
}

fn registers() -> Event {
    let wish = RegistryWish::Register {
        files: Vec::new(),
        registration: Box::new(Registration {
            source: "s3://elsewhere/m".to_owned(),
            ..Registration::default()
        }),
        metrics: BTreeMap::from([("acc".to_owned(), 0.5)]),
        description: "a".to_owned(),
        tags: BTreeMap::from([("team".to_owned(), "b".to_owned())]),
    };
    wishes("m", wish)
}

fn deletes(number: u32, pulled_until: Option<i64>) -> Event {
    let pulled_until = pulled_until.map(pomona_domain::Timestamp);
    let wish = RegistryWish::DeleteVersion {
        number,
        pulled_until,
    };
    wishes("m", wish)
}

fn audited(house: &House) -> Vec<(&str, &str)> {
    let entries = house.last.iter().filter_map(|change| {
        let Change::Audited(Audit {
            action, subject, ..
        }) = change
        else {
            return None;
        };
        Some((action.as_str(), subject.as_str()))
    });
    entries.collect()
}

#[test]
fn what_a_client_registers_is_numbered_after_what_was_published() {
    let mut house = House::new();
    house.joins("a", 1);
    let (id, _) = promoting(&mut house, PROMOTE);
    let task = task_of(&house, id);
    answers(&mut house, task, published(0.7));
    house.tell(&registers());
    let row = version(&house).unwrap();
    assert_eq!((row.number, row.trained()), (2, None));
    assert_eq!(row.registered().unwrap().source, "s3://elsewhere/m");
    assert_eq!(audited(&house), [("version.registered", "model/m/2")]);
    let said = house.last.iter().find_map(|change| {
        if let Change::Described(row) = change {
            Some((row.number, row.description.as_str(), row.tags.len()))
        } else {
            None
        }
    });
    assert_eq!(said, Some((2, "a", 1)), "in the same batch");
}

#[test]
fn a_version_that_is_needed_is_not_deleted_and_its_number_never_comes_again() {
    let mut house = House::new();
    for _ in 0..2 {
        house.tell(&registers());
    }
    house.tell(&asks(&house, 2, nothing()));
    assert_eq!(house.refused(&deletes(2, None)), Code::WrongState);
    let soon = house.now.0 + 1;
    assert_eq!(house.refused(&deletes(1, Some(soon))), Code::WrongState);
    house.tell(&deletes(1, Some(house.now.0)));
    assert_eq!(audited(&house), [("version.deleted", "model/m/1")]);
    assert_eq!(house.refused(&deletes(1, None)), Code::NotFound);
    assert_eq!(house.refused(&sets(1, None)), Code::NotFound);
    house.restarts();
    assert_eq!(house.refused(&sets(1, None)), Code::NotFound);

    let wish = RegistryWish::DeleteAlias {
        alias: "champion".to_owned(),
        reason: "nobody uses it".to_owned(),
    };
    let unset = wishes("m", wish);
    house.tell(&unset);
    let gone = moved(&house).unwrap();
    assert_eq!((gone.from, gone.deleted, gone.revision), (Some(2), true, 2));
    assert_eq!(house.refused(&unset), Code::NotFound);
    house.tell(&deletes(2, None));
    house.tell(&registers());
    assert_eq!(version(&house).unwrap().number, 3);
    house.tell(&asks(&house, 3, nothing()));
    let back = moved(&house).unwrap();
    assert_eq!((back.from, back.to, back.revision), (None, 3, 3));
}

#[test]
fn a_model_goes_with_its_versions_and_moves_with_its_aliases() {
    let mut house = House::new();
    house.tell(&registers());
    house.tell(&asks(&house, 1, nothing()));
    let rename = |to: &str| wishes("m", RegistryWish::Rename { to: to.to_owned() });
    let delete = |model: &str| wishes(model, RegistryWish::DeleteModel { pulled_until: None });
    assert_eq!(house.refused(&rename("m")), Code::WrongState);
    assert_eq!(house.refused(&delete("m")), Code::WrongState);
    house.tell(&rename("n"));
    assert_eq!(audited(&house), [("model.renamed", "model/m")]);
    assert!(house.cluster.newest_version("m").is_none());
    assert_eq!(house.cluster.newest_version("n").unwrap().model, "n");
    assert_eq!(house.cluster.alias("n", "champion").unwrap().number, 1);

    house.tell(&registers());
    house.tell(&delete("m"));
    assert!(matches!(
        house.last.first(),
        Some(Change::Removed(Removal::Model { model, .. })) if model == "m"
    ));
    assert!(!house.cluster.has_version("m", 1));
    house.tell(&registers());
    assert_eq!(version(&house).unwrap().number, 2);
}

const COMPARED: &str = "promote: {model: m, alias: champion, gates: \
                        [{better_than: champion, metric: test/accuracy, confidence: 0.95}]}";

/// Forty samples of two classes, the first ones wrong.
fn outcomes(wrong: u32) -> TestOutcomes {
    let labels: Vec<u32> = (0..40).map(|at| at % 2).collect();
    let predict = |at: u32| if at < wrong { 1 - at % 2 } else { at % 2 };
    TestOutcomes {
        split: Digest::of(b"split"),
        classes: vec!["a".to_owned(), "b".to_owned()],
        predicted: (0..40).map(predict).collect(),
        confidence: vec![0.9; 40],
        truth: vec![0.5; 40],
        labels,
    }
}

/// Publishes a version with so many mistakes; what its worker's poll brings along is as a handler
/// reads it, unless it is `late`.
fn publishes(
    house: &mut House,
    rest: &str,
    wrong: u32,
    champion: Option<u32>,
    late: bool,
) -> TaskId {
    let (id, trial) = promoting(house, rest);
    let task = task_of(house, id);
    let lease = house.only_lease();
    let source = house.cluster.source(trial).unwrap();
    let gates = source.experiment.spec.promote.clone().unwrap().gates;
    let theirs = champion.map(outcomes);
    let head = house.cluster.alias("m", "champion");
    let evidence = Evidence {
        task: Some(task),
        revision: head.map_or(0, |head| head.revision) - u64::from(late),
        weighed: weigh(&gates, Some(&outcomes(wrong)), theirs.as_ref()),
        ..nothing()
    };
    let accuracy = 1.0 - f64::from(wrong) / 40.0;
    let result = Box::new(with_outcomes(accuracy, Some(outcomes(wrong))));
    let report = house.report(&lease, ReportBody::Result { task, result });
    let mut event = house.poll(lease.slots[0].worker, vec![report]);
    if let Event::Polled { evidence: read, .. } = &mut event {
        read.push(evidence);
    }
    house.tell(&event);
    task
}

fn judged(house: &House) -> Judgement {
    let row = house.last.iter().find_map(|change| {
        if let Change::Gates(GateFact::Judged(row)) = change {
            Some((**row).clone())
        } else {
            None
        }
    });
    row.expect("a decision")
}

fn used(house: &House) -> Vec<&TestUse> {
    let used = house.last.iter().filter_map(|change| {
        if let Change::Gates(GateFact::Used(row)) = change {
            Some(row)
        } else {
            None
        }
    });
    used.collect()
}

#[test]
fn a_challenger_is_compared_on_the_same_samples_and_each_use_of_them_is_counted() {
    let mut house = House::with(Config {
        max_test_uses: 2,
        ..Config::default()
    });
    house.joins("a", 1);
    publishes(&mut house, COMPARED, 12, None, false);
    assert_eq!(moved(&house).map(|row| row.to), Some(1));
    assert_eq!(judged(&house).gates[0].text, "there is no champion yet");
    assert_eq!((used(&house)[0].place, used(&house)[0].champion), (1, None));

    // Six of six: p is 0.0156, enough for the second question of these samples (0.025).
    publishes(&mut house, COMPARED, 6, Some(12), false);
    let row = judged(&house);
    let compared = row.gates[0].compared.clone().unwrap();
    assert_eq!((compared.wins, compared.losses, compared.uses), (6, 0, 2));
    assert_eq!(
        (row.allowed, row.champion, compared.champion),
        (true, Some(1), 1)
    );
    assert_eq!(moved(&house).map(|row| row.to), Some(2));
    assert!(!row.text.contains("worn out"), "{}", row.text);

    // The same again is not enough for the third (0.0167 would be; five of five are not).
    publishes(&mut house, COMPARED, 1, Some(6), false);
    let row = judged(&house);
    assert_eq!((row.allowed, moved(&house)), (false, None));
    let gate = &row.gates[0];
    assert!(gate.text.contains("it needs 6 of 6"), "{}", gate.text);
    assert!(
        row.text
            .contains("used for 3 promotion decisions, more than 2"),
        "{}",
        row.text
    );
    let version = version(&house).unwrap();
    assert_eq!(version.gates, row.gates, "it is kept with the version, too");
    assert!(
        version
            .promotion
            .as_ref()
            .unwrap()
            .test_use
            .unwrap()
            .is_too_much()
    );
    assert_eq!(house.cluster.snapshot().test_uses.len(), 3);
    house.restarts();
    assert_eq!(house.cluster.snapshot().test_uses.len(), 3);
}

#[test]
fn evidence_about_another_champion_passes_nothing() {
    let mut house = House::new();
    house.joins("a", 1);
    publishes(&mut house, COMPARED, 20, None, false);
    publishes(&mut house, COMPARED, 0, Some(20), true);
    let row = judged(&house);
    assert!(
        !row.allowed && row.gates[0].text.contains("changed while"),
        "{row:?}"
    );
    assert_eq!(house.cluster.alias("m", "champion").unwrap().number, 1);
}

#[test]
fn a_move_by_request_passes_the_gates_of_its_version_and_a_refusal_is_kept() {
    let mut house = House::new();
    house.joins("a", 1);
    publishes(&mut house, COMPARED, 12, None, false);
    publishes(&mut house, COMPARED, 10, Some(12), false);
    assert_eq!(moved(&house), None);
    let candidate = version(&house).unwrap().clone();
    let read = |house: &House, theirs| Evidence {
        candidate: Some(Box::new(candidate.clone())),
        weighed: weigh(&[], Some(&outcomes(10)), Some(&outcomes(theirs))),
        champion: house.cluster.alias("m", "champion").map(|head| Champion {
            number: head.number,
            policy: None,
        }),
        ..nothing()
    };
    let event = asks(&house, 2, read(&house, 12));
    let fault = house.decide(&event).unwrap_err();
    assert_eq!(fault.code, Code::GateFailed);
    assert!(fault.message.contains("it needs 6 of 6"), "{fault}");
    let row = judged(&house);
    assert_eq!(
        (row.allowed, row.number, row.alias.as_deref()),
        (false, 2, Some("champion"))
    );
    assert_eq!(used(&house).len(), 0, "the same pair is the same question");
    assert_eq!(house.last.len(), 1, "{:?}", house.last);
    assert_eq!(house.cluster.alias("m", "champion").unwrap().number, 1);
    // An alias that its gates say nothing of is free, unless it got where it is under gates.
    let Event::AliasSet { evidence, .. } = event else {
        unreachable!()
    };
    let free = |policy| Event::AliasSet {
        model: "m".to_owned(),
        alias: "other".to_owned(),
        number: 2,
        expected_revision: None,
        reason: "to try it".to_owned(),
        by: Actor::default(),
        evidence: Some(Box::new(Evidence {
            revision: 0,
            champion: policy,
            ..(**evidence.as_ref().unwrap()).clone()
        })),
    };
    let theirs = Some(pomona_domain::gate::GatePolicy {
        alias: "other".to_owned(),
        gates: vec![pomona_domain::spec::Gate::Threshold {
            metric: "test/accuracy".to_owned(),
            at_least: Some(0.99),
            at_most: None,
        }],
    });
    let under = Some(Champion {
        number: 1,
        policy: theirs,
    });
    let fault = house.decide(&free(under)).unwrap_err();
    assert_eq!(fault.code, Code::GateFailed);
    house.tell(&free(None));
    assert_eq!(moved(&house).map(|row| row.to), Some(2));
}

#[test]
fn a_version_waits_for_approvals_and_is_asked_for_again() {
    let mut house = House::new();
    house.joins("a", 1);
    let gates = "promote: {model: m, alias: champion, gates: [{approvals: {deployer: 1}}]}";
    publishes(&mut house, gates, 0, None, false);
    assert_eq!(moved(&house), None);
    let text = judged(&house).text;
    assert!(text.contains("pomona model approve"), "{text}");
    let approval = |actor: &str, number| Approval {
        model: "m".to_owned(),
        number,
        role: Role::Deployer,
        actor: actor.to_owned(),
        at: Timestamp(0),
        reason: String::new(),
    };
    assert_eq!(
        house.refused(&Event::Approved(approval("ann", 2))),
        Code::NotFound
    );
    assert_eq!(
        house.refused(&Event::Approved(approval(" ", 1))),
        Code::BadRequest
    );
    house.tell(&Event::Approved(approval("ann", 1)));
    let kept = house.last.iter().find_map(|change| {
        if let Change::Gates(GateFact::Approved(row)) = change {
            Some(row.clone())
        } else {
            None
        }
    });
    assert_eq!(kept.as_ref().unwrap().at, house.now, "the time is ours");
    let event = asks(
        &house,
        1,
        Evidence {
            approvals: kept.into_iter().collect(),
            ..nothing()
        },
    );
    house.tell(&event);
    assert_eq!(moved(&house).map(|row| row.to), Some(1));
}
