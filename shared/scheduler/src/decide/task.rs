//! Tasks: leased work that is not a trial. The answer of a task is acted on in the decision that
//! receives it.

use super::draft::Draft;
use super::lease::{Cause, close};
use super::{experiment, not_found, registry};
use pomona_domain::backbone::Backbone;
use pomona_domain::change::Subject;
use pomona_domain::dataset::Dataset;
use pomona_domain::experiment::ExperimentState;
use pomona_domain::lease::EndKind;
use pomona_domain::report::Outcome;
use pomona_domain::task::{Task, TaskResult, TaskSpec, TaskState};
use pomona_domain::{Change, Code, Fault, TaskId};

/// A user submitted a task.
pub(crate) fn submitted(
    draft: &mut Draft,
    id: TaskId,
    spec: &TaskSpec,
    priority: i32,
) -> Result<(), Fault> {
    if draft.cluster().task(id).is_some() {
        return Err(Fault::new(
            Code::AlreadyExists,
            format!("task `{id}` exists already"),
        ));
    }
    match spec {
        TaskSpec::ImportDataset { .. } => {}
        TaskSpec::ImportBackbone { name, .. } => backbone_is_free(draft, name)?,
        TaskSpec::Publish { trial, .. } => {
            let source = draft.cluster().source(*trial);
            let source = source.ok_or_else(|| not_found(trial))?;
            if !source.trial.is_ended() {
                return Err(Fault::new(
                    Code::WrongState,
                    format!("trial `{trial}` has not ended: its best checkpoint may still change"),
                )
                .hint(format!(
                    "`pomona trial stop {trial}` ends it with what it has"
                )));
            }
            if !source.experiment.spec.runner.is_trainer() {
                let text = format!(
                    "trial `{trial}` ran a program of one's own: what it wrote cannot be exported"
                );
                return Err(Fault::new(Code::CannotPublish, text).hint(
                    "its checkpoint is a tar: `pomona trial show` has the digest, `GET \
                     /api/v1/blobs/{digest}` the bytes",
                ));
            }
            if let Some(fault) = source.trial.deletion() {
                return Err(fault);
            }
            // Rows of a trial that is not in memory were read before this event was decided.
            let is_late = draft.cluster().trial(*trial).is_none()
                && (!source.experiment.is_ended() || draft.cluster().lost_its_checkpoints(*trial));
            if is_late {
                let text = format!("trial `{trial}` changed meanwhile");
                return Err(Fault::new(Code::Conflict, text).hint("try again"));
            }
            if source.checkpoint.is_none() {
                return Err(Fault::new(
                    Code::NothingToPromote,
                    format!("trial `{trial}` has no best checkpoint"),
                ));
            }
        }
        TaskSpec::Predict { model, version, .. } => {
            registry::version_exists(draft, model, *version)?;
        }
    }
    make(draft, id, spec.clone(), priority);
    draft.reason(Subject::Task(id), "submitted");
    Ok(())
}

fn backbone_is_free(draft: &Draft, name: &str) -> Result<(), Fault> {
    if draft.cluster().backbone(name).is_none() {
        return Ok(());
    }
    Err(Fault::new(
        Code::AlreadyExists,
        format!("backbone `{name}` exists already"),
    )
    .hint("a backbone never changes: give the new one another name"))
}

/// Writes a new task.
pub(crate) fn make(draft: &mut Draft, id: TaskId, spec: TaskSpec, priority: i32) {
    draft.task(Task {
        id,
        version: 0,
        spec,
        state: TaskState::Waiting,
        attempts: 0,
        priority,
        submitted_at: draft.now,
        ended_at: None,
    });
}

/// A task is taken back; its lease ends at once.
pub(crate) fn canceled(draft: &mut Draft, id: TaskId) -> Result<(), Fault> {
    let row = (draft.cluster().task(id).cloned()).ok_or_else(|| not_found(id))?;
    take_back(draft, row, "canceled by request");
    if let Some(owner) = experiment::promoting(draft, id) {
        let why = "completed: its promotion was canceled";
        experiment::end(draft, owner, ExperimentState::Completed, why);
    }
    Ok(())
}

/// Ends a task and its lease, and nothing else.
pub(crate) fn take_back(draft: &mut Draft, row: Task, why: &str) {
    if let TaskState::Running { lease } = row.state
        && let Some(held) = draft.cluster().lease(lease).cloned()
    {
        close(draft, &held, EndKind::Neutral, why);
    }
    finish(draft, row, TaskState::Canceled, why);
}

fn finish(draft: &mut Draft, mut row: Task, state: TaskState, why: &str) {
    row.state = state;
    row.ended_at = Some(draft.now);
    draft.reason(Subject::Task(row.id), why);
    draft.task(row);
}

/// Fails for good, and with it the promotion that waits for it.
fn fail(draft: &mut Draft, row: Task, fault: Fault) {
    let id = row.id;
    let why = format!("failed for good: {fault}");
    let state = TaskState::Failed {
        fault: fault.clone(),
    };
    finish(draft, row, state, &why);
    if let Some(owner) = experiment::promoting(draft, id) {
        let why = format!("failed: the best checkpoint could not be published: {fault}");
        experiment::end(draft, owner, ExperimentState::Failed { fault }, &why);
    }
}

/// What becomes of a running task when its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Waits; no attempt is counted. Starts that fail back off (soft state).
    Waits,
    /// Waits after a back-off; an attempt is counted.
    Retries,
    /// Fails for good.
    Fails(Fault),
}

pub(crate) fn fate(attempts: u32, max_attempts: u32, cause: Cause) -> Fate {
    let crashed = |fault: &Fault| {
        if attempts + 1 >= max_attempts {
            Fate::Fails(fault.clone())
        } else {
            Fate::Retries
        }
    };
    match cause {
        Cause::Exited(Outcome::Finished) => crashed(&Fault::new(
            Code::Internal,
            "the trainer finished without an answer",
        )),
        Cause::Exited(Outcome::Failed {
            fault,
            retry: false,
        }) => Fate::Fails(fault.clone()),
        Cause::Exited(Outcome::Failed { fault, retry: true } | Outcome::Crashed { fault }) => {
            crashed(fault)
        }
        Cause::Exited(Outcome::Stopped | Outcome::Killed | Outcome::NotStarted { .. })
        | Cause::Lost(_)
        | Cause::GraceOver => Fate::Waits,
    }
}

/// Moves the task of an ended lease on.
pub(crate) fn leave(draft: &mut Draft, id: TaskId, cause: Cause) {
    let Some(mut row) = draft.cluster().task(id).cloned() else {
        return;
    };
    let why = cause.sentence();
    let text = match fate(row.attempts, draft.config().max_task_attempts, cause) {
        Fate::Fails(fault) => return fail(draft, row, fault),
        Fate::Waits => format!("waits for another lease, no attempt is counted: {why}"),
        Fate::Retries => {
            row.attempts += 1;
            format!("will be tried again: {why}")
        }
    };
    row.state = TaskState::Waiting;
    draft.reason(Subject::Task(id), text);
    draft.task(row);
}

/// A task answered: its rows are made in the same decision.
pub(crate) fn answered(draft: &mut Draft, id: TaskId, result: &TaskResult) {
    let Some(row) = draft.cluster().task(id).cloned() else {
        return;
    };
    match act(draft, &row, result) {
        Ok(text) => {
            let mut kept = result.clone();
            if let TaskResult::Published { outcomes, .. } = &mut kept {
                // They lie with the version.
                *outcomes = None;
            }
            let state = TaskState::Completed {
                result: Box::new(kept),
            };
            finish(draft, row, state, &format!("completed: {text}"));
            if let Some(owner) = experiment::promoting(draft, id) {
                let why = format!("completed: {text}");
                experiment::end(draft, owner, ExperimentState::Completed, &why);
            }
        }
        Err(fault) => fail(draft, row, fault),
    }
}

/// Writes what a task found.
fn act(draft: &mut Draft, row: &Task, result: &TaskResult) -> Result<String, Fault> {
    match (&row.spec, result) {
        (TaskSpec::ImportDataset { name, .. }, TaskResult::Dataset { .. }) => {
            let newest = draft.cluster().dataset(name).map_or(0, |row| row.number);
            let number = newest + 1;
            let found = found_dataset(draft, &row.spec, result, number).ok_or_else(misfit)?;
            draft.push(Change::Dataset(Box::new(found)));
            Ok(format!("data set `{name}@{number}` was added"))
        }
        (TaskSpec::ImportBackbone { name, .. }, TaskResult::Backbone { .. }) => {
            backbone_is_free(draft, name)?;
            let found = found_backbone(draft, &row.spec, result).ok_or_else(misfit)?;
            draft.push(Change::Backbone(Box::new(found)));
            Ok(format!("backbone `{name}` was added"))
        }
        (
            TaskSpec::Publish {
                model,
                trial,
                alias,
            },
            TaskResult::Published {
                files,
                metrics,
                outcomes,
                ..
            },
        ) => {
            let made = registry::Publication {
                task: row.id,
                trial: *trial,
                files,
                measured: metrics,
                outcomes: outcomes.as_deref(),
            };
            if made.outcomes.is_some_and(|outcomes| !outcomes.is_sound()) {
                return Err(misfit());
            }
            registry::published(draft, (model, alias.as_deref()), &made)
        }
        (TaskSpec::Predict { .. }, TaskResult::Predicted { pictures }) => {
            Ok(format!("{} pictures were predicted", pictures.len()))
        }
        (
            TaskSpec::ImportDataset { .. }
            | TaskSpec::ImportBackbone { .. }
            | TaskSpec::Publish { .. }
            | TaskSpec::Predict { .. },
            _,
        ) => Err(misfit()),
    }
}

fn misfit() -> Fault {
    Fault::new(
        Code::Internal,
        "the trainer's answer is not what the task asked for",
    )
}

fn found_dataset(
    draft: &Draft,
    spec: &TaskSpec,
    result: &TaskResult,
    number: u32,
) -> Option<Dataset> {
    let TaskSpec::ImportDataset {
        name,
        archive,
        options,
    } = spec
    else {
        return None;
    };
    let TaskResult::Dataset {
        digest, summary, ..
    } = result
    else {
        return None;
    };
    Some(Dataset {
        name: name.clone(),
        number,
        manifest: *digest,
        archive: *archive,
        options: options.clone(),
        summary: summary.clone(),
        created_at: draft.now,
    })
}

fn found_backbone(draft: &Draft, spec: &TaskSpec, result: &TaskResult) -> Option<Backbone> {
    let TaskSpec::ImportBackbone {
        name,
        arch,
        weights: source,
    } = spec
    else {
        return None;
    };
    let TaskResult::Backbone {
        digest,
        image_size,
        blocks,
        tensors,
        head_parameters,
        ..
    } = result
    else {
        return None;
    };
    Some(Backbone {
        name: name.clone(),
        arch: arch.clone(),
        weights: *digest,
        source: *source,
        image_size: *image_size,
        blocks: blocks.clone(),
        tensors: *tensors,
        head_parameters: *head_parameters,
        created_at: draft.now,
    })
}
