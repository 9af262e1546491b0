//! Tasks: leased work that is not a trial; its answer is acted on in the decision that receives it.

use crate::Event;
use crate::decide::lease::Cause;
use crate::decide::task::{Fate, fate};
use crate::testing::{House, crashed, grid};
use pomona_domain::change::Change;
use pomona_domain::dataset::{DatasetSummary, ImportOptions};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::task::{Task, TaskResult, TaskSpec, TaskState};
use pomona_domain::{Code, Digest, Fault, TaskId};

pub(super) fn submits(house: &mut House, number: u64, spec: TaskSpec) -> TaskId {
    let id = TaskId(number);
    house.tell(&Event::TaskSubmitted {
        id,
        spec,
        priority: 60,
    });
    id
}

fn dataset() -> TaskSpec {
    TaskSpec::ImportDataset {
        name: "d".to_owned(),
        archive: Digest([3; 32]),
        options: ImportOptions::default(),
    }
}

fn dataset_answer() -> TaskResult {
    TaskResult::Dataset {
        manifest: "manifest.json".to_owned(),
        digest: Digest([4; 32]),
        summary: DatasetSummary::default(),
    }
}

fn backbone() -> TaskSpec {
    TaskSpec::ImportBackbone {
        name: "r".to_owned(),
        arch: "resnet18".to_owned(),
        weights: Digest([5; 32]),
    }
}

fn backbone_answer() -> TaskResult {
    TaskResult::Backbone {
        weights: "backbone.safetensors".to_owned(),
        digest: Digest([6; 32]),
        image_size: 224,
        blocks: Vec::new(),
        tensors: 2,
        head_parameters: 10,
    }
}

pub(super) fn answers(house: &mut House, task: TaskId, result: TaskResult) {
    let held = house.cluster.task(task).map(|row| row.state.clone());
    let Some(TaskState::Running { lease }) = held else {
        panic!("{held:?}");
    };
    let lease = house.lease(lease);
    let result = Box::new(result);
    house.says(&lease, ReportBody::Result { task, result });
}

/// The row of a task as it was last written.
pub(super) fn row(house: &House, id: TaskId) -> Task {
    let written = house.last.iter().rev().find_map(|change| {
        if let Change::Task(row) = change
            && row.id == id
        {
            Some((**row).clone())
        } else {
            None
        }
    });
    written
        .or_else(|| house.cluster.task(id).cloned())
        .expect("a task")
}

#[test]
fn a_data_set_gets_its_next_number() {
    let mut house = House::new();
    house.joins("a", 1);
    for number in [1, 2] {
        let task = submits(&mut house, u64::from(number), dataset());
        answers(&mut house, task, dataset_answer());
        assert_eq!(row(&house, task).state.name(), "completed");
        assert_eq!(house.cluster.dataset("d").unwrap().number, number);
        assert!(house.generations().is_empty());
    }
}

#[test]
fn an_answer_ends_the_lease_and_the_exit_after_it_is_nothing() {
    let mut house = House::new();
    house.joins("a", 1);
    let task = submits(&mut house, 1, dataset());
    let lease = house.only_lease();
    answers(&mut house, task, dataset_answer());
    house.exits(&lease, Outcome::Finished);
    assert!(house.cluster.task(task).is_none());
    assert_eq!(house.cluster.dataset("d").unwrap().number, 1);
}

#[test]
fn a_backbone_never_changes() {
    let mut house = House::new();
    house.joins("a", 2);
    // Two at once: the name is free until the first one answers.
    let first = submits(&mut house, 1, backbone());
    let second = submits(&mut house, 2, backbone());
    answers(&mut house, first, backbone_answer());
    answers(&mut house, second, backbone_answer());
    let TaskState::Failed { fault } = row(&house, second).state else {
        panic!("{:?}", row(&house, second));
    };
    assert_eq!(fault.code, Code::AlreadyExists);
    let third = Event::TaskSubmitted {
        id: TaskId(3),
        spec: backbone(),
        priority: 60,
    };
    assert_eq!(house.refused(&third), Code::AlreadyExists);
}

#[test]
fn an_answer_to_another_question_fails_the_task() {
    let mut house = House::new();
    house.joins("a", 1);
    let task = submits(&mut house, 1, dataset());
    answers(&mut house, task, backbone_answer());
    assert_eq!(row(&house, task).state.name(), "failed");
    assert!(house.cluster.backbone("r").is_none());
}

#[test]
fn a_task_survives_two_crashes_and_backs_off() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let task = submits(&mut house, 1, dataset());
    for (attempts, wait) in [(1, 1_000), (2, 2_000)] {
        let lease = house.only_lease();
        house.exits(&lease, crashed("gone"));
        assert_eq!(row(&house, task).attempts, attempts);
        house.passes(wait - 1, &[a]);
        assert_eq!(row(&house, task).state, TaskState::Waiting);
        house.passes(1, &[a]);
    }
    let lease = house.only_lease();
    house.exits(&lease, crashed("gone"));
    assert_eq!(row(&house, task).state.name(), "failed");
}

#[test]
fn every_end_of_a_lease() {
    let fault = || Fault::new(Code::TrainerCrashed, "gone");
    let failed = |retry| Outcome::Failed {
        fault: fault(),
        retry,
    };
    let at_last = |outcome: &Outcome, attempts| fate(attempts, 3, Cause::Exited(outcome));
    for outcome in [failed(true), crashed("gone"), Outcome::Finished] {
        assert_eq!(at_last(&outcome, 1), Fate::Retries, "{outcome:?}");
        assert!(
            matches!(at_last(&outcome, 2), Fate::Fails(_)),
            "{outcome:?}"
        );
    }
    assert_eq!(at_last(&failed(false), 0), Fate::Fails(fault()));
    let not_started = Outcome::NotStarted { fault: fault() };
    for outcome in [Outcome::Stopped, Outcome::Killed, not_started] {
        assert_eq!(at_last(&outcome, 2), Fate::Waits, "{outcome:?}");
    }
    assert_eq!(fate(2, 3, Cause::Lost("gone")), Fate::Waits);
    assert_eq!(fate(2, 3, Cause::GraceOver), Fate::Waits);
}

#[test]
fn a_task_that_cannot_start_backs_off_and_costs_no_attempt() {
    let mut house = House::new();
    let a = house.joins("a", 1);
    let task = submits(&mut house, 1, dataset());
    let lease = house.only_lease();
    let fault = Fault::new(Code::MissingProgram, "no trainer");
    house.exits(&lease, Outcome::NotStarted { fault });
    assert_eq!(
        (row(&house, task).attempts, house.generations().len()),
        (0, 0)
    );
    house.passes(1_000, &[a]);
    assert_eq!(row(&house, task).state.name(), "running");
}

#[test]
fn a_canceled_task_gives_its_slot_back_at_once() {
    let mut house = House::new();
    house.joins("a", 1);
    let task = submits(&mut house, 1, dataset());
    let id = house.submits(grid(1, ""));
    house.tell(&Event::TaskCanceled(task));
    assert_eq!(row(&house, task).state, TaskState::Canceled);
    assert_eq!(house.state(id, 1).name(), "running");
    assert_eq!(house.refused(&Event::TaskCanceled(task)), Code::NotFound);
}

#[test]
fn a_task_is_submitted_once_and_asks_for_what_exists() {
    let mut house = House::new();
    let task = submits(&mut house, 1, dataset());
    let submitted = |id, spec| Event::TaskSubmitted {
        id,
        spec,
        priority: 60,
    };
    assert_eq!(
        house.refused(&submitted(task, dataset())),
        Code::AlreadyExists
    );
    let predict = TaskSpec::Predict {
        model: "m".to_owned(),
        version: 1,
        pictures: Digest([7; 32]),
        top: 3,
    };
    assert_eq!(
        house.refused(&submitted(TaskId(2), predict)),
        Code::NotFound
    );
}
