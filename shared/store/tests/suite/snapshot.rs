//! What is loaded equals what was committed (S10).

use std::collections::BTreeMap;

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::gate::GateFact;
use pomona_domain::lease::{EndKind, LeaseState, StopKind, StopReason, Work};
use pomona_domain::model::{Alias, Version};
use pomona_domain::snapshot::Snapshot;
use pomona_domain::task::{ClassProbability, Prediction, TaskResult, TaskState};
use pomona_domain::trial::{AfterStop, TrialState};
use pomona_domain::worker::WorkerState;
use pomona_domain::{Change, Code, Fault, Generation, LeaseId, TaskId};

use crate::harness::{Home, for_each_backend};
use crate::rows::{
    alias_move, at, awkward, backbone, checkpoint, dataset, experiment, import, lease, of_backbone,
    of_dataset, of_experiment, of_lease, of_task, of_trial, of_version, of_worker, scored, trial,
    version, worker,
};

for_each_backend!(
    an_empty_store_loads_as_nothing,
    every_live_row_loads_as_it_was_committed,
    every_state_of_experiments_and_trials_is_read_again,
    every_state_of_leases_and_workers_is_read_again,
    every_state_of_tasks_is_read_again,
    what_has_ended_leaves_memory_and_stays_readable,
    only_the_newest_of_a_name_is_loaded,
    the_highest_generation_is_remembered_after_its_lease_ended,
);

async fn an_empty_store_loads_as_nothing(home: Home) {
    assert_eq!(home.open().await.load().await.unwrap(), Snapshot::default());
}

#[expect(clippy::too_many_lines, reason = "a row of each kind")]
async fn every_live_row_loads_as_it_was_committed(home: Home) {
    let mut leader = home.lead().await;
    let blobs = [
        leader.put(b"one", at(0)).await.digest,
        leader.put(b"two", at(0)).await.digest,
    ];
    let owner = experiment(1);
    let trials = [
        scored(trial(owner.id, 1), 0.1 + 0.2, 1e-300),
        trial(owner.id, 2),
    ];
    let expect = Snapshot {
        experiments: vec![owner.clone()],
        trials: trials.to_vec(),
        leases: vec![
            lease(5, Work::Trials(vec![trials[0].id])),
            lease(6, Work::Task(TaskId(3))),
        ],
        workers: vec![worker(1), worker(2)],
        tasks: vec![import(3, blobs[0])],
        checkpoints: vec![
            checkpoint(trials[0].id, CheckpointKind::Last, blobs[0]),
            checkpoint(trials[0].id, CheckpointKind::Best, blobs[1]),
            checkpoint(trials[1].id, CheckpointKind::Last, blobs[1]),
        ],
        datasets: vec![dataset("flowers", 1, blobs[0], blobs[1])],
        backbones: vec![
            backbone("a", blobs[0], blobs[1]),
            backbone("b", blobs[1], blobs[1]),
        ],
        versions: vec![version("flowers", 1, blobs[0])],
        published: vec![made_of(&version("flowers", 1, blobs[0]))],
        aliases: vec![Alias {
            model: "flowers".to_owned(),
            alias: "champion".to_owned(),
            number: 1,
            revision: 1,
            deleted: false,
        }],
        deleted_versions: Vec::new(),
        test_uses: vec![crate::gates::usage("a", 1, None)],
        generation: Generation(6),
    };
    let mut changes: Vec<Change> = vec![of_experiment(&owner)];
    // Against the order in which they are loaded.
    changes.extend(expect.trials.iter().rev().map(of_trial));
    changes.extend(expect.leases.iter().rev().map(of_lease));
    changes.extend(expect.workers.iter().rev().map(of_worker));
    changes.extend(expect.tasks.iter().map(of_task));
    changes.extend(
        expect
            .checkpoints
            .iter()
            .rev()
            .cloned()
            .map(Change::Checkpoint),
    );
    changes.extend(expect.datasets.iter().map(of_dataset));
    changes.extend(expect.backbones.iter().rev().map(of_backbone));
    changes.extend(expect.versions.iter().map(of_version));
    changes.push(Change::AliasMoved(alias_move("flowers", 1, None, 1)));
    let uses = expect.test_uses.iter().cloned();
    changes.extend(uses.map(|row| Change::Gates(GateFact::Used(row))));
    leader.commit(&changes).await;
    assert_eq!(leader.store.load().await.unwrap(), expect);
    leader.store.close().await.unwrap();
    assert_eq!(
        home.open().await.load().await.unwrap(),
        expect,
        "also opened again"
    );
}

const LEASE: LeaseId = LeaseId(4);
const TASK: TaskId = TaskId(9);

fn fault() -> Fault {
    Fault::new(Code::Internal, "it `broke`").hint("mend it")
}

async fn every_state_of_experiments_and_trials_is_read_again(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let experiments = [
        ExperimentState::Active,
        ExperimentState::Paused,
        ExperimentState::Promoting { task: TASK },
        ExperimentState::Completed,
        ExperimentState::Failed { fault: fault() },
        ExperimentState::Canceled,
    ];
    for (number, state) in (1..).zip(experiments) {
        let mut row = experiment(number);
        row.ended_at = Some(at(7));
        row.state = state;
        leader.commit(&[of_experiment(&row)]).await;
        assert_eq!(store.experiment_get(row.id).await.unwrap(), Some(row));
    }
    let then = AfterStop::Paused;
    let trials = [
        TrialState::Waiting {
            since: at(1),
            not_before: at(2),
        },
        TrialState::Running { lease: LEASE },
        TrialState::Stopping { lease: LEASE, then },
        TrialState::Paused,
        TrialState::Completed,
        TrialState::Failed { fault: fault() },
        TrialState::Canceled,
    ];
    for (number, state) in (1..).zip(trials) {
        let mut row = scored(trial(experiment(1).id, number), f64::MIN_POSITIVE, -0.0);
        row.started_at = Some(at(3));
        row.state = state;
        leader.commit(&[of_trial(&row)]).await;
        assert_eq!(store.trial_get(row.id).await.unwrap(), Some(row));
    }
}

async fn every_state_of_leases_and_workers_is_read_again(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let leases = [
        LeaseState::Live,
        LeaseState::Stopping {
            how: StopKind::Kill,
            since: at(4),
            why: StopReason::Priority,
        },
        LeaseState::Ended {
            at: at(5),
            reason: "the worker was lost".to_owned(),
            kind: EndKind::Crashed,
        },
    ];
    for (number, state) in (1..).zip(leases) {
        let mut row = lease(number, Work::Task(TASK));
        row.state = state;
        leader.commit(&[of_lease(&row)]).await;
        assert_eq!(store.lease_get(row.id).await.unwrap(), Some(row));
    }
    for (number, state) in (1..).zip([WorkerState::Alive, WorkerState::Draining, WorkerState::Lost])
    {
        let mut row = worker(number);
        row.state = state;
        leader.commit(&[of_worker(&row)]).await;
        assert_eq!(store.worker_get(row.id).await.unwrap(), Some(row));
    }
}

async fn every_state_of_tasks_is_read_again(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let blob = leader.put(b"one", at(0)).await.digest;
    let predicted = TaskResult::Predicted {
        pictures: vec![Prediction {
            path: "a b.png".to_owned(),
            classes: vec![ClassProbability {
                label: "Ä".to_owned(),
                probability: 1.0 / 3.0,
            }],
            fault: Some(fault()),
        }],
    };
    let published = TaskResult::Published {
        files: version("m", 1, blob).files,
        metrics: awkward(),
        confusion: vec![vec![u64::MAX, 0], vec![1, 2]],
        predictions: Vec::new(),
        outcomes: None,
    };
    let tasks = [
        TaskState::Waiting,
        TaskState::Running { lease: LEASE },
        TaskState::Completed {
            result: Box::new(predicted),
        },
        TaskState::Completed {
            result: Box::new(published),
        },
        TaskState::Failed { fault: fault() },
        TaskState::Canceled,
    ];
    for (number, state) in (1..).zip(tasks) {
        let mut row = import(number, blob);
        row.state = state;
        leader.commit(&[of_task(&row)]).await;
        assert_eq!(store.task_get(row.id).await.unwrap(), Some(row));
    }
}

async fn what_has_ended_leaves_memory_and_stays_readable(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"one", at(0)).await.digest;
    let mut owner = experiment(1);
    let mut ended = trial(owner.id, 1);
    ended.state = TrialState::Completed;
    let mut task = import(1, blob);
    let kept = checkpoint(ended.id, CheckpointKind::Best, blob);
    leader
        .commit(&[
            of_experiment(&owner),
            of_trial(&ended),
            of_task(&task),
            Change::Checkpoint(kept.clone()),
        ])
        .await;
    let loaded = leader.store.load().await.unwrap();
    assert_eq!(
        loaded.trials,
        [ended.clone()],
        "an ended trial of a live experiment is needed"
    );
    assert_eq!(loaded.checkpoints, std::slice::from_ref(&kept));
    owner.version = 2;
    owner.state = ExperimentState::Completed;
    task.version = 2;
    task.state = TaskState::Canceled;
    leader
        .commit(&[of_experiment(&owner), of_task(&task)])
        .await;
    assert_eq!(leader.store.load().await.unwrap(), Snapshot::default());
    let store = &leader.store;
    assert_eq!(store.experiment_get(owner.id).await.unwrap(), Some(owner));
    assert_eq!(
        store.trial_get(ended.id).await.unwrap(),
        Some(ended.clone())
    );
    assert_eq!(store.task_get(task.id).await.unwrap(), Some(task));
    assert_eq!(store.checkpoint_list(ended.id).await.unwrap(), [kept]);
}

async fn only_the_newest_of_a_name_is_loaded(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"one", at(0)).await.digest;
    let mut changes = Vec::new();
    for number in [2, 1, 11, 10] {
        changes.push(of_dataset(&dataset("flowers", number, blob, blob)));
        changes.push(of_version(&version("flowers", number, blob)));
    }
    changes.push(of_dataset(&dataset("trees", 1, blob, blob)));
    changes.push(of_version(&version("trees", 1, blob)));
    leader.commit(&changes).await;
    let loaded = leader.store.load().await.unwrap();
    let datasets: BTreeMap<_, _> = (loaded.datasets.iter())
        .map(|row| (row.name.as_str(), row.number))
        .collect();
    let versions: BTreeMap<_, _> = (loaded.versions.iter())
        .map(|row| (row.model.as_str(), row.number))
        .collect();
    assert_eq!(datasets, BTreeMap::from([("flowers", 11), ("trees", 1)]));
    assert_eq!(versions, datasets);
}

async fn the_highest_generation_is_remembered_after_its_lease_ended(home: Home) {
    let mut leader = home.lead().await;
    let mut row = lease(41, Work::Task(TaskId(1)));
    leader
        .commit(&[of_lease(&row), of_lease(&lease(7, Work::Task(TaskId(2))))])
        .await;
    row.version = 2;
    row.state = LeaseState::Ended {
        kind: EndKind::Finished,
        at: at(9),
        reason: "done".to_owned(),
    };
    leader.commit(&[of_lease(&row)]).await;
    let loaded = leader.store.load().await.unwrap();
    assert_eq!(
        (loaded.leases.len(), loaded.generation),
        (1, Generation(41))
    );
}

fn made_of(version: &Version) -> pomona_domain::Digest {
    version.trained().expect("a trial of ours").checkpoint
}
