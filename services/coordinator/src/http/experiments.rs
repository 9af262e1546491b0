//! Experiments: submit, preview, list, pause, resume, cancel.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use pomona_api::v1::PageQuery;
use pomona_api::v1::experiments::{ExperimentView, SubmitExperiment, TrialOrder, TrialsQuery};
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::spec::ExperimentSpec;
use pomona_domain::{Change, Code, ExperimentId, Fault};
use pomona_scheduler::{Cluster, Event, admission, running, unplaceable, warning};

use super::key::{Key, once};
use super::{Answer, App, Refusal, found, ok, page, page_request};
use crate::resolve;

/// `POST /api/v1/experiments`
pub async fn submit(app: Data<App>, key: Key, body: Json<SubmitExperiment>) -> Answer {
    let work = async {
        let id = ExperimentId(key.seed());
        if key.is_given()
            && let Some(made) = app.store.experiment_get(id).await?
        {
            return Ok(seen(&app, app.view().ok().as_deref(), made));
        }
        let mut resolved = resolve::experiment(&app.store, &body).await?;
        let machines = resolve::machines(&*app.view()?);
        let (plan, resolved) = aside(move || Ok((resolved.settle(machines)?, resolved))).await?;
        let event = Event::Submitted {
            id,
            dataset: resolved.base.as_ref().map(|base| base.dataset.manifest),
            backbone: resolved.base.as_ref().map(|base| base.backbone.weights),
            spec: Box::new(resolved.spec),
            source: resolved.source,
            plan: plan.map(Box::new),
        };
        let done = app.engine.decide(event).await?;
        let made = found(newest(&done.changes, id), "experiment", &id.to_string())?;
        Ok(seen(&app, Some(&done.view), made))
    };
    once(&app, &key, &body.0, StatusCode::CREATED, work).await
}

/// `POST /api/v1/experiments/preview`
pub async fn preview(app: Data<App>, body: Json<SubmitExperiment>) -> Answer {
    let mut resolved = resolve::experiment(&app.store, &body).await?;
    let view = app.view()?;
    let machines = resolve::machines(&view);
    let work = move || Ok((resolve::preview(&mut resolved, machines)?, resolved));
    let (mut preview, resolved) = aside(work).await?;
    preview.warnings = stands_in_the_way(&view, &resolved.spec)
        .into_iter()
        .collect();
    ok(&preview)
}

/// Draws and tries every point elsewhere: ten thousand take a while, and others are served meanwhile.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::new(Code::Internal, format!("a plan was cut off: {error}")))?
}

/// Why a file would be refused, or why its trials would wait as things are.
fn stands_in_the_way(cluster: &Cluster, spec: &ExperimentSpec) -> Option<Fault> {
    admission(cluster, spec)
        .err()
        .or_else(|| unplaceable(cluster, spec))
}

/// `GET /api/v1/experiments`
pub async fn list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    ok(&page(
        app.store.experiment_list(&page_request(&query)?).await?,
    ))
}

/// `GET /api/v1/experiments/{id}`
pub async fn get(app: Data<App>, id: Path<String>) -> Answer {
    let row = find(&app, &id).await?;
    ok(&seen(&app, app.view().ok().as_deref(), row))
}

/// `GET /api/v1/experiments/{id}/trials`
pub async fn trials(app: Data<App>, id: Path<String>, query: Query<TrialsQuery>) -> Answer {
    let experiment = find(&app, &id).await?;
    let query = query.into_inner();
    let order = match query.order_by {
        TrialOrder::Number => pomona_store::TrialOrder::Number,
        TrialOrder::Leaderboard => {
            pomona_store::TrialOrder::Leaderboard(experiment.spec.search.direction)
        }
    };
    let request = page_request(&PageQuery {
        page_size: query.page_size,
        page_token: query.page_token,
    })?;
    ok(&page(
        app.store.trial_list(experiment.id, order, &request).await?,
    ))
}

/// `POST /api/v1/experiments/{id}/pause`
pub async fn pause(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    control(&app, (&key, &id), "paused", Event::Pause).await
}

/// `POST /api/v1/experiments/{id}/resume`
pub async fn resume(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    control(&app, (&key, &id), "resumed", Event::Resume).await
}

/// `POST /api/v1/experiments/{id}/cancel`
pub async fn cancel(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    control(&app, (&key, &id), "canceled", Event::Cancel).await
}

async fn control(
    app: &App,
    (key, id): (&Key, &str),
    verb: &str,
    event: fn(ExperimentId) -> Event,
) -> Answer {
    let work = async {
        let row = found(app.store.experiment_meant(id).await?, "experiment", id)?;
        if let Some(state) = ended(&row) {
            let text = format!("experiment `{}` cannot be {verb}: it {state}", row.id);
            return Err(Fault::new(Code::WrongState, text).into());
        }
        let done = app.engine.decide(event(row.id)).await?;
        Ok(newest(&done.changes, row.id).unwrap_or(row))
    };
    once(app, key, &(), StatusCode::OK, work).await
}

/// An experiment with what its leases cost right now and what stands in its way, as far as that is
/// known.
fn seen(app: &App, cluster: Option<&Cluster>, experiment: Experiment) -> ExperimentView {
    let warning = cluster.and_then(|cluster| warning(cluster, experiment.id));
    let running = cluster.map(|cluster| running(cluster, experiment.id, app.now()));
    ExperimentView {
        experiment,
        running: running.unwrap_or_default(),
        warnings: warning.into_iter().collect(),
    }
}

/// How an experiment ended.
fn ended(row: &Experiment) -> Option<&'static str> {
    match row.state {
        ExperimentState::Active | ExperimentState::Paused | ExperimentState::Promoting { .. } => {
            None
        }
        ExperimentState::Completed => Some("is completed"),
        ExperimentState::Failed { .. } => Some("has failed"),
        ExperimentState::Canceled => Some("was canceled"),
    }
}

async fn find(app: &App, id: &str) -> Result<Experiment, Refusal> {
    Ok(found(
        app.store.experiment_find(id).await?,
        "experiment",
        id,
    )?)
}

fn newest(changes: &[Change], id: ExperimentId) -> Option<Experiment> {
    changes.iter().rev().find_map(|change| {
        if let Change::Experiment(row) = change
            && row.id == id
        {
            Some((**row).clone())
        } else {
            None
        }
    })
}
