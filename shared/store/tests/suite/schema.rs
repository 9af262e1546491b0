//! Opening: an empty database, an old one, a newer one, a folder that cannot be used.

use pomona_domain::{Code, Fault};
use pomona_store::Store;

use crate::harness::{Home, execute, for_each_backend, number};

for_each_backend!(
    an_empty_database_gets_the_newest_schema_once,
    a_newer_schema_is_refused_and_left_as_it_is,
    a_file_in_the_place_of_the_blobs_is_named,
);

mod only_sqlite {
    crate::harness::tests_on!(Sqlite, what_has_no_schema_is_not_backed_up);
}

async fn an_empty_database_gets_the_newest_schema_once(home: Home) {
    let store = Store::open(home.config()).await.unwrap();
    assert_eq!(store.schema_version().await.unwrap(), 0);
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(
        store.schema_version().await.unwrap(),
        Store::schema_newest()
    );
    assert_eq!(store.last_batch().await.unwrap(), 0);
    store.ping().await.unwrap();
    let generation = store.lead().await.unwrap();
    store.close().await.unwrap();
    let store = home.open().await;
    assert_eq!(
        store.lead().await.unwrap(),
        generation + 1,
        "a migration starts nothing over"
    );
}

async fn a_newer_schema_is_refused_and_left_as_it_is(home: Home) {
    let open = home.open().await;
    let raw = home.raw().await;
    execute(
        &raw,
        "INSERT INTO seaql_migrations VALUES ('m9999_from_the_future', 1)",
    )
    .await;
    for refused in [
        Store::open(home.config()).await.map(|_| ()),
        open.migrate().await,
    ] {
        let fault = Fault::from(refused.unwrap_err());
        assert_eq!(fault.code, Code::NewerSchema);
        assert!(fault.message.contains("m9999_from_the_future"), "{fault:?}");
        assert!(fault.hint.is_some());
    }
    let count = "SELECT count(*) FROM seaql_migrations";
    assert_eq!(
        number(&raw, count).await,
        i64::from(Store::schema_newest()) + 1
    );
}

async fn what_has_no_schema_is_not_backed_up(home: Home) {
    let store = Store::open(home.config()).await.unwrap();
    let target = home.path().join("backup");
    let error = store.backup(&target).await.unwrap_err();
    assert_eq!(error.code(), Code::NotReady);
    assert!(!target.exists());
}

async fn a_file_in_the_place_of_the_blobs_is_named(home: Home) {
    std::fs::write(home.folder(), "not a folder").unwrap();
    let fault = Fault::from(Store::open(home.config()).await.unwrap_err());
    assert_eq!(fault.code, Code::BadDataDir);
    assert!(fault.message.contains("blobs"), "{fault:?}");
}
