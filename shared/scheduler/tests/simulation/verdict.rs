//! What must be true of a story once it has been told: liveness, and that everything is whole.

use pomona_domain::Code;
use pomona_domain::change::Subject;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::gate::Judgement;
use pomona_domain::metric::Observation;
use pomona_domain::model::Version;
use pomona_domain::spec::{Form, Strategy};
use pomona_domain::trial::{Trial, TrialState};
use pomona_search::{Score, Searcher};
use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::epochs;
use crate::story::{CALM_MS, STORM_MS};
use crate::trainer::{EPOCH, curve};
use crate::world::{BEGIN, World};

/// Nothing is left to do.
pub fn is_quiet(world: &World) -> bool {
    let cluster = &world.house.cluster;
    let after_storm = world.now.since_ms(BEGIN) > STORM_MS + 10_000;
    let quiet = cluster.experiments().next().is_none()
        && cluster.tasks().next().is_none()
        && cluster.leases().next().is_none();
    after_storm && quiet
}

/// Liveness, and what must be true of everything that was told.
pub fn finish(world: &mut World) -> Result<(), String> {
    let open = |cluster: &pomona_scheduler::Cluster| {
        let trials = cluster.trials().filter(|row| !row.is_ended());
        let open = (cluster.experiments().map(|row| Subject::Experiment(row.id)))
            .chain(trials.map(|row| Subject::Trial(row.id)))
            .chain(cluster.tasks().map(|row| Subject::Task(row.id)));
        let explain = |subject| pomona_scheduler::explain(cluster, subject, world.now);
        open.map(explain).collect::<Vec<_>>()
    };
    if !is_quiet(world) {
        return Err(format!(
            "liveness: something has not ended {} s after the last fault: {:?}",
            CALM_MS / 1000,
            open(&world.house.cluster)
        ));
    }
    world.house.check_store()?;
    let now = world.now;
    world.house.restart(now)?;
    let journal = &world.house.journal;
    for row in journal.experiments.values() {
        let trials = journal.trials_of(row.id);
        experiment_is_whole(row, &trials)?;
        stops_follow_from_observations(world, row)?;
        for trial in trials {
            trial_is_whole(world, row, trial)?;
        }
    }
    for version in journal.versions.values() {
        version_is_whole(world, version)?;
    }
    let mut revisions = BTreeMap::new();
    for moved in &journal.moves {
        let last = revisions.insert((&moved.model, &moved.alias), moved.revision);
        if moved.revision != last.unwrap_or(0) + 1 {
            return Err(format!("R5 a revision is missing before {moved:?}"));
        }
    }
    moves_passed_gates(world)?;
    Ok(())
}

/// No alias went forward past a gate that failed: it moved by a decision that allowed it, or back.
fn moves_passed_gates(world: &World) -> Result<(), String> {
    let journal = &world.house.journal;
    let mut been = BTreeSet::new();
    for moved in &journal.moves {
        let place = (&moved.model, &moved.alias, moved.to);
        let has_gates = journal.versions[&(moved.model.clone(), moved.to)]
            .promotion
            .as_ref()
            .is_some_and(|row| row.policy.alias == moved.alias);
        let allows = |row: &&Judgement| {
            (&row.model, row.number, row.at) == (&moved.model, moved.to, moved.at) && row.allowed
        };
        if has_gates && !been.contains(&place) && !journal.judgements.iter().any(|row| allows(&row))
        {
            return Err(format!("no gate allowed {moved:?}"));
        }
        been.insert(place);
    }
    Ok(())
}

fn experiment_is_whole(row: &Experiment, trials: &[&Trial]) -> Result<(), String> {
    let made = trials.len();
    let all = row.spec.search.max_trials as usize;
    let searcher = Searcher::restore(&row.searcher)
        .map_err(|fault| format!("experiment {} has no searcher: {fault}", row.id))?;
    let may_be_less = row.state == ExperimentState::Canceled || searcher.halted().is_some();
    if made != row.created_trials as usize || made > all || (made < all && !may_be_less) {
        return Err(format!(
            "S9 experiment {} made {made} of {all} trials",
            row.id
        ));
    }
    let points: BTreeSet<_> = (trials.iter())
        .map(|trial| (trial.hparams.canonical(), trial.replicate))
        .collect();
    if points.len() != made {
        return Err(format!("experiment {} drew a point twice", row.id));
    }
    points_follow_from_the_file(row, trials)?;
    match trials.iter().find(|trial| !trial.is_ended()) {
        Some(trial) => Err(format!(
            "S6 {} outlives its experiment: {:?}",
            trial.id, trial.state
        )),
        None => Ok(()),
    }
}

/// Whatever went wrong, the points are those of a run in which nothing did. (Those of TPE follow from
/// what was measured, in the order in which it came.)
fn points_follow_from_the_file(row: &Experiment, trials: &[&Trial]) -> Result<(), String> {
    if row.spec.search.strategy == Strategy::Tpe {
        return Ok(());
    }
    let mut searcher = Searcher::new(&row.spec).map_err(|fault| fault.message)?;
    for trial in trials {
        let point = searcher.next();
        if point.is_none_or(|point| {
            (point.hparams, point.replicate) != (trial.hparams.clone(), trial.replicate)
        }) {
            return Err(format!("{} is not what its file draws", trial.id));
        }
    }
    Ok(())
}

/// Every stop at a rung can be worked out again from committed observations alone: the scores of a
/// rung are what the journal has, and whoever was stopped stood behind enough others there.
fn stops_follow_from_observations(world: &World, row: &Experiment) -> Result<(), String> {
    let searcher = Searcher::restore(&row.searcher).map_err(|fault| fault.to_string())?;
    let Some(halving) = row.spec.search.halving() else {
        return Ok(());
    };
    let journal = &world.house.journal;
    let trials = journal.trials_of(row.id);
    let replicates = row.spec.search.replicates;
    let mut stopped: BTreeSet<u32> = BTreeSet::new();
    for rung in searcher.standings() {
        for (at, (first, score)) in rung.entries.iter().enumerate() {
            // The mean over those of its seeds that were observed at the rung.
            let seeds = (*first..*first + replicates).filter_map(|n| trials.get(n as usize - 1));
            let scores: Vec<Score> = seeds
                .filter_map(|trial| best_at(world, row, trial, rung.epoch))
                .collect();
            let mean = Score::mean(scores.iter());
            if replicates == 1 && mean != Some(*score) {
                return Err(format!(
                    "the rung at epoch {} says {score:?} of trial {first}, the journal {mean:?}",
                    rung.epoch
                ));
            }
            let before = &rung.entries[..=at];
            let better = (before.iter())
                .filter(|(_, other)| other.is_better(*score, row.spec.search.direction))
                .count();
            if halving.form == Form::Stop && better >= (before.len() / halving.eta as usize).max(1)
            {
                stopped.extend(*first..*first + replicates);
            }
        }
    }
    for trial in trials.iter().filter(|_| halving.form == Form::Stop) {
        let told = was_stopped_at_a_rung(world, trial);
        if told && !stopped.contains(&trial.number) {
            return Err(format!("{} was stopped for no reason", trial.id));
        }
        let is_short = trial.last_epoch < epochs(row, trial);
        let was_told = told || world.stopped.contains(&trial.id);
        if trial.state == TrialState::Completed && is_short && !was_told {
            return Err(format!("{} ended early and nobody said why", trial.id));
        }
    }
    Ok(())
}

fn was_stopped_at_a_rung(world: &World, trial: &Trial) -> bool {
    let mut reasons = world.house.journal.reasons.iter();
    reasons.any(|(subject, _, text)| {
        *subject == Subject::Trial(trial.id)
            && text.contains("the rung's")
            && (text.contains("goes on") || text.contains("nobody else") || text.contains("go on"))
    })
}

/// A trial's best up to an epoch, as the journal has it.
fn best_at(world: &World, row: &Experiment, trial: &Trial, epoch: u32) -> Option<Score> {
    let curve = (world.house.journal.observations).range((trial.id, 0)..=(trial.id, u64::MAX));
    let curve: Vec<_> = curve.map(|(_, seen)| seen).collect();
    curve.iter().find(|seen| seen.epoch >= epoch)?;
    let search = &row.spec.search;
    let score = |seen: &Observation| Score {
        value: seen.metrics[&search.objective()],
        tie: seen.metrics[search.tie_breaker()],
    };
    let so_far = curve.iter().filter(|seen| seen.epoch <= epoch);
    so_far.map(|seen| score(seen)).reduce(|best, next| {
        if next.is_better(best, search.direction) {
            next
        } else {
            best
        }
    })
}

/// A version says what was measured of the very checkpoint it was made of.
fn version_is_whole(world: &World, version: &Version) -> Result<(), String> {
    let Some(lineage) = version.trained() else {
        return Ok(());
    };
    let kept = world
        .house
        .journal
        .checkpoints
        .get(&(lineage.trial, CheckpointKind::Best));
    if kept.is_none_or(|row| row.digest != lineage.checkpoint || row.step != lineage.step) {
        return Err(format!(
            "R4 {} is not of its trial's best checkpoint",
            version.id
        ));
    }
    let said = version.metrics.get("val/accuracy").copied();
    if said.is_some_and(|said| said != curve(lineage.trial, lineage.step)) {
        return Err(format!(
            "R4 {} says what another checkpoint measured",
            version.id
        ));
    }
    Ok(())
}

/// A completed trial has each observation once and the checkpoint of its best one.
fn trial_is_whole(world: &World, owner: &Experiment, trial: &Trial) -> Result<(), String> {
    let journal = &world.house.journal;
    if trial.restarts > owner.spec.max_restarts {
        return Err(format!("{} restarted {} times", trial.id, trial.restarts));
    }
    fault_is_its_own(world, owner, trial)?;
    if trial.state != TrialState::Completed || world.stopped.contains(&trial.id) {
        return Ok(());
    }
    let is_cut_short = was_stopped_at_a_rung(world, trial);
    let steps: Vec<u64> = (journal
        .observations
        .range((trial.id, 0)..=(trial.id, u64::MAX)))
    .map(|((_, step), _)| *step)
    .collect();
    // A learning curve is a prefix of what it would have been.
    let last = if is_cut_short {
        steps.len() as u64
    } else {
        u64::from(epochs(owner, trial))
    };
    let wanted: Vec<u64> = (1..=last).map(|n| n * EPOCH).collect();
    if steps != wanted {
        return Err(format!(
            "{} was observed at {steps:?}, not {wanted:?}",
            trial.id
        ));
    }
    if is_cut_short {
        // The worker may be lost between its last observation and the checkpoint that belongs to it.
        return Ok(());
    }
    let best = trial.best.as_ref().map(|best| best.step);
    let kept = journal
        .checkpoints
        .get(&(trial.id, CheckpointKind::Best))
        .map(|row| row.step);
    if trial.deleted.is_none() && best != kept {
        return Err(format!(
            "{} is best at {best:?}, its checkpoint is of {kept:?}",
            trial.id
        ));
    }
    Ok(())
}

/// Attempts count, and a trial fails, only by what was its own: never by a poisonous neighbour.
fn fault_is_its_own(world: &World, owner: &Experiment, trial: &Trial) -> Result<(), String> {
    let blame = world.blame.get(&trial.id).copied().unwrap_or(0);
    if trial.restarts > blame {
        let counted = trial.restarts;
        return Err(format!(
            "{} counts {counted} attempts, {blame} faults were its own",
            trial.id
        ));
    }
    if trial.state == TrialState::Completed && world.poison.get(&trial.id) == Some(&0) {
        return Err(format!("{} is poisonous and completed", trial.id));
    }
    let TrialState::Failed { fault } = &trial.state else {
        return Ok(());
    };
    let limit = owner.spec.time_limit_ms;
    let is_its_own = if fault.code == Code::RestartsExhausted {
        blame > owner.spec.max_restarts
    } else if fault.code == Code::TimeLimit {
        limit.is_some_and(|limit| trial.active_ms >= limit)
    } else {
        // Of a NaN nobody else is suspected.
        fault.code == Code::NotANumber || blame > 0
    };
    if is_its_own {
        return Ok(());
    }
    Err(format!(
        "{} failed, only {blame} faults were its own: {fault}",
        trial.id
    ))
}
