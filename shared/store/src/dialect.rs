//! What differs between databases: how to connect, and the few statements without a common form.
//!
//! Everything else is built by sea-query and means the same on SQLite and PostgreSQL.

mod postgres;
mod sqlite;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement,
    TransactionTrait as _,
};
use sea_orm_migration::SchemaManager;

use crate::{StoreError, unbroken};
pub use sqlite::{copy_database, needed_blobs, sqlite_url};

/// Connections for readers.
const READERS: u32 = 4;
/// Statements that stay prepared on a connection.
const STATEMENTS: usize = 256;

/// Connections for writers, and some that cannot write.
pub async fn connect(url: &str) -> Result<(DatabaseConnection, DatabaseConnection), StoreError> {
    match url.split(':').next().unwrap_or_default() {
        "sqlite" => Ok(sqlite::connect(url).await?),
        "postgres" | "postgresql" => postgres::connect(url).await,
        scheme => Err(StoreError::UnknownDatabase {
            scheme: scheme.to_owned(),
        }),
    }
}

/// A transaction that sees one moment of the database throughout.
pub async fn begin_snapshot(conn: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let conn = conn.clone();
    if conn.get_database_backend() == DbBackend::Sqlite {
        // A read transaction on a write-ahead log is a snapshot.
        return unbroken(async move { conn.begin().await }).await;
    }
    unbroken(async move {
        conn.begin_with_config(
            Some(sea_orm::IsolationLevel::RepeatableRead),
            Some(sea_orm::AccessMode::ReadOnly),
        )
        .await
    })
    .await
}

/// Waits until nobody else changes the schema, and keeps others from it until the answer is
/// dropped.
pub async fn hold_schema(
    writer: &DatabaseConnection,
) -> Result<Option<DatabaseTransaction>, DbErr> {
    if writer.get_database_backend() == DbBackend::Postgres {
        return postgres::hold_schema(writer).await.map(Some);
    }
    // A file belongs to one coordinator.
    Ok(None)
}

/// The names of the migrations that the database has had, oldest first.
pub async fn applied_migrations(conn: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let table = "seaql_migrations";
    if !SchemaManager::new(conn).has_table(table).await? {
        return Ok(Vec::new());
    }
    let statement = Statement::from_string(
        conn.get_database_backend(),
        format!("SELECT version FROM {table} ORDER BY version"),
    );
    conn.query_all_raw(statement)
        .await?
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect()
}

/// Whether the database says that its disk is full.
pub fn is_disk_full(error: &DbErr) -> bool {
    const SQLITE_FULL: &str = "13";
    const POSTGRES_FULL: &str = "53100";
    code(error).is_some_and(|code| code == SQLITE_FULL || code == POSTGRES_FULL)
}

/// Whether the transaction was given up for the sake of another one, wrote nothing, and may be done
/// again as it is.
pub fn is_contention(error: &DbErr) -> bool {
    const SERIALIZATION_FAILURE: &str = "40001";
    const DEADLOCK: &str = "40P01";
    code(error).is_some_and(|code| code == SERIALIZATION_FAILURE || code == DEADLOCK)
}

/// The database's own code of an error.
fn code(error: &DbErr) -> Option<String> {
    let (DbErr::Conn(sea_orm::RuntimeErr::SqlxError(error))
    | DbErr::Exec(sea_orm::RuntimeErr::SqlxError(error))
    | DbErr::Query(sea_orm::RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}
