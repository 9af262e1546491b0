//! What one seed tells: a cluster, experiments, users, faults; then a calm in which everything has
//! to come to its end.

use pomona_domain::change::Subject;
use pomona_domain::lease::Work;
use pomona_domain::model::{Actor, Registration};
use pomona_domain::policy::{Policy, Pool, Project};
use pomona_domain::spec::{ExperimentSpec, FrozenDepth, Gate, Promote, Retention, Share, parse};
use pomona_domain::task::TaskSpec;
use pomona_domain::trial::TrialState;
use pomona_domain::worker::{SlotKind, WorkerState};
use pomona_domain::{Digest, ExperimentId, TaskId, Timestamp, TrialId};
use pomona_scheduler::{Config, Event, RegistryWish};
use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::verdict::{finish, is_quiet};
use crate::worker::Worker;
use crate::world::{BEGIN, Weather, World};

/// How long things go wrong, and how long the calm may last.
pub const STORM_MS: i64 = 60_000;
pub const CALM_MS: i64 = 600_000;

/// Something a user or fate does; the target is drawn when it happens.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Submit,
    Pause,
    Resume,
    Cancel,
    StopTrial,
    Pin,
    Drain,
    Undrain,
    BadWorker,
    Task,
    Publish,
    CancelTask,
    SetAlias,
    Rollback,
    Registry,
    KillWorker,
    StartWorker,
    CutWorker,
    RestartCoordinator,
    ResumeAll,
    Calm,
}

/// What a run was like.
pub struct Told {
    /// The hash of everything that was committed.
    pub history: u64,
    pub events: u64,
    pub completed: usize,
    pub failed: usize,
    pub promoted: usize,
    pub leases: usize,
    /// Times that a trial was given a lease.
    pub starts: usize,
    /// Leases with several trials.
    pub shared: usize,
    /// Leases on several workers.
    pub wide: usize,
    /// Trials that were in the company of a fault that nobody owned.
    pub halved: usize,
    /// Times that a trial was asked to yield to one of higher priority.
    pub preempted: usize,
    /// The same because its worker drained.
    pub drained: usize,
    pub seconds: i64,
}

/// Tells the story of a seed. `Err` says what broke.
pub fn tell(seed: u64, is_shown: bool) -> Result<Told, String> {
    let mut world = begin(seed, is_shown);
    world.run(BEGIN.plus_ms(STORM_MS), |_| false)?;
    world
        .house
        .is_up
        .then(|| world.house.check_store())
        .transpose()?;
    let end = BEGIN.plus_ms(STORM_MS + CALM_MS);
    world.run(end, |world| world.house.is_up && is_quiet(world))?;
    finish(&mut world)?;
    let trials = || world.house.journal.trials.values();
    Ok(Told {
        history: world.house.journal.history(),
        events: world.events,
        completed: trials()
            .filter(|row| row.state == TrialState::Completed)
            .count(),
        failed: trials()
            .filter(|row| matches!(row.state, TrialState::Failed { .. }))
            .count(),
        promoted: world.house.journal.moves.len(),
        leases: world.house.journal.leases.len(),
        starts: trials().map(|row| row.leases as usize).sum(),
        shared: (world.house.journal.leases.values())
            .filter(|row| matches!(&row.work, Work::Trials(members) if members.len() > 1))
            .count(),
        wide: (world.house.journal.leases.values())
            .filter(|row| row.is_wide())
            .count(),
        preempted: told(&world, "preempted by"),
        drained: told(&world, "drains"),
        halved: trials().filter(|row| row.share_limit.is_some()).count(),
        seconds: world.now.since_ms(BEGIN) / 1000,
    })
}

/// How often a trial was told that it has to stop for a reason.
fn told(world: &World, why: &str) -> usize {
    let reasons = world.house.journal.reasons.iter();
    let asked = |(about, _, text): &&(Subject, Timestamp, String)| {
        matches!(about, Subject::Trial(_)) && text.starts_with("asked to") && text.contains(why)
    };
    reasons.filter(asked).count()
}

fn config(seed: u64) -> Config {
    Config {
        lease_term_ms: 6_000,
        stop_grace_ms: 3_000,
        backoff_base_ms: 500,
        backoff_max_ms: 4_000,
        lost_after_ms: if seed.is_multiple_of(2) { 6_000 } else { 9_000 },
        max_task_attempts: 3,
        queue_ahead: [2, 3, 6, 12, 12][(seed % 5) as usize],
        doubt_after: 2,
        max_members: [64, 2, 3, 5][(seed % 4) as usize],
        aging_ms: [1_000, 0, 5_000][(seed % 3) as usize],
        preempt_gap: [10, 20, 0, 1][(seed % 4) as usize],
        preempt_after_ms: [500, 3_000, 8_000][(seed % 3) as usize],
        exclude_after: [2, 3, 0, 1][(seed % 4) as usize],
        exclude_window_ms: 20_000,
        exclude_base_ms: 2_000,
        exclude_max_ms: 10_000,
        max_test_uses: 3,
        policy: policy(seed),
    }
}

/// Projects that share, or are alone; pools for what no worker could run, in most worlds.
fn policy(seed: u64) -> Policy {
    let project = |name: &str, weight, quota_slots| Project {
        name: name.to_owned(),
        weight,
        quota_slots,
    };
    let pool = |max_workers| Pool {
        name: "later".to_owned(),
        slots: 3,
        kind: SlotKind::Cpu,
        labels: BTreeMap::from([("zone".to_owned(), "l".to_owned())]),
        max_workers,
    };
    Policy {
        projects: match seed % 3 {
            0 => Vec::new(),
            1 => vec![project("p", 3, None), project("q", 1, Some(2))],
            _ => vec![project("p", 1, Some(1)), project("q", 2, Some(4))],
        },
        pools: vec![pool(u32::from(!seed.is_multiple_of(5)))],
    }
}

/// Each fault is there in about half of the worlds, so that many see it without the others.
fn weather(world: &mut World) -> Weather {
    let mut some = |most: u32| {
        if world.dice.chance(500) {
            world.dice.count(1, most)
        } else {
            0
        }
    };
    Weather {
        lost: some(250),
        doubled: some(250),
        late: some(100),
        commit: some(120),
        mood: some(700),
        upload_ms: i64::from(some(5_000)),
    }
}

fn begin(seed: u64, is_shown: bool) -> World {
    let mut world = World::new(seed, config(seed), is_shown);
    world.weather = weather(&mut world);
    // Where slots are few, trials share them.
    let (workers, most) = world.dice.pick(&[(4, 3), (2, 1), (2, 1), (1, 2)]);
    for name in ["a", "b", "c", "d"]
        .iter()
        .take(world.dice.count(1, workers) as usize)
    {
        let mut slots = vec![SlotKind::Cpu; world.dice.count(1, most) as usize];
        if most > 2 && world.dice.chance(300) {
            slots.extend([SlotKind::Cuda; 2]);
        }
        let mut worker = Worker::new(name, &slots);
        let zone = world.dice.pick(&["a", "b"]).to_owned();
        worker.labels.insert("zone".to_owned(), zone);
        world.join(worker);
    }
    for _ in 0..world.dice.count(1, 4) {
        let at = world.dice.between(0, STORM_MS / 2);
        world.plan_deed(at, Deed::Submit);
    }
    for deed in [
        Deed::Pause,
        Deed::Pause,
        Deed::Resume,
        Deed::Cancel,
        Deed::StopTrial,
        Deed::StopTrial,
        Deed::Pin,
        Deed::Pin,
        Deed::Pin,
        Deed::Drain,
        Deed::Drain,
        Deed::Undrain,
        Deed::BadWorker,
        Deed::Task,
        Deed::Task,
        Deed::Publish,
        Deed::Publish,
        Deed::CancelTask,
        Deed::SetAlias,
        Deed::Rollback,
        Deed::Registry,
        Deed::Registry,
        Deed::KillWorker,
        Deed::KillWorker,
        Deed::CutWorker,
        Deed::CutWorker,
        Deed::RestartCoordinator,
    ] {
        if world.dice.chance(450) {
            let at = world.dice.between(1_000, STORM_MS);
            world.plan_deed(at, deed);
        }
    }
    world.plan_deed(STORM_MS, Deed::Calm);
    world
}

/// Experiments to choose from: grids with and without replicates, of unequal lengths and depths,
/// random search, a single trial, and searches that hear how trials do.
fn files() -> &'static [ExperimentSpec] {
    static FILES: OnceLock<Vec<ExperimentSpec>> = OnceLock::new();
    FILES.get_or_init(|| {
        let grid = "{space: {train.learning_rate: {values: [0.1, 0.2, 0.3, 0.4]}, \
                    train.optimizer.weight_decay: {values: [0.0, 0.1]}}}";
        let twice = "{replicates: 2, space: {train.learning_rate: {values: [0.1, 0.2]}}}";
        let lengths = "{space: {train.epochs: {values: [1, 3, 9]}, \
                       train.learning_rate: {values: [0.1, 0.2]}}}";
        let depths = "{space: {transfer.frozen_depth: {values: [all, layer1, 3]}, \
                      train.learning_rate: {values: [0.1, 0.2]}}}";
        let random = "{strategy: random, max_trials: 5, \
                      space: {train.learning_rate: {log_uniform: [0.001, 0.1]}}}";
        let asha = "{strategy: asha, asha: {eta: 2}, space: {train.learning_rate: {values: \
                    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}}}";
        let promoted = "{strategy: asha, asha: {eta: 2, form: promote}, \
                        space: {train.learning_rate: {values: [0.1, 0.2, 0.3, 0.4, 0.5]}}}";
        let mixed = "{strategy: asha, asha: {eta: 2}, replicates: 2, space: \
                     {transfer.frozen_depth: {values: [all, 0]}, \
                     train.learning_rate: {values: [0.1, 0.2, 0.3]}}}";
        let pairs = "{strategy: asha, asha: {eta: 2, form: promote}, replicates: 2, \
                     space: {train.learning_rate: {values: [0.1, 0.2, 0.3]}}}";
        let hyperband = "{strategy: hyperband, hyperband: {eta: 2}, max_trials: 8, \
                         space: {train.learning_rate: {log_uniform: [0.001, 0.1]}}}";
        let tpe = "{strategy: tpe, tpe: {startup: 2}, max_trials: 6, \
                   space: {train.learning_rate: {log_uniform: [0.001, 0.1]}}}";
        let read = |(epochs, search): (u32, &str)| {
            let text = format!(
                "{{name: e, backbone: b, dataset: c, train: {{epochs: {epochs}}}, search: {search}}}"
            );
            parse(&text, &[]).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
        };
        [
            (2, grid),
            (3, twice),
            (1, lengths),
            (2, depths),
            (2, random),
            (4, "{}"),
            (4, asha),
            (4, promoted),
            (3, mixed),
            (3, pairs),
            (4, hyperband),
            (2, tpe),
        ]
        .map(read)
        .to_vec()
    })
}

fn draw_spec(world: &mut World) -> ExperimentSpec {
    let which = world.dice.between(0, files().len() as i64 - 1) as usize;
    let mut spec = files()[which].clone();
    spec.resources.slots_per_trial = world.dice.pick(&[1, 1, 1, 1, 1, 2, 3, 4]);
    spec.search.max_concurrent = world.dice.count(1, 12);
    if world.dice.chance(200) {
        spec.share = Share::Off;
    }
    if world.dice.chance(200) {
        spec.transfer.frozen_depth = FrozenDepth::Blocks(world.dice.count(0, 3));
    }
    if world.dice.chance(200) {
        spec.time_limit_ms = Some(u64::from(world.dice.count(4_000, 20_000)));
    }
    spec.priority = world.dice.pick(&[40, 50, 50, 70]);
    spec.project = world.dice.pick(&["p", "q", "r"]).to_owned();
    if world.dice.chance(250) {
        let zones = world.dice.pick(&[&["a"][..], &["b", "l"], &["l"]]);
        let values = zones.iter().map(|zone| (*zone).to_owned()).collect();
        spec.resources.selector.insert("zone".to_owned(), values);
    }
    spec.max_restarts = world.dice.count(0, 3);
    spec.retention = Retention {
        best: world.dice.pick(&[None, Some(0), Some(1), Some(2), Some(5)]),
        last: world.dice.chance(500),
    };
    if world.dice.chance(500) {
        let bound = world.dice.pick(&[0.0, 0.5, 2.0]);
        let mut gates = vec![Gate::Threshold {
            metric: "test/accuracy".to_owned(),
            at_least: Some(bound),
            at_most: None,
        }];
        if bound < 0.5 {
            gates.push(Gate::BetterThan {
                better_than: "champion".to_owned(),
                metric: "test/accuracy".to_owned(),
                confidence: 0.6,
            });
        }
        spec.promote = Some(Promote {
            model: world.dice.pick(&["m", "n"]).to_owned(),
            alias: "champion".to_owned(),
            gates,
        });
    }
    spec
}

impl World {
    /// Does a deed, to whom chance says.
    pub fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Submit => self.submit(),
            Deed::Pause => self.wish_of_experiment(Event::Pause),
            Deed::Resume => self.wish_of_experiment(Event::Resume),
            Deed::Cancel => self.wish_of_experiment(Event::Cancel),
            Deed::StopTrial => {
                let trials: Vec<TrialId> = self.house.cluster.trials().map(|row| row.id).collect();
                self.wish_of_one(&trials, Event::StopTrial);
            }
            Deed::Pin => self.pin_or_let_go(),
            Deed::Drain => {
                let workers: Vec<_> = self.house.cluster.workers().map(|row| row.id).collect();
                let grace_ms = self.dice.pick(&[0, 0, 5_000]);
                self.wish_of_one(&workers, |worker| Event::Drain { worker, grace_ms });
            }
            Deed::Undrain => {
                let workers: Vec<_> = self.house.cluster.workers().map(|row| row.id).collect();
                self.wish_of_one(&workers, Event::Undrain);
            }
            Deed::BadWorker => {
                let at = self.any_worker();
                self.workers[at].is_bad = true;
            }
            Deed::Task => self.submit_task(),
            Deed::Publish => self.publish(),
            Deed::CancelTask => {
                let tasks: Vec<TaskId> = self.house.cluster.tasks().map(|row| row.id).collect();
                self.wish_of_one(&tasks, Event::TaskCanceled);
            }
            Deed::SetAlias | Deed::Rollback => self.wish_for_an_alias(deed),
            Deed::Registry => self.tidy_the_registry(),
            Deed::KillWorker => {
                let at = self.any_worker();
                self.workers[at].die();
                if self.dice.chance(700) {
                    let down = self.dice.between(100, 15_000);
                    self.plan_deed(down, Deed::StartWorker);
                }
            }
            Deed::StartWorker => (0..self.workers.len()).for_each(|at| self.start_worker(at)),
            Deed::CutWorker => {
                let at = self.any_worker();
                self.workers[at].cut_until = self.now.plus_ms(self.dice.between(500, 15_000));
            }
            Deed::RestartCoordinator => {
                let down = self.dice.between(200, 4_000);
                self.restart_coordinator(down);
            }
            Deed::ResumeAll => {
                let rows: Vec<_> = self.house.journal.experiments.keys().copied().collect();
                for id in rows {
                    self.wish(Event::Resume(id));
                }
            }
            Deed::Calm => self.calm_down(),
        }
    }

    fn pin_or_let_go(&mut self) {
        let trials: Vec<TrialId> = self.house.journal.trials.keys().copied().collect();
        let pinned = self.dice.chance(600);
        self.wish_of_one(&trials, |trial| Event::Pin {
            trial,
            pinned,
            ended: None,
        });
    }

    fn publish(&mut self) {
        let trials: Vec<TrialId> = self.house.journal.trials.keys().copied().collect();
        let id = TaskId(self.dice.any());
        self.wish_of_one(&trials, |trial| Event::TaskSubmitted {
            id,
            spec: TaskSpec::Publish {
                model: "m".to_owned(),
                trial,
                alias: Some("tried".to_owned()),
            },
            priority: 60,
        });
    }

    fn wish_for_an_alias(&mut self, deed: Deed) {
        let (model, alias) = ("m".to_owned(), "champion".to_owned());
        let event = if matches!(deed, Deed::Rollback) {
            Event::AliasRollback {
                model,
                alias,
                reason: "a user regrets it".to_owned(),
                to: 1,
                by: Actor::default(),
            }
        } else {
            Event::AliasSet {
                model,
                alias,
                number: self.dice.count(0, 3),
                expected_revision: None,
                reason: "a user wants it".to_owned(),
                by: Actor::default(),
                evidence: None,
            }
        };
        self.wish(event);
    }

    /// A client registers, deletes, renames.
    fn tidy_the_registry(&mut self) {
        let wish = match self.dice.count(0, 9) {
            0..4 => RegistryWish::Register {
                files: Vec::new(),
                registration: Box::new(Registration {
                    source: "s3://elsewhere/model".to_owned(),
                    ..Registration::default()
                }),
                metrics: BTreeMap::new(),
                description: "of a client".to_owned(),
                tags: BTreeMap::from([("team".to_owned(), "vision".to_owned())]),
            },
            4..7 => RegistryWish::DeleteVersion {
                number: self.dice.count(0, 5),
                pulled_until: None,
            },
            7..9 => RegistryWish::DeleteAlias {
                alias: "champion".to_owned(),
                reason: "nobody uses it".to_owned(),
            },
            _ => RegistryWish::DeleteModel { pulled_until: None },
        };
        self.wish(Event::Registry {
            model: "m".to_owned(),
            wish,
            by: Actor::default(),
        });
    }

    fn any_worker(&mut self) -> usize {
        self.dice.between(0, self.workers.len() as i64 - 1) as usize
    }

    fn wish_of_one<T: Copy>(&mut self, from: &[T], event: impl Fn(T) -> Event) {
        if !from.is_empty() {
            let target = self.dice.pick(from);
            self.wish(event(target));
        }
    }

    fn wish_of_experiment(&mut self, event: impl Fn(ExperimentId) -> Event) {
        let rows: Vec<_> = self.house.cluster.experiments().map(|row| row.id).collect();
        self.wish_of_one(&rows, event);
    }

    fn submit(&mut self) {
        let spec = draw_spec(self);
        let id = ExperimentId(self.dice.any());
        if self.dice.chance(400) {
            let number = self.dice.count(1, spec.search.max_trials);
            let trial = TrialId::derive(&id.to_string(), u64::from(number));
            self.poison.insert(trial, self.dice.count(0, 1));
        }
        let event = Event::Submitted {
            id,
            spec: Box::new(spec),
            source: String::new(),
            dataset: Some(Digest([1; 32])),
            backbone: Some(Digest([2; 32])),
            plan: None,
        };
        self.wish(event);
    }

    fn submit_task(&mut self) {
        let spec = if self.dice.chance(500) {
            TaskSpec::ImportDataset {
                name: "d".to_owned(),
                archive: Digest([3; 32]),
                options: pomona_domain::dataset::ImportOptions::default(),
            }
        } else {
            TaskSpec::ImportBackbone {
                name: "r".to_owned(),
                arch: "resnet18".to_owned(),
                weights: Digest([4; 32]),
            }
        };
        let event = Event::TaskSubmitted {
            id: TaskId(self.dice.any()),
            spec,
            priority: self.dice.pick(&[40, 60]),
        };
        self.wish(event);
    }

    /// Faults stop, most workers are back, what is paused is resumed, and there is room for
    /// everything.
    fn calm_down(&mut self) {
        self.weather = Weather {
            upload_ms: 200,
            ..Weather::default()
        };
        for at in 0..self.workers.len() {
            self.workers[at].cut_until = BEGIN;
            self.workers[at].is_bad = false;
            let id = self.workers[at].id;
            let row = self.house.journal.workers.get(&id);
            // A restart makes a drained worker useful again, and so does an operator.
            if row.is_some_and(|row| row.state == WorkerState::Draining) {
                if self.dice.chance(500) {
                    self.workers[at].die();
                } else {
                    self.wish(Event::Undrain(id));
                }
            }
            // Some never come back: what they held must not wait for them.
            if self.dice.chance(600) {
                self.start_worker(at);
            }
        }
        // Where slots are few they stay so: trials then go on sharing them to the end.
        let rows = self.house.journal.experiments.values();
        let most = rows.map(|row| row.spec.resources.slots_per_trial).max();
        let slots = vec![SlotKind::Cpu; most.unwrap_or(1) as usize];
        // It is whatever any file selects.
        for (name, zone) in [("large", "l"), ("larger", "a")] {
            let mut worker = Worker::new(name, &slots);
            worker.labels.insert("zone".to_owned(), zone.to_owned());
            self.join(worker);
        }
        // A wish to pause may still be on its way.
        for wait in [0, 8_000] {
            self.plan_deed(wait, Deed::ResumeAll);
        }
    }
}
