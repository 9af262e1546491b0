//! The life of an experiment: trials are made, the best is known, the end is noticed.

use super::draft::Draft;
use super::{retention, search, task};
use crate::plan;
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::metric::Direction;
use pomona_domain::task::TaskSpec;
use pomona_domain::trial::{BestPoint, Trial, TrialState};
use pomona_domain::{ExperimentId, TaskId};

/// Priority of a task that nobody gave one: above a trial's.
pub(crate) const TASK_PRIORITY: i32 = 60;

/// Lets the searcher hear who ended and do what it wants, and ends the experiment when nothing is
/// left to do. Called whenever one of its trials ended.
pub(crate) fn settle(draft: &mut Draft, id: ExperimentId) {
    let is_active = |draft: &Draft| {
        (draft.cluster().experiment(id)).is_some_and(|row| row.state == ExperimentState::Active)
    };
    if !is_active(draft) {
        return;
    }
    let searched = search::listen(draft, id)
        .and_then(|()| search::despair(draft, id))
        .and_then(|()| search::refill(draft, id));
    if let Err(fault) = searched
        && let Some(row) = draft.cluster().experiment(id).cloned()
    {
        return end(draft, row, ExperimentState::Failed { fault }, "failed");
    }
    if is_active(draft) && draft.cluster().open_trials_of(id).next().is_none() {
        conclude(draft, id);
    }
}

/// Has trials drawn where none waits, there are slots for one, and the file asks for more: what is
/// drawn ahead is bounded, what runs is not. Says whether there is something to place now.
pub(crate) fn replenish(draft: &mut Draft) -> bool {
    let cluster = draft.cluster();
    let may_draw = |row: &&Experiment| {
        row.state == ExperimentState::Active
            && row.created_trials < row.spec.search.max_trials
            && cluster.count_waiting(row.id) == 0
            && plan::has_room(cluster, draft.now, row)
    };
    let idle: Vec<ExperimentId> = (cluster.experiments().filter(may_draw))
        .map(|row| row.id)
        .collect();
    let mut waits = false;
    for id in idle {
        settle(draft, id);
        waits |= draft.cluster().count_waiting(id) > 0;
    }
    waits
}

/// Whether point `a` of trial number `m` is better than `b` of `n`: by metric, ties by loss,
/// then by number.
pub(crate) fn is_better(direction: Direction, a: (&BestPoint, u32), b: (&BestPoint, u32)) -> bool {
    let ((a, m), (b, n)) = (a, b);
    if a.value != b.value {
        return direction.is_better(a.value, b.value);
    }
    if a.tie != b.tie {
        return Direction::Minimize.is_better(a.tie, b.tie);
    }
    m < n
}

/// Compares a trial that completed with the best so far.
pub(crate) fn judge(draft: &mut Draft, trial: &Trial) {
    let (Some(point), Some(row)) = (&trial.best, draft.cluster().experiment(trial.experiment))
    else {
        return;
    };
    let rival = row.best.and_then(|id| draft.cluster().trial(id));
    let wins = match rival.and_then(|rival| rival.best.as_ref().map(|best| (best, rival.number))) {
        Some(rival) => is_better(row.spec.search.direction, (point, trial.number), rival),
        None => true,
    };
    if !wins {
        return;
    }
    let mut row = row.clone();
    row.best = Some(trial.id);
    let text = format!(
        "trial {} is the best so far: `{}` {} at step {}",
        trial.number,
        row.spec.search.objective(),
        point.value,
        point.step
    );
    draft.reason(Subject::Experiment(row.id), text);
    draft.experiment(row);
}

/// All trials have ended and the searcher has no more: publish, complete or fail.
fn conclude(draft: &mut Draft, id: ExperimentId) {
    let Some(row) = draft.cluster().experiment(id).cloned() else {
        return;
    };
    let trials = || draft.cluster().trials_of(id);
    let is = |state: &TrialState| trials().filter(|trial| trial.state == *state).count();
    let completed = is(&TrialState::Completed);
    let canceled = is(&TrialState::Canceled);
    let total = trials().count();
    if completed == 0 {
        let fault = trials().find_map(|trial| match &trial.state {
            TrialState::Failed { fault } => Some(fault.clone()),
            TrialState::Waiting { .. }
            | TrialState::Running { .. }
            | TrialState::Stopping { .. }
            | TrialState::Paused
            | TrialState::Completed
            | TrialState::Canceled => None,
        });
        match fault {
            Some(fault) => {
                let text = format!("failed: none of its {total} trials completed: {fault}");
                end(draft, row, ExperimentState::Failed { fault }, &text);
            }
            None => end(
                draft,
                row,
                ExperimentState::Canceled,
                "canceled: all its trials were taken back",
            ),
        }
        return;
    }
    let failed = total - completed - canceled;
    let short = match search::cut_short(draft, &row) {
        0 => String::new(),
        short => format!(" ({short} of them before their last epoch)"),
    };
    let counts =
        format!("{completed} trials completed{short}, {failed} failed, {canceled} canceled");
    match promotion(draft, &row) {
        Ok(Some(spec)) => promote(draft, row, spec, &counts),
        Ok(None) => end(
            draft,
            row,
            ExperimentState::Completed,
            &format!("completed: {counts}"),
        ),
        Err(why) => end(
            draft,
            row,
            ExperimentState::Completed,
            &format!("completed: {counts}; nothing is promoted: {why}"),
        ),
    }
}

/// What to publish, when the file asks for it.
fn promotion(draft: &Draft, row: &Experiment) -> Result<Option<TaskSpec>, &'static str> {
    let Some(promote) = &row.spec.promote else {
        return Ok(None);
    };
    let trial = row.best.ok_or("no completed trial has the search metric")?;
    (draft.cluster().checkpoint(trial, CheckpointKind::Best))
        .ok_or("the best trial has no checkpoint")?;
    Ok(Some(TaskSpec::Publish {
        model: promote.model.clone(),
        trial,
        alias: Some(promote.alias.clone()),
    }))
}

fn promote(draft: &mut Draft, mut row: Experiment, spec: TaskSpec, counts: &str) {
    let id = TaskId::derive(&row.id.to_string(), 1);
    row.state = ExperimentState::Promoting { task: id };
    let text = format!("{counts}; task `{id}` publishes the best checkpoint");
    draft.reason(Subject::Experiment(row.id), text);
    draft.experiment(row);
    task::make(draft, id, spec, TASK_PRIORITY);
}

/// Ends an experiment; its rows leave memory.
pub(crate) fn end(draft: &mut Draft, mut row: Experiment, state: ExperimentState, why: &str) {
    retention::settle(draft, &row);
    row.state = state;
    row.ended_at = Some(draft.now);
    draft.reason(Subject::Experiment(row.id), why);
    draft.experiment(row);
}

/// The experiment that waits for a publish task.
pub(crate) fn promoting(draft: &Draft, task: TaskId) -> Option<Experiment> {
    (draft.cluster().experiments())
        .find(|row| row.state == ExperimentState::Promoting { task })
        .cloned()
}
