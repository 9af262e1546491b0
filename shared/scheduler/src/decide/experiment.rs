//! The life of an experiment: trials are made, the best is known, the end is noticed.

use super::draft::Draft;
use super::{retention, task};
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::metric::Direction;
use pomona_domain::task::TaskSpec;
use pomona_domain::trial::{BestPoint, Trial, TrialState};
use pomona_domain::{Code, ExperimentId, Fault, TaskId, TrialId};
use pomona_search::{Point, Searcher};
use std::collections::BTreeMap;

/// Priority of a task that nobody gave one: above a trial's.
pub(crate) const TASK_PRIORITY: i32 = 60;

/// Makes trials ahead, and ends the experiment when nothing is left to do. Called whenever one of
/// its trials ended.
pub(crate) fn settle(draft: &mut Draft, id: ExperimentId) {
    let is_active = |draft: &Draft| {
        (draft.cluster().experiment(id)).is_some_and(|row| row.state == ExperimentState::Active)
    };
    if !is_active(draft) {
        return;
    }
    refill(draft, id);
    if is_active(draft) && draft.cluster().trials_of(id).all(Trial::is_ended) {
        conclude(draft, id);
    }
}

/// Asks the searcher for trials until enough wait.
fn refill(draft: &mut Draft, id: ExperimentId) {
    let Some(row) = draft.cluster().experiment(id) else {
        return;
    };
    let is_waiting = |trial: &&Trial| matches!(trial.state, TrialState::Waiting { .. });
    let waiting = draft.cluster().trials_of(id).filter(is_waiting).count();
    let ahead = usize::try_from(draft.config().queue_ahead.max(1)).unwrap_or(usize::MAX);
    let room = ahead.saturating_sub(waiting);
    let left = row
        .spec
        .search
        .max_trials
        .saturating_sub(row.created_trials);
    if room == 0 || left == 0 {
        return;
    }
    let mut row = row.clone();
    let mut made = Vec::new();
    match serde_json::from_value::<Searcher>(row.searcher.clone()) {
        Ok(mut searcher) => {
            let mut waits = 0;
            while waits < room && row.created_trials < row.spec.search.max_trials {
                let Some(point) = searcher.next() else { break };
                row.created_trials += 1;
                let trial = make(draft, &row, point);
                waits += usize::from(!trial.is_ended());
                made.push(trial);
            }
            row.searcher = serde_json::to_value(&searcher).unwrap_or_default();
        }
        Err(error) => {
            let fault = Fault::new(
                Code::Internal,
                format!("the searcher's snapshot cannot be read: {error}"),
            );
            end(draft, row, ExperimentState::Failed { fault }, "failed");
            return;
        }
    }
    if made.is_empty() {
        return;
    }
    draft.experiment(row);
    for trial in made {
        if let TrialState::Failed { fault } = &trial.state {
            let text = format!("its point cannot be trained: {fault}");
            draft.reason(Subject::Trial(trial.id), text);
        }
        draft.trial(trial);
    }
}

fn make(draft: &Draft, owner: &Experiment, point: Point) -> Trial {
    let number = owner.created_trials;
    let now = draft.now;
    let refused = (owner.spec).point_fault(&point.hparams, point.replicate);
    let ended_at = refused.is_some().then_some(now);
    Trial {
        id: TrialId::derive(&owner.id.to_string(), u64::from(number)),
        version: 0,
        experiment: owner.id,
        number,
        hparams: point.hparams,
        replicate: point.replicate,
        state: refused.map_or(
            TrialState::Waiting {
                since: now,
                not_before: now,
            },
            |fault| TrialState::Failed { fault },
        ),
        restarts: 0,
        leases: 0,
        share_limit: None,
        last_step: 0,
        last_epoch: 0,
        latest: BTreeMap::new(),
        best: None,
        environment: BTreeMap::new(),
        pinned: false,
        expendable: false,
        deleted: None,
        created_at: now,
        started_at: None,
        active_ms: 0,
        ended_at,
    }
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
    let counts = format!("{completed} trials completed, {failed} failed, {canceled} canceled");
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
