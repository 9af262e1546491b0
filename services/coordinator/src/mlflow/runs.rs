//! Runs, as MLflow's clients see them.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data};
use pomona_store::{NewRun, Run, RunChange, RunData, RunSearch};
use pomona_tracking::params::Body;
use pomona_tracking::run_name;
use pomona_tracking::{Refusal, filter, limits, names, order, token};
use serde_json::json;

use super::refusal::{no_run, of_experiment, of_run};
use super::{Answer, experiments, parameters, render};
use crate::http::App;

/// The tags that say a run's name and whose it is.
const NAME: &str = "mlflow.runName";
const USER: &str = "mlflow.user";
/// MLflow's statuses of a run.
const STATUSES: [(&str, &str); 5] = [
    ("RUNNING", "RUNNING"),
    ("SCHEDULED", "SCHEDULED"),
    ("FINISHED", "FINISHED"),
    ("FAILED", "FAILED"),
    ("KILLED", "KILLED"),
];

/// The run that a request is about; old clients call it `run_uuid`.
pub fn id<'a>(body: &'a Body<'_>) -> Result<&'a str, Refusal> {
    match body.optional_str("run_id")? {
        Some(id) if !id.is_empty() => Ok(id),
        _ => match body.optional_str("run_uuid")? {
            Some(id) if !id.is_empty() => Ok(id),
            _ => Err(body.missing("run_id")),
        },
    }
}

/// `POST runs/create`
pub async fn create(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let experiment = body
        .optional_str("experiment_id")?
        .filter(|id| !id.is_empty());
    let experiment = experiment.unwrap_or("0");
    names::experiment_id(experiment)?;
    let mut tags = experiments::tags(&body, |key, _| names::tag_key(key, "tags"))?;
    for (_, value) in &mut tags {
        value.truncate(names::tag_value(value).len());
    }
    let said = tags
        .iter()
        .rev()
        .find(|(key, _)| key == NAME)
        .map(|(_, name)| name.clone());
    let given = body
        .optional_str("run_name")?
        .filter(|name| !name.is_empty());
    if let (Some(given), Some(said)) = (given, &said)
        && given != said
    {
        let text = format!(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different \
             values (run_name='{given}', mlflow.runName='{said}')."
        );
        return Err(Refusal::invalid(text).into());
    }
    let name = given.map(str::to_owned).or(said);
    let name = name.unwrap_or_else(|| run_name(rand::random()));
    if !tags.iter().any(|(key, _)| key == NAME) {
        tags.push((NAME.to_owned(), name.clone()));
    }
    let user = body
        .optional_str("user_id")?
        .filter(|user| !user.is_empty());
    let said = tags
        .iter()
        .find(|(key, _)| key == USER)
        .map(|(_, user)| user.as_str());
    let new = NewRun {
        id: format!("{:032x}", rand::random::<u128>()),
        experiment: experiment.to_owned(),
        name,
        user: user.or(said).unwrap_or_default().to_owned(),
        start: body.optional_i64("start_time")?,
        tags,
    };
    let made = match app.store.run_create(&new).await? {
        Ok(made) => made,
        Err(refusal) => return Err(of_experiment(experiment, "", &refusal)),
    };
    let data = RunData {
        tags: new.tags,
        ..RunData::default()
    };
    render::ok(&json!({ "run": render::run(&made, &data) }))
}

/// `GET runs/get`
pub async fn get(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let row = super::run(&app, id(&body)?).await?;
    render::ok(&json!({ "run": render::whole(&app, &row).await? }))
}

/// `POST runs/update`
pub async fn update(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let id = id(&body)?;
    let name = body
        .optional_str("run_name")?
        .filter(|name| !name.is_empty());
    let change = RunChange {
        status: body
            .optional_choice("status", &STATUSES)?
            .map(str::to_owned),
        end: body.optional_i64("end_time")?,
        name: name.map(str::to_owned),
    };
    app.store.run_face(id).await?;
    let done = app.store.run_update(id, &change).await?;
    done.map_err(|refusal| of_run(id, refusal))?;
    let row = super::run(&app, id).await?;
    render::ok(&json!({ "run_info": render::run_info(&row) }))
}

async fn kill(app: &Data<App>, request: &HttpRequest, bytes: &Bytes, delete: bool) -> Answer {
    let body = parameters(request, bytes)?;
    let id = body.required_str("run_id")?;
    app.store.run_face(id).await?;
    if app.store.run_delete(id, delete, app.now()).await? {
        return render::empty();
    }
    Err(no_run(id))
}

/// `POST runs/delete`
pub async fn delete(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    kill(&app, &request, &bytes, true).await
}

/// `POST runs/restore`
pub async fn restore(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    kill(&app, &request, &bytes, false).await
}

/// `POST runs/delete-tag`
pub async fn delete_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let (id, key) = (body.required_str("run_id")?, body.required_str("key")?);
    app.store.run_face(id).await?;
    let done = app.store.run_untag(id, key).await?;
    if done.map_err(|refusal| of_run(id, refusal))? {
        return render::empty();
    }
    let text = format!("No tag with name: {key} in run with id {id}");
    Err(Refusal::missing(text).into())
}

/// `POST runs/search`
pub async fn search(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let size = limits::RUNS.read(&body)?;
    let experiments = body.strings("experiment_ids")?;
    for id in &experiments {
        names::experiment_id(id)?;
    }
    let search = RunSearch {
        experiments,
        filter: filter::runs(body.optional_str("filter")?.unwrap_or_default())?,
        order: order::runs(&body.strings("order_by")?)?,
        view: experiments::view(&body, "run_view_type")?,
        offset: experiments::offset(&body)?,
        limit: size as u64 + 1,
    };
    let mut rows = app.store.run_search(&search).await?;
    let next = token::next(search.offset, size, rows.len());
    rows.truncate(size);
    let ids: Vec<String> = rows.iter().map(|run| run.id.clone()).collect();
    let data = app.store.run_data(&ids).await?;
    let nothing = RunData::default();
    let with = |row: &'_ Run| data.get(&row.id).unwrap_or(&nothing);
    let runs: Vec<_> = rows.iter().map(|row| render::run(row, with(row))).collect();
    render::ok(&experiments::page("runs", &runs, next))
}
