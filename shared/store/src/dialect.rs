//! What differs between databases: how to connect, and the few statements without a common form.
//!
//! Everything else is built by sea-query and means the same on SQLite and PostgreSQL.

mod postgres;
mod sqlite;

use sea_orm::sea_query::{DynIden, Expr, SimpleExpr, Value};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement,
    TransactionTrait as _,
};
use sea_orm_migration::SchemaManager;

use crate::{StoreError, unbroken};
pub use sqlite::{Needed, copy_database, needed_files, sqlite_url};

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

/// Has PostgreSQL count what is in tables now, so that it plans for what is there. SQLite's plans
/// follow the statements alone.
pub async fn analyze(writer: &DatabaseConnection, tables: &[&str]) -> Result<(), DbErr> {
    if writer.get_database_backend() == DbBackend::Postgres {
        let analyze = format!("ANALYZE {}", tables.join(", "));
        writer.execute_unprepared(&analyze).await?;
    }
    Ok(())
}

/// A statement that replaces several rows at once. Each row gives a value for every column, the key
/// first and the version second, and last the version that must be there.
///
/// In plain text because the builder has no `UPDATE … FROM (VALUES …)`; both databases do, and name
/// the columns of `VALUES` alike.
pub fn update_rows(
    backend: DbBackend,
    table: &DynIden,
    columns: &[DynIden],
    rows: impl Iterator<Item = Vec<Value>>,
) -> Statement {
    let mark = if backend == DbBackend::Postgres {
        '$'
    } else {
        '?'
    };
    let mut values = Vec::new();
    let mut lines = Vec::new();
    for row in rows {
        let first = values.len() + 1;
        let marks = (first..first + row.len()).map(|number| format!("{mark}{number}"));
        lines.push(format!("({})", marks.collect::<Vec<_>>().join(", ")));
        values.extend(row);
    }
    let set: Vec<String> = (columns.iter().enumerate().skip(1))
        .map(|(at, column)| format!("\"{column}\" = v.column{}", at + 1))
        .collect();
    let (key, version) = (&columns[0], &columns[1]);
    let base = columns.len() + 1;
    let sql = format!(
        "UPDATE \"{table}\" SET {} FROM (VALUES {}) AS v WHERE \"{table}\".\"{key}\" = v.column1 \
         AND \"{table}\".\"{version}\" = v.column{base}",
        set.join(", "),
        lines.join(", "),
    );
    Statement::from_sql_and_values(backend, sql, values)
}

/// A statement that locks runs that are active, and answers which they are.
pub fn touch_runs(backend: DbBackend, runs: &[&str]) -> Statement {
    let mark = if backend == DbBackend::Postgres {
        '$'
    } else {
        '?'
    };
    let marks: Vec<String> = (1..=runs.len()).map(|at| format!("{mark}{at}")).collect();
    let sql = format!(
        "UPDATE runs SET writes = writes + 1 WHERE id IN ({}) AND deleted_at IS NULL RETURNING id",
        marks.join(", ")
    );
    Statement::from_sql_and_values(backend, sql, runs.iter().map(|run| Value::from(*run)))
}

/// A statement that keeps ready what is shown of runs: each with the number of writes that it shows.
pub fn show_runs(backend: DbBackend, rows: Vec<(&str, i64, String)>) -> Statement {
    let mark = if backend == DbBackend::Postgres {
        '$'
    } else {
        '?'
    };
    let mut values: Vec<Value> = Vec::with_capacity(rows.len() * 3);
    let mut lines = Vec::with_capacity(rows.len());
    for (run, writes, shown) in rows {
        let at = values.len();
        let (a, b, c) = (at + 1, at + 2, at + 3);
        lines.push(format!("({mark}{a}, {mark}{b}, {mark}{c})"));
        values.extend([run.into(), writes.into(), shown.into()]);
    }
    let sql = format!(
        "UPDATE runs SET shown_writes = v.column2, shown = v.column3 FROM (VALUES {}) AS v \
         WHERE runs.id = v.column1",
        lines.join(", ")
    );
    Statement::from_sql_and_values(backend, sql, values)
}

/// Whether a text is like a pattern of `%` and `_`, which nothing escapes.
pub fn like(backend: DbBackend, column: SimpleExpr, pattern: &str, cased: bool) -> SimpleExpr {
    let (sql, pattern) = match (backend == DbBackend::Postgres, cased) {
        (true, true) => ("$1 LIKE $2 ESCAPE ''", pattern.to_owned()),
        (true, false) => ("$1 ILIKE $2 ESCAPE ''", pattern.to_owned()),
        (false, true) => ("? GLOB ?", pomona_tracking::filter::glob(pattern)),
        (false, false) => ("? LIKE ?", pattern.to_owned()),
    };
    Expr::cust_with_exprs(sql, [column, Expr::val(pattern)])
}

/// The database's own clock, in whole milliseconds since 1970.
pub fn clock_ms(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres {
        // Not the transaction's beginning: it may have waited for the row since.
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    } else {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    }
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
