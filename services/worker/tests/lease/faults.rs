//! Everything that can go wrong with one rank.

use crate::bench::{Bench, DEADLINE, observed, short, until};
use pomona_domain::report::Outcome;
use pomona_worker::lease::Wish;
use std::sync::Arc;
use std::time::{Duration, Instant};

async fn check(bench: &Bench, expect: &str) {
    let told = short(&bench.run(bench.trial()).await);
    assert!(told.starts_with(expect), "{told}");
}

#[tokio::test]
async fn a_crash_is_told_with_its_signal_and_its_last_words() {
    let bench = Bench::new(&[("FAKE_FAULT", "crash@5")]);
    let told = short(&bench.run(bench.trial()).await);
    let begin = "crashed E0604: the trainer was ended by signal 6 (SIGABRT) without a word";
    assert!(told.starts_with(begin), "{told}");
    assert!(told.contains("about to crash, as told"), "{told}");
    // What it had said before counts.
    assert_eq!(observed(&bench.reports().await).len(), 1);
}

#[tokio::test]
async fn an_exit_without_a_word_is_a_crash() {
    let bench = Bench::new(&[("FAKE_FAULT", "exit@2")]);
    check(
        &bench,
        "crashed E0604: the trainer ended with status 1 without a word",
    )
    .await;
}

#[tokio::test]
async fn a_loss_that_is_no_number_fails_the_trial_for_good() {
    let bench = Bench::new(&[("FAKE_FAULT", "nan@4")]);
    check(
        &bench,
        "failed E0601 false: the training loss is not a number at step 4",
    )
    .await;
    let mut diverging = Bench::new(&[]).train();
    diverging.members[0].spec.train.learning_rate = 3.0;
    let bench = Bench::new(&[]);
    let mut work = bench.train();
    work.members[0].spec = diverging.members[0].spec.clone();
    let work = pomona_api::trainer::TrainerWork::Train(Box::new(work));
    assert!(short(&bench.run(work).await).starts_with("failed E0601 false"));
}

#[tokio::test]
async fn a_trainer_that_refuses_is_heard() {
    let bench = Bench::new(&[("FAKE_FAULT", "refuse")]);
    check(
        &bench,
        "failed E0508 false: this trainer was told to refuse",
    )
    .await;
}

#[tokio::test]
async fn a_trainer_that_beats_without_a_step_is_stalled() {
    let mut bench = Bench::new(&[("FAKE_FAULT", "hang@3")]);
    bench.limits.floor = Duration::from_millis(300);
    bench.limits.factor = 1;
    check(&bench, "crashed E0306: it made no step for").await;
}

#[tokio::test]
async fn a_trainer_that_says_nothing_is_stalled_and_its_children_go_with_it() {
    let mut bench = Bench::new(&[("FAKE_FAULT", "freeze@5")]);
    bench.limits.floor = Duration::from_millis(300);
    bench.limits.factor = 1;
    check(&bench, "crashed E0306").await;
    let mut bench = Bench::new(&[("FAKE_FAULT", "mute")]);
    bench.limits.start = Duration::from_millis(300);
    check(
        &bench,
        "crashed E0306: it made no step for 0.3 s after step 0",
    )
    .await;
}

#[tokio::test]
async fn a_time_limit_ends_a_trial() {
    let mut bench = Bench::new(&[("FAKE_STEP_MS", "50")]);
    bench.time_left = Some(Duration::from_millis(150));
    check(&bench, "crashed E0305: its time limit is over at step").await;
}

#[tokio::test]
async fn a_trainer_that_does_not_stop_is_killed_after_its_grace() {
    let mut bench = Bench::new(&[("FAKE_FAULT", "deaf"), ("FAKE_STEP_MS", "200")]);
    bench.tools.stop_grace = Duration::from_millis(200);
    let begun = Instant::now();
    let outcome = bench.run_until(bench.trial(), 1, Wish::Stop).await;
    assert_eq!(outcome, Outcome::Killed);
    assert!(begun.elapsed() < DEADLINE / 10);
}

#[tokio::test]
async fn a_missing_program_and_another_protocol_cost_the_trial_nothing() {
    let mut bench = Bench::new(&[]);
    bench.tools.trainer = Arc::new("/no/such/trainer".into());
    check(&bench, "not started E0902: the trainer cannot be started").await;
    let bench = Bench::new(&[("FAKE_FAULT", "other_protocol")]);
    check(&bench, "not started E0003: the trainer speaks protocol 999").await;
}

#[tokio::test]
async fn lines_that_are_no_events_go_to_the_log() {
    let bench = Bench::new(&[("FAKE_FAULT", "garbage")]);
    check(&bench, "finished").await;
    let logged = bench.tools.logs.take();
    assert!(
        logged
            .iter()
            .any(|line| line.line == "Loading the library… done")
    );
}

#[tokio::test]
async fn a_line_longer_than_any_answer_ends_the_trainer() {
    let bench = Bench::new(&[("FAKE_FAULT", "overlong")]);
    check(&bench, "failed E0105 false: a line of rank 0 is too long").await;
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_the_trial_goes_on() {
    let bench = Bench::new(&[("FAKE_FAULT", "flood")]);
    check(&bench, "finished").await;
    let mut logged = bench.tools.logs.take();
    logged.extend(bench.tools.logs.take());
    // Ten thousand lines are written in much less than the 50 s that this rate would take.
    assert!((200..5000).contains(&logged.len()), "{}", logged.len());
}

#[tokio::test]
async fn a_fault_that_strikes_once_lets_the_second_attempt_pass() {
    let folder = tempfile::tempdir().unwrap();
    let once = folder.path().join("struck");
    let bench = Bench::new(&[
        ("FAKE_FAULT", "crash@2"),
        ("FAKE_FAULT_ONCE", once.to_str().unwrap()),
    ]);
    check(&bench, "crashed E0604").await;
    until("the fault has struck", || once.exists()).await;
    check(&bench, "finished").await;
}
