//! Blobs: files that are named by the SHA-256 of their bytes, and a row about each.
//!
//! A file gets its name only when all its bytes are on disk and have that digest, so what has a
//! name is whole. It must never be changed in place, and never be removed while a row of
//! `blob_refs` names it.
//!
//! # The life of a blob
//! ```text
//! upload ──▶ stored ──no reference, `keep_until` passed──▶ marked ──BLOB_GRACE_MS──▶ deleting ──▶ gone
//!               ▲────────── reference, upload, keep ──────────┘                          │
//!               ▲──────────────────────────── upload ────────────────────────────────────┘
//! ```
//! Every arrow is a compare-and-swap on `blobs.state`. A commit may refer to a blob that is stored
//! or marked, which makes it stored again, and never to one that is being deleted.
//!
//! # Bytes without a name
//! A large artifact is hashed after its sender was answered ([`unnamed`]): until then it is a file
//! that a row of `artifacts` names by an id, and no blob.
//!
//! # Two places
//! Bytes lie in a `folder` of this machine, or in a `bucket` of an S3-compatible store that several
//! coordinators share. The folder is our own and not that of the `object_store` crate: it promises
//! that what is acknowledged is on the disk (file and folder are synced), hashes as it writes, and
//! links files into a backup, none of which the crate does. The two keep an upload and a removal of
//! the same digest apart in different ways, and their modules say how.

mod bucket;
mod collect;
mod folder;
mod hash;
mod read;
mod session;
pub(crate) mod unnamed;
mod uploads;
mod write;

use std::path::PathBuf;

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::{BlobStore as Own, Blobs as Rows};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, InsertStatement, OnConflict, Query};
use tokio::task::JoinHandle;

use crate::rows::{signed, unsigned};
use crate::{Store, StoreError, ingest};

pub use bucket::BucketConfig;
pub use collect::{GC_BATCH, GcReport, STRAY_MS};
pub(crate) use folder::{Folder, UNNAMED, make, relative, sync_folder};
pub use hash::Hasher;
pub use read::BlobReader;
pub use session::UploadWriter;
pub use unnamed::UNNAMED_STRAY_MS;
pub use uploads::UPLOAD_KEEP_MS;
pub use write::BlobWriter;
pub(crate) use write::upsert;

/// A blob that is not on its way out.
pub(crate) const STORED: &str = "stored";
/// Nothing refers to it: it is deleted after [`BLOB_GRACE_MS`] unless something does.
const MARKED: &str = "marked";
/// Its file is being removed: nothing may refer to it any more.
pub(crate) const DELETING: &str = "deleting";

/// How long a blob is kept after an upload, or after it was asked for, though nothing refers to
/// it yet.
pub const BLOB_KEEP_MS: i64 = 900_000;
/// How long a blob stays after it was marked.
pub const BLOB_GRACE_MS: i64 = 120_000;
/// Bytes of the largest blob that is read into memory as a whole.
pub const MAX_TEXT_BLOB: u64 = 64 << 20;

/// Bytes that are read, written and hashed in one go.
const CHUNK: usize = 256 << 10;
/// Digests, or other names of files, in one question to the database.
const DIGESTS_PER_STATEMENT: usize = 500;
/// Folders of blobs, by the first byte of the digest.
const SHARDS: usize = 256;
/// Folders that one collection looks through for bytes without a row.
const SHARDS_PER_CALL: usize = 16;

/// Where blobs lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobsAt {
    /// In this folder; it is made when it is not there.
    Folder(PathBuf),
    /// In a bucket.
    Bucket(Box<BucketConfig>),
}

/// The place of the blobs. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Blobs {
    Folder(Folder),
    Bucket(bucket::Bucket),
}

impl Blobs {
    pub fn open(at: BlobsAt) -> Result<Self, StoreError> {
        match at {
            BlobsAt::Folder(root) => Folder::open(root).map(Self::Folder),
            BlobsAt::Bucket(config) => bucket::Bucket::open(*config).map(Self::Bucket),
        }
    }

    /// The folder, for what only a folder can do.
    pub fn folder(&self, what: &'static str) -> Result<&Folder, StoreError> {
        match self {
            Self::Folder(folder) => Ok(folder),
            Self::Bucket(_) => Err(StoreError::OnlyFolder { what }),
        }
    }
}

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub(crate) enum Put {
    File,
    /// The name of the object.
    Object(String),
}

/// A blob that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobStat {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Does what waits for a disk on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    joined(tokio::task::spawn_blocking(work)).await
}

/// What such a thread came to.
async fn joined<T>(task: JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    match task.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(StoreError::folder("blobs")(std::io::Error::other(error))),
        },
    }
}

/// What the row of a blob says.
struct Row {
    stat: BlobStat,
    state: String,
    keep_until: Timestamp,
    object: Option<String>,
    is_damaged: bool,
}

/// The row of a blob that had none. The caller says what happens when it has one.
fn insertion(
    stat: BlobStat,
    put: &Put,
    state: &str,
    keep_until: Timestamp,
    marked_at: Option<Timestamp>,
) -> InsertStatement {
    let object = match put {
        Put::File => None,
        Put::Object(name) => Some(name.as_str()),
    };
    let mut insert = Query::insert();
    insert
        .into_table(Rows::Table)
        .columns([
            Rows::Digest,
            Rows::Size,
            Rows::State,
            Rows::KeepUntil,
            Rows::MarkedAt,
            Rows::Object,
            Rows::Damaged,
        ])
        .values_panic([
            stat.digest.to_string().into(),
            signed(stat.size).into(),
            state.into(),
            keep_until.0.into(),
            marked_at.map(|at| at.0).into(),
            object.into(),
            false.into(),
        ]);
    insert
}

impl Store {
    /// Makes sure that the bucket is this store's, and marks it when it was nobody's.
    /// [`StoreError::BucketTaken`] when it is another one's. Nothing for a folder.
    pub async fn blobs_claim(&self) -> Result<(), StoreError> {
        let Blobs::Bucket(bucket) = &self.blobs else {
            return Ok(());
        };
        bucket.claim(&self.name(bucket).await?).await
    }

    /// Whether the place of the blobs answers.
    pub async fn blobs_ping(&self) -> Result<(), StoreError> {
        match &self.blobs {
            Blobs::Folder(_) => Ok(()),
            Blobs::Bucket(bucket) => bucket.ping().await,
        }
    }

    /// The name of this store, which its first writer gives it.
    async fn name(&self, bucket: &bucket::Bucket) -> Result<String, StoreError> {
        let mut insert = Query::insert();
        insert
            .into_table(Own::Table)
            .columns([Own::Id, Own::Name])
            .values_panic([1.into(), bucket.writer().into()])
            .on_conflict(OnConflict::new().do_nothing().to_owned());
        ingest!(self, tx => {
            tx.execute(&insert).await?;
            let query = Query::select().column(Own::Name).from(Own::Table).to_owned();
            let row = tx.query_one(&query).await?;
            let row = row.ok_or(StoreError::NotMigrated)?;
            Ok(row.try_get_by_index(0)?)
        })
    }

    /// A blob, if it is here and is not known to be damaged.
    pub async fn blob_stat(&self, digest: Digest) -> Result<Option<BlobStat>, StoreError> {
        let row = self.blob_whole(digest).await?;
        Ok(row.map(|row| row.stat))
    }

    /// Like [`Store::blob_stat`], and keeps the blob for [`BLOB_KEEP_MS`] or at least half of it:
    /// for somebody who is about to refer to it.
    pub async fn blob_keep(
        &self,
        digest: Digest,
        now: Timestamp,
    ) -> Result<Option<BlobStat>, StoreError> {
        let Some(row) = self.blob_whole(digest).await? else {
            return Ok(None);
        };
        if row.state == STORED && row.keep_until >= now.plus_ms(BLOB_KEEP_MS / 2) {
            return Ok(Some(row.stat));
        }
        let mut keep = Query::update();
        keep.table(Rows::Table)
            .value(Rows::State, STORED)
            .value(Rows::MarkedAt, Option::<i64>::None)
            .value(Rows::KeepUntil, now.plus_ms(BLOB_KEEP_MS).0)
            .and_where(Expr::col(Rows::Digest).eq(digest.to_string()))
            .and_where(Expr::col(Rows::State).ne(DELETING));
        let kept = self.change(&keep).await? == 1;
        Ok(kept.then_some(row.stat))
    }

    /// A blob as text, whole: a manifest. At most [`MAX_TEXT_BLOB`] bytes.
    pub async fn blob_text(&self, digest: Digest) -> Result<String, StoreError> {
        let mut reader = self.blob_get(digest).await?;
        if reader.stat().size > MAX_TEXT_BLOB {
            return Err(StoreError::TooLarge {
                what: "a blob that is read as text",
                limit: MAX_TEXT_BLOB,
            });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|error| StoreError::Unreadable {
            table: "blobs",
            source: serde::de::Error::custom(format!("`{digest}` is not text: {error}")),
        })
    }

    async fn blob_whole(&self, digest: Digest) -> Result<Option<Row>, StoreError> {
        let Some(row) = self.blob_row(digest).await? else {
            return Ok(None);
        };
        let stat = row.stat;
        let is_whole = match &self.blobs {
            Blobs::Folder(folder) => {
                let folder = folder.clone();
                blocking(move || Ok(folder.is_whole(stat))).await?
            }
            Blobs::Bucket(bucket) => match &row.object {
                Some(object) if !row.is_damaged => bucket.size(object).await? == Some(stat.size),
                Some(_) | None => false,
            },
        };
        Ok(is_whole.then_some(row))
    }

    /// The row of a blob that is not on its way out.
    async fn blob_row(&self, digest: Digest) -> Result<Option<Row>, StoreError> {
        let query = Query::select()
            .columns([
                Rows::Size,
                Rows::State,
                Rows::KeepUntil,
                Rows::Object,
                Rows::Damaged,
            ])
            .from(Rows::Table)
            .and_where(Expr::col(Rows::Digest).eq(digest.to_string()))
            .and_where(Expr::col(Rows::State).ne(DELETING))
            .to_owned();
        let Some(row) = self.readers.query_one(&query).await? else {
            return Ok(None);
        };
        let size = unsigned(row.try_get_by_index(0)?);
        Ok(Some(Row {
            stat: BlobStat { digest, size },
            state: row.try_get_by_index(1)?,
            keep_until: Timestamp(row.try_get_by_index(2)?),
            object: row.try_get_by_index(3)?,
            is_damaged: row.try_get_by_index(4)?,
        }))
    }
}
