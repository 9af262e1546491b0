//! Everything at rest: rows in a relational database and blobs in a folder.
//!
//! What is acknowledged is on disk: a commit returns after the database has synced its log, a blob
//! after its file and its folder are synced. Rows are written by compare-and-swap on `version`,
//! never under row locks, and every engine transaction begins by showing the leader's generation,
//! so a coordinator that lost its leadership cannot write. Readers have connections of their own
//! and do not wait for the writer.
//!
//! This crate must never decide anything: it writes the [`Change`](pomona_domain::Change)s it is
//! given, whole batches or nothing. It reads no clock; the time is handed in. SQL that only SQLite
//! understands stands in `dialect`, and nowhere else.
//!
//! # Backup and restore
//! [`Store::backup`] writes a folder that holds `pomona.db`, `blobs/` and, last of all,
//! `blobs.json`, the list of the blobs with their sizes; a folder without that list is not a
//! finished backup. It works while a coordinator runs. To restore, stop the coordinator, move its
//! data folder away, copy the backup in its place (`pomona.db` and `blobs/`), and start it again:
//! workers that were training go on, and what they reported since the backup is lost.

mod backup;
mod blobs;
mod commit;
mod dialect;
mod error;
mod idempotency;
mod load;
mod logs;
mod page;
mod read;
mod retain;
mod rows;

use std::path::PathBuf;
use std::sync::Arc;

use pomona_migrations::Migrator;
use pomona_migrations::tables::Leader;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, TransactionTrait as _,
};
use sea_orm_migration::MigratorTrait as _;
use tokio::sync::Mutex;

pub use backup::BackupReport;
pub use blobs::{
    BLOB_GRACE_MS, BLOB_KEEP_MS, BlobReader, BlobStat, BlobWriter, GC_BATCH, GcReport,
    MAX_TEXT_BLOB,
};
pub use commit::Batch;
pub use dialect::sqlite_url;
pub use error::StoreError;
pub use idempotency::Answer;
pub use logs::{LOG_LINE_BYTES, LOG_LINES_PER_OWNER, LogRow, NewLogRow};
pub use page::{DEFAULT_PAGE, MAX_PAGE, Page, PageRequest};
pub use read::{ModelSummary, OutboxRow, TrialOrder};
pub use retain::{REASONS_PER_SUBJECT, Retention};

/// Where things are.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The database (`sqlite:///var/lib/pomona/pomona.db`).
    pub url: String,
    /// The folder of blobs; it is made when it is not there.
    pub blobs: PathBuf,
}

/// Everything at rest. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    /// One connection: writers queue here, first come, first served.
    writer: DatabaseConnection,
    /// Connections that cannot write.
    readers: DatabaseConnection,
    /// Writers other than the engine queue here first, so that the engine waits for one of them
    /// at most.
    ingest: Arc<Mutex<()>>,
    /// Files.
    blobs: blobs::Blobs,
}

impl Store {
    /// Opens the database and the folder of blobs, and clears away what a killed upload left.
    /// A schema newer than this program is refused (E0803); one that is older wants
    /// [`Store::migrate`].
    pub async fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let blobs = blobs::Blobs::open(config.blobs)?;
        let (writer, readers) = dialect::connect(&config.url).await?;
        let store = Self {
            writer,
            readers,
            ingest: Arc::default(),
            blobs,
        };
        store.schema_check().await?;
        Ok(store)
    }

    /// Brings the schema up to this program's.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.schema_check().await?;
        Migrator::up(&self.writer, None).await?;
        Ok(())
    }

    /// How many migrations the database has had (0 for an empty one).
    pub async fn schema_version(&self) -> Result<u32, StoreError> {
        let applied = dialect::applied_migrations(&self.writer).await?;
        Ok(u32::try_from(applied.len()).unwrap_or(u32::MAX))
    }

    /// How many migrations this program knows.
    pub fn schema_newest() -> u32 {
        u32::try_from(Migrator::migrations().len()).unwrap_or(u32::MAX)
    }

    async fn schema_check(&self) -> Result<(), StoreError> {
        let known: Vec<String> = Migrator::migrations()
            .iter()
            .map(|migration| migration.name().to_owned())
            .collect();
        let applied = dialect::applied_migrations(&self.writer).await?;
        match applied.into_iter().find(|name| !known.contains(name)) {
            Some(migration) => Err(StoreError::NewerSchema { migration }),
            None => Ok(()),
        }
    }

    /// Closes all connections; what was written is folded into the database file.
    pub async fn close(self) -> Result<(), StoreError> {
        self.readers.close().await?;
        self.writer.close().await?;
        Ok(())
    }

    /// Takes leadership: every earlier leader's commits are refused from now on.
    pub async fn lead(&self) -> Result<u64, StoreError> {
        let tx = self.writer.begin().await?;
        let mut take = Query::update();
        take.table(Leader::Table)
            .value(Leader::Generation, Expr::col(Leader::Generation).add(1))
            .and_where(Expr::col(Leader::Id).eq(1));
        tx.execute(&take).await?;
        let (generation, _) = leader(&tx).await?;
        tx.commit().await?;
        Ok(generation)
    }

    /// The id of the last batch that was committed: tells after an unknown outcome what happened.
    pub async fn last_batch(&self) -> Result<u64, StoreError> {
        // From the writer's connection: it comes after every commit that is under way.
        let (_, seq) = leader(&self.writer).await?;
        Ok(seq)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        leader(&self.readers).await.map(|_| ())
    }

    /// A transaction of a writer other than the engine. Its first statement must write: a
    /// transaction that reads first may find that it cannot write any more.
    async fn ingest(&self) -> Result<Ingest<'_>, StoreError> {
        let turn = self.ingest.lock().await;
        let tx = self.writer.begin().await?;
        Ok(Ingest { tx, _turn: turn })
    }
}

/// A writer's transaction and its place in the queue.
struct Ingest<'a> {
    tx: DatabaseTransaction,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Ingest<'_> {
    async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

/// The leader's generation and the id of the last batch.
async fn leader(conn: &impl sea_orm::ConnectionTrait) -> Result<(u64, u64), StoreError> {
    let mut select = Query::select();
    select
        .columns([Leader::Generation, Leader::Seq])
        .from(Leader::Table)
        .and_where(Expr::col(Leader::Id).eq(1));
    let row = conn
        .query_one(&select)
        .await?
        .ok_or_else(|| StoreError::NotMigrated)?;
    let generation: i64 = row.try_get_by_index(0)?;
    let seq: i64 = row.try_get_by_index(1)?;
    Ok((rows::unsigned(generation), rows::unsigned(seq)))
}
