//! Histories of metrics.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data};
use pomona_store::Point;
use pomona_tracking::{Refusal, downsample, limits, token};
use serde_json::json;

use super::experiments::{offset, page};
use super::render::Metric;
use super::runs::id;
use super::{Answer, Refused, parameters, render};
use crate::http::App;

/// `GET metrics/get-history`: all of it, or a page.
pub async fn history(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let (run, key) = (id(&body)?, body.required_str("metric_key")?);
    let asked = body.optional_i64("max_results")?;
    let offset = offset(&body)?;
    super::run(&app, run).await?;
    let points = app.store.run_history(run, key).await?;
    let from = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(points.len());
    let rest = points.get(from..).unwrap_or_default();
    let is_paged = asked.is_some() || body.has("page_token");
    let size = if is_paged {
        limits::METRIC_HISTORY.read(&body)?
    } else {
        rest.len()
    };
    let next = token::next(offset, size, rest.len());
    let shown = rest.iter().take(size);
    let metrics: Vec<Metric<'_>> = shown.map(|point| Metric::new(key, *point)).collect();
    render::ok(&page("metrics", &metrics, next))
}

fn runs(body: &pomona_tracking::params::Body<'_>) -> Result<Vec<String>, Refusal> {
    let mut runs = body.strings("run_ids")?;
    // Pages of MLflow's ask with `run_id`.
    if runs.is_empty() {
        runs = body.strings("run_id")?;
    }
    if runs.is_empty() {
        return Err(body.missing("run_ids"));
    }
    limits::bulk_runs(runs.len())?;
    Ok(runs)
}

async fn histories(
    app: &Data<App>,
    runs: Vec<String>,
    key: &str,
) -> Result<Vec<(String, Vec<Point>)>, Refused> {
    let mut all = Vec::with_capacity(runs.len());
    for run in runs {
        let points = app.store.run_history(&run, key).await?;
        all.push((run, points));
    }
    Ok(all)
}

/// What is asked for whole histories of several runs: of a long one the points at which its bins begin
/// and its last one, which are many times as many as are shown.
async fn outlines(
    app: &Data<App>,
    runs: Vec<String>,
    key: &str,
    most: usize,
) -> Result<Vec<(String, Vec<Point>)>, Refused> {
    let mut all = Vec::with_capacity(runs.len());
    for run in runs {
        let outline = app.store.run_outline(&run, key, 4 * most).await?;
        let points = match outline {
            Some((outline, _)) => {
                let mut points = outline.firsts;
                points.extend(outline.last);
                points
            }
            None => app.store.run_history(&run, key).await?,
        };
        all.push((run, points));
    }
    Ok(all)
}

/// `GET metrics/get-history-bulk`: of several runs, as MLflow's pages ask for it.
pub async fn bulk(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let (runs, key) = (runs(&body)?, body.required_str("metric_key")?);
    let asked = body.optional_i64("max_results")?;
    let size = asked.and_then(|size| usize::try_from(size).ok());
    let size = size.map_or(limits::MAX_BULK_POINTS, |size| {
        size.min(limits::MAX_BULK_POINTS)
    });
    let all = histories(&app, runs, key).await?;
    let points = all
        .iter()
        .flat_map(|(run, points)| points.iter().map(move |p| (run, *p)));
    let metrics: Vec<Metric<'_>> = points.take(size).map(|of| with_run(key, of)).collect();
    render::ok(&json!({ "metrics": metrics }))
}

fn with_run<'a>(key: &'a str, (run, point): (&'a String, Point)) -> Metric<'a> {
    let mut metric = Metric::new(key, point);
    metric.run_id = Some(run);
    metric
}

/// `GET metrics/get-history-bulk-interval`: steps of several runs, evenly, for a chart.
pub async fn bulk_interval(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let (runs, key) = (runs(&body)?, body.required_str("metric_key")?);
    let (start, end) = (
        body.optional_i64("start_step")?,
        body.optional_i64("end_step")?,
    );
    let interval = limits::interval(start, end)?;
    let most = limits::BULK_INTERVAL.read(&body)?;
    let mut all = match interval {
        None => outlines(&app, runs, key, most).await?,
        Some(_) => histories(&app, runs, key).await?,
    };
    for (_, points) in &mut all {
        if let Some((start, end)) = interval {
            points.retain(|point| (start..=end).contains(&point.step));
        }
        let by_step = |point: &Point| (point.step, point.timestamp);
        if !points.is_sorted_by_key(by_step) {
            points.sort_by_key(by_step);
        }
    }
    let steps: Vec<Vec<i64>> = (all.iter())
        .map(|(_, points)| points.iter().map(|point| point.step).collect())
        .collect();
    let shown = downsample::steps(steps.iter().map(Vec::as_slice), most);
    let points = all.iter().flat_map(|(run, points)| {
        let kept = at_steps(points, &shown);
        kept.map(move |point| (run, *point))
    });
    let metrics: Vec<Metric<'_>> = points.map(|of| with_run(key, of)).collect();
    render::ok(&page("metrics", &metrics, None))
}

/// The points at some steps; both are in the order of steps.
fn at_steps<'a>(points: &'a [Point], steps: &'a [i64]) -> impl Iterator<Item = &'a Point> {
    let mut rest = steps;
    points.iter().filter(move |point| {
        while let [first, more @ ..] = rest
            && *first < point.step
        {
            rest = more;
        }
        rest.first() == Some(&point.step)
    })
}
