//! Trials as runs: a projection of what trained, brought up to date when somebody looks.
//!
//! It must never be asked what a trial is: the trial's own row is the truth, and this one says of
//! which version it is.

use std::collections::BTreeMap;

use pomona_domain::trial::{Trial, TrialState};
use pomona_migrations::tables::{Observations, RunLatest, RunParams, RunTags, Runs, Trials};
use sea_orm::sea_query::{
    Expr, ExprTrait as _, IntoIden, OnConflict, Order, Query, SelectStatement,
};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};
use serde_json::Value;

use super::{KEYS_PER_STATEMENT, RUN_NAME};
use crate::commit::{OnRepeat, insert};
use crate::rows::{docs, signed};
use crate::{Store, StoreError, ingest};

/// Trials that are brought up to date at once.
const TRIALS: u64 = 500;
/// How an id of ours begins: of an experiment, and of a trial.
const OURS: (&str, &str) = ("exp_", "tri_");

/// Whether a run is a trial of ours.
pub(super) fn is_trial(run: &str) -> bool {
    run.starts_with(OURS.1)
}

impl Store {
    /// Brings the runs of experiments up to date: the faces of trials that changed since somebody
    /// looked, and what is in the log.
    pub async fn runs_of(&self, experiments: &[String]) -> Result<(), StoreError> {
        let ours = experiments.iter().filter(|id| id.starts_with(OURS.0));
        for experiment in ours {
            let query = stale()
                .and_where(Expr::col((Trials::Table, Trials::ExperimentId)).eq(experiment))
                .to_owned();
            while self.project(&query).await? {}
        }
        let unsettled = self.unsettled_in(experiments).await?;
        self.runs_settle(&unsettled).await
    }

    /// Brings the face of one trial up to date, if the run is one.
    pub async fn run_face(&self, run: &str) -> Result<(), StoreError> {
        if !is_trial(run) {
            return Ok(());
        }
        let query = stale()
            .and_where(Expr::col((Trials::Table, Trials::Id)).eq(run))
            .to_owned();
        self.project(&query).await.map(|_| ())
    }

    /// Projects what a query finds; answers whether there may be more.
    async fn project(&self, stale: &SelectStatement) -> Result<bool, StoreError> {
        let trials: Vec<Trial> = docs(&self.readers, "trials", stale).await?;
        if trials.is_empty() {
            return Ok(false);
        }
        self.face_experiments().await?;
        ingest!(self, tx => write(tx, &trials).await)?;
        Ok(trials.len() as u64 == TRIALS)
    }
}

/// Trials whose face is not of their version.
fn stale() -> SelectStatement {
    Query::select()
        .column((Trials::Table, Trials::Doc))
        .from(Trials::Table)
        .left_join(
            Runs::Table,
            Expr::col((Runs::Table, Runs::Id)).equals((Trials::Table, Trials::Id)),
        )
        .cond_where(
            Expr::col((Runs::Table, Runs::TrialVersion))
                .is_null()
                .or(Expr::col((Runs::Table, Runs::TrialVersion))
                    .ne(Expr::col((Trials::Table, Trials::Version)))),
        )
        .order_by((Trials::Table, Trials::Number), Order::Asc)
        .limit(TRIALS)
        .to_owned()
}

async fn write(tx: &DatabaseTransaction, trials: &[Trial]) -> Result<(), StoreError> {
    let mut upsert = Query::insert();
    upsert.into_table(Runs::Table).columns([
        Runs::Id,
        Runs::ExperimentId,
        Runs::Name,
        Runs::UserId,
        Runs::Status,
        Runs::StartTime,
        Runs::EndTime,
        Runs::ArtifactUri,
        Runs::Writes,
        Runs::TrialVersion,
    ]);
    for trial in trials {
        let (id, experiment) = (trial.id.to_string(), trial.experiment.to_string());
        upsert.values_panic([
            id.as_str().into(),
            experiment.as_str().into(),
            name(trial).into(),
            "".into(),
            status(trial).into(),
            trial.started_at.unwrap_or(trial.created_at).0.into(),
            trial.ended_at.map(|at| at.0).into(),
            format!("mlflow-artifacts:/{experiment}/{id}/artifacts").into(),
            0.into(),
            signed(trial.version).into(),
        ]);
    }
    upsert.on_conflict(
        OnConflict::column(Runs::Id)
            .update_columns([
                Runs::Status,
                Runs::StartTime,
                Runs::EndTime,
                Runs::TrialVersion,
            ])
            .value(Runs::Writes, Expr::col((Runs::Table, Runs::Writes)).add(1))
            .to_owned(),
    );
    tx.execute(&upsert).await?;
    params_and_tags(tx, trials).await?;
    latest(tx, trials).await
}

fn name(trial: &Trial) -> String {
    format!("trial-{}", trial.number)
}

fn status(trial: &Trial) -> &'static str {
    match trial.state {
        TrialState::Waiting { .. } | TrialState::Paused => "SCHEDULED",
        TrialState::Running { .. } | TrialState::Stopping { .. } => "RUNNING",
        TrialState::Completed => "FINISHED",
        TrialState::Failed { .. } => "FAILED",
        TrialState::Canceled => "KILLED",
    }
}

/// A point's value as a parameter: texts as they are, the rest as JSON.
fn text(value: &Value) -> String {
    (value.as_str()).map_or_else(|| value.to_string(), str::to_owned)
}

async fn params_and_tags(tx: &DatabaseTransaction, trials: &[Trial]) -> Result<(), StoreError> {
    let (mut params, mut tags) = (Vec::new(), Vec::new());
    for trial in trials {
        let run = trial.id.to_string();
        for (key, value) in &trial.hparams.0 {
            params.push(vec![
                run.as_str().into(),
                key.as_str().into(),
                text(value).into(),
            ]);
        }
        for (key, value) in [
            (RUN_NAME, name(trial)),
            ("pomona.trial", trial.number.to_string()),
            ("pomona.replicate", trial.replicate.to_string()),
        ] {
            tags.push(vec![run.as_str().into(), key.into(), value.into()]);
        }
    }
    let columns = [RunParams::RunId, RunParams::Key, RunParams::Value].map(IntoIden::into_iden);
    insert(
        tx,
        RunParams::Table.into_iden(),
        &columns,
        params,
        &OnRepeat::Skip,
    )
    .await?;
    // A name or tag that a user gave stays.
    let columns = [RunTags::RunId, RunTags::Key, RunTags::Value].map(IntoIden::into_iden);
    insert(
        tx,
        RunTags::Table.into_iden(),
        &columns,
        tags,
        &OnRepeat::Skip,
    )
    .await?;
    Ok(())
}

/// The newest values, at the time at which they were observed.
async fn latest(tx: &DatabaseTransaction, trials: &[Trial]) -> Result<(), StoreError> {
    let seen: Vec<&Trial> = (trials.iter())
        .filter(|trial| !trial.latest.is_empty())
        .collect();
    let mut times = BTreeMap::new();
    for some in seen.chunks(KEYS_PER_STATEMENT) {
        let newest = some
            .iter()
            .map(|trial| (trial.id.to_string(), signed(trial.last_step)));
        let query = Query::select()
            .columns([Observations::TrialId, Observations::At])
            .from(Observations::Table)
            .and_where(
                Expr::tuple([
                    Expr::col(Observations::TrialId),
                    Expr::col(Observations::Step),
                ])
                .in_tuples(newest),
            )
            .to_owned();
        for row in tx.query_all(&query).await? {
            let (id, at): (String, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            times.insert(id, at);
        }
    }
    let mut rows = Vec::new();
    for trial in seen {
        let run = trial.id.to_string();
        let at = times.get(&run).copied().unwrap_or(trial.created_at.0);
        for (key, value) in &trial.latest {
            rows.push(vec![
                run.as_str().into(),
                key.as_str().into(),
                trial.experiment.to_string().into(),
                (*value).into(),
                false.into(),
                signed(trial.last_step).into(),
                at.into(),
            ]);
        }
    }
    let columns = [
        RunLatest::RunId,
        RunLatest::Key,
        RunLatest::ExperimentId,
        RunLatest::Value,
        RunLatest::IsNan,
        RunLatest::Step,
        RunLatest::Timestamp,
    ]
    .map(IntoIden::into_iden);
    let table = RunLatest::Table.into_iden();
    insert(tx, table, &columns, rows, &OnRepeat::Replace { key: 2 }).await?;
    Ok(())
}
