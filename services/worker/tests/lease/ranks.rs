//! Several ranks: one group, one store, one fate.

use crate::bench::{Bench, EPOCHS, STEPS, observed, short};
use pomona_domain::report::{Outcome, ReportBody};
use pomona_worker::lease::Wish;

fn bench(environment: &[(&str, &str)]) -> Bench {
    let mut bench = Bench::new(environment);
    bench.slots = 2;
    bench
}

#[tokio::test]
async fn two_ranks_find_each_other_and_only_the_first_observes() {
    let bench = bench(&[]);
    assert_eq!(bench.run(bench.trial()).await, Outcome::Finished);
    let reports = bench.reports().await;
    let starts = reports
        .iter()
        .filter(|r| matches!(r.body, ReportBody::Started { .. }));
    assert_eq!(starts.count(), 1);
    assert_eq!(observed(&reports).len(), EPOCHS as usize);
    // Both ranks' halves of each batch.
    assert_eq!(bench.tools.metrics.samples(), u64::from(EPOCHS) * STEPS * 4);
    let logged = bench.tools.logs.take();
    for rank in 0..2 {
        let text = format!("rank {rank} of 2 begins");
        assert!(
            logged
                .iter()
                .any(|line| line.rank == rank && line.line == text)
        );
    }
}

#[tokio::test]
async fn one_lost_rank_ends_the_others() {
    let bench = bench(&[("FAKE_FAULT", "crash@4#1"), ("FAKE_STEP_MS", "20")]);
    let told = short(&bench.run(bench.trial()).await);
    let begin = "crashed E0604: rank 1 was ended by signal 6 (SIGABRT)";
    assert!(told.starts_with(begin), "{told}");
}

#[tokio::test]
async fn every_rank_is_asked_to_stop() {
    let bench = bench(&[("FAKE_STEP_MS", "20")]);
    let outcome = bench.run_until(bench.trial(), 4, Wish::Stop).await;
    assert_eq!(outcome, Outcome::Stopped);
}

#[tokio::test]
async fn a_store_that_does_not_start_is_told_and_nothing_is_left() {
    let mut bench = bench(&[]);
    // A program that answers nothing.
    bench.tools.trainer = std::sync::Arc::new("/bin/false".into());
    let told = short(&bench.run(bench.trial()).await);
    assert!(
        told.starts_with("not started E0902: the c10d store of the lease did not start"),
        "{told}"
    );
}
