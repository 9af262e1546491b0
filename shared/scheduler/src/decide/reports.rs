//! What a worker produced. It counts only with its lease's current generation and while the trial
//! is a member of that lease (S3); steps only grow (S4). Everything else is acknowledged and
//! forgotten.

use super::draft::Draft;
use super::lease::{Cause, close, part, part_over};
use super::trial::{Company, Fate, fate, measured, unmeasured};
use super::{experiment, not_found, search, task};
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::lease::{EndKind, Lease, Rendezvous, Work};
use pomona_domain::metric::Observation;
use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::trial::{BestPoint, Trial};
use pomona_domain::{Change, Code, Fault, TrialId, WorkerId};
use std::collections::BTreeMap;

/// Counts one report, or not.
pub(crate) fn count(draft: &mut Draft, worker: WorkerId, report: &Report) {
    let Some(lease) = current(draft, worker, report) else {
        return;
    };
    match &report.body {
        ReportBody::Started { environment } => started(draft, &lease, environment),
        ReportBody::Meets { at } => meets(draft, lease, at),
        ReportBody::Observed {
            trial,
            step,
            epoch,
            metrics,
            confusion,
        } => {
            let observation = Observation {
                trial: *trial,
                generation: lease.generation,
                step: *step,
                epoch: *epoch,
                at: report.at,
                metrics: metrics.clone(),
                confusion: confusion.clone(),
            };
            observed(draft, &lease, observation);
        }
        ReportBody::Checkpoint {
            trial,
            checkpoint,
            step,
            epoch,
            digest,
            size,
        } => checkpointed(
            draft,
            &lease,
            &Checkpoint {
                trial: *trial,
                kind: *checkpoint,
                generation: lease.generation,
                step: *step,
                epoch: *epoch,
                digest: *digest,
                size: *size,
                at: report.at,
            },
        ),
        ReportBody::TrialEnded { trial, outcome } => ended(draft, &lease, *trial, outcome),
        ReportBody::Result { task, result } => {
            if lease.work == Work::Task(*task) {
                close(draft, &lease, EndKind::Finished, "its task answered");
                task::answered(draft, *task, result);
            }
        }
        ReportBody::Exited { outcome } => {
            part_over(draft, &lease, worker, Cause::Exited(outcome));
        }
    }
}

/// S3: the live lease of this generation, while it is not over on this worker. Of several workers
/// only that of rank 0 speaks for the trials; of the others nothing counts but their exit.
fn current(draft: &Draft, worker: WorkerId, report: &Report) -> Option<Lease> {
    (draft.cluster().lease(report.lease))
        .filter(|lease| lease.generation == report.generation)
        .filter(|lease| lease.is_open_on(worker))
        .filter(|lease| lease.is_led_by(worker) || matches!(report.body, ReportBody::Exited { .. }))
        .cloned()
}

/// S3, second half: a member of the lease that is still on it.
fn member(draft: &Draft, lease: &Lease, id: TrialId) -> Option<Trial> {
    let mut members = draft.cluster().members(lease);
    members.find(|trial| trial.id == id).cloned()
}

/// The other workers of a lease are told where its ranks meet.
fn meets(draft: &mut Draft, mut lease: Lease, at: &Rendezvous) {
    if lease.is_wide() && lease.meets_at.is_none() {
        lease.meets_at = Some(at.clone());
        draft.lease(lease);
    }
}

/// What was resolved when a trial first ran stays with it: a resume must match it.
fn started(draft: &mut Draft, lease: &Lease, environment: &BTreeMap<String, String>) {
    let members: Vec<Trial> = draft.cluster().members(lease).cloned().collect();
    for mut row in members {
        if row.started_at.is_none() {
            row.started_at = Some(draft.now);
            row.environment.clone_from(environment);
            draft.trial(row);
        }
    }
}

/// A member is done while others go on. Its trainer says whose fault it was, so a fault counts as
/// that of a trial alone does.
fn ended(draft: &mut Draft, lease: &Lease, id: TrialId, outcome: &Outcome) {
    let Some(row) = member(draft, lease, id) else {
        return;
    };
    let owner = draft.cluster().experiment(row.experiment);
    let max_restarts = owner.map_or(0, |owner| owner.spec.max_restarts);
    let cause = Cause::Exited(outcome);
    let fate = fate(&row, max_restarts, cause, Company::NONE);
    let fate = measured(draft, &row, cause, fate);
    part(draft, lease, row, fate, &cause.sentence());
}

fn observed(draft: &mut Draft, lease: &Lease, observation: Observation) {
    let Some(mut row) = member(draft, lease, observation.trial) else {
        return;
    };
    if let Some((name, value)) = observation.metrics.iter().find(|(_, v)| !v.is_finite()) {
        let fault = Fault::new(
            Code::NotANumber,
            format!("`{name}` is {value} at step {}", observation.step),
        )
        .hint("a smaller `train.learning_rate` usually helps");
        let why = fault.to_string();
        return part(draft, lease, row, Fate::Fails(fault), &why);
    }
    let first = row.latest.is_empty();
    if observation.metrics.is_empty() || (!first && observation.step <= row.last_step) {
        return;
    }
    if let Some(fault) = missing(draft, &row, &observation) {
        let why = fault.to_string();
        return part(draft, lease, row, Fate::Fails(fault), &why);
    }
    let last_epoch = row.last_epoch;
    row.last_step = observation.step;
    row.last_epoch = observation.epoch;
    for (name, value) in &observation.metrics {
        row.latest.insert(name.clone(), *value);
    }
    improve(draft, &mut row, &observation);
    draft.trial(row.clone());
    draft.push(Change::Observed(observation));
    let last = (draft.cluster()).checkpoint(row.id, CheckpointKind::Last);
    if let Some(last) = last.filter(|last| last.step == row.last_step).cloned() {
        keep_best(draft, &last);
    }
    search::heard(draft, &row, last_epoch);
}

/// A trial is evaluated a second time and still has not measured what it is compared by: it never
/// will. A cross-validation measures it once, at the end; a program of one's own may tell of other
/// things in between.
fn missing(draft: &Draft, row: &Trial, observation: &Observation) -> Option<Fault> {
    let spec = &draft.cluster().experiment(row.experiment)?.spec;
    let search = &spec.search;
    let is_due = !row.latest.is_empty()
        && row.best.is_none()
        && search.folds().is_none()
        && spec.runner.is_trainer();
    let objective = search.objective();
    (is_due && !observation.metrics.contains_key(&objective))
        .then(|| unmeasured(&objective, row, observation.step))
}

/// A program of one's own told over the API what it measured. It counts as what a worker reports
/// does; unlike a worker, a program is told when it does not.
pub(crate) fn told(draft: &mut Draft, observation: &Observation) -> Result<(), Fault> {
    let id = observation.trial;
    let row = draft.cluster().trial(id).ok_or_else(|| not_found(id))?;
    let owner = draft.cluster().experiment(row.experiment);
    if owner.is_none_or(|owner| owner.spec.runner.is_trainer()) {
        let text = format!("trial `{id}` runs our trainer, which reports by itself");
        return Err(Fault::new(Code::NotForRunner, text));
    }
    let lease = row.lease().and_then(|lease| draft.cluster().lease(lease));
    let lease = lease.filter(|lease| lease.generation == observation.generation);
    let Some(lease) = lease.cloned() else {
        let generation = observation.generation.0;
        let text = format!("trial `{id}` is on no lease of generation {generation} any more");
        let hint = "end the process: another one trains this trial, or nobody should";
        return Err(Fault::new(Code::StaleGeneration, text).hint(hint));
    };
    observed(draft, &lease, observation.clone());
    Ok(())
}

/// A program of one's own keeps one folder, and does not say which state of it is the best: the
/// one whose step is that of the best point is.
fn keep_best(draft: &mut Draft, last: &Checkpoint) {
    let Some(row) = draft.cluster().trial(last.trial) else {
        return;
    };
    let owner = draft.cluster().experiment(row.experiment);
    let is_best = (row.best.as_ref()).is_some_and(|best| best.step == last.step);
    if !is_best || owner.is_none_or(|owner| owner.spec.runner.is_trainer()) {
        return;
    }
    draft.push(Change::Checkpoint(Checkpoint {
        kind: CheckpointKind::Best,
        ..last.clone()
    }));
}

/// Keeps the best point of the curve; of equal points the first.
fn improve(draft: &Draft, row: &mut Trial, observation: &Observation) {
    let Some(owner) = draft.cluster().experiment(row.experiment) else {
        return;
    };
    let search = &owner.spec.search;
    let Some(value) = observation.metrics.get(&search.objective()).copied() else {
        return;
    };
    // JSON has no infinity: the largest number stands for "no validation loss".
    let tie = observation.metrics.get(search.tie_breaker()).copied();
    let point = BestPoint {
        step: observation.step,
        epoch: observation.epoch,
        value,
        tie: tie.unwrap_or(f64::MAX),
        metrics: observation.metrics.clone(),
    };
    let wins = (row.best.as_ref())
        .is_none_or(|best| experiment::is_better(search.direction, (&point, 1), (best, 0)));
    if wins {
        row.best = Some(point);
    }
}

fn checkpointed(draft: &mut Draft, lease: &Lease, checkpoint: &Checkpoint) {
    if member(draft, lease, checkpoint.trial).is_none() {
        return;
    }
    let old = draft
        .cluster()
        .checkpoint(checkpoint.trial, checkpoint.kind);
    if let Some(old) = old
        && (checkpoint.step < old.step
            || (checkpoint.step == old.step && checkpoint.digest == old.digest))
    {
        return;
    }
    if old.is_none() && checkpoint.kind == CheckpointKind::Last {
        let text = format!("has a first checkpoint at step {}", checkpoint.step);
        draft.reason(Subject::Trial(checkpoint.trial), text);
    }
    draft.push(Change::Checkpoint(checkpoint.clone()));
    if checkpoint.kind == CheckpointKind::Last {
        keep_best(draft, checkpoint);
    }
}

/// Metrics for people and gates, by name.
pub(crate) type Metrics = BTreeMap<String, f64>;
