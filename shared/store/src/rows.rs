//! How rows of the domain lie in the tables: the columns that are asked for, and the whole row as
//! a document beside them.

use pomona_domain::experiment::Experiment;
use pomona_domain::lease::{Lease, LeaseState};
use pomona_domain::task::{Task, TaskSpec};
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use pomona_migrations::tables::{Experiments, Leases, Tasks, Trials, Workers};
use sea_orm::sea_query::{DynIden, IntoIden as _, SelectStatement, Value};
use sea_orm::{ConnectionTrait, DbErr};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;

/// A number of the database as the domain has it: the same 64 bits.
pub fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}

/// A number of the domain as the database has it: the same 64 bits.
pub fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// A row's document.
pub fn encode<T: Serialize>(table: &'static str, row: &T) -> Result<String, StoreError> {
    serde_json::to_string(row).map_err(|source| StoreError::Unreadable { table, source })
}

/// A row from its document.
pub fn decode<T: DeserializeOwned>(table: &'static str, doc: &str) -> Result<T, StoreError> {
    serde_json::from_str(doc).map_err(|source| StoreError::Unreadable { table, source })
}

/// The rows whose document is the first column of `query`.
pub async fn docs<T: DeserializeOwned>(
    conn: &impl ConnectionTrait,
    table: &'static str,
    query: &SelectStatement,
) -> Result<Vec<T>, StoreError> {
    let rows = conn.query_all(query).await?;
    rows.iter()
        .map(|row| {
            let doc: String = row.try_get_by_index(0)?;
            decode(table, &doc)
        })
        .collect()
}

/// The row whose document is the first column of `query`, if there is one.
pub async fn doc<T: DeserializeOwned>(
    conn: &impl ConnectionTrait,
    table: &'static str,
    query: &SelectStatement,
) -> Result<Option<T>, StoreError> {
    match conn.query_one(query).await? {
        Some(row) => {
            let doc: String = row.try_get_by_index(0)?;
            decode(table, &doc).map(Some)
        }
        None => Ok(None),
    }
}

/// A text column that holds something of the domain.
pub fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, DbErr>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| DbErr::Type(error.to_string()))
}

/// A row that is written by compare-and-swap on its version.
pub trait Versioned: Serialize {
    /// The table's name, for people.
    const TABLE: &'static str;
    /// One of them, for people.
    const KIND: &'static str;
    /// The table.
    fn table() -> DynIden;
    /// The columns `id`, `version` and `doc`, then those of [`Versioned::values`].
    fn columns() -> Vec<DynIden>;
    /// The primary key.
    fn key(&self) -> String;
    /// The row version.
    fn version(&self) -> u64;
    /// The values of the columns after the first three.
    fn values(&self) -> Vec<Value>;
    /// Whether all its numbers can be written.
    fn is_finite(&self) -> bool {
        true
    }
}

impl Versioned for Experiment {
    const TABLE: &'static str = "experiments";
    const KIND: &'static str = "experiment";
    fn table() -> DynIden {
        Experiments::Table.into_iden()
    }
    fn columns() -> Vec<DynIden> {
        use Experiments as C;
        [
            C::Id,
            C::Version,
            C::Doc,
            C::Name,
            C::State,
            C::Ended,
            C::SubmittedAt,
        ]
        .map(sea_orm::sea_query::IntoIden::into_iden)
        .to_vec()
    }
    fn key(&self) -> String {
        self.id.to_string()
    }
    fn version(&self) -> u64 {
        self.version
    }
    fn values(&self) -> Vec<Value> {
        vec![
            self.spec.name.as_str().into(),
            self.state.name().into(),
            self.is_ended().into(),
            self.submitted_at.0.into(),
        ]
    }
}

impl Versioned for Trial {
    const TABLE: &'static str = "trials";
    const KIND: &'static str = "trial";
    fn table() -> DynIden {
        Trials::Table.into_iden()
    }
    fn columns() -> Vec<DynIden> {
        use Trials as C;
        [
            C::Id,
            C::Version,
            C::Doc,
            C::ExperimentId,
            C::Number,
            C::State,
            C::Ended,
            C::BestValue,
            C::BestTie,
        ]
        .map(sea_orm::sea_query::IntoIden::into_iden)
        .to_vec()
    }
    fn key(&self) -> String {
        self.id.to_string()
    }
    fn version(&self) -> u64 {
        self.version
    }
    fn values(&self) -> Vec<Value> {
        vec![
            self.experiment.to_string().into(),
            i64::from(self.number).into(),
            self.state.name().into(),
            self.is_ended().into(),
            self.best.as_ref().map(|best| best.value).into(),
            self.best.as_ref().map(|best| best.tie).into(),
        ]
    }
    fn is_finite(&self) -> bool {
        let best = self.best.as_ref().is_none_or(|best| {
            best.value.is_finite()
                && best.tie.is_finite()
                && best.metrics.values().all(|value| value.is_finite())
        });
        best && self.latest.values().all(|value| value.is_finite())
    }
}

impl Versioned for Lease {
    const TABLE: &'static str = "leases";
    const KIND: &'static str = "lease";
    fn table() -> DynIden {
        Leases::Table.into_iden()
    }
    fn columns() -> Vec<DynIden> {
        use Leases as C;
        [
            C::Id,
            C::Version,
            C::Doc,
            C::Generation,
            C::Ended,
            C::GrantedAt,
        ]
        .map(sea_orm::sea_query::IntoIden::into_iden)
        .to_vec()
    }
    fn key(&self) -> String {
        self.id.to_string()
    }
    fn version(&self) -> u64 {
        self.version
    }
    fn values(&self) -> Vec<Value> {
        let ended = match self.state {
            LeaseState::Live | LeaseState::Stopping { .. } => false,
            LeaseState::Ended { .. } => true,
        };
        vec![
            signed(self.generation.0).into(),
            ended.into(),
            self.granted_at.0.into(),
        ]
    }
}

impl Versioned for Worker {
    const TABLE: &'static str = "workers";
    const KIND: &'static str = "worker";
    fn table() -> DynIden {
        Workers::Table.into_iden()
    }
    fn columns() -> Vec<DynIden> {
        use Workers as C;
        [C::Id, C::Version, C::Doc, C::Name, C::State]
            .map(sea_orm::sea_query::IntoIden::into_iden)
            .to_vec()
    }
    fn key(&self) -> String {
        self.id.to_string()
    }
    fn version(&self) -> u64 {
        self.version
    }
    fn values(&self) -> Vec<Value> {
        vec![self.name.as_str().into(), self.state.name().into()]
    }
}

impl Versioned for Task {
    const TABLE: &'static str = "tasks";
    const KIND: &'static str = "task";
    fn table() -> DynIden {
        Tasks::Table.into_iden()
    }
    fn columns() -> Vec<DynIden> {
        use Tasks as C;
        [
            C::Id,
            C::Version,
            C::Doc,
            C::Kind,
            C::State,
            C::Ended,
            C::SubmittedAt,
        ]
        .map(sea_orm::sea_query::IntoIden::into_iden)
        .to_vec()
    }
    fn key(&self) -> String {
        self.id.to_string()
    }
    fn version(&self) -> u64 {
        self.version
    }
    fn values(&self) -> Vec<Value> {
        let kind = match self.spec {
            TaskSpec::ImportDataset { .. } => "import_dataset",
            TaskSpec::ImportBackbone { .. } => "import_backbone",
            TaskSpec::Publish { .. } => "publish",
            TaskSpec::Predict { .. } => "predict",
        };
        vec![
            kind.into(),
            self.state.name().into(),
            self.is_ended().into(),
            self.submitted_at.0.into(),
        ]
    }
}
