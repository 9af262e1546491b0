//! Placement: tables of situations, and properties of any cluster (S1, S5, S8, S9).

use super::{Placement, plan};
use crate::testing::spec;
use crate::{Cluster, Config};
use pomona_domain::change::Change;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::{Generation, Lease, LeaseState, SlotRef, Work};
use pomona_domain::plan::Spent;
use pomona_domain::policy::{Policy, Project};
use pomona_domain::spec::{ExperimentSpec, Share};
use pomona_domain::task::{Task, TaskSpec, TaskState};
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::worker::{SlotKind, Worker, WorkerState};
use pomona_domain::{Digest, ExperimentId, Hparams, LeaseId, TaskId, Timestamp, TrialId, WorkerId};
use std::collections::BTreeMap;
use std::sync::OnceLock;

mod aside;
mod properties;
mod sharing;
mod wide;

const NOW: Timestamp = Timestamp(1_000_000);

/// What waits and where there is room, for a table or a generator.
#[derive(Debug, Clone, Default)]
struct Room {
    /// Slots by kind, whether the worker gets work. Its zone is the parity of its place.
    workers: Vec<(Vec<SlotKind>, WorkerState)>,
    experiments: Vec<Asked>,
    tasks: Vec<i32>,
}

#[derive(Debug, Clone)]
struct Asked {
    slots: u32,
    trials: u32,
    at_once: u32,
    priority: i32,
    state: ExperimentState,
    /// Trials that back off.
    later: u32,
    /// Whether its trials may share leases.
    shares: bool,
    /// The trials' own limits, in turn; 0 is none.
    limits: Vec<u32>,
    /// Its project, `p0` to `p2`: `p0` has weight 2, `p1` a quota of 3 slots.
    project: u32,
    /// The zone it selects, if any.
    zone: Option<u32>,
    /// How long ago it was submitted, in points of priority.
    waited: i64,
}

fn asked(slots: u32, trials: u32, priority: i32) -> Asked {
    Asked {
        slots,
        trials,
        at_once: trials,
        priority,
        state: ExperimentState::Active,
        later: 0,
        shares: false,
        limits: Vec::new(),
        project: 2,
        zone: None,
        waited: 0,
    }
}

fn config() -> Config {
    let project = |name: &str, weight, quota_slots| Project {
        name: name.to_owned(),
        weight,
        quota_slots,
    };
    Config {
        policy: Policy {
            projects: vec![project("p0", 2, None), project("p1", 1, Some(3))],
            pools: Vec::new(),
        },
        preempt_gap: 1,
        ..Config::default()
    }
}

fn base() -> ExperimentSpec {
    static BASE: OnceLock<ExperimentSpec> = OnceLock::new();
    BASE.get_or_init(|| spec("")).clone()
}

fn cluster(room: &Room) -> Cluster {
    let mut cluster = Cluster::new(config());
    let backbone = Change::Backbone(Box::new(crate::testing::backbone()));
    cluster.apply(NOW, &backbone);
    for (index, (kinds, state)) in room.workers.iter().enumerate() {
        let row = Worker {
            id: WorkerId(index as u64 + 1),
            version: 1,
            name: format!("w{index}"),
            incarnation: 1,
            slots: crate::testing::slots(kinds),
            labels: BTreeMap::from([("zone".to_owned(), (index % 2).to_string())]),
            state: *state,
            drain_by: None,
            acked_seq: 0,
            registered_at: NOW,
            changed_at: NOW,
        };
        cluster.apply(NOW, &Change::Worker(Box::new(row)));
    }
    for (index, asked) in room.experiments.iter().enumerate() {
        experiment(&mut cluster, index as u64 + 1, asked);
    }
    for (index, priority) in room.tasks.iter().enumerate() {
        let row = Task {
            id: TaskId(index as u64 + 1),
            version: 1,
            spec: TaskSpec::ImportBackbone {
                name: "r".to_owned(),
                arch: "resnet18".to_owned(),
                weights: Digest([1; 32]),
            },
            state: TaskState::Waiting,
            attempts: 0,
            priority: *priority,
            submitted_at: NOW,
            ended_at: None,
        };
        cluster.apply(NOW, &Change::Task(Box::new(row)));
    }
    cluster
}

fn experiment(cluster: &mut Cluster, number: u64, asked: &Asked) {
    let id = ExperimentId(number);
    let mut spec = base();
    spec.resources.slots_per_trial = asked.slots;
    spec.search.max_concurrent = asked.at_once;
    spec.search.max_trials = asked.trials;
    spec.priority = asked.priority;
    spec.project = format!("p{}", asked.project);
    if let Some(zone) = asked.zone {
        let values = vec![zone.to_string()];
        spec.resources.selector.insert("zone".to_owned(), values);
    }
    spec.share = if asked.shares {
        Share::Auto
    } else {
        Share::Off
    };
    let row = Experiment {
        id,
        version: 1,
        spec,
        source: String::new(),
        dataset: Some(Digest([1; 32])),
        backbone: Some(Digest([2; 32])),
        state: asked.state.clone(),
        searcher: serde_json::Value::Null,
        created_trials: asked.trials,
        best: None,
        plan: None,
        spent: Spent::default(),
        // Submitted one after the other.
        submitted_at: NOW.plus_ms(number as i64 - 1_000 - asked.waited * 600_000),
        ended_at: None,
    };
    cluster.apply(NOW, &Change::Experiment(Box::new(row)));
    for number in 1..=asked.trials {
        let wait = if number <= asked.later { 1_000 } else { 0 };
        let row_since = NOW.plus_ms(-asked.waited * 600_000);
        let row = Trial {
            id: TrialId::derive(&id.to_string(), u64::from(number)),
            version: 1,
            experiment: id,
            number,
            pinned: false,
            expendable: false,
            deleted: None,
            hparams: Hparams::default(),
            replicate: 0,
            state: TrialState::Waiting {
                since: row_since,
                not_before: NOW.plus_ms(wait),
            },
            restarts: 0,
            leases: 0,
            share_limit: limit(asked, number),
            last_step: 0,
            last_epoch: 0,
            latest: BTreeMap::new(),
            best: None,
            environment: BTreeMap::new(),
            created_at: NOW,
            started_at: None,
            active_ms: 0,
            ended_at: None,
        };
        cluster.apply(NOW, &Change::Trial(Box::new(row)));
    }
}

fn limit(asked: &Asked, number: u32) -> Option<u32> {
    let limits = &asked.limits;
    let limit = limits.get(number as usize % limits.len().max(1)).copied();
    limit.filter(|limit| *limit > 0)
}

/// Grants placements, as `decide` does.
fn grant(cluster: &mut Cluster, placements: &[Placement]) {
    for placement in placements {
        let generation = Generation(cluster.generation().0 + 1);
        let id = LeaseId(generation.0);
        let row = Lease {
            id,
            version: 1,
            generation,
            work: placement.work.clone(),
            slots: placement.slots.clone(),
            state: LeaseState::Live,
            granted_at: NOW,
            meets_at: None,
            parts: Vec::new(),
        };
        cluster.apply(NOW, &Change::Lease(Box::new(row)));
        match &placement.work {
            Work::Trials(members) => {
                for member in members {
                    let mut row = cluster.trial(*member).cloned().expect("a trial");
                    row.state = TrialState::Running { lease: id };
                    cluster.apply(NOW, &Change::Trial(Box::new(row)));
                }
            }
            Work::Task(task) => {
                let mut row = cluster.task(*task).cloned().expect("a task");
                row.state = TaskState::Running { lease: id };
                cluster.apply(NOW, &Change::Task(Box::new(row)));
            }
        }
    }
}

/// `e2/1 on w1: 0 1`, `e1/1 2 on w1: 0`, or `task 1 on w2: 3`, in the order of the plan.
fn lines(cluster: &Cluster, placements: &[Placement]) -> Vec<String> {
    let line = |placement: &Placement| {
        let what = match &placement.work {
            Work::Task(task) => format!("task {}", task.0),
            Work::Trials(members) => {
                let rows: Vec<&Trial> = (members.iter())
                    .map(|id| cluster.trial(*id).expect("a trial"))
                    .collect();
                let numbers: Vec<String> = rows.iter().map(|row| row.number.to_string()).collect();
                format!("e{}/{}", rows[0].experiment.0, numbers.join(" "))
            }
        };
        let parts = placement.slots.chunk_by(|a, b| a.worker == b.worker);
        let part = |slots: &[SlotRef]| {
            let indexes: Vec<String> = slots.iter().map(|slot| slot.index.to_string()).collect();
            format!("w{}: {}", slots[0].worker.0, indexes.join(" "))
        };
        let parts: Vec<String> = parts.map(part).collect();
        format!("{what} on {}", parts.join(" + "))
    };
    placements.iter().map(line).collect()
}

fn cpus(count: usize) -> (Vec<SlotKind>, WorkerState) {
    (vec![SlotKind::Cpu; count], WorkerState::Alive)
}

fn check(room: &Room, expect: &[&str]) {
    let cluster = cluster(room);
    assert_eq!(lines(&cluster, &plan(&cluster, NOW)), expect, "{room:#?}");
}

#[test]
fn higher_priority_first_then_submission_then_number() {
    let room = Room {
        workers: vec![cpus(4)],
        experiments: vec![asked(1, 2, 50), asked(1, 1, 50), asked(1, 1, 70)],
        tasks: vec![60],
    };
    check(
        &room,
        &[
            "e3/1 on w1: 0",
            "task 1 on w1: 1",
            "e1/1 on w1: 2",
            "e1/2 on w1: 3",
        ],
    );
}

#[test]
fn a_gang_gets_all_its_slots_of_one_worker_or_none() {
    let mut room = Room {
        workers: vec![cpus(2), cpus(2)],
        experiments: vec![asked(3, 1, 50)],
        tasks: Vec::new(),
    };
    check(&room, &[]);
    room.workers.push(cpus(3));
    check(&room, &["e1/1 on w3: 0 1 2"]);
}

#[test]
fn a_gang_is_of_one_kind() {
    let mixed = [vec![SlotKind::Cpu; 2], vec![SlotKind::Cuda; 2]].concat();
    let mut room = Room {
        workers: vec![(mixed, WorkerState::Alive)],
        experiments: vec![asked(3, 1, 50)],
        tasks: Vec::new(),
    };
    check(&room, &[]);
    room.experiments = vec![asked(2, 2, 50)];
    check(&room, &["e1/1 on w1: 2 3", "e1/2 on w1: 0 1"]);
}

#[test]
fn the_tightest_fit_first_so_that_gangs_find_room() {
    let room = Room {
        workers: vec![cpus(4), cpus(1)],
        experiments: vec![asked(1, 1, 60), asked(4, 1, 50)],
        tasks: Vec::new(),
    };
    check(&room, &["e1/1 on w2: 0", "e2/1 on w1: 0 1 2 3"]);
}

#[test]
fn max_concurrent_bounds_what_is_live() {
    let few = Asked {
        at_once: 2,
        ..asked(1, 5, 50)
    };
    let room = Room {
        workers: vec![cpus(4)],
        experiments: vec![few, asked(1, 1, 40)],
        tasks: Vec::new(),
    };
    check(&room, &["e1/1 on w1: 0", "e1/2 on w1: 1", "e2/1 on w1: 2"]);
}

#[test]
fn paused_experiments_lost_and_draining_workers_and_back_off_wait() {
    let paused = Asked {
        state: ExperimentState::Paused,
        ..asked(1, 2, 90)
    };
    let later = Asked {
        later: 1,
        ..asked(1, 2, 50)
    };
    let room = Room {
        workers: vec![
            (vec![SlotKind::Cuda; 2], WorkerState::Lost),
            (vec![SlotKind::Cuda; 2], WorkerState::Draining),
            cpus(2),
        ],
        experiments: vec![paused, later],
        tasks: Vec::new(),
    };
    check(&room, &["e2/2 on w3: 0"]);
    let cluster = cluster(&room);
    let placed = lines(&cluster, &plan(&cluster, NOW.plus_ms(1_000)));
    assert_eq!(placed, ["e2/1 on w3: 0", "e2/2 on w3: 1"]);
}
