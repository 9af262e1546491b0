//! What clients log with runs: single values, and batches of a thousand points, which are the path
//! that must be fast.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data};
use pomona_store::{ModelMetric, Point, RunWrite};
use pomona_tracking::params::Body;
use pomona_tracking::{Refusal, limits, names};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::runs::id;
use super::writer::write;
use super::{Answer, Refused, parameters, render};
use crate::http::App;

/// Infinity becomes the largest number, as the stock server has it.
fn finite(value: f64) -> f64 {
    const MOST: f64 = 1.797_693_134_862_315_7e308;
    value.clamp(-MOST, MOST)
}

fn point(body: &Body<'_>) -> Result<Point, Refusal> {
    Ok(Point {
        value: finite(body.required_f64("value")?),
        timestamp: body.required_i64("timestamp")?,
        step: body.optional_i64("step")?.unwrap_or(0),
    })
}

/// `POST runs/log-metric`
pub async fn log_metric(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = id(&body)?;
    let key = body.required_str("key")?;
    names::metric_key(key, "name")?;
    let point = point(&body)?;
    let order = RunWrite {
        run: run.to_owned(),
        points: BTreeMap::from([(key.to_owned(), vec![point])]),
        ..RunWrite::default()
    };
    write(&app, order).await?;
    measured(&app, run, vec![of_model(&body, key, point)?]).await?;
    render::empty()
}

/// What a metric says of a logged model, if it names one.
fn of_model(body: &Body<'_>, key: &str, point: Point) -> Result<Option<ModelMetric>, Refusal> {
    let Some(model) = body.optional_str("model_id")?.filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let text = |name| Ok::<_, Refusal>(body.optional_str(name)?.unwrap_or_default().to_owned());
    Ok(Some(ModelMetric {
        model: model.to_owned(),
        run: String::new(),
        key: key.to_owned(),
        dataset_name: text("dataset_name")?,
        dataset_digest: text("dataset_digest")?,
        point,
    }))
}

async fn measured(
    app: &Data<App>,
    run: &str,
    metrics: Vec<Option<ModelMetric>>,
) -> Result<(), Refused> {
    let mut metrics: Vec<ModelMetric> = metrics.into_iter().flatten().collect();
    for metric in &mut metrics {
        run.clone_into(&mut metric.run);
    }
    if !metrics.is_empty() {
        app.store.logged_model_measured(&metrics).await?;
    }
    Ok(())
}

/// `POST runs/log-parameter`
pub async fn log_parameter(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = id(&body)?;
    let key = body.required_str("key")?;
    names::param_key(key, "key")?;
    let value = names::param_value(body.optional_str("value")?.unwrap_or_default());
    let order = RunWrite {
        run: run.to_owned(),
        params: vec![(key.to_owned(), value.to_owned())],
        ..RunWrite::default()
    };
    write(&app, order).await?;
    render::empty()
}

/// `POST runs/set-tag`
pub async fn set_tag(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let run = id(&body)?;
    let key = body.required_str("key")?;
    names::tag_key(key, "key")?;
    let value = names::tag_value(body.optional_str("value")?.unwrap_or_default());
    let order = RunWrite {
        run: run.to_owned(),
        tags: vec![(key.to_owned(), value.to_owned())],
        ..RunWrite::default()
    };
    write(&app, order).await?;
    render::empty()
}

/// A batch as clients write it. What is not as expected is read again, slowly, for its message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fast<'a> {
    #[serde(borrow)]
    run_id: Cow<'a, str>,
    #[serde(borrow, default)]
    metrics: Vec<FastMetric<'a>>,
    #[serde(borrow, default)]
    params: Vec<FastPair<'a>>,
    #[serde(borrow, default)]
    tags: Vec<FastPair<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FastMetric<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    value: f64,
    timestamp: i64,
    #[serde(default)]
    step: i64,
}

#[derive(Debug, Deserialize)]
struct FastPair<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

/// `POST runs/log-batch`
pub async fn log_batch(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    limits::batch_bytes(bytes.len())?;
    let (order, models) = match serde_json::from_slice::<Fast<'_>>(&bytes) {
        Ok(fast) if !fast.run_id.is_empty() => (quick(fast)?, Vec::new()),
        Ok(_) | Err(_) => slow(&parameters(&request, &bytes)?)?,
    };
    let run = order.run.clone();
    write(&app, order).await?;
    measured(&app, &run, models).await?;
    render::empty()
}

fn quick(fast: Fast<'_>) -> Result<RunWrite, Refusal> {
    limits::batch(fast.metrics.len(), fast.params.len(), fast.tags.len())?;
    let mut order = RunWrite {
        run: fast.run_id.into_owned(),
        ..RunWrite::default()
    };
    for (at, metric) in fast.metrics.iter().enumerate() {
        let point = Point {
            value: finite(metric.value),
            timestamp: metric.timestamp,
            step: metric.step,
        };
        add(&mut order, (at, &metric.key), point)?;
    }
    for (at, pair) in fast.params.iter().enumerate() {
        names::param_key(&pair.key, &format!("params[{at}].key"))?;
        let value = names::param_value(&pair.value);
        order.params.push((pair.key.to_string(), value.to_owned()));
    }
    for (at, pair) in fast.tags.iter().enumerate() {
        names::tag_key(&pair.key, &format!("tags[{at}].key"))?;
        let value = names::tag_value(&pair.value);
        order.tags.push((pair.key.to_string(), value.to_owned()));
    }
    Ok(order)
}

/// Adds a point; a key is checked where it is new.
fn add(order: &mut RunWrite, (at, key): (usize, &str), point: Point) -> Result<(), Refusal> {
    if let Some(points) = order.points.get_mut(key) {
        points.push(point);
        return Ok(());
    }
    names::metric_key(key, &format!("metrics[{at}].name"))?;
    order.points.insert(key.to_owned(), vec![point]);
    Ok(())
}

fn slow(body: &Body<'_>) -> Result<(RunWrite, Vec<Option<ModelMetric>>), Refusal> {
    let run = body.required_str("run_id")?;
    let mut models = Vec::new();
    let metrics = body.list("metrics", |item| {
        let (key, point) = (item.required_str("key")?, point(item)?);
        Ok((key.to_owned(), point, of_model(item, key, point)?))
    })?;
    let pair = |item: &Body<'_>| {
        let value = item.optional_str("value")?.unwrap_or_default();
        Ok((item.required_str("key")?.to_owned(), value.to_owned()))
    };
    let (params, tags) = (body.list("params", pair)?, body.list("tags", pair)?);
    limits::batch(metrics.len(), params.len(), tags.len())?;
    let mut order = RunWrite {
        run: run.to_owned(),
        ..RunWrite::default()
    };
    for (at, (key, point, model)) in metrics.into_iter().enumerate() {
        add(&mut order, (at, &key), point)?;
        models.push(model);
    }
    for (at, (key, value)) in params.into_iter().enumerate() {
        names::param_key(&key, &format!("params[{at}].key"))?;
        order
            .params
            .push((key, names::param_value(&value).to_owned()));
    }
    for (at, (key, value)) in tags.into_iter().enumerate() {
        names::tag_key(&key, &format!("tags[{at}].key"))?;
        order.tags.push((key, names::tag_value(&value).to_owned()));
    }
    Ok((order, models))
}
