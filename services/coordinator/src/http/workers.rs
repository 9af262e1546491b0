//! Workers: registration, heartbeat, list, drain, undrain.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use pomona_api::PROTOCOL;
use pomona_api::v1::features::{UploadedFeature, WantFeatures};
use pomona_api::v1::workers::{DrainQuery, Poll, Register, Registered, WorkerView};
use pomona_api::v1::{Page, PageQuery};
use pomona_domain::worker::Worker;
use pomona_domain::{Change, Code, Fault, WorkerId};
use pomona_scheduler::{Event, exclusion};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::key::{Key, once};
use super::{Answer, App, found, ok, page_request};
use crate::{desired, features, longpoll};

/// `POST /api/v1/workers`
pub async fn register(app: Data<App>, body: Json<Value>) -> Answer {
    let body: Register = spoken(body.into_inner())?;
    let mut labels = body.labels;
    if let Some(address) = body.metrics_address {
        labels.insert(desired::METRICS_ADDRESS.to_owned(), address);
    }
    if let Some(bytes) = body.feature_budget_bytes {
        labels.insert(desired::FEATURE_BUDGET.to_owned(), bytes.to_string());
    }
    let event = Event::Registered {
        id: body.id,
        name: body.name,
        incarnation: body.incarnation,
        slots: body.slots,
        labels,
    };
    let done = app.engine.decide(event).await?;
    app.told.forget(body.id);
    let worker = found(done.view.worker(body.id), "worker", &body.id.to_string())?;
    ok(&Registered {
        worker: worker.clone(),
        lease_term_ms: u64::try_from(app.config.scheduler.lease_term_ms).unwrap_or(0),
        poll_wait_ms: app.config.workers.poll_wait_ms,
    })
}

/// The body of a worker that speaks our protocol. Of one that speaks another, no more is read than
/// that: the rest may look like nothing we know.
fn spoken<T: DeserializeOwned>(body: Value) -> Result<T, Fault> {
    let theirs = body.get("protocol").and_then(Value::as_u64);
    if body.is_object() && theirs != Some(u64::from(PROTOCOL)) {
        let said = |key| body.get(key).and_then(Value::as_str);
        let who = match (said("name"), said("version")) {
            (Some(name), Some(version)) => format!("worker `{name}` (version {version})"),
            (Some(name), None) => format!("worker `{name}`"),
            (None, _) => "the worker".to_owned(),
        };
        let what = theirs.map_or_else(
            || "does not say which protocol it speaks".to_owned(),
            |theirs| format!("speaks protocol {theirs}"),
        );
        let ours = env!("CARGO_PKG_VERSION");
        let text =
            format!("{who} {what}, this coordinator (version {ours}) speaks protocol {PROTOCOL}");
        let fault = Fault::new(Code::VersionMismatch, text);
        return Err(fault.hint("install the same version of Pomona on both machines"));
    }
    serde_json::from_value(body).map_err(|error| {
        Fault::new(
            Code::BadRequest,
            format!("the body cannot be read: {error}"),
        )
    })
}

/// `POST /api/v1/workers/{id}/poll`
pub async fn poll(app: Data<App>, id: Path<String>, body: Json<Value>) -> Answer {
    let id = parsed(&id)?;
    let body: Poll = spoken(body.into_inner())?;
    ok(&longpoll::poll(&app, id, body).await?)
}

/// `POST /api/v1/workers/{id}/features/wanted`
pub async fn features_wanted(app: Data<App>, id: Path<String>, body: Json<Value>) -> Answer {
    let id = parsed(&id)?;
    let body: WantFeatures = spoken(body.into_inner())?;
    ok(&features::find(&app, id, body).await?)
}

/// `POST /api/v1/workers/{id}/features/uploaded`
pub async fn features_uploaded(app: Data<App>, id: Path<String>, body: Json<Value>) -> Answer {
    let id = parsed(&id)?;
    let body: UploadedFeature = spoken(body.into_inner())?;
    ok(&features::uploaded(&app, id, body).await?)
}

fn parsed(id: &str) -> Result<WorkerId, Fault> {
    id.parse()
        .map_err(|error| Fault::new(Code::BadRequest, format!("{error}")))
}

/// `GET /api/v1/workers`
pub async fn list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    let rows = app.store.worker_list(&page_request(&query)?).await?;
    let view = app.view().ok();
    let seen = |worker: Worker| {
        let cluster = view.as_deref();
        let excluded = cluster.and_then(|cluster| exclusion(cluster, worker.id, app.now()));
        WorkerView { worker, excluded }
    };
    ok(&Page {
        items: rows.items.into_iter().map(seen).collect(),
        next_page_token: rows.next_page_token,
    })
}

/// `POST /api/v1/workers/{id}/drain`
pub async fn drain(app: Data<App>, key: Key, id: Path<String>, query: Query<DrainQuery>) -> Answer {
    let grace_ms = i64::from(query.grace_s.unwrap_or(0)) * 1000;
    let event = |worker| Event::Drain { worker, grace_ms };
    control(&app, &key, (&id, &query.0), event).await
}

/// `POST /api/v1/workers/{id}/undrain`
pub async fn undrain(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    control(&app, &key, (&id, &()), Event::Undrain).await
}

async fn control(
    app: &App,
    key: &Key,
    (id, said): (&str, &impl Serialize),
    event: impl Fn(WorkerId) -> Event,
) -> Answer {
    let work = async {
        let worker = found(app.store.worker_find(id).await?, "worker", id)?;
        let done = app.engine.decide(event(worker.id)).await?;
        Ok(newest(&done.changes, worker))
    };
    once(app, key, said, StatusCode::OK, work).await
}

fn newest(changes: &[Change], worker: Worker) -> Worker {
    let changed = changes.iter().rev().find_map(|change| {
        if let Change::Worker(row) = change
            && row.id == worker.id
        {
            Some((**row).clone())
        } else {
            None
        }
    });
    changed.unwrap_or(worker)
}
