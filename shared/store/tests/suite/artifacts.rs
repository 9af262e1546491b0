//! Files under paths: hashed as they come, or after their sender was answered.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use pomona_domain::{Code, Digest, Timestamp};
use pomona_store::{BLOB_KEEP_MS, BlobStat, Store, UNNAMED_STRAY_MS};

use crate::harness::{Backend, Home, blob_file, execute, in_folder, open, read, texts};
use crate::rows::at;

mod sqlite {
    crate::harness::tests_on!(
        Sqlite,
        a_file_is_the_same_whenever_it_is_hashed,
        what_was_there_before_is_gone,
        who_asks_at_once_waits_for_one,
        an_upload_that_breaks_off_leaves_nothing,
        a_file_is_named_again_after_a_kill,
        what_no_row_names_is_swept_and_nothing_else,
        bytes_that_are_not_those_that_came_are_no_blob,
        a_backup_has_files_without_a_name,
    );
}

mod postgres {
    crate::harness::tests_on!(
        Postgres,
        a_file_is_the_same_whenever_it_is_hashed,
        what_was_there_before_is_gone,
        who_asks_at_once_waits_for_one,
        an_upload_that_breaks_off_leaves_nothing,
        a_file_is_named_again_after_a_kill,
        what_no_row_names_is_swept_and_nothing_else,
        bytes_that_are_not_those_that_came_are_no_blob,
    );
}

/// What goes into a bucket has its name at once.
mod team {
    crate::harness::tests_on!(
        Team,
        a_file_is_the_same_whenever_it_is_hashed,
        what_was_there_before_is_gone,
        who_asks_at_once_waits_for_one,
        an_upload_that_breaks_off_leaves_nothing,
    );
}

/// What a sender of a large file announces.
const LARGE: Option<u64> = Some(16 << 20);
const PATH: &str = "0/run/artifacts/model.bin";

fn id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{:032x}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

async fn put(store: &Store, path: &str, announced: Option<u64>, bytes: &[u8]) {
    let writer = store.artifact_writer(announced, id(), 1 << 30, at(0)).await;
    let mut writer = writer.unwrap();
    for bytes in bytes.chunks(100_000) {
        writer.write(bytes).await.unwrap();
    }
    assert_eq!(writer.size(), bytes.len() as u64);
    writer.finish(path, at(0)).await.unwrap();
}

fn stat(bytes: &[u8]) -> BlobStat {
    BlobStat {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

/// The folder of files without a name, and what is in it.
fn unnamed(blobs: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(blobs.join("unnamed")) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn waiting(store: &Store) -> usize {
    store.artifacts_unnamed().await.unwrap().len()
}

/// Whether files can be without a name here: what goes into a bucket never is.
fn has_unnamed(home: &Home) -> bool {
    !matches!(home.backend, Backend::Team)
}

async fn a_file_is_the_same_whenever_it_is_hashed(home: Home) {
    let store = home.open().await;
    for (announced, name) in [(None, "a"), (Some(700_000), "b"), (LARGE, "c")] {
        let bytes = name.repeat(700_000).into_bytes();
        let path = format!("0/run/{name}");
        put(&store, &path, announced, &bytes).await;
        let is_later = announced == LARGE && has_unnamed(&home);
        assert_eq!(waiting(&store).await, usize::from(is_later), "{name}");
        assert!(store.artifact_exists(&path).await.unwrap());
        let got = store.artifact_get(&path, at(1)).await.unwrap();
        assert_eq!(got, Some(stat(&bytes)));
        assert_eq!(read(&store, stat(&bytes).digest).await.unwrap(), bytes);
        assert_eq!(waiting(&store).await, 0);
    }
    put(&store, "0/run/c", LARGE, b"other").await;
    put(&store, "0/run/d", LARGE, b"more").await;
    let sizes = store.artifact_list("0/run").await.unwrap();
    let sizes: Vec<_> = sizes.iter().map(|entry| entry.size.unwrap()).collect();
    assert_eq!(sizes, [700_000, 700_000, 5, 4]);
    let tree = store.artifact_tree("0/run", at(2)).await.unwrap();
    assert_eq!(
        tree[2..],
        [
            ("c".to_owned(), stat(b"other")),
            ("d".to_owned(), stat(b"more"))
        ]
    );
    assert!(unnamed(&home.folder()).is_empty());
    assert!(!store.artifact_is_coming());
    // Kept for good, by reference.
    for _ in 0..3 {
        store.blob_gc(at(10 * BLOB_KEEP_MS)).await.unwrap();
    }
    assert_eq!(read(&store, stat(b"more").digest).await.unwrap(), b"more");
    home.check().await;
}

async fn what_was_there_before_is_gone(home: Home) {
    let store = home.open().await;
    put(&store, PATH, LARGE, b"first").await;
    put(&store, PATH, LARGE, b"second").await;
    put(&store, PATH, None, b"third").await;
    assert_eq!(unnamed(&home.folder()).len(), 0);
    put(&store, PATH, LARGE, b"fourth").await;
    let references = "SELECT digest FROM blob_refs";
    if has_unnamed(&home) {
        assert_eq!(unnamed(&home.folder()).len(), 1);
        assert_eq!(texts(&home.raw().await, references).await, [""; 0]);
    }
    let got = store.artifact_get(PATH, at(1)).await.unwrap();
    assert_eq!(got, Some(stat(b"fourth")));
    let digest = stat(b"fourth").digest.to_string();
    assert_eq!(texts(&home.raw().await, references).await, [digest]);
    for number in 0..1200 {
        let announced = if number % 400 == 0 { LARGE } else { None };
        put(&store, &format!("0/many/{number}"), announced, b"small").await;
    }
    assert_eq!(store.artifact_delete("0/many").await.unwrap(), 1200);
    assert_eq!(store.artifact_delete(PATH).await.unwrap(), 1);
    assert_eq!(store.artifact_delete(PATH).await.unwrap(), 0);
    assert_eq!(store.artifact_get(PATH, at(1)).await.unwrap(), None);
    assert_eq!(unnamed(&home.folder()).len(), 0);
    assert_eq!(texts(&home.raw().await, references).await, [""; 0]);
    home.check().await;
}

/// As a naming that was killed when the blob had its file and no row: collection takes the file for
/// a left-over, and the row that comes brings it back.
async fn a_file_is_named_again_after_a_kill(home: Home) {
    let store = home.open().await;
    put(&store, PATH, LARGE, b"bytes").await;
    let blob = home.blob_file(stat(b"bytes").digest);
    fs::hard_link(&unnamed(&home.folder())[0], &blob).unwrap();
    store.close().await.unwrap();
    let store = home.open().await;
    assert_eq!(waiting(&store).await, 1, "it is not cleared away");
    for _ in 0..16 {
        store.blob_gc(at(1)).await.unwrap();
    }
    let ids = store.artifacts_unnamed().await.unwrap();
    store.artifact_name(&ids[0], at(2)).await.unwrap();
    store.artifact_name(&ids[0], at(2)).await.unwrap();
    assert!(home.incoming().is_empty());
    store.blob_gc(at(100 * BLOB_KEEP_MS)).await.unwrap();
    store.blob_gc(at(200 * BLOB_KEEP_MS)).await.unwrap();
    assert_eq!(read(&store, stat(b"bytes").digest).await.unwrap(), b"bytes");
    home.check().await;
}

async fn what_no_row_names_is_swept_and_nothing_else(home: Home) {
    let store = home.open().await;
    put(&store, PATH, LARGE, b"bytes").await;
    // As one that was killed before it wrote its row, or after it took the id out of it.
    fs::write(home.folder().join("unnamed/left"), "left").unwrap();
    let file = fs::metadata(home.folder().join("unnamed/left")).unwrap();
    let now = file.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp(now.as_millis().try_into().unwrap());
    store.blob_gc(now).await.unwrap();
    assert_eq!(unnamed(&home.folder()).len(), 2, "its row may be coming");
    let report = store.blob_gc(now.plus_ms(UNNAMED_STRAY_MS + 60_000)).await;
    assert_eq!(report.unwrap().swept, 1);
    assert_eq!(unnamed(&home.folder()).len(), 1);
    let got = store.artifact_get(PATH, now).await.unwrap();
    assert_eq!(got, Some(stat(b"bytes")));
}

async fn who_asks_at_once_waits_for_one(home: Home) {
    let (store, other) = (home.open().await, home.open().await);
    let bytes = b"many bytes ".repeat(500_000);
    put(&store, PATH, LARGE, &bytes).await;
    let ask = |number: usize| {
        let store = if number.is_multiple_of(2) {
            &store
        } else {
            &other
        };
        async move { store.artifact_get(PATH, at(1)).await.unwrap() }
    };
    let got = futures::future::join_all((0..8).map(ask)).await;
    assert_eq!(got, [Some(stat(&bytes)); 8]);
    assert_eq!(unnamed(&home.folder()).len(), 0);
    assert_eq!(read(&other, stat(&bytes).digest).await.unwrap(), bytes);
    home.check().await;
}

async fn bytes_that_are_not_those_that_came_are_no_blob(home: Home) {
    let store = home.open().await;
    put(&store, PATH, LARGE, b"bytes").await;
    let file = unnamed(&home.folder()).remove(0);
    fs::remove_file(&file).unwrap();
    let missing = store.artifact_get(PATH, at(1)).await.unwrap_err();
    fs::write(&file, "byte").unwrap();
    let short = store.artifact_get(PATH, at(1)).await.unwrap_err();
    for error in [missing, short] {
        assert_eq!(error.code(), Code::BadDataDir, "{error}");
        assert!(error.to_string().contains("unnamed"), "{error}");
    }
    assert_eq!(waiting(&store).await, 1);
    assert_eq!(store.blob_stat(stat(b"byte").digest).await.unwrap(), None);
    put(&store, PATH, LARGE, b"again").await;
    let got = store.artifact_get(PATH, at(1)).await.unwrap();
    assert_eq!(got, Some(stat(b"again")));
}

async fn an_upload_that_breaks_off_leaves_nothing(home: Home) {
    let store = home.open().await;
    for announced in [None, LARGE] {
        let writer = store.artifact_writer(announced, id(), 1 << 20, at(0)).await;
        let mut writer = writer.unwrap();
        assert_eq!(
            store.artifact_is_coming(),
            announced.is_some() && has_unnamed(&home)
        );
        writer.write(&vec![7; 1 << 20]).await.unwrap();
        let error = writer.write(&[7]).await.unwrap_err();
        assert_eq!(error.code(), Code::TooLarge);
        drop(writer);
    }
    assert!(!store.artifact_is_coming());
    assert!(!store.artifact_exists(PATH).await.unwrap());
    // A write that was under way ends first, and takes its file with it.
    let gone = async {
        while !home.incoming().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let deadline = std::time::Duration::from_secs(30);
    tokio::time::timeout(deadline, gone).await.unwrap();
    assert_eq!(unnamed(&home.folder()).len(), 0);
}

async fn a_backup_has_files_without_a_name(home: Home) {
    let store = home.open().await;
    put(&store, PATH, LARGE, b"bytes").await;
    put(&store, "0/other", None, b"others").await;
    let target = home.path().join("a backup");
    let report = store.backup(&target).await.unwrap();
    assert_eq!(report.blobs, 2);
    store.artifact_delete(PATH).await.unwrap();
    let folder = home.path().join("restored");
    crate::backup::restore(&target, &folder);
    let restored = open(in_folder(&folder)).await;
    let got = restored.artifact_get(PATH, at(1)).await.unwrap();
    assert_eq!(got, Some(stat(b"bytes")));
    assert!(blob_file(&folder.join("blobs"), stat(b"bytes").digest).is_file());
    put(&store, PATH, LARGE, b"lost").await;
    fs::remove_file(&unnamed(&home.folder())[0]).unwrap();
    let error = store.backup(&home.path().join("no backup")).await;
    assert_eq!(error.unwrap_err().code(), Code::BadDataDir);
    assert!(!home.path().join("no backup/blobs.json").exists());
    execute(&home.raw().await, "DELETE FROM artifacts").await;
}
