//! What gates leave behind: rows that are written once.

use pomona_domain::gate::{GateFact, Judgement};
use pomona_migrations::tables::{Approvals, Judgements, TestUses, VersionOutcomes};
use sea_orm::DatabaseTransaction;
use sea_orm::sea_query::{IntoIden, Value};

use super::{OnRepeat, insert};
use crate::StoreError;
use crate::rows::encode;

/// Two decisions that count a use at one place are a conflict: each must know of the other.
pub async fn write(tx: &DatabaseTransaction, rows: &[&GateFact]) -> Result<(), StoreError> {
    use {Approvals as A, Judgements as J, TestUses as U, VersionOutcomes as O};
    let (mut outcomes, mut uses) = (Vec::new(), Vec::new());
    let (mut approvals, mut judgements) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            GateFact::Outcomes(row) => outcomes.push(vec![
                row.model.as_str().into(),
                i64::from(row.number).into(),
                row.outcomes.split.to_string().into(),
                encode("version_outcomes", &row.outcomes)?.into(),
            ]),
            GateFact::Used(row) => uses.push(vec![
                row.split.to_string().into(),
                i64::from(row.place).into(),
                row.model.as_str().into(),
                i64::from(row.number).into(),
                row.champion.map(i64::from).into(),
                row.at.0.into(),
            ]),
            GateFact::Approved(row) => approvals.push(vec![
                row.model.as_str().into(),
                i64::from(row.number).into(),
                encode("approvals", row)?.into(),
            ]),
            GateFact::Judged(row) => judgements.push(judgement(row)?),
        }
    }
    let columns = [O::Model, O::Number, O::Split, O::Doc].map(IntoIden::into_iden);
    all(tx, O::Table, &columns, outcomes).await?;
    let columns =
        [U::Split, U::Place, U::Model, U::Number, U::Champion, U::At].map(IntoIden::into_iden);
    all(tx, U::Table, &columns, uses).await?;
    let columns = [A::Model, A::Number, A::Doc].map(IntoIden::into_iden);
    all(tx, A::Table, &columns, approvals).await?;
    let columns = [J::Model, J::Number, J::Alias, J::Allowed, J::At, J::Doc];
    let columns = columns.map(IntoIden::into_iden);
    all(tx, J::Table, &columns, judgements).await
}

/// Without an alias the column is empty: no alias has that name.
fn judgement(row: &Judgement) -> Result<Vec<Value>, StoreError> {
    Ok(vec![
        row.model.as_str().into(),
        i64::from(row.number).into(),
        row.alias.as_deref().unwrap_or_default().into(),
        row.allowed.into(),
        row.at.0.into(),
        encode("judgements", row)?.into(),
    ])
}

async fn all<T: IntoIden>(
    tx: &DatabaseTransaction,
    table: T,
    columns: &[sea_orm::sea_query::DynIden],
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError> {
    let table = table.into_iden();
    let what = format!("a new row of `{}`", table.inner());
    let count = rows.len() as u64;
    if insert(tx, table, columns, rows, &OnRepeat::Skip).await? == count {
        return Ok(());
    }
    Err(StoreError::Conflict { what })
}
