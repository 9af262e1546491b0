//! Blobs on the wire: up, down, ranges, and bytes that are not what they should be.

use pomona_domain::{Code, Digest};
use reqwest::Method;

use crate::harness::House;

/// More than one chunk of the store.
const LARGE: usize = 700_000;

fn bytes(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| b'a' + u8::try_from(at % 23).expect("small"))
        .collect()
}

fn path(digest: Digest) -> String {
    format!("/api/v1/blobs/{digest}")
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down_the_same() {
    let house = House::open().await;
    let (source, target) = (house.path("up"), house.path("down"));
    std::fs::write(&source, bytes(LARGE)).unwrap();
    let (digest, size) = house.client.blob_put_file(&source).await.unwrap();
    assert_eq!((digest, size), (Digest::of(&bytes(LARGE)), LARGE as u64));
    assert_eq!(
        house.client.blob_stat(digest).await.unwrap(),
        Some(LARGE as u64)
    );
    assert_eq!(
        house.client.blob_get(digest, &target).await.unwrap(),
        LARGE as u64
    );
    assert_eq!(std::fs::read(&target).unwrap(), bytes(LARGE));
    // A second upload of the same bytes finds them there.
    house.client.blob_put_file(&source).await.unwrap();
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let house = House::open().await;
    let digest = house.client.blob_put_bytes("").await.unwrap();
    assert_eq!(house.client.blob_stat(digest).await.unwrap(), Some(0));
    assert_eq!(house.client.blob_bytes(digest).await.unwrap(), "");
    let ranged = house
        .raw(Method::GET, &path(digest), &[("Range", "bytes=0-")], "")
        .await;
    assert_eq!(ranged.refused(), "E0101 416");
}

#[tokio::test]
async fn a_range_of_a_blob_is_answered_as_a_part() {
    let house = House::open().await;
    let digest = house.client.blob_put_bytes(bytes(LARGE)).await.unwrap();
    let whole = String::from_utf8(bytes(LARGE)).unwrap();
    for (range, wanted) in [
        ("bytes=0-0", 0..1),
        ("bytes=10-19", 10..20),
        ("bytes=262140-262150", 262_140..262_151),
        ("bytes=699990-", 699_990..LARGE),
        ("bytes=-5", LARGE - 5..LARGE),
        ("bytes=699999-999999", 699_999..LARGE),
    ] {
        let part = house
            .raw(Method::GET, &path(digest), &[("Range", range)], "")
            .await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.text, whole[wanted.clone()], "{range}");
        let place = format!("bytes {}-{}/{LARGE}", wanted.start, wanted.end - 1);
        assert_eq!(part.headers["content-range"], place.as_str());
        assert_eq!(
            part.headers["content-length"],
            wanted.len().to_string().as_str()
        );
    }
    let beyond = house
        .raw(
            Method::GET,
            &path(digest),
            &[("Range", "bytes=700000-")],
            "",
        )
        .await;
    assert_eq!(beyond.refused(), "E0101 416");
    assert_eq!(beyond.headers["content-range"], "bytes */700000");
    let odd = house
        .raw(Method::GET, &path(digest), &[("Range", "pages=1-2")], "")
        .await;
    assert_eq!((odd.status, odd.text.len()), (200, LARGE));
}

#[tokio::test]
async fn a_head_says_the_size_and_sends_nothing() {
    let house = House::open().await;
    let digest = house.client.blob_put_bytes(bytes(1000)).await.unwrap();
    let head = house.raw(Method::HEAD, &path(digest), &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.headers["content-length"], "1000");
    assert_eq!(head.headers["etag"], format!("\"{digest}\"").as_str());
    let absent = Digest::of(b"absent");
    assert_eq!(house.client.blob_stat(absent).await.unwrap(), None);
    assert_eq!(house.get(&path(absent)).await.refused(), "E0804 404");
}

#[tokio::test]
async fn bytes_with_another_digest_are_refused_and_not_kept() {
    let house = House::open().await;
    let announced = Digest::of(b"announced");
    let put = house
        .raw(Method::PUT, &path(announced), &[], "other bytes")
        .await;
    assert_eq!(put.refused(), "E0703 422");
    assert_eq!(house.client.blob_stat(announced).await.unwrap(), None);
    assert_eq!(
        house
            .client
            .blob_stat(Digest::of(b"other bytes"))
            .await
            .unwrap(),
        None
    );
    let named = house
        .raw(Method::PUT, "/api/v1/blobs/sha256:12", &[], "x")
        .await;
    assert_eq!(named.refused(), "E0101 400");
}

#[tokio::test]
async fn a_blob_over_the_limit_is_refused() {
    let house = House::with(&[("http.max_blob_bytes", "1000")]).await;
    house.client.blob_put_bytes(bytes(1000)).await.unwrap();
    let fault = house.client.blob_put_bytes(bytes(1001)).await.unwrap_err();
    assert_eq!(fault.code, Code::TooLarge, "{fault}");
}

#[tokio::test]
async fn a_blob_that_was_damaged_on_disk_is_never_answered_as_if_it_were_whole() {
    let house = House::open().await;
    for size in [1000, LARGE] {
        let digest = house.client.blob_put_bytes(bytes(size)).await.unwrap();
        let hex = digest.hex();
        let file = house
            .data_dir()
            .join("blobs/sha256")
            .join(&hex[..2])
            .join(&hex);
        let mut damaged = bytes(size);
        damaged[size / 2] = b'!';
        // Written anew, as a failing disk would: the file itself is never changed in place by us.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, damaged).unwrap();
        let target = house.path("down");
        let client = house.client.clone().attempts(1);
        let fault = client.blob_get(digest, &target).await.unwrap_err();
        if size < LARGE {
            assert_eq!(fault.code, Code::BlobCorrupt, "{fault}");
        }
        assert!(!target.exists());
        // It is known to be damaged now: the same bytes may come again.
        assert_eq!(house.client.blob_stat(digest).await.unwrap(), None);
        house.client.blob_put_bytes(bytes(size)).await.unwrap();
        assert_eq!(
            house.client.blob_get(digest, &target).await.unwrap(),
            size as u64
        );
        std::fs::remove_file(&target).unwrap();
    }
}
