//! Collection of blobs that nothing refers to.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::{BlobRefs, Blobs as Rows};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{
    Expr, ExprTrait as _, InsertStatement, OnConflict, Query, SelectStatement, SimpleExpr,
    UpdateStatement,
};

use super::{
    BLOB_GRACE_MS, BlobStat, Blobs, DELETING, MARKED, SHARDS, STORED, blocking, insertion,
};
use crate::rows::{parsed, unsigned};
use crate::{Store, StoreError, ingest};

/// Most blobs that one call marks, and most that it removes; the rest comes in the next.
pub const GC_BATCH: u64 = 1000;
/// Files that are removed in one transaction: the engine waits for it.
const FILES_PER_TRANSACTION: u64 = 50;
/// Folders that one call looks through for files without a row.
const SHARDS_PER_CALL: usize = 16;
/// Digests in one question to the database.
const DIGESTS_PER_STATEMENT: usize = 500;

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Files without a row that got one.
    pub adopted: u64,
    /// Blobs that were marked.
    pub marked: u64,
    /// Blobs that were removed.
    pub removed: u64,
    /// Bytes of those.
    pub freed: u64,
    /// A backup or another collection was under way, so nothing was removed.
    pub postponed: bool,
}

impl Store {
    /// Marks blobs that nothing refers to and whose time has passed, and removes those that were
    /// marked [`BLOB_GRACE_MS`] ago. To be called now and then.
    pub async fn blob_gc(&self, now: Timestamp) -> Result<GcReport, StoreError> {
        let mut report = GcReport {
            adopted: self.adopt(now).await?,
            marked: self.change(&mark(now)).await?,
            ..GcReport::default()
        };
        // Held to the end: no file goes while a backup copies.
        let Some(_alone) = self.blobs.try_remove()? else {
            report.postponed = true;
            return Ok(report);
        };
        self.change(&condemn(now)).await?;
        while report.removed < GC_BATCH {
            let (removed, freed) = self.remove().await?;
            if removed == 0 {
                break;
            }
            report.removed += removed;
            report.freed += freed;
        }
        Ok(report)
    }

    pub(super) async fn change(&self, update: &UpdateStatement) -> Result<u64, StoreError> {
        ingest!(self, tx => Ok(tx.execute(update).await?.rows_affected()))
    }

    /// Removes some of what is being deleted. An upload of the same digest has its row first, or
    /// comes after: then the row or the file is new, and stays.
    async fn remove(&self) -> Result<(u64, u64), StoreError> {
        let doomed = Query::select()
            .columns([Rows::Digest, Rows::Size])
            .from(Rows::Table)
            .and_where(Expr::col(Rows::State).eq(DELETING))
            .order_by(Rows::Digest, sea_orm::sea_query::Order::Asc)
            .limit(FILES_PER_TRANSACTION)
            .to_owned();
        let doomed = self.readers.query_all(&doomed).await?;
        if doomed.is_empty() {
            return Ok((0, 0));
        }
        let (going, freed) = ingest!(self, tx => {
            let (mut going, mut freed) = (Vec::new(), 0);
            for row in &doomed {
            let digest: Digest = parsed(&row.try_get_by_index::<String>(0)?)?;
            let mut delete = Query::delete();
            delete
                .from_table(Rows::Table)
                .and_where(Expr::col(Rows::Digest).eq(digest.to_string()))
                .and_where(Expr::col(Rows::State).eq(DELETING));
            if tx.execute(&delete).await?.rows_affected() == 1 {
                // Not on another thread: the transaction must outlive it, and it takes no
                // time. Done again, it finds the file gone, and that is right.
                going.push(set_aside(&self.blobs, digest)?);
                freed += unsigned(row.try_get_by_index(1)?);
            }
            }
            Ok((going, freed))
        })?;
        let removed = going.len() as u64;
        blocking(move || {
            for path in going {
                // What stays is cleared away when the folder is opened next.
                let _ = std::fs::remove_file(path);
            }
            Ok(())
        })
        .await?;
        Ok((removed, freed))
    }

    /// Gives rows to files that have none.
    async fn adopt(&self, now: Timestamp) -> Result<u64, StoreError> {
        let blobs = self.blobs.clone();
        let files = blocking(move || blobs.some_files()).await?;
        let mut strays = Vec::new();
        for chunk in files.chunks(DIGESTS_PER_STATEMENT) {
            let known = Query::select()
                .column(Rows::Digest)
                .from(Rows::Table)
                .and_where(
                    Expr::col(Rows::Digest).is_in(chunk.iter().map(|stat| stat.digest.to_string())),
                )
                .to_owned();
            let known = self.readers.query_all(&known).await?;
            let known: Vec<String> = known
                .iter()
                .map(|row| row.try_get_by_index(0))
                .collect::<Result<_, _>>()?;
            strays.extend(
                chunk
                    .iter()
                    .filter(|stat| !known.contains(&stat.digest.to_string())),
            );
        }
        if strays.is_empty() {
            return Ok(0);
        }
        ingest!(self, tx => {
            let mut adopted = 0;
            for &stat in &strays {
                let insert = adoption(stat, now);
                adopted += tx.execute(&insert).await?.rows_affected();
            }
            Ok(adopted)
        })
    }
}

/// A row for a file that has none.
fn adoption(stat: BlobStat, now: Timestamp) -> InsertStatement {
    let mut insert = insertion(stat, MARKED, now, Some(now));
    insert.on_conflict(OnConflict::new().do_nothing().to_owned());
    insert
}

/// Takes a blob's file out of its place; says where it is now.
fn set_aside(blobs: &Blobs, digest: Digest) -> Result<PathBuf, StoreError> {
    let (path, aside) = (blobs.path(digest), blobs.incoming());
    // A mark that stays costs the next upload nothing.
    let _ = std::fs::remove_file(blobs.damaged(digest));
    match std::fs::rename(&path, &aside) {
        // A collection that was killed has taken it already.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::folder(path)(error))
        }
        Ok(()) | Err(_) => Ok(aside),
    }
}

impl Blobs {
    /// Digests and sizes of the files in the next few folders.
    fn some_files(&self) -> Result<Vec<BlobStat>, StoreError> {
        let first = self.0.shard.fetch_add(SHARDS_PER_CALL, Ordering::Relaxed);
        let mut files = Vec::new();
        for shard in first..first + SHARDS_PER_CALL {
            let path = self
                .0
                .root
                .join("sha256")
                .join(format!("{:02x}", shard % SHARDS));
            let folder = || StoreError::folder(&path);
            for entry in std::fs::read_dir(&path).map_err(folder())? {
                let entry = entry.map_err(folder())?;
                let name = format!("sha256:{}", entry.file_name().to_string_lossy());
                // One that was removed meanwhile is no stray.
                if let (Ok(digest), Ok(file)) = (name.parse(), entry.metadata()) {
                    let size = file.len();
                    files.push(BlobStat { digest, size });
                }
            }
        }
        Ok(files)
    }
}

/// That no row refers to a blob.
fn is_unreferenced() -> SimpleExpr {
    let references = Query::select()
        .column(BlobRefs::Owner)
        .from(BlobRefs::Table)
        .and_where(
            Expr::col((BlobRefs::Table, BlobRefs::Digest)).equals((Rows::Table, Rows::Digest)),
        )
        .to_owned();
    Expr::exists(references).not()
}

/// A batch of those of which `conditions` hold.
fn batch(conditions: &[SimpleExpr]) -> SelectStatement {
    let mut select = Query::select();
    select
        .column((Rows::Table, Rows::Digest))
        .from(Rows::Table)
        .limit(GC_BATCH);
    for condition in conditions {
        select.and_where(condition.clone());
    }
    select
}

/// stored → marked.
fn mark(now: Timestamp) -> UpdateStatement {
    let conditions = [
        Expr::col((Rows::Table, Rows::State)).eq(STORED),
        Expr::col((Rows::Table, Rows::KeepUntil)).lt(now.0),
        is_unreferenced(),
    ];
    let mut mark = Query::update();
    mark.table(Rows::Table)
        .value(Rows::State, MARKED)
        .value(Rows::MarkedAt, now.0);
    swap(mark, conditions)
}

/// marked → deleting.
fn condemn(now: Timestamp) -> UpdateStatement {
    let conditions = [
        Expr::col((Rows::Table, Rows::State)).eq(MARKED),
        Expr::col((Rows::Table, Rows::MarkedAt)).lte(now.plus_ms(-BLOB_GRACE_MS).0),
        is_unreferenced(),
    ];
    let mut condemn = Query::update();
    condemn.table(Rows::Table).value(Rows::State, DELETING);
    swap(condemn, conditions)
}

/// `update` for a batch of rows of which `conditions` hold, then and still.
fn swap<const N: usize>(
    mut update: UpdateStatement,
    conditions: [SimpleExpr; N],
) -> UpdateStatement {
    update.and_where(Expr::col((Rows::Table, Rows::Digest)).in_subquery(batch(&conditions)));
    for condition in conditions {
        update.and_where(condition);
    }
    update
}
