//! The cluster as a whole: health, metrics, numbers, service discovery, the API's description.

use actix_web::HttpResponse;
use actix_web::web::Data;
use pomona_api::PROTOCOL;
use pomona_api::v1::cluster::{ClusterView, TargetGroup};
use pomona_domain::task::TaskState;
use pomona_domain::trial::TrialState;
use pomona_domain::worker::{Worker, WorkerState};
use pomona_domain::{Code, Fault};
use pomona_scheduler::Cluster;
use pomona_store::Store;
use serde_json::json;
use std::collections::BTreeMap;

use super::{Answer, App, ok};
use crate::{desired, openapi};

/// `GET /healthz`: the process lives.
pub async fn healthz() -> Answer {
    ok(&json!({"status": "ok"}))
}

/// `GET /readyz`: it can serve: the store and the place of the blobs answer, the schema is current, and
/// the cluster is read, or another coordinator leads.
pub async fn readyz(app: Data<App>) -> Answer {
    if app.stopping() {
        return Err(Fault::new(Code::NotReady, "the coordinator is stopping").into());
    }
    let leads = app.engine.generation().is_some();
    if leads {
        app.view()?;
    }
    let schema = app.store.schema_version().await?;
    if schema != Store::schema_newest() {
        let text = format!(
            "the schema is at {schema}, this program wants {}",
            Store::schema_newest()
        );
        return Err(Fault::new(Code::NotReady, text).into());
    }
    app.store.blobs_ping().await?;
    ok(&json!({"status": "ready", "schema": schema, "leads": leads}))
}

/// `GET /metrics`
pub async fn metrics(app: Data<App>) -> Answer {
    let view = app.view().ok();
    let text = app.metrics.render(view.as_deref()).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("metrics cannot be written: {error}"),
        )
    })?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(text))
}

/// `GET /openapi.json`
pub async fn openapi_json() -> Answer {
    ok(openapi::document())
}

/// `GET /api/v1/cluster`
pub async fn get(app: Data<App>) -> Answer {
    ok(&numbers(&*app.view()?))
}

fn numbers(view: &Cluster) -> ClusterView {
    let workers = |state| count(view.workers().filter(|row| row.state == state));
    let beating = |row: &&Worker| row.state != WorkerState::Lost;
    let slots = view.workers().filter(beating).flat_map(|row| &row.slots);
    let waiting = |state: &TrialState| matches!(state, TrialState::Waiting { .. });
    ClusterView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        workers_alive: workers(WorkerState::Alive),
        workers_draining: workers(WorkerState::Draining),
        workers_lost: workers(WorkerState::Lost),
        slots_total: count(slots),
        slots_busy: count(view.leases().flat_map(|lease| &lease.slots)),
        experiments: count(view.experiments()),
        trials_running: count(view.trials().filter(|row| row.lease().is_some())),
        trials_waiting: count(view.trials().filter(|row| waiting(&row.state))),
        tasks_running: count(view.tasks().filter(|row| row.state != TaskState::Waiting)),
        tasks_waiting: count(view.tasks().filter(|row| row.state == TaskState::Waiting)),
    }
}

fn count<T>(rows: impl Iterator<Item = T>) -> u32 {
    u32::try_from(rows.count()).unwrap_or(u32::MAX)
}

/// `GET /api/v1/prometheus/targets`: Prometheus' HTTP service discovery for the workers.
pub async fn targets(app: Data<App>) -> Answer {
    let view = app.view()?;
    let group = |row: &Worker| {
        let address = row.labels.get(desired::METRICS_ADDRESS)?;
        let labels = BTreeMap::from([("worker".to_owned(), row.name.clone())]);
        Some(TargetGroup {
            targets: vec![address.clone()],
            labels,
        })
    };
    let beating = view.workers().filter(|row| row.state != WorkerState::Lost);
    ok(&beating.filter_map(group).collect::<Vec<_>>())
}
