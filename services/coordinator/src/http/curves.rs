//! Curves of metrics, thinned for charts. Rows are the same for all coordinators, so any answers.

use actix_web::web::{Data, Query};
use pomona_api::v1::curves::{
    Curve, CurvesQuery, DEFAULT_CURVE_POINTS, MAX_CURVE_POINTS, MAX_CURVES,
};
use pomona_domain::{Code, Fault};
use pomona_store::{Outline, Point};
use pomona_tracking::downsample;

use super::{Answer, App, Refusal, found, ok};

/// `GET /api/v1/curves`: in the order of the request.
pub async fn list(app: Data<App>, query: Query<CurvesQuery>) -> Answer {
    let points = query.points.unwrap_or(DEFAULT_CURVE_POINTS);
    if !(1..=MAX_CURVE_POINTS).contains(&points) {
        return Err(out_of_range("points", points, MAX_CURVE_POINTS).into());
    }
    let runs: Vec<&str> = query
        .runs
        .split(',')
        .filter(|run| !run.is_empty())
        .collect();
    if !(1..=MAX_CURVES).contains(&runs.len()) {
        return Err(out_of_range("runs", runs.len(), MAX_CURVES).into());
    }
    let mut curves = Vec::with_capacity(runs.len());
    for run in runs {
        app.store.run_face(run).await?;
        found(app.store.run_get(run).await?, "run", run)?;
        curves.push(curve(&app, run, &query.metric, points).await?);
    }
    ok(&curves)
}

fn out_of_range(name: &str, given: usize, most: usize) -> Fault {
    Fault::new(
        Code::OutOfRange,
        format!("{given} {name} are out of range, an answer has 1 to {most}"),
    )
    .hint("ask in several requests")
}

/// A long history is known by the extremes of its bins, of which there are enough for the choice.
async fn curve(app: &App, run: &str, metric: &str, most: usize) -> Result<Curve, Refusal> {
    let outline = app.store.run_outline(run, metric, 2 * most).await?;
    let (mut history, count) = if let Some((outline, count)) = outline {
        (ends_of(outline), count)
    } else {
        let history = app.store.run_history(run, metric).await?;
        let count = history.len() as u64;
        (history, count)
    };
    if !history.is_sorted_by_key(|point| point.step) {
        history.sort_by_key(|point| point.step);
    }
    let xy: Vec<(f64, f64)> = (history.iter())
        .map(|point| (point.step as f64, point.value))
        .collect();
    let shown: Vec<&Point> = (downsample::curve(&xy, most).into_iter())
        .filter_map(|place| history.get(place))
        .collect();
    Ok(Curve {
        run: run.to_owned(),
        count,
        steps: shown.iter().map(|point| point.step).collect(),
        values: (shown.iter())
            .map(|point| Some(point.value).filter(|value| value.is_finite()))
            .collect(),
    })
}

/// The extremes, with the first and the last point.
fn ends_of(outline: Outline) -> Vec<Point> {
    let mut points = outline.extremes;
    let is_new = |point: &Point, at: Option<&Point>| at.is_none_or(|at| at.step != point.step);
    if let Some(first) = outline.firsts.first()
        && is_new(first, points.first())
    {
        points.insert(0, *first);
    }
    points.extend(outline.last.filter(|last| is_new(last, points.last())));
    points
}
