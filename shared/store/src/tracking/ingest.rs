//! Writing to runs: points, parameters and tags of many requests in one transaction.
//!
//! Each request is written as a whole or refused as a whole; one that is refused takes nothing with
//! it. It must never read before it has written: the update of the runs' rows is their lock.

use std::collections::{BTreeMap, BTreeSet};

use pomona_migrations::tables::{RunLog, RunParams, RunTags, Runs};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::pack::{self, Series};
use super::{KEYS_PER_STATEMENT, RUN_NAME};
use crate::commit::{OnRepeat, insert};
use crate::{Store, StoreError, dialect, ingest};

/// What one request writes to a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunWrite {
    /// The run.
    pub run: String,
    /// Points by metric.
    pub points: Series,
    /// Parameters, which never change.
    pub params: Vec<(String, String)>,
    /// Tags; the last of a key counts.
    pub tags: Vec<(String, String)>,
}

/// Why a request wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunRefusal {
    /// There is no such run.
    Missing,
    /// The run is deleted.
    Deleted,
    /// A parameter has another value.
    ParamChanged {
        /// The parameter.
        key: String,
        /// What it is.
        old: String,
        /// What it should have become.
        new: String,
    },
}

impl Store {
    /// Writes many requests at once, each whole or not at all; the answers are in their order.
    pub async fn run_write(
        &self,
        writes: &[RunWrite],
    ) -> Result<Vec<Result<(), RunRefusal>>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        ingest!(self, tx => write(tx, writes).await)
    }
}

async fn write(
    tx: &DatabaseTransaction,
    writes: &[RunWrite],
) -> Result<Vec<Result<(), RunRefusal>>, StoreError> {
    let active = touch(tx, writes).await?;
    let missing: BTreeSet<&str> = (writes.iter().map(|write| write.run.as_str()))
        .filter(|run| !active.contains(*run))
        .collect();
    let deleted = deleted(tx, &missing).await?;
    let mut known = params(tx, writes, &active).await?;
    let mut answers = Vec::with_capacity(writes.len());
    let mut accepted = Vec::with_capacity(writes.len());
    let mut fresh = Vec::new();
    for write in writes {
        let answer = if deleted.contains(&write.run) {
            Err(RunRefusal::Deleted)
        } else if active.contains(&write.run) {
            add_params(write, &mut known, &mut fresh)
        } else {
            Err(RunRefusal::Missing)
        };
        if answer.is_ok() {
            accepted.push(write);
        }
        answers.push(answer);
    }
    let columns = [RunParams::RunId, RunParams::Key, RunParams::Value].map(IntoIden::into_iden);
    let table = RunParams::Table.into_iden();
    insert(tx, table, &columns, fresh, &OnRepeat::Skip).await?;
    tags(tx, &accepted).await?;
    log(tx, &accepted).await?;
    Ok(answers)
}

/// Locks the runs that are written to. Answers which are active.
async fn touch(
    tx: &DatabaseTransaction,
    writes: &[RunWrite],
) -> Result<BTreeSet<String>, StoreError> {
    // In one order, so that two writers never wait for each other.
    let runs: BTreeSet<&str> = writes.iter().map(|write| write.run.as_str()).collect();
    let runs: Vec<&str> = runs.into_iter().collect();
    let mut active = BTreeSet::new();
    for some in runs.chunks(KEYS_PER_STATEMENT) {
        let touched = dialect::touch_runs(tx.get_database_backend(), some);
        for row in tx.query_all_raw(touched).await? {
            active.insert(row.try_get_by_index(0)?);
        }
    }
    Ok(active)
}

async fn deleted(
    tx: &DatabaseTransaction,
    runs: &BTreeSet<&str>,
) -> Result<BTreeSet<String>, StoreError> {
    let mut found = BTreeSet::new();
    let runs: Vec<&str> = runs.iter().copied().collect();
    for some in runs.chunks(KEYS_PER_STATEMENT) {
        let query = Query::select()
            .column(Runs::Id)
            .from(Runs::Table)
            .and_where(Expr::col(Runs::Id).is_in(some.iter().copied()))
            .to_owned();
        for row in tx.query_all(&query).await? {
            found.insert(row.try_get_by_index(0)?);
        }
    }
    Ok(found)
}

type Known = BTreeMap<(String, String), String>;

/// The parameters of the runs that have those that come.
async fn params(
    tx: &DatabaseTransaction,
    writes: &[RunWrite],
    active: &BTreeSet<String>,
) -> Result<Known, StoreError> {
    let is_meant = |write: &&RunWrite| !write.params.is_empty() && active.contains(&write.run);
    let runs: BTreeSet<&str> = (writes.iter().filter(is_meant))
        .map(|write| write.run.as_str())
        .collect();
    let runs: Vec<&str> = runs.into_iter().collect();
    let mut known = Known::new();
    for some in runs.chunks(KEYS_PER_STATEMENT) {
        let query = Query::select()
            .columns([RunParams::RunId, RunParams::Key, RunParams::Value])
            .from(RunParams::Table)
            .and_where(Expr::col(RunParams::RunId).is_in(some.iter().copied()))
            .to_owned();
        for row in tx.query_all(&query).await? {
            let key = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            known.insert(key, row.try_get_by_index(2)?);
        }
    }
    Ok(known)
}

/// Adds the parameters of a request to what is known and to what is written, unless one changes.
fn add_params(
    write: &RunWrite,
    known: &mut Known,
    fresh: &mut Vec<Vec<sea_orm::Value>>,
) -> Result<(), RunRefusal> {
    let mut new: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, value) in &write.params {
        let there = known.get(&(write.run.clone(), key.clone()));
        let old = there
            .map(String::as_str)
            .or_else(|| new.get(key.as_str()).copied());
        match old {
            Some(old) if old == value => {}
            Some(old) => {
                return Err(RunRefusal::ParamChanged {
                    key: key.clone(),
                    old: old.to_owned(),
                    new: value.clone(),
                });
            }
            None => {
                new.insert(key, value);
            }
        }
    }
    for (key, value) in new {
        fresh.push(vec![write.run.as_str().into(), key.into(), value.into()]);
        known.insert((write.run.clone(), key.to_owned()), value.to_owned());
    }
    Ok(())
}

async fn tags(tx: &DatabaseTransaction, writes: &[&RunWrite]) -> Result<(), StoreError> {
    let mut last: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for write in writes {
        for (key, value) in &write.tags {
            last.insert((&write.run, key), value);
        }
    }
    for ((run, _), name) in last.iter().filter(|((_, key), _)| *key == RUN_NAME) {
        let rename = Query::update()
            .table(Runs::Table)
            .value(Runs::Name, *name)
            .and_where(Expr::col(Runs::Id).eq(*run))
            .to_owned();
        tx.execute(&rename).await?;
    }
    let rows = last.into_iter();
    let rows = rows.map(|((run, key), value)| vec![run.into(), key.into(), value.into()]);
    let columns = [RunTags::RunId, RunTags::Key, RunTags::Value].map(IntoIden::into_iden);
    let table = RunTags::Table.into_iden();
    insert(
        tx,
        table,
        &columns,
        rows.collect(),
        &OnRepeat::Replace { key: 2 },
    )
    .await?;
    Ok(())
}

/// A row for each run and transaction.
async fn log(tx: &DatabaseTransaction, writes: &[&RunWrite]) -> Result<(), StoreError> {
    let mut runs: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
    for write in writes.iter().filter(|write| !write.points.is_empty()) {
        runs.entry(&write.run).or_default().push(&write.points);
    }
    let packed = runs.into_iter().map(|(run, all)| {
        let points = match all.as_slice() {
            [one] => pack::batch(one),
            many => {
                let mut whole = Series::new();
                for (key, points) in many.iter().flat_map(|series| series.iter()) {
                    whole.entry(key.clone()).or_default().extend(points);
                }
                pack::batch(&whole)
            }
        };
        vec![run.into(), points.into()]
    });
    let columns = [RunLog::RunId, RunLog::Points].map(IntoIden::into_iden);
    let table = RunLog::Table.into_iden();
    insert(tx, table, &columns, packed.collect(), &OnRepeat::Skip).await?;
    Ok(())
}
