//! Properties of any room: S1, S2, S5, S7, S8, S9, quotas, labels, and who may have to yield.

use super::{Asked, NOW, Room, asked, cluster, experiment, grant};
use crate::{Cluster, invariants, plan, preemptions};
use pomona_domain::change::Change;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::lease::{EndKind, Lease, LeaseState, SlotRef, StopKind, StopReason, Work};
use pomona_domain::task::TaskState;
use pomona_domain::trial::{AfterStop, TrialState};
use pomona_domain::worker::{PROCESSOR, SlotKind, Worker, WorkerState, is_selected};
use pomona_domain::{Timestamp, TrialId};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::BTreeSet;

fn kinds() -> impl Strategy<Value = Vec<SlotKind>> {
    let kind = prop_oneof![3 => Just(SlotKind::Cpu), 2 => Just(SlotKind::Cuda)];
    prop::collection::vec(kind, 0..7)
}

fn rooms() -> impl Strategy<Value = Room> {
    let state = prop_oneof![
        6 => Just(WorkerState::Alive),
        1 => Just(WorkerState::Draining),
        1 => Just(WorkerState::Lost),
    ];
    let standing =
        prop_oneof![5 => Just(ExperimentState::Active), 1 => Just(ExperimentState::Paused)];
    let slots = prop_oneof![3 => Just(1u32), 2 => 1u32..5];
    let limits = prop::collection::vec(0u32..4, 0..5);
    let asked = (
        (slots, 1u32..9, 1u32..9),
        (0i32..3, standing, 0u32..3),
        (any::<bool>(), limits),
        (0u32..3, prop::option::weighted(0.3, 0u32..2), 0i64..3),
    );
    let asked = asked.prop_map(
        |(
            (slots, trials, at_once),
            (priority, state, later),
            (shares, limits),
            (project, zone, waited),
        )| Asked {
            slots,
            trials,
            at_once,
            priority,
            state,
            later,
            shares,
            limits,
            project,
            zone,
            waited,
        },
    );
    let workers = prop::collection::vec((kinds(), state), 0..5);
    let experiments = prop::collection::vec(asked, 0..5);
    let tasks = prop::collection::vec(0i32..3, 0..3);
    (workers, experiments, tasks).prop_map(|(workers, experiments, tasks)| Room {
        workers,
        experiments,
        tasks,
    })
}

/// Whether something that waits would fit into what is free.
fn fits_somewhere(cluster: &Cluster, need: usize) -> bool {
    let busy: BTreeSet<&SlotRef> = cluster.leases().flat_map(|lease| &lease.slots).collect();
    cluster
        .workers()
        .filter(|row| row.state == WorkerState::Alive)
        .any(|row| {
            [SlotKind::Cpu, SlotKind::Cuda].iter().any(|kind| {
                let free = row.slots.iter().filter(|slot| {
                    let index = slot.index;
                    slot.kind == *kind
                        && !busy.contains(&SlotRef {
                            worker: row.id,
                            index,
                        })
                });
                free.count() >= need
            })
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// S1, S2, S5, S7 and S9 hold of what was planned, on a cluster that is empty or half full.
    #[test]
    fn a_plan_keeps_the_invariants_and_is_stable(
        room in rooms(),
        ends in any::<u64>(),
        alike in 0u64..4,
    ) {
        let mut cluster = cluster(&room);
        liken(&mut cluster, alike);
        for _ in 0..3 {
            let placements = plan(&cluster, NOW);
            prop_assert_eq!(&placements, &plan(&cluster, NOW), "the same plan each time");
            grant(&mut cluster, &placements);
            prop_assert_eq!(invariants::check(&cluster), Ok(()));
            prop_assert_eq!(plan(&cluster, NOW), Vec::new());
            quotas_and_zones_hold(&cluster)?;
            for lease in cluster.leases() {
                let of: BTreeSet<_> = (lease.slots.iter())
                    .map(|held| {
                        let worker = cluster.worker(held.worker).expect("a worker");
                        let slot = &worker.slots[held.index as usize];
                        // Ranks on processors are alike by what the worker says of it, those on
                        // GPUs by the name of the GPU.
                        let model = match slot.kind {
                            SlotKind::Cpu => worker.labels.get(PROCESSOR),
                            SlotKind::Cuda => Some(&slot.name),
                        };
                        (slot.kind, model.filter(|_| lease.is_wide()))
                    })
                    .collect();
                prop_assert_eq!(of.len(), 1, "a gang is of one kind and alike");
                prop_assert!(!lease.is_wide() || needs_several(&cluster, lease));
            }
            end_some(&mut cluster, ends);
        }
    }

    /// The first in the queue never waits while it would fit: priorities are kept.
    #[test]
    fn what_is_first_and_fits_is_placed(mut room in rooms()) {
        for asked in &mut room.experiments {
            (asked.zone, asked.waited, asked.project) = (None, 0, 2);
        }
        let before = cluster(&room);
        let placed: BTreeSet<TrialId> = plan(&before, NOW)
            .iter()
            .flat_map(|placement| match &placement.work {
                Work::Trials(members) => members.clone(),
                Work::Task(_) => Vec::new(),
            })
            .collect();
        let first = (before.experiments())
            .filter(|row| row.state == ExperimentState::Active)
            .min_by_key(|row| (std::cmp::Reverse(row.spec.priority), row.submitted_at, row.id));
        if let (Some(first), true) = (first, room.tasks.is_empty()) {
            let need = first.spec.resources.slots_per_trial as usize;
            let trial = before.trials_of(first.id).find(|trial| match trial.state {
                TrialState::Waiting { not_before, .. } => not_before <= NOW,
                TrialState::Running { .. }
                | TrialState::Stopping { .. }
                | TrialState::Paused
                | TrialState::Completed
                | TrialState::Failed { .. }
                | TrialState::Canceled => false,
            });
            if let Some(trial) = trial
                && fits_somewhere(&before, need)
            {
                prop_assert!(placed.contains(&trial.id));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Only trials of lower priority yield, each lease once; with them asked nobody else is, and
    /// nobody before their least time is over.
    #[test]
    fn only_the_lower_yield_and_asking_again_asks_nobody(
        room in rooms(),
        (slots, trials, priority) in (1u32..6, 1u32..4, 1i32..4),
        alike in 0u64..3,
    ) {
        let mut cluster = cluster(&room);
        liken(&mut cluster, alike);
        let placements = plan(&cluster, NOW);
        grant(&mut cluster, &placements);
        experiment(&mut cluster, 99, &asked(slots, trials, priority));
        let soon = NOW.plus_ms(119_999);
        prop_assert_eq!(preemptions(&cluster, soon), Vec::new());
        let later = NOW.plus_ms(120_000);
        let found = preemptions(&cluster, later);
        let mut leases = BTreeSet::new();
        for one in &found {
            prop_assert!(leases.insert(one.lease), "asked twice");
            let lease = cluster.lease(one.lease).expect("a live lease");
            let owner = cluster.owner(lease).expect("no task yields");
            let by = cluster.trial(one.by).and_then(|row| cluster.experiment(row.experiment));
            prop_assert!(owner.spec.priority < by.expect("an experiment").spec.priority);
        }
        for one in &found {
            yields(&mut cluster, one.lease, later);
        }
        prop_assert_eq!(invariants::check(&cluster), Ok(()));
        prop_assert_eq!(preemptions(&cluster, later), Vec::new());
    }
}

fn yields(cluster: &mut Cluster, id: pomona_domain::LeaseId, at: Timestamp) {
    let mut lease = cluster.lease(id).cloned().expect("a live lease");
    let members: Vec<_> = cluster.members(&lease).cloned().collect();
    lease.state = LeaseState::Stopping {
        how: StopKind::Checkpoint,
        since: at,
        why: StopReason::Priority,
    };
    cluster.apply(at, &Change::Lease(Box::new(lease)));
    for mut row in members {
        row.state = TrialState::Stopping {
            lease: id,
            then: AfterStop::Waiting,
        };
        cluster.apply(at, &Change::Trial(Box::new(row)));
    }
}

/// Gives the workers one of so many processors in turn; with 0 each has its own.
fn liken(cluster: &mut Cluster, processors: u64) {
    let rows: Vec<Worker> = cluster.workers().cloned().collect();
    for mut row in rows {
        let which = row.id.0.checked_rem(processors).unwrap_or(row.id.0 + 9);
        row.labels.insert(PROCESSOR.to_owned(), which.to_string());
        cluster.apply(NOW, &Change::Worker(Box::new(row)));
    }
}

/// Whether no worker that gets work and that its file selects has so many slots of a kind.
fn needs_several(cluster: &Cluster, lease: &Lease) -> bool {
    let owner = cluster.owner(lease).expect("no task needs several");
    let of = |row: &Worker, kind| row.slots.iter().filter(|slot| slot.kind == kind).count();
    let mut rows = (cluster.workers())
        .filter(|row| row.state == WorkerState::Alive)
        .filter(|row| is_selected(&row.labels, &owner.spec.resources.selector));
    rows.all(|row| {
        let most = of(row, SlotKind::Cpu).max(of(row, SlotKind::Cuda));
        most < lease.slots.len()
    })
}

/// What a project holds is within its quota, and a lease is where its file wants it.
fn quotas_and_zones_hold(cluster: &Cluster) -> Result<(), TestCaseError> {
    prop_assert!(cluster.slots_of_project("p1") <= 3);
    for lease in cluster.leases() {
        for worker in lease.workers() {
            let worker = cluster.worker(worker).expect("a worker");
            if let Some(owner) = cluster.owner(lease) {
                prop_assert!(is_selected(&worker.labels, &owner.spec.resources.selector));
            }
        }
    }
    Ok(())
}

/// Some leases end, and their trials are done.
fn end_some(cluster: &mut Cluster, which: u64) {
    let leases: Vec<Lease> = cluster.leases().cloned().collect();
    for (index, mut lease) in leases.into_iter().enumerate() {
        if which >> (index % 64) & 1 == 0 {
            continue;
        }
        lease.state = LeaseState::Ended {
            at: NOW,
            reason: "done".to_owned(),
            kind: EndKind::Finished,
        };
        cluster.apply(NOW, &Change::Lease(Box::new(lease.clone())));
        match &lease.work {
            Work::Trials(members) => {
                for member in members {
                    let mut row = cluster.trial(*member).cloned().expect("a trial");
                    row.state = TrialState::Completed;
                    cluster.apply(NOW, &Change::Trial(Box::new(row)));
                }
            }
            Work::Task(task) => {
                let mut row = cluster.task(*task).cloned().expect("a task");
                row.state = TaskState::Canceled;
                cluster.apply(NOW, &Change::Task(Box::new(row)));
            }
        }
    }
}
