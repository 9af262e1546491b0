//! A fresh place for a store, whatever the database and wherever the blobs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use pomona_domain::{Change, Code, Digest, Timestamp};
use pomona_store::{Batch, BlobStat, BlobsAt, BucketConfig, Store, StoreConfig, StoreError};
use pomona_testing::{Bucket, Postgres};
use sea_orm::{
    ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction, Statement,
    TransactionTrait as _,
};
use tempfile::TempDir;

/// Databases that pass the suite.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    /// One file.
    Sqlite,
    /// A server of the test's own.
    Postgres,
    /// The same, and the blobs in a bucket of the test's own.
    Team,
}

/// Makes a test of each function, for each database. A function that is not named here is dead
/// code, which the lints refuse.
macro_rules! for_each_backend {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            crate::harness::tests_on!(Sqlite, $($test),*);
        }
        mod postgres {
            crate::harness::tests_on!(Postgres, $($test),*);
        }
    };
}
pub(crate) use for_each_backend;

/// The same, and once more for each with the blobs in a bucket.
macro_rules! for_each_place {
    ($($test:ident),* $(,)?) => {
        crate::harness::for_each_backend!($($test),*);
        mod team {
            crate::harness::tests_on!(Team, $($test),*);
        }
    };
}
pub(crate) use for_each_place;

/// Makes a test of each function, for one database.
macro_rules! tests_on {
    ($backend:ident, $($test:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let home = crate::harness::Home::new(crate::harness::Backend::$backend);
                super::$test(home).await;
            }
        )*
    };
}
pub(crate) use tests_on;

/// An empty database and an empty folder, removed at the end.
#[derive(Debug)]
pub struct Home {
    pub backend: Backend,
    folder: TempDir,
    /// Started when it is first needed.
    server: Arc<OnceLock<Mutex<Postgres>>>,
    /// The name of the database on the server.
    database: String,
    /// Started when it is first needed.
    bucket: Arc<OnceLock<Mutex<Bucket>>>,
}

impl Home {
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            folder: tempfile::tempdir().unwrap(),
            server: Arc::default(),
            database: "postgres".to_owned(),
            bucket: Arc::default(),
        }
    }

    /// Another empty one, on the same servers if there are any.
    pub async fn beside(&self) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut other = Self::new(self.backend);
        other.bucket = Arc::clone(&self.bucket);
        if let Backend::Postgres | Backend::Team = self.backend {
            other.server = Arc::clone(&self.server);
            other.database = format!("beside{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            let create = format!("CREATE DATABASE {}", other.database);
            execute(&self.raw().await, &create).await;
        }
        other
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The test's own server.
    pub fn server(&self) -> MutexGuard<'_, Postgres> {
        let server = self.server.get_or_init(|| Mutex::new(Postgres::start()));
        server.lock().unwrap()
    }

    /// The test's own bucket.
    pub fn bucket(&self) -> MutexGuard<'_, Bucket> {
        let bucket = self.bucket.get_or_init(|| Mutex::new(Bucket::start()));
        bucket.lock().unwrap()
    }

    pub fn config(&self) -> StoreConfig {
        let mut config = in_folder(self.path());
        if let Backend::Postgres | Backend::Team = self.backend {
            config.url = self.server().url(&self.database);
        }
        if let Backend::Team = self.backend {
            config.blobs = BlobsAt::Bucket(Box::new(self.bucket_config()));
        }
        config
    }

    /// How this home comes into the bucket: under a prefix of its own.
    pub fn bucket_config(&self) -> BucketConfig {
        static WRITER: AtomicU64 = AtomicU64::new(1);
        let bucket = self.bucket();
        BucketConfig {
            bucket: bucket.name().to_owned(),
            prefix: format!("house/{}", self.database),
            endpoint: Some(bucket.endpoint()),
            region: "us-east-1".to_owned(),
            keys: Some((Bucket::KEY.to_owned(), Bucket::SECRET.to_owned())),
            path_style: true,
            allow_http: true,
            ca_file: None,
            writer: WRITER.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The folder of the blobs.
    pub fn folder(&self) -> PathBuf {
        self.path().join("blobs")
    }

    /// The folder of the objects, behind the server's back.
    pub fn objects(&self) -> PathBuf {
        let prefix = self.bucket_config().prefix;
        self.bucket().objects().join(prefix)
    }

    /// Opens the store, with its schema.
    pub async fn open(&self) -> Store {
        open(self.config()).await
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

    /// Uploads in parts that the bucket knows of.
    pub fn uploads(&self) -> usize {
        self.bucket().uploads()
    }

    /// Parts of those.
    pub fn parts(&self) -> usize {
        self.bucket().parts()
    }

    /// The file of a blob, or of the newest object that has it.
    pub fn blob_file(&self, digest: Digest) -> PathBuf {
        let Backend::Team = self.backend else {
            return blob_file(&self.folder(), digest);
        };
        let folder = blob_file(&self.objects(), digest);
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let entries = std::fs::read_dir(folder.parent().unwrap());
        let paths = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path());
        let found = paths.filter(|path| name(path).starts_with(&digest.hex()));
        let number = |path: &PathBuf| {
            let (writer, number) = name(path)
                .rsplit_once('-')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .unwrap();
            (writer, number.parse::<u64>().unwrap())
        };
        found.max_by_key(number).unwrap_or(folder)
    }

    /// Files of uploads under way.
    pub fn incoming(&self) -> Vec<PathBuf> {
        if let Backend::Team = self.backend {
            assert_eq!(self.uploads(), 0);
            return Vec::new();
        }
        let entries = std::fs::read_dir(self.folder().join("incoming")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// A store whose database is a file beside its blobs.
pub fn in_folder(folder: &Path) -> StoreConfig {
    StoreConfig {
        url: format!("sqlite://{}", folder.join("pomona.db").display()),
        blobs: BlobsAt::Folder(folder.join("blobs")),
    }
}

pub async fn open(config: StoreConfig) -> Store {
    let store = Store::open(config).await.unwrap();
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
        // It holds foreign keys by itself.
        Backend::Postgres | Backend::Team => {}
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

/// A transaction of somebody else's, in which this was done.
pub async fn writing(raw: &DatabaseConnection, sql: &str) -> DatabaseTransaction {
    let writing = raw.begin().await.unwrap();
    writing.execute_unprepared(sql).await.unwrap();
    writing
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
        let generation = store.lead().await.unwrap();
        Self::by(store, generation).await
    }

    /// One that leads by this generation.
    pub async fn by(store: Store, generation: u64) -> Self {
        Self {
            generation,
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
