//! Settling: points leave the log and become chunks of one metric each, and the newest values.
//!
//! It moves what is acknowledged from one place to another in one transaction, so it may be done at
//! any time, by anybody, twice, or broken off. It must never drop a point.

use std::collections::BTreeMap;

use pomona_migrations::tables::{RunChunks, RunLatest, RunLog, Runs};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::KEYS_PER_STATEMENT;
use super::pack::{self, Point, Series};
use super::runs::touch;
use crate::commit::{OnRepeat, insert};
use crate::rows::signed;
use crate::{Store, StoreError, ingest};

/// Points of a chunk that is full.
const CHUNK: usize = 4096;
/// Rows of the log that are settled at once.
const ROWS: u64 = 2000;
/// Values in one statement that updates the newest ones.
const LATEST_PER_STATEMENT: usize = 1000;

impl Store {
    /// Settles what runs have in the log. Those that have nothing there cost next to nothing.
    pub async fn runs_settle(&self, runs: &[String]) -> Result<(), StoreError> {
        for some in runs.chunks(KEYS_PER_STATEMENT) {
            let query = Query::select()
                .distinct()
                .column(RunLog::RunId)
                .from(RunLog::Table)
                .and_where(Expr::col(RunLog::RunId).is_in(some))
                .to_owned();
            for row in self.readers.query_all(&query).await? {
                let run: String = row.try_get_by_index(0)?;
                while ingest!(self, tx => settle(tx, &run).await)? {}
            }
        }
        Ok(())
    }

    /// Runs that have at least `rows` in the log, some of them.
    pub async fn runs_unsettled(&self, rows: u64) -> Result<Vec<String>, StoreError> {
        let query = Query::select()
            .column(RunLog::RunId)
            .from(RunLog::Table)
            .group_by_col(RunLog::RunId)
            .and_having(Expr::col(RunLog::Seq).count().gte(signed(rows)))
            .limit(1000)
            .to_owned();
        let rows = self.readers.query_all(&query).await?;
        let ids = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// The runs of experiments that have anything in the log.
    pub(super) async fn unsettled_in(
        &self,
        experiments: &[String],
    ) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        for some in experiments.chunks(KEYS_PER_STATEMENT) {
            let query = Query::select()
                .distinct()
                .column((RunLog::Table, RunLog::RunId))
                .from(RunLog::Table)
                .inner_join(
                    Runs::Table,
                    Expr::col((Runs::Table, Runs::Id)).equals((RunLog::Table, RunLog::RunId)),
                )
                .and_where(Expr::col((Runs::Table, Runs::ExperimentId)).is_in(some))
                .to_owned();
            for row in self.readers.query_all(&query).await? {
                found.push(row.try_get_by_index(0)?);
            }
        }
        Ok(found)
    }
}

/// Settles some of a run's log; answers whether there is more.
async fn settle(tx: &DatabaseTransaction, run: &str) -> Result<bool, StoreError> {
    touch(tx, run).await?;
    let query = Query::select()
        .columns([RunLog::Seq, RunLog::Points])
        .from(RunLog::Table)
        .and_where(Expr::col(RunLog::RunId).eq(run))
        .order_by(RunLog::Seq, Order::Asc)
        .limit(ROWS)
        .to_owned();
    let rows = tx.query_all(&query).await?;
    let (mut series, mut last) = (Series::new(), 0_i64);
    for row in &rows {
        last = row.try_get_by_index(0)?;
        let bytes: Vec<u8> = row.try_get_by_index(1)?;
        pack::read_batch(&bytes, None, &mut series).ok_or_else(|| unreadable("run_log"))?;
    }
    chunks(tx, run, &series).await?;
    latest(tx, run, &series).await?;
    let delete = Query::delete()
        .from_table(RunLog::Table)
        .and_where(Expr::col(RunLog::RunId).eq(run))
        .and_where(Expr::col(RunLog::Seq).lte(last))
        .to_owned();
    tx.execute(&delete).await?;
    Ok(rows.len() as u64 == ROWS)
}

/// Appends to the last chunk of each metric, and begins new ones where it is full.
async fn chunks(tx: &DatabaseTransaction, run: &str, series: &Series) -> Result<(), StoreError> {
    let mut open = open_chunks(tx, run, series).await?;
    let mut rows = Vec::new();
    for (key, new) in series {
        let (mut number, mut points) = open.remove(key).unwrap_or_default();
        points.extend(new);
        for some in points.chunks(CHUNK) {
            rows.push(vec![
                run.into(),
                key.as_str().into(),
                number.into(),
                (some.len() as i64).into(),
                pack::series(some).into(),
                (some.len() == CHUNK).then(|| pack::outline(some)).into(),
            ]);
            number += 1;
        }
    }
    let columns = [
        RunChunks::RunId,
        RunChunks::Key,
        RunChunks::Number,
        RunChunks::Count,
        RunChunks::Points,
        RunChunks::Outline,
    ]
    .map(IntoIden::into_iden);
    let table = RunChunks::Table.into_iden();
    insert(tx, table, &columns, rows, &OnRepeat::Replace { key: 3 }).await?;
    Ok(())
}

/// The number and the points of the last chunk of each metric that has room, or the number of the
/// next one.
async fn open_chunks(
    tx: &DatabaseTransaction,
    run: &str,
    series: &Series,
) -> Result<BTreeMap<String, (i64, Vec<Point>)>, StoreError> {
    let keys: Vec<&String> = series.keys().collect();
    let mut open = BTreeMap::new();
    for some in keys.chunks(KEYS_PER_STATEMENT) {
        let last = Query::select()
            .column(RunChunks::Key)
            .expr(Expr::col(RunChunks::Number).max())
            .from(RunChunks::Table)
            .and_where(Expr::col(RunChunks::RunId).eq(run))
            .and_where(Expr::col(RunChunks::Key).is_in(some.iter().copied()))
            .group_by_col(RunChunks::Key)
            .to_owned();
        for row in tx.query_all(&last).await? {
            let (key, number): (String, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            open.insert(key, (number + 1, Vec::new()));
        }
    }
    let numbers: Vec<(String, i64)> = (open.iter())
        .map(|(key, (next, _))| (key.clone(), next - 1))
        .collect();
    for some in numbers.chunks(KEYS_PER_STATEMENT) {
        let query = Query::select()
            .columns([RunChunks::Key, RunChunks::Number, RunChunks::Points])
            .from(RunChunks::Table)
            .and_where(Expr::col(RunChunks::RunId).eq(run))
            .and_where(Expr::col(RunChunks::Count).lt(CHUNK as i64))
            .and_where(
                Expr::tuple([Expr::col(RunChunks::Key), Expr::col(RunChunks::Number)])
                    .in_tuples(some.iter().map(|(key, number)| (key.as_str(), *number))),
            )
            .to_owned();
        for row in tx.query_all(&query).await? {
            let (key, number): (String, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let bytes: Vec<u8> = row.try_get_by_index(2)?;
            let mut points = Vec::new();
            pack::read_series(&bytes, &mut points).ok_or_else(|| unreadable("run_chunks"))?;
            open.insert(key, (number, points));
        }
    }
    Ok(open)
}

/// The newest value of each metric: by step, then time, then value.
async fn latest(tx: &DatabaseTransaction, run: &str, series: &Series) -> Result<(), StoreError> {
    let query = Query::select()
        .column(Runs::ExperimentId)
        .from(Runs::Table)
        .and_where(Expr::col(Runs::Id).eq(run))
        .to_owned();
    let Some(row) = tx.query_one(&query).await? else {
        return Ok(());
    };
    let experiment: String = row.try_get_by_index(0)?;
    let newest = |points: &Vec<Point>| points.iter().copied().max_by(Point::age);
    let rows: Vec<(&String, Point)> = (series.iter())
        .filter_map(|(key, points)| Some((key, newest(points)?)))
        .collect();
    for some in rows.chunks(LATEST_PER_STATEMENT) {
        let mut upsert = Query::insert();
        upsert.into_table(RunLatest::Table).columns([
            RunLatest::RunId,
            RunLatest::Key,
            RunLatest::ExperimentId,
            RunLatest::Value,
            RunLatest::IsNan,
            RunLatest::Step,
            RunLatest::Timestamp,
        ]);
        for (key, point) in some {
            let is_nan = point.value.is_nan();
            let value = if is_nan { 0.0 } else { point.value };
            upsert.values_panic([
                run.into(),
                key.as_str().into(),
                experiment.as_str().into(),
                value.into(),
                is_nan.into(),
                point.step.into(),
                point.timestamp.into(),
            ]);
        }
        upsert.on_conflict(if_newer());
        tx.execute(&upsert).await?;
    }
    Ok(())
}

fn if_newer() -> OnConflict {
    use RunLatest as C;
    OnConflict::columns([C::RunId, C::Key])
        .update_columns([C::Value, C::IsNan, C::Step, C::Timestamp])
        .action_and_where(Expr::cust(
            "(excluded.step, excluded.timestamp, excluded.value) >= \
             (run_latest.step, run_latest.timestamp, run_latest.value)",
        ))
        .to_owned()
}

/// Bytes in the database that are not ours, or damaged.
pub(super) fn unreadable(table: &'static str) -> StoreError {
    StoreError::Unreadable {
        table,
        source: serde::de::Error::custom("its points are damaged"),
    }
}
