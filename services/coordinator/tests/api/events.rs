//! Live events: they come after the commit, and a reader that comes back misses nothing.

use pomona_api::client::EventStream;
use pomona_api::v1::events::{LiveEvent, Topic, What};
use pomona_domain::trial::TrialState;

use crate::harness::{DEADLINE, House};
use crate::worker::Machine;
use crate::{GRID, furnished, submit};

async fn next(stream: &mut EventStream) -> LiveEvent {
    let event = tokio::time::timeout(DEADLINE, stream.next()).await;
    event
        .expect("an event in time")
        .expect("an open stream")
        .expect("an event")
}

fn said(what: &What) -> String {
    match what {
        What::Missed => "missed".to_owned(),
        What::Experiment(row) => format!("experiment {}", row.spec.name),
        What::Trial(row) => {
            let state = match row.state {
                TrialState::Waiting { .. } => "waiting",
                TrialState::Running { .. } => "running",
                TrialState::Completed => "completed",
                TrialState::Stopping { .. }
                | TrialState::Paused
                | TrialState::Failed { .. }
                | TrialState::Canceled => "other",
            };
            format!("trial {} {state}", row.number)
        }
        What::Observed(row) => format!("observed step {}", row.step),
        What::Worker(row) => format!("worker {}", row.name),
        What::Task(_) => "task".to_owned(),
        What::Dataset(row) => format!("data set {}", row.name),
        What::Backbone(row) => format!("backbone {}", row.name),
        What::Version(row) => format!("version {}", row.number),
        What::AliasMoved(row) => format!("alias {}", row.alias),
    }
}

async fn hear(stream: &mut EventStream, wanted: &str) {
    loop {
        let event = next(stream).await;
        if said(&event.what) == wanted {
            return;
        }
    }
}

#[tokio::test]
async fn a_reader_hears_what_it_asked_for_in_order() {
    let (house, mut machine) = furnished(1).await;
    let mut stream = house.client.events(&[Topic::Trials], None).await.unwrap();
    submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    machine.observe(&lease, 10, 0.5, 1.0);
    machine.poll(0).await;
    machine.train(&lease, 0.6, 0.9).await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "trial 1 completed") {
        let event = next(&mut stream).await;
        heard.push(said(&event.what));
    }
    // A trial is told of with every step of its life; other topics are left out.
    let first = |text: &str| heard.iter().position(|what| what == text);
    assert!(
        first("trial 1 running") < first("observed step 10"),
        "{heard:?}"
    );
    assert!(first("observed step 10").is_some(), "{heard:?}");
    assert!(
        heard
            .iter()
            .all(|what| what.starts_with("trial") || what.starts_with("observed"))
    );
}

#[tokio::test]
async fn a_reader_that_comes_back_hears_what_it_missed() {
    let house = House::open().await;
    let mut stream = house.client.events(&[Topic::Workers], None).await.unwrap();
    Machine::join(&house.client, 1, 1).await;
    hear(&mut stream, "worker machine-1").await;
    let last_id = stream.last_id().unwrap().to_owned();
    drop(stream);
    Machine::join(&house.client, 2, 1).await;
    Machine::join(&house.client, 3, 1).await;
    let mut stream = house
        .client
        .events(&[Topic::Workers], Some(&last_id))
        .await
        .unwrap();
    assert_eq!(said(&next(&mut stream).await.what), "worker machine-2");
    assert_eq!(said(&next(&mut stream).await.what), "worker machine-3");
}

#[tokio::test]
async fn a_reader_of_an_earlier_coordinator_is_told_that_it_missed_something() {
    let mut house = House::open().await;
    let mut stream = house.client.events(&[], None).await.unwrap();
    Machine::join(&house.client, 1, 1).await;
    hear(&mut stream, "worker machine-1").await;
    let last_id = stream.last_id().unwrap().to_owned();
    house.kill();
    house.restart().await;
    let mut stream = house.client.events(&[], Some(&last_id)).await.unwrap();
    assert_eq!(next(&mut stream).await.what, What::Missed);
    Machine::join(&house.client, 2, 1).await;
    hear(&mut stream, "worker machine-2").await;
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_refused() {
    let house = House::open().await;
    let refused = house.get("/api/v1/events?topics=trials,weather").await;
    assert_eq!(refused.refused(), "E0101 400");
    assert!(refused.text.contains("`experiments`"), "{}", refused.text);
}
