//! Runs: their rows, and what is logged with them.

use std::collections::BTreeMap;

use pomona_domain::Timestamp;
use pomona_migrations::tables::{
    Observations, RunChunks, RunExperiments, RunLatest, RunLog, RunParams, RunTags, Runs,
};
use sea_orm::sea_query::{
    Expr, ExprTrait as _, Iden, IntoIden, Order, Query, SelectStatement, SimpleExpr,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult};
use serde::{Deserialize, Serialize};

use super::pack::{self, Outline, Point, Series};
use super::settle::unreadable;
use super::{ExperimentRefusal, KEYS_PER_STATEMENT, ModelRole, RUN_NAME, RunDataset, RunRefusal};
use crate::commit::{OnRepeat, insert};
use crate::rows::{decode, encode, unsigned};
use crate::{Store, StoreError, dialect, ingest};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id: MLflow's 32 digits, or that of a trial.
    pub id: String,
    /// Its experiment.
    pub experiment: String,
    /// Its name.
    pub name: String,
    /// Whose it is, as the client says.
    pub user: String,
    /// Its status, in MLflow's words.
    pub status: String,
    /// When it began, as the client says.
    pub start: Option<i64>,
    /// When it ended, as the client says.
    pub end: Option<i64>,
    /// What the addresses of its files begin with.
    pub artifact_uri: String,
    /// Whether it is deleted.
    pub deleted: bool,
}

/// What makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// Its id.
    pub id: String,
    /// Its experiment.
    pub experiment: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// When it began.
    pub start: Option<i64>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

/// What changes in a run; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunChange {
    /// Its status.
    pub status: Option<String>,
    /// When it ended.
    pub end: Option<i64>,
    /// Its name; the tag that says it follows.
    pub name: Option<String>,
}

/// The newest value of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    /// The metric.
    pub key: String,
    /// Its newest point.
    pub point: Point,
}

/// What is logged with a run, by key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunData {
    /// The newest values.
    pub latest: Vec<Latest>,
    /// Parameters.
    pub params: Vec<(String, String)>,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Data sets that it used.
    pub datasets: Vec<RunDataset>,
    /// Logged models that it took or made, with the step.
    pub models: Vec<(ModelRole, String, i64)>,
}

/// What a run is when it begins.
const RUNNING: &str = "RUNNING";
const COLUMNS: [Runs; 9] = [
    Runs::Id,
    Runs::ExperimentId,
    Runs::Name,
    Runs::UserId,
    Runs::Status,
    Runs::StartTime,
    Runs::EndTime,
    Runs::ArtifactUri,
    Runs::DeletedAt,
];

/// The select of runs, without conditions.
pub(super) fn select() -> SelectStatement {
    let columns = COLUMNS.map(|column| (Runs::Table, column));
    Query::select()
        .columns(columns)
        .from(Runs::Table)
        .to_owned()
}

/// A run from a row of [`select`].
pub(super) fn row(row: &QueryResult) -> Result<Run, DbErr> {
    Ok(Run {
        id: row.try_get_by_index(0)?,
        experiment: row.try_get_by_index(1)?,
        name: row.try_get_by_index(2)?,
        user: row.try_get_by_index(3)?,
        status: row.try_get_by_index(4)?,
        start: row.try_get_by_index(5)?,
        end: row.try_get_by_index(6)?,
        artifact_uri: row.try_get_by_index(7)?,
        deleted: row.try_get_by_index::<Option<i64>>(8)?.is_some(),
    })
}

impl Store {
    /// Makes a run in an experiment that is active.
    pub async fn run_create(
        &self,
        new: &NewRun,
    ) -> Result<Result<Run, ExperimentRefusal>, StoreError> {
        let place = ingest!(self, tx => {
            let from = Query::select()
                .exprs::<SimpleExpr, _>([
                    new.id.as_str().into(),
                    new.experiment.as_str().into(),
                    new.name.as_str().into(),
                    new.user.as_str().into(),
                    RUNNING.into(),
                ])
                .expr(Expr::val(new.start).cast_as("bigint"))
                .expr(
                    Expr::col(RunExperiments::ArtifactLocation)
                        .binary(CONCAT, Expr::val(format!("/{}/artifacts", new.id))),
                )
                .expr(Expr::val(0))
                .from(RunExperiments::Table)
                .and_where(Expr::col(RunExperiments::Id).eq(new.experiment.as_str()))
                .and_where(Expr::col(RunExperiments::DeletedAt).is_null())
                .to_owned();
            let mut add = Query::insert();
            add.into_table(Runs::Table).columns([
                Runs::Id,
                Runs::ExperimentId,
                Runs::Name,
                Runs::UserId,
                Runs::Status,
                Runs::StartTime,
                Runs::ArtifactUri,
                Runs::Writes,
            ]);
            add.select_from(from).map_err(|error| DbErr::Custom(error.to_string()))?;
            add.returning_col(Runs::ArtifactUri);
            let Some(made) = tx.query_one(&add).await? else {
                return Ok(None);
            };
            let rows = last(&new.tags);
            let rows = rows.into_iter().map(|(key, value)| {
                vec![new.id.as_str().into(), key.into(), value.into()]
            });
            let columns = [RunTags::RunId, RunTags::Key, RunTags::Value].map(IntoIden::into_iden);
            let table = RunTags::Table.into_iden();
            insert(tx, table, &columns, rows.collect(), &OnRepeat::Replace { key: 2 }).await?;
            Ok(Some(made.try_get_by_index(0)?))
        })?;
        let Some(artifact_uri) = place else {
            let there = self.run_experiment_get(&new.experiment).await?;
            return Ok(Err(match there {
                None => ExperimentRefusal::Missing,
                Some(_) => ExperimentRefusal::WrongState { deleted: true },
            }));
        };
        Ok(Ok(Run {
            id: new.id.clone(),
            experiment: new.experiment.clone(),
            name: new.name.clone(),
            user: new.user.clone(),
            status: RUNNING.to_owned(),
            start: new.start,
            end: None,
            artifact_uri,
            deleted: false,
        }))
    }

    /// A run by its id.
    pub async fn run_get(&self, id: &str) -> Result<Option<Run>, StoreError> {
        let query = select().and_where(Expr::col(Runs::Id).eq(id)).to_owned();
        let found = self.readers.query_one(&query).await?;
        Ok(found.as_ref().map(row).transpose()?)
    }

    /// Changes a run that is active.
    pub async fn run_update(
        &self,
        id: &str,
        change: &RunChange,
    ) -> Result<Result<(), RunRefusal>, StoreError> {
        ingest!(self, tx => {
            let mut update = Query::update();
            update
                .table(Runs::Table)
                .value(Runs::Writes, Expr::col(Runs::Writes).add(1))
                .and_where(Expr::col(Runs::Id).eq(id))
                .and_where(Expr::col(Runs::DeletedAt).is_null());
            if let Some(status) = &change.status {
                update.value(Runs::Status, status.as_str());
            }
            if let Some(end) = change.end {
                update.value(Runs::EndTime, end);
            }
            if let Some(name) = &change.name {
                update.value(Runs::Name, name.as_str());
            }
            if tx.execute(&update).await?.rows_affected() == 0 {
                return Ok(Err(refusal(tx, id).await?));
            }
            if let Some(name) = &change.name {
                let row = vec![id.into(), RUN_NAME.into(), name.as_str().into()];
                let columns = [RunTags::RunId, RunTags::Key, RunTags::Value].map(IntoIden::into_iden);
                let table = RunTags::Table.into_iden();
                insert(tx, table, &columns, vec![row], &OnRepeat::Replace { key: 2 }).await?;
            }
            Ok(Ok(()))
        })
    }

    /// Deletes a run, or brings it back; answers whether there is one. Twice is once.
    pub async fn run_delete(
        &self,
        id: &str,
        delete: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            let update = Query::update()
                .table(Runs::Table)
                .value(Runs::DeletedAt, delete.then_some(now.0))
                .and_where(Expr::col(Runs::Id).eq(id))
                .to_owned();
            Ok(tx.execute(&update).await?.rows_affected() > 0)
        })
    }

    /// Removes a tag of an active run; answers whether it had it.
    pub async fn run_untag(
        &self,
        id: &str,
        key: &str,
    ) -> Result<Result<bool, RunRefusal>, StoreError> {
        ingest!(self, tx => {
            if let Err(refusal) = lock(tx, id).await? {
                return Ok(Err(refusal));
            }
            let delete = Query::delete()
                .from_table(RunTags::Table)
                .and_where(Expr::col(RunTags::RunId).eq(id))
                .and_where(Expr::col(RunTags::Key).eq(key))
                .to_owned();
            Ok(Ok(tx.execute(&delete).await?.rows_affected() > 0))
        })
    }

    /// What is logged with each of some runs.
    ///
    /// Of runs that ended it is kept ready in one text, beside the number of writes that it shows: a
    /// write makes it worth nothing, whoever writes.
    pub async fn run_data(&self, runs: &[String]) -> Result<BTreeMap<String, RunData>, StoreError> {
        let (mut all, unready) = self.ready(runs).await?;
        if unready.is_empty() {
            return Ok(all);
        }
        self.runs_settle(&unready).await?;
        // The number of writes first: what is written meanwhile makes it worth nothing.
        let ended = self.ended(&unready).await?;
        let fresh = self.gather(&unready).await?;
        self.keep_ready(&ended, &fresh).await?;
        all.extend(fresh);
        Ok(all)
    }

    /// What is kept ready, and the runs of which nothing is.
    async fn ready(
        &self,
        runs: &[String],
    ) -> Result<(BTreeMap<String, RunData>, Vec<String>), StoreError> {
        let mut all = BTreeMap::new();
        for some in runs.chunks(KEYS_PER_STATEMENT) {
            let query = Query::select()
                .columns([Runs::Id, Runs::Shown])
                .from(Runs::Table)
                .and_where(Expr::col(Runs::Id).is_in(some))
                .and_where(Expr::col(Runs::ShownWrites).equals(Runs::Writes))
                .to_owned();
            for row in self.readers.query_all(&query).await? {
                let text: String = row.try_get_by_index(1)?;
                all.insert(row.try_get_by_index(0)?, decode("runs", &text)?);
            }
        }
        let unready = runs.iter().filter(|run| !all.contains_key(*run));
        let unready = unready.cloned().collect();
        Ok((all, unready))
    }

    /// Keeps ready what is logged with runs that ended.
    async fn keep_ready(
        &self,
        ended: &[(String, i64)],
        data: &BTreeMap<String, RunData>,
    ) -> Result<(), StoreError> {
        let nothing = RunData::default();
        for some in ended.chunks(KEYS_PER_STATEMENT) {
            let mut rows = Vec::with_capacity(some.len());
            for (run, writes) in some {
                let shown = encode("runs", data.get(run).unwrap_or(&nothing))?;
                rows.push((run.as_str(), *writes, shown));
            }
            let update = dialect::show_runs(self.writer.get_database_backend(), rows);
            ingest!(self, tx => {
                tx.execute_raw(update.clone()).await?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Those of some runs that ended, with their number of writes.
    async fn ended(&self, runs: &[String]) -> Result<Vec<(String, i64)>, StoreError> {
        let mut ended = Vec::new();
        for some in runs.chunks(KEYS_PER_STATEMENT) {
            let query = Query::select()
                .columns([Runs::Id, Runs::Writes])
                .from(Runs::Table)
                .and_where(Expr::col(Runs::Id).is_in(some))
                .and_where(Expr::col(Runs::EndTime).is_not_null())
                .to_owned();
            for row in self.readers.query_all(&query).await? {
                ended.push((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
            }
        }
        Ok(ended)
    }

    /// What is logged with each of some runs, from where it is.
    async fn gather(&self, runs: &[String]) -> Result<BTreeMap<String, RunData>, StoreError> {
        let mut all: BTreeMap<String, RunData> = BTreeMap::new();
        for some in runs.chunks(KEYS_PER_STATEMENT) {
            self.pairs(
                (
                    RunParams::Table,
                    RunParams::RunId,
                    RunParams::Key,
                    RunParams::Value,
                ),
                some,
                |run, pair| all.entry(run).or_default().params.push(pair),
            )
            .await?;
            self.pairs(
                (RunTags::Table, RunTags::RunId, RunTags::Key, RunTags::Value),
                some,
                |run, pair| all.entry(run).or_default().tags.push(pair),
            )
            .await?;
            let query = Query::select()
                .columns([
                    RunLatest::RunId,
                    RunLatest::Key,
                    RunLatest::Value,
                    RunLatest::IsNan,
                    RunLatest::Step,
                    RunLatest::Timestamp,
                ])
                .from(RunLatest::Table)
                .and_where(Expr::col(RunLatest::RunId).is_in(some))
                .order_by(RunLatest::RunId, Order::Asc)
                .order_by(RunLatest::Key, Order::Asc)
                .to_owned();
            for row in self.readers.query_all(&query).await? {
                let is_nan: bool = row.try_get_by_index(3)?;
                let value: f64 = row.try_get_by_index(2)?;
                let point = Point {
                    value: if is_nan { f64::NAN } else { value },
                    step: row.try_get_by_index(4)?,
                    timestamp: row.try_get_by_index(5)?,
                };
                let key = row.try_get_by_index(1)?;
                let data = all.entry(row.try_get_by_index(0)?).or_default();
                data.latest.push(Latest { key, point });
            }
            self.relations(some, &mut all).await?;
        }
        Ok(all)
    }

    pub(crate) async fn pairs<C: Iden + Copy + 'static>(
        &self,
        (table, owner, key, value): (C, C, C, C),
        owners: &[String],
        mut each: impl FnMut(String, (String, String)),
    ) -> Result<(), StoreError> {
        let query = Query::select()
            .columns([owner, key, value])
            .from(table)
            .and_where(Expr::col(owner).is_in(owners))
            .order_by(owner, Order::Asc)
            .order_by(key, Order::Asc)
            .to_owned();
        for row in self.readers.query_all(&query).await? {
            let pair = (row.try_get_by_index(1)?, row.try_get_by_index(2)?);
            each(row.try_get_by_index(0)?, pair);
        }
        Ok(())
    }

    /// The history of a metric: by time, then step, then value, each point once.
    pub async fn run_history(&self, run: &str, key: &str) -> Result<Vec<Point>, StoreError> {
        let mut points = self.observed(run, key).await?;
        // The log first: what is settled meanwhile is then read twice, and shown once.
        let log = Query::select()
            .column(RunLog::Points)
            .from(RunLog::Table)
            .and_where(Expr::col(RunLog::RunId).eq(run))
            .order_by(RunLog::Seq, Order::Asc)
            .to_owned();
        let mut came = Series::new();
        for row in self.readers.query_all(&log).await? {
            let bytes: Vec<u8> = row.try_get_by_index(0)?;
            pack::read_batch(&bytes, Some(key), &mut came).ok_or_else(|| unreadable("run_log"))?;
        }
        let chunks = Query::select()
            .column(RunChunks::Points)
            .from(RunChunks::Table)
            .and_where(Expr::col(RunChunks::RunId).eq(run))
            .and_where(Expr::col(RunChunks::Key).eq(key))
            .order_by(RunChunks::Number, Order::Asc)
            .to_owned();
        for row in self.readers.query_all(&chunks).await? {
            let bytes: Vec<u8> = row.try_get_by_index(0)?;
            pack::read_series(&bytes, &mut points).ok_or_else(|| unreadable("run_chunks"))?;
        }
        points.extend(came.remove(key).unwrap_or_default());
        pack::settle(&mut points);
        Ok(points)
    }

    /// The shape of a long history and the number of its points, if at least `least` bins have an
    /// outline ready and its steps grow throughout; else it must be read whole.
    pub async fn run_outline(
        &self,
        run: &str,
        key: &str,
        least: usize,
    ) -> Result<Option<(Outline, u64)>, StoreError> {
        // What a trial measured itself is elsewhere.
        if super::trials::is_trial(run) {
            return Ok(None);
        }
        self.runs_settle(&[run.to_owned()]).await?;
        let query = Query::select()
            .columns([RunChunks::Count, RunChunks::Outline])
            .expr(Expr::case(
                Expr::col(RunChunks::Outline).is_null(),
                Expr::col(RunChunks::Points),
            ))
            .from(RunChunks::Table)
            .and_where(Expr::col(RunChunks::RunId).eq(run))
            .and_where(Expr::col(RunChunks::Key).eq(key))
            .order_by(RunChunks::Number, Order::Asc)
            .to_owned();
        let long = Query::select()
            .expr(Expr::col(RunChunks::Count).sum().cast_as("bigint"))
            .from(RunChunks::Table)
            .and_where(Expr::col(RunChunks::RunId).eq(run))
            .and_where(Expr::col(RunChunks::Key).eq(key))
            .and_where(Expr::col(RunChunks::Outline).is_not_null())
            .to_owned();
        let row = self.readers.query_one(&long).await?;
        let points: Option<i64> = match row {
            Some(row) => row.try_get_by_index(0)?,
            None => None,
        };
        if unsigned(points.unwrap_or(0)) < (least * pack::BIN) as u64 {
            return Ok(None);
        }
        let (mut outline, mut count) = (Outline::default(), 0);
        for row in self.readers.query_all(&query).await? {
            count += unsigned(row.try_get_by_index(0)?);
            let ready: Option<Vec<u8>> = row.try_get_by_index(1)?;
            let bytes = if let Some(bytes) = ready {
                bytes
            } else {
                let mut rest = Vec::new();
                let bytes: Vec<u8> = row.try_get_by_index(2)?;
                pack::read_series(&bytes, &mut rest).ok_or_else(|| unreadable("run_chunks"))?;
                pack::outline(&rest)
            };
            pack::read_outline(&bytes, &mut outline).ok_or_else(|| unreadable("run_chunks"))?;
        }
        let grows = |points: &[Point]| points.is_sorted_by_key(|point| point.step);
        let whole = grows(&outline.firsts) && grows(&outline.extremes);
        Ok(whole.then_some((outline, count)))
    }

    /// What the trial of a run measured.
    async fn observed(&self, run: &str, key: &str) -> Result<Vec<Point>, StoreError> {
        let query = Query::select()
            .columns([Observations::Step, Observations::At, Observations::Metrics])
            .from(Observations::Table)
            .and_where(Expr::col(Observations::TrialId).eq(run))
            .order_by(Observations::Step, Order::Asc)
            .to_owned();
        let mut points = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let text: String = row.try_get_by_index(2)?;
            let metrics: BTreeMap<String, f64> = decode("observations", &text)?;
            if let Some(value) = metrics.get(key) {
                points.push(Point {
                    step: row.try_get_by_index(0)?,
                    timestamp: row.try_get_by_index(1)?,
                    value: *value,
                });
            }
        }
        Ok(points)
    }
}

/// Joins two texts, in both databases.
const CONCAT: sea_orm::sea_query::BinOper = sea_orm::sea_query::BinOper::Custom("||");

/// The last value of each key.
fn last(pairs: &[(String, String)]) -> BTreeMap<&str, &str> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// Takes the locks of runs, whatever their state.
pub(super) async fn touch(tx: &DatabaseTransaction, ids: &[String]) -> Result<(), StoreError> {
    let lock = Query::update()
        .table(Runs::Table)
        .value(Runs::Writes, Expr::col(Runs::Writes).add(1))
        .and_where(Expr::col(Runs::Id).is_in(ids))
        .to_owned();
    tx.execute(&lock).await?;
    Ok(())
}

/// Takes the lock of an active run.
pub(super) async fn lock(
    tx: &DatabaseTransaction,
    id: &str,
) -> Result<Result<(), RunRefusal>, StoreError> {
    let lock = Query::update()
        .table(Runs::Table)
        .value(Runs::Writes, Expr::col(Runs::Writes).add(1))
        .and_where(Expr::col(Runs::Id).eq(id))
        .and_where(Expr::col(Runs::DeletedAt).is_null())
        .to_owned();
    if tx.execute(&lock).await?.rows_affected() > 0 {
        return Ok(Ok(()));
    }
    refusal(tx, id).await.map(Err)
}

/// Why a run took nothing.
async fn refusal(tx: &impl ConnectionTrait, id: &str) -> Result<RunRefusal, StoreError> {
    let query = Query::select()
        .column(Runs::Id)
        .from(Runs::Table)
        .and_where(Expr::col(Runs::Id).eq(id))
        .to_owned();
    Ok(match tx.query_one(&query).await? {
        Some(_) => RunRefusal::Deleted,
        None => RunRefusal::Missing,
    })
}
