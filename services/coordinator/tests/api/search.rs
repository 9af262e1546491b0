//! Searches that hear how trials do, over HTTP: a stop at a rung reaches the worker and survives a
//! restart, and an experiment may start from the best points of another.

use pomona_api::v1::Page;
use pomona_api::v1::experiments::{TrialOrder, TrialsQuery};
use pomona_domain::experiment::Experiment;
use pomona_domain::lease::StopKind;
use pomona_domain::report::Outcome;
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Code, Fault};

use crate::harness::House;
use crate::worker::trial_of;
use crate::{GRID, file, furnished, submit};

async fn trials(house: &House, owner: &Experiment) -> Vec<Trial> {
    let query = TrialsQuery {
        order_by: TrialOrder::Number,
        ..TrialsQuery::default()
    };
    let page: Result<Page<Trial>, Fault> =
        house.client.trial_list(&owner.id.to_string(), &query).await;
    page.expect("trials").items
}

/// The grid as a search with rungs after epochs 1 and 3 of 9.
fn asha() -> String {
    GRID.replace("epochs: 2", "epochs: 9")
        .replace("search:", "search:\n  strategy: asha")
}

#[tokio::test]
async fn a_trial_that_is_behind_at_a_rung_is_stopped_also_after_a_restart() {
    let (mut house, mut machine) = furnished(2).await;
    let owner = submit(&house, &asha(), "asha").await;
    let leases = machine.has(2).await;
    machine.observe(&leases[0], 10, 0.8, 1.0);
    machine.poll(0).await;
    house.kill();
    house.restart().await;
    machine.meet(&house.client);
    machine.observe(&leases[1], 10, 0.5, 1.0);
    let second = leases[1].lease;
    let is_asked = |desired: &[pomona_api::v1::workers::DesiredLease]| {
        let lease = desired.iter().find(|lease| lease.lease == second);
        lease.is_some_and(|lease| lease.stop == Some(StopKind::Checkpoint))
    };
    machine.until("the stop is told", is_asked).await;
    let page = house.client.metrics().await.expect("metrics");
    let rung = "pomona_rung_trials{experiment=\"flowers\",rung=\"1\"} 2\n";
    assert!(page.contains(rung), "{page}");
    machine.exit(&leases[1], Outcome::Stopped);
    machine.poll(0).await;
    let stopped = trial_of(&leases[1]);
    let rows = trials(&house, &owner).await;
    let row = rows.iter().find(|row| row.id == stopped).expect("a trial");
    assert_eq!(row.state, TrialState::Completed);
    let why = house.client.explain(&stopped.to_string()).await;
    let why = why.expect("an explanation");
    assert!(
        (why.reasons.iter()).any(|reason| reason.text.contains("the rung's 2nd of 2 points")),
        "{:?}",
        why.reasons
    );
}

#[tokio::test]
async fn the_best_points_of_an_earlier_experiment_are_tried_first() {
    let (house, mut machine) = furnished(1).await;
    let first = submit(&house, GRID, "first").await;
    for accuracy in [0.5, 0.9, 0.7] {
        let lease = machine.has(1).await.remove(0);
        machine.train(&lease, accuracy, 1.0).await;
    }
    let text = GRID
        .replace("name: flowers\n", "name: again\n")
        .replace(
            "search:",
            "search:\n  strategy: random\n  max_trials: 4\n  warm_start: {experiments: [flowers], points: 2}",
        )
        .replace("{values: [0.1, 0.01, 0.001]}", "{log_uniform: [0.005, 1]}");
    let again = submit(&house, &text, "again").await;
    let rates: Vec<f64> = trials(&house, &again)
        .await
        .iter()
        .map(|row| {
            row.hparams.0["train.learning_rate"]
                .as_f64()
                .expect("a rate")
        })
        .collect();
    // The second best of it lies outside the new set.
    assert_eq!((rates[0], rates.len()), (0.01, 4));
    assert!(rates[1] > 0.005 && rates[1] != 0.001, "{rates:?}");
    let why = house.client.explain(&again.id.to_string()).await;
    let why = why.expect("an explanation");
    assert!(
        (why.reasons.iter()).any(|reason| reason.text.contains("is not tried first")),
        "{:?}",
        why.reasons
    );
    let unknown = text.replace("[flowers]", "[roses]");
    let fault = house
        .client
        .experiment_submit(&file(&unknown), "roses")
        .await;
    assert_eq!(fault.expect_err("no roses").code, Code::BadWarmStart);
    assert_ne!(first.id, again.id);
}
