//! Files named by their bytes (R3): up, down, damaged, repaired.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::{Change, Code, Digest};
use pomona_store::{BLOB_KEEP_MS, BlobStat, MAX_TEXT_BLOB, Store, StoreError};

use crate::harness::{Backend, Home, execute, for_each_place, number, read, tests_on};
use crate::rows::{at, checkpoint, experiment, of_experiment, of_trial, trial};

for_each_place!(
    bytes_come_back_as_they_went,
    bytes_that_are_not_what_was_announced_leave_nothing,
    an_upload_over_its_limit_leaves_nothing,
    a_range_gives_those_bytes,
    what_is_not_here_is_said_to_be_missing,
    a_damaged_blob_is_refused_and_an_upload_repairs_it,
    a_text_is_read_whole,
    a_text_has_a_limit,
    uploads_of_the_same_bytes_at_once_are_one_blob,
    asking_keeps_a_blob,
    a_commit_that_names_a_missing_blob_is_refused,
);

mod only_folder {
    super::tests_on!(
        Sqlite,
        an_upload_that_breaks_off_leaves_nothing,
        a_range_up_to_the_end_is_checked_like_the_whole,
        left_overs_of_a_killed_upload_are_cleared_when_the_folder_is_opened,
    );
}

/// Around the size that is read and written in one go.
const CHUNK: usize = 256 << 10;

/// Bytes without a pattern.
pub fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ count as u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

async fn bytes_come_back_as_they_went(home: Home) {
    let store = home.open().await;
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1_000_003] {
        let sent = bytes(size);
        let digest = Digest::of(&sent);
        let mut writer = store.blob_writer(digest, size as u64, at(0)).await.unwrap();
        for piece in sent.chunks(77_777) {
            writer.write(piece).await.unwrap();
        }
        assert_eq!(writer.size(), size as u64);
        let stat = writer.finish(at(0)).await.unwrap();
        let expect = BlobStat {
            digest,
            size: size as u64,
        };
        assert_eq!(stat, expect);
        assert_eq!(store.blob_stat(digest).await.unwrap(), Some(expect));
        assert_eq!(read(&store, digest).await.unwrap(), sent, "{size} bytes");
        assert_eq!(fs::read(home.blob_file(digest)).unwrap(), sent);
        let permissions = fs::metadata(home.blob_file(digest)).unwrap().permissions();
        assert!(permissions.readonly() || matches!(home.backend, Backend::Team));
    }
    assert!(home.incoming().is_empty());
    store.close().await.unwrap();
    let store = home.open().await;
    assert_eq!(
        read(&store, Digest::of(&bytes(CHUNK + 1))).await.unwrap(),
        bytes(CHUNK + 1)
    );
}

/// Nothing of an upload is to be seen, once the write that was under way has ended.
async fn is_nowhere(home: &Home, store: &Store, digest: Digest) {
    for _ in 0..1000 {
        if home.incoming().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(home.incoming().is_empty(), "{:?}", home.incoming());
    assert!(!home.blob_file(digest).exists());
    assert_eq!(store.blob_stat(digest).await.unwrap(), None);
    assert_eq!(
        number(&home.raw().await, "SELECT count(*) FROM blobs").await,
        0
    );
}

async fn bytes_that_are_not_what_was_announced_leave_nothing(home: Home) {
    let store = home.open().await;
    let announced = Digest::of(b"what was announced");
    for sent in [&b"what came"[..], b"", b"what was announced "] {
        let mut writer = store.blob_writer(announced, 100, at(0)).await.unwrap();
        writer.write(sent).await.unwrap();
        let error = writer.finish(at(0)).await.unwrap_err();
        assert_eq!(error.code(), Code::DigestMismatch);
        is_nowhere(&home, &store, announced).await;
        is_nowhere(&home, &store, Digest::of(sent)).await;
    }
}

async fn an_upload_over_its_limit_leaves_nothing(home: Home) {
    let store = home.open().await;
    let sent = bytes(1001);
    let mut writer = store
        .blob_writer(Digest::of(&sent), 1000, at(0))
        .await
        .unwrap();
    writer.write(&sent[..1000]).await.unwrap();
    let error = writer.write(&sent[1000..]).await.unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
    drop(writer);
    is_nowhere(&home, &store, Digest::of(&sent)).await;
}

async fn an_upload_that_breaks_off_leaves_nothing(home: Home) {
    let store = home.open().await;
    let sent = bytes(3 * CHUNK);
    let mut writer = store
        .blob_writer(Digest::of(&sent), u64::MAX, at(0))
        .await
        .unwrap();
    writer.write(&sent[..2 * CHUNK]).await.unwrap();
    assert_eq!(home.incoming().len(), 1, "it is under way");
    drop(writer);
    is_nowhere(&home, &store, Digest::of(&sent)).await;
}

async fn a_range_gives_those_bytes(home: Home) {
    let store = home.open().await;
    let all = bytes(2 * CHUNK + 10);
    let end = all.len();
    let digest = store.blob_put(&all, at(0)).await.unwrap().digest;
    for range in [
        0..0,
        0..1,
        0..end,
        5..CHUNK + 7,
        CHUNK..2 * CHUNK,
        1..end,
        end - 1..end,
        end..end,
    ] {
        let wanted = range.start as u64..range.end as u64;
        let mut reader = store.blob_get(digest).await.unwrap().between(wanted);
        assert_eq!(reader.left(), range.len() as u64);
        let mut got = Vec::new();
        while let Some(chunk) = reader.next().await.unwrap() {
            got.extend(chunk);
        }
        assert_eq!(reader.left(), 0);
        assert!(got == all[range.clone()], "{range:?}");
    }
    for (start, stop, left) in [
        (0, u64::MAX, end as u64),
        (u64::MAX - 1, u64::MAX, 0),
        (7, 3, 0),
    ] {
        let reader = store.blob_get(digest).await.unwrap();
        assert_eq!(
            reader.between(start..stop).left(),
            left,
            "cut to what there is"
        );
    }
}

async fn what_is_not_here_is_said_to_be_missing(home: Home) {
    let store = home.open().await;
    let absent = Digest::of(b"absent");
    assert_eq!(store.blob_stat(absent).await.unwrap(), None);
    assert_eq!(store.blob_keep(absent, at(0)).await.unwrap(), None);
    assert_eq!(
        store.blob_get(absent).await.unwrap_err().code(),
        Code::BlobMissing
    );
    assert_eq!(
        store.blob_text(absent).await.unwrap_err().code(),
        Code::BlobMissing
    );
    // Its file was taken away behind our back.
    let gone = store.blob_put(b"gone", at(0)).await.unwrap().digest;
    fs::remove_file(home.blob_file(gone)).unwrap();
    assert_eq!(store.blob_stat(gone).await.unwrap(), None);
    // A bucket is asked when the first bytes are.
    assert_eq!(
        read(&store, gone).await.unwrap_err().code(),
        Code::BlobMissing
    );
    store.blob_put(b"gone", at(0)).await.unwrap();
    assert_eq!(read(&store, gone).await.unwrap(), b"gone");
}

/// Puts other bytes in a blob's place, as a failing disk would.
fn damage(file: &Path, with: &[u8]) {
    fs::remove_file(file).unwrap();
    fs::write(file, with).unwrap();
}

async fn a_damaged_blob_is_refused_and_an_upload_repairs_it(home: Home) {
    let store = home.open().await;
    let sent = bytes(2 * CHUNK + 100);
    let digest = Digest::of(&sent);
    let mut flipped = sent.clone();
    flipped[CHUNK + 3] ^= 1;
    let longer = [&sent[..], b"x"].concat();
    for broken in [flipped.as_slice(), &sent[..CHUNK], b"", longer.as_slice()] {
        let stat = store.blob_put(&sent, at(0)).await.unwrap();
        damage(&home.blob_file(digest), broken);
        for _ in 0..2 {
            let Err(StoreError::BlobCorrupt {
                digest: name,
                found,
            }) = read(&store, digest).await
            else {
                panic!(
                    "{} bytes were taken for {} others",
                    broken.len(),
                    sent.len()
                );
            };
            assert_eq!((name, found), (digest, Digest::of(broken)));
            assert_eq!(
                store.blob_stat(digest).await.unwrap(),
                None,
                "it must be sent again"
            );
            assert_eq!(store.blob_keep(digest, at(0)).await.unwrap(), None);
        }
        assert_eq!(store.blob_put(&sent, at(0)).await.unwrap(), stat);
        assert_eq!(store.blob_stat(digest).await.unwrap(), Some(stat));
        assert_eq!(read(&store, digest).await.unwrap(), sent);
    }
    // The bytes that are given out before the end is reached are not all of them.
    damage(&home.blob_file(digest), &flipped);
    let mut reader = store.blob_get(digest).await.unwrap();
    let mut got = 0;
    let error = loop {
        match reader.next().await {
            Ok(chunk) => got += chunk.expect("an error comes before the end").len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::BlobCorrupt);
    assert!(got < sent.len());
    assert!(
        reader.next().await.is_err(),
        "an error is not followed by an end"
    );
}

async fn a_range_up_to_the_end_is_checked_like_the_whole(home: Home) {
    let store = home.open().await;
    let sent = bytes(3 * CHUNK);
    let digest = store.blob_put(&sent, at(0)).await.unwrap().digest;
    let mut flipped = sent.clone();
    flipped[7] ^= 1;
    damage(&home.blob_file(digest), &flipped);
    let size = sent.len() as u64;
    let mut reader = store
        .blob_get(digest)
        .await
        .unwrap()
        .between(size - 10..size);
    assert_eq!(reader.next().await.unwrap_err().code(), Code::BlobCorrupt);
}

async fn a_text_is_read_whole(home: Home) {
    let store = home.open().await;
    let text = "{\"klasse\":\"Äpfel\"}".repeat(40_000);
    let digest = store.blob_put(text.as_bytes(), at(0)).await.unwrap().digest;
    assert_eq!(store.blob_text(digest).await.unwrap(), text);
    let digest = store.blob_put(b"\xff\xfe", at(0)).await.unwrap().digest;
    assert_eq!(
        store.blob_text(digest).await.unwrap_err().code(),
        Code::Internal
    );
}

async fn a_text_has_a_limit(home: Home) {
    let store = home.open().await;
    let digest = store.blob_put(b"some", at(0)).await.unwrap().digest;
    // As if it were that long: nothing of it may be read.
    damage(&home.blob_file(digest), b"");
    let file = fs::File::options().write(true).open(home.blob_file(digest));
    file.unwrap().set_len(MAX_TEXT_BLOB + 1).unwrap();
    let long = format!("UPDATE blobs SET size = {}", MAX_TEXT_BLOB + 1);
    assert_eq!(execute(&home.raw().await, &long).await, 1);
    assert_eq!(
        store.blob_text(digest).await.unwrap_err().code(),
        Code::TooLarge
    );
}

async fn left_overs_of_a_killed_upload_are_cleared_when_the_folder_is_opened(home: Home) {
    let store = home.open().await;
    let kept = store.blob_put(b"kept", at(0)).await.unwrap().digest;
    let left = home.folder().join("incoming").join("1-0");
    fs::write(&left, "half a").unwrap();
    let other = home.open().await;
    assert!(left.exists(), "somebody who has it open may be uploading");
    other.close().await.unwrap();
    store.close().await.unwrap();
    let store = home.open().await;
    assert!(home.incoming().is_empty());
    assert_eq!(read(&store, kept).await.unwrap(), b"kept");
}

async fn uploads_of_the_same_bytes_at_once_are_one_blob(home: Home) {
    let store = home.open().await;
    let sent = bytes(CHUNK + 9);
    let digest = Digest::of(&sent);
    let uploads: Vec<_> = (0..6)
        .map(|_| {
            let (store, sent) = (store.clone(), sent.clone());
            tokio::spawn(async move { store.blob_put(&sent, at(0)).await.unwrap() })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.unwrap().digest, digest);
    }
    assert_eq!(read(&store, digest).await.unwrap(), sent);
    assert!(home.incoming().is_empty());
    assert_eq!(
        number(&home.raw().await, "SELECT count(*) FROM blobs").await,
        1
    );
}

async fn asking_keeps_a_blob(home: Home) {
    let store = home.open().await;
    let digest = store.blob_put(b"abc", at(0)).await.unwrap().digest;
    let raw = home.raw().await;
    let kept_until = async || number(&raw, "SELECT keep_until FROM blobs").await;
    let first = at(0).plus_ms(BLOB_KEEP_MS);
    assert_eq!(kept_until().await, first.0);
    store.blob_stat(digest).await.unwrap();
    store
        .blob_keep(digest, at(0).plus_ms(BLOB_KEEP_MS / 2))
        .await
        .unwrap();
    assert_eq!(
        kept_until().await,
        first.0,
        "half of it is left: no need to write"
    );
    let later = at(0).plus_ms(BLOB_KEEP_MS / 2 + 1);
    assert!(store.blob_keep(digest, later).await.unwrap().is_some());
    assert_eq!(kept_until().await, later.plus_ms(BLOB_KEEP_MS).0);
}

async fn a_commit_that_names_a_missing_blob_is_refused(home: Home) {
    let mut leader = home.lead().await;
    let owner = experiment(1);
    let row = trial(owner.id, 1);
    leader
        .commit(&[of_experiment(&owner), of_trial(&row)])
        .await;
    let names = Change::Checkpoint(checkpoint(row.id, CheckpointKind::Last, Digest::of(b"abc")));
    let error = leader
        .try_commit(std::slice::from_ref(&names))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::BlobMissing { digest } if digest == Digest::of(b"abc")));
    leader.put(b"abc", at(0)).await;
    leader.commit(&[names]).await;
    home.check().await;
}
