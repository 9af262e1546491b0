//! Which checkpoints stay. While an experiment lives, each trial keeps its newest and its best one;
//! when it ends, its file says how many trials keep theirs. What is pinned, what a version was made
//! of and what is being published stays in any case.
//!
//! A deletion is a change like any other, with its reason: the reference to the blob goes in the
//! same commit, and the bytes by the collection that serves all blobs.

use super::draft::Draft;
use super::{experiment, not_found};
use crate::event::Ended;
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::experiment::Experiment;
use pomona_domain::metric::Direction;
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::words::{bytes, plural};
use pomona_domain::{Change, Fault, TrialId};
use std::cmp::Ordering;

const KINDS: [CheckpointKind; 2] = [CheckpointKind::Last, CheckpointKind::Best];

/// An experiment ends: its trials keep what its file says.
pub(crate) fn settle(draft: &mut Draft, owner: &Experiment) {
    let rule = owner.spec.retention;
    let direction = owner.spec.search.direction;
    let mut trials: Vec<Trial> = draft.cluster().trials_of(owner.id).cloned().collect();
    trials.retain(|trial| trial.is_ended() && !kept(draft, trial.id).is_empty());
    trials.sort_by(|a, b| rank(direction, a, b));
    let (mut gone, mut freed) = (0, 0);
    for (place, trial) in trials.into_iter().enumerate() {
        let stays = rule.best.is_none_or(|best| place < best as usize);
        let rows = kept(draft, trial.id);
        let (why, rows) = if stays {
            (
                "`retention.last: false` keeps the best one alone".to_owned(),
                superfluous(rows, rule.last),
            )
        } else {
            let best = plural(u64::from(rule.best.unwrap_or(0)), "trial");
            let why = format!("it is not among the best {best} of its experiment");
            (why, rows)
        };
        if rows.is_empty() {
            continue;
        }
        if let Some(holder) = holder(draft, &trial, &rows) {
            spare(draft, trial, stays, holder);
            continue;
        }
        gone += 1;
        freed += rows.iter().map(|row| row.size).sum::<u64>();
        delete(draft, trial, &rows, stays, &why);
    }
    if gone > 0 {
        let trials = plural(gone, "trial");
        let text = format!(
            "deleted checkpoints of {trials} ({} in all), as `retention` says",
            bytes(freed)
        );
        draft.reason(Subject::Experiment(owner.id), text);
    }
}

/// A user pins a trial, or lets go of it.
pub(crate) fn pin(
    draft: &mut Draft,
    id: TrialId,
    pinned: bool,
    ended: Option<&Ended>,
) -> Result<(), Fault> {
    let live = draft.cluster().trial(id).cloned();
    let is_live = live.is_some();
    let read = ended.map(|ended| ended.trial.clone());
    let mut row = (live.or(read)).ok_or_else(|| not_found(id))?;
    if pinned && let Some(fault) = row.deletion() {
        return Err(fault);
    }
    let changes = row.pinned != pinned;
    row.pinned = pinned;
    if !is_live && !pinned && row.expendable && row.deleted.is_none() {
        let rows = ended.map_or(&[][..], |ended| &ended.checkpoints);
        if holder(draft, &row, rows).is_none() {
            let why = "it was unpinned, and is not among the trials that its experiment keeps";
            delete(draft, row, rows, false, why);
            return Ok(());
        }
    }
    if changes {
        let text = if pinned {
            "pinned by request: its checkpoints stay"
        } else {
            "unpinned by request"
        };
        draft.reason(Subject::Trial(id), text);
        draft.trial(row);
    }
    Ok(())
}

/// The checkpoints of a trial in memory.
fn kept(draft: &Draft, id: TrialId) -> Vec<Checkpoint> {
    let rows = KINDS.map(|kind| draft.cluster().checkpoint(id, kind).cloned());
    rows.into_iter().flatten().collect()
}

/// Of a trial that keeps its checkpoints, those that it need not keep.
fn superfluous(mut rows: Vec<Checkpoint>, keeps_last: bool) -> Vec<Checkpoint> {
    if keeps_last || rows.len() < KINDS.len() {
        return Vec::new();
    }
    rows.retain(|row| row.kind == CheckpointKind::Last);
    rows
}

/// What holds checkpoints that could go, if anything does.
fn holder(draft: &Draft, trial: &Trial, rows: &[Checkpoint]) -> Option<&'static str> {
    let cluster = draft.cluster();
    if trial.pinned {
        return Some("it is pinned");
    }
    if rows.iter().any(|row| cluster.is_published(&row.digest)) {
        return Some("a version was made of them");
    }
    let mut publishing = cluster.publish_trials();
    (publishing.any(|id| id == trial.id)).then_some("they are being published")
}

/// What only a holder keeps goes when that lets go of it.
fn spare(draft: &mut Draft, mut trial: Trial, stays: bool, holder: &str) {
    if stays {
        return;
    }
    let text = format!("its checkpoints stay although its experiment has ended: {holder}");
    draft.reason(Subject::Trial(trial.id), text);
    trial.expendable = true;
    draft.trial(trial);
}

fn delete(draft: &mut Draft, mut trial: Trial, rows: &[Checkpoint], stays: bool, why: &str) {
    let sizes: u64 = rows.iter().map(|row| row.size).sum();
    let steps: Vec<String> = rows.iter().map(named).collect();
    let text = format!("deleted {} ({}): {why}", steps.join(" and "), bytes(sizes));
    draft.reason(Subject::Trial(trial.id), text);
    for row in rows {
        draft.push(Change::CheckpointDeleted(row.trial, row.kind));
    }
    if !stays {
        trial.expendable = true;
        trial.deleted = Some(why.to_owned());
        draft.trial(trial);
    }
}

/// `its best checkpoint at step 40`.
fn named(row: &Checkpoint) -> String {
    let kind = match row.kind {
        CheckpointKind::Last => "last",
        CheckpointKind::Best => "best",
    };
    format!("its {kind} checkpoint at step {}", row.step)
}

/// Better trials first: those that completed, those that measured something, by what they measured,
/// then by number.
fn rank(direction: Direction, a: &Trial, b: &Trial) -> Ordering {
    let class = |trial: &Trial| (trial.state != TrialState::Completed, trial.best.is_none());
    let worth = match (&a.best, &b.best) {
        (Some(x), Some(y)) => {
            let wins = experiment::is_better(direction, (x, a.number), (y, b.number));
            if wins {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (Some(_) | None, Some(_) | None) => a.number.cmp(&b.number),
    };
    if a.id == b.id {
        return Ordering::Equal;
    }
    class(a).cmp(&class(b)).then(worth)
}
