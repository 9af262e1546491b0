//! Experiments, as MLflow's clients see them.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data};
use pomona_store::{ExperimentSearch, NewRunExperiment, View};
use pomona_tracking::params::Body;
use pomona_tracking::{Refusal, filter, limits, names, order, token};
use serde_json::json;

use super::refusal::{no_experiment, of_experiment};
use super::{Answer, Refused, parameters, render};
use crate::http::App;

/// Tags of a request, checked by `check`.
pub fn tags(
    body: &Body<'_>,
    check: impl Fn(&str, &str) -> Result<(), Refusal>,
) -> Result<Vec<(String, String)>, Refusal> {
    body.list("tags", |item| {
        let key = item.required_str("key")?;
        let value = item.optional_str("value")?.unwrap_or_default();
        check(key, value)?;
        Ok((key.to_owned(), value.to_owned()))
    })
}

/// Dead or alive, in a request's words.
pub fn view(body: &Body<'_>, name: &str) -> Result<View, Refusal> {
    let choice = body.optional_choice(
        name,
        &[
            ("ACTIVE_ONLY", View::Active),
            ("DELETED_ONLY", View::Deleted),
            ("ALL", View::All),
        ],
    )?;
    Ok(choice.unwrap_or_default())
}

/// Where the page of a request begins.
pub fn offset(body: &Body<'_>) -> Result<u64, Refusal> {
    let token = body.optional_str("page_token")?;
    token
        .filter(|token| !token.is_empty())
        .map_or(Ok(0), token::decode)
}

/// `POST experiments/create`
pub async fn create(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let name = body.required_str("name")?;
    names::experiment_name(name)?;
    let location = body.optional_str("artifact_location")?;
    let location = location
        .map(|text| text.trim_end_matches('/'))
        .filter(|text| !text.is_empty());
    let new = NewRunExperiment {
        name: name.to_owned(),
        artifact_location: location.map(str::to_owned),
        tags: tags(&body, names::experiment_tag)?,
    };
    let id = app.store.run_experiment_create(&new, app.now()).await?;
    let id = id.map_err(|refusal| of_experiment("", name, &refusal))?;
    render::ok(&json!({ "experiment_id": id }))
}

/// `GET experiments/get`
pub async fn get(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let id = body.required_str("experiment_id")?;
    let row = app.store.run_experiment_get(id).await?;
    let row = row.ok_or_else(|| no_experiment(id))?;
    render::ok(&json!({ "experiment": render::experiment(&row) }))
}

/// `GET experiments/get-by-name`
pub async fn get_by_name(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let name = body.required_str("experiment_name")?;
    let row = app.store.run_experiment_named(name).await?;
    let missing = || Refusal::missing(format!("Could not find experiment with name '{name}'"));
    let row = row.ok_or_else(missing)?;
    render::ok(&json!({ "experiment": render::experiment(&row) }))
}

/// `GET` and `POST experiments/search`
pub async fn search(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let size = limits::EXPERIMENTS.read(&body)?;
    let search = ExperimentSearch {
        filter: filter::experiments(body.optional_str("filter")?.unwrap_or_default())?,
        order: order::experiments(&body.strings("order_by")?)?,
        view: view(&body, "view_type")?,
        offset: offset(&body)?,
        limit: size as u64 + 1,
    };
    let mut rows = app.store.run_experiment_search(&search).await?;
    let next = token::next(search.offset, size, rows.len());
    rows.truncate(size);
    let experiments: Vec<_> = rows.iter().map(render::experiment).collect();
    render::ok(&page("experiments", &experiments, next))
}

/// A page of things under their name.
pub fn page(
    name: &str,
    items: &[impl serde::Serialize],
    next: Option<String>,
) -> serde_json::Map<String, serde_json::Value> {
    let mut page = serde_json::Map::new();
    if !items.is_empty() {
        page.insert(name.to_owned(), json!(items));
    }
    if let Some(next) = next {
        page.insert("next_page_token".to_owned(), json!(next));
    }
    page
}

/// `POST experiments/update`
pub async fn update(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let id = body.required_str("experiment_id")?;
    if let Some(name) = body
        .optional_str("new_name")?
        .filter(|name| !name.is_empty())
    {
        names::experiment_name(name)?;
        known(&app, id).await?;
        let renamed = app.store.run_experiment_rename(id, name, app.now()).await?;
        renamed.map_err(|refusal| of_experiment(id, name, &refusal))?;
    }
    render::empty()
}

/// Makes sure that an experiment of ours has its face.
async fn known(app: &Data<App>, id: &str) -> Result<(), Refused> {
    let row = app.store.run_experiment_get(id).await?;
    row.map(|_| ()).ok_or_else(|| no_experiment(id))
}

async fn kill(app: &Data<App>, request: &HttpRequest, bytes: &Bytes, delete: bool) -> Answer {
    let body = parameters(request, bytes)?;
    let id = body.required_str("experiment_id")?;
    known(app, id).await?;
    let done = app
        .store
        .run_experiment_delete(id, delete, app.now())
        .await?;
    done.map_err(|refusal| of_experiment(id, "", &refusal))?;
    render::empty()
}

/// `POST experiments/delete`
pub async fn delete(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    kill(&app, &request, &bytes, true).await
}

/// `POST experiments/restore`
pub async fn restore(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    kill(&app, &request, &bytes, false).await
}

/// `POST experiments/set-experiment-tag`
pub async fn set_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let id = body.required_str("experiment_id")?;
    let key = body.required_str("key")?;
    let value = body.optional_str("value")?.unwrap_or_default();
    names::experiment_tag(key, value)?;
    known(&app, id).await?;
    let done = app
        .store
        .run_experiment_tag(id, (key, Some(value)), app.now())
        .await?;
    done.map_err(|refusal| of_experiment(id, "", &refusal))?;
    render::empty()
}

/// `POST experiments/delete-experiment-tag`
pub async fn delete_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let id = body.required_str("experiment_id")?;
    let key = body.required_str("key")?;
    known(&app, id).await?;
    let done = app
        .store
        .run_experiment_tag(id, (key, None), app.now())
        .await?;
    if done.map_err(|refusal| of_experiment(id, "", &refusal))? {
        return render::empty();
    }
    let text = format!("No tag with name: {key} in experiment with id {id}");
    Err(Refusal::missing(text).into())
}
