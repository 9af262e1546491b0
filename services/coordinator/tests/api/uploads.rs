//! Uploads in several requests, and a client whose connection breaks in the middle of one.

use pomona_api::client::Client;
use pomona_domain::Digest;
use pomona_testing::Bucket;
use reqwest::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::House;

const MIB: usize = 1 << 20;
const UPLOADS: &str = "/api/v1/blobs/uploads";

fn bytes(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| u8::try_from((at * 7 + at / 251) % 256).expect("small"))
        .collect()
}

/// A coordinator whose blobs lie in a bucket.
async fn with(bucket: &Bucket) -> House {
    let keys = bucket.keys("house");
    let keys = keys.each_ref().map(|(key, value)| (*key, value.as_str()));
    House::with(&keys).await
}

#[tokio::test]
async fn an_upload_is_begun_gone_on_with_and_ended() {
    let house = House::open().await;
    let begun = house.raw(Method::POST, UPLOADS, &[], "").await;
    assert_eq!(begun.status, 201);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(begun.json()["offset"], 0);
    let at = |query: &str| format!("{UPLOADS}/{id}{query}");
    let some = house
        .raw(Method::PATCH, &at("?offset=0"), &[], "hello ")
        .await;
    assert_eq!(some.json()["offset"], 6);
    let hole = house.raw(Method::PATCH, &at("?offset=7"), &[], "x").await;
    assert_eq!(hole.refused(), "E0815 416");
    assert_eq!(house.get(&at("")).await.json()["offset"], 6);
    let digest = Digest::of(b"hello world");
    let end = at(&format!("?offset=6&digest={digest}"));
    let ended = house.raw(Method::PUT, &end, &[], "world").await;
    assert_eq!(
        (ended.status, ended.json()["size"].as_u64()),
        (201, Some(11))
    );
    assert_eq!(
        house.client.blob_bytes(digest).await.unwrap(),
        "hello world"
    );
    assert_eq!(house.get(&at("")).await.refused(), "E0814 404");
    let unknown = house.get(&format!("{UPLOADS}/x")).await;
    assert_eq!(unknown.refused(), "E0814 404");
    let other = house.raw(Method::POST, UPLOADS, &[], "").await.json();
    let path = format!("{UPLOADS}/{}", other["id"].as_str().unwrap());
    assert_eq!(house.raw(Method::DELETE, &path, &[], "").await.status, 200);
    assert_eq!(house.get(&path).await.refused(), "E0814 404");
}

/// A wire to the coordinator that breaks once, after so many bytes.
struct Wire {
    address: String,
    /// Bytes that went over it, both ways.
    carried: Arc<AtomicU64>,
}

async fn wire(to: &str, breaks_after: u64) -> Wire {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = format!("http://{}", listener.local_addr().expect("loopback"));
    let carried = Arc::new(AtomicU64::new(0));
    let (to, count) = (to.to_owned(), Arc::clone(&carried));
    let is_broken = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from_client, to_client) = client.into_split();
            let server = TcpStream::connect(&to).await.expect("loopback");
            let (from_server, to_server) = server.into_split();
            let (count, is_broken) = (Arc::clone(&count), Arc::clone(&is_broken));
            tokio::spawn(async move {
                let breaks =
                    |carried| carried > breaks_after && !is_broken.swap(true, Ordering::SeqCst);
                tokio::select! {
                    () = carry(from_client, to_server, &count, &breaks) => {}
                    () = carry(from_server, to_client, &count, &breaks) => {}
                }
            });
        }
    });
    Wire { address, carried }
}

/// Carries bytes one way until an end comes or the wire breaks.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    count: &AtomicU64,
    breaks: &impl Fn(u64) -> bool,
) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        if to.write_all(&chunk[..read]).await.is_err() {
            break;
        }
        let carried = count.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
        if breaks(carried) {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Uploads over a wire that breaks; says how many bytes were sent more than once.
async fn sent_again(house: &House, size: usize) -> u64 {
    let file = house.path("large");
    std::fs::write(&file, bytes(size)).expect("it works");
    let wire = wire(house.address(), size as u64 * 3 / 4).await;
    let client = Client::new(&wire.address).expect("it works");
    let (digest, _) = client.blob_put_file(&file).await.expect("it works");
    let got = house.path("got");
    house.client.blob_get(digest, &got).await.expect("it works");
    assert!(std::fs::read(&got).expect("it works") == bytes(size));
    let carried = wire.carried.load(Ordering::SeqCst);
    assert!(carried >= size as u64, "all went over the wire");
    carried - size as u64
}

#[tokio::test]
async fn what_a_broken_connection_has_left_is_not_sent_again() {
    let house = House::open().await;
    let again = sent_again(&house, 40 * MIB).await;
    assert!(again < MIB as u64, "{again} bytes were sent again");
}

#[tokio::test]
async fn what_a_broken_connection_has_left_in_a_bucket_is_not_sent_again() {
    let bucket = Bucket::start();
    let house = with(&bucket).await;
    let again = sent_again(&house, 40 * MIB).await;
    assert!(again < MIB as u64, "{again} bytes were sent again");
    assert_eq!((bucket.uploads(), bucket.parts()), (0, 0));
}

#[tokio::test]
async fn how_far_an_upload_is_counts_what_a_broken_request_brought() {
    let bucket = Bucket::start();
    let brought = 15 * MIB + 3;
    for house in [House::open().await, with(&bucket).await] {
        let begun = house.raw(Method::POST, UPLOADS, &[], "").await.json();
        let path = format!("{UPLOADS}/{}", begun["id"].as_str().unwrap());
        let mut wire = TcpStream::connect(house.address()).await.unwrap();
        let head = format!(
            "PATCH {path}?offset=0 HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            40 * MIB
        );
        wire.write_all(head.as_bytes()).await.unwrap();
        wire.write_all(&bytes(brought)).await.unwrap();
        wire.shutdown().await.unwrap();
        drop(wire);
        // What was between the wire's end and the upload when it broke may be missing.
        let offset = house.get(&path).await.json()["offset"].as_u64().unwrap();
        let missing = (brought as u64).checked_sub(offset).unwrap();
        assert!(missing < MIB as u64, "{missing} bytes are missing");
    }
}

#[tokio::test]
async fn an_upload_outlives_its_coordinator() {
    let bucket = Bucket::start();
    let mut house = with(&bucket).await;
    let all = String::from_utf8(vec![b'x'; 9 * MIB]).unwrap();
    let begun = house.raw(Method::POST, UPLOADS, &[], "").await.json();
    let path = format!("{UPLOADS}/{}", begun["id"].as_str().unwrap());
    let first = format!("{path}?offset=0");
    let came = house
        .raw(Method::PATCH, &first, &[], &all[..8 * MIB + 5])
        .await;
    assert_eq!(came.json()["offset"], 8 * MIB + 5);
    house.kill();
    house.restart().await;
    let digest = Digest::of(all.as_bytes());
    let last = format!("{path}?offset={}&digest={digest}", 8 * MIB + 5);
    let ended = house
        .raw(Method::PUT, &last, &[], &all[8 * MIB + 5..])
        .await;
    assert_eq!(ended.status, 201, "{}", ended.text);
    assert_eq!(house.client.blob_bytes(digest).await.unwrap(), all);
}

#[tokio::test]
async fn a_bucket_that_is_away_is_said_and_comes_back() {
    let mut bucket = Bucket::start();
    let house = with(&bucket).await;
    let digest = house.client.blob_put_bytes("abc").await.unwrap();
    bucket.stop();
    assert_eq!(house.get("/readyz").await.refused(), "E0811 503");
    let gone = house.get(&format!("/api/v1/blobs/{digest}")).await;
    assert_eq!(gone.refused(), "E0811 503");
    assert_eq!(gone.headers["retry-after"], "1");
    bucket.restart();
    assert_eq!(house.get("/readyz").await.status, 200);
    assert_eq!(house.client.blob_bytes(digest).await.unwrap(), "abc");
    assert!(!house.words().contains(Bucket::SECRET));
}

#[tokio::test]
async fn what_a_broken_download_has_brought_is_not_asked_for_again() {
    let bucket = Bucket::start();
    for house in [House::open().await, with(&bucket).await] {
        let (file, got) = (house.path("large"), house.path("got"));
        std::fs::write(&file, bytes(20 * MIB)).unwrap();
        let (digest, size) = house.client.blob_put_file(&file).await.unwrap();
        let wire = wire(house.address(), size * 3 / 4).await;
        let client = Client::new(&wire.address).unwrap();
        assert_eq!(client.blob_get(digest, &got).await.unwrap(), size);
        assert!(std::fs::read(&got).unwrap() == bytes(20 * MIB));
        let again = wire.carried.load(Ordering::SeqCst) - size;
        // What was between the wire's end and the file when it broke.
        assert!(again < 4 * MIB as u64, "{again} bytes came again");
        // What cannot be this blob's is thrown away, be it shorter or longer.
        for other in [bytes(20 * MIB + 1), bytes(5)] {
            std::fs::write(house.path("got.part"), [b"x", &other[..]].concat()).unwrap();
            assert_eq!(house.client.blob_get(digest, &got).await.unwrap(), size);
            assert!(std::fs::read(&got).unwrap() == bytes(20 * MIB));
        }
    }
}
