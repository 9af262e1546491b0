//! Data sets, backbones, tasks and predictions.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use pomona_api::v1::PageQuery;
use pomona_api::v1::catalogue::{AddBackbone, AddDataset, DatasetQuery, Predict};
use pomona_api::v1::experiments::LogsQuery;
use pomona_domain::dataset::Dataset;
use pomona_domain::task::{Task, TaskSpec};
use pomona_domain::{Change, Code, Digest, Fault, TaskId, name};
use pomona_scheduler::{Event, Recalled};

use super::key::{Key, once};
use super::{Answer, App, Refusal, found, ok, page, page_request, trials};

/// Tasks run before trials.
const TASK_PRIORITY: i32 = 60;
/// Most classes of a prediction.
const MAX_TOP: u32 = 100;

/// `POST /api/v1/datasets`
pub async fn dataset_add(app: Data<App>, key: Key, body: Json<AddDataset>) -> Answer {
    let work = async {
        name::check("name", &body.name)?;
        needs_blob(&app, body.archive).await?;
        let spec = TaskSpec::ImportDataset {
            name: body.name.clone(),
            archive: body.archive,
            options: body.options.clone(),
        };
        submit(&app, &key, spec, None).await
    };
    once(&app, &key, &body.0, StatusCode::ACCEPTED, work).await
}

/// `GET /api/v1/datasets`
pub async fn dataset_list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    ok(&page(app.store.dataset_list(&page_request(&query)?).await?))
}

/// `GET /api/v1/datasets/{name}`
pub async fn dataset_get(app: Data<App>, name: Path<String>, query: Query<DatasetQuery>) -> Answer {
    ok(&dataset(&app, &name, query.version).await?)
}

/// `GET /api/v1/datasets/{name}/manifest`
pub async fn dataset_manifest(
    app: Data<App>,
    name: Path<String>,
    query: Query<DatasetQuery>,
) -> Answer {
    let row = dataset(&app, &name, query.version).await?;
    super::blobs::whole(&app, row.manifest, "application/json").await
}

async fn dataset(app: &App, name: &str, version: Option<u32>) -> Result<Dataset, Refusal> {
    let row = app.store.dataset_get(name, version).await?;
    let shown = version.map_or_else(|| name.to_owned(), |number| format!("{name}@{number}"));
    Ok(found(row, "data set", &shown)?)
}

/// `POST /api/v1/backbones`
pub async fn backbone_add(app: Data<App>, key: Key, body: Json<AddBackbone>) -> Answer {
    let work = async {
        name::check("name", &body.name)?;
        needs_blob(&app, body.weights).await?;
        let spec = TaskSpec::ImportBackbone {
            name: body.name.clone(),
            arch: body.arch.clone(),
            weights: body.weights,
        };
        submit(&app, &key, spec, None).await
    };
    once(&app, &key, &body.0, StatusCode::ACCEPTED, work).await
}

/// `GET /api/v1/backbones`
pub async fn backbone_list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    ok(&page(
        app.store.backbone_list(&page_request(&query)?).await?,
    ))
}

/// `GET /api/v1/backbones/{name}`
pub async fn backbone_get(app: Data<App>, name: Path<String>) -> Answer {
    ok(&found(
        app.store.backbone_get(&name).await?,
        "backbone",
        &name,
    )?)
}

/// `GET /api/v1/tasks`
pub async fn task_list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    ok(&page(app.store.task_list(&page_request(&query)?).await?))
}

/// `GET /api/v1/tasks/{id}`
pub async fn task_get(app: Data<App>, id: Path<String>) -> Answer {
    ok(&found(app.store.task_find(&id).await?, "task", &id)?)
}

/// `POST /api/v1/tasks/{id}/cancel`
pub async fn task_cancel(app: Data<App>, key: Key, id: Path<String>) -> Answer {
    let work = async {
        let task = found(app.store.task_find(&id).await?, "task", &id)?;
        if task.is_ended() {
            let text = format!("task `{}` has ended", task.id);
            return Err(Fault::new(Code::WrongState, text).into());
        }
        let done = app.engine.decide(Event::TaskCanceled(task.id)).await?;
        Ok(newest(&done.changes, task.id).unwrap_or(task))
    };
    once(&app, &key, &(), StatusCode::OK, work).await
}

/// `GET /api/v1/tasks/{id}/logs`
pub async fn task_logs(app: Data<App>, id: Path<String>, query: Query<LogsQuery>) -> Answer {
    let task = found(app.store.task_find(&id).await?, "task", &id)?;
    ok(&trials::logs_of(&app, &task.id.to_string(), &query).await?)
}

/// `POST /api/v1/predictions`
pub async fn predict(app: Data<App>, key: Key, body: Json<Predict>) -> Answer {
    let work = async {
        let (model, which) = body.model.split_once('@').ok_or_else(|| {
            Fault::new(
                Code::BadRequest,
                format!("`{}` names no version of a model", body.model),
            )
            .hint("write `NAME@ALIAS` or `NAME@NUMBER`")
        })?;
        if !(1..=MAX_TOP).contains(&body.top) {
            let text = format!("`top` is {}, it may be 1 to {MAX_TOP}", body.top);
            return Err(Fault::new(Code::BadRequest, text).into());
        }
        let version = super::models::version(&app, model, which).await?;
        needs_blob(&app, body.pictures).await?;
        let spec = TaskSpec::Predict {
            model: version.model,
            version: version.number,
            pictures: body.pictures,
            top: body.top,
        };
        submit(&app, &key, spec, None).await
    };
    once(&app, &key, &body.0, StatusCode::ACCEPTED, work).await
}

/// Hands a task to the engine; one that this key made before is answered as it is.
pub async fn submit(
    app: &App,
    key: &Key,
    spec: TaskSpec,
    recall: Option<Recalled>,
) -> Result<Task, Refusal> {
    let id = TaskId(key.seed());
    if key.is_given()
        && let Some(made) = app.store.task_get(id).await?
    {
        return Ok(made);
    }
    let event = Event::TaskSubmitted {
        id,
        spec,
        priority: TASK_PRIORITY,
    };
    let done = app.engine.decide_with(event, recall).await?;
    let made = newest(&done.changes, id);
    Ok(found(made, "task", &id.to_string())?)
}

fn newest(changes: &[Change], id: TaskId) -> Option<Task> {
    changes.iter().rev().find_map(|change| {
        if let Change::Task(row) = change
            && row.id == id
        {
            Some((**row).clone())
        } else {
            None
        }
    })
}

/// Refuses a digest whose bytes were not uploaded.
async fn needs_blob(app: &App, digest: Digest) -> Result<(), Refusal> {
    if super::blobs::is_here(app, digest).await? {
        return Ok(());
    }
    Err(
        Fault::new(Code::BlobMissing, format!("there is no blob `{digest}`"))
            .hint("upload it with `PUT /api/v1/blobs/{digest}` first")
            .into(),
    )
}
