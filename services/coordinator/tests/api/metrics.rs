//! The page that Prometheus scrapes.

use pomona_domain::report::Outcome;
use pomona_domain::{Code, Fault};
use std::collections::BTreeSet;

use crate::harness::House;
use crate::worker::{Machine, published};
use crate::{GRID, PROMOTED, furnished, submit};

/// Names of interfaces.md that have a source in the coordinator.
const NAMES: &[&str] = &[
    "pomona_build_info",
    "pomona_leader",
    "pomona_workers",
    "pomona_slots",
    "pomona_queue_depth",
    "pomona_queue_wait_seconds",
    "pomona_trial_start_seconds",
    "pomona_trials",
    "pomona_trials_total",
    "pomona_engine_decide_seconds",
    "pomona_engine_commit_seconds",
    "pomona_engine_events_total",
    "pomona_http_request_duration_seconds",
    "pomona_ingest_points_total",
    "pomona_objective_best",
    "pomona_objective_last",
    "pomona_model_alias_info",
    "pomona_promotions_total",
    "pomona_model_pulls_total",
];

/// Name, labels and value of each sample; a line that is none fails the test.
fn samples(page: &str) -> Vec<(&str, &str, f64)> {
    let sample = |line| -> Option<(&str, &str, f64)> {
        let (series, value) = str::rsplit_once(line, ' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}')?;
        Some((name, labels, value.parse().ok()?))
    };
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}")))
        .collect()
}

fn value(page: &str, name: &str, labels: &str) -> f64 {
    let found = samples(page)
        .into_iter()
        .find(|(n, l, _)| *n == name && *l == labels);
    found
        .unwrap_or_else(|| panic!("no {name}{{{labels}}} in\n{page}"))
        .2
}

#[tokio::test]
async fn the_page_has_the_promised_names_and_counts_what_happened() {
    let (house, mut machine) = furnished(1).await;
    submit(&house, PROMOTED, "one").await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.6, 1.0).await;
    let lease = machine.has(1).await.remove(0);
    let result = published(&house.client, 0.7).await;
    machine.answer(&lease, result).await;
    house
        .client
        .version_get("flowers", "champion")
        .await
        .unwrap();
    submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    machine.observe(&lease, 10, 0.4, 1.0);
    machine.poll(0).await;

    let page = house.client.metrics().await.unwrap();
    let typed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let missing: Vec<_> = NAMES
        .iter()
        .filter(|name| !typed.contains(**name))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are missing");
    assert!(
        typed.iter().all(|name| name.starts_with("pomona_")),
        "{typed:?}"
    );
    assert_eq!(value(&page, "pomona_leader", ""), 1.0);
    assert_eq!(value(&page, "pomona_workers", "state=\"alive\""), 1.0);
    assert_eq!(
        value(&page, "pomona_slots", "kind=\"cpu\",state=\"busy\""),
        1.0
    );
    assert_eq!(value(&page, "pomona_trials", "state=\"waiting\""), 2.0);
    assert_eq!(
        value(&page, "pomona_trials_total", "outcome=\"completed\""),
        1.0
    );
    assert_eq!(value(&page, "pomona_ingest_points_total", ""), 4.0);
    let objective = "experiment=\"flowers\",metric=\"val/accuracy\"";
    assert_eq!(value(&page, "pomona_objective_best", objective), 0.4);
    let alias = "alias=\"champion\",model=\"flowers\",version=\"1\"";
    assert_eq!(value(&page, "pomona_model_alias_info", alias), 1.0);
    let promoted = "decision=\"promoted\",gate=\"none\"";
    assert_eq!(value(&page, "pomona_promotions_total", promoted), 1.0);
    assert_eq!(
        value(&page, "pomona_model_pulls_total", "protocol=\"http\""),
        1.0
    );
    assert_eq!(value(&page, "pomona_queue_wait_seconds_count", ""), 2.0);
    let route = "method=\"POST\",route=\"/api/v1/experiments\",status=\"201\"";
    assert_eq!(
        value(&page, "pomona_http_request_duration_seconds_count", route),
        2.0
    );
    assert!(!page.contains("tri_"), "no label names a trial");
    assert!(
        !page.contains("/api/v1/workers/wrk_"),
        "routes are patterns"
    );
}

#[tokio::test]
async fn experiments_over_the_limit_share_the_label_other() {
    let house = House::with(&[("metrics.max_experiments", "1")]).await;
    let mut machine = Machine::join(&house.client, 1, 6).await;
    machine.furnish().await;
    for (key, name) in [("a", "ones"), ("b", "twos"), ("c", "threes")] {
        submit(
            &house,
            &GRID.replace("name: flowers", &format!("name: {name}")),
            key,
        )
        .await;
    }
    let leases = machine.has(6).await;
    for (lease, accuracy) in leases.iter().zip([0.1, 0.1, 0.2, 0.2, 0.3, 0.3]) {
        machine.observe(lease, 10, accuracy, 1.0);
    }
    machine.poll(0).await;
    let page = house.client.metrics().await.unwrap();
    let samples = samples(&page);
    let best: Vec<_> = (samples.iter())
        .filter(|(name, _, _)| *name == "pomona_objective_best")
        .collect();
    assert_eq!(best.len(), 2, "{best:?}");
    let other = "experiment=\"other\",metric=\"val/accuracy\"";
    let shared = value(&page, "pomona_objective_best", other);
    let own = best
        .iter()
        .find(|(_, labels, _)| *labels != other)
        .unwrap()
        .2;
    assert_eq!(shared.max(own), 0.3, "the best of all is shown");
    assert!(value(&page, "pomona_objective_last", other) > 0.0);
    let folded = value(&page, "pomona_metrics_folded", "what=\"experiments\"");
    assert_eq!(folded, 2.0);
}

#[tokio::test]
async fn prometheus_finds_the_workers() {
    let (house, machine) = furnished(1).await;
    let targets = house.get("/api/v1/prometheus/targets").await.json();
    let wanted = serde_json::json!([
        {"targets": ["127.0.0.1:9001"], "labels": {"worker": "machine-1"}}
    ]);
    assert_eq!(targets, wanted, "{}", machine.id());
}

#[tokio::test]
async fn restarts_are_counted_by_whose_fault_they_were() {
    let (house, mut machine) = furnished(1).await;
    submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    let fault = Fault::new(Code::TrainerCrashed, "rank 0 ended with status 139");
    machine.exit(&lease, Outcome::Crashed { fault });
    machine.poll(0).await;
    let lease = machine.has(1).await.remove(0);
    // The worker shuts down in good order: nobody's fault.
    machine.exit(&lease, Outcome::Stopped);
    machine.poll(0).await;
    let page = house.client.metrics().await.unwrap();
    let count = |reason| value(&page, "pomona_trial_restarts_total", reason);
    assert_eq!(count("reason=\"crashed\""), 1.0);
    assert_eq!(count("reason=\"displaced\""), 1.0);
}
