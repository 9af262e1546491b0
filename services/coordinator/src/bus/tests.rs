//! Readers that come, go, come back and are slow.

use super::*;
use pomona_domain::model::{Actor, AliasMove};
use pomona_domain::{Change, Timestamp};

fn moved(revision: u64) -> Change {
    Change::AliasMoved(AliasMove {
        model: "tux".to_owned(),
        alias: "champion".to_owned(),
        from: None,
        to: 1,
        revision,
        at: Timestamp(0),
        reason: "a test".to_owned(),
        deleted: false,
        by: Actor::default(),
    })
}

fn bus(kept: usize, events: u64) -> Bus {
    let bus = Bus::new(kept, 1 << 20);
    bus.begin(7);
    for revision in 1..=events {
        bus.publish([&moved(revision)].into_iter());
    }
    bus
}

fn ids(frames: &[Bytes]) -> Vec<String> {
    let line = |frame: &Bytes| {
        let text = String::from_utf8_lossy(frame).into_owned();
        let missed = if text.contains("missed") {
            " missed"
        } else {
            ""
        };
        format!("{}{missed}", text.lines().next().unwrap_or_default())
    };
    frames.iter().map(line).collect()
}

fn models() -> BTreeSet<Topic> {
    [Topic::Models].into()
}

#[test]
fn a_new_reader_hears_only_what_comes() {
    let bus = bus(10, 3);
    let (at, missed) = bus.position(None);
    assert!(!missed);
    let (frames, at) = bus.read(at, &models());
    assert!(frames.is_empty());
    bus.publish([&moved(4)].into_iter());
    assert_eq!(ids(&bus.read(at, &models()).0), ["id: 7-4"]);
}

#[test]
fn a_reader_that_comes_back_hears_what_it_missed() {
    let bus = bus(10, 3);
    let (at, missed) = bus.position(Some("7-1"));
    assert!(!missed);
    assert_eq!(ids(&bus.read(at, &models()).0), ["id: 7-2", "id: 7-3"]);
}

#[test]
fn an_id_of_an_earlier_coordinator_is_answered_with_missed() {
    let (_, missed) = bus(10, 3).position(Some("6-2"));
    assert!(missed);
}

#[test]
fn a_slow_reader_is_told_that_it_missed_some() {
    let bus = bus(2, 5);
    let (at, missed) = bus.position(Some("7-1"));
    assert!(!missed);
    let frames = ids(&bus.read(at, &models()).0);
    assert_eq!(frames, ["id: 7-3 missed", "id: 7-4", "id: 7-5"]);
}

#[test]
fn topics_that_were_not_asked_for_are_left_out() {
    let bus = bus(10, 3);
    let (at, _) = bus.position(Some("7-0"));
    assert!(bus.read(at, &[Topic::Trials].into()).0.is_empty());
}
