//! Everything the scheduler remembers, read in one moment: what memory must equal (S10).

use std::collections::BTreeSet;

use pomona_domain::experiment::Experiment;
use pomona_domain::lease::Lease;
use pomona_domain::snapshot::Snapshot;
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use pomona_domain::{Digest, Generation};
use pomona_migrations::tables::{
    Backbones, Checkpoints, Datasets, Experiments, Leases, Tasks, Trials, Versions, Workers,
};
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{
    Alias, Expr, ExprTrait as _, Iden, IntoColumnRef, IntoIden, Order, Query, SelectStatement,
};

use crate::rows::{docs, unsigned};
use crate::{Store, StoreError, dialect, read};

impl Store {
    /// All rows that have not ended, each list sorted by its key.
    pub async fn load(&self) -> Result<Snapshot, StoreError> {
        let tx = dialect::begin_snapshot(&self.readers).await?;
        let tx = &tx;
        let experiments: Vec<Experiment> = docs(
            tx,
            "experiments",
            &live(
                Experiments::Table,
                Experiments::Doc,
                Experiments::Ended,
                Experiments::Id,
            ),
        )
        .await?;
        let leases: Vec<Lease> = docs(
            tx,
            "leases",
            &live(Leases::Table, Leases::Doc, Leases::Ended, Leases::Id),
        )
        .await?;
        let tasks: Vec<Task> = docs(
            tx,
            "tasks",
            &live(Tasks::Table, Tasks::Doc, Tasks::Ended, Tasks::Id),
        )
        .await?;
        Ok(Snapshot {
            experiments,
            trials: trials(tx).await?,
            leases,
            workers: workers(tx).await?,
            tasks,
            checkpoints: checkpoints(tx).await?,
            datasets: newest_datasets(tx).await?,
            backbones: docs(
                tx,
                "backbones",
                Query::select()
                    .column(Backbones::Doc)
                    .from(Backbones::Table)
                    .order_by(Backbones::Name, Order::Asc),
            )
            .await?,
            versions: newest_versions(tx).await?,
            published: published(tx).await?,
            deleted_versions: deleted_versions(tx).await?,
            aliases: read::registry::aliases(tx, None, true).await?,
            generation: generation(tx).await?,
        })
    }
}

fn live<T: Iden + Copy + 'static>(table: T, doc: T, ended: T, id: T) -> SelectStatement {
    Query::select()
        .column(doc)
        .from(table)
        .and_where(Expr::col(ended).eq(false))
        .order_by(id, Order::Asc)
        .to_owned()
}

async fn workers(tx: &impl ConnectionTrait) -> Result<Vec<Worker>, StoreError> {
    let query = Query::select()
        .column(Workers::Doc)
        .from(Workers::Table)
        .order_by(Workers::Id, Order::Asc)
        .to_owned();
    docs(tx, "workers", &query).await
}

/// All trials of experiments that have not ended, ended trials too.
async fn trials(tx: &impl ConnectionTrait) -> Result<Vec<Trial>, StoreError> {
    let query = Query::select()
        .column((Trials::Table, Trials::Doc))
        .from(Trials::Table)
        .inner_join(
            Experiments::Table,
            Expr::col((Experiments::Table, Experiments::Id))
                .equals((Trials::Table, Trials::ExperimentId)),
        )
        .and_where(Expr::col((Experiments::Table, Experiments::Ended)).eq(false))
        .order_by((Trials::Table, Trials::Id), Order::Asc)
        .to_owned();
    docs(tx, "trials", &query).await
}

async fn checkpoints(
    tx: &impl ConnectionTrait,
) -> Result<Vec<pomona_domain::checkpoint::Checkpoint>, StoreError> {
    let query = Query::select()
        .column((Checkpoints::Table, Checkpoints::Doc))
        .from(Checkpoints::Table)
        .inner_join(
            Trials::Table,
            Expr::col((Trials::Table, Trials::Id))
                .equals((Checkpoints::Table, Checkpoints::TrialId)),
        )
        .inner_join(
            Experiments::Table,
            Expr::col((Experiments::Table, Experiments::Id))
                .equals((Trials::Table, Trials::ExperimentId)),
        )
        .and_where(Expr::col((Experiments::Table, Experiments::Ended)).eq(false))
        .to_owned();
    let mut rows: Vec<pomona_domain::checkpoint::Checkpoint> =
        docs(tx, "checkpoints", &query).await?;
    rows.sort_by_key(|row| (row.trial, row.kind));
    Ok(rows)
}

async fn newest_datasets(
    tx: &impl ConnectionTrait,
) -> Result<Vec<pomona_domain::dataset::Dataset>, StoreError> {
    let query = newest(
        Datasets::Table,
        Datasets::Doc,
        Datasets::Name,
        Datasets::Number,
    );
    docs(tx, "datasets", &query).await
}

async fn newest_versions(
    tx: &impl ConnectionTrait,
) -> Result<Vec<pomona_domain::model::Version>, StoreError> {
    let query = newest(
        Versions::Table,
        Versions::Doc,
        Versions::Model,
        Versions::Number,
    );
    docs(tx, "versions", &query).await
}

/// Checkpoints that versions were made of, sorted.
async fn published(tx: &impl ConnectionTrait) -> Result<Vec<Digest>, StoreError> {
    let query = Query::select()
        .column(Versions::Doc)
        .from(Versions::Table)
        .to_owned();
    let versions: Vec<pomona_domain::model::Version> = docs(tx, "versions", &query).await?;
    let made_of: BTreeSet<Digest> = (versions.iter())
        .filter_map(|version| Some(version.trained()?.checkpoint))
        .collect();
    Ok(made_of.into_iter().collect())
}

async fn deleted_versions(tx: &impl ConnectionTrait) -> Result<Vec<(String, u32)>, StoreError> {
    let query = Query::select()
        .columns([Versions::Model, Versions::Number])
        .from(Versions::Table)
        .and_where(Expr::col(Versions::DeletedAt).is_not_null())
        .order_by(Versions::Model, Order::Asc)
        .order_by(Versions::Number, Order::Asc)
        .to_owned();
    let rows = tx.query_all(&query).await?;
    let key = |row: &sea_orm::QueryResult| {
        let number: i64 = row.try_get_by_index(1)?;
        Ok((row.try_get_by_index(0)?, u32::try_from(number).unwrap_or(0)))
    };
    rows.iter().map(key).collect()
}

/// The row with the highest number for each name.
fn newest<T: Iden + Copy + IntoIden + 'static>(
    table: T,
    doc: T,
    name: T,
    number: T,
) -> SelectStatement {
    let other = || Alias::new("other");
    let highest = Query::select()
        .expr(Expr::col((other(), number)).max())
        .from_as(table, other())
        .and_where(Expr::col((other(), name)).equals((table, name)))
        .to_owned();
    Query::select()
        .column((table, doc).into_column_ref())
        .from(table)
        .and_where(Expr::col((table, number)).eq(Expr::SubQuery(None, Box::new(highest.into()))))
        .order_by((table, name), Order::Asc)
        .to_owned()
}

async fn generation(tx: &impl ConnectionTrait) -> Result<Generation, StoreError> {
    let query = Query::select()
        .expr(Expr::col(Leases::Generation).max())
        .from(Leases::Table)
        .to_owned();
    let highest: Option<i64> = match tx.query_one(&query).await? {
        Some(row) => row.try_get_by_index(0)?,
        None => None,
    };
    Ok(Generation(unsigned(highest.unwrap_or(0))))
}
