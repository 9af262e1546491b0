//! Prometheus metrics. Counters and histograms grow with what is committed; gauges are computed
//! from the committed cluster when they are asked for. No label has values without a bound.

mod gauges;

use pomona_domain::gate::{GateFact, GateKind, Judgement};
use pomona_domain::lease::{Lease, LeaseState, StopReason};
use pomona_domain::model::Version;
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Change, Timestamp, TrialId};
use pomona_scheduler::{Cluster, Event};
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, Opts, Registry, TextEncoder,
};
use std::collections::BTreeMap;
use std::time::Duration;

use gauges::Gauges;

const FAST: &[f64] = &[
    0.000_01, 0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
const HTTP: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
const WAITS: &[f64] = &[
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0,
];

/// Every metric of the coordinator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    gauges: Gauges,
    /// 1 while this process decides.
    pub leader: IntGauge,
    pub redis: IntGauge,
    pub redis_lost: IntCounter,
    /// Commits that failed or whose outcome was unknown.
    pub commit_failures: IntCounter,
    /// Requests by route, method and status.
    pub http: HistogramVec,
    /// Versions that were looked up to be pulled.
    pub pulls: IntCounterVec,
    /// Blobs that were collected.
    pub blobs_collected: IntCounter,
    decide: Histogram,
    commit: Histogram,
    events: IntCounterVec,
    queue_wait: Histogram,
    trial_start: Histogram,
    trials_total: IntCounterVec,
    restarts: IntCounterVec,
    preemptions: IntCounterVec,
    pub points: IntCounter,
    /// Attempts of deliveries by what came of them, and deliveries that were dropped.
    pub deliveries: IntCounterVec,
    /// Age of the oldest event that a webhook is still to be told.
    pub outbox_oldest: Gauge,
    promotions: IntCounterVec,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new(max_experiments: usize) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        let leader = about_this(&make)?;
        let (redis, redis_lost) = about_redis(&make)?;
        let (deliveries, outbox_oldest) = about_webhooks(&make)?;
        Ok(Self {
            gauges: Gauges::new(&make, max_experiments)?,
            leader,
            redis,
            redis_lost,
            commit_failures: make.counter(
                "pomona_engine_commit_failures_total",
                "Commits that failed or whose outcome was unknown.",
            )?,
            http: requests(&make)?,
            pulls: make.counters(
                "pomona_model_pulls_total",
                "Model versions looked up to be pulled.",
                &["protocol"],
            )?,
            blobs_collected: make.counter(
                "pomona_blobs_collected_total",
                "Blobs removed because nothing referred to them.",
            )?,
            decide: make.histogram(
                "pomona_engine_decide_seconds",
                "Time to decide one event.",
                FAST,
            )?,
            commit: make.histogram(
                "pomona_engine_commit_seconds",
                "Time to commit one batch of decisions.",
                FAST,
            )?,
            events: make.counters(
                "pomona_engine_events_total",
                "Events that were decided.",
                &["kind"],
            )?,
            queue_wait: make.histogram(
                "pomona_queue_wait_seconds",
                "Time a trial waited for its slots.",
                WAITS,
            )?,
            trial_start: make.histogram(
                "pomona_trial_start_seconds",
                "Time from a trial's making to its first measurement.",
                WAITS,
            )?,
            trials_total: make.counters(
                "pomona_trials_total",
                "Trials that ended.",
                &["outcome"],
            )?,
            restarts: restarts(&make)?,
            preemptions: preemptions(&make)?,
            points: make.counter(
                "pomona_ingest_points_total",
                "Metric values that were counted.",
            )?,
            deliveries,
            outbox_oldest,
            promotions: make.counters(
                "pomona_promotions_total",
                "Versions that were promoted or refused, by the gate that refused.",
                &["decision", "gate"],
            )?,
            registry,
        })
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self, cluster: Option<&Cluster>) -> Result<Vec<u8>, prometheus::Error> {
        let _held = cluster.map(|cluster| self.gauges.fill(cluster));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// An event was decided.
    pub fn decided(&self, event: &Event, took: Duration) {
        self.decide.observe(took.as_secs_f64());
        self.events.with_label_values(&[kind(event)]).inc();
    }

    /// A batch was committed.
    pub fn committed(&self, took: Duration) {
        self.commit.observe(took.as_secs_f64());
    }

    /// Counts what a commit changed, against the cluster before it.
    pub fn count<'a>(
        &self,
        before: &Cluster,
        now: Timestamp,
        changes: impl Iterator<Item = &'a Change>,
    ) {
        let mut newest: BTreeMap<TrialId, &Trial> = BTreeMap::new();
        let mut promoted: Vec<(&str, u32)> = Vec::new();
        let mut versions: Vec<&Version> = Vec::new();
        for change in changes {
            match change {
                Change::Trial(row) => {
                    let old = newest.get(&row.id).copied();
                    let old = old.or_else(|| before.trial(row.id));
                    self.moved(old, row, now);
                    newest.insert(row.id, row);
                }
                Change::Lease(row) => self.yielded(before, row),
                Change::Observed(row) => self.points.inc_by(row.metrics.len() as u64),
                Change::Version(row) => versions.push(row),
                Change::AliasMoved(row) => promoted.push((&row.model, row.to)),
                Change::Gates(GateFact::Judged(row)) => self.judged(row),
                Change::Experiment(_)
                | Change::Worker(_)
                | Change::Task(_)
                | Change::Checkpoint(_)
                | Change::CheckpointDeleted(..)
                | Change::Described(_)
                | Change::Removed(_)
                | Change::Audited(_)
                | Change::Dataset(_)
                | Change::Backbone(_)
                | Change::Gates(_)
                | Change::Reason(_) => {}
            }
        }
        for version in versions.iter().filter(|version| version.gates.is_empty()) {
            let moved = promoted.contains(&(version.model.as_str(), version.number));
            let decision = if moved { "promoted" } else { "published" };
            self.promotions.with_label_values(&[decision, "none"]).inc();
        }
    }

    /// A trial's row is new or changed. A decision writes a row once, however often it moves it:
    /// what waited for no time was never seen waiting.
    fn moved(&self, old: Option<&Trial>, new: &Trial, now: Timestamp) {
        if old.is_none_or(|old| old.last_step == 0) && new.last_step > 0 {
            self.trial_start.observe(seconds(now, new.created_at));
        }
        let waited_since = match old.map(|old| &old.state) {
            None => Some(new.created_at),
            Some(TrialState::Waiting { since, .. }) => Some(*since),
            Some(_) => None,
        };
        let runs = matches!(new.state, TrialState::Running { .. });
        if let Some(since) = waited_since
            && runs
        {
            self.queue_wait.observe(seconds(now, since));
        }
        let ran = old.filter(|old| matches!(old.state, TrialState::Running { .. }));
        if let Some(old) = ran
            && (runs || matches!(new.state, TrialState::Waiting { .. }))
            && old.lease() != new.lease()
        {
            let crashed = new.restarts > old.restarts;
            let reason = if crashed { "crashed" } else { "displaced" };
            self.restarts.with_label_values(&[reason]).inc();
        }
        if new.is_ended() && old.is_none_or(|old| !old.is_ended()) {
            let outcome = new.state.name();
            self.trials_total.with_label_values(&[outcome]).inc();
        }
    }

    /// A lease's row is new or changed: whether it is asked to yield now.
    fn yielded(&self, before: &Cluster, row: &Lease) {
        let LeaseState::Stopping { why, .. } = row.state else {
            return;
        };
        let asked = (before.lease(row.id))
            .is_some_and(|old| matches!(old.state, LeaseState::Stopping { .. }));
        let reason = match why {
            StopReason::Request => return,
            StopReason::Priority => "priority",
            StopReason::Drain => "drain",
        };
        if !asked {
            self.preemptions.with_label_values(&[reason]).inc();
        }
    }

    /// Gates decided about a version.
    fn judged(&self, row: &Judgement) {
        let decision = match (row.allowed, &row.alias) {
            (true, Some(_)) => "promoted",
            (true, None) => "published",
            (false, _) => "refused",
        };
        if row.allowed {
            self.promotions.with_label_values(&[decision, "none"]).inc();
        }
        for gate in row.gates.iter().filter(|gate| !gate.passed) {
            let label = match gate.kind {
                GateKind::Threshold => {
                    gauges::metric_label(gate.gate.split(' ').next().unwrap_or_default())
                }
                GateKind::ClassFloor
                | GateKind::NoWorseThan
                | GateKind::BetterThan
                | GateKind::Approvals => gate.kind.name(),
            };
            self.promotions.with_label_values(&[decision, label]).inc();
        }
    }
}

fn seconds(now: Timestamp, since: Timestamp) -> f64 {
    now.since_ms(since).max(0) as f64 / 1000.0
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Submitted { .. } => "submitted",
        Event::Pause(_) => "pause",
        Event::Resume(_) => "resume",
        Event::Cancel(_) => "cancel",
        Event::StopTrial(_) => "stop_trial",
        Event::Registered { .. } => "registered",
        Event::Polled { .. } => "polled",
        Event::Measured { .. } => "measured",
        Event::Pin { .. } => "pin",
        Event::Drain { .. } => "drain",
        Event::Undrain(_) => "undrain",
        Event::TaskSubmitted { .. } => "task_submitted",
        Event::TaskCanceled(_) => "task_canceled",
        Event::AliasSet { .. } => "alias_set",
        Event::Approved(_) => "approved",
        Event::AliasRollback { .. } => "alias_rollback",
        Event::Registry { .. } => "registry",
        Event::Tick => "tick",
    }
}

/// What says which program this is; gives the gauge of leadership.
fn about_this(make: &Maker) -> Result<IntGauge, prometheus::Error> {
    let build = make.gauges(
        "pomona_build_info",
        "1, labelled with the program's version.",
        &["version"],
    )?;
    build
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1.0);
    let leader = IntGauge::new("pomona_leader", "1 while this coordinator decides.")?;
    make.0.register(Box::new(leader.clone()))?;
    Ok(leader)
}

/// Whether Redis carries events, and how many it did not.
fn about_redis(make: &Maker) -> Result<(IntGauge, IntCounter), prometheus::Error> {
    let help = "1 while Redis carries events between coordinators.";
    let connected = IntGauge::new("pomona_redis_connected", help)?;
    make.0.register(Box::new(connected.clone()))?;
    let lost = make.counter(
        "pomona_redis_lost_events_total",
        "Events that Redis did not take: other coordinators tell their readers that some are missing.",
    )?;
    Ok((connected, lost))
}

/// What became of deliveries, and how long an event has waited for its own.
fn about_webhooks(make: &Maker) -> Result<(IntCounterVec, Gauge), prometheus::Error> {
    let deliveries = make.counters(
        "pomona_webhook_deliveries_total",
        "Attempts of deliveries to webhooks, by what came of them.",
        &["result"],
    )?;
    let help = "Age of the oldest event that an active webhook is still to be told.";
    let oldest = Gauge::new("pomona_webhook_outbox_oldest_seconds", help)?;
    make.0.register(Box::new(oldest.clone()))?;
    Ok((deliveries, oldest))
}

fn requests(make: &Maker) -> Result<HistogramVec, prometheus::Error> {
    make.histograms(
        "pomona_http_request_duration_seconds",
        "Time to answer a request.",
        HTTP,
        &["route", "method", "status"],
    )
}

fn restarts(make: &Maker) -> Result<IntCounterVec, prometheus::Error> {
    make.counters(
        "pomona_trial_restarts_total",
        "Trials that had to wait for another lease.",
        &["reason"],
    )
}

fn preemptions(make: &Maker) -> Result<IntCounterVec, prometheus::Error> {
    make.counters(
        "pomona_preemptions_total",
        "Leases that were asked to yield by checkpoint, for others of higher priority or because \
         their worker drains.",
        &["reason"],
    )
}

/// Makes metrics and registers them.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<prometheus::GaugeVec, prometheus::Error> {
        let gauges = prometheus::GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histogram = Histogram::with_opts(options)?;
        self.0.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = HistogramVec::new(options, labels)?;
        self.0.register(Box::new(histograms.clone()))?;
        Ok(histograms)
    }
}
