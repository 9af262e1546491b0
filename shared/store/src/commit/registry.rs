//! Model versions, and aliases that move.

use std::collections::BTreeMap;

use pomona_domain::model::{AliasMove, Version};
use pomona_migrations::tables::{AliasHistory, Aliases, Models, Versions};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::outbox::{Told, of_model, tell};
use super::{OnRepeat, insert};
use crate::StoreError;
use crate::rows::{encode, signed};

/// The outbox topic of an alias that moved.
const ALIAS_MOVED: &str = "model_version_alias.created";

/// A version is written once (R1); its model is made with the first one.
pub async fn versions(tx: &DatabaseTransaction, rows: &[&Version]) -> Result<(), StoreError> {
    let mut models = BTreeMap::new();
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        if !row.metrics.values().all(|value| value.is_finite()) {
            return Err(StoreError::NotFinite {
                what: format!("{}@{}", row.model, row.number),
            });
        }
        models.entry(row.model.as_str()).or_insert(row.created_at);
        values.push(vec![
            row.id.to_string().into(),
            row.model.as_str().into(),
            i64::from(row.number).into(),
            row.digest.to_string().into(),
            row.created_at.0.into(),
            encode("versions", row)?.into(),
        ]);
    }
    let models = models
        .into_iter()
        .map(|(name, at)| vec![name.into(), at.0.into()])
        .collect();
    let columns = [Models::Name, Models::CreatedAt].map(IntoIden::into_iden);
    insert(
        tx,
        Models::Table.into_iden(),
        &columns,
        models,
        &OnRepeat::Skip,
    )
    .await?;
    let columns = [
        Versions::Id,
        Versions::Model,
        Versions::Number,
        Versions::Digest,
        Versions::CreatedAt,
        Versions::Doc,
    ]
    .map(IntoIden::into_iden);
    let count = values.len() as u64;
    let table = Versions::Table.into_iden();
    if insert(tx, table, &columns, values, &OnRepeat::Skip).await? == count {
        return Ok(());
    }
    Err(StoreError::Conflict {
        what: "a new version".to_owned(),
    })
}

/// Moves aliases, oldest move first: alias, history and outbox together (R5).
pub async fn alias_moves(tx: &DatabaseTransaction, moves: &[&AliasMove]) -> Result<(), StoreError> {
    let mut history = Vec::with_capacity(moves.len());
    let mut outbox = Vec::with_capacity(moves.len());
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
        ]);
        outbox.push(Told {
            topic: ALIAS_MOVED,
            subject: of_model(&step.model),
            at: step.at,
            doc: encode("outbox", step)?,
        });
    }
    let columns = [
        AliasHistory::Model,
        AliasHistory::Alias,
        AliasHistory::Revision,
        AliasHistory::FromNumber,
        AliasHistory::ToNumber,
        AliasHistory::At,
        AliasHistory::Reason,
    ]
    .map(IntoIden::into_iden);
    let table = AliasHistory::Table.into_iden();
    let count = history.len() as u64;
    if insert(tx, table, &columns, history, &OnRepeat::Skip).await? != count {
        return Err(StoreError::Conflict {
            what: "the history of an alias".to_owned(),
        });
    }
    tell(tx, outbox).await
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
        .value(Aliases::Revision, signed(step.revision))
        .and_where(Expr::col(Aliases::Model).eq(step.model.as_str()))
        .and_where(Expr::col(Aliases::Alias).eq(step.alias.as_str()))
        .and_where(Expr::col(Aliases::Revision).eq(signed(base)));
    Ok(tx.execute(&swap).await?.rows_affected() == 1)
}
