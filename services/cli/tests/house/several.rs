//! Several coordinators on one database: one leads, all answer, and a leader's end costs a moment.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use crate::coordinators::{http_get, http_send};
use crate::harness::{self, GRID, House, Process};
use crate::{nothing_lost, wait_some_completed};

fn signal(process: &Process, signal: Signal) {
    harness::send(process.0.id(), signal);
}

/// No trial was started over: none was leased twice.
fn each_was_leased_once(house: &House, experiment: &str) {
    for trial in nothing_lost(house, experiment) {
        assert_eq!(trial["leases"], 1, "none was started over: {trial}");
    }
}

#[test]
fn a_second_coordinator_with_blobs_of_its_own_is_refused() {
    let house = House::open_on_postgres();
    let (status, words) = house.refused_coordinator("apart");
    assert_eq!(status, Some(2));
    assert!(words.contains("error[E0816]"), "{words}");
    assert!(words.contains("`blobs.url`"), "{words}");
}

#[test]
fn the_leader_is_killed_in_mid_grid_and_another_goes_on() {
    let mut house = House::open_on_postgres();
    let other = house.open_beside();
    assert!(house.leads() && !house.beside[other].leads());
    let _worker = house.slow_worker("a", 2);
    let experiment = house.submit(GRID);
    wait_some_completed(&house, &experiment, 2);
    house.kill_coordinator();
    harness::wait("the other one leads", || house.beside[other].leads());
    wait_some_completed(&house, &experiment, 4);
    // It comes back, and follows.
    house.start_coordinator();
    assert!(!house.leads() && house.beside[other].leads());
    // The one that leads now stops as it should: no term is waited for.
    signal(&house.beside[other].process, Signal::SIGTERM);
    harness::wait("the first one leads again", || house.leads());
    house.wait_ended(&experiment);
    each_was_leased_once(&house, &experiment);
}

#[test]
fn a_leader_that_was_held_up_beyond_its_term_decides_nothing_more() {
    let mut house = House::open_on_postgres();
    let other = house.open_beside();
    let _worker = house.slow_worker("a", 2);
    let experiment = house.submit(GRID);
    wait_some_completed(&house, &experiment, 2);
    let held = house.coordinator.take().expect("it runs");
    signal(&held, Signal::SIGSTOP);
    harness::wait("the other one leads", || house.beside[other].leads());
    signal(&held, Signal::SIGCONT);
    house.coordinator = Some(held);
    harness::wait("the first one follows", || {
        let ready = house.beside[other].get("/readyz").is_some();
        ready && !house.leads()
    });
    house.wait_ended(&experiment);
    each_was_leased_once(&house, &experiment);
}

#[test]
fn a_coordinator_that_follows_answers_like_the_one_that_leads() {
    let mut house = House::open_on_postgres();
    let other = house.open_beside();
    let _worker = house.worker("a", 2);
    let experiment = house.submit(GRID);
    house.wait_ended(&experiment);
    for path in [
        "/api/v1/cluster",
        "/api/v1/workers",
        "/api/v1/features",
        "/api/v1/prometheus/targets",
        "/api/v1/models/flowers",
        &format!("/api/v1/experiments/{experiment}"),
        &format!("/api/v1/explain/{experiment}"),
    ] {
        // Time passes between two questions.
        harness::wait(&format!("{path} is answered alike"), || {
            let there = house.beside[other].get(path);
            let there = there.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            there == Some(house.get(path))
        });
    }
    // Typed at the one that follows, with its faults and their status.
    house.only_beside(other);
    let again = house.submit(GRID);
    let (status, error) = house.refused(&["experiment", "cancel", &experiment]);
    assert_eq!((status, &error["code"]), (1, &Value::from("E0104")));
    house.wait_ended(&again);
    nothing_lost(&house, &again);
    let file = house.file("pull/it", "");
    let target = std::path::Path::new(&file).with_file_name("pulled");
    house.json(&[
        "model",
        "pull",
        "flowers@champion",
        target.to_str().expect("UTF-8"),
    ]);
}

#[test]
fn mlflows_registry_and_pulls_are_answered_by_every_coordinator() {
    let mut house = House::open_on_postgres();
    let other = house.open_beside();
    let _worker = house.worker("a", 2);
    let experiment = house.submit(GRID);
    house.wait_ended(&experiment);
    let (leads, follows) = (house.port, house.beside[other].port);
    let send = |port, method, path: &str, body: &str| {
        let path = format!("/api/2.0/mlflow/{path}");
        let (status, body) = http_send(port, method, &path, body).expect("an answer");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        (status, body)
    };
    // What is written at the one that follows is decided by the one that leads, and both show it.
    let alias = r#"{"name": "flowers", "alias": "shadow", "version": "1"}"#;
    let moved = send(follows, "POST", "registered-models/alias", alias);
    assert_eq!(moved, (200, Value::Object(serde_json::Map::new())));
    let tag = r#"{"name": "flowers", "version": "1", "key": "seen", "value": "yes"}"#;
    assert_eq!(send(follows, "POST", "model-versions/set-tag", tag).0, 200);
    let path = "registered-models/alias?name=flowers&alias=shadow";
    for port in [leads, follows] {
        let (status, shown) = send(port, "GET", path, "");
        let version = &shown["model_version"];
        assert_eq!((status, &version["version"]), (200, &Value::from("1")));
        assert_eq!(version["tags"][0]["value"], "yes", "{version}");
    }
    // So is what is refused.
    let gone = r#"{"name": "flowers", "alias": "shadow", "version": "99"}"#;
    let refused = [leads, follows].map(|port| send(port, "POST", "registered-models/alias", gone));
    assert_eq!(refused[0].1, refused[1].1);
    assert_eq!((refused[0].0, refused[1].0), (404, 404));
    // An image of a version is the same image wherever it is pulled.
    let manifest = |port| http_get(port, "/v2/flowers/manifests/shadow").expect("a manifest");
    let said = manifest(leads);
    assert_eq!(said, manifest(follows));
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let config = said["config"]["digest"].as_str().expect("a digest");
    let blob = format!("/v2/flowers/blobs/{config}");
    assert!(http_get(leads, &blob).is_some());
    assert_eq!(http_get(leads, &blob), http_get(follows, &blob));
}

/// The lines of a stream of events, from one coordinator.
struct Events(BufReader<TcpStream>);

impl Events {
    fn of(port: u16, last_id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a coordinator");
        let wait = Some(harness::DEADLINE);
        stream.set_read_timeout(wait).expect("a time limit");
        let header = last_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        write!(
            stream,
            "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n"
        )
        .expect("it is asked");
        Self(BufReader::new(stream))
    }

    /// The next line that begins so, without that; nothing at the stream's end.
    fn next(&mut self, wanted: &str) -> Option<String> {
        let mut line = String::new();
        while self.0.read_line(&mut line).ok()? > 0 {
            if let Some(rest) = line.trim_end().strip_prefix(wanted) {
                return Some(rest.to_owned());
            }
            line.clear();
        }
        None
    }

    /// Reads until the newest event is this one; whether it was told that some were missed.
    fn until(&mut self, id: &str) -> bool {
        let mut missed = false;
        while let Some(data) = self.next("data: ") {
            missed |= data.contains("\"what\":\"missed\"");
            if data.contains(&format!("\"id\":\"{id}\"")) {
                return missed;
            }
        }
        panic!("the stream ended before {id}");
    }
}

fn redis_connected(port: u16) -> bool {
    let metrics = http_get(port, "/metrics").unwrap_or_default();
    metrics
        .lines()
        .any(|line| line == "pomona_redis_connected 1")
}

#[test]
fn a_reader_of_events_goes_on_at_another_coordinator_with_redis_and_without() {
    let mut house = House::open_with_redis();
    let other = house.open_beside();
    let (here, there) = (house.port, house.beside[other].port);
    harness::wait("Redis carries events", || {
        redis_connected(here) && redis_connected(there)
    });
    let mut at_leader = Events::of(here, None);
    let mut at_follower = Events::of(there, None);
    at_leader.next(": hello").expect("it begins");
    at_follower.next(": hello").expect("it begins");
    let worker = house.worker("a", 1);
    house.wait_alive("a");
    let first = at_leader.next("id: ").expect("a worker came");
    assert_eq!(at_follower.next("id: "), Some(first.clone()), "the same id");
    house.json(&["worker", "drain", "a"]);
    let second = at_leader.next("id: ").expect("it drains");
    // From one to the other, after the first event: nothing is missing.
    assert!(!Events::of(there, Some(&first)).until(&second));
    assert!(!Events::of(here, Some(&first)).until(&second));

    house.redis.as_mut().expect("its own").stop();
    harness::wait("it is said that Redis is gone", || {
        !redis_connected(here) && !redis_connected(there)
    });
    // What the follower served ends; asked again, it hands the reader on to the leader.
    while at_follower.next("id: ").is_some() {}
    let mut at_follower = Events::of(there, Some(&second));
    drop(worker);
    let experiment = house.submit(GRID);
    let third = at_leader.next("id: ").expect("an experiment");
    assert!(!at_follower.until(&third));

    house.redis.as_mut().expect("its own").restart();
    harness::wait("Redis is back", || {
        redis_connected(here) && redis_connected(there)
    });
    house.json(&["experiment", "cancel", &experiment]);
    let mut at_follower = Events::of(there, None);
    let _worker = house.worker("b", 1);
    house.wait_alive("b");
    assert!(at_follower.next("id: ").is_some(), "it recovered by itself");
}
