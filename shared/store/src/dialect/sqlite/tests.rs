//! How the connections are set up: what is acknowledged must be on disk.

use super::{BUSY_TIMEOUT, connect, sqlite_url};
use crate::dialect::is_disk_full;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement, TransactionTrait as _};

async fn pragma(conn: &impl sea_orm::ConnectionTrait, name: &str) -> String {
    let sql = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
    let sql = sql.replace("CAST(busy_timeout", "CAST(timeout");
    let statement = Statement::from_string(conn.get_database_backend(), sql);
    let row = conn.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

async fn connections(folder: &tempfile::TempDir) -> (DatabaseConnection, DatabaseConnection) {
    let path = folder.path().join("pomona.db");
    connect(&sqlite_url(&path)).await.unwrap()
}

#[tokio::test]
async fn a_database_lies_where_its_path_says_whatever_its_letters() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = tempfile::tempdir().unwrap();
    for name in [
        "plain",
        "a b%20c?d#e",
        "blüte 花",
        "%",
        "?mode=memory",
        ":memory:",
    ] {
        let folder = home.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("pomona.db");
        let (writer, readers) = connect(&sqlite_url(&file)).await.unwrap();
        writer
            .execute_unprepared("CREATE TABLE t (a)")
            .await
            .unwrap();
        readers.execute_unprepared("SELECT a FROM t").await.unwrap();
        assert!(file.is_file(), "{name}");
    }
    let names = std::fs::read_dir(home.path()).unwrap().count();
    assert_eq!(names, 6, "nothing was made beside them");
    let relative = sqlite_url(std::path::Path::new("file:a/b.db"));
    assert_eq!(relative, "sqlite://./file%3Aa/b.db");
    // Text is all that SQLite takes: another file must not stand in for it.
    let odd = home.path().join(std::ffi::OsStr::from_bytes(b"\xff.db"));
    assert!(connect(&sqlite_url(&odd)).await.is_err());
}

#[tokio::test]
async fn every_connection_is_set_up() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, readers) = connections(&folder).await;
    let busy = BUSY_TIMEOUT.as_millis().to_string();
    // `synchronous` 2 is FULL: a commit is synced before it returns.
    let expect = [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("busy_timeout", busy.as_str()),
    ];
    // All connections of the pool: transactions that are open at once have one each.
    let mut open = vec![writer.begin().await.unwrap()];
    for _ in 0..super::READERS {
        open.push(readers.begin().await.unwrap());
    }
    for (number, conn) in open.iter().enumerate() {
        for (name, value) in expect {
            assert_eq!(
                pragma(conn, name).await,
                value,
                "{name} of connection {number}"
            );
        }
        let query_only = if number == 0 { "0" } else { "1" };
        assert_eq!(pragma(conn, "query_only").await, query_only);
    }
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, readers) = connections(&folder).await;
    writer
        .execute_unprepared("CREATE TABLE t (a)")
        .await
        .unwrap();
    let refused = readers.execute_unprepared("INSERT INTO t VALUES (1)").await;
    assert!(refused.unwrap_err().to_string().contains("readonly"));
    writer
        .execute_unprepared("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, _) = connections(&folder).await;
    let run = async |sql| writer.execute_unprepared(sql).await;
    run("CREATE TABLE t (a)").await.unwrap();
    run("PRAGMA max_page_count = 10").await.unwrap();
    let full = run("INSERT INTO t VALUES (zeroblob(1000000))").await;
    assert!(is_disk_full(&full.unwrap_err()));
    let other = run("INSERT INTO nowhere VALUES (1)").await;
    assert!(!is_disk_full(&other.unwrap_err()));
}
