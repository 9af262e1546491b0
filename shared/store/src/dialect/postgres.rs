//! PostgreSQL, 15 and later: a server, which others use, too, and which comes and goes.
//!
//! Transactions run as `READ COMMITTED`: rows are changed by compare-and-swap, the engine's
//! transactions come one after the other behind the leader's row, and what both the engine and
//! others change (blobs) is guarded by the state in the row. A session sets its own limits, so that
//! nothing waits for ever, whatever the server's are.

use std::time::Duration;

use sea_orm::sqlx::Connection as _;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction, DbErr,
    TransactionTrait as _,
};

use super::{READERS, STATEMENTS};
use crate::StoreError;

/// One for the engine, one for everybody else who writes, one to hold the schema.
const WRITERS: u32 = 3;
/// How long a caller waits for a connection, and for a server that is gone.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that nobody used for so long is tried first, at the price of a round trip, so that a
/// server that went away and came back is not seen by callers: none is back sooner.
const AWHILE: Duration = Duration::from_millis(100);
/// Limits of a session.
const LIMITS: [(&str, &str); 3] = [
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "30s"),
];
/// How a session plans. Statements are small and databases are on disks that seek as fast as they
/// read; compiling a plan takes longer than any of ours.
const PLANS: [(&str, &str); 2] = [("random_page_cost", "1.1"), ("jit", "off")];
/// How readers plan: for the values that are asked for, each time. Of a plan for any values a session
/// makes up its mind once, and one of several may take ten times as long as the others for good.
const READS: [(&str, &str); 2] = [
    ("default_transaction_read_only", "on"),
    ("plan_cache_mode", "force_custom_plan"),
];
/// How long a coordinator waits while another one changes the schema.
const SCHEMA_WAIT: &str = "10min";
/// The number of the lock that whoever changes the schema holds.
const SCHEMA_LOCK: i64 = 0x706f_6d6f_6e61;

/// Connections for writers, and some that cannot write. What is wrong with the address or the server
/// is said at once: a pool would try again and again, and say nothing.
pub(super) async fn connect(
    url: &str,
) -> Result<(DatabaseConnection, DatabaseConnection), StoreError> {
    first(url).await.map_err(StoreError::Unreachable)?;
    let writers = Database::connect(options(url, WRITERS, &[])).await?;
    let readers = Database::connect(options(url, READERS, &READS)).await?;
    Ok((writers, readers))
}

async fn first(url: &str) -> Result<(), DbErr> {
    let failed =
        |error: sea_orm::sqlx::Error| DbErr::Conn(sea_orm::RuntimeErr::SqlxError(error.into()));
    match tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect(url)).await {
        Ok(connected) => connected.map_err(failed)?.close().await.map_err(failed),
        Err(_) => Err(failed(sea_orm::sqlx::Error::PoolTimedOut)),
    }
}

fn options(url: &str, connections: u32, more: &'static [(&str, &str)]) -> ConnectOptions {
    let mut options = ConnectOptions::new(url.to_owned());
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // See `AWHILE`.
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_postgres_opts(move |postgres| {
            postgres
                .application_name("pomona")
                .statement_cache_capacity(STATEMENTS)
                .options(LIMITS)
                .options(PLANS)
                .options(more.iter().copied())
        })
        .map_sqlx_postgres_pool_opts(|pool| {
            let pool = pool.before_acquire(|connection, meta| {
                Box::pin(async move {
                    // What does not answer is replaced by a new one.
                    Ok(meta.idle_for < AWHILE || connection.ping().await.is_ok())
                })
            });
            pool.after_connect(|connection, _| {
                Box::pin(async move {
                    // What is acknowledged is on disk, even where the server is told otherwise.
                    let durable = "SELECT set_config('synchronous_commit', 'on', false) \
                                   WHERE current_setting('synchronous_commit') = 'off'";
                    sea_orm::sqlx::query(durable).execute(connection).await?;
                    Ok(())
                })
            })
        });
    options
}

/// A transaction that holds the lock of whoever changes the schema.
pub(super) async fn hold_schema(writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let tx = writer.begin().await?;
    for limit in ["statement_timeout", "lock_timeout"] {
        let wait = format!("SET LOCAL {limit} = '{SCHEMA_WAIT}'");
        tx.execute_unprepared(&wait).await?;
    }
    tx.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0")
        .await?;
    tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
        .await?;
    Ok(tx)
}
