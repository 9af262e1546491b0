//! Uploads that somebody goes on with: from where they stand, by another process, one at a time.

use std::fs;

use pomona_domain::{Code, Digest};
use pomona_store::{Store, StoreError, UPLOAD_KEEP_MS, UploadWriter};

use crate::blobs::bytes;
use crate::harness::{Backend, Home, for_each_place, number, read, tests_on};
use crate::rows::at;

for_each_place!(
    an_upload_goes_on_where_it_stands,
    another_process_goes_on,
    a_request_that_begins_elsewhere_is_refused,
    of_two_requests_one_counts,
    bytes_of_another_digest_end_the_upload,
    an_upload_has_a_limit,
    an_upload_that_was_forgotten_leaves_nothing,
    an_upload_of_a_silent_sender_is_given_up,
);

mod only_bucket {
    super::tests_on!(
        Team,
        a_writer_that_is_dropped_leaves_whole_parts,
        an_end_that_was_cut_off_is_done_again,
    );
}

/// Bytes of a part in a bucket.
const PART: usize = 8 << 20;
const ID: &str = "00112233445566778899aabbccddeeff";

async fn open(store: &Store, offset: usize) -> Result<UploadWriter, StoreError> {
    store.upload_open(ID, offset as u64, u64::MAX, at(0)).await
}

/// Brings some bytes, and lets the rest to others.
async fn bring(store: &Store, sent: &[u8], range: std::ops::Range<usize>) {
    let mut writer = open(store, range.start).await.unwrap();
    for piece in sent[range.clone()].chunks(1_000_003) {
        writer.write(piece, at(0)).await.unwrap();
    }
    assert_eq!(writer.pause(at(0)).await.unwrap(), range.end as u64);
    assert_eq!(store.upload_offset(ID).await.unwrap(), range.end as u64);
}

/// Nothing of an upload is to be seen.
async fn is_gone(home: &Home, store: &Store) {
    let error = store.upload_offset(ID).await.unwrap_err();
    assert_eq!(error.code(), Code::UploadMissing);
    assert!(home.incoming().is_empty());
    let rows = "SELECT count(*) FROM blob_uploads";
    assert_eq!(number(&home.raw().await, rows).await, 0);
    if let Backend::Team = home.backend {
        assert_eq!(home.parts(), 0);
        let shard = home.objects().join("sha256").join(&ID[..2]);
        let names = fs::read_dir(shard).into_iter().flatten();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.contains(".tail")).count(), 0);
    }
}

const SIZE: usize = 2 * PART + 77;

fn of(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

async fn an_upload_goes_on_where_it_stands(home: Home) {
    let (store, sent) = (home.open().await, bytes(SIZE));
    store.upload_begin(ID, at(0)).await.unwrap();
    assert_eq!(store.upload_offset(ID).await.unwrap(), 0);
    // Inside a part, at its end, over it, nothing, and across two.
    let mut from = 0;
    for to in [10, PART - 1, PART, PART + 1, PART + 1, SIZE - 5] {
        bring(&store, &sent, from..to).await;
        from = to;
    }
    assert_eq!(store.blob_stat(of(&sent)).await.unwrap(), None);
    let mut writer = open(&store, from).await.unwrap();
    writer.write(&sent[from..], at(0)).await.unwrap();
    let stat = writer.finish(of(&sent), at(0)).await.unwrap();
    assert_eq!(stat.size, SIZE as u64);
    assert!(read(&store, of(&sent)).await.unwrap() == sent);
    is_gone(&home, &store).await;
}

async fn another_process_goes_on(home: Home) {
    let (store, sent) = (home.open().await, bytes(SIZE));
    store.upload_begin(ID, at(0)).await.unwrap();
    bring(&store, &sent, 0..PART + 100).await;
    store.close().await.unwrap();
    let store = home.open().await;
    assert_eq!(store.upload_offset(ID).await.unwrap(), PART as u64 + 100);
    bring(&store, &sent, PART + 100..SIZE).await;
    let other = home.open().await;
    let writer = open(&other, SIZE).await.unwrap();
    writer.finish(of(&sent), at(0)).await.unwrap();
    assert!(read(&store, of(&sent)).await.unwrap() == sent);
    is_gone(&home, &other).await;
}

async fn a_request_that_begins_elsewhere_is_refused(home: Home) {
    let (store, sent) = (home.open().await, bytes(1000));
    assert_eq!(
        open(&store, 0).await.unwrap_err().code(),
        Code::UploadMissing
    );
    store.upload_begin(ID, at(0)).await.unwrap();
    bring(&store, &sent, 0..100).await;
    for offset in [0, 99, 101] {
        let error = open(&store, offset).await.unwrap_err();
        assert_eq!(error.code(), Code::WrongOffset, "{error}");
    }
    bring(&store, &sent, 100..1000).await;
}

async fn of_two_requests_one_counts(home: Home) {
    let (store, sent) = (home.open().await, bytes(PART + 10));
    store.upload_begin(ID, at(0)).await.unwrap();
    let mut first = open(&store, 0).await.unwrap();
    let second = open(&store, 0).await;
    if let Backend::Team = home.backend {
        // The sender of the first may be long gone: the second takes over.
        let mut second = second.unwrap();
        let error = first.write(&sent, at(0)).await.unwrap_err();
        assert_eq!(error.code(), Code::Busy);
        second.write(&sent, at(0)).await.unwrap();
        second.finish(of(&sent), at(0)).await.unwrap();
    } else {
        assert_eq!(second.unwrap_err().code(), Code::Busy);
        first.write(&sent, at(0)).await.unwrap();
        first.finish(of(&sent), at(0)).await.unwrap();
    }
    assert!(read(&store, of(&sent)).await.unwrap() == sent);
}

async fn bytes_of_another_digest_end_the_upload(home: Home) {
    let (store, sent) = (home.open().await, bytes(SIZE));
    store.upload_begin(ID, at(0)).await.unwrap();
    bring(&store, &sent, 0..SIZE).await;
    let writer = open(&store, SIZE).await.unwrap();
    let error = writer.finish(of(b"announced"), at(0)).await.unwrap_err();
    assert_eq!(error.code(), Code::DigestMismatch);
    is_gone(&home, &store).await;
    assert_eq!(store.blob_stat(of(&sent)).await.unwrap(), None);
    assert_eq!(store.blob_stat(of(b"announced")).await.unwrap(), None);
}

async fn an_upload_has_a_limit(home: Home) {
    let store = home.open().await;
    store.upload_begin(ID, at(0)).await.unwrap();
    bring(&store, &bytes(100), 0..100).await;
    let mut writer = store.upload_open(ID, 100, 150, at(0)).await.unwrap();
    writer.write(&[0; 50], at(0)).await.unwrap();
    let error = writer.write(&[0], at(0)).await.unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
}

async fn an_upload_that_was_forgotten_leaves_nothing(home: Home) {
    let (store, sent) = (home.open().await, bytes(SIZE));
    store.upload_begin(ID, at(0)).await.unwrap();
    bring(&store, &sent, 0..SIZE).await;
    store.upload_cancel(ID).await.unwrap();
    is_gone(&home, &store).await;
    let error = store.upload_cancel(ID).await.unwrap_err();
    assert_eq!(error.code(), Code::UploadMissing);
}

async fn an_upload_of_a_silent_sender_is_given_up(home: Home) {
    let (store, sent) = (home.open().await, bytes(SIZE));
    store.upload_begin(ID, at(0)).await.unwrap();
    bring(&store, &sent, 0..SIZE).await;
    let late = at(0).plus_ms(UPLOAD_KEEP_MS);
    assert_eq!(store.blob_gc(late).await.unwrap().given_up, 0);
    assert_eq!(store.upload_offset(ID).await.unwrap(), SIZE as u64);
    assert_eq!(store.blob_gc(late.plus_ms(1)).await.unwrap().given_up, 1);
    is_gone(&home, &store).await;
}

async fn a_writer_that_is_dropped_leaves_whole_parts(home: Home) {
    let (store, sent) = (home.open().await, bytes(SIZE));
    store.upload_begin(ID, at(0)).await.unwrap();
    let mut writer = open(&store, 0).await.unwrap();
    writer.write(&sent[..PART + 1000], at(0)).await.unwrap();
    drop(writer);
    assert_eq!(store.upload_offset(ID).await.unwrap(), PART as u64);
    bring(&store, &sent, PART..SIZE).await;
    let writer = open(&store, SIZE).await.unwrap();
    writer.finish(of(&sent), at(0)).await.unwrap();
    assert!(read(&store, of(&sent)).await.unwrap() == sent);
}

/// As a coordinator that was killed between the end on the server and the row.
async fn an_end_that_was_cut_off_is_done_again(home: Home) {
    let (store, sent) = (home.open().await, bytes(SIZE));
    store.upload_begin(ID, at(0)).await.unwrap();
    bring(&store, &sent, 0..SIZE).await;
    let raw = home.raw().await;
    crate::harness::execute(&raw, "ALTER TABLE blobs RENAME TO away").await;
    let writer = open(&store, SIZE).await.unwrap();
    writer.finish(of(&sent), at(0)).await.unwrap_err();
    crate::harness::execute(&raw, "ALTER TABLE away RENAME TO blobs").await;
    let writer = open(&store, SIZE).await.unwrap();
    writer.finish(of(&sent), at(0)).await.unwrap();
    assert!(read(&store, of(&sent)).await.unwrap() == sent);
}
