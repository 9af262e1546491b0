//! What must be true of a story once it has been told: liveness, and that everything is whole.

use pomona_domain::Code;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::model::Version;
use pomona_domain::trial::{Trial, TrialState};
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
        let subject = |row: &Experiment| pomona_domain::change::Subject::Experiment(row.id);
        cluster
            .experiments()
            .map(|row| pomona_scheduler::explain(cluster, subject(row), world.now))
            .collect::<Vec<_>>()
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
    Ok(())
}

fn experiment_is_whole(row: &Experiment, trials: &[&Trial]) -> Result<(), String> {
    let made = trials.len();
    let all = row.spec.search.max_trials as usize;
    let was_canceled = row.state == ExperimentState::Canceled;
    if made != row.created_trials as usize || made > all || (made < all && !was_canceled) {
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
    match trials.iter().find(|trial| !trial.is_ended()) {
        Some(trial) => Err(format!(
            "S6 {} outlives its experiment: {:?}",
            trial.id, trial.state
        )),
        None => Ok(()),
    }
}

/// A version says what was measured of the very checkpoint it was made of.
fn version_is_whole(world: &World, version: &Version) -> Result<(), String> {
    let lineage = &version.lineage;
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
    let steps: Vec<u64> = (journal
        .observations
        .range((trial.id, 0)..=(trial.id, u64::MAX)))
    .map(|((_, step), _)| *step)
    .collect();
    let wanted: Vec<u64> = (1..=u64::from(epochs(owner, trial)))
        .map(|n| n * EPOCH)
        .collect();
    if steps != wanted {
        return Err(format!(
            "{} was observed at {steps:?}, not {wanted:?}",
            trial.id
        ));
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
