//! From a file to completed trials: leases, reports, and what counts.

use pomona_api::v1::experiments::{TrialOrder, TrialsQuery};
use pomona_api::v1::workers::{DesiredWork, Register};
use pomona_api::v1::{Page, PageQuery};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::StopKind;
use pomona_domain::plan::Choice;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Code, Fault, Generation};

use crate::harness::House;
use crate::worker::{Machine, introduction, trial_of, trials_of};
use crate::{GRID, experiment, file, furnished, submit};

async fn trials(house: &House, owner: &Experiment, order_by: TrialOrder) -> Vec<Trial> {
    let query = TrialsQuery {
        order_by,
        ..TrialsQuery::default()
    };
    let page: Result<Page<Trial>, Fault> =
        house.client.trial_list(&owner.id.to_string(), &query).await;
    page.expect("trials").items
}

async fn trial(house: &House, row: &Trial) -> Trial {
    house
        .client
        .trial_get(&row.id.to_string())
        .await
        .expect("a trial")
}

async fn observed(house: &House, row: &Trial) -> usize {
    let page = PageQuery::default();
    let rows = house
        .client
        .trial_observations(&row.id.to_string(), &page)
        .await;
    rows.expect("observations").items.len()
}

async fn train_all(machine: &mut Machine, results: &[(f64, f64)]) {
    for (accuracy, loss) in results {
        machine
            .until("a lease is there", |leases| !leases.is_empty())
            .await;
        let lease = machine.leases[0].clone();
        machine.train(&lease, *accuracy, *loss).await;
    }
}

#[tokio::test]
async fn a_grid_is_trained_and_its_leaderboard_is_ordered() {
    let (house, mut machine) = furnished(4).await;
    let owner = submit(&house, GRID, "grid").await;
    assert_eq!(
        machine.has(2).await.len(),
        2,
        "`max_concurrent` holds although 4 slots are free"
    );
    // The second and the third are equal on the metric: the smaller loss is first.
    train_all(&mut machine, &[(0.5, 1.0), (0.7, 2.0), (0.7, 1.0)]).await;
    let ended = experiment(&house, &owner).await;
    assert_eq!(ended.state, ExperimentState::Completed);
    let by_number = trials(&house, &owner, TrialOrder::Number).await;
    assert_eq!(
        by_number.iter().map(|row| row.number).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(
        by_number
            .iter()
            .all(|row| row.state == TrialState::Completed)
    );
    let best_first = trials(&house, &owner, TrialOrder::Leaderboard).await;
    let accuracies: Vec<f64> = best_first
        .iter()
        .map(|row| row.latest["val/accuracy"])
        .collect();
    let losses: Vec<f64> = best_first
        .iter()
        .map(|row| row.latest["val/loss"])
        .collect();
    assert_eq!(
        (accuracies, losses),
        (vec![0.7, 0.7, 0.5], vec![1.0, 2.0, 1.0])
    );
    assert_eq!(ended.best, Some(best_first[0].id));
    assert_eq!(machine.has(0).await.len(), 0);
}

#[tokio::test]
async fn a_report_that_comes_again_is_counted_once() {
    let (house, mut machine) = furnished(1).await;
    let owner = submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    machine.observe(&lease, 10, 0.5, 1.0);
    machine.observe(&lease, 20, 0.6, 0.9);
    let body = machine.body(0);
    let first = machine.send(&body).await.unwrap();
    let again = machine.send(&body).await.unwrap();
    assert_eq!(again.acked_seq, first.acked_seq);
    let row = trials(&house, &owner, TrialOrder::Number).await.remove(0);
    assert_eq!(observed(&house, &row).await, 2);
    // Another number, the same step: the first value stays (S4).
    machine.observe(&lease, 20, 0.9, 0.1);
    machine.poll(0).await;
    assert_eq!(observed(&house, &row).await, 2);
    assert_eq!(trial(&house, &row).await.latest["val/accuracy"], 0.6);
}

#[tokio::test]
async fn a_report_of_an_older_generation_is_acknowledged_and_counts_for_nothing() {
    let (house, mut machine) = furnished(1).await;
    let owner = submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    machine.checkpoint(&lease, CheckpointKind::Last, 10).await;
    let mut stale = lease.clone();
    stale.generation = Generation(lease.generation.0 - 1);
    machine.observe(&stale, 30, 0.99, 0.0);
    machine.poll(0).await;
    let row = trials(&house, &owner, TrialOrder::Number).await.remove(0);
    assert_eq!(observed(&house, &row).await, 0);
    assert_eq!(
        trial(&house, &row).await.state,
        TrialState::Running { lease: lease.lease }
    );
    // It is the lease that counts, so the trial goes on as if nothing had been said.
    machine.observe(&lease, 20, 0.5, 1.0);
    machine.poll(0).await;
    assert_eq!(observed(&house, &row).await, 1);
}

#[tokio::test]
async fn a_crash_is_tried_again_from_the_last_checkpoint_until_restarts_run_out() {
    let (house, mut machine) = furnished(1).await;
    let owner = submit(&house, GRID, "grid").await;
    let crashed = || Outcome::Crashed {
        fault: Fault::new(Code::TrainerCrashed, "rank 0 ended with status 139"),
    };
    let lease = machine.has(1).await.remove(0);
    let first = trial_of(&lease);
    let digest = machine.checkpoint(&lease, CheckpointKind::Last, 10).await;
    machine.exit(&lease, crashed());
    // Another trial may be placed first: the crashed one waits for its back-off.
    loop {
        machine
            .until("a lease is there", |leases| !leases.is_empty())
            .await;
        let lease = machine.leases[0].clone();
        if trial_of(&lease) == first {
            let wanted = serde_json::json!(digest);
            let work = serde_json::to_value(&lease.work).unwrap();
            assert_eq!(work["members"][0]["resume"], wanted);
            machine.exit(&lease, crashed());
            break;
        }
        machine.train(&lease, 0.5, 1.0).await;
    }
    train_rest(&mut machine, &house, &owner).await;
    let row = trials(&house, &owner, TrialOrder::Number).await.remove(0);
    let TrialState::Failed { fault } = row.state else {
        panic!("{row:?}");
    };
    assert_eq!(fault.code, Code::RestartsExhausted);
    assert!(fault.message.contains("status 139"), "{fault}");
    let why = house.client.explain(&row.id.to_string()).await.unwrap();
    assert!(why.now.starts_with("it failed"), "{why:?}");
    assert!(
        why.reasons
            .iter()
            .any(|reason| reason.text.contains("tried again")),
        "{why:?}"
    );
}

async fn train_rest(machine: &mut Machine, house: &House, owner: &Experiment) {
    while experiment(house, owner).await.state == ExperimentState::Active {
        machine.poll(50).await;
        if let Some(lease) = machine.leases.first().cloned() {
            machine.train(&lease, 0.5, 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_pause_asks_for_a_checkpoint_and_a_resume_goes_on_from_it() {
    let (house, mut machine) = furnished(1).await;
    let owner = submit(&house, GRID, "grid").await;
    let id = owner.id.to_string();
    let lease = machine.has(1).await.remove(0);
    let paused = house.client.experiment_pause(&id).await.unwrap();
    assert_eq!(paused.state, ExperimentState::Paused);
    machine
        .until("it is asked to stop", |leases| {
            leases
                .iter()
                .any(|lease| lease.stop == Some(StopKind::Checkpoint))
        })
        .await;
    let digest = machine.checkpoint(&lease, CheckpointKind::Last, 10).await;
    machine.exit(&lease, Outcome::Stopped);
    machine.poll(0).await;
    let rows = trials(&house, &owner, TrialOrder::Number).await;
    assert_eq!(rows[0].state, TrialState::Paused);
    let why = house.client.explain(&id).await.unwrap();
    assert!(why.now.contains("paused"), "{why:?}");
    house.client.experiment_resume(&id).await.unwrap();
    machine.has(1).await;
    let work = serde_json::to_value(&machine.leases[0].work).unwrap();
    assert_eq!(work["members"][0]["resume"], serde_json::json!(digest));
    assert_eq!(trial_of(&machine.leases[0]), rows[0].id);
}

#[tokio::test]
async fn a_cancel_takes_every_lease_back_at_once() {
    let (house, mut machine) = furnished(2).await;
    let owner = submit(&house, GRID, "grid").await;
    let id = owner.id.to_string();
    machine.has(2).await;
    let canceled = house.client.experiment_cancel(&id).await.unwrap();
    assert_eq!(canceled.state, ExperimentState::Canceled);
    machine.has(0).await;
    let rows = trials(&house, &owner, TrialOrder::Number).await;
    assert!(
        rows.iter().all(|row| row.state == TrialState::Canceled),
        "{rows:?}"
    );
    let again = house.client.experiment_cancel(&id).await.unwrap_err();
    assert_eq!(again.code, Code::WrongState);
}

#[tokio::test]
async fn a_trial_that_is_stopped_counts_with_what_it_has() {
    let (house, mut machine) = furnished(1).await;
    let owner = submit(&house, GRID, "grid").await;
    let lease = machine.has(1).await.remove(0);
    machine.observe(&lease, 10, 0.5, 1.0);
    machine.poll(0).await;
    let id = trial_of(&lease).to_string();
    let stopping = house.client.trial_stop(&id).await.unwrap();
    assert!(
        matches!(stopping.state, TrialState::Stopping { .. }),
        "{stopping:?}"
    );
    machine.exit(&lease, Outcome::Stopped);
    machine.poll(0).await;
    let rows = trials(&house, &owner, TrialOrder::Number).await;
    assert_eq!(rows[0].state, TrialState::Completed);
    assert_eq!(
        house.client.trial_stop(&id).await.unwrap_err().code,
        Code::WrongState
    );
}

#[tokio::test]
async fn a_start_reaches_a_waiting_poll_at_once() {
    let (house, mut machine) = furnished(1).await;
    machine.poll(0).await;
    let body = machine.body(4000);
    let began = std::time::Instant::now();
    let (desired, _) = tokio::join!(machine.send(&body), submit(&house, GRID, "grid"));
    assert_eq!(desired.unwrap().leases.len(), 1);
    assert!(
        began.elapsed().as_millis() < 3000,
        "the poll waited for its time: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_preview_draws_what_a_submission_would_make() {
    let (house, _machine) = furnished(1).await;
    let preview = house.client.experiment_preview(&file(GRID)).await.unwrap();
    assert_eq!(preview.trials, 3);
    assert_eq!(preview.dataset, "flowers@1");
    let plan = preview.plan.as_ref().unwrap();
    assert_eq!((preview.epochs, plan.samples), (6, 72));
    let owner = submit(&house, GRID, "grid").await;
    let drawn: Vec<_> = preview
        .points
        .into_iter()
        .map(|point| point.hparams)
        .collect();
    let rows = trials(&house, &owner, TrialOrder::Number).await;
    assert_eq!(
        rows.into_iter().map(|row| row.hparams).collect::<Vec<_>>(),
        drawn
    );
}

#[tokio::test]
async fn an_experiment_says_what_it_should_cost_and_what_it_has_cost() {
    let (house, mut machine) = furnished(1).await;
    let grid = GRID
        .replace("share: off", "share: auto")
        .replace("  max_concurrent: 2\n", "");
    let preview = house.client.experiment_preview(&file(&grid)).await.unwrap();
    let owner = submit(&house, &grid, "grid").await;
    assert_eq!(owner.plan.as_deref(), preview.plan.as_ref());
    let id = owner.id.to_string();
    let why = house.client.explain(&id).await.unwrap();
    let told: Vec<&str> = why
        .reasons
        .iter()
        .map(|reason| reason.text.as_str())
        .collect();
    insta::assert_snapshot!(told.join("\n"));

    let lease = machine.has(1).await.remove(0);
    let runs = house.client.experiment_get(&id).await.unwrap();
    assert_eq!((runs.running.leases, runs.running.shared_leases), (1, 1));
    assert!(runs.spent.is_nothing());
    machine.exit(&lease, Outcome::Finished);
    machine.poll(0).await;
    let over = house.client.experiment_get(&id).await.unwrap();
    assert_eq!(over.state, ExperimentState::Completed);
    assert!(over.running.is_nothing());
    assert_eq!((over.spent.leases, over.spent.shared_leases), (1, 1));
    let now = house.client.explain(&id).await.unwrap().now;
    let cost = format!("it cost {}", over.spent.sentence());
    assert!(now.ends_with(&cost), "{now}");
}

#[tokio::test]
async fn head_only_trials_share_a_lease_and_each_has_a_fate_of_its_own() {
    let (house, mut machine) = furnished(1).await;
    let grid = GRID
        .replace("share: off", "share: auto")
        .replace("  max_concurrent: 2\n", "");
    let owner = submit(&house, &grid, "grid").await;
    let lease = machine.has(1).await.remove(0);
    let members = trials_of(&lease);
    assert_eq!(members.len(), 3, "all on the one slot");
    let why = house.client.explain(&members[0].to_string()).await.unwrap();
    assert!(
        why.now.contains("in one process with 2 other trials"),
        "{why:?}"
    );
    // The first fails by itself, the second is measured, then the process crashes.
    let fault = Fault::new(
        Code::NotANumber,
        "the training loss is not a number at step 3",
    );
    machine.report(
        &lease,
        ReportBody::TrialEnded {
            trial: members[0],
            outcome: Outcome::Failed {
                fault,
                retry: false,
            },
        },
    );
    let crashed = Outcome::Crashed {
        fault: Fault::new(Code::TrainerCrashed, "the trainer ended with status 139"),
    };
    machine.exit(&lease, crashed);
    machine.poll(0).await;
    let rows = trials(&house, &owner, TrialOrder::Number).await;
    assert!(
        matches!(rows[0].state, TrialState::Failed { .. }),
        "{:?}",
        rows[0]
    );
    assert_eq!(
        [rows[1].restarts, rows[2].restarts],
        [0, 0],
        "nobody knows whose fault it was"
    );
    // Two were left: each is leased again alone, one after the other.
    for _ in 0..2 {
        let lease = machine.has(1).await.remove(0);
        let trial = trial_of(&lease);
        let why = house.client.explain(&trial.to_string()).await.unwrap();
        let told = why
            .reasons
            .iter()
            .any(|reason| reason.text.contains("crashed"));
        assert!(told, "{why:?}");
        machine.train(&lease, 0.5, 1.0).await;
    }
    machine.until("nothing is leased", <[_]>::is_empty).await;
    let rows = trials(&house, &owner, TrialOrder::Number).await;
    let completed = |row: &&Trial| row.state == TrialState::Completed;
    assert_eq!(rows.iter().filter(completed).count(), 2, "{rows:?}");
}

#[tokio::test]
async fn trials_at_a_cut_that_does_not_fit_the_budget_are_told_to_keep_no_features() {
    let (house, mut machine) = furnished(1).await;
    for (budget, keeps) in [(1, false), (1 << 30, true)] {
        let told = Register {
            feature_budget_bytes: Some(budget),
            ..introduction(1, 1)
        };
        house.client.worker_register(&told).await.unwrap();
        let grid = GRID.replace("share: off", "share: auto");
        let owner = submit(&house, &grid, &format!("grid {budget}")).await;
        let plan = owner.plan.clone().unwrap();
        assert_eq!(plan.feature_budget_bytes, Some(budget));
        let objective = if keeps { "cv/accuracy" } else { "val/accuracy" };
        assert_eq!(owner.spec.search.objective(), objective);
        assert_eq!(plan.cuts[0].choice == Choice::Fused, keeps, "{plan:?}");
        let lease = machine.has(1).await.remove(0);
        let DesiredWork::Train { keep_features, .. } = &lease.work else {
            panic!("{lease:?}");
        };
        assert_eq!(*keep_features, keeps, "{budget} bytes");
        let id = owner.id.to_string();
        house.client.experiment_cancel(&id).await.unwrap();
        machine.until("nothing is leased", <[_]>::is_empty).await;
    }
}
