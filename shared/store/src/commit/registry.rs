//! Model versions, and aliases that move; the audit of the registry.

use std::collections::BTreeMap;

use pomona_domain::model::{AliasMove, Audit, Origin, Version, VersionWords};
use pomona_domain::{Change, Timestamp};
use pomona_migrations::tables::{
    AliasHistory, Aliases, Audit as AuditRows, Models, VersionTags, Versions,
};
use pomona_tracking::artifact_path;
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};
use serde_json::json;

use super::outbox::{Told, of_model, tell};
use super::removals::removals;
use super::{OnRepeat, insert};
use crate::StoreError;
use crate::rows::{encode, signed};

/// Writes what a batch does to the registry. What was decided before a deletion is written before it,
/// since a model may be deleted and have a new version in one batch; between two of them versions come
/// before aliases.
pub(super) async fn write(tx: &DatabaseTransaction, changes: &[&Change]) -> Result<(), StoreError> {
    for run in changes.split_inclusive(|change| matches!(change, Change::Removed(_))) {
        let (mut made, mut moved, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        let mut said = BTreeMap::new();
        for change in run {
            if let Change::Version(row) = change {
                made.push(&**row);
            } else if let Change::Described(row) = change {
                said.insert((row.model.as_str(), row.number), &**row);
            } else if let Change::AliasMoved(row) = change {
                moved.push(row);
            } else if let Change::Removed(row) = change {
                removed.push(row);
            }
        }
        versions(tx, &made, &said).await?;
        alias_moves(tx, &moved).await?;
        removals(tx, &removed).await?;
    }
    Ok(())
}

/// A version is written once (R1); its model is made with the first one.
async fn versions(
    tx: &DatabaseTransaction,
    rows: &[&Version],
    said: &BTreeMap<(&str, u32), &VersionWords>,
) -> Result<(), StoreError> {
    let nothing = VersionWords::default();
    let mut models = BTreeMap::new();
    let mut values = Vec::with_capacity(rows.len());
    let mut told = Vec::with_capacity(rows.len());
    for row in rows {
        if !row.metrics.values().all(|value| value.is_finite()) {
            return Err(StoreError::NotFinite {
                what: format!("{}@{}", row.model, row.number),
            });
        }
        models.entry(row.model.as_str()).or_insert(row.created_at);
        let (source, run) = (source(row), run(row));
        let key = (row.model.as_str(), row.number);
        let words = said.get(&key).copied().unwrap_or(&nothing);
        told.push(created(row, words));
        values.push(vec![
            row.id.to_string().into(),
            row.model.as_str().into(),
            i64::from(row.number).into(),
            row.digest.to_string().into(),
            row.created_at.0.into(),
            encode("versions", row)?.into(),
            source.into(),
            run.into(),
            row.created_at.0.into(),
            words.description.as_str().into(),
        ]);
    }
    for (name, at) in models {
        model(tx, name, ("", &[]), at).await?;
    }
    let columns = [
        Versions::Id,
        Versions::Model,
        Versions::Number,
        Versions::Digest,
        Versions::CreatedAt,
        Versions::Doc,
        Versions::Source,
        Versions::RunId,
        Versions::UpdatedAt,
        Versions::Description,
    ]
    .map(IntoIden::into_iden);
    let count = values.len() as u64;
    let table = Versions::Table.into_iden();
    if insert(tx, table, &columns, values, &OnRepeat::Skip).await? != count {
        return Err(StoreError::Conflict {
            what: "a new version".to_owned(),
        });
    }
    for words in said.values() {
        let version = (words.model.as_str(), words.number);
        let tags = words
            .tags
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        version_tags(tx, version, tags).await?;
    }
    tell(tx, told).await
}

/// That a version is there.
fn created(row: &Version, words: &VersionWords) -> Told {
    Told {
        topic: "model_version.created",
        subject: of_model(&row.model),
        at: row.created_at,
        doc: json!({
            "name": row.model, "version": row.number, "source": source(row), "run_id": run(row),
            "digest": row.digest, "description": words.description, "tags": words.tags,
        })
        .to_string(),
    }
}

/// Sets tags of a version.
pub(crate) async fn version_tags(
    tx: &DatabaseTransaction,
    (model, number): (&str, u32),
    tags: impl IntoIterator<Item = (&str, &str)>,
) -> Result<(), StoreError> {
    use VersionTags as T;
    let columns = [T::Model, T::Number, T::Key, T::Value].map(IntoIden::into_iden);
    let row = |(key, value): (&str, &str)| {
        vec![
            model.into(),
            i64::from(number).into(),
            key.into(),
            value.into(),
        ]
    };
    let rows = tags.into_iter().map(row).collect();
    let repeat = OnRepeat::Replace { key: 3 };
    insert(tx, T::Table.into_iden(), &columns, rows, &repeat).await?;
    Ok(())
}

/// Where a version's files come from, as MLflow's clients are told.
pub(super) fn source(row: &Version) -> String {
    match &row.origin {
        Origin::Trained(_) => artifact_path::of_version(&row.model, row.number),
        Origin::Registered(registration) => registration.source.clone(),
    }
}

pub(super) fn run(row: &Version) -> Option<String> {
    match &row.origin {
        Origin::Trained(lineage) => Some(lineage.trial.to_string()),
        Origin::Registered(registration) => registration.run_id.clone(),
    }
}

/// Makes a model that is not there, or was deleted; answers whether it made one.
pub(crate) async fn model(
    tx: &DatabaseTransaction,
    name: &str,
    (description, tags): (&str, &[(String, String)]),
    at: Timestamp,
) -> Result<bool, StoreError> {
    let columns = [Models::Name, Models::CreatedAt, Models::UpdatedAt].map(IntoIden::into_iden);
    let row = vec![name.into(), at.0.into(), at.0.into()];
    let table = Models::Table.into_iden();
    let mut made = insert(tx, table, &columns, vec![row], &OnRepeat::Skip).await?;
    if made == 0 {
        let again = Query::update()
            .table(Models::Table)
            .value(Models::CreatedAt, at.0)
            .value(Models::UpdatedAt, at.0)
            .value(Models::DeletedAt, Option::<i64>::None)
            .value(Models::Description, "")
            .and_where(Expr::col(Models::Name).eq(name))
            .and_where(Expr::col(Models::DeletedAt).is_not_null())
            .to_owned();
        made = tx.execute(&again).await?.rows_affected();
    }
    if made == 0 {
        let touch = Query::update()
            .table(Models::Table)
            .value(Models::UpdatedAt, at.0)
            .and_where(Expr::col(Models::Name).eq(name))
            .to_owned();
        tx.execute(&touch).await?;
        return Ok(false);
    }
    let tags: BTreeMap<&str, &str> = (tags.iter())
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let told = Told {
        topic: "registered_model.created",
        subject: of_model(name),
        at,
        doc: json!({ "name": name, "description": description, "tags": tags }).to_string(),
    };
    tell(tx, vec![told]).await?;
    Ok(true)
}

/// Moves aliases, oldest move first: alias, history and outbox together (R5).
async fn alias_moves(tx: &DatabaseTransaction, moves: &[&AliasMove]) -> Result<(), StoreError> {
    let mut history = Vec::with_capacity(moves.len());
    let mut told = Vec::with_capacity(moves.len());
    let mut audit = Vec::with_capacity(moves.len());
    for step in moves {
        if !alias_move(tx, step).await? {
            return Err(StoreError::Conflict {
                what: format!("alias `{}@{}`", step.model, step.alias),
            });
        }
        history.push(vec![
            step.model.as_str().into(),
            step.alias.as_str().into(),
            signed(step.revision).into(),
            step.from.map(i64::from).into(),
            i64::from(step.to).into(),
            step.at.0.into(),
            step.reason.as_str().into(),
            step.deleted.into(),
            step.by.name.as_str().into(),
            step.by.origin.as_str().into(),
        ]);
        told.push(Told {
            topic: if step.deleted {
                "model_version_alias.deleted"
            } else {
                "model_version_alias.created"
            },
            subject: of_model(&step.model),
            at: step.at,
            doc: encode("outbox", step)?,
        });
        audit.push(of_move(step));
    }
    let columns = [
        AliasHistory::Model,
        AliasHistory::Alias,
        AliasHistory::Revision,
        AliasHistory::FromNumber,
        AliasHistory::ToNumber,
        AliasHistory::At,
        AliasHistory::Reason,
        AliasHistory::Deleted,
        AliasHistory::Actor,
        AliasHistory::Origin,
    ]
    .map(IntoIden::into_iden);
    let table = AliasHistory::Table.into_iden();
    let count = history.len() as u64;
    if insert(tx, table, &columns, history, &OnRepeat::Skip).await? != count {
        return Err(StoreError::Conflict {
            what: "the history of an alias".to_owned(),
        });
    }
    tell(tx, told).await?;
    audits(tx, &audit.iter().collect::<Vec<_>>()).await
}

/// What the audit keeps of a move.
fn of_move(step: &AliasMove) -> Audit {
    let (model, alias) = (&step.model, &step.alias);
    let detail = match (step.deleted, step.from) {
        (true, _) => format!("`{alias}` was deleted: {}", step.reason),
        (false, None) => format!("`{alias}` points to version {}: {}", step.to, step.reason),
        (false, Some(from)) => {
            let to = step.to;
            format!(
                "`{alias}` went from version {from} to {to}: {}",
                step.reason
            )
        }
    };
    let action = if step.deleted { "deleted" } else { "moved" };
    Audit {
        at: step.at,
        by: step.by.clone(),
        action: format!("alias.{action}"),
        subject: of_model(model),
        result: "done".to_owned(),
        detail,
    }
}

/// Adds entries to the audit.
pub(crate) async fn audits(tx: &DatabaseTransaction, entries: &[&Audit]) -> Result<(), StoreError> {
    let columns = [
        AuditRows::At,
        AuditRows::Actor,
        AuditRows::Origin,
        AuditRows::Action,
        AuditRows::Subject,
        AuditRows::Result,
        AuditRows::Detail,
    ]
    .map(IntoIden::into_iden);
    let rows = entries.iter().map(|entry| {
        vec![
            entry.at.0.into(),
            entry.by.name.as_str().into(),
            entry.by.origin.as_str().into(),
            entry.action.as_str().into(),
            entry.subject.as_str().into(),
            entry.result.as_str().into(),
            entry.detail.as_str().into(),
        ]
    });
    let table = AuditRows::Table.into_iden();
    insert(tx, table, &columns, rows.collect(), &OnRepeat::Skip).await?;
    Ok(())
}

/// Whether the alias was at the revision before.
async fn alias_move(tx: &DatabaseTransaction, step: &AliasMove) -> Result<bool, StoreError> {
    let Some(base) = step.revision.checked_sub(1) else {
        return Ok(false);
    };
    if base == 0 {
        let columns = [
            Aliases::Model,
            Aliases::Alias,
            Aliases::Number,
            Aliases::Revision,
        ]
        .map(IntoIden::into_iden);
        let row = vec![
            step.model.as_str().into(),
            step.alias.as_str().into(),
            i64::from(step.to).into(),
            1_i64.into(),
        ];
        let table = Aliases::Table.into_iden();
        return Ok(insert(tx, table, &columns, vec![row], &OnRepeat::Skip).await? == 1);
    }
    let mut swap = Query::update();
    swap.table(Aliases::Table)
        .value(Aliases::Number, i64::from(step.to))
        .value(Aliases::Deleted, step.deleted)
        .value(Aliases::Revision, signed(step.revision))
        .and_where(Expr::col(Aliases::Model).eq(step.model.as_str()))
        .and_where(Expr::col(Aliases::Alias).eq(step.alias.as_str()))
        .and_where(Expr::col(Aliases::Revision).eq(signed(base)));
    Ok(tx.execute(&swap).await?.rows_affected() == 1)
}
