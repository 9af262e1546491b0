//! One batch of changes, one transaction: all of it or nothing.
//!
//! Several changes of one row in a batch must follow each other in version and are written once,
//! as the last one. Rows are written before those that refer to them, whatever their order in the
//! batch.

mod facts;
pub(crate) use facts::subject;
mod gates;
pub(crate) mod outbox;
pub(crate) mod refs;
pub(crate) mod registry;
mod removals;

use std::collections::{BTreeMap, BTreeSet};

use pomona_domain::backbone::Backbone;
use pomona_domain::change::Reason;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::dataset::Dataset;
use pomona_domain::experiment::Experiment;
use pomona_domain::gate::GateFact;
use pomona_domain::lease::Lease;
use pomona_domain::metric::Observation;
use pomona_domain::model::{Audit, Version};
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use pomona_domain::{Change, TrialId};
use pomona_migrations::tables::Leader;
use sea_orm::sea_query::{DynIden, Expr, ExprTrait as _, OnConflict, Query, Value};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use crate::rows::{Versioned, encode, signed};
use crate::{Store, StoreError, dialect, transaction};

/// What one decision of the leader, or several in a row, changed.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Its number, one above [`Store::last_batch`].
    pub id: u64,
    /// The leader's generation, from [`Store::lead`].
    pub generation: u64,
    /// The changes, oldest first.
    pub changes: &'a [Change],
}

impl Store {
    /// Writes a batch in one transaction and returns when it is on disk.
    ///
    /// [`StoreError::NotLeader`] when the generation is not the leader's, [`StoreError::Conflict`]
    /// when a row is not in the version a change was made from, [`StoreError::BlobMissing`] when
    /// a row names a blob that is not here: then nothing was written. After any other error, ask
    /// [`Store::last_batch`] what happened.
    pub async fn commit(&self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let sorted = Sorted::of(batch.changes);
        transaction!(self, tx => write(tx, batch, &sorted).await)
    }
}

async fn write(
    tx: &DatabaseTransaction,
    batch: &Batch<'_>,
    sorted: &Sorted<'_>,
) -> Result<(), StoreError> {
    fence(tx, batch).await?;
    refs::write(tx, sorted).await?;
    let endings = outbox::endings(tx, sorted).await?;
    put(tx, &sorted.workers).await?;
    put(tx, &sorted.experiments).await?;
    put(tx, &sorted.trials).await?;
    put(tx, &sorted.tasks).await?;
    put(tx, &sorted.leases).await?;
    facts::datasets(tx, &sorted.datasets).await?;
    facts::backbones(tx, &sorted.backbones).await?;
    facts::observations(tx, &sorted.observations).await?;
    facts::checkpoints(tx, &sorted.checkpoints).await?;
    facts::deleted_checkpoints(tx, &sorted.deleted_checkpoints).await?;
    registry::write(tx, &sorted.registry).await?;
    registry::audits(tx, &sorted.audits).await?;
    gates::write(tx, &sorted.gates).await?;
    outbox::tell(tx, endings).await?;
    facts::reasons(tx, &sorted.reasons).await
}

/// The first statement: it takes the write lock and shows that this is still the leader.
async fn fence(tx: &DatabaseTransaction, batch: &Batch<'_>) -> Result<(), StoreError> {
    let mut fence = Query::update();
    fence
        .table(Leader::Table)
        .value(Leader::Seq, signed(batch.id))
        .and_where(Expr::col(Leader::Id).eq(1))
        .and_where(Expr::col(Leader::Generation).eq(signed(batch.generation)));
    if tx.execute(&fence).await?.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::NotLeader {
            generation: batch.generation,
        })
    }
}

/// Checkpoints that a batch deletes.
type Deleted = BTreeSet<(TrialId, CheckpointKind)>;

/// A batch's changes by kind.
#[derive(Default)]
struct Sorted<'a> {
    experiments: Vec<&'a Experiment>,
    trials: Vec<&'a Trial>,
    leases: Vec<&'a Lease>,
    workers: Vec<&'a Worker>,
    tasks: Vec<&'a Task>,
    observations: Vec<&'a Observation>,
    checkpoints: Vec<&'a Checkpoint>,
    /// Those whose last change in the batch deletes them.
    deleted_checkpoints: Deleted,
    datasets: Vec<&'a Dataset>,
    backbones: Vec<&'a Backbone>,
    versions: Vec<&'a Version>,
    /// Versions, moves and removals, in the order in which they were decided.
    registry: Vec<&'a Change>,
    audits: Vec<&'a Audit>,
    gates: Vec<&'a GateFact>,
    reasons: Vec<&'a Reason>,
}

impl<'a> Sorted<'a> {
    fn of(changes: &'a [Change]) -> Self {
        let mut sorted = Self::default();
        for change in changes {
            match change {
                Change::Experiment(row) => sorted.experiments.push(row),
                Change::Trial(row) => sorted.trials.push(row),
                Change::Lease(row) => sorted.leases.push(row),
                Change::Worker(row) => sorted.workers.push(row),
                Change::Task(row) => sorted.tasks.push(row),
                Change::Observed(row) => sorted.observations.push(row),
                Change::Checkpoint(row) => {
                    sorted.deleted_checkpoints.remove(&(row.trial, row.kind));
                    sorted.checkpoints.push(row);
                }
                Change::CheckpointDeleted(trial, kind) => {
                    let is_it = |row: &&Checkpoint| (row.trial, row.kind) == (*trial, *kind);
                    sorted.checkpoints.retain(|row| !is_it(row));
                    sorted.deleted_checkpoints.insert((*trial, *kind));
                }
                Change::Dataset(row) => sorted.datasets.push(row),
                Change::Backbone(row) => sorted.backbones.push(row),
                Change::Version(row) => {
                    sorted.versions.push(row);
                    sorted.registry.push(change);
                }
                Change::AliasMoved(_) | Change::Described(_) | Change::Removed(_) => {
                    sorted.registry.push(change);
                }
                Change::Audited(row) => sorted.audits.push(row),
                Change::Gates(row) => sorted.gates.push(row),
                Change::Reason(row) => sorted.reasons.push(row),
            }
        }
        sorted
    }
}

/// Rows in one statement. A row has at most 9 columns, and SQLite binds at most 32,766 values.
const ROWS_PER_STATEMENT: usize = 500;

/// What is in the way of a plain insertion.
pub(crate) enum OnRepeat {
    /// The caller counts the rows: a repeat is not written.
    Skip,
    /// The columns after the first `key` ones are written over.
    Replace { key: usize },
}

/// Inserts rows, many in one statement, and says how many were written.
pub(crate) async fn insert(
    tx: &DatabaseTransaction,
    table: DynIden,
    columns: &[DynIden],
    rows: Vec<Vec<Value>>,
    repeat: &OnRepeat,
) -> Result<u64, StoreError> {
    let mut written = 0;
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut insert = Query::insert();
        insert
            .into_table(table.clone())
            .columns(columns.iter().cloned());
        for row in rows.by_ref().take(ROWS_PER_STATEMENT) {
            insert.values_panic(row.into_iter().map(Expr::val));
        }
        insert.on_conflict(match repeat {
            OnRepeat::Skip => OnConflict::new().do_nothing().to_owned(),
            OnRepeat::Replace { key } => {
                let (key, rest) = columns.split_at(*key);
                OnConflict::columns(key.iter().cloned())
                    .update_columns(rest.iter().cloned())
                    .to_owned()
            }
        });
        written += tx.execute(&insert).await?.rows_affected();
    }
    Ok(written)
}

/// Writes versioned rows: new ones together, changed ones by compare-and-swap.
async fn put<R: Versioned>(tx: &DatabaseTransaction, changes: &[&R]) -> Result<(), StoreError> {
    let mut fresh = Vec::new();
    let mut changed = Vec::new();
    for (key, (base, row)) in newest(changes)? {
        if !row.is_finite() {
            return Err(StoreError::NotFinite { what: key });
        }
        let mut values: Vec<Value> = vec![
            key.into(),
            signed(row.version()).into(),
            encode(R::TABLE, row)?.into(),
        ];
        values.extend(row.values());
        if base == 0 {
            fresh.push(values);
        } else {
            changed.push((base, values));
        }
    }
    let count = fresh.len() as u64;
    let columns = R::columns();
    if insert(tx, R::table(), &columns, fresh, &OnRepeat::Skip).await? != count {
        return Err(StoreError::Conflict {
            what: format!("a new {}", R::KIND),
        });
    }
    let mut changed = changed.into_iter().peekable();
    while changed.peek().is_some() {
        let some = changed.by_ref().take(ROWS_PER_STATEMENT).collect();
        swap::<R>(tx, &columns, some).await?;
    }
    Ok(())
}

/// The last change of each row, and the version that its first change was made from.
fn newest<'a, R: Versioned>(
    changes: &[&'a R],
) -> Result<BTreeMap<String, (u64, &'a R)>, StoreError> {
    let mut newest: BTreeMap<String, (u64, &R)> = BTreeMap::new();
    for row in changes {
        let key = row.key();
        let before = newest.get(&key);
        let base = row.version().checked_sub(1);
        match (before, base) {
            (None, Some(base)) => {
                newest.insert(key, (base, row));
            }
            (Some((first, last)), Some(base)) if last.version() == base => {
                let first = *first;
                newest.insert(key, (first, row));
            }
            (Some(_), _) | (None, None) => {
                return Err(conflict::<R>(&key));
            }
        }
    }
    Ok(newest)
}

/// Replaces rows that are in the versions that their changes were made from, all in one statement.
async fn swap<R: Versioned>(
    tx: &DatabaseTransaction,
    columns: &[DynIden],
    rows: Vec<(u64, Vec<Value>)>,
) -> Result<(), StoreError> {
    let count = rows.len() as u64;
    let wanted: Vec<(Value, Value)> = rows
        .iter()
        .map(|(_, row)| (row[0].clone(), row[1].clone()))
        .collect();
    let rows = rows.into_iter().map(|(base, mut row)| {
        row.push(signed(base).into());
        row
    });
    let update = dialect::update_rows(tx.get_database_backend(), &R::table(), columns, rows);
    if tx.execute_raw(update).await?.rows_affected() == count {
        return Ok(());
    }
    for (key, version) in wanted {
        let mut select = Query::select();
        select
            .expr(Expr::val(1))
            .from(R::table())
            .and_where(Expr::col(columns[0].clone()).eq(Expr::val(key.clone())))
            .and_where(Expr::col(columns[1].clone()).eq(Expr::val(version)));
        if tx.query_one(&select).await?.is_none() {
            let key: String = sea_orm::sea_query::ValueType::unwrap(key);
            return Err(conflict::<R>(&key));
        }
    }
    Err(conflict::<R>("?"))
}

fn conflict<R: Versioned>(key: &str) -> StoreError {
    StoreError::Conflict {
        what: format!("{} `{key}`", R::KIND),
    }
}
