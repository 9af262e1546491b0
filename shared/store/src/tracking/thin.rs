//! Retention of points: histories of runs that ended long ago keep their shape, not every point.
//!
//! An experiment asks for it by its tag [`FULL_DAYS`]. The newest value of a metric must never be
//! lost, so the last point always stays, and so do extremes. What trials themselves measured is not
//! here and is not touched.

use std::collections::BTreeMap;

use pomona_domain::Timestamp;
use pomona_migrations::tables::{RunChunks, RunExperimentTags, Runs};
use pomona_tracking::downsample;
use pomona_tracking::names::FULL_DAYS;
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Order, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::pack::{self, Point, Series};
use super::settle::unreadable;
use crate::commit::{OnRepeat, insert};
use crate::{Store, StoreError, ingest};

/// Points that a history keeps.
const KEPT: usize = 500;
/// Runs that one call thins; the rest comes in the next.
const RUNS_PER_CALL: u64 = 100;
const DAY_MS: i64 = 86_400_000;

impl Store {
    /// Thins histories that are past their time, some of them; answers how many runs it thinned.
    pub async fn runs_thin(&self, now: Timestamp) -> Result<u64, StoreError> {
        let query = Query::select()
            .columns([RunExperimentTags::ExperimentId, RunExperimentTags::Value])
            .from(RunExperimentTags::Table)
            .and_where(Expr::col(RunExperimentTags::Key).eq(FULL_DAYS))
            .to_owned();
        let mut thinned = 0;
        for row in self.readers.query_all(&query).await? {
            let (experiment, days): (String, String) =
                (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let Ok(days) = days.parse::<i64>() else {
                continue;
            };
            let before = now.plus_ms(days.saturating_mul(DAY_MS).saturating_neg());
            for run in self.runs_to_thin(&experiment, before).await? {
                // A late client may have written after the end.
                self.runs_settle(std::slice::from_ref(&run)).await?;
                ingest!(self, tx => thin(tx, &run).await)?;
                thinned += 1;
            }
        }
        Ok(thinned)
    }

    async fn runs_to_thin(
        &self,
        experiment: &str,
        before: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let is_long = Expr::col((RunChunks::Table, RunChunks::Number))
            .gt(0)
            .or(Expr::col((RunChunks::Table, RunChunks::Count)).gt(KEPT as i64));
        let query = Query::select()
            .distinct()
            .column((Runs::Table, Runs::Id))
            .from(Runs::Table)
            .inner_join(
                RunChunks::Table,
                Expr::col((RunChunks::Table, RunChunks::RunId)).equals((Runs::Table, Runs::Id)),
            )
            .and_where(Expr::col((Runs::Table, Runs::ExperimentId)).eq(experiment))
            .and_where(Expr::col((Runs::Table, Runs::EndTime)).lt(before.0))
            .and_where(is_long)
            .limit(RUNS_PER_CALL)
            .to_owned();
        let rows = self.readers.query_all(&query).await?;
        let ids = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(ids.collect::<Result<_, _>>()?)
    }
}

/// Rewrites the chunks of a run.
async fn thin(tx: &DatabaseTransaction, run: &str) -> Result<(), StoreError> {
    super::runs::touch(tx, &[run.to_owned()]).await?;
    let query = Query::select()
        .columns([RunChunks::Key, RunChunks::Points])
        .from(RunChunks::Table)
        .and_where(Expr::col(RunChunks::RunId).eq(run))
        .order_by(RunChunks::Key, Order::Asc)
        .order_by(RunChunks::Number, Order::Asc)
        .to_owned();
    let mut series = Series::new();
    for row in tx.query_all(&query).await? {
        let bytes: Vec<u8> = row.try_get_by_index(1)?;
        let points = series.entry(row.try_get_by_index(0)?).or_default();
        pack::read_series(&bytes, points).ok_or_else(|| unreadable("run_chunks"))?;
    }
    let delete = Query::delete()
        .from_table(RunChunks::Table)
        .and_where(Expr::col(RunChunks::RunId).eq(run))
        .to_owned();
    tx.execute(&delete).await?;
    let kept: BTreeMap<String, Vec<Point>> = (series.into_iter())
        .map(|(key, points)| (key, shape(points)))
        .collect();
    let rows = kept.iter().map(|(key, points)| {
        vec![
            run.into(),
            key.as_str().into(),
            0_i64.into(),
            (points.len() as i64).into(),
            pack::series(points).into(),
        ]
    });
    let columns = [
        RunChunks::RunId,
        RunChunks::Key,
        RunChunks::Number,
        RunChunks::Count,
        RunChunks::Points,
    ]
    .map(IntoIden::into_iden);
    let table = RunChunks::Table.into_iden();
    insert(tx, table, &columns, rows.collect(), &OnRepeat::Skip).await?;
    Ok(())
}

/// The points that show a history's shape, its newest among them.
fn shape(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(Point::age);
    points.dedup_by(|a, b| a.order(b).is_eq());
    let xy: Vec<(f64, f64)> = (points.iter())
        .map(|point| (point.step as f64, point.value))
        .collect();
    let shown = downsample::curve(&xy, KEPT).into_iter();
    shown
        .filter_map(|place| points.get(place).copied())
        .collect()
}
