//! What only a server can do: go away and come back, give a transaction up for another one, be set
//! up otherwise than we need it.

use std::time::Duration;

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::{Change, Code, Fault};
use pomona_store::{NewLogRow, Store, StoreConfig};
use sea_orm::{ConnectionTrait as _, Database};

use crate::harness::{Home, Leader, execute, in_folder, texts, writing};
use crate::rows::{
    at, backbone, checkpoint, experiment, of_experiment, of_trial, of_worker, trial, worker,
};

mod postgres {
    crate::harness::tests_on!(
        Postgres,
        a_server_that_restarts_is_found_again,
        a_session_that_dies_in_a_commit_leaves_no_doubt,
        a_deadlock_is_not_seen_by_the_caller,
        a_statement_that_hangs_is_ended,
        coordinators_that_start_at_once_make_one_schema,
        what_is_acknowledged_is_on_disk_whatever_the_server_says,
        a_reader_cannot_write,
        names_are_sorted_by_their_bytes,
        what_postgres_cannot_write_is_replaced,
        a_backup_is_not_ours_to_make,
        a_database_that_is_not_there_is_said,
    );
}

/// Something that hangs fails in a minute instead of for ever.
const HANGS: Duration = Duration::from_mins(1);

/// Commits until it works, as the engine does: what is unknown is asked for.
async fn commit_at_last(leader: &mut Leader, number: u64) {
    let again = async {
        loop {
            let refused = match leader.try_commit(&[of_worker(&worker(number))]).await {
                Ok(()) => return,
                Err(error) => error.code(),
            };
            assert!(
                [Code::StoreDown, Code::Conflict].contains(&refused),
                "{refused}"
            );
            if let Ok(last) = leader.store.last_batch().await
                && last > leader.last
            {
                leader.last = last;
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANGS, again).await.unwrap();
}

async fn a_server_that_restarts_is_found_again(home: Home) {
    let mut leader = home.lead().await;
    leader.commit(&[of_worker(&worker(1))]).await;
    for number in 2..5 {
        home.server().stop();
        let refused = leader.refused(&[of_worker(&worker(number))]).await;
        assert_eq!(refused, Code::StoreDown);
        assert_eq!(
            leader.store.ping().await.unwrap_err().code(),
            Code::StoreDown
        );
        home.server().restart();
        commit_at_last(&mut leader, number).await;
        assert_eq!(
            leader.store.load().await.unwrap().workers.len() as u64,
            number
        );
    }
    home.check().await;
}

async fn a_session_that_dies_in_a_commit_leaves_no_doubt(home: Home) {
    const KILL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                        WHERE application_name = 'pomona'";
    let mut leader = home.lead().await;
    let raw = home.raw().await;
    let killer = tokio::spawn(async move {
        let mut killed = 0;
        for _ in 0..40 {
            killed += crate::harness::number(&raw, KILL).await;
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        killed
    });
    let mut number = 0;
    while !killer.is_finished() {
        number += 1;
        commit_at_last(&mut leader, number).await;
    }
    assert!(killer.await.unwrap() > 0);
    let workers = leader.store.load().await.unwrap().workers;
    assert_eq!(workers.len() as u64, number, "each once, none lost");
}

async fn a_deadlock_is_not_seen_by_the_caller(home: Home) {
    let mut leader = home.lead().await;
    let row = trial(experiment(1).id, 1);
    leader
        .commit(&[of_experiment(&experiment(1)), of_trial(&row)])
        .await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let raw = home.raw().await;
    let other = writing(&raw, "UPDATE blobs SET size = size").await;
    let mut copy = leader.clone();
    let newest = checkpoint(row.id, CheckpointKind::Last, blob);
    let commit = tokio::spawn(async move { copy.try_commit(&[Change::Checkpoint(newest)]).await });
    // It holds the leader's row, and waits for the blob.
    let waits = "SELECT pid::text FROM pg_stat_activity \
                 WHERE application_name = 'pomona' AND wait_event_type = 'Lock'";
    let waiting = async {
        while texts(&raw, waits).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(HANGS, waiting).await.unwrap();
    // A circle: the server ends one of the two, the one that has waited longer.
    other
        .execute_unprepared("UPDATE leader SET seq = seq")
        .await
        .unwrap();
    other.commit().await.unwrap();
    let done = tokio::time::timeout(HANGS, commit).await.unwrap();
    done.unwrap().unwrap();
    let deadlocks = "SELECT deadlocks::text FROM pg_stat_database WHERE datname = 'postgres'";
    let seen = async {
        while texts(&raw, deadlocks).await != ["1"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANGS, seen).await.unwrap();
}

async fn a_statement_that_hangs_is_ended(home: Home) {
    let mut leader = home.lead().await;
    let other = writing(&home.raw().await, "UPDATE leader SET seq = seq").await;
    let refused = tokio::time::timeout(HANGS, leader.refused(&[of_worker(&worker(1))])).await;
    assert_eq!(refused.unwrap(), Code::StoreDown);
    other.rollback().await.unwrap();
    leader.commit(&[of_worker(&worker(1))]).await;
}

async fn coordinators_that_start_at_once_make_one_schema(home: Home) {
    let config = home.config();
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move {
                let store = Store::open(config).await.unwrap();
                store.migrate().await.unwrap();
                store.lead().await.unwrap()
            })
        })
        .collect();
    let mut generations = Vec::new();
    for start in starts {
        generations.push(start.await.unwrap());
    }
    generations.sort_unstable();
    assert_eq!(generations, [1, 2, 3, 4]);
}

async fn what_is_acknowledged_is_on_disk_whatever_the_server_says(home: Home) {
    let raw = home.raw().await;
    for setting in ["synchronous_commit = off", "statement_timeout = 0"] {
        execute(&raw, &format!("ALTER DATABASE postgres SET {setting}")).await;
    }
    let store = home.open().await;
    // A session of ours shows what it has by what it does: it is asked through a function.
    let plain = home.raw().await;
    assert_eq!(texts(&plain, "SHOW synchronous_commit").await, ["off"]);
    execute(&plain, "CREATE TABLE seen (value text)").await;
    execute(
        &plain,
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           INSERT INTO seen SELECT current_setting(name) FROM unnest(ARRAY[\
             'synchronous_commit', 'statement_timeout', 'lock_timeout', \
             'idle_in_transaction_session_timeout']) name; RETURN NEW; END $$",
    )
    .await;
    execute(
        &plain,
        "CREATE TRIGGER note BEFORE UPDATE ON leader FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    store.lead().await.unwrap();
    let seen = texts(&plain, "SELECT value FROM seen").await;
    assert_eq!(seen, ["on", "30s", "10s", "30s"]);
}

async fn a_reader_cannot_write(home: Home) {
    let store = home.open().await;
    let raw = home.raw().await;
    // Reading becomes writing behind the store's back.
    execute(&raw, "ALTER TABLE leader RENAME TO leader_rows").await;
    execute(
        &raw,
        "CREATE FUNCTION sly() RETURNS SETOF leader_rows LANGUAGE sql AS \
         'UPDATE leader_rows SET seq = seq + 1 RETURNING *'",
    )
    .await;
    execute(&raw, "CREATE VIEW leader AS SELECT * FROM sly()").await;
    let refused = Fault::from(store.ping().await.unwrap_err());
    assert!(refused.message.contains("read-only"), "{refused:?}");
}

async fn names_are_sorted_by_their_bytes(home: Home) {
    let mut leader = home.lead().await;
    let names = ["B", "a", "a-b", "a.c", "ab", "b"];
    let blob = leader.put(b"weights", at(0)).await.digest;
    let rows: Vec<_> = (names.iter().rev())
        .map(|name| Change::Backbone(Box::new(backbone(name, blob, blob))))
        .collect();
    leader.commit(&rows).await;
    let loaded = leader.store.load().await.unwrap().backbones;
    let found: Vec<&str> = loaded.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(found, names);
    let collations = "SELECT DISTINCT collation_name::text FROM information_schema.columns \
                      WHERE table_schema = 'public' AND data_type = 'character varying' \
                      AND table_name <> 'seaql_migrations'";
    assert_eq!(texts(&home.raw().await, collations).await, ["C"]);
}

async fn what_postgres_cannot_write_is_replaced(home: Home) {
    let store = home.open().await;
    let line = NewLogRow {
        owner: "tri_1".to_owned(),
        rank: 0,
        at: at(0),
        line: "a\0b".to_owned(),
    };
    store.log_append(&[line]).await.unwrap();
    let lines = store.log_list("tri_1", 0, 10).await.unwrap();
    assert_eq!(lines[0].line, "a\u{fffd}b");
}

async fn a_backup_is_not_ours_to_make(home: Home) {
    let store = home.open().await;
    let target = home.path().join("backup");
    let fault = Fault::from(store.backup(&target).await.unwrap_err());
    assert_eq!(fault.code, Code::BadRequest);
    assert!(fault.hint.unwrap().contains("pg_dump"));
    assert!(!target.exists());
}

async fn a_database_that_is_not_there_is_said(home: Home) {
    let at = |url: String| StoreConfig {
        url,
        ..in_folder(home.path())
    };
    let fault = Fault::from(Store::open(at("mysql://x/y".to_owned())).await.unwrap_err());
    assert_eq!(fault.code, Code::BadConfig);
    assert!(fault.message.contains("`mysql`"), "{}", fault.message);
    let url = home.config().url.replace("/postgres?", "/nowhere?");
    let fault = Fault::from(Store::open(at(url)).await.unwrap_err());
    assert_eq!(fault.code, Code::StoreDown);
    assert!(fault.message.contains("nowhere"), "{}", fault.message);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://x@{}/x", port.local_addr().unwrap());
    drop(port);
    let fault = Fault::from(Store::open(at(url)).await.unwrap_err());
    assert_eq!(fault.code, Code::StoreDown);
    assert!(fault.message.contains("refused"), "{}", fault.message);
    assert!(fault.hint.unwrap().contains("store.url"));
    assert!(Database::connect(home.config().url).await.is_ok());
}
