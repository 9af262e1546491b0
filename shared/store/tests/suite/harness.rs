//! A fresh place for a store, whatever the database.

use std::path::{Path, PathBuf};

use pomona_domain::{Change, Code, Digest, Timestamp};
use pomona_store::{Batch, BlobStat, Store, StoreConfig, StoreError};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, Statement};
use tempfile::TempDir;

/// Databases that pass the suite.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    /// One file.
    Sqlite,
}

/// Makes a test of each function, for each database. A function that is not named here is dead
/// code, which the lints refuse.
macro_rules! for_each_backend {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let home = crate::harness::Home::new(crate::harness::Backend::Sqlite);
                    super::$test(home).await;
                }
            )*
        }
    };
}
pub(crate) use for_each_backend;

/// An empty database and an empty folder, removed at the end.
pub struct Home {
    pub backend: Backend,
    folder: TempDir,
}

impl Home {
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> StoreConfig {
        config_at(self.backend, self.path())
    }

    /// Opens the store, with its schema.
    pub async fn open(&self) -> Store {
        open_at(self.backend, self.path()).await
    }

    /// Opens the store and takes leadership.
    pub async fn lead(&self) -> Leader {
        Leader::of(self.open().await).await
    }

    /// A connection of the test's own, to look behind the store.
    pub async fn raw(&self) -> DatabaseConnection {
        Database::connect(self.config().url).await.unwrap()
    }

    /// The database's own check of itself.
    pub async fn check(&self) {
        check(&self.raw().await, self.backend).await;
    }

    /// The file of a blob.
    pub fn blob_file(&self, digest: Digest) -> PathBuf {
        blob_file(&self.config().blobs, digest)
    }

    /// Files of uploads under way.
    pub fn incoming(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.config().blobs.join("incoming")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub fn config_at(backend: Backend, folder: &Path) -> StoreConfig {
    let url = match backend {
        Backend::Sqlite => format!("sqlite://{}", folder.join("pomona.db").display()),
    };
    StoreConfig {
        url,
        blobs: folder.join("blobs"),
    }
}

pub async fn open_at(backend: Backend, folder: &Path) -> Store {
    let store = Store::open(config_at(backend, folder)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

pub fn blob_file(blobs: &Path, digest: Digest) -> PathBuf {
    let hex = digest.hex();
    blobs.join("sha256").join(&hex[..2]).join(hex)
}

/// The database's own check of itself, and that no reference dangles.
pub async fn check(raw: &DatabaseConnection, backend: Backend) {
    match backend {
        Backend::Sqlite => {
            assert_eq!(texts(raw, "PRAGMA integrity_check").await, ["ok"]);
            let dangling = "SELECT \"table\" FROM pragma_foreign_key_check";
            assert_eq!(texts(raw, dangling).await, [""; 0]);
        }
    }
    let dangling = "SELECT owner FROM blob_refs WHERE digest NOT IN \
                    (SELECT digest FROM blobs WHERE state <> 'deleting')";
    assert_eq!(texts(raw, dangling).await, [""; 0]);
}

/// The first column of a question.
pub async fn texts(raw: &DatabaseConnection, sql: &str) -> Vec<String> {
    let statement = Statement::from_string(raw.get_database_backend(), sql);
    let rows = raw.query_all_raw(statement).await.unwrap();
    rows.iter()
        .map(|row| row.try_get_by_index(0).unwrap())
        .collect()
}

pub async fn number(raw: &DatabaseConnection, sql: &str) -> i64 {
    let statement = Statement::from_string(raw.get_database_backend(), sql);
    let row = raw.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

pub async fn execute(raw: &DatabaseConnection, sql: &str) -> u64 {
    let statement = Statement::from_string(raw.get_database_backend(), sql);
    raw.execute_raw(statement).await.unwrap().rows_affected()
}

/// A store, its leadership, and the number of the last batch.
#[derive(Debug, Clone)]
pub struct Leader {
    pub store: Store,
    pub generation: u64,
    pub last: u64,
}

impl Leader {
    pub async fn of(store: Store) -> Self {
        Self {
            generation: store.lead().await.unwrap(),
            last: store.last_batch().await.unwrap(),
            store,
        }
    }

    /// Commits the next batch.
    pub async fn try_commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let batch = Batch {
            id: self.last + 1,
            generation: self.generation,
            changes,
        };
        self.store.commit(&batch).await?;
        self.last += 1;
        Ok(())
    }

    pub async fn commit(&mut self, changes: &[Change]) {
        self.try_commit(changes).await.unwrap();
    }

    /// Commits what must be refused.
    pub async fn refused(&mut self, changes: &[Change]) -> Code {
        self.try_commit(changes).await.unwrap_err().code()
    }

    pub async fn put(&self, bytes: &[u8], now: Timestamp) -> BlobStat {
        self.store.blob_put(bytes, now).await.unwrap()
    }
}

/// All bytes of a blob.
pub async fn read(store: &Store, digest: Digest) -> Result<Vec<u8>, StoreError> {
    let mut reader = store.blob_get(digest).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await? {
        bytes.extend(chunk);
    }
    assert_eq!(reader.next().await.unwrap(), None, "the end stays the end");
    Ok(bytes)
}
