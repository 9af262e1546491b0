//! The worker's own `/metrics`, and the small server they are read from.
//!
//! No label without a bound (a GPU's number is the only one), no trial id. It must never make a
//! trainer wait.

mod server;

pub use server::Server;

use pomona_api::trainer::FeatureResult;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};
use std::sync::Arc;

use crate::cache::Cache;
use crate::features::Features;
use crate::slots::Slots;
use crate::spool::Spool;

/// Buckets of a training step, in seconds.
const STEPS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Buckets of the wait for data, in seconds.
const WAITS: &[f64] = &[0.000_1, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Buckets of writing a checkpoint, in seconds.
const SAVES: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Steps of one progress line that are observed one by one; a line stands for more only after a gap.
const MOST_STEPS: u64 = 10_000;

/// What is asked when the metrics are read.
#[derive(Debug, Clone)]
pub struct Sources {
    /// GPUs.
    pub slots: Arc<Slots>,
    /// Its bytes.
    pub spool: Spool,
    /// Its bytes.
    pub cache: Cache,
    /// Its bytes.
    pub features: Features,
}

/// Every metric of the worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    samples: IntCounter,
    step_seconds: Histogram,
    data_wait_seconds: Histogram,
    checkpoint_bytes: IntCounter,
    checkpoint_save_seconds: Histogram,
    uploads: IntCounter,
    /// Leases whose processes live here.
    pub leases: IntGauge,
    /// 1 while the last poll was answered.
    pub connected: IntGauge,
    spool_bytes: IntGauge,
    cache_bytes: IntGauge,
    features: FeatureMetrics,
    gpu_utilization: GaugeVec,
    gpu_memory: GaugeVec,
    gpu_energy: GaugeVec,
}

/// Those of features of frozen blocks.
#[derive(Debug, Clone)]
struct FeatureMetrics {
    bytes: IntGauge,
    requests: IntCounterVec,
    fetches: IntCounterVec,
}

impl FeatureMetrics {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes: make.gauge(
                "pomona_feature_cache_bytes",
                "Bytes of features of frozen blocks.",
            )?,
            requests: make.counters(
                "pomona_feature_cache_requests_total",
                "Ranks that asked for features, by how it came out.",
                "result",
            )?,
            fetches: make.counters(
                "pomona_feature_fetches_total",
                "Shards of features that another worker has, by what came of them.",
                "result",
            )?,
        })
    }
}

/// What one rank has said of its progress; a process counts from zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Optimiser steps done.
    pub step: u64,
    /// Samples trained since the process began.
    pub samples: u64,
    /// Seconds the network waited for data since then.
    pub data_wait_seconds: f64,
    /// Seconds in steps since then.
    pub step_seconds: f64,
}

/// What came of a shard that another worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// It was fetched.
    Fetched,
    /// Computing it, and all before it, was predicted to be faster.
    Computed,
    /// It did not come, not in time, or damaged; it is computed.
    Failed,
}

impl Fetched {
    fn name(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Computed => "computed",
            Self::Failed => "failed",
        }
    }
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    /// What is said once.
    fn process(&self) -> Result<(), prometheus::Error> {
        let build = self.gauges(
            "pomona_build_info",
            "1, labelled with the program's version.",
            "version",
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        let start = Gauge::new(
            "process_start_time_seconds",
            "Start of the process in seconds since the Unix epoch.",
        )?;
        start.set(crate::now().0 as f64 / 1000.0);
        self.0.register(Box::new(start))
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let made = IntCounter::new(name, help)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        let made = IntCounterVec::new(Opts::new(name, help), &[label])?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let made = IntGauge::new(name, help)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec, prometheus::Error> {
        let made = GaugeVec::new(Opts::new(name, help), &[label])?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = Histogram::with_opts(options)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.process()?;
        Ok(Self {
            samples: make.counter(
                "pomona_train_samples_total",
                "Samples that trainers of this worker trained on.",
            )?,
            step_seconds: make.histogram(
                "pomona_train_step_seconds",
                "Time of an optimiser step of rank 0.",
                STEPS,
            )?,
            data_wait_seconds: make.histogram(
                "pomona_data_wait_seconds",
                "Time an optimiser step of rank 0 waited for data.",
                WAITS,
            )?,
            checkpoint_bytes: make.counter(
                "pomona_checkpoint_bytes_total",
                "Bytes of checkpoints that trainers wrote.",
            )?,
            checkpoint_save_seconds: make.histogram(
                "pomona_checkpoint_save_seconds",
                "Time to write a checkpoint.",
                SAVES,
            )?,
            uploads: make.counter(
                "pomona_worker_upload_failures_total",
                "Uploads that failed and were tried again or given up.",
            )?,
            leases: make.gauge(
                "pomona_worker_leases",
                "Leases whose processes live on this worker.",
            )?,
            connected: make.gauge(
                "pomona_worker_connected",
                "1 while the coordinator answers this worker's polls.",
            )?,
            spool_bytes: make.gauge(
                "pomona_worker_spool_bytes",
                "Bytes of reports that the coordinator has not acknowledged.",
            )?,
            cache_bytes: make.gauge("pomona_worker_cache_bytes", "Bytes of blobs in the cache.")?,
            features: FeatureMetrics::new(&make)?,
            gpu_utilization: make.gauges(
                "pomona_gpu_utilization_ratio",
                "Share of time a GPU was busy.",
                "gpu",
            )?,
            gpu_memory: make.gauges(
                "pomona_gpu_memory_used_bytes",
                "Memory of a GPU in use.",
                "gpu",
            )?,
            gpu_energy: make.gauges(
                "pomona_gpu_energy_joules_total",
                "Energy a GPU has used since its driver was loaded.",
                "gpu",
            )?,
            registry,
        })
    }

    /// Counts what a rank did between two progress lines. A line never takes anything back.
    pub fn progressed(&self, rank: u32, before: Progress, now: Progress) {
        self.samples
            .inc_by(now.samples.saturating_sub(before.samples));
        let steps = now.step.saturating_sub(before.step);
        if rank != 0 || steps == 0 {
            return;
        }
        let mean = |before: f64, now: f64| (now - before).max(0.0) / steps as f64;
        let step = mean(before.step_seconds, now.step_seconds);
        let wait = mean(before.data_wait_seconds, now.data_wait_seconds);
        for _ in 0..steps.min(MOST_STEPS) {
            self.step_seconds.observe(step);
            self.data_wait_seconds.observe(wait);
        }
    }

    /// A checkpoint was written.
    pub fn checkpointed(&self, bytes: u64, seconds: f64) {
        self.checkpoint_bytes.inc_by(bytes);
        self.checkpoint_save_seconds.observe(seconds.max(0.0));
    }

    /// A rank asked for features.
    pub fn asked_for_features(&self, result: FeatureResult) {
        let name = match result {
            FeatureResult::Hit => "hit",
            FeatureResult::Built => "built",
            FeatureResult::NoRoom => "no_room",
        };
        self.features.requests.with_label_values(&[name]).inc();
    }

    /// A shard that another worker has came, or did not.
    pub fn fetched(&self, result: Fetched) {
        let name = result.name();
        self.features.fetches.with_label_values(&[name]).inc();
    }

    /// Shards that came of it so.
    #[cfg(test)]
    pub fn fetches(&self, result: Fetched) -> u64 {
        let name = result.name();
        self.features.fetches.with_label_values(&[name]).get()
    }

    /// An upload failed.
    pub fn upload_failed(&self) {
        self.uploads.inc();
    }

    /// Samples counted so far.
    pub fn samples(&self) -> u64 {
        self.samples.get()
    }

    /// All of it in Prometheus's text format.
    pub fn render(&self, sources: &Sources) -> String {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.spool_bytes.set(bytes(sources.spool.bytes()));
        self.cache_bytes.set(bytes(sources.cache.bytes()));
        self.features.bytes.set(bytes(sources.features.bytes()));
        for (gpu, busy, memory, energy) in sources.slots.gpu_samples() {
            let gpu = gpu.to_string();
            self.gpu_utilization.with_label_values(&[&gpu]).set(busy);
            self.gpu_memory.with_label_values(&[&gpu]).set(memory);
            self.gpu_energy.with_label_values(&[&gpu]).set(energy);
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "the metrics cannot be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(folder: &std::path::Path) -> Sources {
        Sources {
            slots: Arc::new(Slots::cpu(Some(1))),
            spool: Spool::open(folder, 1 << 20).unwrap(),
            cache: Cache::open(&folder.join("cache"), 1 << 20).unwrap(),
            features: Features::new(folder.join("features"), 1 << 20),
        }
    }

    #[test]
    fn progress_lines_become_samples_of_all_ranks_and_steps_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().unwrap();
        let ten = Progress {
            step: 10,
            samples: 80,
            data_wait_seconds: 1.25,
            step_seconds: 2.5,
        };
        metrics.progressed(0, Progress::default(), ten);
        metrics.progressed(1, Progress::default(), ten);
        // A line that says less than one before it takes nothing back.
        metrics.progressed(0, ten, Progress::default());
        metrics.checkpointed(1000, 0.2);
        metrics.asked_for_features(FeatureResult::Hit);
        let text = metrics.render(&sources(folder.path()));
        for line in [
            "pomona_train_samples_total 160",
            "pomona_train_step_seconds_count 10",
            "pomona_train_step_seconds_sum 2.5",
            "pomona_data_wait_seconds_count 10",
            "pomona_checkpoint_bytes_total 1000",
            "pomona_worker_spool_bytes 0",
            "pomona_worker_cache_bytes 0",
            "pomona_feature_cache_bytes 0",
            "pomona_feature_cache_requests_total{result=\"hit\"} 1",
        ] {
            let found = text.lines().find(|l| l.starts_with(line));
            assert!(found.is_some(), "{line} is not in\n{text}");
        }
    }
}
