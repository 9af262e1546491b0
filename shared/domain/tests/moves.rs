//! The transition tables, every state against every move. The snapshots are the documentation.

use pomona_domain::experiment::ExperimentState;
use pomona_domain::moves::{ExperimentMove, TaskMove, TrialMove};
use pomona_domain::task::{TaskResult, TaskState};
use pomona_domain::trial::{AfterStop, TrialState};
use pomona_domain::{Code, Fault, LeaseId, TaskId, Timestamp};

const NOW: Timestamp = Timestamp(1_000);
const LATER: Timestamp = Timestamp(5_000);

fn fault() -> Fault {
    Fault::new(Code::NotANumber, "the loss is not a number")
}

/// Lines `state + move -> state`, refused moves left out and counted.
fn table(rows: Vec<(String, String, Option<String>)>) -> String {
    let mut lines = Vec::new();
    let mut refused = 0;
    for (state, step, next) in rows {
        match next {
            Some(next) => lines.push(format!("{state:<24} + {step:<15} -> {next}")),
            None => refused += 1,
        }
    }
    lines.push(format!("every other move is refused: {refused}"));
    lines.join("\n")
}

fn trial_label(state: &TrialState) -> String {
    match state {
        TrialState::Stopping { then, .. } => format!("stopping, then {then:?}").to_lowercase(),
        TrialState::Waiting { since, not_before } if since != not_before => {
            "waiting (backed off)".to_owned()
        }
        TrialState::Waiting { .. }
        | TrialState::Running { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Failed { .. }
        | TrialState::Canceled => state.name().to_owned(),
    }
}

fn trial_states() -> Vec<TrialState> {
    let lease = LeaseId(1);
    let stopping = |then| TrialState::Stopping { lease, then };
    vec![
        TrialState::Waiting {
            since: NOW,
            not_before: NOW,
        },
        TrialState::Running { lease },
        stopping(AfterStop::Paused),
        stopping(AfterStop::Canceled),
        stopping(AfterStop::Completed),
        stopping(AfterStop::Waiting),
        TrialState::Paused,
        TrialState::Completed,
        TrialState::Failed { fault: fault() },
        TrialState::Canceled,
    ]
}

fn trial_moves() -> Vec<TrialMove> {
    let ask = |then| TrialMove::Ask { then, at: NOW };
    vec![
        TrialMove::Start { lease: LeaseId(2) },
        ask(AfterStop::Paused),
        ask(AfterStop::Canceled),
        ask(AfterStop::Completed),
        ask(AfterStop::Waiting),
        TrialMove::Leave {
            at: NOW,
            not_before: LATER,
        },
        TrialMove::Finish,
        TrialMove::Fail { fault: fault() },
    ]
}

#[test]
fn trials() {
    let mut rows = Vec::new();
    for state in trial_states() {
        for step in trial_moves() {
            let name = step.name().to_owned();
            let next = state.next(step).ok().map(|next| trial_label(&next));
            rows.push((trial_label(&state), name, next));
        }
    }
    insta::assert_snapshot!(table(rows));
}

#[test]
fn experiments() {
    let task = TaskId(1);
    let states = [
        ExperimentState::Active,
        ExperimentState::Paused,
        ExperimentState::Promoting { task },
        ExperimentState::Completed,
        ExperimentState::Failed { fault: fault() },
        ExperimentState::Canceled,
    ];
    let mut rows = Vec::new();
    for state in states {
        for step in [
            ExperimentMove::Pause,
            ExperimentMove::Resume,
            ExperimentMove::Promote { task },
            ExperimentMove::Complete,
            ExperimentMove::Fail { fault: fault() },
            ExperimentMove::Cancel,
        ] {
            let name = step.name().to_owned();
            let next = state.next(step).ok().map(|next| next.name().to_owned());
            rows.push((state.name().to_owned(), name, next));
        }
    }
    insta::assert_snapshot!(table(rows));
}

#[test]
fn tasks() {
    let result = || {
        Box::new(TaskResult::Predicted {
            pictures: Vec::new(),
        })
    };
    let states = [
        TaskState::Waiting,
        TaskState::Running { lease: LeaseId(1) },
        TaskState::Completed { result: result() },
        TaskState::Failed { fault: fault() },
        TaskState::Canceled,
    ];
    let mut rows = Vec::new();
    for state in states {
        for step in [
            TaskMove::Start { lease: LeaseId(2) },
            TaskMove::Leave,
            TaskMove::Complete { result: result() },
            TaskMove::Fail { fault: fault() },
            TaskMove::Cancel,
        ] {
            let name = step.name().to_owned();
            let next = state.next(step).ok().map(|next| next.name().to_owned());
            rows.push((state.name().to_owned(), name, next));
        }
    }
    insta::assert_snapshot!(table(rows));
}

#[test]
fn an_ended_trial_moves_no_more_and_the_refusal_names_both() {
    for state in trial_states() {
        if !matches!(
            state,
            TrialState::Completed | TrialState::Failed { .. } | TrialState::Canceled
        ) {
            continue;
        }
        for step in trial_moves() {
            let name = step.name();
            let refusal = state.next(step).unwrap_err();
            assert_eq!(refusal.code, Code::WrongState);
            assert!(refusal.message.contains(state.name()), "{refusal}");
            assert!(refusal.message.ends_with(name), "{refusal}");
        }
    }
}
