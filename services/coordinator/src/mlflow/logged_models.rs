//! Logged models, without which clients of 3.x log no model.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data, Path};
use pomona_store::{LoggedModel, LoggedModelSearch};
use pomona_tracking::order::LoggedModelColumn;
use pomona_tracking::params::Body;
use pomona_tracking::{Refusal, artifact_path, filter, limits, names, order, run_name, token};
use serde_json::{Value, json};

use super::artifacts::files_at;
use super::experiments::{offset, page};
use super::refusal::of_experiment;
use super::{Answer, Refused, parameters, render};
use crate::http::App;

fn missing(id: &str) -> Refused {
    Refusal::missing(format!("Logged model with ID '{id}' not found.")).into()
}

fn pairs(body: &Body<'_>, name: &str) -> Result<Vec<(String, String)>, Refusal> {
    body.list(name, |item| {
        let key = item.required_str("key")?;
        names::tag_key(key, &item.path("key"))?;
        let value = item.optional_str("value")?.unwrap_or_default();
        Ok((key.to_owned(), value.to_owned()))
    })
}

async fn answer(app: &Data<App>, id: &str) -> Answer {
    let model = app.store.logged_model_get(id).await?;
    let model = model.ok_or_else(|| missing(id))?;
    render::ok(&json!({ "model": render::logged_model(&model) }))
}

/// `POST logged-models`
pub async fn create(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let experiment = body.required_str("experiment_id")?;
    let text = |name| Ok::<_, Refusal>(body.optional_str(name)?.unwrap_or_default().to_owned());
    let name = Some(text("name")?).filter(|name| !name.is_empty());
    if let Some(name) = &name
        && name.contains(['/', ':', '.', '%', '"', '\''])
    {
        let text = format!(
            "Invalid model name ({name}) provided. Model name must be a non-empty string and cannot \
             contain the following characters: ('/', ':', '.', '%', '\"', \"'\")"
        );
        return Err(Refusal::invalid(text).into());
    }
    let now = app.now().0;
    let new = LoggedModel {
        id: format!("m-{:032x}", rand::random::<u128>()),
        experiment: experiment.to_owned(),
        name: name.unwrap_or_else(|| run_name(rand::random())),
        model_type: text("model_type")?,
        source_run: text("source_run_id")?,
        status: "LOGGED_MODEL_PENDING".to_owned(),
        created_at: now,
        updated_at: now,
        params: pairs(&body, "params")?,
        tags: pairs(&body, "tags")?,
        ..LoggedModel::default()
    };
    let made = app.store.logged_model_create(&new).await?;
    let made = made.map_err(|refusal| of_experiment(experiment, "", &refusal))?;
    render::ok(&json!({ "model": render::logged_model(&made) }))
}

/// `GET logged-models/{id}`
pub async fn get(app: Data<App>, id: Path<String>) -> Answer {
    answer(&app, &id).await
}

/// `PATCH logged-models/{id}`: its files are there, or will not be.
pub async fn finish(
    app: Data<App>,
    id: Path<String>,
    request: HttpRequest,
    bytes: Bytes,
) -> Answer {
    let body = parameters(&request, &bytes)?;
    let statuses = [
        "LOGGED_MODEL_PENDING",
        "LOGGED_MODEL_READY",
        "LOGGED_MODEL_UPLOAD_FAILED",
    ];
    let status = body.optional_choice("status", &statuses.map(|status| (status, status)))?;
    let status = status.ok_or_else(|| body.missing("status"))?;
    if !app
        .store
        .logged_model_finish(&id, status, app.now())
        .await?
    {
        return Err(missing(&id));
    }
    answer(&app, &id).await
}

/// `DELETE logged-models/{id}`
pub async fn delete(app: Data<App>, id: Path<String>) -> Answer {
    if !app.store.logged_model_delete(&id, app.now()).await? {
        return Err(missing(&id));
    }
    render::empty()
}

/// `PATCH logged-models/{id}/tags`
pub async fn set_tags(
    app: Data<App>,
    id: Path<String>,
    request: HttpRequest,
    bytes: Bytes,
) -> Answer {
    let body = parameters(&request, &bytes)?;
    let tags = pairs(&body, "tags")?;
    if !app
        .store
        .logged_model_add(&id, &tags, &[], app.now())
        .await?
    {
        return Err(missing(&id));
    }
    answer(&app, &id).await
}

/// `DELETE logged-models/{id}/tags/{key}`
pub async fn delete_tag(app: Data<App>, path: Path<(String, String)>) -> Answer {
    let (id, key) = path.into_inner();
    match app.store.logged_model_untag(&id, &key, app.now()).await? {
        None => Err(missing(&id)),
        Some(false) => {
            let text = format!("No tag with key '{key}' found for model with ID '{id}'.");
            Err(Refusal::missing(text).into())
        }
        Some(true) => render::empty(),
    }
}

/// `POST logged-models/{id}/params`
pub async fn log_params(
    app: Data<App>,
    id: Path<String>,
    request: HttpRequest,
    bytes: Bytes,
) -> Answer {
    let body = parameters(&request, &bytes)?;
    let params = pairs(&body, "params")?;
    if !app
        .store
        .logged_model_add(&id, &[], &params, app.now())
        .await?
    {
        return Err(missing(&id));
    }
    render::empty()
}

/// `POST logged-models/search`
pub async fn search(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let size = limits::LOGGED_MODELS.read(&body)?;
    let columns = body.list("order_by", |item| {
        let text = |name| Ok::<_, Refusal>(item.optional_str(name)?.map(str::to_owned));
        Ok(LoggedModelColumn {
            field_name: item.required_str("field_name")?.to_owned(),
            ascending: item.optional_bool("ascending")?,
            dataset_name: text("dataset_name")?,
            dataset_digest: text("dataset_digest")?,
        })
    })?;
    let experiments = body.strings("experiment_ids")?;
    if experiments.is_empty() {
        return Err(body.missing("experiment_ids").into());
    }
    let search = LoggedModelSearch {
        experiments,
        filter: filter::logged_models(body.optional_str("filter")?.unwrap_or_default())?,
        order: order::logged_models(&columns)?,
        offset: offset(&body)?,
        limit: size as u64 + 1,
    };
    let mut models = app.store.logged_model_search(&search).await?;
    let next = token::next(search.offset, size, models.len());
    models.truncate(size);
    let models: Vec<Value> = models.iter().map(render::logged_model).collect();
    render::ok(&page("models", &models, next))
}

/// `GET logged-models/{id}/artifacts/directories`
pub async fn artifacts(
    app: Data<App>,
    id: Path<String>,
    request: HttpRequest,
    bytes: Bytes,
) -> Answer {
    let body = parameters(&request, &bytes)?;
    let model = app.store.logged_model_get(&id).await?;
    let model = model.ok_or_else(|| missing(&id))?;
    let folder = body
        .optional_str("artifact_directory_path")?
        .unwrap_or_default();
    files_at(&app, &model.artifact_uri, artifact_path::folder(folder)?).await
}
