use super::*;

async fn put(cache: &Cache, bytes: &'static [u8]) -> Result<Pin, Fault> {
    cache
        .fetch(Digest::of(bytes), async |path: &Path| {
            std::fs::write(path, bytes).unwrap();
            Ok(bytes.len() as u64)
        })
        .await
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_first_and_pinned_blobs_stay() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 8).unwrap();
    let first = put(&cache, b"aaaa").await.unwrap();
    drop(put(&cache, b"bbbb").await.unwrap());
    drop(put(&cache, b"cccc").await.unwrap());
    assert!(cache.pin(Digest::of(b"bbbb")).is_none());
    let third = cache.pin(Digest::of(b"cccc")).unwrap();
    // Everything is in use: the budget gives way.
    let fourth = put(&cache, b"dddd").await.unwrap();
    assert_eq!(cache.bytes(), 12);
    drop((first, third));
    assert_eq!(cache.bytes(), 8);
    assert!(cache.pin(Digest::of(b"aaaa")).is_none());
    assert_eq!(std::fs::read(fourth.path()).unwrap(), b"dddd");
}

#[tokio::test]
async fn two_that_want_the_same_blob_fetch_it_once_and_a_failure_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 100).unwrap();
    let fault = Fault::new(Code::Unreachable, "away");
    let refused = cache.fetch(Digest::of(b"x"), async |_: &Path| Err(fault.clone()));
    assert_eq!(refused.await.unwrap_err(), fault);
    let fetched = std::cell::Cell::new(0);
    let fetch = || {
        cache.fetch(Digest::of(b"x"), async |path: &Path| {
            fetched.set(fetched.get() + 1);
            tokio::task::yield_now().await;
            std::fs::write(path, b"x").unwrap();
            Ok(1)
        })
    };
    let (one, two) = tokio::join!(fetch(), fetch());
    assert_eq!(one.unwrap().path(), two.unwrap().path());
    assert_eq!(fetched.get(), 1);
}

#[tokio::test]
async fn a_restart_finds_blobs_and_removes_what_is_none() {
    let folder = tempfile::tempdir().unwrap();
    drop(
        put(&Cache::open(folder.path(), 100).unwrap(), b"kept")
            .await
            .unwrap(),
    );
    std::fs::write(folder.path().join("0000.part"), b"half").unwrap();
    let cache = Cache::open(folder.path(), 100).unwrap();
    assert_eq!(names(folder.path()), [Digest::of(b"kept").hex()]);
    let pin = cache.pin(Digest::of(b"kept")).unwrap();
    assert_eq!(std::fs::read(pin.path()).unwrap(), b"kept");
    // A file that vanished under it is no blob any more.
    std::fs::remove_file(pin.path()).unwrap();
    assert!(cache.pin(Digest::of(b"kept")).is_none());
}

/// A download that breaks off after some bytes.
async fn half(cache: &Cache, digest: Digest, bytes: &'static [u8]) {
    let broken = cache.fetch(digest, async |path: &Path| {
        std::fs::write(path.with_extension("part"), bytes).unwrap();
        Err(Fault::new(Code::Unreachable, "away"))
    });
    assert_eq!(broken.await.unwrap_err().code, Code::Unreachable);
}

#[tokio::test]
async fn what_a_broken_download_left_is_gone_on_with_and_goes_before_any_blob() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 10).unwrap();
    let whole = Digest::of(b"half of it");
    drop(put(&cache, b"kept").await.unwrap());
    half(&cache, whole, b"half").await;
    assert_eq!(cache.bytes(), 8);
    drop(cache);
    let cache = Cache::open(folder.path(), 14).unwrap();
    assert_eq!(cache.bytes(), 8, "it outlives a restart");
    let fetched = cache.fetch(whole, async |path: &Path| {
        let part = path.with_extension("part");
        assert_eq!(std::fs::read(&part).unwrap(), b"half");
        std::fs::write(&part, b"half of it").unwrap();
        std::fs::rename(&part, path).unwrap();
        Ok(10)
    });
    drop(fetched.await.unwrap());
    assert_eq!(cache.bytes(), 14);
    drop(cache);
    let cache = Cache::open(folder.path(), 10).unwrap();
    assert_eq!(cache.bytes(), 10, "the older one has gone");
    half(&cache, Digest::of(b"other"), b"oth").await;
    assert_eq!(cache.bytes(), 13, "nobody needed room");
    drop(put(&cache, b"").await.unwrap());
    assert_eq!(cache.bytes(), 10);
    assert!(cache.pin(whole).is_some());
}

#[tokio::test]
async fn different_blobs_do_not_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 100).unwrap();
    let (go, wait) = tokio::sync::oneshot::channel();
    let slow = cache.fetch(Digest::of(b"slow"), async |path: &Path| {
        wait.await.unwrap();
        std::fs::write(path, b"slow").unwrap();
        Ok(4)
    });
    let quick = async {
        put(&cache, b"quick").await.unwrap();
        go.send(()).unwrap();
    };
    let (slow, ()) = tokio::join!(slow, quick);
    assert_eq!(std::fs::read(slow.unwrap().path()).unwrap(), b"slow");
}
