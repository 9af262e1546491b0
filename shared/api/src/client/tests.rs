//! A tiny scripted server on loopback answers what the test says.

use super::*;
use crate::v1::PageQuery;
use crate::v1::events::Topic;
use pomona_domain::Digest;
use std::path::Path;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers the n-th request with `answers[n]` (the last one again and again) and counts requests.
async fn server(answers: Vec<String>) -> (Client, Arc<AtomicUsize>) {
    let (client, count, _) = scripted(answers).await;
    (client, count)
}

/// The same, and keeps the requests.
async fn recording(answers: Vec<String>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let (client, _, requests) = scripted(answers).await;
    (client, requests)
}

async fn scripted(answers: Vec<String>) -> (Client, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let n = seen.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0u8; 65536];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            kept.lock().unwrap().push(text);
            let answer = &answers[n.min(answers.len() - 1)];
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let client = Client::new(&format!("http://{address}")).unwrap();
    (client, count, requests)
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::new(&format!("http://{address}")).unwrap();
    let fault = client.cluster().await.unwrap_err();
    assert_eq!(fault.code, Code::Unreachable);
    assert!(fault.message.contains("refused"), "{}", fault.message);
    assert!(fault.hint.unwrap().contains("pomona up"));
}

/// An address on which nobody listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn of_several_coordinators_the_first_that_is_there_is_spoken_to() {
    let busy = r#"{"error":{"code":"E0005","message":"stopping"}}"#;
    let (alive, count) = server(vec![http("503 Service Unavailable", busy)]).await;
    let addresses = format!(
        "{}, {} ,{}",
        nowhere().await,
        alive.server(),
        nowhere().await
    );
    let client = Client::new(&addresses).unwrap();
    let poll = poll();
    for asked in 1..=2 {
        // A mutation without a key: nobody has heard of it before, so it may go elsewhere.
        let call = client.worker_poll(pomona_domain::WorkerId(1), &poll);
        assert_eq!(call.await.unwrap_err().code, Code::NotReady);
        assert_eq!(count.load(Ordering::SeqCst), asked);
        assert_eq!(client.server(), alive.server(), "and it stays there");
    }
    let both = format!("{},{}", nowhere().await, nowhere().await);
    let fault = Client::new(&both).unwrap().cluster().await.unwrap_err();
    assert_eq!(fault.code, Code::Unreachable, "none is there");
}

#[tokio::test]
async fn an_error_body_becomes_the_fault_it_holds() {
    let body = r#"{"error":{"code":"E0102","message":"no trial `x`","hint":"look"}}"#;
    let (client, count) = server(vec![http("404 Not Found", body)]).await;
    let fault = client.trial_get("x").await.unwrap_err();
    assert_eq!(
        fault,
        Fault::new(Code::NotFound, "no trial `x`").hint("look")
    );
    assert_eq!(count.load(Ordering::SeqCst), 1, "a 404 is not repeated");
}

#[tokio::test]
async fn a_read_is_repeated_when_the_coordinator_is_busy() {
    let busy = r#"{"error":{"code":"E0004","message":"busy"}}"#;
    let good = r#"{"items":[]}"#;
    let answers = vec![http("429 Too Many Requests", busy), http("200 OK", good)];
    let (client, count) = server(answers).await;
    let page = client.worker_list(&PageQuery::default()).await.unwrap();
    assert!(page.items.is_empty());
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

fn poll() -> crate::v1::workers::Poll {
    crate::v1::workers::Poll {
        protocol: crate::PROTOCOL,
        incarnation: 1,
        running: Vec::new(),
        reports: Vec::new(),
        logs: Vec::new(),
        features: None,
        wait_ms: 0,
    }
}

#[tokio::test]
async fn a_mutation_without_a_key_is_never_repeated() {
    let busy = r#"{"error":{"code":"E0005","message":"stopping"}}"#;
    let (client, count) = server(vec![http("503 Service Unavailable", busy)]).await;
    let fault = client
        .worker_poll(pomona_domain::WorkerId(1), &poll())
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::NotReady);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_control_has_a_key_of_its_own_and_is_repeated_with_it() {
    let busy = r#"{"error":{"code":"E0004","message":"busy"}}"#;
    let done = r#"{"error":{"code":"E0104","message":"it has ended"}}"#;
    for control in ["pause", "resume", "cancel", "stop", "drain", "task"] {
        let answers = vec![http("429 Busy", busy), http("409 Conflict", done)];
        let (client, requests) = recording(answers).await;
        let code = match control {
            "pause" => client.experiment_pause("e").await.unwrap_err().code,
            "resume" => client.experiment_resume("e").await.unwrap_err().code,
            "cancel" => client.experiment_cancel("e").await.unwrap_err().code,
            "stop" => client.trial_stop("tri_1").await.unwrap_err().code,
            "drain" => client.worker_drain("w", None).await.unwrap_err().code,
            _ => client.task_cancel("tsk_1").await.unwrap_err().code,
        };
        assert_eq!(code, Code::WrongState, "{control}");
        let requests = requests.lock().unwrap().clone();
        let key = |text: &String| {
            let lower = text.to_lowercase();
            let line = lower
                .lines()
                .find(|line| line.starts_with("idempotency-key: "));
            line.map(str::to_owned)
        };
        let keys: Vec<_> = requests.iter().map(key).collect();
        assert_eq!(keys.len(), 2, "{control}");
        assert!(keys[0].is_some() && keys[0] == keys[1], "{keys:?}");
    }
}

#[tokio::test]
async fn a_blob_with_other_bytes_is_refused_and_leaves_no_file() {
    let (client, _) = server(vec![http("200 OK", "other bytes")]).await;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("blob");
    let fault = client
        .blob_get(Digest::of(b"some bytes"), &target)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::BlobCorrupt);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_blob_that_does_not_fit_the_disk_is_not_taken_for_whole() {
    let (client, _) = server(vec![http("200 OK", "some bytes")]).await;
    let full = Path::new("/dev/full");
    let file = tokio::fs::File::options().write(true).open(full).await;
    let fault = client
        .blob_write(Digest::of(b"some bytes"), &mut file.unwrap(), full)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::DiskFull, "{fault}");
}

#[tokio::test]
async fn events_come_over_chunks_and_comments() {
    let body = ": hello\n\nid: 1\nevent: trials\ndata: {\"id\":\"1\",\"what\":\"missed\"}\n\n: beat\n\nid: 2\ndata: {\"id\":\"2\",\"what\":\"missed\"}\n\n";
    let (client, _) = server(vec![http("200 OK", body)]).await;
    let mut stream = client.events(&[Topic::Trials], None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().id, "1");
    assert_eq!(stream.next().await.unwrap().unwrap().id, "2");
    assert_eq!(stream.last_id(), Some("2"));
    assert!(stream.next().await.is_none());
}

#[test]
fn an_address_without_a_scheme_is_refused() {
    let fault = Client::new("localhost:7878").unwrap_err();
    assert_eq!(fault.code, Code::BadConfig);
}

#[test]
fn path_segments_are_escaped() {
    let client = Client::new("http://127.0.0.1:1").unwrap();
    let url = client.url(
        &["api", "v1", "models", "a b/c"],
        &[("x", "1&2".to_owned())],
    );
    assert_eq!(
        url.as_str(),
        "http://127.0.0.1:1/api/v1/models/a%20b%2Fc?x=1%262"
    );
}
