//! States as one word and a tone.

use pomona_domain::experiment::ExperimentState;
use pomona_domain::task::TaskState;
use pomona_domain::trial::TrialState;
use pomona_domain::worker::WorkerState;

use crate::table::{Text, Tone, toned};

/// An experiment's state.
pub fn experiment(state: &ExperimentState) -> Text {
    match state {
        ExperimentState::Active => toned("active", Tone::Busy),
        ExperimentState::Paused => toned("paused", Tone::Warn),
        ExperimentState::Promoting { .. } => toned("promoting", Tone::Busy),
        ExperimentState::Completed => toned("completed", Tone::Good),
        ExperimentState::Failed { .. } => toned("failed", Tone::Bad),
        ExperimentState::Canceled => toned("canceled", Tone::Dim),
    }
}

/// A trial's state.
pub fn trial(state: &TrialState) -> Text {
    match state {
        TrialState::Waiting { .. } => toned("waiting", Tone::Dim),
        TrialState::Running { .. } => toned("running", Tone::Busy),
        TrialState::Stopping { .. } => toned("stopping", Tone::Warn),
        TrialState::Paused => toned("paused", Tone::Warn),
        TrialState::Completed => toned("completed", Tone::Good),
        TrialState::Failed { .. } => toned("failed", Tone::Bad),
        TrialState::Canceled => toned("canceled", Tone::Dim),
    }
}

/// A task's state, as a part of a sentence.
pub fn task(state: &TaskState) -> &'static str {
    match state {
        TaskState::Waiting => "waits for a slot",
        TaskState::Running { .. } => "runs",
        TaskState::Completed { .. } => "completed",
        TaskState::Failed { .. } => "failed",
        TaskState::Canceled => "canceled",
    }
}

/// A worker's state.
pub fn worker(state: WorkerState) -> Text {
    match state {
        WorkerState::Alive => toned("alive", Tone::Good),
        WorkerState::Draining => toned("draining", Tone::Warn),
        WorkerState::Lost => toned("lost", Tone::Bad),
    }
}
