//! MLflow's messages as JSON: names in snake_case, whole numbers as numbers, NaN as text, and
//! nothing where there is nothing.

use actix_web::HttpResponse;
use actix_web::web::Data;
use pomona_store::{
    Latest, LoggedModel, ModelRole, Point, Run, RunData, RunDataset, RunExperiment, VersionFace,
};
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{Answer, Refused};
use crate::http::App;

/// A key and its value.
#[derive(Debug, Serialize)]
pub struct Pair<'a> {
    pub key: &'a str,
    pub value: &'a str,
}

/// Pairs as messages.
fn pairs<S: Serializer>(pairs: &[(String, String)], to: S) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(pairs.len()))?;
    for (key, value) in pairs {
        list.serialize_element(&Pair { key, value })?;
    }
    list.end()
}

/// Pairs as messages, in a message that is made by hand.
pub fn pairs_of(pairs: &[(String, String)]) -> Value {
    let pair = |(key, value): &(String, String)| json!({ "key": key, "value": value });
    Value::Array(pairs.iter().map(pair).collect())
}

/// A version of a registered model.
pub fn version(face: &VersionFace) -> Map<String, Value> {
    let version = &face.version;
    let mut shown = Map::new();
    let mut say = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    say("name", json!(version.model));
    say("version", json!(version.number.to_string()));
    say("creation_timestamp", json!(version.created_at.0));
    say("last_updated_timestamp", json!(face.updated_at.0));
    say("current_stage", json!(face.stage));
    say("source", json!(face.source));
    say("status", json!("READY"));
    let registered = version.registered();
    let texts = [
        ("description", Some(&face.description)),
        ("run_id", face.run_id.as_ref()),
        ("run_link", registered.and_then(|of| of.run_link.as_ref())),
        ("model_id", registered.and_then(|of| of.model_id.as_ref())),
    ];
    for (name, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            say(name, json!(text));
        }
    }
    if !face.tags.is_empty() {
        say("tags", pairs_of(&face.tags));
    }
    if !face.aliases.is_empty() {
        say("aliases", json!(face.aliases));
    }
    shown
}

/// NaN is text: JSON has none.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference over"
)]
pub fn double<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() {
        to.serialize_str("NaN")
    } else {
        to.serialize_f64(*value)
    }
}

/// A point of a metric.
#[derive(Debug, Serialize)]
pub struct Metric<'a> {
    pub key: &'a str,
    #[serde(serialize_with = "double")]
    pub value: f64,
    pub timestamp: i64,
    pub step: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<&'a str>,
}

impl<'a> Metric<'a> {
    pub fn new(key: &'a str, point: Point) -> Self {
        Self {
            key,
            value: point.value,
            timestamp: point.timestamp,
            step: point.step,
            run_id: None,
        }
    }
}

fn newest<S: Serializer>(latest: &[Latest], to: S) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(latest.len()))?;
    for one in latest {
        list.serialize_element(&Metric::new(&one.key, one.point))?;
    }
    list.end()
}

#[derive(Debug, Serialize)]
struct RunInfo<'a> {
    run_id: &'a str,
    run_uuid: &'a str,
    run_name: &'a str,
    experiment_id: &'a str,
    user_id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<i64>,
    artifact_uri: &'a str,
    lifecycle_stage: &'static str,
}

fn stage(deleted: bool) -> &'static str {
    if deleted { "deleted" } else { "active" }
}

#[derive(Debug, Serialize)]
struct Logged<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "newest")]
    metrics: &'a [Latest],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "pairs")]
    params: &'a [(String, String)],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "pairs")]
    tags: &'a [(String, String)],
}

/// What a run's row says.
pub fn run_info(run: &Run) -> impl Serialize + '_ {
    RunInfo {
        run_id: &run.id,
        run_uuid: &run.id,
        run_name: &run.name,
        experiment_id: &run.experiment,
        user_id: &run.user,
        status: &run.status,
        start_time: run.start,
        end_time: run.end,
        artifact_uri: &run.artifact_uri,
        lifecycle_stage: stage(run.deleted),
    }
}

/// A run.
pub fn run<'a>(run: &'a Run, data: &'a RunData) -> impl Serialize + 'a {
    #[derive(Serialize)]
    struct Message<'a, I: Serialize> {
        info: I,
        data: Logged<'a>,
        inputs: Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        outputs: Option<Value>,
    }
    Message {
        info: run_info(run),
        data: Logged {
            metrics: &data.latest,
            params: &data.params,
            tags: &data.tags,
        },
        inputs: inputs(data),
        outputs: outputs(data),
    }
}

fn inputs(data: &RunData) -> Value {
    let mut inputs = Map::new();
    let datasets: Vec<Value> = data.datasets.iter().map(dataset).collect();
    if !datasets.is_empty() {
        inputs.insert("dataset_inputs".to_owned(), json!(datasets));
    }
    let taken = data
        .models
        .iter()
        .filter(|(role, ..)| *role == ModelRole::Input);
    let models: Vec<Value> = taken.map(|(_, id, _)| json!({ "model_id": id })).collect();
    if !models.is_empty() {
        inputs.insert("model_inputs".to_owned(), json!(models));
    }
    Value::Object(inputs)
}

fn outputs(data: &RunData) -> Option<Value> {
    let made = data
        .models
        .iter()
        .filter(|(role, ..)| *role == ModelRole::Output);
    let made = made.map(|(_, id, step)| json!({ "model_id": id, "step": step }));
    let made: Vec<Value> = made.collect();
    (!made.is_empty()).then(|| json!({ "model_outputs": made }))
}

fn dataset(used: &RunDataset) -> Value {
    let mut dataset = json!({
        "name": used.name,
        "digest": used.digest,
        "source_type": used.source_type,
        "source": used.source,
    });
    for (name, value) in [("schema", &used.schema), ("profile", &used.profile)] {
        if let Some(value) = value {
            dataset[name] = json!(value);
        }
    }
    json!({ "tags": key_values(&used.tags), "dataset": dataset })
}

/// Pairs as messages.
pub fn key_values(pairs: &[(String, String)]) -> Vec<Pair<'_>> {
    let pairs = pairs.iter();
    pairs.map(|(key, value)| Pair { key, value }).collect()
}

/// A logged model.
pub fn logged_model(model: &LoggedModel) -> Value {
    let metrics = model.metrics.iter().map(|one| {
        let mut metric = json!({
            "key": one.key,
            "value": one.point.value,
            "timestamp": one.point.timestamp,
            "step": one.point.step,
            "model_id": one.model,
            "run_id": one.run,
        });
        if one.point.value.is_nan() {
            metric["value"] = json!("NaN");
        }
        for (name, value) in [
            ("dataset_name", &one.dataset_name),
            ("dataset_digest", &one.dataset_digest),
        ] {
            if !value.is_empty() {
                metric[name] = json!(value);
            }
        }
        metric
    });
    let mut data = Map::new();
    let metrics: Vec<Value> = metrics.collect();
    if !metrics.is_empty() {
        data.insert("metrics".to_owned(), json!(metrics));
    }
    if !model.params.is_empty() {
        data.insert("params".to_owned(), json!(key_values(&model.params)));
    }
    json!({
        "info": {
            "model_id": model.id,
            "experiment_id": model.experiment,
            "name": model.name,
            "creation_timestamp_ms": model.created_at,
            "last_updated_timestamp_ms": model.updated_at,
            "artifact_uri": model.artifact_uri,
            "status": model.status,
            "model_type": model.model_type,
            "source_run_id": model.source_run,
            "tags": key_values(&model.tags),
        },
        "data": data,
    })
}

/// An experiment.
pub fn experiment(row: &RunExperiment) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Message<'a> {
        experiment_id: &'a str,
        name: &'a str,
        artifact_location: &'a str,
        lifecycle_stage: &'static str,
        last_update_time: i64,
        creation_time: i64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tags: Vec<Pair<'a>>,
    }
    let tags = row.tags.iter();
    Message {
        experiment_id: &row.id,
        name: &row.name,
        artifact_location: &row.artifact_location,
        lifecycle_stage: stage(row.deleted_at.is_some()),
        last_update_time: row.updated_at.0,
        creation_time: row.created_at.0,
        tags: tags.map(|(key, value)| Pair { key, value }).collect(),
    }
}

/// 200 with a message.
#[expect(clippy::unnecessary_wraps, reason = "what handlers answer")]
pub fn ok(message: &impl Serialize) -> Answer {
    Ok(HttpResponse::Ok().json(message))
}

/// 200 with an empty message.
pub fn empty() -> Answer {
    ok(&serde_json::json!({}))
}

/// A run with all that is logged with it.
pub async fn whole(app: &Data<App>, row: &Run) -> Result<serde_json::Value, Refused> {
    let mut data = app.store.run_data(std::slice::from_ref(&row.id)).await?;
    let data = data.remove(&row.id).unwrap_or_default();
    Ok(serde_json::to_value(run(row, &data)).unwrap_or_default())
}
