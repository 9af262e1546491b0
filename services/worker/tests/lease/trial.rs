//! A trial from its first to its last report.

use crate::bench::{Bench, EPOCHS, STEPS, checkpoints, observed, until};
use pomona_api::trainer::TrainerWork;
use pomona_api::v1::workers::LogLine;
use pomona_domain::TrialId;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::report::{Outcome, ReportBody};
use pomona_worker::lease::{Wish, supervise};
use pomona_worker::spool::Spool;
use tokio::sync::watch;

#[tokio::test]
async fn a_trial_reports_its_start_every_epoch_once_and_its_checkpoints() {
    let bench = Bench::new(&[]);
    assert_eq!(bench.run(bench.trial()).await, Outcome::Finished);
    let reports = bench.reports().await;
    let ReportBody::Started { environment } = &reports[0].body else {
        panic!("the first report is {:?}", reports[0].body);
    };
    assert!(environment.contains_key("threads"));
    let seen: Vec<_> = observed(&reports)
        .into_iter()
        .map(|(step, epoch, _)| (step, epoch))
        .collect();
    let all: Vec<_> = (1..=EPOCHS)
        .map(|epoch| (u64::from(epoch) * STEPS, epoch))
        .collect();
    assert_eq!(seen, all);
    let last = checkpoints(&reports, CheckpointKind::Last);
    assert_eq!(last.last(), Some(&(u64::from(EPOCHS) * STEPS)));
    assert!(!checkpoints(&reports, CheckpointKind::Best).is_empty());
    assert_eq!(bench.tools.metrics.samples(), u64::from(EPOCHS) * STEPS * 4);
    let logged = bench.tools.logs.take();
    assert!(
        logged
            .iter()
            .any(|line| line.line.contains("rank 0 of 1 begins"))
    );
}

#[tokio::test]
async fn a_trial_that_is_stopped_goes_on_as_if_it_had_never_stopped() {
    let whole = Bench::new(&[]);
    whole.run(whole.trial()).await;
    let whole = observed(&whole.reports().await);

    let bench = Bench::new(&[("FAKE_STEP_MS", "20")]);
    // Started, and the first epoch with its two checkpoints.
    let outcome = bench.run_until(bench.trial(), 4, Wish::Stop).await;
    assert_eq!(outcome, Outcome::Stopped);
    let first = bench.reports().await;
    let stopped_at = *checkpoints(&first, CheckpointKind::Last).last().unwrap();
    assert!(
        (STEPS..u64::from(EPOCHS) * STEPS).contains(&stopped_at),
        "{stopped_at}"
    );
    let mut work = bench.train();
    work.members[0].resume = Some(
        bench
            .output()
            .join(format!("last-{stopped_at}.safetensors")),
    );
    let outcome = bench.run(TrainerWork::Train(Box::new(work))).await;
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(observed(&bench.reports().await), whole);
}

#[tokio::test]
async fn a_trial_that_is_killed_leaves_no_process() {
    let bench = Bench::new(&[("FAKE_STEP_MS", "20")]);
    let outcome = bench.run_until(bench.trial(), 1, Wish::Kill).await;
    assert_eq!(outcome, Outcome::Killed);
}

#[tokio::test]
async fn a_full_spool_makes_the_trainer_wait_and_loses_nothing() {
    let mut bench = Bench::new(&[]);
    // Far too short for a trainer that waits, were the wait its own.
    bench.limits.floor = std::time::Duration::from_millis(300);
    bench.limits.factor = 1;
    bench.tools.spool = Spool::open(bench.folder.path(), 1500).unwrap();
    let spool = bench.tools.spool.clone();
    let coordinator = async {
        let mut reports = Vec::new();
        until("the spool is full", || spool.is_full()).await;
        // Longer than a trainer may be silent.
        let begun = std::time::Instant::now();
        until("the trainer has waited", || {
            begun.elapsed().as_millis() > 600
        })
        .await;
        loop {
            for entry in spool.uploads() {
                spool.uploaded(entry.entry);
            }
            spool.seal().await.unwrap();
            let batch = spool.batch(100);
            if let Some(last) = batch.last() {
                spool.ack(last.seq).unwrap();
            }
            reports.extend(batch);
            if observed(&reports).len() == EPOCHS as usize {
                return reports;
            }
            tokio::task::yield_now().await;
        }
    };
    let (_wish, wished) = watch::channel(Wish::Run);
    let (outcome, reports) = tokio::join!(bench.run_wished(bench.trial(), wished), coordinator);
    assert_eq!(outcome, Outcome::Finished);
    let epochs: Vec<_> = observed(&reports)
        .iter()
        .map(|(_, epoch, _)| *epoch)
        .collect();
    assert_eq!(epochs, (1..=EPOCHS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_trainer_that_waits_for_a_full_spool_can_be_killed() {
    let mut bench = Bench::new(&[]);
    bench.tools.spool = Spool::open(bench.folder.path(), 1500).unwrap();
    let (wish, wished) = watch::channel(Wish::Run);
    let killing = async {
        until("the spool is full", || bench.tools.spool.is_full()).await;
        wish.send_replace(Wish::Kill);
    };
    let (outcome, ()) = tokio::join!(bench.run_wished(bench.trial(), wished), killing);
    // It may have trained to its end meanwhile: its last lines wait in the pipe.
    assert!(matches!(outcome, Outcome::Killed), "{outcome:?}");
}

#[tokio::test]
async fn trials_of_one_lease_end_one_by_one_and_each_has_its_own_log() {
    let bench = Bench::new(&[]);
    let mut work = bench.train();
    let first = work.members[0].clone();
    for trial in [2, 3] {
        let mut member = first.clone();
        member.trial = TrialId(trial);
        member.output = bench.output().join(trial.to_string());
        work.members.push(member);
    }
    work.members[1].spec.train.epochs = 2;
    // It diverges.
    work.members[2].spec.train.learning_rate = 3.0;
    let mut order = bench.order(TrainerWork::Train(Box::new(work)));
    order.owners = (1..=3).map(|trial| TrialId(trial).to_string()).collect();
    let (_wish, wished) = watch::channel(Wish::Run);
    let outcome = supervise(&bench.tools, &order, wished).await;
    assert_eq!(outcome, Outcome::Finished);
    let reports = bench.reports().await;
    let ended: Vec<(TrialId, bool)> = (reports.iter())
        .filter_map(|report| match &report.body {
            ReportBody::TrialEnded { trial, outcome } => {
                Some((*trial, *outcome == Outcome::Finished))
            }
            ReportBody::Started { .. }
            | ReportBody::Meets { .. }
            | ReportBody::Observed { .. }
            | ReportBody::Checkpoint { .. }
            | ReportBody::Result { .. }
            | ReportBody::Exited { .. } => None,
        })
        .collect();
    assert_eq!(ended, [(TrialId(3), false), (TrialId(2), true)]);
    let epochs = |wanted: u128| {
        let seen = reports.iter().filter(|report| {
            matches!(&report.body, ReportBody::Observed { trial, .. } if trial.0 == wanted as u64)
        });
        seen.count()
    };
    assert_eq!((epochs(1), epochs(2)), (EPOCHS as usize, 2));
    // A line without an owner is everybody's, one that begins with an owner is its own.
    let lines = bench.tools.logs.take();
    let of = |trial: u64, text: &str| {
        let owner = TrialId(trial).to_string();
        let mine = |line: &&LogLine| line.owner == owner && line.line.starts_with(text);
        lines.iter().filter(mine).count()
    };
    for trial in 1..=3 {
        assert_eq!(of(trial, "rank 0 of 1 begins"), 1, "trial {trial}");
    }
    let told = |trial| of(trial, "error[E0601]");
    assert_eq!((told(1), told(2), told(3)), (0, 0, 1));
}
