//! Searching runs and experiments: typed conditions and orders as SQL.
//!
//! What a condition means is settled before it comes here; this must never read a client's text.

use pomona_migrations::tables::{
    RunDatasets, RunExperimentTags, RunExperiments, RunLatest, RunParams, RunTags, Runs,
};
use pomona_tracking::filter::{
    Comparison, DatasetField, ExperimentAttribute, ExperimentField, Op, RunAttribute, RunField,
    Value,
};
use pomona_tracking::order::{Order, RunOrder};
use sea_orm::sea_query::{
    Alias, BinOper, Expr, ExprTrait as _, Iden, IntoIden, JoinType, Order as Direction, Query,
    SelectStatement, SimpleExpr,
};
use sea_orm::{ConnectionTrait as _, DbBackend};

use super::runs::{self, Run};
use super::{RunExperiment, experiments};
use crate::{Store, StoreError, dialect};

/// Which of them, dead or alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Those that are not deleted.
    #[default]
    Active,
    /// Those that are.
    Deleted,
    /// All.
    All,
}

/// Which runs are searched, and which of those found are wanted.
#[derive(Debug, Clone, Default)]
pub struct RunSearch {
    /// In these experiments.
    pub experiments: Vec<String>,
    /// All of these must hold.
    pub filter: Vec<Comparison<RunField>>,
    /// In this order.
    pub order: Vec<Order<RunOrder>>,
    /// Dead or alive.
    pub view: View,
    /// From this one on.
    pub offset: u64,
    /// So many.
    pub limit: u64,
}

/// Which experiments are searched.
#[derive(Debug, Clone, Default)]
pub struct ExperimentSearch {
    /// All of these must hold.
    pub filter: Vec<Comparison<ExperimentField>>,
    /// In this order.
    pub order: Vec<Order<ExperimentAttribute>>,
    /// Dead or alive.
    pub view: View,
    /// From this one on.
    pub offset: u64,
    /// So many.
    pub limit: u64,
}

impl Store {
    /// Searches runs; what is in the log counts, and so does what trials did meanwhile.
    pub async fn run_search(&self, search: &RunSearch) -> Result<Vec<Run>, StoreError> {
        if search.experiments.is_empty() {
            return Ok(Vec::new());
        }
        self.runs_of(&search.experiments).await?;
        let mut query = runs::select();
        let id = (Runs::Table, Runs::ExperimentId);
        query.and_where(Expr::col(id).is_in(&search.experiments));
        alive(&mut query, search.view, (Runs::Table, Runs::DeletedAt));
        let backend = self.readers.get_database_backend();
        let mut joined = Vec::new();
        for (at, condition) in search.filter.iter().enumerate() {
            run_condition(&mut query, backend, (at, condition), &search.experiments);
            if let (RunField::Metric(key), true) = (&condition.field, is_number(&condition.value)) {
                joined.push((key.as_str(), format!("f{at}")));
            }
        }
        for (at, order) in search.order.iter().enumerate() {
            run_order(&mut query, (at, order), &joined);
        }
        query.offset(search.offset).limit(search.limit);
        let rows = self.readers.query_all(&query).await?;
        Ok(rows.iter().map(runs::row).collect::<Result<_, _>>()?)
    }

    /// Searches experiments.
    pub async fn run_experiment_search(
        &self,
        search: &ExperimentSearch,
    ) -> Result<Vec<RunExperiment>, StoreError> {
        self.face_experiments().await?;
        let mut query = experiments::select();
        let deleted_at = (RunExperiments::Table, RunExperiments::DeletedAt);
        alive(&mut query, search.view, deleted_at);
        let backend = self.readers.get_database_backend();
        for condition in &search.filter {
            let holds = match &condition.field {
                ExperimentField::Attribute(attribute) => {
                    let column = Expr::col(experiment_column(*attribute));
                    compare(backend, column, condition.op, &condition.value)
                }
                ExperimentField::Tag(key) => {
                    use RunExperimentTags as T;
                    let columns = (T::Table, T::ExperimentId, T::Key, T::Value);
                    let owner = Expr::col((RunExperiments::Table, RunExperiments::Id));
                    pair(
                        backend,
                        columns,
                        owner,
                        key,
                        (condition.op, &condition.value),
                    )
                }
            };
            query.and_where(holds);
        }
        for order in &search.order {
            let column = Expr::col(experiment_column(order.field));
            query.order_by_expr(column, direction(order.descending));
        }
        query.offset(search.offset).limit(search.limit);
        experiments::read(&self.readers, &query).await
    }
}

/// Keeps those that are alive, or dead.
pub(super) fn alive<C: Iden + Copy + 'static>(query: &mut SelectStatement, view: View, at: (C, C)) {
    match view {
        View::Active => query.and_where(Expr::col(at).is_null()),
        View::Deleted => query.and_where(Expr::col(at).is_not_null()),
        View::All => query,
    };
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Number(_) | Value::Integer(_))
}

pub(crate) fn direction(descending: bool) -> Direction {
    if descending {
        Direction::Desc
    } else {
        Direction::Asc
    }
}

fn experiment_column(attribute: ExperimentAttribute) -> (RunExperiments, RunExperiments) {
    use RunExperiments as E;
    let column = match attribute {
        ExperimentAttribute::Name => E::Name,
        ExperimentAttribute::ExperimentId => E::Id,
        ExperimentAttribute::CreationTime => E::CreatedAt,
        ExperimentAttribute::LastUpdateTime => E::UpdatedAt,
    };
    (E::Table, column)
}

fn run_column(attribute: RunAttribute) -> (Runs, Runs) {
    let column = match attribute {
        RunAttribute::RunId => Runs::Id,
        RunAttribute::RunName => Runs::Name,
        RunAttribute::UserId => Runs::UserId,
        RunAttribute::Status => Runs::Status,
        RunAttribute::ArtifactUri => Runs::ArtifactUri,
        RunAttribute::StartTime => Runs::StartTime,
        RunAttribute::EndTime => Runs::EndTime,
    };
    (Runs::Table, column)
}

fn run_condition(
    query: &mut SelectStatement,
    backend: DbBackend,
    (at, condition): (usize, &Comparison<RunField>),
    experiments: &[String],
) {
    let (op, value) = (condition.op, &condition.value);
    let owner = Expr::col((Runs::Table, Runs::Id));
    let holds = match &condition.field {
        RunField::Attribute(attribute) => {
            compare(backend, Expr::col(run_column(*attribute)), op, value)
        }
        RunField::Param(key) => {
            use RunParams as P;
            let columns = (P::Table, P::RunId, P::Key, P::Value);
            pair(backend, columns, owner, key, (op, value))
        }
        RunField::Tag(key) => {
            use RunTags as T;
            let columns = (T::Table, T::RunId, T::Key, T::Value);
            pair(backend, columns, owner, key, (op, value))
        }
        RunField::Dataset(field) => dataset(backend, *field, (op, value)),
        RunField::Metric(key) => {
            // Joined, with its experiment, so that the index by value is of use to the order, too.
            let alias = Alias::new(format!("f{at}"));
            let column = |column: RunLatest| Expr::col((alias.clone(), column.into_iden()));
            query.join_as(
                JoinType::InnerJoin,
                RunLatest::Table,
                alias.clone(),
                column(RunLatest::RunId).eq(owner),
            );
            query.and_where(within(column(RunLatest::ExperimentId), experiments));
            query.and_where(column(RunLatest::Key).eq(key));
            query.and_where(column(RunLatest::IsNan).eq(false));
            compare(backend, column(RunLatest::Value), op, value)
        }
    };
    query.and_where(holds);
}

fn within(column: SimpleExpr, experiments: &[String]) -> SimpleExpr {
    match experiments {
        [one] => column.eq(one),
        many => column.is_in(many),
    }
}

fn dataset(backend: DbBackend, field: DatasetField, (op, value): (Op, &Value)) -> SimpleExpr {
    use RunDatasets as D;
    let column = match field {
        DatasetField::Name => D::Name,
        DatasetField::Digest => D::Digest,
        DatasetField::Context => D::Context,
    };
    let used = Query::select()
        .expr(Expr::val(1))
        .from(D::Table)
        .and_where(Expr::col((D::Table, D::RunId)).equals((Runs::Table, Runs::Id)))
        .and_where(compare(backend, Expr::col((D::Table, column)), op, value))
        .to_owned();
    Expr::exists(used)
}

/// A condition on the value that an owner has for a key; one without the key fails it, unless it
/// asks for just that.
pub(crate) fn pair<C: Iden + Copy + 'static>(
    backend: DbBackend,
    (table, of, key, value): (C, C, C, C),
    owner: SimpleExpr,
    name: &str,
    (op, wanted): (Op, &Value),
) -> SimpleExpr {
    let mut has = Query::select();
    has.expr(Expr::val(1))
        .from(table)
        .and_where(Expr::col((table, of)).eq(owner))
        .and_where(Expr::col((table, key)).eq(name));
    match op {
        Op::IsNull => Expr::exists(has).not(),
        Op::IsNotNull => Expr::exists(has),
        Op::Equal
        | Op::NotEqual
        | Op::Greater
        | Op::GreaterOrEqual
        | Op::Less
        | Op::LessOrEqual
        | Op::Like
        | Op::Ilike
        | Op::In
        | Op::NotIn => {
            has.and_where(compare(backend, Expr::col((table, value)), op, wanted));
            Expr::exists(has)
        }
    }
}

/// One comparison.
pub(crate) fn compare(backend: DbBackend, column: SimpleExpr, op: Op, value: &Value) -> SimpleExpr {
    let value = match value {
        Value::Text(text) if matches!(op, Op::Like | Op::Ilike) => {
            return dialect::like(backend, column, text, op == Op::Like);
        }
        Value::Text(text) => Expr::val(text.as_str()),
        Value::Integer(number) => Expr::val(*number),
        Value::Number(number) => Expr::val(*number),
        Value::List(list) if op == Op::NotIn => return column.is_not_in(list),
        Value::List(list) => return column.is_in(list),
        Value::Nothing if op == Op::IsNull => return column.is_null(),
        Value::Nothing => return column.is_not_null(),
    };
    let oper = match op {
        Op::NotEqual => BinOper::NotEqual,
        Op::Greater => BinOper::GreaterThan,
        Op::GreaterOrEqual => BinOper::GreaterThanOrEqual,
        Op::Less => BinOper::SmallerThan,
        Op::LessOrEqual => BinOper::SmallerThanOrEqual,
        // The rest was answered above.
        Op::Equal | Op::Like | Op::Ilike | Op::In | Op::NotIn | Op::IsNull | Op::IsNotNull => {
            BinOper::Equal
        }
    };
    column.binary(oper, value)
}

/// Adds one column to the order: what is absent comes last, after NaN.
fn run_order(
    query: &mut SelectStatement,
    (at, order): (usize, &Order<RunOrder>),
    joined: &[(&str, String)],
) {
    use {RunLatest as L, RunParams as P, RunTags as T};
    let way = direction(order.descending);
    let alias = Alias::new(format!("o{at}"));
    let column = match &order.field {
        RunOrder::Attribute(attribute) => Expr::col(run_column(*attribute)),
        RunOrder::Metric(key) => {
            if let Some((_, alias)) = joined.iter().find(|(name, _)| name == key) {
                // The filter lets only numbers pass.
                let value = Expr::col((Alias::new(alias), L::Value));
                query.order_by_expr(value, way);
                return;
            }
            join_pair(query, &alias, (L::Table, L::RunId, L::Key), key);
            let value = Expr::col((alias.clone(), L::Value));
            query.order_by_expr(value.clone().is_null(), Direction::Asc);
            query.order_by_expr(Expr::col((alias, L::IsNan)), Direction::Asc);
            query.order_by_expr(value, way);
            return;
        }
        RunOrder::Param(key) => {
            join_pair(query, &alias, (P::Table, P::RunId, P::Key), key);
            Expr::col((alias, P::Value))
        }
        RunOrder::Tag(key) => {
            join_pair(query, &alias, (T::Table, T::RunId, T::Key), key);
            Expr::col((alias, T::Value))
        }
    };
    if !matches!(order.field, RunOrder::Attribute(RunAttribute::RunId)) {
        query.order_by_expr(column.clone().is_null(), Direction::Asc);
    }
    query.order_by_expr(column, way);
}

/// Joins what runs have for a key, where they have it.
fn join_pair<C: Iden + Copy + 'static>(
    query: &mut SelectStatement,
    alias: &Alias,
    (table, of, key): (C, C, C),
    name: &str,
) {
    let is_of = Expr::col((alias.clone(), of)).equals((Runs::Table, Runs::Id));
    let on = is_of.and(Expr::col((alias.clone(), key)).eq(name));
    query.join_as(JoinType::LeftJoin, table, alias.clone(), on);
}
