//! Rows that are written once, or replaced as a whole.

use std::collections::BTreeMap;

use pomona_domain::backbone::Backbone;
use pomona_domain::change::{Reason, Subject};
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::dataset::Dataset;
use pomona_domain::metric::Observation;
use pomona_migrations::tables::{Backbones, Checkpoints, Datasets, Observations, Reasons};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::{Deleted, OnRepeat, ROWS_PER_STATEMENT, insert};
use crate::StoreError;
use crate::rows::{encode, signed};

/// A repeat is ignored: the first observation of a step counts (S4).
pub async fn observations(
    tx: &DatabaseTransaction,
    rows: &[&Observation],
) -> Result<(), StoreError> {
    let columns = [
        Observations::TrialId,
        Observations::Step,
        Observations::Epoch,
        Observations::Generation,
        Observations::At,
        Observations::Metrics,
        Observations::Confusion,
    ]
    .map(IntoIden::into_iden);
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        if !row.metrics.values().all(|value| value.is_finite()) {
            return Err(StoreError::NotFinite {
                what: format!("{} at step {}", row.trial, row.step),
            });
        }
        let confusion = match row.confusion.as_slice() {
            [] => None,
            matrix => Some(encode("observations", &matrix)?),
        };
        values.push(vec![
            row.trial.to_string().into(),
            signed(row.step).into(),
            i64::from(row.epoch).into(),
            signed(row.generation.0).into(),
            row.at.0.into(),
            encode("observations", &row.metrics)?.into(),
            confusion.into(),
        ]);
    }
    let table = Observations::Table.into_iden();
    insert(tx, table, &columns, values, &OnRepeat::Skip).await?;
    Ok(())
}

/// The word for a kind of checkpoint.
pub fn checkpoint_kind(kind: CheckpointKind) -> &'static str {
    match kind {
        CheckpointKind::Last => "last",
        CheckpointKind::Best => "best",
    }
}

/// A checkpoint takes the place of the one of its kind.
pub async fn checkpoints(tx: &DatabaseTransaction, rows: &[&Checkpoint]) -> Result<(), StoreError> {
    let columns = [
        Checkpoints::TrialId,
        Checkpoints::Kind,
        Checkpoints::Digest,
        Checkpoints::Size,
        Checkpoints::Doc,
    ]
    .map(IntoIden::into_iden);
    // One statement may not write a row twice: the last one of a batch stays.
    let last: BTreeMap<_, _> = rows
        .iter()
        .map(|row| ((row.trial, row.kind), row))
        .collect();
    let mut values = Vec::with_capacity(last.len());
    for row in last.values() {
        values.push(vec![
            row.trial.to_string().into(),
            checkpoint_kind(row.kind).into(),
            row.digest.to_string().into(),
            signed(row.size).into(),
            encode("checkpoints", row)?.into(),
        ]);
    }
    let table = Checkpoints::Table.into_iden();
    insert(tx, table, &columns, values, &OnRepeat::Replace { key: 2 }).await?;
    Ok(())
}

/// A checkpoint that goes; one that is not there has gone already.
pub async fn deleted_checkpoints(
    tx: &DatabaseTransaction,
    rows: &Deleted,
) -> Result<(), StoreError> {
    for (kind, trials) in by_kind(rows) {
        for trials in trials.chunks(ROWS_PER_STATEMENT) {
            let mut delete = Query::delete();
            delete
                .from_table(Checkpoints::Table)
                .and_where(Expr::col(Checkpoints::Kind).eq(kind))
                .and_where(Expr::col(Checkpoints::TrialId).is_in(trials.iter().cloned()));
            tx.execute(&delete).await?;
        }
    }
    Ok(())
}

/// Checkpoints to delete: the word for each kind, and the trials.
pub fn by_kind(rows: &Deleted) -> BTreeMap<&'static str, Vec<String>> {
    let mut all: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (trial, kind) in rows {
        let trials = all.entry(checkpoint_kind(*kind)).or_default();
        trials.push(trial.to_string());
    }
    all
}

/// The id of a subject, which says its kind.
pub fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Experiment(id) => id.to_string(),
        Subject::Trial(id) => id.to_string(),
        Subject::Task(id) => id.to_string(),
        Subject::Worker(id) => id.to_string(),
    }
}

pub async fn reasons(tx: &DatabaseTransaction, rows: &[&Reason]) -> Result<(), StoreError> {
    let columns = [Reasons::Subject, Reasons::At, Reasons::Text].map(IntoIden::into_iden);
    let values = rows
        .iter()
        .map(|row| {
            vec![
                subject(&row.subject).into(),
                row.at.0.into(),
                row.text.as_str().into(),
            ]
        })
        .collect();
    let table = Reasons::Table.into_iden();
    insert(tx, table, &columns, values, &OnRepeat::Skip).await?;
    Ok(())
}

pub async fn datasets(tx: &DatabaseTransaction, rows: &[&Dataset]) -> Result<(), StoreError> {
    let columns = [
        Datasets::Name,
        Datasets::Number,
        Datasets::Manifest,
        Datasets::Archive,
        Datasets::CreatedAt,
        Datasets::Doc,
    ]
    .map(IntoIden::into_iden);
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        values.push(vec![
            row.name.as_str().into(),
            i64::from(row.number).into(),
            row.manifest.to_string().into(),
            row.archive.to_string().into(),
            row.created_at.0.into(),
            encode("datasets", row)?.into(),
        ]);
    }
    let count = values.len() as u64;
    let table = Datasets::Table.into_iden();
    if insert(tx, table, &columns, values, &OnRepeat::Skip).await? == count {
        return Ok(());
    }
    Err(StoreError::Conflict {
        what: "a new data set".to_owned(),
    })
}

pub async fn backbones(tx: &DatabaseTransaction, rows: &[&Backbone]) -> Result<(), StoreError> {
    let columns = [
        Backbones::Name,
        Backbones::Arch,
        Backbones::Weights,
        Backbones::CreatedAt,
        Backbones::Doc,
    ]
    .map(IntoIden::into_iden);
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        values.push(vec![
            row.name.as_str().into(),
            row.arch.as_str().into(),
            row.weights.to_string().into(),
            row.created_at.0.into(),
            encode("backbones", row)?.into(),
        ]);
    }
    let count = values.len() as u64;
    let table = Backbones::Table.into_iden();
    if insert(tx, table, &columns, values, &OnRepeat::Skip).await? == count {
        return Ok(());
    }
    Err(StoreError::Conflict {
        what: "a new backbone".to_owned(),
    })
}
