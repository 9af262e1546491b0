//! S3: of what workers report only what is current counts, and once.
//!
//! It works out by itself which reports may count, and never asks how `decide` does.

use super::{Verdict, is_member, is_on};
use crate::{Cluster, Event};
use pomona_domain::change::{Change, Subject};
use pomona_domain::report::{Report, ReportBody};
use pomona_domain::worker::Worker;
use pomona_domain::{Generation, LeaseId, TrialId};
use std::collections::BTreeSet;

/// An observation, checkpoint or exit counts only with its lease's current generation, and while
/// the trial is a member of that lease; and it counts once.
pub fn s3(before: &Cluster, event: &Event, changes: &[Change]) -> Verdict {
    let valid = valid_reports(before, event);
    let counts = |trial: TrialId, generation: Generation, step: u64| {
        (valid.iter())
            .any(|report| report.generation == generation && fits(&report.body, trial, step))
            || is_told(before, event, trial, generation)
    };
    for change in changes {
        let (trial, generation, step, what) = match change {
            Change::Observed(row) => (row.trial, row.generation, row.step, "observation"),
            Change::Checkpoint(row) => (row.trial, row.generation, row.step, "checkpoint"),
            Change::Lease(row) => {
                let ends = matches!(event, Event::Polled { .. }) && !row.is_live();
                if ends && !valid.iter().any(|report| report.lease == row.id) {
                    return Err(format!(
                        "S3 lease `{}` ended by a report that is not its own",
                        row.id
                    ));
                }
                continue;
            }
            Change::Worker(row) => {
                acknowledges(before, event, row)?;
                continue;
            }
            Change::Experiment(_)
            | Change::Trial(_)
            | Change::CheckpointDeleted(..)
            | Change::Task(_)
            | Change::Dataset(_)
            | Change::Backbone(_)
            | Change::Version(_)
            | Change::AliasMoved(_)
            | Change::Described(_)
            | Change::Removed(_)
            | Change::Audited(_)
            | Change::Gates(_)
            | Change::Reason(_) => continue,
        };
        if !counts(trial, generation, step) {
            return Err(format!(
                "S3 {what} of trial `{trial}` at step {step} counted with generation {}",
                generation.0
            ));
        }
    }
    Ok(())
}

/// Whether a program told it over the API, while its trial was on that very lease.
fn is_told(before: &Cluster, event: &Event, trial: TrialId, generation: Generation) -> bool {
    let Event::Measured { observation } = event else {
        return false;
    };
    let lease = before
        .trial(trial)
        .and_then(|row| before.lease(row.lease()?));
    observation.trial == trial
        && observation.generation == generation
        && lease.is_some_and(|lease| lease.generation == generation)
}

/// What was acknowledged stays so, and only what was said is acknowledged.
fn acknowledges(before: &Cluster, event: &Event, row: &Worker) -> Verdict {
    let old = before.worker(row.id).map_or(0, |old| old.acked_seq);
    let said = match event {
        Event::Polled {
            worker, reports, ..
        } if *worker == row.id => reports.iter().map(|report| report.seq).max(),
        Event::Polled { .. }
        | Event::Submitted { .. }
        | Event::Pause(_)
        | Event::Resume(_)
        | Event::Cancel(_)
        | Event::StopTrial(_)
        | Event::Registered { .. }
        | Event::Measured { .. }
        | Event::Pin { .. }
        | Event::Drain { .. }
        | Event::Undrain(_)
        | Event::TaskSubmitted { .. }
        | Event::TaskCanceled(_)
        | Event::AliasSet { .. }
        | Event::Approved(_)
        | Event::AliasRollback { .. }
        | Event::Registry { .. }
        | Event::Tick => None,
    };
    let due = old.max(said.unwrap_or(0));
    if row.acked_seq == due {
        return Ok(());
    }
    Err(format!(
        "S3 worker `{}` is acknowledged up to {}, which should be {due}",
        row.name, row.acked_seq
    ))
}

/// The reports of a poll that may count: new ones, of live leases of this worker, up to the one
/// that ends the lease or the trial.
pub(super) fn valid_reports<'a>(before: &Cluster, event: &'a Event) -> Vec<&'a Report> {
    let Event::Polled {
        worker,
        incarnation,
        reports,
        ..
    } = event
    else {
        return Vec::new();
    };
    let known = (before.worker(*worker)).filter(|row| row.incarnation == *incarnation);
    let Some(row) = known else {
        return Vec::new();
    };
    let mut fresh: Vec<&Report> = reports.iter().filter(|r| r.seq > row.acked_seq).collect();
    fresh.sort_by_key(|report| report.seq);
    fresh.dedup_by_key(|report| report.seq);
    let mut over: BTreeSet<LeaseId> = BTreeSet::new();
    let mut done: BTreeSet<TrialId> = BTreeSet::new();
    fresh.retain(|report| {
        let live = before.lease(report.lease).filter(|lease| {
            lease.generation == report.generation
                && lease.slots.iter().any(|slot| slot.worker == *worker)
                && lease.parts.iter().all(|part| part.worker != *worker)
                && !over.contains(&lease.id)
        });
        let Some(lease) = live else {
            return false;
        };
        let is_exit = matches!(report.body, ReportBody::Exited { .. });
        if !is_exit
            && lease
                .slots
                .first()
                .is_none_or(|first| first.worker != *worker)
        {
            return false;
        }
        let mut counts_of = |trial: &TrialId, ends: bool| {
            let on = is_on(before, lease, Subject::Trial(*trial));
            let counts = on && is_member(lease, *trial) && !done.contains(trial);
            if ends {
                done.insert(*trial);
            }
            counts
        };
        match &report.body {
            ReportBody::Observed { trial, metrics, .. } => {
                counts_of(trial, metrics.values().any(|value| !value.is_finite()))
            }
            ReportBody::Checkpoint { trial, .. } => counts_of(trial, false),
            ReportBody::TrialEnded { trial, .. } => counts_of(trial, true),
            ReportBody::Result { .. } | ReportBody::Exited { .. } => over.insert(lease.id),
            ReportBody::Started { .. } | ReportBody::Meets { .. } => true,
        }
    });
    fresh
}

fn fits(body: &ReportBody, of: TrialId, at: u64) -> bool {
    match body {
        ReportBody::Observed { trial, step, .. } | ReportBody::Checkpoint { trial, step, .. } => {
            *trial == of && *step == at
        }
        ReportBody::Started { .. }
        | ReportBody::Meets { .. }
        | ReportBody::TrialEnded { .. }
        | ReportBody::Result { .. }
        | ReportBody::Exited { .. } => false,
    }
}
