//! Trials: rows, observations, checkpoints, logs, stop.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use pomona_api::v1::experiments::{AddObservation, LogEntry, LogsQuery};
use pomona_api::v1::{DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageQuery};
use pomona_domain::metric::Observation;
use pomona_domain::trial::Trial;
use pomona_domain::{Change, Code, Fault, TrialId};
use pomona_scheduler::{Ended, Event};

use super::key::{Key, once};
use super::{Answer, App, Refusal, found, ok, page, page_request};

/// `GET /api/v1/trials/{id}`
pub async fn get(app: Data<App>, id: Path<String>) -> Answer {
    ok(&find(&app, &id).await?)
}

/// `GET /api/v1/trials/{id}/observations`
pub async fn observations(app: Data<App>, id: Path<String>, query: Query<PageQuery>) -> Answer {
    let trial = find(&app, &id).await?;
    let request = page_request(&query)?;
    ok(&page(app.store.observation_list(trial.id, &request).await?))
}

/// `POST /api/v1/trials/{id}/observations`
pub async fn observe(app: Data<App>, id: Path<String>, body: Json<AddObservation>) -> Answer {
    let trial = find(&app, &id).await?;
    body.check()?;
    let body = body.into_inner();
    let observation = Box::new(Observation {
        trial: trial.id,
        generation: body.generation,
        step: body.step,
        epoch: body.epoch,
        at: app.now(),
        metrics: body.metrics,
        confusion: Vec::new(),
    });
    let done = app.engine.decide(Event::Measured { observation }).await?;
    ok(done.view.trial(trial.id).unwrap_or(&trial))
}

/// `GET /api/v1/trials/{id}/checkpoints`
pub async fn checkpoints(app: Data<App>, id: Path<String>) -> Answer {
    let trial = find(&app, &id).await?;
    ok(&Page {
        items: app.store.checkpoint_list(trial.id).await?,
        next_page_token: None,
    })
}

/// `GET /api/v1/trials/{id}/logs`
pub async fn logs(app: Data<App>, id: Path<String>, query: Query<LogsQuery>) -> Answer {
    let trial = find(&app, &id).await?;
    ok(&logs_of(&app, &trial.id.to_string(), &query).await?)
}

/// Lines of an owner's log after a sequence number.
pub async fn logs_of(app: &App, owner: &str, query: &LogsQuery) -> Result<Page<LogEntry>, Refusal> {
    let limit = query
        .limit
        .unwrap_or(DEFAULT_PAGE_SIZE)
        .clamp(1, MAX_PAGE_SIZE);
    let rows = app.store.log_list(owner, query.after, limit).await?;
    let entry = |row: pomona_store::LogRow| LogEntry {
        seq: row.seq,
        rank: row.rank,
        at: row.at,
        line: row.line,
    };
    Ok(Page {
        items: rows.into_iter().map(entry).collect(),
        next_page_token: None,
    })
}

/// `POST /api/v1/trials/{id}/stop`
pub async fn stop(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    let work = async {
        let trial = find(&app, &id).await?;
        if trial.is_ended() {
            let text = format!("trial `{}` has ended", trial.id);
            return Err(Fault::new(Code::WrongState, text).into());
        }
        let done = app.engine.decide(Event::StopTrial(trial.id)).await?;
        Ok(newest(&done.changes, trial.id).unwrap_or(trial))
    };
    once(&app, &key, &(), StatusCode::OK, work).await
}

/// `POST /api/v1/trials/{id}/pin`
pub async fn pin(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    set_pin(&app, &key, &id, true).await
}

/// `POST /api/v1/trials/{id}/unpin`
pub async fn unpin(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    set_pin(&app, &key, &id, false).await
}

async fn set_pin(app: &App, key: &Key, id: &str, pinned: bool) -> Answer {
    let work = async {
        let trial = find(app, id).await?;
        let owner = app.store.experiment_get(trial.experiment).await?;
        let ended = if owner.is_some_and(|owner| owner.is_ended()) {
            Some(Box::new(Ended {
                checkpoints: app.store.checkpoint_list(trial.id).await?,
                trial: trial.clone(),
            }))
        } else {
            None
        };
        let event = Event::Pin {
            trial: trial.id,
            pinned,
            ended,
        };
        let done = app.engine.decide(event).await?;
        Ok(newest(&done.changes, trial.id).unwrap_or(trial))
    };
    once(app, key, &(), StatusCode::OK, work).await
}

fn newest(changes: &[Change], id: TrialId) -> Option<Trial> {
    changes.iter().rev().find_map(|change| {
        if let Change::Trial(row) = change
            && row.id == id
        {
            Some((**row).clone())
        } else {
            None
        }
    })
}

async fn find(app: &App, id: &str) -> Result<Trial, Refusal> {
    Ok(found(app.store.trial_find(id).await?, "trial", id)?)
}
