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
//! or marked, which makes it stored again, and never to one that is being deleted. The file is
//! renamed inside the transaction that writes the row, here and in collection, so that an upload
//! and a deletion of the same digest come one after the other.
//!
//! # The folder
//! ```text
//! sha256/ab/abcdef…   a blob
//! incoming/           uploads under way, and files on their way out
//! damaged/abcdef…     an empty file: the blob was read and its bytes do not have its name
//! open.lock           held shared by everyone who has the folder open
//! collect.lock        held shared by a backup, and alone by a collection that removes files
//! ```
//! A file without a row is what a killed upload left between the rename and the commit; collection
//! adopts it, and it goes the way of everything that nothing refers to.

mod collect;
mod read;
mod write;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::Blobs as Rows;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, InsertStatement, Query};

use crate::rows::{signed, unsigned};
use crate::{Store, StoreError};

pub use collect::{GC_BATCH, GcReport};
pub use read::BlobReader;
pub use write::BlobWriter;

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
/// Folders of blobs, by the first byte of the digest.
const SHARDS: usize = 256;

/// A blob that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobStat {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// The folder of blobs. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Says to others that uploads may be under way; the lock ends with the process.
    _open: File,
    /// The next upload's number.
    upload: AtomicUsize,
    /// Where collection looks for files without a row next.
    shard: AtomicUsize,
}

impl Blobs {
    /// Opens the folder, makes what is missing, and clears away what killed uploads left, unless
    /// somebody else has it open: those uploads may be alive.
    pub fn open(root: PathBuf) -> Result<Self, StoreError> {
        make(&root)?;
        let open = lock_file(&root.join("open.lock"))?;
        let folder = StoreError::folder(root.join("open.lock"));
        match open.try_lock() {
            Ok(()) => {
                clear(&root.join("incoming"))?;
                open.unlock().map_err(folder)?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(folder(error)),
        }
        open.lock_shared()
            .map_err(StoreError::folder(root.join("open.lock")))?;
        Ok(Self(Arc::new(Folder {
            root,
            _open: open,
            upload: AtomicUsize::new(0),
            shard: AtomicUsize::new(0),
        })))
    }

    /// The file of a blob.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.0.root.join(relative(digest))
    }

    /// The mark of a blob whose bytes do not have its name.
    fn damaged(&self, digest: Digest) -> PathBuf {
        self.0.root.join("damaged").join(digest.hex())
    }

    /// A name for a file that is coming or going.
    fn incoming(&self) -> PathBuf {
        let number = self.0.upload.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        self.0.root.join("incoming").join(name)
    }

    /// Keeps files from being removed as long as the answer lives. Waits for a removal that is
    /// under way.
    pub(crate) async fn hold_all(&self) -> Result<File, StoreError> {
        let path = self.0.root.join("collect.lock");
        blocking(move || {
            let file = lock_file(&path)?;
            file.lock_shared().map_err(StoreError::folder(path))?;
            Ok(file)
        })
        .await
    }

    /// The right to remove files, if nobody keeps them from being removed.
    fn try_remove(&self) -> Result<Option<File>, StoreError> {
        let path = self.0.root.join("collect.lock");
        let file = lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::folder(path)(error)),
        }
    }

    /// Whether the file is there, with its size, and not known to be damaged.
    fn is_whole(&self, stat: BlobStat) -> bool {
        let file = std::fs::metadata(self.path(stat.digest));
        file.is_ok_and(|file| file.is_file() && file.len() == stat.size)
            && !self.damaged(stat.digest).exists()
    }
}

/// Makes the folders of a root, on disk.
pub(crate) fn make(root: &Path) -> Result<(), StoreError> {
    for folder in ["incoming", "damaged", "sha256"] {
        let path = root.join(folder);
        std::fs::create_dir_all(&path).map_err(StoreError::folder(path))?;
    }
    let shards = root.join("sha256");
    for shard in 0..SHARDS {
        let path = shards.join(format!("{shard:02x}"));
        match std::fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StoreError::folder(path)(error)),
        }
    }
    sync_folder(&shards)?;
    sync_folder(root)
}

/// Where a blob lies under a root.
pub(crate) fn relative(digest: Digest) -> PathBuf {
    let hex = digest.hex();
    Path::new("sha256").join(&hex[..2]).join(hex)
}

/// Makes names in a folder last.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::folder(path))
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(StoreError::folder(path))
}

/// Removes the files in a folder.
fn clear(path: &Path) -> Result<(), StoreError> {
    let remove = || {
        for entry in std::fs::read_dir(path)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    };
    remove().map_err(StoreError::folder(path))
}

/// Does what waits for a disk on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
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
}

/// The row of a blob that had none. The caller says what happens when it has one.
fn insertion(
    stat: BlobStat,
    state: &str,
    keep_until: Timestamp,
    marked_at: Option<Timestamp>,
) -> InsertStatement {
    let mut insert = Query::insert();
    insert
        .into_table(Rows::Table)
        .columns([
            Rows::Digest,
            Rows::Size,
            Rows::State,
            Rows::KeepUntil,
            Rows::MarkedAt,
        ])
        .values_panic([
            stat.digest.to_string().into(),
            signed(stat.size).into(),
            state.into(),
            keep_until.0.into(),
            marked_at.map(|at| at.0).into(),
        ]);
    insert
}

impl Store {
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
        let (blobs, stat) = (self.blobs.clone(), row.stat);
        let is_whole = blocking(move || Ok(blobs.is_whole(stat))).await?;
        Ok(is_whole.then_some(row))
    }

    /// The row of a blob that is not on its way out.
    async fn blob_row(&self, digest: Digest) -> Result<Option<Row>, StoreError> {
        let query = Query::select()
            .columns([Rows::Size, Rows::State, Rows::KeepUntil])
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
        }))
    }
}
