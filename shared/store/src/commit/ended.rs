//! Experiments that end and trials that fail, as the outside is told of them.

use std::collections::{BTreeMap, BTreeSet};

use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::hook::{EXPERIMENT_ENDED, TRIAL_FAILED};
use pomona_domain::trial::{Trial, TrialState};
use pomona_migrations::tables::{Experiments, Trials};
use sea_orm::sea_query::{DynIden, Expr, ExprTrait as _, IntoIden, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};
use serde_json::json;

use super::Sorted;
use super::outbox::Told;
use crate::StoreError;

/// Experiments and trials that end with this batch, as what is told of them. It is asked before the
/// batch's rows are written: a row that had ended is written again for other reasons.
pub(super) async fn ended(
    tx: &DatabaseTransaction,
    sorted: &Sorted<'_>,
) -> Result<Vec<Told>, StoreError> {
    let experiments: BTreeMap<String, &Experiment> = (sorted.experiments.iter())
        .filter(|row| row.is_ended())
        .map(|row| (row.id.to_string(), *row))
        .collect();
    let trials: BTreeMap<String, &Trial> = (sorted.trials.iter())
        .filter(|row| matches!(row.state, TrialState::Failed { .. }))
        .map(|row| (row.id.to_string(), *row))
        .collect();
    let columns = [Trials::Id, Trials::Ended].map(IntoIden::into_iden);
    let before = over(tx, Trials::Table.into_iden(), columns, trials.keys()).await?;
    let failed = trials.iter().filter(|(id, _)| !before.contains(*id));
    let mut told: Vec<Told> = failed.map(|(_, row)| trial(row)).collect();
    let columns = [Experiments::Id, Experiments::Ended].map(IntoIden::into_iden);
    let table = Experiments::Table.into_iden();
    let before = over(tx, table, columns, experiments.keys()).await?;
    let ended = experiments.iter().filter(|(id, _)| !before.contains(*id));
    told.extend(ended.map(|(_, row)| experiment(row)));
    Ok(told)
}

/// Which of some rows have ended as they are at rest.
async fn over(
    tx: &DatabaseTransaction,
    table: DynIden,
    [id, ended]: [DynIden; 2],
    ids: impl ExactSizeIterator<Item = &String>,
) -> Result<BTreeSet<String>, StoreError> {
    if ids.len() == 0 {
        return Ok(BTreeSet::new());
    }
    let query = Query::select()
        .column(id.clone())
        .from(table)
        .and_where(Expr::col(id).is_in(ids.map(String::as_str)))
        .and_where(Expr::col(ended).eq(true))
        .to_owned();
    let rows = tx.query_all(&query).await?;
    let ids: Result<_, _> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
    Ok(ids?)
}

fn experiment(row: &Experiment) -> Told {
    let (state, fault) = match &row.state {
        ExperimentState::Active => ("active", None),
        ExperimentState::Paused => ("paused", None),
        ExperimentState::Promoting { .. } => ("promoting", None),
        ExperimentState::Completed => ("completed", None),
        ExperimentState::Canceled => ("canceled", None),
        ExperimentState::Failed { fault } => ("failed", Some(fault)),
    };
    let at = row.ended_at.unwrap_or(row.submitted_at);
    let mut doc = json!({
        "experiment": row.id,
        "name": row.spec.name,
        "state": state,
        "trials": row.created_trials,
        "best": row.best,
        "submitted_at": row.submitted_at,
        "ended_at": at,
    });
    if let Some(fault) = fault {
        doc["fault"] = json!(fault);
    }
    Told {
        topic: EXPERIMENT_ENDED,
        subject: format!("experiment/{}", row.id),
        at,
        doc: doc.to_string(),
    }
}

fn trial(row: &Trial) -> Told {
    let at = row.ended_at.unwrap_or(row.created_at);
    let mut doc = json!({
        "trial": row.id,
        "experiment": row.experiment,
        "number": row.number,
        "hparams": row.hparams,
        "restarts": row.restarts,
        "ended_at": at,
    });
    if let TrialState::Failed { fault } = &row.state {
        doc["fault"] = json!(fault);
    }
    Told {
        topic: TRIAL_FAILED,
        subject: format!("experiment/{}", row.experiment),
        at,
        doc: doc.to_string(),
    }
}
