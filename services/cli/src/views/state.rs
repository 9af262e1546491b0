//! States as one word and a tone.

use pomona_domain::experiment::ExperimentState;
use pomona_domain::task::TaskState;
use pomona_domain::trial::TrialState;
use pomona_domain::worker::WorkerState;

use crate::table::{Text, Tone, toned};

/// An experiment's state.
pub fn experiment(state: &ExperimentState) -> Text {
    let tone = match state {
        ExperimentState::Active | ExperimentState::Promoting { .. } => Tone::Busy,
        ExperimentState::Paused => Tone::Warn,
        ExperimentState::Completed => Tone::Good,
        ExperimentState::Failed { .. } => Tone::Bad,
        ExperimentState::Canceled => Tone::Dim,
    };
    toned(state.name(), tone)
}

/// A trial's state.
pub fn trial(state: &TrialState) -> Text {
    let tone = match state {
        TrialState::Waiting { .. } | TrialState::Canceled => Tone::Dim,
        TrialState::Running { .. } => Tone::Busy,
        TrialState::Stopping { .. } | TrialState::Paused => Tone::Warn,
        TrialState::Completed => Tone::Good,
        TrialState::Failed { .. } => Tone::Bad,
    };
    toned(state.name(), tone)
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
    let tone = match state {
        WorkerState::Alive => Tone::Good,
        WorkerState::Draining => Tone::Warn,
        WorkerState::Lost => Tone::Bad,
    };
    toned(state.name(), tone)
}
