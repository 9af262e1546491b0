//! What users do to experiments and trials: pause, resume, cancel, stop.

use super::draft::Draft;
use super::experiment;
use super::trial::{Fate, finish, has_result, spend};
use super::{lease, not_found, search, task};
use crate::{Cluster, Preemption, preemptions};
use pomona_domain::change::Subject;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::{EndKind, Lease, StopReason};
use pomona_domain::trial::{AfterStop, Trial, TrialState};
use pomona_domain::{Code, ExperimentId, Fault, LeaseId, TrialId};
use std::collections::BTreeMap;

fn find(draft: &Draft, id: ExperimentId) -> Result<Experiment, Fault> {
    let row = draft.cluster().experiment(id).cloned();
    row.ok_or_else(|| not_found(id))
}

fn promoting(id: ExperimentId, verb: &str) -> Fault {
    Fault::new(
        Code::WrongState,
        format!("experiment `{id}` cannot be {verb}: its trials have ended and it is promoting"),
    )
}

/// Running trials write a checkpoint and give their slots back; none starts.
pub(crate) fn pause(draft: &mut Draft, id: ExperimentId) -> Result<(), Fault> {
    let mut row = find(draft, id)?;
    match row.state {
        ExperimentState::Active => {}
        ExperimentState::Paused => return Ok(()),
        ExperimentState::Promoting { .. } => return Err(promoting(id, "paused")),
        ExperimentState::Completed | ExperimentState::Failed { .. } | ExperimentState::Canceled => {
            return Err(not_found(id));
        }
    }
    row.state = ExperimentState::Paused;
    draft.experiment(row);
    draft.reason(Subject::Experiment(id), "paused by request");
    let trials: Vec<Trial> = draft.cluster().trials_of(id).cloned().collect();
    for trial in trials {
        match trial.state {
            TrialState::Running { lease } => {
                stop(
                    draft,
                    trial,
                    lease,
                    AfterStop::Paused,
                    "the experiment is paused",
                );
            }
            TrialState::Stopping {
                lease,
                then: AfterStop::Waiting,
            } => redirect(draft, trial, lease, AfterStop::Paused),
            TrialState::Stopping {
                then: AfterStop::Paused | AfterStop::Canceled | AfterStop::Completed,
                ..
            }
            | TrialState::Waiting { .. }
            | TrialState::Paused
            | TrialState::Completed
            | TrialState::Failed { .. }
            | TrialState::Canceled => {}
        }
    }
    Ok(())
}

/// Paused trials wait for slots again.
pub(crate) fn resume(draft: &mut Draft, id: ExperimentId) -> Result<(), Fault> {
    let mut row = find(draft, id)?;
    match row.state {
        ExperimentState::Paused => {}
        ExperimentState::Active => return Ok(()),
        ExperimentState::Promoting { .. } => return Err(promoting(id, "resumed")),
        ExperimentState::Completed | ExperimentState::Failed { .. } | ExperimentState::Canceled => {
            return Err(not_found(id));
        }
    }
    row.state = ExperimentState::Active;
    draft.experiment(row);
    draft.reason(Subject::Experiment(id), "resumed by request");
    let held = search::held(draft, id);
    let trials = draft.cluster().trials_of(id);
    let trials: Vec<Trial> = trials
        .filter(|row| !held.contains(&row.number))
        .cloned()
        .collect();
    for trial in trials {
        match trial.state {
            TrialState::Paused => finish(draft, trial, Fate::Waits, "the experiment is resumed"),
            TrialState::Stopping {
                lease,
                then: AfterStop::Paused,
            } => redirect(draft, trial, lease, AfterStop::Waiting),
            // It has waited in vain: only from now on does waiting count.
            TrialState::Waiting { not_before, .. } => {
                let since = draft.now;
                draft.trial(Trial {
                    state: TrialState::Waiting { since, not_before },
                    ..trial
                });
            }
            TrialState::Stopping {
                then: AfterStop::Waiting | AfterStop::Canceled | AfterStop::Completed,
                ..
            }
            | TrialState::Running { .. }
            | TrialState::Completed
            | TrialState::Failed { .. }
            | TrialState::Canceled => {}
        }
    }
    experiment::settle(draft, id);
    Ok(())
}

/// Takes an experiment back: all its leases end in this very decision.
pub(crate) fn cancel(draft: &mut Draft, id: ExperimentId) -> Result<(), Fault> {
    let row = find(draft, id)?;
    let why = "the experiment is canceled";
    let trials: Vec<Trial> = draft.cluster().trials_of(id).cloned().collect();
    let held: BTreeMap<LeaseId, Lease> = (trials.iter())
        .filter_map(|trial| draft.cluster().lease(trial.lease()?))
        .map(|held| (held.id, held.clone()))
        .collect();
    for lease in held.values() {
        lease::close(draft, lease, EndKind::Neutral, why);
    }
    for mut trial in trials.into_iter().filter(|trial| !trial.is_ended()) {
        if let Some(lease) = trial.lease().and_then(|id| held.get(&id)) {
            spend(&mut trial, lease, draft.now);
        }
        finish(draft, trial, Fate::IsCanceled, why);
    }
    if let ExperimentState::Promoting { task } = row.state
        && let Some(publish) = draft.cluster().task(task).cloned()
    {
        task::take_back(draft, publish, why);
    }
    let row = find(draft, id)?;
    experiment::end(draft, row, ExperimentState::Canceled, "canceled by request");
    Ok(())
}

/// Ends one trial; it counts as completed with what it has. Others in its process stop, too, and
/// go on from their checkpoints on another lease.
pub(crate) fn stop_trial(draft: &mut Draft, id: TrialId) -> Result<(), Fault> {
    let trial = (draft.cluster().trial(id).cloned()).ok_or_else(|| not_found(id))?;
    if trial.is_ended() {
        return Err(Fault::new(
            Code::WrongState,
            format!("trial `{id}` has ended already"),
        ));
    }
    let owner = trial.experiment;
    ask(draft, trial, AfterStop::Completed, "stopped by request");
    experiment::settle(draft, owner);
    Ok(())
}

/// Asks a trial to become something: on a lease it stops first, and whoever shares its process waits
/// for another lease; without one it moves at once. Nothing brings back what ends. The experiment is
/// settled by the caller.
pub(crate) fn ask(draft: &mut Draft, trial: Trial, then: AfterStop, why: &str) {
    match trial.state {
        TrialState::Running { lease } => {
            let neighbour = format!(
                "trial {} in the same process was asked to stop",
                trial.number
            );
            stop(draft, trial, lease, then, why);
            yields(draft, lease, StopReason::Request, &neighbour);
        }
        TrialState::Stopping {
            lease,
            then: AfterStop::Paused | AfterStop::Waiting,
        } => {
            draft.reason(Subject::Trial(trial.id), why);
            redirect(draft, trial, lease, then);
        }
        TrialState::Stopping {
            lease,
            then: AfterStop::Completed,
        } if then == AfterStop::Canceled => redirect(draft, trial, lease, then),
        TrialState::Waiting { .. } | TrialState::Paused => {
            let fate = match then {
                AfterStop::Completed if has_result(&trial) => Fate::Completes,
                AfterStop::Completed | AfterStop::Canceled => Fate::IsCanceled,
                AfterStop::Paused => Fate::Pauses,
                AfterStop::Waiting => Fate::Waits,
            };
            finish(draft, trial, fate, why);
        }
        TrialState::Stopping {
            then: AfterStop::Canceled | AfterStop::Completed,
            ..
        }
        | TrialState::Completed
        | TrialState::Failed { .. }
        | TrialState::Canceled => {}
    }
}

/// A process stops as a whole: who is on it writes a checkpoint and waits for another lease.
pub(crate) fn yields(draft: &mut Draft, id: LeaseId, reason: StopReason, why: &str) {
    lease::stop(draft, id, reason);
    let Some(lease) = draft.cluster().lease(id) else {
        return;
    };
    let members: Vec<Trial> = (draft.cluster().members(lease))
        .filter(|trial| matches!(trial.state, TrialState::Running { .. }))
        .cloned()
        .collect();
    for trial in members {
        stop(draft, trial, id, AfterStop::Waiting, why);
    }
}

/// Asks leases of lower priority to yield. Whether there was one.
pub(crate) fn preempt(draft: &mut Draft) -> bool {
    let found = preemptions(draft.cluster(), draft.now);
    for one in &found {
        let why = preempted_by(draft.cluster(), one);
        yields(draft, one.lease, StopReason::Priority, &why);
    }
    !found.is_empty()
}

/// Who takes a lease's slots, for those who are on it.
fn preempted_by(cluster: &Cluster, one: &Preemption) -> String {
    let owner = |trial: &Trial| cluster.experiment(trial.experiment);
    let taker = cluster
        .trial(one.by)
        .and_then(|trial| Some((trial, owner(trial)?)));
    let own = cluster
        .lease(one.lease)
        .and_then(|lease| cluster.owner(lease));
    match (taker, own) {
        (Some((trial, taker)), Some(own)) => format!(
            "preempted by trial {} of `{}`, whose priority is {}, its own is {}",
            trial.number, taker.spec.name, taker.spec.priority, own.spec.priority
        ),
        (Some(_) | None, _) => "preempted by work of higher priority".to_owned(),
    }
}

fn stop(draft: &mut Draft, mut trial: Trial, id: LeaseId, then: AfterStop, why: &str) {
    let text = format!("asked to write a checkpoint and stop: {why}");
    draft.reason(Subject::Trial(trial.id), text);
    trial.state = TrialState::Stopping { lease: id, then };
    draft.trial(trial);
    lease::stop(draft, id, StopReason::Request);
}

/// A stopping trial becomes something else than was asked first.
fn redirect(draft: &mut Draft, mut trial: Trial, lease: LeaseId, then: AfterStop) {
    let what = match then {
        AfterStop::Paused => "will be paused once it has stopped",
        AfterStop::Canceled => "will be canceled once it has stopped",
        AfterStop::Completed => "will be completed once it has stopped",
        AfterStop::Waiting => "will wait for another lease once it has stopped",
    };
    draft.reason(Subject::Trial(trial.id), what);
    trial.state = TrialState::Stopping { lease, then };
    draft.trial(trial);
}
