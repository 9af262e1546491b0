//! The searcher of an experiment at work: it hears what trials measured and how they ended, and what
//! it wants is done.
//!
//! It is told everything in the order of the reports that count, so what it decides follows from
//! what is committed, and its snapshot is committed with it.

use super::control::ask;
use super::draft::Draft;
use super::experiment;
use pomona_domain::change::Subject;
use pomona_domain::experiment::Experiment;
use pomona_domain::spec::Strategy;
use pomona_domain::trial::{AfterStop, BestPoint, Trial, TrialState};
use pomona_domain::{Code, ExperimentId, Fault, TrialId};
use pomona_search::{Action, Point, Score, Searcher, epochs, listens, rungs};
use std::collections::{BTreeMap, BTreeSet};

/// So many trials fail without measuring the objective, and none has measured it: no more are tried.
const DESPAIR: usize = 5;

fn read(row: &Experiment) -> Result<Searcher, Fault> {
    Searcher::restore(&row.searcher)
}

fn write(draft: &mut Draft, mut row: Experiment, searcher: &Searcher) {
    row.searcher = serde_json::to_value(searcher).unwrap_or_default();
    draft.experiment(row);
}

fn score(best: &BestPoint) -> Score {
    Score {
        value: best.value,
        tie: best.tie,
    }
}

/// An observation of a trial counted; before it the trial was at `last_epoch`. Most are between two
/// rungs and concern nobody.
pub(crate) fn heard(draft: &mut Draft, trial: &Trial, last_epoch: u32) {
    let (Some(row), Some(best)) = (draft.cluster().experiment(trial.experiment), &trial.best)
    else {
        return;
    };
    let passed = last_epoch + 1..=trial.last_epoch;
    let rungs = rungs(&row.spec, row.plan.as_deref(), &trial.hparams);
    if !rungs.iter().any(|rung| passed.contains(rung)) {
        return;
    }
    // What cannot be read ends the experiment when it is settled.
    let Ok(mut searcher) = read(row) else {
        return;
    };
    let actions = searcher.hear(trial.number, trial.last_epoch, score(best));
    let row = row.clone();
    write(draft, row, &searcher);
    if !actions.is_empty() {
        obey(draft, trial.experiment, actions);
        experiment::settle(draft, trial.experiment);
    }
}

/// Tells the searcher of trials that ended, and does what it answers.
pub(crate) fn listen(draft: &mut Draft, id: ExperimentId) -> Result<(), Fault> {
    let Some(row) = draft.cluster().experiment(id) else {
        return Ok(());
    };
    if !listens(&row.spec.search) {
        return Ok(());
    }
    let mut searcher = read(row)?;
    let mut actions = Vec::new();
    let mut is_new = false;
    for trial in draft
        .cluster()
        .trials_of(id)
        .filter(|trial| trial.is_ended())
    {
        if searcher.awaits(trial.number) {
            let is_completed = trial.state == TrialState::Completed;
            let best = trial.best.as_ref().filter(|_| is_completed).map(score);
            actions.extend(searcher.ended(trial.number, best));
            is_new = true;
        }
    }
    if is_new {
        let row = row.clone();
        write(draft, row, &searcher);
        obey(draft, id, actions);
    }
    Ok(())
}

/// Asks the searcher for trials until enough wait.
pub(crate) fn refill(draft: &mut Draft, id: ExperimentId) -> Result<(), Fault> {
    let Some(row) = draft.cluster().experiment(id) else {
        return Ok(());
    };
    let waiting = draft.cluster().count_waiting(id);
    let search = &row.spec.search;
    let ahead = match search.strategy {
        // Its next point is better the more is known.
        Strategy::Tpe => 1,
        Strategy::Grid | Strategy::Random | Strategy::Asha | Strategy::Hyperband => {
            usize::try_from(draft.config().queue_ahead.max(1)).unwrap_or(usize::MAX)
        }
    };
    let room = ahead.saturating_sub(waiting);
    let left = search.max_trials.saturating_sub(row.created_trials);
    if room == 0 || (left == 0 && search.halving().is_none()) {
        return Ok(());
    }
    let mut searcher = read(row)?;
    let mut row = row.clone();
    let mut made = Vec::new();
    let mut others = Vec::new();
    let mut waits = 0;
    while waits < room {
        let actions = searcher.act();
        if actions.is_empty() {
            break;
        }
        for action in actions {
            if let Action::Create(point) = action {
                row.created_trials += 1;
                let trial = make(draft, &row, point);
                if trial.is_ended() {
                    others.extend(searcher.ended(trial.number, None));
                } else {
                    waits += 1;
                }
                made.push(trial);
            } else {
                waits += usize::from(matches!(action, Action::Resume { .. }));
                others.push(action);
            }
        }
    }
    if made.is_empty() && others.is_empty() {
        return Ok(());
    }
    write(draft, row, &searcher);
    for trial in made {
        if let TrialState::Failed { fault } = &trial.state {
            let text = format!("its point cannot be trained: {fault}");
            draft.reason(Subject::Trial(trial.id), text);
        }
        draft.trial(trial);
    }
    obey(draft, id, others);
    Ok(())
}

/// Does what a searcher answered to what it heard.
fn obey(draft: &mut Draft, id: ExperimentId, actions: Vec<Action>) {
    for action in actions {
        let (number, then, reason) = match action {
            // Only `act` creates, and `refill` asks it.
            Action::Create(_) => continue,
            Action::Stop { trial, reason } => (trial, AfterStop::Completed, reason),
            Action::Pause { trial, reason } => (trial, AfterStop::Paused, reason),
            Action::Resume { trial, reason } => (trial, AfterStop::Waiting, reason),
        };
        let trial = TrialId::derive(&id.to_string(), u64::from(number));
        if let Some(trial) = draft.cluster().trial(trial).cloned() {
            ask(draft, trial, then, &reason);
        }
    }
}

/// Ends an experiment early whose first trials all failed to measure the objective: the others would
/// only do the same, one after the other.
pub(crate) fn despair(draft: &mut Draft, id: ExperimentId) -> Result<(), Fault> {
    if draft.cluster().failed_trials_of(id) < DESPAIR {
        return Ok(());
    }
    let trials = || draft.cluster().trials_of(id);
    let failed = trials().filter(|trial| match &trial.state {
        TrialState::Failed { fault } => {
            matches!(fault.code, Code::MetricAbsent | Code::NotANumber)
        }
        TrialState::Waiting { .. }
        | TrialState::Running { .. }
        | TrialState::Stopping { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Canceled => false,
    });
    let failed = failed.count();
    if failed < DESPAIR || trials().any(|trial| trial.best.is_some()) {
        return Ok(());
    }
    let Some(row) = draft.cluster().experiment(id).cloned() else {
        return Ok(());
    };
    let mut searcher = read(&row)?;
    if searcher.halted().is_some() {
        return Ok(());
    }
    let objective = row.spec.search.objective();
    let why = format!("{failed} trials failed and none has measured `{objective}`");
    searcher.halt(why.clone());
    write(draft, row, &searcher);
    let text = format!("no more trials are tried: {why}");
    draft.reason(Subject::Experiment(id), text);
    let open = draft.cluster().trials_of(id);
    let open: Vec<Trial> = open.filter(|trial| !trial.is_ended()).cloned().collect();
    for trial in open {
        ask(draft, trial, AfterStop::Canceled, &why);
    }
    Ok(())
}

/// Trials that completed before their last epoch, where a search has rungs.
pub(crate) fn cut_short(draft: &Draft, row: &Experiment) -> usize {
    if row.spec.search.halving().is_none() {
        return 0;
    }
    let is_short = |trial: &&Trial| {
        trial.state == TrialState::Completed && trial.last_epoch < epochs(&row.spec, &trial.hparams)
    };
    draft.cluster().trials_of(row.id).filter(is_short).count()
}

/// Numbers of the trials that wait at a rung.
pub(crate) fn held(draft: &Draft, id: ExperimentId) -> BTreeSet<u32> {
    let row = draft.cluster().experiment(id);
    let Some(searcher) = row.and_then(|row| read(row).ok()) else {
        return BTreeSet::new();
    };
    let numbers = draft.cluster().trials_of(id).map(|trial| trial.number);
    numbers.filter(|number| searcher.is_held(*number)).collect()
}

fn make(draft: &Draft, owner: &Experiment, point: Point) -> Trial {
    let number = owner.created_trials;
    let now = draft.now;
    let refused = owner.spec.point_fault(&point.hparams, point.replicate);
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
