//! What runs took and made: data sets and logged models.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data};
use pomona_store::{ModelRole, RunDataset, RunWrite};
use pomona_tracking::params::Body;
use pomona_tracking::{Refusal, limits, names};
use serde_json::{Value, json};

use super::refusal::of_run;
use super::runs::id;
use super::{Answer, Refused, parameters, render};
use crate::http::App;

/// The tag in which clients of 2.x keep the models of a run.
const HISTORY: &str = "mlflow.log-model.history";
/// Data sets that one search answers at most.
const MAX_DATASETS: u64 = 1000;

fn dataset(item: &Body<'_>) -> Result<RunDataset, Refusal> {
    let tags = item.list("tags", |tag| {
        let (key, value) = (tag.required_str("key")?, tag.optional_str("value")?);
        let value = value.unwrap_or_default();
        names::input_tag(key, value)?;
        Ok((key.to_owned(), value.to_owned()))
    })?;
    let used = item.required_message("dataset")?;
    let text = |name| Ok::<_, Refusal>(used.required_str(name)?.to_owned());
    let dataset = RunDataset {
        name: text("name")?,
        digest: text("digest")?,
        source_type: text("source_type")?,
        source: text("source")?,
        schema: used.optional_str("schema")?.map(str::to_owned),
        profile: used.optional_str("profile")?.map(str::to_owned),
        tags,
    };
    names::dataset(&names::Dataset {
        name: &dataset.name,
        digest: &dataset.digest,
        source: &dataset.source,
        schema: dataset.schema.as_deref(),
        profile: dataset.profile.as_deref(),
    })?;
    Ok(dataset)
}

async fn relate(
    app: &Data<App>,
    run: &str,
    datasets: &[RunDataset],
    models: &[(ModelRole, String, i64)],
) -> Answer {
    app.store.run_face(run).await?;
    let done = app.store.run_relate(run, datasets, models).await?;
    done.map_err(|refusal| of_run(run, refusal))?;
    render::empty()
}

/// `POST runs/log-inputs`
pub async fn log_inputs(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = body.required_str("run_id")?;
    let datasets = body.list("datasets", dataset)?;
    if datasets.len() > limits::MAX_BATCH_DATASETS {
        let text = format!(
            "at most {} datasets may be logged at once",
            limits::MAX_BATCH_DATASETS
        );
        return Err(Refusal::invalid(text).into());
    }
    let models = body.list("models", |item| {
        Ok((
            ModelRole::Input,
            item.required_str("model_id")?.to_owned(),
            0,
        ))
    })?;
    relate(&app, run, &datasets, &models).await
}

/// `POST runs/outputs`
pub async fn log_outputs(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = body.required_str("run_id")?;
    let models = body.list("models", |item| {
        let step = item.optional_i64("step")?.unwrap_or(0);
        Ok((
            ModelRole::Output,
            item.required_str("model_id")?.to_owned(),
            step,
        ))
    })?;
    relate(&app, run, &[], &models).await
}

/// `POST runs/log-model`: how clients of 2.x say that they saved a model.
pub async fn log_model(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = id(&body)?;
    let text = body.required_str("model_json")?;
    let wrong = |why: String| {
        Refused::from(Refusal::invalid(format!(
            "Malformed model info. \n {text} \n {why}"
        )))
    };
    let model: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    for key in ["artifact_path", "flavors", "utc_time_created", "run_id"] {
        if model.get(key).is_none() {
            return Err(wrong(format!("missing field '{key}'")));
        }
    }
    super::run(&app, run).await?;
    let mut data = app.store.run_data(&[run.to_owned()]).await?;
    let tags = data.remove(run).unwrap_or_default().tags;
    let before = tags.into_iter().find(|(key, _)| key == HISTORY);
    let mut history: Vec<Value> = before
        .and_then(|(_, text)| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    history.push(model);
    let order = RunWrite {
        run: run.to_owned(),
        tags: vec![(HISTORY.to_owned(), json!(history).to_string())],
        ..RunWrite::default()
    };
    super::writer::write(&app, order).await?;
    render::empty()
}

/// `POST experiments/search-datasets`
pub async fn search_datasets(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let experiments = body.strings("experiment_ids")?;
    if experiments.is_empty() || experiments.len() > limits::MAX_DATASET_EXPERIMENTS {
        let text = format!(
            "SearchDatasets request must specify between 1 and {} experiment_ids. Received {}.",
            limits::MAX_DATASET_EXPERIMENTS,
            experiments.len()
        );
        return Err(Refusal::invalid(text).into());
    }
    let found = app.store.run_datasets(&experiments, MAX_DATASETS).await?;
    let summaries = found
        .into_iter()
        .map(|(experiment, name, digest, context)| {
            let mut summary = json!({
                "experiment_id": experiment,
                "name": name,
                "digest": digest,
            });
            if let Some(context) = context {
                summary["context"] = json!(context);
            }
            summary
        });
    let summaries: Vec<Value> = summaries.collect();
    render::ok(&super::experiments::page(
        "dataset_summaries",
        &summaries,
        None,
    ))
}
