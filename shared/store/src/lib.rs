//! Everything at rest: rows in a relational database (SQLite or PostgreSQL) and blobs in a folder
//! or in a bucket.
//!
//! What is acknowledged is on disk: a commit returns after the database has synced its log, a blob
//! after its file and its folder are synced. Rows are written by compare-and-swap on `version`,
//! never under row locks, and every engine transaction begins by showing the leader's generation,
//! so a coordinator that lost its leadership cannot write. Readers have connections of their own
//! and do not wait for the writer.
//!
//! This crate must never decide anything: it writes the [`Change`](pomona_domain::Change)s it is
//! given, whole batches or nothing. It reads no clock; the time is handed in. SQL that only one
//! database understands stands in `dialect`, and nowhere else.
//!
//! # Backup and restore (SQLite)
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
mod hooks;
mod idempotency;
mod images;
mod leadership;
mod load;
mod logs;
mod page;
mod read;
mod registry;
mod retain;
mod rows;
mod tracking;

use std::sync::Arc;
use std::time::Duration;

use pomona_migrations::Migrator;
use sea_orm::{DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait as _};
use sea_orm_migration::MigratorTrait as _;
use tokio::sync::Mutex;

pub use backup::BackupReport;
pub use blobs::{
    BLOB_GRACE_MS, BLOB_KEEP_MS, BlobReader, BlobStat, BlobWriter, BlobsAt, BucketConfig, GC_BATCH,
    GcReport, Hasher, MAX_TEXT_BLOB, STRAY_MS, UNNAMED_STRAY_MS, UPLOAD_KEEP_MS, UploadWriter,
};
pub use commit::Batch;
pub use dialect::sqlite_url;
pub use error::StoreError;
pub use hooks::{
    Due, HookChange, HookRefusal, MAX_DELIVERIES, MAX_HOOKS, MAX_PENDING, NewHook, Noted, Secret,
    Settled,
};
pub use idempotency::Answer;
pub use images::ImagePart;
pub use leadership::{Candidate, Election, Leader};
pub use logs::{LOG_LINE_BYTES, LOG_LINES_PER_OWNER, LogRow, NewLogRow};
pub use page::{DEFAULT_PAGE, MAX_PAGE, Page, PageRequest};
pub use read::{OutboxRow, TrialOrder};
pub use registry::{ModelFace, ModelSearch, VersionFace, VersionSearch};
pub use retain::{REASONS_PER_SUBJECT, Retention};
pub use tracking::{
    ArtifactEntry, ArtifactWriter, ExperimentRefusal, ExperimentSearch, Latest, LoggedModel,
    LoggedModelSearch, ModelMetric, ModelRole, NewRun, NewRunExperiment, Outline, Point, Run,
    RunChange, RunData, RunDataset, RunExperiment, RunRefusal, RunSearch, RunWrite, Series, View,
};

/// How long a transaction that was given up for another one waits before it is done again: then
/// the caller hears of it.
const CONTENTION_PAUSES_MS: [u64; 6] = [1, 5, 20, 50, 100, 200];

/// Where things are.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The database (`sqlite:///var/lib/pomona/pomona.db`, `postgres://user@host/pomona`).
    pub url: String,
    /// Where the blobs lie.
    pub blobs: BlobsAt,
}

/// Everything at rest. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    /// Connections that write; on SQLite there is one, and writers queue for it.
    writer: DatabaseConnection,
    /// Connections that cannot write.
    readers: DatabaseConnection,
    /// Writers other than the engine queue here first, so that the engine waits for one of them
    /// at most.
    ingest: Arc<Mutex<()>>,
    /// How much was settled.
    grown: Arc<Mutex<tracking::settle::Grown>>,
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
            grown: Arc::default(),
            blobs,
        };
        store.schema_check().await?;
        Ok(store)
    }

    /// Brings the schema up to this program's, while others read and write. When several do so at
    /// once, one does it and the others wait.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let _held = dialect::hold_schema(&self.writer).await?;
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

    /// The id of the last batch that was committed: tells after an unknown outcome what happened.
    pub async fn last_batch(&self) -> Result<u64, StoreError> {
        // It comes after every commit that is under way, of a session that died, too: those hold
        // the row, or the one connection.
        let (_, seq) = leadership::row(&self.writer, leadership::Wait::ForCommits).await?;
        Ok(seq)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        leadership::row(&self.readers, leadership::Wait::No)
            .await
            .map(|_| ())
    }
}

/// A transaction: all that `$work` writes, or nothing. It is done again, from its beginning, when
/// the database gave it up for the sake of another one. The value is a `Result`.
macro_rules! transaction {
    ($store:expr, $tx:ident => $work:expr) => {{
        let mut attempt = 0;
        loop {
            let begun = $crate::Begun::at(&$store.writer).await?;
            let done: Result<_, $crate::StoreError> = match &begun.0 {
                Some($tx) => async { $work }.await,
                None => unreachable!("it has just begun"),
            };
            if let Some(settled) = $crate::settle(begun, done, &mut attempt).await {
                break settled;
            }
        }
    }};
}
pub(crate) use transaction;

/// A transaction of a writer other than the engine. Its first statement must write: a transaction
/// that reads first may find that it cannot write any more.
macro_rules! ingest {
    ($store:expr, $tx:ident => $work:expr) => {{
        let _turn = $store.ingest.lock().await;
        $crate::transaction!($store, $tx => $work)
    }};
}
pub(crate) use ingest;

/// A transaction under way. Given up (its future was dropped: a client went away), it is rolled back
/// at once: by itself it would hold its locks until somebody uses its connection again.
struct Begun(Option<DatabaseTransaction>);

impl Begun {
    async fn at(writer: &DatabaseConnection) -> Result<Self, StoreError> {
        let writer = writer.clone();
        let begun = unbroken(async move { writer.begin().await }).await?;
        Ok(Self(Some(begun)))
    }
}

/// Does to its end what a driver does not take back when it is given up in its middle: a session
/// would stay in a transaction that nobody knows of.
async fn unbroken<T: Send + 'static>(
    work: impl Future<Output = Result<T, DbErr>> + Send + 'static,
) -> Result<T, DbErr> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(DbErr::Custom(error.to_string())))
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let (Some(tx), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            // Whatever goes wrong: the connection is not used again, and its server ends it.
            runtime.spawn(async move { drop(tx.rollback().await) });
        }
    }
}

/// Ends a transaction in which `done` came about; nothing when it should be done again.
async fn settle<T>(
    mut begun: Begun,
    done: Result<T, StoreError>,
    attempt: &mut usize,
) -> Option<Result<T, StoreError>> {
    let tx = begun.0.take()?;
    let settled = match done {
        Ok(done) => {
            let committed = unbroken(tx.commit()).await;
            committed.map(|()| done).map_err(StoreError::from)
        }
        Err(error) => {
            // The cause is worth more than a rollback that failed.
            let _ = unbroken(tx.rollback()).await;
            Err(error)
        }
    };
    match (&settled, CONTENTION_PAUSES_MS.get(*attempt)) {
        (Err(StoreError::Down(error)), Some(pause)) if dialect::is_contention(error) => {
            *attempt += 1;
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            None
        }
        _ => Some(settled),
    }
}
