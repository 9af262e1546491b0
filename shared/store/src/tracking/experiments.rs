//! Experiments as MLflow sees them: numbered ones of its own, and the faces of ours.

use std::collections::BTreeMap;

use pomona_domain::Timestamp;
use pomona_migrations::tables::{
    Experiments, RunExperimentTags as Tags, RunExperiments as Rows, Runs,
};
use sea_orm::sea_query::{
    Expr, ExprTrait as _, IntoIden, Order, Query, SelectStatement, UpdateStatement,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult};

use super::KEYS_PER_STATEMENT;
use crate::commit::{OnRepeat, insert};
use crate::{Store, StoreError, ingest};

/// An experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunExperiment {
    /// Its id: a number, or that of an experiment of ours.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its runs' files are: what their addresses begin with.
    pub artifact_location: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was deleted, if it is.
    pub deleted_at: Option<Timestamp>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRunExperiment {
    /// Its name.
    pub name: String,
    /// Where its runs' files are; by default under its id.
    pub artifact_location: Option<String>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

/// Why nothing was done to an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExperimentRefusal {
    /// There is none.
    Missing,
    /// Another one has the name.
    NameTaken {
        /// Whether that one is deleted.
        deleted: bool,
    },
    /// It is deleted, or is not.
    WrongState {
        /// Whether it is.
        deleted: bool,
    },
}

const COLUMNS: [Rows; 7] = [
    Rows::Id,
    Rows::Name,
    Rows::ArtifactLocation,
    Rows::CreatedAt,
    Rows::UpdatedAt,
    Rows::DeletedAt,
    Rows::Number,
];

fn row(row: &QueryResult) -> Result<RunExperiment, DbErr> {
    Ok(RunExperiment {
        id: row.try_get_by_index(0)?,
        name: row.try_get_by_index(1)?,
        artifact_location: row.try_get_by_index(2)?,
        created_at: Timestamp(row.try_get_by_index(3)?),
        updated_at: Timestamp(row.try_get_by_index(4)?),
        deleted_at: row.try_get_by_index::<Option<i64>>(5)?.map(Timestamp),
        tags: BTreeMap::new(),
    })
}

/// The select of experiments, without conditions.
pub(super) fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from(Rows::Table)
        .to_owned()
}

/// Reads experiments with their tags.
pub(super) async fn read(
    conn: &impl ConnectionTrait,
    query: &SelectStatement,
) -> Result<Vec<RunExperiment>, StoreError> {
    let rows = conn.query_all(query).await?;
    let mut found = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    let places: BTreeMap<String, usize> = (found.iter().enumerate())
        .map(|(at, one)| (one.id.clone(), at))
        .collect();
    let ids: Vec<&String> = places.keys().collect();
    for some in ids.chunks(KEYS_PER_STATEMENT) {
        let query = Query::select()
            .columns([Tags::ExperimentId, Tags::Key, Tags::Value])
            .from(Tags::Table)
            .and_where(Expr::col(Tags::ExperimentId).is_in(some.iter().copied()))
            .to_owned();
        for row in conn.query_all(&query).await? {
            let id: String = row.try_get_by_index(0)?;
            if let Some(one) = places.get(&id).and_then(|at| found.get_mut(*at)) {
                one.tags
                    .insert(row.try_get_by_index(1)?, row.try_get_by_index(2)?);
            }
        }
    }
    Ok(found)
}

impl Store {
    /// Makes an experiment and answers its id.
    pub async fn run_experiment_create(
        &self,
        new: &NewRunExperiment,
        now: Timestamp,
    ) -> Result<Result<String, ExperimentRefusal>, StoreError> {
        ingest!(self, tx => create(tx, new, now).await)
    }

    /// An experiment by its id.
    pub async fn run_experiment_get(&self, id: &str) -> Result<Option<RunExperiment>, StoreError> {
        self.face_experiments().await?;
        let query = select().and_where(Expr::col(Rows::Id).eq(id)).to_owned();
        Ok(read(&self.readers, &query).await?.pop())
    }

    /// An experiment by its name: MLflow's own, else the newest of ours.
    pub async fn run_experiment_named(
        &self,
        name: &str,
    ) -> Result<Option<RunExperiment>, StoreError> {
        self.face_experiments().await?;
        let query = select()
            .and_where(Expr::col(Rows::Name).eq(name))
            .order_by_expr(Expr::col(Rows::Taken).is_null(), Order::Asc)
            .order_by(Rows::CreatedAt, Order::Desc)
            .limit(1)
            .to_owned();
        Ok(read(&self.readers, &query).await?.pop())
    }

    /// Gives an experiment another name.
    pub async fn run_experiment_rename(
        &self,
        id: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Result<(), ExperimentRefusal>, StoreError> {
        ingest!(self, tx => {
            let touch = change(id, now)
                .and_where(Expr::col(Rows::DeletedAt).is_null())
                .to_owned();
            if tx.execute(&touch).await?.rows_affected() == 0 {
                return Ok(Err(state(tx, id).await?));
            }
            if let Some(deleted) = holder(tx, name, id).await? {
                return Ok(Err(ExperimentRefusal::NameTaken { deleted }));
            }
            let rename = change(id, now).value(Rows::Name, name).to_owned();
            tx.execute(&rename).await?;
            let take = change(id, now)
                .value(Rows::Taken, name)
                .and_where(Expr::col(Rows::Taken).is_not_null())
                .to_owned();
            tx.execute(&take).await?;
            Ok(Ok(()))
        })
    }

    /// Deletes an experiment and its runs, or brings both back.
    pub async fn run_experiment_delete(
        &self,
        id: &str,
        delete: bool,
        now: Timestamp,
    ) -> Result<Result<(), ExperimentRefusal>, StoreError> {
        let at = delete.then_some(now.0);
        ingest!(self, tx => {
            let mut set = change(id, now);
            set.value(Rows::DeletedAt, at);
            let is_deleted = Expr::col(Rows::DeletedAt).is_not_null();
            set.and_where(if delete { is_deleted.not() } else { is_deleted });
            if tx.execute(&set).await?.rows_affected() == 0 {
                return Ok(Err(state(tx, id).await?));
            }
            let mut runs = Query::update();
            runs.table(Runs::Table)
                .value(Runs::DeletedAt, at)
                .and_where(Expr::col(Runs::ExperimentId).eq(id));
            if delete {
                runs.and_where(Expr::col(Runs::DeletedAt).is_null());
            }
            tx.execute(&runs).await?;
            Ok(Ok(()))
        })
    }

    /// Sets a tag of an experiment, or removes it. Answers whether it was there to be removed.
    pub async fn run_experiment_tag(
        &self,
        id: &str,
        (key, value): (&str, Option<&str>),
        now: Timestamp,
    ) -> Result<Result<bool, ExperimentRefusal>, StoreError> {
        ingest!(self, tx => {
            let touch = change(id, now)
                .and_where(Expr::col(Rows::DeletedAt).is_null())
                .to_owned();
            if tx.execute(&touch).await?.rows_affected() == 0 {
                return Ok(Err(state(tx, id).await?));
            }
            let Some(value) = value else {
                let delete = Query::delete()
                    .from_table(Tags::Table)
                    .and_where(Expr::col(Tags::ExperimentId).eq(id))
                    .and_where(Expr::col(Tags::Key).eq(key))
                    .to_owned();
                return Ok(Ok(tx.execute(&delete).await?.rows_affected() > 0));
            };
            put_tags(tx, id, &[(key.to_owned(), value.to_owned())]).await?;
            Ok(Ok(true))
        })
    }

    /// Gives every experiment of ours a face.
    pub(super) async fn face_experiments(&self) -> Result<(), StoreError> {
        let faceless = Expr::exists(
            Query::select()
                .expr(Expr::val(1))
                .from(Rows::Table)
                .and_where(
                    Expr::col((Rows::Table, Rows::Id))
                        .equals((Experiments::Table, Experiments::Id)),
                )
                .to_owned(),
        )
        .not();
        let any = Query::select()
            .columns([Experiments::Id, Experiments::Name, Experiments::SubmittedAt])
            .from(Experiments::Table)
            .and_where(faceless)
            .to_owned();
        let new = self.readers.query_all(&any).await?;
        if new.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(new.len());
        for row in &new {
            let (id, name): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let at: i64 = row.try_get_by_index(2)?;
            let location = format!("mlflow-artifacts:/{id}");
            rows.push(vec![
                id.into(),
                name.into(),
                location.into(),
                at.into(),
                at.into(),
                false.into(),
            ]);
        }
        let columns = [
            Rows::Id,
            Rows::Name,
            Rows::ArtifactLocation,
            Rows::CreatedAt,
            Rows::UpdatedAt,
            Rows::Settled,
        ]
        .map(IntoIden::into_iden);
        ingest!(self, tx => {
            let rows = rows.clone();
            insert(tx, Rows::Table.into_iden(), &columns, rows, &OnRepeat::Skip).await?;
            Ok(())
        })
    }
}

fn change(id: &str, now: Timestamp) -> UpdateStatement {
    Query::update()
        .table(Rows::Table)
        .value(Rows::UpdatedAt, now.0)
        .and_where(Expr::col(Rows::Id).eq(id))
        .to_owned()
}

/// Why an experiment was not in the state that was wanted.
async fn state(tx: &DatabaseTransaction, id: &str) -> Result<ExperimentRefusal, StoreError> {
    let query = Query::select()
        .column(Rows::DeletedAt)
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Id).eq(id))
        .to_owned();
    let Some(row) = tx.query_one(&query).await? else {
        return Ok(ExperimentRefusal::Missing);
    };
    let deleted: Option<i64> = row.try_get_by_index(0)?;
    Ok(ExperimentRefusal::WrongState {
        deleted: deleted.is_some(),
    })
}

/// Whether another experiment has a name, and if so, whether that one is deleted.
async fn holder(
    tx: &DatabaseTransaction,
    name: &str,
    but: &str,
) -> Result<Option<bool>, StoreError> {
    let query = Query::select()
        .column(Rows::DeletedAt)
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Name).eq(name))
        .and_where(Expr::col(Rows::Id).ne(but))
        .limit(1)
        .to_owned();
    let row = tx.query_one(&query).await?;
    let deleted = row.map(|row| row.try_get_by_index::<Option<i64>>(0));
    Ok(deleted.transpose()?.map(|at| at.is_some()))
}

async fn create(
    tx: &DatabaseTransaction,
    new: &NewRunExperiment,
    now: Timestamp,
) -> Result<Result<String, ExperimentRefusal>, StoreError> {
    // Whoever makes one waits here for whoever else does.
    let turn = Query::update()
        .table(Rows::Table)
        .value(Rows::Settled, true)
        .and_where(Expr::col(Rows::Id).eq("0"))
        .to_owned();
    tx.execute(&turn).await?;
    if let Some(deleted) = holder(tx, &new.name, "").await? {
        return Ok(Err(ExperimentRefusal::NameTaken { deleted }));
    }
    let newest = Query::select()
        .expr(Expr::col(Rows::Number).max())
        .from(Rows::Table)
        .to_owned();
    let newest = tx.query_one(&newest).await?;
    let newest: Option<i64> = newest
        .map(|row| row.try_get_by_index(0))
        .transpose()?
        .flatten();
    let number = newest.unwrap_or(0) + 1;
    let id = number.to_string();
    let location = (new.artifact_location.clone()).unwrap_or(format!("mlflow-artifacts:/{id}"));
    let columns = [
        Rows::Id,
        Rows::Number,
        Rows::Name,
        Rows::Taken,
        Rows::ArtifactLocation,
        Rows::CreatedAt,
        Rows::UpdatedAt,
        Rows::Settled,
    ];
    let values = [
        id.as_str().into(),
        number.into(),
        new.name.as_str().into(),
        new.name.as_str().into(),
        location.into(),
        now.0.into(),
        now.0.into(),
        true.into(),
    ];
    let insert = Query::insert()
        .into_table(Rows::Table)
        .columns(columns)
        .values_panic(values)
        .to_owned();
    tx.execute(&insert).await?;
    put_tags(tx, &id, &new.tags).await?;
    Ok(Ok(id))
}

async fn put_tags(
    tx: &DatabaseTransaction,
    id: &str,
    tags: &[(String, String)],
) -> Result<(), StoreError> {
    let last: BTreeMap<&str, &str> = (tags.iter())
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let rows = last.into_iter();
    let rows = rows.map(|(key, value)| vec![id.into(), key.into(), value.into()]);
    let columns = [Tags::ExperimentId, Tags::Key, Tags::Value].map(IntoIden::into_iden);
    let table = Tags::Table.into_iden();
    insert(
        tx,
        table,
        &columns,
        rows.collect(),
        &OnRepeat::Replace { key: 2 },
    )
    .await?;
    Ok(())
}
