//! Who gets the slots: drained workers, preemption, workers that are excluded.

use pomona_api::v1::PageQuery;
use pomona_api::v1::workers::DesiredLease;
use pomona_domain::lease::StopKind;
use pomona_domain::report::Outcome;
use pomona_domain::{Code, Fault};

use crate::harness::House;
use crate::worker::{Machine, trial_of};
use crate::{GRID, furnished, submit};

#[tokio::test]
async fn a_drained_worker_is_asked_for_checkpoints_and_gets_nothing_new() {
    let (house, mut machine) = furnished(1).await;
    submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    // It may go on for an hour; then the operator changes his mind.
    let slow = house.client.worker_drain("machine-1", Some(3600)).await;
    assert!(slow.unwrap().drain_by.is_some());
    assert_eq!(machine.has(1).await[0].stop, None);
    house.client.worker_drain("machine-1", None).await.unwrap();
    let asked = |leases: &[DesiredLease]| leases[0].stop == Some(StopKind::Checkpoint);
    machine.until("the lease is asked to stop", asked).await;
    machine.exit(&lease, Outcome::Stopped);
    machine.poll(300).await;
    assert!(machine.leases.is_empty());
    let trial = house.client.trial_get(&trial_of(&lease).to_string()).await;
    let trial = trial.unwrap();
    assert_eq!((trial.state.name(), trial.restarts), ("waiting", 0));
    let why = house.client.explain(&trial.id.to_string()).await.unwrap();
    assert!(why.now.contains("drains"), "{why:?}");
    let told = |text: &str| why.reasons.iter().any(|row| row.text.contains(text));
    assert!(told("worker `machine-1` drains"), "{why:?}");
    house.client.worker_undrain("machine-1").await.unwrap();
    machine.has(1).await;
}

#[tokio::test]
async fn higher_priority_takes_a_slot_and_everybody_is_told_why() {
    let house = House::with(&[("scheduler.preempt_after_ms", "0")]).await;
    let mut machine = Machine::join(&house.client, 1, 1).await;
    machine.furnish().await;
    submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    let urgent = GRID.replace("name: flowers", "name: urgent\npriority: 80");
    submit(&house, &urgent, "urgent").await;
    let asked = |leases: &[DesiredLease]| leases[0].stop == Some(StopKind::Checkpoint);
    machine.until("the lease is asked to stop", asked).await;
    let trial = trial_of(&lease).to_string();
    let why = house.client.explain(&trial).await.unwrap();
    assert!(
        why.now.contains("preempted by work of higher priority"),
        "{why:?}"
    );
    let told = |text: &str| why.reasons.iter().any(|row| row.text.contains(text));
    assert!(
        told("preempted by trial 1 of `urgent`, whose priority is 80"),
        "{why:?}"
    );
    machine.exit(&lease, Outcome::Stopped);
    machine.poll(0).await;
    assert_ne!(trial_of(&machine.has(1).await[0]).to_string(), trial);
    let page = house.client.metrics().await.unwrap();
    assert!(
        page.contains("pomona_preemptions_total{reason=\"priority\"} 1"),
        "{page}"
    );
}

#[tokio::test]
async fn a_worker_on_which_all_breaks_is_excluded_and_the_list_says_why() {
    let house = House::with(&[("scheduler.exclude_after", "2")]).await;
    let mut bad = Machine::join(&house.client, 1, 1).await;
    bad.furnish().await;
    submit(&house, GRID, "grid").await;
    let mut good = Machine::join(&house.client, 2, 1).await;
    good.has(1).await;
    for _ in 0..2 {
        let lease = bad.has(1).await.remove(0);
        let fault = Fault::new(Code::TrainerCrashed, "a bus error");
        bad.exit(&lease, Outcome::Crashed { fault });
        bad.poll(0).await;
    }
    let page = house
        .client
        .worker_list(&PageQuery::default())
        .await
        .unwrap();
    let said: Vec<bool> = page
        .items
        .iter()
        .map(|row| row.excluded.is_some())
        .collect();
    assert_eq!(said, [true, false]);
    let why = house.client.explain(&bad.id().to_string()).await.unwrap();
    assert!(
        why.now
            .contains(page.items[0].excluded.as_deref().unwrap()[..20].trim()),
        "{why:?}"
    );
}
