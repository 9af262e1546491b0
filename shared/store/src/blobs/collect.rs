//! Collection of blobs that nothing refers to.

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::{BlobRefs, Blobs as Rows};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{
    Expr, ExprTrait as _, InsertStatement, OnConflict, Order, Query, SelectStatement, SimpleExpr,
    UpdateStatement,
};

use super::bucket::Bucket;
use super::folder::{self, Folder};
use super::{
    BLOB_GRACE_MS, BlobStat, Blobs, DELETING, DIGESTS_PER_STATEMENT, MARKED, Put, STORED, blocking,
    insertion, uploads,
};
use crate::rows::{parsed, unsigned};
use crate::{Store, StoreError, ingest};

/// Most blobs that one call marks, and most that it removes; the rest comes in the next.
pub const GC_BATCH: u64 = 1000;
/// Files that are removed in one transaction: the engine waits for it.
const FILES_PER_TRANSACTION: u64 = 50;
/// Objects that are removed before their rows are.
const OBJECTS_PER_ROUND: u64 = 200;
/// How old an object without a row must be before it is taken for a left-over: uploads in one
/// request write their row seconds later, and the bucket's clock is not ours.
pub const STRAY_MS: i64 = 86_400_000;

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Files without a row that got one.
    pub adopted: u64,
    /// Objects, and files without a name, that no row named and that were removed.
    pub swept: u64,
    /// Uploads of senders that are gone.
    pub given_up: u64,
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
        match &self.blobs {
            Blobs::Folder(folder) => self.collect_files(folder, now).await,
            Blobs::Bucket(bucket) => self.collect_objects(bucket, now).await,
        }
    }

    async fn collect_files(&self, folder: &Folder, now: Timestamp) -> Result<GcReport, StoreError> {
        let mut report = GcReport {
            given_up: uploads::expire(self, now).await?,
            adopted: self.adopt(folder, now).await?,
            marked: self.change(&mark(now)).await?,
            ..GcReport::default()
        };
        // Held to the end: no file goes while a backup copies.
        let Some(_alone) = folder.try_remove()? else {
            report.postponed = true;
            return Ok(report);
        };
        report.swept = self.sweep_unnamed(folder, now).await?;
        self.change(&condemn(now)).await?;
        while report.removed < GC_BATCH {
            let (removed, freed) = self.remove_files(folder).await?;
            if removed == 0 {
                break;
            }
            report.removed += removed;
            report.freed += freed;
        }
        Ok(report)
    }

    /// Several coordinators may do this at once: each step is a compare-and-swap, or removes what
    /// no row names and none will.
    async fn collect_objects(
        &self,
        bucket: &Bucket,
        now: Timestamp,
    ) -> Result<GcReport, StoreError> {
        // What another store's rows name would look like left-overs.
        self.blobs_claim().await?;
        let mut report = GcReport {
            given_up: uploads::expire(self, now).await?,
            swept: self.sweep(bucket, now).await?,
            marked: self.change(&mark(now)).await?,
            ..GcReport::default()
        };
        self.change(&condemn(now)).await?;
        while report.removed < GC_BATCH {
            let (removed, freed) = self.remove_objects(bucket).await?;
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
    async fn remove_files(&self, folder: &Folder) -> Result<(u64, u64), StoreError> {
        let doomed = self
            .readers
            .query_all(&doomed(FILES_PER_TRANSACTION))
            .await?;
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
                going.push(folder::set_aside(folder, digest)?);
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

    /// Removes some of what is being deleted: the object, then the row if it still names it. Killed
    /// in between, it is done again; an upload that comes in between has an object of its own.
    async fn remove_objects(&self, bucket: &Bucket) -> Result<(u64, u64), StoreError> {
        let doomed = self.readers.query_all(&doomed(OBJECTS_PER_ROUND)).await?;
        let mut objects = Vec::new();
        for row in &doomed {
            objects.extend(row.try_get_by_index::<Option<String>>(2)?);
        }
        bucket.remove(&objects).await?;
        ingest!(self, tx => {
            let (mut removed, mut freed) = (0, 0);
            for row in &doomed {
                let (digest, object): (String, Option<String>) =
                    (row.try_get_by_index(0)?, row.try_get_by_index(2)?);
                let mut delete = Query::delete();
                delete
                    .from_table(Rows::Table)
                    .and_where(Expr::col(Rows::Digest).eq(digest))
                    .and_where(Expr::col(Rows::State).eq(DELETING))
                    .and_where(match object {
                        Some(object) => Expr::col(Rows::Object).eq(object),
                        None => Expr::col(Rows::Object).is_null(),
                    });
                if tx.execute(&delete).await?.rows_affected() == 1 {
                    removed += 1;
                    freed += unsigned(row.try_get_by_index(1)?);
                }
            }
            Ok((removed, freed))
        })
    }

    /// Removes old objects that neither an upload nor a blob names; says how many. Uploads are
    /// asked first: one that ends meanwhile has its blob's row when that is asked for.
    async fn sweep(&self, bucket: &Bucket, now: Timestamp) -> Result<u64, StoreError> {
        let mut strays: Vec<String> = bucket
            .some_objects()
            .await?
            .into_iter()
            .filter(|(_, made_at)| *made_at < now.plus_ms(-STRAY_MS).0)
            .map(|(object, _)| object)
            .collect();
        let mut known = Vec::new();
        for chunk in strays.chunks(DIGESTS_PER_STATEMENT) {
            let becoming: Vec<String> = chunk.iter().map(|object| uploads::whole(object)).collect();
            for object in uploads::coming(self, &becoming).await? {
                known.push(uploads::tail(&object));
                known.push(object);
            }
            let named = Query::select()
                .column(Rows::Object)
                .from(Rows::Table)
                .and_where(Expr::col(Rows::Object).is_in(chunk))
                .to_owned();
            for row in self.readers.query_all(&named).await? {
                known.push(row.try_get_by_index(0)?);
            }
        }
        strays.retain(|object| !known.contains(object));
        bucket.remove(&strays).await?;
        Ok(strays.len() as u64)
    }

    /// Gives rows to files that have none.
    async fn adopt(&self, folder: &Folder, now: Timestamp) -> Result<u64, StoreError> {
        let folder = folder.clone();
        let files = blocking(move || folder.some_files()).await?;
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
    let mut insert = insertion(stat, &Put::File, MARKED, now, Some(now));
    insert.on_conflict(OnConflict::new().do_nothing().to_owned());
    insert
}

/// Some of what is being deleted.
fn doomed(most: u64) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns([Rows::Digest, Rows::Size, Rows::Object])
        .from(Rows::Table)
        .and_where(Expr::col(Rows::State).eq(DELETING))
        .order_by(Rows::Digest, Order::Asc)
        .limit(most);
    select
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
