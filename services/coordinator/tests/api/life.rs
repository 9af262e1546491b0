//! The program's own life: start, refusals, one at a time, a graceful stop.

use pomona_api::v1::events::Topic;
use std::time::Duration;

use crate::harness::{House, run, until};
use crate::worker::Machine;

fn told(output: &std::process::Output) -> String {
    let status = output.status.code().unwrap_or(-1);
    format!("{status}: {}", String::from_utf8_lossy(&output.stderr))
}

/// Polls that were decided.
async fn polls(house: &House) -> f64 {
    let page = house.client.metrics().await.expect("a page");
    let sample = "pomona_engine_events_total{kind=\"polled\"} ";
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn a_stop_is_graceful_and_quick_though_a_poll_and_a_stream_are_open() {
    let mut house = House::open().await;
    let mut machine = Machine::join(&house.client, 1, 1).await;
    machine.poll(0).await;
    let mut stream = house.client.events(&[Topic::Trials], None).await.unwrap();
    let body = machine.body(5000);
    let before = polls(&house).await;
    let stop = async {
        // Once the poll is decided, it waits inside.
        until("the poll waits", || async {
            (polls(&house).await > before).then_some(())
        })
        .await;
        house.stop().await
    };
    let (poll, read, (status, took)) = tokio::join!(machine.send(&body), stream.next(), stop);
    assert!(status.success(), "{status}: {}", house.words());
    assert!(took < Duration::from_secs(4), "it took {took:?}");
    assert!(read.is_none(), "the stream ends as streams end");
    assert_eq!(
        poll.unwrap().leases.len(),
        0,
        "the poll is answered, not broken"
    );
}

#[tokio::test]
async fn one_coordinator_at_a_time_has_a_data_folder() {
    let house = House::open().await;
    let second = house.command(&["serve", "--listen", "127.0.0.1:0"], None);
    let told = told(&second);
    assert!(told.starts_with("1: error[E0904]"), "{told}");
    assert!(told.contains("in use by another coordinator"), "{told}");
    house.client.ready().await.unwrap();
}

#[tokio::test]
async fn an_address_beyond_loopback_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7878"] {
        let told = told(&run(&["serve", "--listen", address, "--data-dir", data]));
        assert!(told.starts_with("1: error[E0905]"), "{told}");
    }
    let odd = told(&run(&["serve", "--listen", "nowhere", "--data-dir", data]));
    assert!(odd.starts_with("1: error[E0903]"), "{odd}");
    assert!(!std::path::Path::new(data).exists());
}

#[tokio::test]
async fn an_address_in_use_is_said() {
    let house = House::open().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let taken = run(&[
        "serve",
        "--listen",
        house.address(),
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    let told = told(&taken);
    assert!(told.starts_with("1: error[E0903]"), "{told}");
    assert!(told.contains("--listen 127.0.0.1:0"), "{told}");
}

#[tokio::test]
async fn the_effective_configuration_is_printed_with_secrets_masked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("coordinator.toml");
    std::fs::write(
        &file,
        "[store]\nurl = 'postgres://pomona:se/c@ret@db/pomona'\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let printed = run(&["check-config", "--config", file, "--listen", "127.0.0.1:9"]);
    assert!(printed.status.success());
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("\nlisten = \"127.0.0.1:9\"\n"), "{text}");
    assert!(text.contains("postgres://pomona:***@db/pomona"), "{text}");
    assert!(!text.contains("c@ret"), "{text}");
    std::fs::write(file, "[http]\nthread = 3\n").unwrap();
    let told = told(&run(&["check-config", "--config", file]));
    assert!(told.starts_with("1: error[E0901]"), "{told}");
    assert!(told.contains("did you mean `http.threads`?"), "{told}");
}

#[tokio::test]
async fn the_schema_is_brought_up_to_date_without_serving() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    for _ in 0..2 {
        let migrated = run(&["migrate", "--data-dir", data]);
        assert!(migrated.status.success(), "{}", told(&migrated));
        let said: serde_json::Value = serde_json::from_slice(&migrated.stdout).unwrap();
        assert!(said["schema"].as_u64() >= Some(1), "{said}");
    }
}

#[test]
fn a_data_folder_may_have_any_name() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("a b%20c?d#e");
    let migrated = run(&["migrate", "--data-dir", data.to_str().unwrap()]);
    assert!(migrated.status.success(), "{}", told(&migrated));
    assert!(data.join("pomona.db").is_file());
    let names = std::fs::read_dir(home.path()).unwrap().count();
    assert_eq!(names, 1, "nothing was made beside it");
}

#[tokio::test]
async fn it_is_small_at_rest() {
    let house = House::open().await;
    // A debug build and a wide margin: `make bench` measures the real one.
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 150_000, "{line}");
}
