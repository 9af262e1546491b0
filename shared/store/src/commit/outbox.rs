//! What must be told to the outside: rows that are written in the transaction of the fact itself.

use pomona_domain::Timestamp;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::trial::{Trial, TrialState};
use pomona_migrations::tables::{Experiments, Outbox, Trials};
use sea_orm::sea_query::{Expr, ExprTrait as _, Iden, IntoIden as _, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};
use serde_json::json;
use std::collections::BTreeMap;

use super::{OnRepeat, ROWS_PER_STATEMENT, Sorted, insert};
use crate::StoreError;

/// A fact. Names are those of MLflow's events where it has one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// What happened (`model_version.created`).
    pub topic: &'static str,
    /// Whom it is about (`model/NAME`, `experiment/ID`): of one subject, what happened first is told
    /// first.
    pub subject: String,
    /// When.
    pub at: Timestamp,
    /// The fact as JSON.
    pub doc: String,
}

/// The subject of what happens to a model.
pub(crate) fn of_model(name: &str) -> String {
    format!("model/{name}")
}

/// What is told of the experiments and trials that end with a batch. It is asked before they are
/// written: what had ended before is not told again.
pub(super) async fn endings(
    tx: &DatabaseTransaction,
    sorted: &Sorted<'_>,
) -> Result<Vec<Told>, StoreError> {
    let mut failed: BTreeMap<String, &Trial> = BTreeMap::new();
    for row in &sorted.trials {
        if matches!(row.state, TrialState::Failed { .. }) {
            failed.insert(row.id.to_string(), row);
        }
    }
    let mut over: BTreeMap<String, &Experiment> = BTreeMap::new();
    for row in sorted.experiments.iter().filter(|row| row.is_ended()) {
        over.insert(row.id.to_string(), row);
    }
    let trials = (Trials::Table, Trials::Id, Trials::Ended);
    for gone in had_ended(tx, trials, failed.keys()).await? {
        failed.remove(&gone);
    }
    let experiments = (Experiments::Table, Experiments::Id, Experiments::Ended);
    for gone in had_ended(tx, experiments, over.keys()).await? {
        over.remove(&gone);
    }
    let failed = failed.into_values().map(trial_failed);
    Ok(failed
        .chain(over.into_values().map(experiment_ended))
        .collect())
}

/// Which of these rows had ended before.
async fn had_ended<C: Iden + Copy + 'static>(
    tx: &DatabaseTransaction,
    (table, id, ended): (C, C, C),
    ids: impl Iterator<Item = &String>,
) -> Result<Vec<String>, StoreError> {
    let ids: Vec<&str> = ids.map(String::as_str).collect();
    let mut found = Vec::new();
    for some in ids.chunks(ROWS_PER_STATEMENT) {
        let query = Query::select()
            .column(id)
            .from(table)
            .and_where(Expr::col(id).is_in(some.iter().copied()))
            .and_where(Expr::col(ended).eq(true))
            .to_owned();
        for row in tx.query_all(&query).await? {
            found.push(row.try_get_by_index(0)?);
        }
    }
    Ok(found)
}

fn trial_failed(row: &Trial) -> Told {
    let why = match &row.state {
        TrialState::Failed { fault } => fault.to_string(),
        TrialState::Waiting { .. }
        | TrialState::Running { .. }
        | TrialState::Stopping { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Canceled => String::new(),
    };
    Told {
        topic: "trial.failed",
        subject: format!("experiment/{}", row.experiment),
        at: row.ended_at.unwrap_or(row.created_at),
        doc: json!({
            "experiment": row.experiment, "trial": row.id, "number": row.number, "reason": why,
        })
        .to_string(),
    }
}

fn experiment_ended(row: &Experiment) -> Told {
    let (outcome, why) = match &row.state {
        ExperimentState::Failed { fault } => ("failed", Some(fault.to_string())),
        ExperimentState::Canceled => ("canceled", None),
        ExperimentState::Completed
        | ExperimentState::Active
        | ExperimentState::Paused
        | ExperimentState::Promoting { .. } => ("completed", None),
    };
    Told {
        topic: "experiment.ended",
        subject: format!("experiment/{}", row.id),
        at: row.ended_at.unwrap_or(row.submitted_at),
        doc: json!({
            "experiment": row.id, "name": row.spec.name, "outcome": outcome, "reason": why,
            "best": row.best, "trials": row.created_trials,
        })
        .to_string(),
    }
}

/// Writes rows, oldest first.
pub(crate) async fn tell(tx: &DatabaseTransaction, rows: Vec<Told>) -> Result<(), StoreError> {
    let columns = [Outbox::Topic, Outbox::Subject, Outbox::At, Outbox::Doc]
        .map(sea_orm::sea_query::IntoIden::into_iden);
    let values = rows.into_iter().map(|row| {
        vec![
            row.topic.into(),
            row.subject.into(),
            row.at.0.into(),
            row.doc.into(),
        ]
    });
    let table = Outbox::Table.into_iden();
    insert(tx, table, &columns, values.collect(), &OnRepeat::Skip).await?;
    Ok(())
}
