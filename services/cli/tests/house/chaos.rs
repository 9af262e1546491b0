//! Faults of every kind at random, seeded moments, and what must hold in the end: nothing lost,
//! nothing counted twice, no slot leaked, no process left behind.
//!
//! `make chaos` runs more seeds and more trials; a failing seed is run again with
//! `make chaos SEEDS=1 FIRST=7`. What happened goes to `target/bench/chaos.json`.

#[path = "chaos/places.rs"]
mod places;
#[path = "chaos/report.rs"]
mod report;
#[path = "chaos/rungs.rs"]
mod rungs;
#[path = "chaos/watch.rs"]
mod watch;
#[path = "chaos/wire.rs"]
mod wire;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{self, FAKE_TRAINER, House, REAL_TRAINER, Worker};
use places::{SmallDisk, processes_in, wrong_clock};
use report::Report;
use watch::Watch;
use wire::{Mood, Wire};

/// A lease whose worker is silent for longer is over.
const TERM: Duration = Duration::from_secs(3);
/// Pace of a step under faults, and without.
const PACES: [&str; 2] = ["200", "10"];

const GRID: &str = "
name: grid
backbone: lite
dataset: flowers
train: {epochs: 10, batch_size: 16, optimizer: {kind: adamw}, learning_rate: 0.001}
search:
  strategy: grid
  metric: val/accuracy
  max_concurrent: 6
  space:
    train.learning_rate: {log_uniform: [1.0e-4, 1.0e-1], count: 6}
    train.optimizer.weight_decay: {values: [0.0, 0.01]}
    transfer.frozen_depth: {values: [all, _blocks.14]}
";

/// One that is really trained. Its trials are few, and share the features of each depth.
const REAL_GRID: &str = "
name: real
backbone: lite
dataset: flowers
train: {epochs: 8, batch_size: 16, optimizer: {kind: adamw}, learning_rate: 0.001}
search:
  strategy: grid
  metric: val/accuracy
  max_concurrent: 6
  space:
    train.learning_rate: {log_uniform: [1.0e-3, 1.0e-1], count: 3}
    transfer.frozen_depth: {values: [all, _blocks.14]}
";

/// A search with rungs. Each trial is a process of its own, so that there are many.
fn asha(trials: u64) -> String {
    format!(
        "
name: asha
backbone: lite
dataset: flowers
share: \"off\"
train: {{epochs: 9, batch_size: 16, optimizer: {{kind: adamw}}, learning_rate: 0.001}}
search:
  strategy: asha
  metric: val/accuracy
  max_trials: {trials}
  max_concurrent: 6
  space:
    train.learning_rate: {{log_uniform: [1.0e-4, 1.0e-1]}}
    train.optimizer.weight_decay: {{uniform: [0.0, 0.1]}}
"
    )
}

fn trials_of_asha() -> u64 {
    number("POMONA_CHAOS_TRIALS", 40)
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// The kinds of faults, in the words of the report.
const KINDS: [&str; 14] = [
    "leader_killed",
    "coordinator_killed",
    "leader_held",
    "worker_killed",
    "worker_held",
    "rank_killed",
    "postgres_restarted",
    "sessions_killed",
    "redis_killed",
    "requests_lost",
    "requests_delayed",
    "requests_doubled",
    "disk_full",
    "clock_jumped",
];

/// What a worker is given beside the program.
struct Place {
    name: &'static str,
    /// Its data folder, on a small disk of its own where that can be made.
    disk: Option<SmallDisk>,
    /// A file with the milliseconds that its clock is wrong by, and the library that reads it.
    clock: Option<(PathBuf, PathBuf)>,
    worker: Option<Worker>,
}

struct Chaos {
    house: House,
    places: Vec<Place>,
    wire: Wire,
    dice: StdRng,
    pace: &'static str,
    watch: Watch,
    struck: BTreeMap<&'static str, u32>,
    recovery: BTreeMap<&'static str, Vec<f64>>,
}

#[test]
fn chaos_loses_nothing() {
    under_seeds("chaos", |seed| Chaos::open(seed, FAKE_TRAINER).run());
}

#[test]
#[ignore = "it needs the real trainer: `make chaos`"]
fn chaos_loses_nothing_that_was_really_trained() {
    under_seeds("chaos-real", |seed| {
        Chaos::open(seed, REAL_TRAINER).run_real()
    });
}

/// Runs the seeds that were asked for; what came of them goes to a file.
fn under_seeds(name: &str, run: impl Fn(u64) -> Report) {
    let first = number("POMONA_CHAOS_FIRST", 1);
    let seeds = number("POMONA_CHAOS_SEEDS", 3);
    let mut whole = Report::default();
    for seed in first..first + seeds {
        let report = run(seed);
        report.print(seed);
        whole.add(report);
        whole.write(name, seed + 1 - first);
    }
    assert_eq!(whole.faults(), Vec::<String>::new());
    assert!(whole.looks > 0, "the database was watched");
}

impl Chaos {
    fn open(seed: u64, trainer: &'static str) -> Self {
        let mut house = House::open_for_chaos(TERM, trainer);
        house.open_beside();
        let ports = vec![house.port, house.beside[0].port];
        let wire = Wire::to(ports);
        let mut chaos = Self {
            places: Vec::new(),
            wire,
            dice: StdRng::seed_from_u64(seed),
            pace: PACES[0],
            watch: Watch::default(),
            struck: BTreeMap::new(),
            recovery: BTreeMap::new(),
            house,
        };
        for name in ["a", "b", "wired"] {
            let disk = (name == "a")
                .then(|| SmallDisk::mount(&chaos.house))
                .flatten();
            let clock = (name == "b").then(|| wrong_clock(&chaos.house)).flatten();
            chaos.places.push(Place {
                name,
                disk,
                clock,
                worker: None,
            });
            let last = chaos.places.len() - 1;
            chaos.start(last);
        }
        chaos
    }

    /// A grid and a search with rungs, both twice: with faults, and without.
    fn run(mut self) -> Report {
        let asha = asha(trials_of_asha());
        let faulty = [GRID, &asha].map(|file| self.under_faults(file));
        self.mend();
        let quiet = [GRID, &asha].map(|file| {
            let id = self.house.submit(file);
            self.wait_ended(&id);
            id
        });
        let mut report = Report::default();
        report.compare(&self.curves(&faulty[0]), &self.curves(&quiet[0]));
        let curves = [&faulty[1], &quiet[1]].map(|id| self.curves(id));
        for (id, curves) in [&faulty[1], &quiet[1]].into_iter().zip(&curves) {
            let row = self.house.json(&["experiment", "show", id]);
            let row = serde_json::from_value(row).expect("an experiment");
            report.violations.extend(rungs::judge(&row, curves));
        }
        report
            .lost
            .extend(rungs::are_prefixes(&curves[0], &curves[1]));
        self.conclude(report)
    }

    /// A real grid, with faults and without.
    fn run_real(mut self) -> Report {
        let faulty = self.under_faults(REAL_GRID);
        self.mend();
        let quiet = self.house.submit(REAL_GRID);
        self.wait_ended(&quiet);
        let mut report = Report::default();
        report.compare(&self.curves(&faulty), &self.curves(&quiet));
        self.conclude(report)
    }

    /// What there is to say beside the curves.
    fn conclude(mut self, mut report: Report) -> Report {
        self.leftovers(&mut report);
        report.violations.append(&mut self.watch.violations);
        report.looks = self.watch.looks;
        report.struck = std::mem::take(&mut self.struck);
        report.recovery = std::mem::take(&mut self.recovery);
        report
    }

    /// Runs an experiment while faults strike.
    fn under_faults(&mut self, file: &str) -> String {
        let experiment = self.house.submit(file);
        let mut bag = Vec::new();
        while !self.has_ended(&experiment) {
            self.calm();
            // Each kind once before any comes again.
            if bag.is_empty() {
                bag.extend(KINDS);
            }
            let kind = bag.swap_remove(self.dice.random_range(0..bag.len()));
            if self.strike(kind).is_some() {
                *self.struck.entry(kind).or_default() += 1;
            }
        }
        experiment
    }

    /// A moment between faults, in which the database is watched.
    fn calm(&mut self) {
        let end = Instant::now() + Duration::from_millis(self.dice.random_range(100..900));
        while Instant::now() < end {
            self.look();
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn look(&mut self) {
        let postgres = self.house.postgres.as_ref().expect("its own");
        self.watch.look(postgres);
    }

    fn strike(&mut self, kind: &'static str) -> Option<()> {
        match kind {
            "leader_killed" => {
                self.kill_coordinator(true);
                Some(())
            }
            "coordinator_killed" => {
                self.kill_coordinator(false);
                Some(())
            }
            "leader_held" => self.hold_leader(),
            "worker_killed" => {
                let which = self.dice.random_range(0..self.places.len());
                self.places[which].worker.as_ref()?.kill();
                self.calm();
                self.start(which);
                Some(())
            }
            "worker_held" => {
                let which = self.dice.random_range(0..self.places.len());
                let pid = self.places[which].worker.as_ref()?.pid();
                harness::send(pid, Signal::SIGSTOP);
                self.wait_for(TERM + Duration::from_millis(500));
                harness::send(pid, Signal::SIGCONT);
                Some(())
            }
            "rank_killed" => {
                let which = self.dice.random_range(0..self.places.len());
                let ranks = self.places[which].worker.as_ref()?.ranks();
                let rank = ranks.get(self.dice.random_range(0..ranks.len().max(1)))?;
                harness::send(*rank, Signal::SIGKILL);
                Some(())
            }
            "postgres_restarted" => {
                let begun = Instant::now();
                self.house.postgres.as_mut().expect("its own").restart();
                self.recovered("postgres_restarted", begun);
                Some(())
            }
            "sessions_killed" => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE application_name = 'pomona'";
                let postgres = self.house.postgres.as_ref().expect("its own");
                postgres.query(sql).map(|_| ())
            }
            "redis_killed" => {
                self.house.redis.as_mut().expect("its own").stop();
                self.calm();
                self.house.redis.as_mut().expect("its own").restart();
                Some(())
            }
            "requests_lost" | "requests_delayed" | "requests_doubled" => {
                self.bad_line(match kind {
                    "requests_lost" => Mood::Loses,
                    "requests_delayed" => Mood::Delays,
                    _ => Mood::Doubles,
                });
                Some(())
            }
            "disk_full" => self.fill_disk(),
            "clock_jumped" => {
                let clock = self.places.iter().find_map(|place| place.clock.as_ref());
                let (file, _) = clock?.clone();
                let wrong: i64 = self.dice.random_range(-3_600_000..3_600_000);
                fs::write(file, wrong.to_ne_bytes()).expect("the clock");
                Some(())
            }
            other => panic!("`{other}` is no fault"),
        }
    }

    /// Kills the coordinator that leads, or another one; waits until one leads; starts it again.
    fn kill_coordinator(&mut self, leader: bool) {
        let first = self.house.leads() == leader;
        let begun = Instant::now();
        if first {
            self.house.kill_coordinator();
        } else {
            self.house.beside[0].process.0.kill().expect("it is ours");
            self.house.beside[0].process.0.wait().expect("it is ours");
        }
        if leader {
            self.recovered("leader_killed", begun);
        }
        self.calm();
        if first {
            self.house.start_coordinator();
        } else {
            self.house.restart_beside(0);
        }
    }

    fn hold_leader(&mut self) -> Option<()> {
        let first = self.house.leads();
        let pid = if first {
            self.house.coordinator.as_ref()?.0.id()
        } else {
            self.house.beside[0].process.0.id()
        };
        harness::send(pid, Signal::SIGSTOP);
        self.wait_for(Duration::from_millis(2500));
        harness::send(pid, Signal::SIGCONT);
        Some(())
    }

    /// Waits until some coordinator leads, and notes how long it took.
    fn recovered(&mut self, what: &'static str, since: Instant) {
        harness::wait("a coordinator leads", || {
            self.house.leads() || self.house.beside[0].leads()
        });
        let seconds = since.elapsed().as_secs_f64();
        self.recovery.entry(what).or_default().push(seconds);
    }

    fn bad_line(&mut self, mood: Mood) {
        self.wire.set(mood);
        let lasts = Duration::from_millis(self.dice.random_range(500..2500));
        self.wait_for(lasts);
        self.wire.set(Mood::Good);
    }

    fn fill_disk(&mut self) -> Option<()> {
        let disk = self.places.iter().find_map(|place| place.disk.as_ref())?;
        let file = disk.0.join("filler");
        let status = Command::new("dd")
            .args(["if=/dev/zero", "bs=64k"])
            .arg(format!("of={}", file.display()))
            .stderr(std::process::Stdio::null())
            .status();
        let full = status.is_ok_and(|status| !status.success());
        self.wait_for(Duration::from_millis(1500));
        fs::remove_file(file).expect("the filler");
        full.then_some(())
    }

    fn wait_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look();
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Everything runs anew, on time, over good lines, and as fast as it can.
    fn mend(&mut self) {
        self.wire.set(Mood::Good);
        self.pace = PACES[1];
        for which in 0..self.places.len() {
            if let Some((file, _)) = &self.places[which].clock {
                fs::write(file, 0_i64.to_ne_bytes()).expect("the clock");
            }
            self.places[which].worker = None;
            self.start(which);
        }
    }

    fn start(&mut self, which: usize) {
        let place = &self.places[which];
        let mut variables = vec![("FAKE_STEP_MS", self.pace)];
        let usual = self.house.path(&format!("worker-{}", place.name));
        let folder = place.disk.as_ref().map_or(usual, |disk| disk.0.clone());
        if let Some((file, library)) = &place.clock {
            variables.push(("LD_PRELOAD", library.to_str().expect("UTF-8")));
            variables.push(("WRONG_CLOCK", file.to_str().expect("UTF-8")));
        }
        let server = if place.name == "wired" {
            format!("http://127.0.0.1:{}", self.wire.port)
        } else {
            self.house.server()
        };
        let worker = self
            .house
            .worker_at(&server, (place.name, 2), &folder, &variables);
        self.places[which].worker = Some(worker);
    }

    fn has_ended(&self, experiment: &str) -> bool {
        self.progress(experiment).0
    }

    /// Whether an experiment has ended, and how many of its trials have.
    fn progress(&self, experiment: &str) -> (bool, u64) {
        let sql = format!(
            "SELECT ended::int, (SELECT count(*) FROM trials WHERE trials.ended AND experiment_id = \
             experiments.id) FROM experiments WHERE id = '{experiment}'"
        );
        let postgres = self.house.postgres.as_ref().expect("its own");
        let lines = postgres.query(&sql).unwrap_or_default();
        let numbers = lines.first().and_then(|line| line.split_once('|'));
        numbers.map_or((false, 0), |(ended, trials)| {
            (ended == "1", trials.parse().unwrap_or(0))
        })
    }

    /// Hundreds of trials take their time; that one ends now and then is asked of them.
    fn wait_ended(&mut self, experiment: &str) {
        let mut seen = (false, 0);
        while !seen.0 {
            harness::wait("another trial ends, or the experiment", || {
                self.look();
                let before = std::mem::replace(&mut seen, self.progress(experiment));
                seen > before
            });
        }
    }

    /// Trial number → (state and why it failed, step → metrics).
    fn curves(&self, experiment: &str) -> BTreeMap<u64, (Value, Value)> {
        let trials = self.house.trials(experiment);
        let curve = |trial: &Value| {
            let seen = self
                .house
                .observations(trial["id"].as_str().expect("an id"));
            let points = seen
                .iter()
                .map(|one| json!([one["step"], one["epoch"], one["metrics"]]));
            let whole = json!([trial["hparams"], points.collect::<Vec<_>>()]);
            let state = match trial.get("fault") {
                None => trial["state"].clone(),
                Some(fault) => json!([trial["state"], fault]),
            };
            (trial["number"].as_u64().expect("a number"), (state, whole))
        };
        trials.iter().map(curve).collect()
    }

    /// What must not be there any more once everything has ended and every worker has stopped.
    fn leftovers(&mut self, report: &mut Report) {
        let postgres = self.house.postgres.as_ref().expect("its own");
        let live = postgres.query("SELECT id FROM leases WHERE NOT ended");
        report.leaked = live.expect("the database answers");
        let workers: Vec<Worker> = self
            .places
            .iter_mut()
            .filter_map(|p| p.worker.take())
            .collect();
        for worker in &workers {
            harness::send(worker.pid(), Signal::SIGTERM);
        }
        harness::wait("workers stop", || {
            workers
                .iter()
                .all(|worker| !harness::is_alive(worker.pid()))
        });
        drop(workers);
        let home = self.house.path("workers");
        let home = home.parent().expect("the house's own folder");
        report.orphans = processes_in(home).iter().map(u32::to_string).collect();
    }
}
