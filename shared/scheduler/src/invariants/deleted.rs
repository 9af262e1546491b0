//! R6: a checkpoint that anybody may still want stays.
//!
//! It works out by itself what is held, and never asks how `decide` does.

use super::Verdict;
use crate::{Cluster, Event};
use pomona_domain::change::Change;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::experiment::Experiment;
use pomona_domain::task::{Task, TaskSpec};
use pomona_domain::trial::Trial;
use pomona_domain::{Digest, ExperimentId, TrialId};

/// A checkpoint is deleted only when its trial and experiment have ended, and it is not pinned, no
/// version was made of it, and none is being made.
pub fn r6(before: &Cluster, event: &Event, changes: &[Change]) -> Verdict {
    let facts = Facts {
        before,
        event,
        changes,
    };
    for change in changes {
        let Change::CheckpointDeleted(trial, kind) = change else {
            continue;
        };
        if let Some(why) = facts.want(*trial, *kind) {
            return Err(format!(
                "R6 the {kind:?} checkpoint of trial `{trial}` goes: {why}"
            ));
        }
    }
    Ok(())
}

struct Facts<'a> {
    before: &'a Cluster,
    event: &'a Event,
    changes: &'a [Change],
}

impl Facts<'_> {
    /// Why a checkpoint should have stayed, if it should.
    fn want(&self, id: TrialId, kind: CheckpointKind) -> Option<&'static str> {
        let Some(trial) = self.trial(id) else {
            return Some("nobody knows the trial");
        };
        if !trial.is_ended() {
            return Some("the trial goes on");
        }
        if trial.pinned {
            return Some("it is pinned");
        }
        if self.owner_goes_on(trial.experiment) {
            return Some("its experiment goes on");
        }
        if self.is_being_published(id) {
            return Some("it is being published");
        }
        let digest = self.digest(id, kind)?;
        let is_now = |change: &Change| matches!(change, Change::Version(row) if row.trained().is_some_and(|of| of.checkpoint == digest));
        (self.before.is_published(&digest) || self.changes.iter().any(is_now))
            .then_some("a version was made of it")
    }

    fn trial(&self, id: TrialId) -> Option<&Trial> {
        let written = self.changes.iter().rev().find_map(|change| {
            if let Change::Trial(row) = change
                && row.id == id
            {
                Some(&**row)
            } else {
                None
            }
        });
        written
            .or_else(|| self.before.trial(id))
            .or_else(|| self.told().map(|(trial, _)| trial))
            .filter(|row| row.id == id)
    }

    /// Rows that came with the event.
    fn told(&self) -> Option<(&Trial, &[Checkpoint])> {
        if let Event::Pin {
            ended: Some(rows), ..
        } = self.event
        {
            Some((&rows.trial, &rows.checkpoints))
        } else {
            None
        }
    }

    fn owner_goes_on(&self, id: ExperimentId) -> bool {
        let ends = |row: &Experiment| row.id == id && row.is_ended();
        let ended = |change: &Change| matches!(change, Change::Experiment(row) if ends(row));
        self.before.experiment(id).is_some() && !self.changes.iter().any(ended)
    }

    fn is_being_published(&self, id: TrialId) -> bool {
        let over = |task: &Task| {
            let is_it = |change: &Change| matches!(change, Change::Task(row) if row.id == task.id && row.is_ended());
            self.changes.iter().any(is_it)
        };
        let mut tasks = self.before.tasks();
        tasks.any(|task| {
            matches!(task.spec, TaskSpec::Publish { trial, .. } if trial == id) && !over(task)
        })
    }

    fn digest(&self, id: TrialId, kind: CheckpointKind) -> Option<Digest> {
        let told = self.told().map_or(&[][..], |(_, rows)| rows);
        let known = self.before.checkpoint(id, kind);
        let told = told.iter().find(|row| (row.trial, row.kind) == (id, kind));
        known.or(told).map(|row| row.digest)
    }
}
