//! Transitions: one total function for each kind of state. An illegal move is an error that names
//! the state and the move; the table of all of them is a snapshot in `tests/snapshots`.
//!
//! A move never decides *whether* it is time for it; that is the scheduler's business.

use crate::experiment::ExperimentState;
use crate::task::{TaskResult, TaskState};
use crate::trial::{AfterStop, TrialState};
use crate::{Code, Fault, LeaseId, TaskId, Timestamp};

/// What can happen to a trial.
#[derive(Debug, Clone, PartialEq)]
pub enum TrialMove {
    /// It is given a lease.
    Start {
        /// The lease.
        lease: LeaseId,
    },
    /// Somebody wants it to become something else (`Waiting` resumes it). On a lease it stops
    /// first; without one it moves at once. A later wish replaces an earlier one, but nothing
    /// brings back a trial that is being canceled.
    Ask {
        /// What it is to become.
        then: AfterStop,
        /// When.
        at: Timestamp,
    },
    /// Its lease ended before it was done: stopped as asked, crashed, expired.
    Leave {
        /// When.
        at: Timestamp,
        /// It may start again from this moment on.
        not_before: Timestamp,
    },
    /// It trained to the end.
    Finish,
    /// It failed for good.
    Fail {
        /// Why.
        fault: Fault,
    },
}

impl TrialMove {
    /// Its name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Ask { then, .. } => match then {
                AfterStop::Paused => "be paused",
                AfterStop::Canceled => "be canceled",
                AfterStop::Completed => "be stopped",
                AfterStop::Waiting => "be resumed",
            },
            Self::Leave { .. } => "leave its lease",
            Self::Finish => "finish",
            Self::Fail { .. } => "fail",
        }
    }
}

impl TrialState {
    /// Its name, as it is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed { .. } => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The state after a move, or `E0104`.
    pub fn next(&self, step: TrialMove) -> Result<Self, Fault> {
        let refused = Err(illegal("trial", self.name(), step.name()));
        match (self, step) {
            (Self::Waiting { .. }, TrialMove::Start { lease }) => Ok(Self::Running { lease }),
            (Self::Waiting { .. } | Self::Paused, TrialMove::Ask { then, at }) => {
                let next = becomes(then, at, at);
                if next.name() == self.name() {
                    refused
                } else {
                    Ok(next)
                }
            }
            (Self::Waiting { .. } | Self::Running { .. }, TrialMove::Fail { fault }) => {
                Ok(Self::Failed { fault })
            }
            (Self::Running { lease }, TrialMove::Ask { then, .. }) => Ok(Self::Stopping {
                lease: *lease,
                then,
            }),
            (Self::Running { .. }, TrialMove::Leave { at, not_before }) => Ok(Self::Waiting {
                since: at,
                not_before,
            }),
            (Self::Running { .. }, TrialMove::Finish) => Ok(Self::Completed),
            (
                Self::Stopping {
                    lease,
                    then: earlier,
                },
                TrialMove::Ask { then, .. },
            ) => {
                if *earlier == AfterStop::Canceled || *earlier == then {
                    refused
                } else {
                    Ok(Self::Stopping {
                        lease: *lease,
                        then,
                    })
                }
            }
            (Self::Stopping { then, .. }, TrialMove::Leave { at, not_before }) => {
                Ok(becomes(*then, at, not_before))
            }
            (Self::Stopping { then, .. }, TrialMove::Finish) => Ok(match then {
                AfterStop::Canceled => Self::Canceled,
                AfterStop::Paused | AfterStop::Completed | AfterStop::Waiting => Self::Completed,
            }),
            (Self::Stopping { then, .. }, TrialMove::Fail { fault }) => Ok(match then {
                AfterStop::Canceled => Self::Canceled,
                AfterStop::Paused | AfterStop::Completed | AfterStop::Waiting => {
                    Self::Failed { fault }
                }
            }),
            (Self::Waiting { .. }, TrialMove::Leave { .. } | TrialMove::Finish)
            | (Self::Running { .. } | Self::Stopping { .. }, TrialMove::Start { .. })
            | (
                Self::Paused,
                TrialMove::Start { .. }
                | TrialMove::Leave { .. }
                | TrialMove::Finish
                | TrialMove::Fail { .. },
            )
            | (
                Self::Completed | Self::Failed { .. } | Self::Canceled,
                TrialMove::Start { .. }
                | TrialMove::Ask { .. }
                | TrialMove::Leave { .. }
                | TrialMove::Finish
                | TrialMove::Fail { .. },
            ) => refused,
        }
    }
}

fn becomes(then: AfterStop, at: Timestamp, not_before: Timestamp) -> TrialState {
    match then {
        AfterStop::Paused => TrialState::Paused,
        AfterStop::Canceled => TrialState::Canceled,
        AfterStop::Completed => TrialState::Completed,
        AfterStop::Waiting => TrialState::Waiting {
            since: at,
            not_before,
        },
    }
}

/// What can happen to an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum ExperimentMove {
    /// No more trials start; running ones write a checkpoint and stop.
    Pause,
    /// Trials start again.
    Resume,
    /// Its last trial has ended and the best one is published.
    Promote {
        /// The publish task.
        task: TaskId,
    },
    /// All is done.
    Complete,
    /// It cannot come to a good end.
    Fail {
        /// Why.
        fault: Fault,
    },
    /// It is taken back.
    Cancel,
}

impl ExperimentMove {
    /// Its name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pause => "be paused",
            Self::Resume => "be resumed",
            Self::Promote { .. } => "promote",
            Self::Complete => "complete",
            Self::Fail { .. } => "fail",
            Self::Cancel => "be canceled",
        }
    }
}

impl ExperimentState {
    /// Its name, as it is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Promoting { .. } => "promoting",
            Self::Completed => "completed",
            Self::Failed { .. } => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The state after a move, or `E0104`.
    pub fn next(&self, step: ExperimentMove) -> Result<Self, Fault> {
        let refused = Err(illegal("experiment", self.name(), step.name()));
        match (self, step) {
            (Self::Active, ExperimentMove::Pause) => Ok(Self::Paused),
            (Self::Paused, ExperimentMove::Resume) => Ok(Self::Active),
            // The last running trial may end while the experiment is paused.
            (Self::Active | Self::Paused, ExperimentMove::Promote { task }) => {
                Ok(Self::Promoting { task })
            }
            (Self::Active | Self::Paused | Self::Promoting { .. }, ExperimentMove::Complete) => {
                Ok(Self::Completed)
            }
            (
                Self::Active | Self::Paused | Self::Promoting { .. },
                ExperimentMove::Fail { fault },
            ) => Ok(Self::Failed { fault }),
            (Self::Active | Self::Paused | Self::Promoting { .. }, ExperimentMove::Cancel) => {
                Ok(Self::Canceled)
            }
            (Self::Active | Self::Promoting { .. }, ExperimentMove::Resume)
            | (Self::Paused | Self::Promoting { .. }, ExperimentMove::Pause)
            | (Self::Promoting { .. }, ExperimentMove::Promote { .. })
            | (
                Self::Completed | Self::Failed { .. } | Self::Canceled,
                ExperimentMove::Pause
                | ExperimentMove::Resume
                | ExperimentMove::Promote { .. }
                | ExperimentMove::Complete
                | ExperimentMove::Fail { .. }
                | ExperimentMove::Cancel,
            ) => refused,
        }
    }
}

/// What can happen to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskMove {
    /// It is given a lease.
    Start {
        /// The lease.
        lease: LeaseId,
    },
    /// Its lease ended before it was done: it waits for another one.
    Leave,
    /// It is done.
    Complete {
        /// What the trainer answered.
        result: Box<TaskResult>,
    },
    /// It failed for good.
    Fail {
        /// Why.
        fault: Fault,
    },
    /// It is taken back; its lease, if it has one, is killed.
    Cancel,
}

impl TaskMove {
    /// Its name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Leave => "leave its lease",
            Self::Complete { .. } => "complete",
            Self::Fail { .. } => "fail",
            Self::Cancel => "be canceled",
        }
    }
}

impl TaskState {
    /// Its name, as it is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running { .. } => "running",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The state after a move, or `E0104`.
    pub fn next(&self, step: TaskMove) -> Result<Self, Fault> {
        let refused = Err(illegal("task", self.name(), step.name()));
        match (self, step) {
            (Self::Waiting, TaskMove::Start { lease }) => Ok(Self::Running { lease }),
            (Self::Running { .. }, TaskMove::Leave) => Ok(Self::Waiting),
            (Self::Running { .. }, TaskMove::Complete { result }) => Ok(Self::Completed { result }),
            (Self::Waiting | Self::Running { .. }, TaskMove::Fail { fault }) => {
                Ok(Self::Failed { fault })
            }
            (Self::Waiting | Self::Running { .. }, TaskMove::Cancel) => Ok(Self::Canceled),
            (Self::Waiting, TaskMove::Leave | TaskMove::Complete { .. })
            | (Self::Running { .. }, TaskMove::Start { .. })
            | (
                Self::Completed { .. } | Self::Failed { .. } | Self::Canceled,
                TaskMove::Start { .. }
                | TaskMove::Leave
                | TaskMove::Complete { .. }
                | TaskMove::Fail { .. }
                | TaskMove::Cancel,
            ) => refused,
        }
    }
}

fn illegal(what: &str, state: &str, step: &str) -> Fault {
    let article = if what.starts_with('e') { "an" } else { "a" };
    Fault::new(
        Code::WrongState,
        format!("{article} {what} that is `{state}` cannot {step}"),
    )
}
