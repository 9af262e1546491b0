//! What becomes of a trial when its lease ends: one total function, then the row.

use super::draft::Draft;
use super::experiment;
use super::lease::Cause;
use crate::explain::count_others;
use pomona_domain::change::Subject;
use pomona_domain::lease::{Lease, Work};
use pomona_domain::report::Outcome;
use pomona_domain::trial::{AfterStop, Trial, TrialState};
use pomona_domain::{Code, Fault, Timestamp, TrialId};

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

/// With whom a trial was on a lease that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Company {
    /// Other trials that were still on it.
    pub(crate) others: u32,
    /// Whether the time of the lease is the trial's own. Of several, the one with the least time
    /// left decides when a lease ends, and may have left it before.
    pub(crate) is_late: bool,
}

impl Company {
    /// Nobody else.
    pub(crate) const NONE: Self = Self {
        others: 0,
        is_late: true,
    };

    /// A fault by which a process ended and that was not the trial's own, as far as anybody knows.
    fn others_fault(self, cause: Cause<'_>) -> Option<&Fault> {
        let fault = cause.fault()?;
        let is_own = if fault.code == Code::TimeLimit {
            self.is_late
        } else {
            self.others == 0
        };
        (!is_own).then_some(fault)
    }

    /// Most members of the next lease after a fault that nobody owns: half of those there were, so
    /// that whoever brings it about is alone in the end. Time is nobody's fault.
    pub(crate) fn halved(self, cause: Cause) -> Option<u32> {
        let fault = self.others_fault(cause)?;
        (fault.code != Code::TimeLimit).then(|| (self.others + 1).div_ceil(2))
    }

    /// Why a trial left the lease.
    fn sentence(self, cause: Cause) -> String {
        let own = cause.sentence();
        match self.others_fault(cause) {
            None => own,
            Some(fault) if fault.code == Code::TimeLimit => {
                format!("its lease ended with the time of another trial: {fault}")
            }
            Some(_) => {
                let others = count_others(self.others);
                let what = own.strip_prefix("it ").unwrap_or(&own);
                format!("the lease it shared with {others} {what}")
            }
        }
    }
}

/// What a trial becomes when its lease ends for a cause.
pub(crate) fn fate(trial: &Trial, max_restarts: u32, cause: Cause, company: Company) -> Fate {
    match (&trial.state, company.others_fault(cause)) {
        (TrialState::Running { .. }, Some(_)) => Fate::Waits,
        (TrialState::Running { .. }, None) => running(trial, max_restarts, cause),
        (TrialState::Stopping { then, .. }, Some(_)) => asked(trial, *then),
        (TrialState::Stopping { then, .. }, None) => stopping(trial, *then, cause),
        (
            TrialState::Waiting { .. }
            | TrialState::Paused
            | TrialState::Completed
            | TrialState::Failed { .. }
            | TrialState::Canceled,
            _,
        ) => Fate::Stays,
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
        (AfterStop::Paused | AfterStop::Waiting | AfterStop::Completed, _) => asked(trial, then),
    }
}

/// What a trial was asked to become.
fn asked(trial: &Trial, then: AfterStop) -> Fate {
    match then {
        AfterStop::Paused => Fate::Pauses,
        AfterStop::Waiting => Fate::Waits,
        AfterStop::Completed if has_result(trial) => Fate::Completes,
        AfterStop::Completed | AfterStop::Canceled => Fate::IsCanceled,
    }
}

/// A trial that trained to its end and was evaluated, but never on what it is compared by, has failed:
/// completed it would stand in the leaderboard without a place.
pub(crate) fn measured(draft: &Draft, trial: &Trial, cause: Cause, fate: Fate) -> Fate {
    let is_finished = matches!(cause, Cause::Exited(Outcome::Finished));
    if fate != Fate::Completes || !is_finished || trial.best.is_some() || !has_result(trial) {
        return fate;
    }
    let owner = draft.cluster().experiment(trial.experiment);
    let Some(objective) = owner.map(|owner| owner.spec.search.objective()) else {
        return fate;
    };
    Fate::Fails(unmeasured(&objective, trial, trial.last_step))
}

/// The fault of a trial that does not measure the search metric.
pub(crate) fn unmeasured(objective: &str, trial: &Trial, step: u64) -> Fault {
    let measured: Vec<&str> = trial.latest.keys().map(String::as_str).collect();
    Fault::new(
        Code::MetricAbsent,
        format!(
            "`{objective}` is not among what the trial measured up to step {step}: `{}`",
            measured.join("`, `")
        ),
    )
    .hint("search on a metric that the training program reports")
}

/// The time of a lease that is over counts for everybody who was on it.
pub(crate) fn spend(row: &mut Trial, lease: &Lease, now: Timestamp) {
    let active = now.since_ms(lease.granted_at);
    row.active_ms += u64::try_from(active).unwrap_or(0);
}

/// Moves a member of an ended lease on; `others` were on it with the trial.
pub(crate) fn leave(draft: &mut Draft, id: TrialId, lease: &Lease, cause: Cause, others: u32) {
    let Some(mut row) = draft.cluster().trial(id).cloned() else {
        return;
    };
    let Some(owner) = draft.cluster().experiment(row.experiment) else {
        return;
    };
    // A member that left earlier may be on another lease by now.
    if row.lease() != Some(lease.id) {
        return;
    }
    let (max_restarts, limit_ms) = (owner.spec.max_restarts, owner.spec.time_limit_ms);
    spend(&mut row, lease, draft.now);
    let is_late = is_lone(lease) || limit_ms.is_some_and(|limit| row.active_ms >= limit);
    let company = Company { others, is_late };
    let fate = fate(&row, max_restarts, cause, company);
    let fate = measured(draft, &row, cause, fate);
    let mut why = company.sentence(cause);
    if let Some(limit) = company.halved(cause)
        && matches!(fate, Fate::Waits | Fate::Pauses)
    {
        row.share_limit = Some(limit);
        why = format!("{why}; {}", next_company(limit));
    }
    finish(draft, row, fate, &why);
}

/// Whether a lease was granted to one trial alone.
fn is_lone(lease: &Lease) -> bool {
    match &lease.work {
        Work::Trials(members) => members.len() == 1,
        Work::Task(_) => true,
    }
}

fn next_company(limit: u32) -> String {
    match limit.saturating_sub(1) {
        0 => "it will have the next one alone".to_owned(),
        1 => "it will share with at most 1 other".to_owned(),
        others => format!("it will share with at most {others} others"),
    }
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
