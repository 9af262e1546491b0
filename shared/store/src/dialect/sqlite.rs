//! SQLite: one file, one writer at a time.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use pomona_migrations::tables::{Artifacts, BlobRefs, Blobs};
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};
use sea_orm::sqlx::Connection as _;
use sea_orm::sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbErr, SqlxSqliteConnector,
};

use super::{READERS, STATEMENTS};
use crate::StoreError;
use crate::blobs::BlobStat;
use crate::rows::{parsed, unsigned};

/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of a database that is a file: what would end or change its path is encoded.
pub fn sqlite_url(file: &Path) -> String {
    // A name that begins with `file:` would be an address to SQLite itself.
    let file = Path::new(".").join(file);
    let mut url = String::from("sqlite://");
    for byte in file.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// A connection for the writer, and some that cannot write.
pub(super) async fn connect(url: &str) -> Result<(DatabaseConnection, DatabaseConnection), DbErr> {
    let writer = Database::connect(options(url, 1, false)).await?;
    let readers = Database::connect(options(url, READERS, true)).await?;
    Ok((writer, readers))
}

fn options(url: &str, connections: u32, query_only: bool) -> ConnectOptions {
    let mut options = ConnectOptions::new(url.to_owned());
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_pool_opts(|pool| pool.idle_timeout(None).max_lifetime(None))
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(BUSY_TIMEOUT)
                .statement_cache_capacity(STATEMENTS)
                .pragma("query_only", if query_only { "on" } else { "off" })
        });
    options
}

/// Writes a copy of the database as it is at one moment, while others read and write.
pub async fn copy_database(readers: &DatabaseConnection, target: &str) -> Result<(), StoreError> {
    // A connection of its own: the copy takes long, and a reader's may not write, not even there.
    let pool = readers.get_sqlite_connection_pool();
    let mut conn = pool.acquire().await.map_err(sqlx_error)?.detach();
    for statement in ["PRAGMA query_only = off", "VACUUM INTO ?"] {
        let mut query = sea_orm::sqlx::query(statement);
        if statement.ends_with('?') {
            query = query.bind(target);
        }
        query.execute(&mut conn).await.map_err(sqlx_error)?;
    }
    conn.close().await.map_err(sqlx_error)?;
    Ok(())
}

/// What a database needs of the blobs' folder.
#[derive(Debug)]
pub struct Needed {
    pub blobs: Vec<BlobStat>,
    /// Files without a name, by their ids, and their bytes.
    pub unnamed: Vec<(String, u64)>,
}

/// Drops the rows of blobs that nothing refers to from a copied database, and says which files it
/// needs. Leaves one file.
pub async fn needed_files(database: &Path) -> Result<Needed, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options).await.map_err(sqlx_error)?;
    let conn = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool);
    let found = needed(&conn).await;
    conn.close().await?;
    found
}

async fn needed(conn: &DatabaseConnection) -> Result<Needed, StoreError> {
    let references = Query::select()
        .column(BlobRefs::Digest)
        .from(BlobRefs::Table)
        .to_owned();
    let mut prune = Query::delete();
    prune
        .from_table(Blobs::Table)
        .and_where(Expr::col(Blobs::Digest).not_in_subquery(references));
    conn.execute(&prune).await?;
    let query = Query::select()
        .columns([Blobs::Digest, Blobs::Size])
        .from(Blobs::Table)
        .order_by(Blobs::Digest, Order::Asc)
        .to_owned();
    let (mut blobs, mut unnamed) = (Vec::new(), Vec::new());
    for row in conn.query_all(&query).await? {
        blobs.push(BlobStat {
            digest: parsed(&row.try_get_by_index::<String>(0)?)?,
            size: unsigned(row.try_get_by_index(1)?),
        });
    }
    let query = Query::select()
        .columns([Artifacts::Unnamed, Artifacts::Size])
        .from(Artifacts::Table)
        .and_where(Expr::col(Artifacts::Unnamed).is_not_null())
        .to_owned();
    for row in conn.query_all(&query).await? {
        let size = unsigned(row.try_get_by_index(1)?);
        unnamed.push((row.try_get_by_index(0)?, size));
    }
    Ok(Needed { blobs, unnamed })
}

fn sqlx_error(error: sea_orm::sqlx::Error) -> DbErr {
    DbErr::Query(sea_orm::RuntimeErr::SqlxError(error.into()))
}

#[cfg(test)]
mod tests;
