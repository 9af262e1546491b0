//! Gauges that are computed from the committed cluster at each scrape.

use pomona_domain::experiment::Experiment;
use pomona_domain::metric::Direction;
use pomona_domain::spec::{CROSS_METRICS, GATE_METRICS, METRICS};
use pomona_domain::task::TaskState;
use pomona_domain::trial::TrialState;
use pomona_domain::worker::{SlotKind, WorkerState};
use pomona_scheduler::Cluster;
use pomona_search::Searcher;
use prometheus::GaugeVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Maker;

/// Priorities with a label of their own; the rest fold into `other`.
const MAX_PRIORITIES: usize = 20;
/// Aliases with a label of their own; the rest fold into `other`.
const MAX_ALIASES: usize = 500;
const OTHER: &str = "other";

/// The gauges. A scrape resets and fills them under a lock.
#[derive(Debug)]
pub struct Gauges {
    max_experiments: usize,
    filling: Mutex<()>,
    workers: GaugeVec,
    slots: GaugeVec,
    queue: GaugeVec,
    trials: GaugeVec,
    best: GaugeVec,
    last: GaugeVec,
    rungs: GaugeVec,
    aliases: GaugeVec,
    folded: GaugeVec,
}

impl Gauges {
    pub(super) fn new(make: &Maker, max_experiments: usize) -> Result<Self, prometheus::Error> {
        Ok(Self {
            max_experiments,
            filling: Mutex::default(),
            workers: make.gauges("pomona_workers", "Workers.", &["state"])?,
            slots: make.gauges("pomona_slots", "Slots.", &["state", "kind"])?,
            queue: make.gauges(
                "pomona_queue_depth",
                "Trials and tasks that wait for slots.",
                &["priority"],
            )?,
            trials: make.gauges(
                "pomona_trials",
                "Trials of experiments that have not ended.",
                &["state"],
            )?,
            best: make.gauges(
                "pomona_objective_best",
                "Best value of the objective so far.",
                &["experiment", "metric"],
            )?,
            last: make.gauges(
                "pomona_objective_last",
                "Newest value of the objective.",
                &["experiment", "metric"],
            )?,
            rungs: make.gauges(
                "pomona_rung_trials",
                "Points that came to a rung, of all phases and brackets.",
                &["experiment", "rung"],
            )?,
            aliases: make.gauges(
                "pomona_model_alias_info",
                "1, labelled with the version an alias points to.",
                &["model", "alias", "version"],
            )?,
            folded: make.gauges(
                "pomona_metrics_folded",
                "Things that share the label `other` because there are too many.",
                &["what"],
            )?,
        })
    }

    /// Fills all gauges; hold the guard until they are gathered.
    pub fn fill(&self, cluster: &Cluster) -> MutexGuard<'_, ()> {
        let held = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        self.fill_workers(cluster);
        self.fill_queue(cluster);
        self.fill_trials(cluster);
        self.fill_objectives(cluster);
        self.fill_aliases(cluster);
        held
    }

    fn fill_workers(&self, cluster: &Cluster) {
        self.workers.reset();
        self.slots.reset();
        for state in [WorkerState::Alive, WorkerState::Draining, WorkerState::Lost] {
            self.workers.with_label_values(&[state.name()]).set(0.0);
        }
        let busy: BTreeSet<_> = cluster.leases().flat_map(|lease| &lease.slots).collect();
        for worker in cluster.workers() {
            self.workers.with_label_values(&[worker.state.name()]).inc();
            for slot in &worker.slots {
                let kind = match slot.kind {
                    SlotKind::Cpu => "cpu",
                    SlotKind::Cuda => "cuda",
                };
                let held = busy
                    .iter()
                    .any(|held| held.worker == worker.id && held.index == slot.index);
                let state = match (held, worker.state) {
                    (true, _) => "busy",
                    (false, WorkerState::Alive) => "free",
                    (false, WorkerState::Draining) => "draining",
                    (false, WorkerState::Lost) => "lost",
                };
                self.slots.with_label_values(&[state, kind]).inc();
            }
        }
    }

    fn fill_queue(&self, cluster: &Cluster) {
        self.queue.reset();
        let mut depth: BTreeMap<i32, u32> = BTreeMap::new();
        for trial in cluster.trials() {
            if matches!(trial.state, TrialState::Waiting { .. }) {
                let owner = cluster.experiment(trial.experiment);
                let priority = owner.map_or(0, |experiment| experiment.spec.priority);
                *depth.entry(priority).or_default() += 1;
            }
        }
        for task in cluster.tasks() {
            if task.state == TaskState::Waiting {
                *depth.entry(task.priority).or_default() += 1;
            }
        }
        for (n, (priority, count)) in depth.iter().rev().enumerate() {
            let label = if n < MAX_PRIORITIES {
                priority.to_string()
            } else {
                OTHER.to_owned()
            };
            self.queue
                .with_label_values(&[label.as_str()])
                .add(f64::from(*count));
        }
    }

    fn fill_trials(&self, cluster: &Cluster) {
        self.trials.reset();
        for trial in cluster.trials() {
            self.trials.with_label_values(&[trial.state.name()]).inc();
        }
    }

    fn fill_objectives(&self, cluster: &Cluster) {
        self.best.reset();
        self.last.reset();
        self.rungs.reset();
        self.folded.reset();
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        for experiment in cluster.experiments() {
            *names.entry(&experiment.spec.name).or_default() += 1;
        }
        let mut folded = 0;
        // The best of all that share a label.
        let mut bests: BTreeMap<(String, &'static str), f64> = BTreeMap::new();
        for (n, experiment) in cluster.experiments().enumerate() {
            let name = &experiment.spec.name;
            let label = if n >= self.max_experiments {
                folded += 1;
                OTHER.to_owned()
            } else if names.get(name.as_str()).is_some_and(|count| *count > 1) {
                format!("{name} {}", experiment.id)
            } else {
                name.clone()
            };
            self.fill_rungs(&label, experiment);
            let metric = &experiment.spec.search.objective();
            let shown = metric_label(metric);
            let labels = [label.as_str(), shown];
            let direction = experiment.spec.search.direction;
            let best = (cluster.trials_of(experiment.id))
                .filter_map(|trial| trial.best.as_ref())
                .map(|best| best.value)
                .reduce(|a, b| better(direction, a, b));
            if let Some(best) = best {
                let shared = bests.entry((label.clone(), shown)).or_insert(best);
                *shared = better(direction, *shared, best);
                self.best.with_label_values(&labels).set(*shared);
            }
            // What every epoch has, also where the objective comes with the last.
            let metric = &experiment.spec.search.metric;
            let last = (cluster.trials_of(experiment.id))
                .filter_map(|trial| trial.latest.get(metric))
                .last();
            if let Some(last) = last {
                let labels = [label.as_str(), metric_label(metric)];
                self.last.with_label_values(&labels).set(*last);
            }
        }
        self.folded
            .with_label_values(&["experiments"])
            .set(f64::from(folded));
    }

    fn fill_rungs(&self, label: &str, experiment: &Experiment) {
        if experiment.spec.search.halving().is_none() {
            return;
        }
        let searcher = Searcher::restore(&experiment.searcher);
        for row in searcher.iter().flat_map(Searcher::standings) {
            let labels = [label, &row.rung.to_string()];
            let rung = self.rungs.with_label_values(&labels);
            rung.add(row.entries.len() as f64);
        }
    }

    fn fill_aliases(&self, cluster: &Cluster) {
        self.aliases.reset();
        let mut folded = 0;
        for (n, alias) in cluster.aliases().enumerate() {
            if n >= MAX_ALIASES {
                folded += 1;
                self.aliases
                    .with_label_values(&[OTHER, OTHER, OTHER])
                    .set(1.0);
                continue;
            }
            let version = alias.number.to_string();
            self.aliases
                .with_label_values(&[alias.model.as_str(), &alias.alias, &version])
                .set(1.0);
        }
        self.folded
            .with_label_values(&["aliases"])
            .set(f64::from(folded));
    }
}

fn better(direction: Direction, a: f64, b: f64) -> f64 {
    if direction.is_better(b, a) { b } else { a }
}

/// A metric's name as a label: names we know, and `other`.
pub fn metric_label(metric: &str) -> &'static str {
    let known = METRICS
        .iter()
        .chain(CROSS_METRICS)
        .chain(GATE_METRICS)
        .find(|name| **name == metric);
    known.copied().unwrap_or(OTHER)
}
