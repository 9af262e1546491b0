//! Logged models: files that a client saved as a model, with parameters, tags and what was measured.

use std::collections::BTreeMap;

use pomona_domain::Timestamp;
use pomona_migrations::tables::{
    LoggedModelMetrics as N, LoggedModelParams as P, LoggedModelTags as T, LoggedModels as M,
};
use pomona_tracking::filter::{Comparison, LoggedModelAttribute, LoggedModelField};
use pomona_tracking::order::{LoggedModelOrder, Order};
use sea_orm::sea_query::{
    Alias, Expr, ExprTrait as _, Func, IntoIden, Order as Direction, Query, SelectStatement,
    SimpleExpr, UpdateStatement,
};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbErr, QueryResult};

use super::pack::Point;
use super::search::{alive, compare, direction, pair};
use super::{ExperimentRefusal, KEYS_PER_STATEMENT, View};
use crate::commit::{OnRepeat, insert};
use crate::{Store, StoreError, ingest};

/// A logged model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoggedModel {
    /// Its id.
    pub id: String,
    /// Its experiment.
    pub experiment: String,
    /// Its name.
    pub name: String,
    /// What kind of model it is, as the client says.
    pub model_type: String,
    /// The run that made it.
    pub source_run: String,
    /// Its status, in MLflow's words.
    pub status: String,
    /// What the addresses of its files begin with.
    pub artifact_uri: String,
    /// When it was made.
    pub created_at: i64,
    /// When it was last changed.
    pub updated_at: i64,
    /// Parameters.
    pub params: Vec<(String, String)>,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// What was measured of it.
    pub metrics: Vec<ModelMetric>,
}

/// Something measured of a logged model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelMetric {
    /// The model.
    pub model: String,
    /// The run that measured it.
    pub run: String,
    /// The metric.
    pub key: String,
    /// The data set's name; empty: none.
    pub dataset_name: String,
    /// The data set's digest; empty: none.
    pub dataset_digest: String,
    /// The value.
    pub point: Point,
}

/// Which logged models are searched.
#[derive(Debug, Clone, Default)]
pub struct LoggedModelSearch {
    /// In these experiments.
    pub experiments: Vec<String>,
    /// All of these must hold.
    pub filter: Vec<Comparison<LoggedModelField>>,
    /// In this order.
    pub order: Vec<Order<LoggedModelOrder>>,
    /// From this one on.
    pub offset: u64,
    /// So many.
    pub limit: u64,
}

fn select() -> SelectStatement {
    let columns = [
        M::Id,
        M::ExperimentId,
        M::Name,
        M::ModelType,
        M::SourceRunId,
        M::Status,
        M::ArtifactUri,
        M::CreatedAt,
        M::UpdatedAt,
    ];
    let columns = columns.map(|column| (M::Table, column));
    Query::select().columns(columns).from(M::Table).to_owned()
}

fn row(row: &QueryResult) -> Result<LoggedModel, DbErr> {
    Ok(LoggedModel {
        id: row.try_get_by_index(0)?,
        experiment: row.try_get_by_index(1)?,
        name: row.try_get_by_index(2)?,
        model_type: row.try_get_by_index(3)?,
        source_run: row.try_get_by_index(4)?,
        status: row.try_get_by_index(5)?,
        artifact_uri: row.try_get_by_index(6)?,
        created_at: row.try_get_by_index(7)?,
        updated_at: row.try_get_by_index(8)?,
        ..LoggedModel::default()
    })
}

impl Store {
    /// Makes a logged model in an experiment that is active; where its files are is settled here.
    pub async fn logged_model_create(
        &self,
        new: &LoggedModel,
    ) -> Result<Result<LoggedModel, ExperimentRefusal>, StoreError> {
        let Some(experiment) = self.run_experiment_get(&new.experiment).await? else {
            return Ok(Err(ExperimentRefusal::Missing));
        };
        if experiment.deleted_at.is_some() {
            return Ok(Err(ExperimentRefusal::WrongState { deleted: true }));
        }
        let mut made = new.clone();
        made.artifact_uri = format!(
            "{}/models/{}/artifacts",
            experiment.artifact_location, new.id
        );
        ingest!(self, tx => {
            let columns = [
                M::Id,
                M::ExperimentId,
                M::Name,
                M::ModelType,
                M::SourceRunId,
                M::Status,
                M::ArtifactUri,
                M::CreatedAt,
                M::UpdatedAt,
            ];
            let values = [
                made.id.as_str().into(),
                made.experiment.as_str().into(),
                made.name.as_str().into(),
                made.model_type.as_str().into(),
                made.source_run.as_str().into(),
                made.status.as_str().into(),
                made.artifact_uri.as_str().into(),
                made.created_at.into(),
                made.updated_at.into(),
            ];
            let row = Query::insert().into_table(M::Table).columns(columns).values_panic(values).to_owned();
            tx.execute(&row).await?;
            put_params(tx, &made.id, &made.params).await?;
            put_tags(tx, &made.id, &made.tags).await?;
            Ok(())
        })?;
        Ok(Ok(made))
    }

    /// A logged model that is not deleted.
    pub async fn logged_model_get(&self, id: &str) -> Result<Option<LoggedModel>, StoreError> {
        let query = select()
            .and_where(Expr::col(M::Id).eq(id))
            .and_where(Expr::col(M::DeletedAt).is_null())
            .to_owned();
        let found = self.readers.query_one(&query).await?;
        let mut models: Vec<LoggedModel> = found.iter().map(row).collect::<Result<_, _>>()?;
        self.complete(&mut models).await?;
        Ok(models.pop())
    }

    /// Sets a logged model's status; answers whether there is one.
    pub async fn logged_model_finish(
        &self,
        id: &str,
        status: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            let update = change(id, now).value(M::Status, status).to_owned();
            Ok(tx.execute(&update).await?.rows_affected() > 0)
        })
    }

    /// Deletes a logged model; answers whether there was one.
    pub async fn logged_model_delete(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            let update = change(id, now).value(M::DeletedAt, now.0).to_owned();
            Ok(tx.execute(&update).await?.rows_affected() > 0)
        })
    }

    /// Sets tags and adds parameters; answers whether there is such a model.
    pub async fn logged_model_add(
        &self,
        id: &str,
        tags: &[(String, String)],
        params: &[(String, String)],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            if tx.execute(&change(id, now)).await?.rows_affected() == 0 {
                return Ok(false);
            }
            put_tags(tx, id, tags).await?;
            put_params(tx, id, params).await?;
            Ok(true)
        })
    }

    /// Removes a tag; `None`: there is no such model, else whether it had the tag.
    pub async fn logged_model_untag(
        &self,
        id: &str,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<bool>, StoreError> {
        ingest!(self, tx => {
            if tx.execute(&change(id, now)).await?.rows_affected() == 0 {
                return Ok(None);
            }
            let delete = Query::delete()
                .from_table(T::Table)
                .and_where(Expr::col(T::ModelId).eq(id))
                .and_where(Expr::col(T::Key).eq(key))
                .to_owned();
            Ok(Some(tx.execute(&delete).await?.rows_affected() > 0))
        })
    }

    /// Adds what was measured of logged models.
    pub async fn logged_model_measured(&self, new: &[ModelMetric]) -> Result<(), StoreError> {
        let columns = [
            N::ModelId,
            N::Key,
            N::RunId,
            N::DatasetName,
            N::DatasetDigest,
            N::Step,
            N::Value,
            N::IsNan,
            N::Timestamp,
        ]
        .map(IntoIden::into_iden);
        let rows = new.iter().map(|one| {
            let is_nan = one.point.value.is_nan();
            vec![
                one.model.as_str().into(),
                one.key.as_str().into(),
                one.run.as_str().into(),
                one.dataset_name.as_str().into(),
                one.dataset_digest.as_str().into(),
                one.point.step.into(),
                if is_nan { 0.0 } else { one.point.value }.into(),
                is_nan.into(),
                one.point.timestamp.into(),
            ]
        });
        let rows: Vec<_> = rows.collect();
        ingest!(self, tx => {
            let rows = rows.clone();
            insert(tx, N::Table.into_iden(), &columns, rows, &OnRepeat::Replace { key: 6 }).await?;
            Ok(())
        })
    }

    /// Searches logged models.
    pub async fn logged_model_search(
        &self,
        search: &LoggedModelSearch,
    ) -> Result<Vec<LoggedModel>, StoreError> {
        let backend = self.readers.get_database_backend();
        let mut query = select();
        query.and_where(Expr::col((M::Table, M::ExperimentId)).is_in(&search.experiments));
        alive(&mut query, View::Active, (M::Table, M::DeletedAt));
        for condition in &search.filter {
            let (op, value) = (condition.op, &condition.value);
            let owner = Expr::col((M::Table, M::Id));
            let holds = match &condition.field {
                LoggedModelField::Attribute(attribute) => {
                    compare(backend, column(*attribute), op, value)
                }
                LoggedModelField::Param(key) => {
                    let columns = (P::Table, P::ModelId, P::Key, P::Value);
                    pair(backend, columns, owner, key, (op, value))
                }
                LoggedModelField::Tag(key) => {
                    let columns = (T::Table, T::ModelId, T::Key, T::Value);
                    pair(backend, columns, owner, key, (op, value))
                }
                LoggedModelField::Metric(key) => {
                    let measured = measured(key)
                        .and_where(compare(backend, Expr::col((N::Table, N::Value)), op, value))
                        .to_owned();
                    Expr::exists(measured)
                }
            };
            query.and_where(holds);
        }
        for order in &search.order {
            let by = match &order.field {
                LoggedModelOrder::Attribute(attribute) => column(*attribute),
                LoggedModelOrder::Metric {
                    key,
                    dataset_name,
                    dataset_digest,
                } => {
                    let mut newest = measured(key);
                    newest.clear_selects().column((N::Table, N::Value));
                    for (column, wanted) in [
                        (N::DatasetName, dataset_name),
                        (N::DatasetDigest, dataset_digest),
                    ] {
                        if let Some(wanted) = wanted {
                            newest.and_where(Expr::col((N::Table, column)).eq(wanted));
                        }
                    }
                    newest
                        .order_by((N::Table, N::Step), Direction::Desc)
                        .order_by((N::Table, N::Timestamp), Direction::Desc)
                        .limit(1);
                    SimpleExpr::SubQuery(None, Box::new(newest.into()))
                }
            };
            query.order_by_expr(by.clone().is_null(), Direction::Asc);
            query.order_by_expr(by, direction(order.descending));
        }
        query.offset(search.offset).limit(search.limit);
        let rows = self.readers.query_all(&query).await?;
        let mut models: Vec<LoggedModel> = rows.iter().map(row).collect::<Result<_, _>>()?;
        self.complete(&mut models).await?;
        Ok(models)
    }

    /// Adds parameters, tags and metrics.
    async fn complete(&self, models: &mut [LoggedModel]) -> Result<(), StoreError> {
        let places: BTreeMap<String, usize> = (models.iter().enumerate())
            .map(|(at, model)| (model.id.clone(), at))
            .collect();
        let ids: Vec<String> = places.keys().cloned().collect();
        for some in ids.chunks(KEYS_PER_STATEMENT) {
            self.pairs(
                (P::Table, P::ModelId, P::Key, P::Value),
                some,
                |id, pair| {
                    if let Some(at) = places.get(&id) {
                        models[*at].params.push(pair);
                    }
                },
            )
            .await?;
            self.pairs(
                (T::Table, T::ModelId, T::Key, T::Value),
                some,
                |id, pair| {
                    if let Some(at) = places.get(&id) {
                        models[*at].tags.push(pair);
                    }
                },
            )
            .await?;
            for metric in self.measured(some).await? {
                if let Some(at) = places.get(&metric.model) {
                    models[*at].metrics.push(metric);
                }
            }
        }
        Ok(())
    }

    async fn measured(&self, models: &[String]) -> Result<Vec<ModelMetric>, StoreError> {
        let query = Query::select()
            .columns([
                N::ModelId,
                N::RunId,
                N::Key,
                N::DatasetName,
                N::DatasetDigest,
                N::Value,
                N::IsNan,
                N::Step,
                N::Timestamp,
            ])
            .from(N::Table)
            .and_where(Expr::col(N::ModelId).is_in(models))
            .order_by(N::ModelId, Direction::Asc)
            .order_by(N::Key, Direction::Asc)
            .order_by(N::Step, Direction::Asc)
            .to_owned();
        let mut found = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let (value, is_nan): (f64, bool) = (row.try_get_by_index(5)?, row.try_get_by_index(6)?);
            found.push(ModelMetric {
                model: row.try_get_by_index(0)?,
                run: row.try_get_by_index(1)?,
                key: row.try_get_by_index(2)?,
                dataset_name: row.try_get_by_index(3)?,
                dataset_digest: row.try_get_by_index(4)?,
                point: Point {
                    value: if is_nan { f64::NAN } else { value },
                    step: row.try_get_by_index(7)?,
                    timestamp: row.try_get_by_index(8)?,
                },
            });
        }
        Ok(found)
    }
}

/// What was measured of the model at hand under a name.
fn measured(key: &str) -> SelectStatement {
    Query::select()
        .expr(Expr::val(1))
        .from(N::Table)
        .and_where(Expr::col((N::Table, N::ModelId)).equals((M::Table, M::Id)))
        .and_where(Expr::col((N::Table, N::Key)).eq(key))
        .and_where(Expr::col((N::Table, N::IsNan)).eq(false))
        .to_owned()
}

fn column(attribute: LoggedModelAttribute) -> SimpleExpr {
    use LoggedModelAttribute as A;
    let column = match attribute {
        A::ModelId => M::Id,
        A::ExperimentId => M::ExperimentId,
        A::Name => M::Name,
        A::ArtifactLocation => M::ArtifactUri,
        A::CreationTimestamp => M::CreatedAt,
        A::LastUpdatedTimestamp => M::UpdatedAt,
        A::Status => {
            // After `LOGGED_MODEL_`.
            let status = Func::cust(Alias::new("substr"));
            return status.arg(Expr::col((M::Table, M::Status))).arg(14).into();
        }
        A::ModelType => M::ModelType,
        A::SourceRunId => M::SourceRunId,
        A::LifecycleStage => return Expr::val("active"),
        A::StatusMessage => return Expr::val(""),
    };
    Expr::col((M::Table, column))
}

fn change(id: &str, now: Timestamp) -> UpdateStatement {
    Query::update()
        .table(M::Table)
        .value(M::UpdatedAt, now.0)
        .and_where(Expr::col(M::Id).eq(id))
        .and_where(Expr::col(M::DeletedAt).is_null())
        .to_owned()
}

async fn put_params(
    tx: &DatabaseTransaction,
    id: &str,
    params: &[(String, String)],
) -> Result<(), StoreError> {
    let rows = params.iter();
    let rows = rows.map(|(key, value)| vec![id.into(), key.as_str().into(), value.as_str().into()]);
    let columns = [P::ModelId, P::Key, P::Value].map(IntoIden::into_iden);
    insert(
        tx,
        P::Table.into_iden(),
        &columns,
        rows.collect(),
        &OnRepeat::Skip,
    )
    .await?;
    Ok(())
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
    let columns = [T::ModelId, T::Key, T::Value].map(IntoIden::into_iden);
    let rows = rows.collect();
    insert(
        tx,
        T::Table.into_iden(),
        &columns,
        rows,
        &OnRepeat::Replace { key: 2 },
    )
    .await?;
    Ok(())
}
