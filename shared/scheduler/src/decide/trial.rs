//! What becomes of a trial when its lease ends: one total function, then the row.

use super::draft::Draft;
use super::experiment;
use super::lease::Cause;
use pomona_domain::change::Subject;
use pomona_domain::lease::Lease;
use pomona_domain::report::Outcome;
use pomona_domain::trial::{AfterStop, Trial, TrialState};
use pomona_domain::{Code, Fault, TrialId};

/// What becomes of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is on no lease: nothing.
    Stays,
    /// Waits for another lease; no attempt is counted.
    Waits,
    /// Waits for another lease after a back-off; an attempt is counted.
    Retries,
    /// Waits for another lease after a back-off; no attempt is counted.
    BacksOff,
    /// Trained to the end, or ended with what it has.
    Completes,
    /// Fails for good.
    Fails(Fault),
    /// Waits to be resumed.
    Pauses,
    /// Is taken back.
    IsCanceled,
}

/// Whether a trial has anything to show.
pub(crate) fn has_result(trial: &Trial) -> bool {
    !trial.latest.is_empty()
}

/// What a trial becomes when its lease ends for a cause.
pub(crate) fn fate(trial: &Trial, max_restarts: u32, cause: Cause) -> Fate {
    match &trial.state {
        TrialState::Running { .. } => running(trial, max_restarts, cause),
        TrialState::Stopping { then, .. } => stopping(trial, *then, cause),
        TrialState::Waiting { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Failed { .. }
        | TrialState::Canceled => Fate::Stays,
    }
}

fn running(trial: &Trial, max_restarts: u32, cause: Cause) -> Fate {
    match cause {
        Cause::Exited(Outcome::Finished) => Fate::Completes,
        // A worker that shuts down in good order stops its trainers: nobody's fault.
        Cause::Exited(Outcome::Stopped | Outcome::Killed) | Cause::Lost(_) | Cause::GraceOver => {
            Fate::Waits
        }
        Cause::Exited(Outcome::NotStarted { .. }) => Fate::BacksOff,
        Cause::Exited(Outcome::Failed {
            fault,
            retry: false,
        }) => Fate::Fails(fault.clone()),
        Cause::Exited(Outcome::Failed { fault, retry: true } | Outcome::Crashed { fault }) => {
            crashed(trial, max_restarts, fault)
        }
    }
}

fn crashed(trial: &Trial, max_restarts: u32, fault: &Fault) -> Fate {
    if fault.code == Code::TimeLimit {
        // More time is what another attempt would not have.
        return Fate::Fails(fault.clone());
    }
    if trial.restarts < max_restarts {
        return Fate::Retries;
    }
    let attempts = trial.restarts + 1;
    let text = if attempts == 1 {
        format!("it crashed and no restart is allowed: {}", fault.message)
    } else {
        format!(
            "it crashed {attempts} times, the last time: {}",
            fault.message
        )
    };
    let hint =
        (fault.hint.clone()).unwrap_or_else(|| format!("see `pomona trial logs {}`", trial.id));
    Fate::Fails(Fault::new(Code::RestartsExhausted, text).hint(hint))
}

fn stopping(trial: &Trial, then: AfterStop, cause: Cause) -> Fate {
    match (then, cause) {
        (AfterStop::Canceled, _) => Fate::IsCanceled,
        (_, Cause::Exited(Outcome::Finished)) => Fate::Completes,
        (
            _,
            Cause::Exited(Outcome::Failed {
                fault,
                retry: false,
            }),
        ) => Fate::Fails(fault.clone()),
        (AfterStop::Paused, _) => Fate::Pauses,
        (AfterStop::Waiting, _) => Fate::Waits,
        (AfterStop::Completed, _) if has_result(trial) => Fate::Completes,
        (AfterStop::Completed, _) => Fate::IsCanceled,
    }
}

/// Moves a member of an ended lease on.
pub(crate) fn leave(draft: &mut Draft, id: TrialId, lease: &Lease, cause: Cause) {
    let Some(trial) = draft.cluster().trial(id) else {
        return;
    };
    let Some(experiment) = draft.cluster().experiment(trial.experiment) else {
        return;
    };
    let fate = fate(trial, experiment.spec.max_restarts, cause);
    if fate == Fate::Stays {
        return;
    }
    let mut row = trial.clone();
    let active = draft.now.since_ms(lease.granted_at);
    row.active_ms += u64::try_from(active).unwrap_or(0);
    finish(draft, row, fate, &cause.sentence());
}

/// Writes what a trial becomes. The experiment is settled by the caller, once all is written.
pub(crate) fn finish(draft: &mut Draft, mut row: Trial, fate: Fate, why: &str) {
    let now = draft.now;
    let config = draft.config();
    let mut wait_ms = 0;
    let (state, what) = match fate {
        Fate::Stays => return,
        Fate::Waits => (None, "waits for another lease, no attempt is counted"),
        Fate::Retries => {
            row.restarts += 1;
            wait_ms = config.backoff_ms(row.restarts);
            (None, "will be tried again from its last checkpoint")
        }
        Fate::BacksOff => {
            wait_ms = config.backoff_ms(draft.cluster().strikes(Subject::Trial(row.id)));
            (None, "waits for another lease, no attempt is counted")
        }
        Fate::Completes => (Some(TrialState::Completed), "completed"),
        Fate::Fails(fault) => (Some(TrialState::Failed { fault }), "failed for good"),
        Fate::Pauses => (Some(TrialState::Paused), "paused"),
        Fate::IsCanceled => (Some(TrialState::Canceled), "canceled"),
    };
    row.state = state.unwrap_or(TrialState::Waiting {
        since: now,
        not_before: now.plus_ms(wait_ms),
    });
    if row.is_ended() {
        row.ended_at = Some(now);
    }
    let mut text = format!("{what}: {why}");
    if wait_ms > 0 {
        text = format!(
            "{text} (in {} at the earliest)",
            crate::explain::seconds(wait_ms)
        );
    }
    draft.reason(Subject::Trial(row.id), text);
    let completed = row.state == TrialState::Completed;
    draft.trial(row.clone());
    if completed {
        experiment::judge(draft, &row);
    }
}
