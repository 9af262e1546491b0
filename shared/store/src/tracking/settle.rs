//! Settling: points leave the log and become chunks of one metric each, and the newest values.
//!
//! It moves what is acknowledged from one place to another in one transaction, so it may be done at
//! any time, by anybody, twice, or broken off. It must never drop a point.

use std::collections::{BTreeMap, BTreeSet};

use pomona_migrations::tables::{RunChunks, RunLatest, RunLog, Runs};
use sea_orm::sea_query::{
    CommonTableExpression, Expr, ExprTrait as _, IntoIden, OnConflict, Order, Query, WithClause,
};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::KEYS_PER_STATEMENT;
use super::pack::{self, Point, Series};
use super::runs::touch;
use crate::commit::{OnRepeat, insert};
use crate::rows::signed;
use crate::{Store, StoreError, dialect, ingest};

/// Points of a chunk that is full.
const CHUNK: usize = 4096;
/// Rows of the log that are settled at once.
const ROWS: u64 = 2000;
/// Runs that are settled at once: whoever writes to one of them waits.
const RUNS: usize = 100;
/// Values in one statement that updates the newest ones.
const LATEST_PER_STATEMENT: usize = 1000;

/// Runs that were settled, and how many must be before statistics are worth the work.
#[derive(Debug)]
pub(crate) struct Grown {
    settled: usize,
    enough: usize,
}

impl Default for Grown {
    fn default() -> Self {
        Self {
            settled: 0,
            enough: 500,
        }
    }
}

/// Points by run.
type Logged = BTreeMap<String, Series>;

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
            let rows = self.readers.query_all(&query).await?;
            let there = rows.iter().map(|row| row.try_get_by_index(0));
            let there: Vec<String> = there.collect::<Result<_, _>>()?;
            for some in there.chunks(RUNS) {
                while ingest!(self, tx => settle(tx, some).await)? {}
            }
            self.statistics(there.len()).await?;
        }
        Ok(())
    }

    /// Has the database look at the tables again when many runs were settled since it did: it would
    /// by itself, but a minute later, and search a table that has grown as one that is empty. Each
    /// time twice as many are waited for.
    async fn statistics(&self, settled: usize) -> Result<(), StoreError> {
        let is_time = {
            let mut grown = self.grown.lock().await;
            grown.settled += settled;
            let is_time = grown.settled >= grown.enough;
            if is_time {
                grown.enough = 2 * grown.settled;
            }
            is_time
        };
        if is_time {
            dialect::analyze(
                &self.writer,
                &["runs", "run_latest", "run_params", "run_tags"],
            )
            .await?;
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
            // The log first: it is short.
            let logged = Query::select()
                .distinct()
                .column(RunLog::RunId)
                .from(RunLog::Table)
                .to_owned();
            let logged = CommonTableExpression::from_select(logged)
                .table_name("logged")
                .materialized(true)
                .to_owned();
            let query = Query::select()
                .column(("logged", RunLog::RunId))
                .from("logged")
                .inner_join(
                    Runs::Table,
                    Expr::col((Runs::Table, Runs::Id)).equals(("logged", RunLog::RunId)),
                )
                .and_where(Expr::col((Runs::Table, Runs::ExperimentId)).is_in(some))
                .to_owned();
            let query = query.with(WithClause::new().cte(logged).to_owned());
            for row in self.readers.query_all(&query).await? {
                found.push(row.try_get_by_index(0)?);
            }
        }
        Ok(found)
    }
}

/// Settles some of what runs have in the log; answers whether there is more.
async fn settle(tx: &DatabaseTransaction, runs: &[String]) -> Result<bool, StoreError> {
    touch(tx, runs).await?;
    let query = Query::select()
        .columns([RunLog::RunId, RunLog::Seq, RunLog::Points])
        .from(RunLog::Table)
        .and_where(Expr::col(RunLog::RunId).is_in(runs))
        .order_by(RunLog::Seq, Order::Asc)
        .limit(ROWS)
        .to_owned();
    let rows = tx.query_all(&query).await?;
    let (mut logged, mut last) = (Logged::new(), 0_i64);
    for row in &rows {
        let run: String = row.try_get_by_index(0)?;
        last = row.try_get_by_index(1)?;
        let bytes: Vec<u8> = row.try_get_by_index(2)?;
        let series = logged.entry(run).or_default();
        pack::read_batch(&bytes, None, series).ok_or_else(|| unreadable("run_log"))?;
    }
    chunks(tx, &logged).await?;
    latest(tx, &logged).await?;
    let delete = Query::delete()
        .from_table(RunLog::Table)
        .and_where(Expr::col(RunLog::RunId).is_in(runs))
        .and_where(Expr::col(RunLog::Seq).lte(last))
        .to_owned();
    tx.execute(&delete).await?;
    Ok(rows.len() as u64 == ROWS)
}

/// Appends to the last chunk of each metric, and begins new ones where it is full.
async fn chunks(tx: &DatabaseTransaction, logged: &Logged) -> Result<(), StoreError> {
    let mut open = open_chunks(tx, logged).await?;
    let mut rows = Vec::new();
    for (run, series) in logged {
        for (key, new) in series {
            let last = open.remove(&(run.clone(), key.clone()));
            let (mut number, mut points) = last.unwrap_or_default();
            points.extend(new);
            for some in points.chunks(CHUNK) {
                rows.push(vec![
                    run.as_str().into(),
                    key.as_str().into(),
                    number.into(),
                    (some.len() as i64).into(),
                    pack::series(some).into(),
                    (some.len() == CHUNK).then(|| pack::outline(some)).into(),
                ]);
                number += 1;
            }
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

/// The number and the points of the last chunk of each metric of each run that has room, or the
/// number of the next one.
async fn open_chunks(
    tx: &DatabaseTransaction,
    logged: &Logged,
) -> Result<BTreeMap<(String, String), (i64, Vec<Point>)>, StoreError> {
    let keys: BTreeSet<&String> = logged.values().flat_map(Series::keys).collect();
    let keys: Vec<&String> = keys.into_iter().collect();
    let of = |column: RunChunks| Expr::col(("c", column));
    let last = Query::select()
        .expr(Expr::col(("d", RunChunks::Number)).max())
        .from_as(RunChunks::Table, "d")
        .and_where(Expr::col(("d", RunChunks::RunId)).equals(("c", RunChunks::RunId)))
        .and_where(Expr::col(("d", RunChunks::Key)).equals(("c", RunChunks::Key)))
        .to_owned();
    let mut open = BTreeMap::new();
    for some in keys.chunks(KEYS_PER_STATEMENT) {
        let room = of(RunChunks::Count).lt(CHUNK as i64);
        let query = Query::select()
            .columns([RunChunks::RunId, RunChunks::Key, RunChunks::Number].map(|name| ("c", name)))
            .expr(Expr::case(room, of(RunChunks::Points)))
            .from_as(RunChunks::Table, "c")
            .and_where(of(RunChunks::RunId).is_in(logged.keys().map(String::as_str)))
            .and_where(of(RunChunks::Key).is_in(some.iter().copied()))
            .and_where(of(RunChunks::Number).eq(last.clone()))
            .to_owned();
        for row in tx.query_all(&query).await? {
            let (run, key): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let number: i64 = row.try_get_by_index(2)?;
            let chunk = match row.try_get_by_index::<Option<Vec<u8>>>(3)? {
                None => (number + 1, Vec::new()),
                Some(bytes) => {
                    let mut points = Vec::new();
                    pack::read_series(&bytes, &mut points)
                        .ok_or_else(|| unreadable("run_chunks"))?;
                    (number, points)
                }
            };
            open.insert((run, key), chunk);
        }
    }
    Ok(open)
}

/// The newest value of each metric: by step, then time, then value.
async fn latest(tx: &DatabaseTransaction, logged: &Logged) -> Result<(), StoreError> {
    let query = Query::select()
        .columns([Runs::Id, Runs::ExperimentId])
        .from(Runs::Table)
        .and_where(Expr::col(Runs::Id).is_in(logged.keys().map(String::as_str)))
        .to_owned();
    let mut experiments: BTreeMap<String, String> = BTreeMap::new();
    for row in tx.query_all(&query).await? {
        experiments.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    }
    let newest = |points: &Vec<Point>| points.iter().copied().max_by(Point::age);
    let mut rows = Vec::new();
    for (run, series) in logged {
        let Some(experiment) = experiments.get(run) else {
            continue;
        };
        let all = series.iter();
        rows.extend(all.filter_map(|(key, points)| Some((run, experiment, key, newest(points)?))));
    }
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
        for (run, experiment, key, point) in some {
            let is_nan = point.value.is_nan();
            let value = if is_nan { 0.0 } else { point.value };
            upsert.values_panic([
                run.as_str().into(),
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
