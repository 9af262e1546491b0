//! Workers: registration, heartbeat, list, drain.

use actix_web::web::{Data, Json, Path, Query};
use pomona_api::PROTOCOL;
use pomona_api::v1::PageQuery;
use pomona_api::v1::workers::{Poll, Register, Registered};
use pomona_domain::worker::Worker;
use pomona_domain::{Change, Code, Fault, WorkerId};
use pomona_scheduler::Event;

use super::{Answer, App, found, ok, page, page_request};
use crate::{desired, longpoll};

/// `POST /api/v1/workers`
pub async fn register(app: Data<App>, body: Json<Register>) -> Answer {
    let body = body.into_inner();
    handshake(&body)?;
    let mut labels = body.labels;
    if let Some(address) = body.metrics_address {
        labels.insert(desired::METRICS_ADDRESS.to_owned(), address);
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

fn handshake(body: &Register) -> Result<(), Fault> {
    if body.protocol == PROTOCOL {
        return Ok(());
    }
    Err(Fault::new(
        Code::VersionMismatch,
        format!(
            "worker `{}` (version {}) speaks protocol {}, this coordinator (version {}) speaks {PROTOCOL}",
            body.name,
            body.version,
            body.protocol,
            env!("CARGO_PKG_VERSION")
        ),
    )
    .hint("install the same version of Pomona on both machines"))
}

/// `POST /api/v1/workers/{id}/poll`
pub async fn poll(app: Data<App>, id: Path<String>, body: Json<Poll>) -> Answer {
    let id: WorkerId = id
        .parse()
        .map_err(|error| Fault::new(Code::BadRequest, format!("{error}")))?;
    ok(&longpoll::poll(&app, id, body.into_inner()).await?)
}

/// `GET /api/v1/workers`
pub async fn list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    ok(&page(app.store.worker_list(&page_request(&query)?).await?))
}

/// `POST /api/v1/workers/{id}/drain`
pub async fn drain(app: Data<App>, id: Path<String>) -> Answer {
    let worker = found(app.store.worker_find(&id).await?, "worker", &id)?;
    let done = app.engine.decide(Event::Drain(worker.id)).await?;
    ok(&newest(&done.changes, worker))
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
