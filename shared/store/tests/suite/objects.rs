//! What only a bucket has: uploads in parts, objects without a row, a server that is away, a key
//! that is wrong, several coordinators.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pomona_domain::{Code, Digest, Fault, Timestamp};
use pomona_store::{
    BLOB_GRACE_MS, BLOB_KEEP_MS, BlobsAt, BucketConfig, GcReport, STRAY_MS, Store, StoreConfig,
    UPLOAD_KEEP_MS,
};
use pomona_testing::Bucket;

use crate::blobs::bytes;
use crate::harness::{Home, number, read, tests_on};
use crate::rows::at;

mod only_bucket {
    super::tests_on!(
        Team,
        a_large_blob_goes_up_in_parts,
        parts_that_are_not_what_was_announced_leave_nothing,
        an_upload_in_parts_that_breaks_off_is_given_up,
        what_a_killed_coordinator_left_goes_by_age_and_a_live_upload_does_not,
        an_upload_that_was_complete_and_has_no_row_goes_by_age,
        an_old_object_without_a_row_is_swept,
        a_newer_upload_of_the_same_bytes_takes_the_row_over,
        a_server_that_is_away_is_said_and_loses_nothing,
        a_server_that_is_killed_during_an_upload_is_waited_for,
        a_wrong_secret_is_refused_and_not_said,
        two_databases_do_not_share_a_prefix,
        coordinators_share_a_bucket,
        a_bucket_has_no_backup,
        an_address_with_tls_is_not_talked_to_without,
    );
}

/// Something that hangs fails in a minute instead of for ever.
const HANGS: Duration = Duration::from_mins(1);
/// Bytes of a part.
const PART: usize = 8 << 20;

/// Waits until something has come about behind our back.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let turns = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANGS, turns).await.unwrap();
}

async fn rows(home: &Home) -> i64 {
    number(&home.raw().await, "SELECT count(*) FROM blob_uploads").await
}

/// Every object of the home, however deep.
fn objects(home: &Home) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&home.objects().join("sha256"), &mut found);
    found
}

/// Makes an object as old as `now` less `ms`.
fn age(path: &Path, now: Timestamp, ms: i64) {
    let since = Duration::from_millis(u64::try_from(now.plus_ms(-ms).0).unwrap());
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + since).unwrap();
}

/// A collection of every folder.
async fn collect(store: &Store, now: Timestamp) -> GcReport {
    let mut sum = GcReport::default();
    for _ in 0..16 {
        let report = store.blob_gc(now).await.unwrap();
        sum.swept += report.swept;
        sum.given_up += report.given_up;
        sum.marked += report.marked;
        sum.removed += report.removed;
    }
    sum
}

async fn a_large_blob_goes_up_in_parts(home: Home) {
    let store = home.open().await;
    for size in [PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 77] {
        let sent = bytes(size);
        let digest = Digest::of(&sent);
        let mut writer = store.blob_writer(digest, u64::MAX, at(0)).await.unwrap();
        for piece in sent.chunks(1_000_003) {
            writer.write(piece).await.unwrap();
        }
        let is_in_parts = size > PART;
        assert_eq!(home.uploads(), usize::from(is_in_parts), "{size}");
        assert_eq!(rows(&home).await, i64::from(is_in_parts));
        assert!(!home.blob_file(digest).exists(), "half a blob is not seen");
        assert_eq!(writer.finish(at(0)).await.unwrap().size, size as u64);
        assert!(read(&store, digest).await.unwrap() == sent, "{size}");
        assert!(fs::read(home.blob_file(digest)).unwrap() == sent);
        assert_eq!((home.uploads(), home.parts()), (0, 0));
        assert_eq!(rows(&home).await, 0);
    }
    let all = bytes(2 * PART + 77);
    let range = PART as u64 - 5..PART as u64 + 5;
    let reader = store.blob_get(Digest::of(&all)).await.unwrap();
    let mut reader = reader.between(range);
    let mut got = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap() {
        got.extend(chunk);
    }
    assert_eq!(got, all[PART - 5..PART + 5]);
}

async fn parts_that_are_not_what_was_announced_leave_nothing(home: Home) {
    let store = home.open().await;
    let announced = Digest::of(b"what was announced");
    let writer = store.blob_writer(announced, u64::MAX, at(0)).await;
    let mut writer = writer.unwrap();
    writer.write(&bytes(2 * PART + 1)).await.unwrap();
    let error = writer.finish(at(0)).await.unwrap_err();
    assert_eq!(error.code(), Code::DigestMismatch);
    assert_eq!((home.uploads(), home.parts()), (0, 0));
    assert!(objects(&home).is_empty());
    assert_eq!(rows(&home).await, 0);
    assert_eq!(store.blob_stat(announced).await.unwrap(), None);
}

async fn an_upload_in_parts_that_breaks_off_is_given_up(home: Home) {
    let store = home.open().await;
    let sent = bytes(2 * PART + 1);
    let writer = store.blob_writer(Digest::of(&sent), u64::MAX, at(0)).await;
    let mut writer = writer.unwrap();
    writer.write(&sent).await.unwrap();
    assert_eq!(home.uploads(), 1);
    drop(writer);
    until(async || home.uploads() == 0 && rows(&home).await == 0).await;
    assert_eq!(home.parts(), 0);
    assert!(objects(&home).is_empty());
}

async fn what_a_killed_coordinator_left_goes_by_age_and_a_live_upload_does_not(home: Home) {
    let (store, sent) = (home.open().await, bytes(2 * PART + 1));
    let digest = Digest::of(&sent);
    let killed = store.blob_writer(digest, u64::MAX, at(0)).await;
    let mut killed = killed.unwrap();
    killed.write(&sent).await.unwrap();
    // Nothing of it is cleaned up.
    std::mem::forget(killed);
    let other = home.open().await;
    let begun = at(0).plus_ms(1000);
    let mut live = other.blob_writer(digest, u64::MAX, begun).await.unwrap();
    live.write(&sent[..=PART]).await.unwrap();
    let late = at(0).plus_ms(UPLOAD_KEEP_MS);
    assert_eq!(collect(&store, late).await.given_up, 0);
    assert_eq!(home.uploads(), 2);
    assert_eq!(collect(&store, late.plus_ms(1)).await.given_up, 1);
    assert_eq!((home.uploads(), rows(&home).await), (1, 1));
    live.write(&sent[PART + 1..]).await.unwrap();
    live.finish(late).await.unwrap();
    assert!(read(&store, digest).await.unwrap() == sent);
    assert_eq!(home.parts(), 0, "of neither");
}

async fn an_upload_that_was_complete_and_has_no_row_goes_by_age(home: Home) {
    let (store, sent) = (home.open().await, bytes(PART + 1));
    let digest = Digest::of(&sent);
    let mut writer = store.blob_writer(digest, u64::MAX, at(0)).await.unwrap();
    writer.write(&sent).await.unwrap();
    // As one that is killed between the end on the server and the row.
    let table = "ALTER TABLE blobs RENAME TO away";
    crate::harness::execute(&home.raw().await, table).await;
    writer.finish(at(0)).await.unwrap_err();
    let table = "ALTER TABLE away RENAME TO blobs";
    crate::harness::execute(&home.raw().await, table).await;
    assert_eq!(store.blob_stat(digest).await.unwrap(), None);
    assert_eq!((objects(&home).len(), rows(&home).await), (1, 1));
    let late = at(0).plus_ms(UPLOAD_KEEP_MS + STRAY_MS);
    age(&objects(&home)[0], late, STRAY_MS + 1);
    let report = collect(&store, late).await;
    assert_eq!((report.given_up, report.swept), (1, 1));
    assert_eq!((objects(&home).len(), rows(&home).await), (0, 0));
}

async fn an_old_object_without_a_row_is_swept(home: Home) {
    let store = home.open().await;
    let now = at(0).plus_ms(STRAY_MS);
    let kept = store.blob_put(b"kept", now).await.unwrap().digest;
    let known = home.blob_file(kept);
    let stray = |name: &str| known.with_file_name(format!("{}.dead-{name}", kept.hex()));
    for name in ["1", "2"] {
        fs::write(stray(name), "kept").unwrap();
    }
    age(&known, now, 2 * STRAY_MS);
    age(&stray("1"), now, STRAY_MS + 1000);
    age(&stray("2"), now, STRAY_MS - 1000);
    assert_eq!(collect(&store, now).await.swept, 1);
    assert!(!stray("1").exists());
    assert!(stray("2").exists(), "an upload may be about to write a row");
    assert_eq!(read(&store, kept).await.unwrap(), b"kept");
}

async fn a_newer_upload_of_the_same_bytes_takes_the_row_over(home: Home) {
    let store = home.open().await;
    let digest = store.blob_put(b"abc", at(0)).await.unwrap().digest;
    let first = home.blob_file(digest);
    let mut reader = store.blob_get(digest).await.unwrap();
    store.blob_put(b"abc", at(0)).await.unwrap();
    let second = home.blob_file(digest);
    assert_ne!(first, second);
    assert_eq!(reader.next().await.unwrap().unwrap(), &b"abc"[..]);
    let now = at(0).plus_ms(10);
    age(&first, now, STRAY_MS + 1000);
    age(&second, now, STRAY_MS + 1000);
    assert_eq!(collect(&store, now).await.swept, 1);
    assert!(!first.exists());
    assert_eq!(read(&store, digest).await.unwrap(), b"abc");
    // A removal that was decided for the first object, and comes late, does no harm.
    let late = now.plus_ms(BLOB_KEEP_MS + 1);
    assert_eq!(collect(&store, late).await.marked, 1);
    store.blob_put(b"abc", late).await.unwrap();
    let report = collect(&store, late.plus_ms(BLOB_GRACE_MS)).await;
    assert_eq!(report.removed, 0);
    assert_eq!(read(&store, digest).await.unwrap(), b"abc");
}

async fn a_server_that_is_away_is_said_and_loses_nothing(home: Home) {
    let store = home.open().await;
    let digest = store.blob_put(b"abc", at(0)).await.unwrap().digest;
    store.blobs_claim().await.unwrap();
    store.blobs_ping().await.unwrap();
    home.bucket().stop();
    let reading = async { read(&store, digest).await.map(|_| ()) };
    let put = async { store.blob_put(b"def", at(0)).await.map(|_| ()) };
    let stat = async { store.blob_stat(digest).await.map(|_| ()) };
    let gc = async { store.blob_gc(at(2_000_000)).await.map(|_| ()) };
    let ping = store.blobs_ping();
    let (reading, put, stat, gc, ping) = tokio::join!(reading, put, stat, gc, ping);
    for answer in [reading, put, stat, gc, ping] {
        let fault = Fault::from(answer.unwrap_err());
        assert_eq!(fault.code, Code::ObjectsDown, "{fault}");
        assert_eq!(fault.code.http_status(), 503);
        assert!(fault.hint.is_some());
    }
    home.bucket().restart();
    assert_eq!(read(&store, digest).await.unwrap(), b"abc");
    store.blob_put(b"def", at(0)).await.unwrap();
    store.blobs_ping().await.unwrap();
    assert_eq!(collect(&store, at(2_000_000)).await.marked, 2);
}

async fn a_server_that_is_killed_during_an_upload_is_waited_for(home: Home) {
    let (store, sent) = (home.open().await, bytes(3 * PART + 5));
    let digest = Digest::of(&sent);
    let mut writer = store.blob_writer(digest, u64::MAX, at(0)).await.unwrap();
    writer.write(&sent[..=PART]).await.unwrap();
    home.bucket().restart();
    writer.write(&sent[PART + 1..=2 * PART]).await.unwrap();
    home.bucket().restart();
    writer.write(&sent[2 * PART + 1..]).await.unwrap();
    writer.finish(at(0)).await.unwrap();
    assert!(read(&store, digest).await.unwrap() == sent);
}

/// A store on the home's database and another way into its bucket.
async fn with(home: &Home, change: impl FnOnce(&mut BucketConfig)) -> Store {
    let mut bucket = home.bucket_config();
    change(&mut bucket);
    let config = StoreConfig {
        blobs: BlobsAt::Bucket(Box::new(bucket)),
        ..home.config()
    };
    crate::harness::open(config).await
}

async fn a_wrong_secret_is_refused_and_not_said(home: Home) {
    const WRONG: &str = "quite-another-secret";
    let wrong = |config: &mut BucketConfig| {
        config.keys = Some((Bucket::KEY.to_owned(), WRONG.to_owned()));
    };
    let store = with(&home, wrong).await;
    let mut shown = vec![format!("{store:?}")];
    let put = store.blob_put(b"abc", at(0)).await.map(|_| ());
    for answer in [put, store.blobs_claim().await, store.blobs_ping().await] {
        let fault = Fault::from(answer.unwrap_err());
        assert_eq!(fault.code, Code::ObjectsRefused, "{fault}");
        shown.push(format!("{fault} {fault:?}"));
    }
    let mut config = home.bucket_config();
    wrong(&mut config);
    shown.push(format!("{config:?}"));
    let shown = shown.concat();
    assert!(shown.contains("SignatureDoesNotMatch"), "{shown}");
    assert!(!shown.contains(WRONG), "{shown}");
}

async fn two_databases_do_not_share_a_prefix(home: Home) {
    let store = home.open().await;
    let digest = store.blob_put(b"abc", at(0)).await.unwrap().digest;
    store.blobs_claim().await.unwrap();
    let beside = home.beside().await;
    let prefix = home.bucket_config().prefix;
    let other = with(&beside, |config| config.prefix = prefix).await;
    age(&home.blob_file(digest), at(0), 2 * STRAY_MS);
    for refused in [
        other.blobs_claim().await,
        other.blob_gc(at(0)).await.map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::BucketTaken);
    }
    assert_eq!(read(&store, digest).await.unwrap(), b"abc");
    beside.open().await.blobs_claim().await.unwrap();
    // Another process of the same store is no stranger.
    home.open().await.blobs_claim().await.unwrap();
}

async fn coordinators_share_a_bucket(home: Home) {
    let (one, two) = (home.open().await, home.open().await);
    let stat = one.blob_put(b"abc", at(0)).await.unwrap();
    assert_eq!(two.blob_stat(stat.digest).await.unwrap(), Some(stat));
    assert_eq!(read(&two, stat.digest).await.unwrap(), b"abc");
    let marked = at(0).plus_ms(BLOB_KEEP_MS + 1);
    let (first, second) = tokio::join!(one.blob_gc(marked), two.blob_gc(marked));
    assert_eq!(first.unwrap().marked + second.unwrap().marked, 1);
    let late = marked.plus_ms(BLOB_GRACE_MS);
    let (first, second) = tokio::join!(one.blob_gc(late), two.blob_gc(late));
    assert_eq!(first.unwrap().removed + second.unwrap().removed, 1);
    assert!(objects(&home).is_empty());
}

async fn a_bucket_has_no_backup(home: Home) {
    // On a database in a file: that one alone could be copied.
    let config = StoreConfig {
        url: crate::harness::in_folder(home.path()).url,
        ..home.config()
    };
    let store = crate::harness::open(config).await;
    let target = home.path().join("backup");
    let fault = Fault::from(store.backup(&target).await.unwrap_err());
    assert_eq!(fault.code, Code::BadRequest);
    assert!(fault.hint.unwrap().contains("bucket"));
    assert!(!target.exists());
}

async fn an_address_with_tls_is_not_talked_to_without(home: Home) {
    // The server speaks no TLS, so nobody may take it for the one that was meant.
    let endpoint = home.bucket().endpoint().replace("http://", "https://");
    let tls = |config: &mut BucketConfig| {
        config.endpoint = Some(endpoint);
        config.allow_http = false;
    };
    let store = with(&home, tls).await;
    let fault = Fault::from(store.blobs_ping().await.unwrap_err());
    assert_eq!(fault.code, Code::ObjectsDown, "{fault}");
}
