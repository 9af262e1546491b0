//! What must be told to the outside: rows that are written in the transaction of the fact itself.

use pomona_domain::Timestamp;
use pomona_migrations::tables::Outbox;
use sea_orm::DatabaseTransaction;
use sea_orm::sea_query::IntoIden as _;

use super::{OnRepeat, insert};
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
