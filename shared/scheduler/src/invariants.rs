//! The invariants of ARCHITECTURE.md that a cluster or a decision can be asked about, one function
//! each: `S3` there is [`s3`] here. The first word of what is found is the invariant's number.
//!
//! They look and never repair. R1 and R3 belong to the store; T1 to T5 to the trainer.

use crate::cluster::subjects;
use crate::plan::slots::model;
use crate::{Cluster, Decision, Event, plan, preemptions, sharing};
use pomona_domain::change::{Change, Subject};
use pomona_domain::lease::{Lease, LeaseState, SlotRef, Work};
use pomona_domain::model::Origin;
use pomona_domain::snapshot::Snapshot;
use pomona_domain::task::TaskState;
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::worker::SlotKind;
use pomona_domain::{LeaseId, Timestamp, TrialId};
use std::collections::{BTreeMap, BTreeSet};

mod counted;
mod deleted;

pub use counted::s3;
pub use deleted::r6;

/// Holds, or the sentence that says what does not.
pub type Verdict = Result<(), String>;

/// Everything that a cluster alone can be asked: S1, S2, S5, S7, S9 and R2.
pub fn check(cluster: &Cluster) -> Verdict {
    s1(cluster)?;
    s2(cluster)?;
    s5(cluster)?;
    s7(cluster)?;
    s9(cluster)?;
    r2(cluster)
}

/// Everything that a decision can be asked, `after` being `before` with its changes applied at
/// `now`: [`check`], and S3, S4, S6, S8, R4, R5 and R6.
pub fn check_decision(
    before: &Cluster,
    now: Timestamp,
    event: &Event,
    decision: &Decision,
    after: &Cluster,
) -> Verdict {
    s3(before, event, &decision.changes)?;
    s4(before, &decision.changes)?;
    s6(before, &decision.changes)?;
    r4(before, &decision.changes)?;
    r5(before, &decision.changes)?;
    r6(before, event, &decision.changes)?;
    check(after)?;
    if decision.outcome.is_err() {
        return Ok(());
    }
    match s8(after, now) {
        // What time alone lets start, or lets ask, waits for the next tick.
        Err(_) if *event != Event::Tick && s8(before, now).is_err() => Ok(()),
        verdict => verdict,
    }
}

/// A slot is in at most one live lease.
pub fn s1(cluster: &Cluster) -> Verdict {
    let mut held: BTreeMap<&SlotRef, LeaseId> = BTreeMap::new();
    for lease in cluster.leases() {
        for slot in &lease.slots {
            if let Some(other) = held.insert(slot, lease.id) {
                return Err(format!(
                    "S1 slot {} of worker `{}` is in leases `{other}` and `{}`",
                    slot.index, slot.worker, lease.id
                ));
            }
        }
    }
    Ok(())
}

/// A trial has at most one live lease; so has a task. A lease goes on to name a trial that left it,
/// so of all that name it the newest may be the trial's, and no other.
pub fn s2(cluster: &Cluster) -> Verdict {
    let mut named: BTreeMap<Subject, &Lease> = BTreeMap::new();
    for lease in cluster.leases() {
        for subject in subjects(&lease.work) {
            let Some(other) = named.insert(subject, lease) else {
                continue;
            };
            let (old, new) = if other.generation < lease.generation {
                (other, lease)
            } else {
                (lease, other)
            };
            if is_on(cluster, old, subject) {
                return Err(format!(
                    "S2 {subject:?} is on leases `{}` and `{}`",
                    old.id, new.id
                ));
            }
            named.insert(subject, new);
        }
    }
    Ok(())
}

/// Whether a subject has not left a lease that names it. A task never leaves one that lives.
fn is_on(cluster: &Cluster, lease: &Lease, subject: Subject) -> bool {
    match subject {
        Subject::Trial(id) => (cluster.trial(id)).is_some_and(|row| row.lease() == Some(lease.id)),
        Subject::Task(_) | Subject::Experiment(_) | Subject::Worker(_) => true,
    }
}

fn is_member(lease: &Lease, trial: TrialId) -> bool {
    match &lease.work {
        Work::Trials(members) => members.contains(&trial),
        Work::Task(_) => false,
    }
}

/// A trial's observations have growing steps; a repeat is ignored.
pub fn s4(before: &Cluster, changes: &[Change]) -> Verdict {
    let mut newest: BTreeMap<TrialId, u64> = BTreeMap::new();
    for change in changes {
        let Change::Observed(row) = change else {
            continue;
        };
        let known = before.trial(row.trial);
        let known = known.filter(|trial| !trial.latest.is_empty());
        let last = newest.get(&row.trial).copied();
        let last = last.or_else(|| known.map(|trial| trial.last_step));
        if last.is_some_and(|last| row.step <= last) {
            return Err(format!(
                "S4 trial `{}` has an observation at step {} after one at step {}",
                row.trial,
                row.step,
                last.unwrap_or_default()
            ));
        }
        newest.insert(row.trial, row.step);
    }
    Ok(())
}

/// A lease holds exactly `world_size` slots of one kind, or none. Its trials are of one
/// experiment; several of them hold one slot, may share it, and are no more than each allows.
pub fn s5(cluster: &Cluster) -> Verdict {
    for lease in cluster.leases() {
        let wanted = match &lease.work {
            Work::Trials(members) => {
                shared(cluster, lease, members)?;
                (members.first())
                    .and_then(|id| cluster.trial(*id))
                    .and_then(|trial| cluster.experiment(trial.experiment))
                    .map(|owner| owner.spec.resources.slots_per_trial)
            }
            Work::Task(_) => Some(1),
        };
        if wanted != Some(lease.world_size()) {
            return Err(format!(
                "S5 lease `{}` holds {} slots, its work asks for {wanted:?}",
                lease.id,
                lease.world_size()
            ));
        }
        let workers: BTreeSet<_> = lease.slots.iter().map(|slot| slot.worker).collect();
        let kinds: BTreeSet<_> = (lease.slots.iter())
            .filter_map(|slot| kind_of(cluster, slot))
            .map(|(kind, model)| (kind, lease.is_wide().then_some(model)))
            .collect();
        let are_alike = kinds.len() == 1 && kinds.iter().all(|(_, model)| *model != Some(None));
        let known = (lease.slots.iter()).all(|slot| {
            (cluster.worker(slot.worker))
                .is_some_and(|row| row.slots.iter().any(|there| there.index == slot.index))
        });
        // Those of one worker lie together, so each worker has a row of ranks.
        if workers.len() != lease.workers().len() || !are_alike || !known {
            return Err(format!(
                "S5 lease `{}` holds {:?}: not slots that are alike, worker by worker",
                lease.id, lease.slots
            ));
        }
    }
    Ok(())
}

/// A slot's kind, and the model that all slots of its kind on its worker are of.
fn kind_of<'a>(cluster: &'a Cluster, slot: &SlotRef) -> Option<(SlotKind, Option<&'a str>)> {
    let worker = cluster.worker(slot.worker)?;
    let mut there = worker.slots.iter();
    let kind = there.find(|there| there.index == slot.index)?.kind;
    let like = worker.slots.iter().filter(|there| there.kind == kind);
    Some((kind, model(worker, &like.collect::<Vec<_>>())))
}

/// Whether several trials may be on one lease.
fn shared(cluster: &Cluster, lease: &Lease, members: &[TrialId]) -> Verdict {
    if members.len() < 2 {
        return Ok(());
    }
    let rows: Vec<&Trial> = members.iter().filter_map(|id| cluster.trial(*id)).collect();
    let lacks = |what: &str| Err(format!("S5 lease `{}` is shared by {what}", lease.id));
    let Some(first) = rows.first() else {
        return lacks("trials that nobody knows");
    };
    if rows.len() != members.len() || rows.iter().any(|row| row.experiment != first.experiment) {
        return lacks("trials of two experiments");
    }
    let key = sharing::key(cluster, first);
    if key.is_none() || rows.iter().any(|row| sharing::key(cluster, row) != key) {
        return lacks("trials that may not share");
    }
    let on_it: Vec<&Trial> = cluster.members(lease).collect();
    let most = on_it.iter().filter_map(|row| row.share_limit).min();
    if most.is_some_and(|most| on_it.len() > most as usize) {
        return lacks("more trials than one of them allows");
    }
    Ok(())
}

/// An ended trial stays ended, exactly as it ended, but for what becomes of its checkpoints.
pub fn s6(before: &Cluster, changes: &[Change]) -> Verdict {
    for change in changes {
        if let Change::Trial(row) = change
            && let Some(old) = before.trial(row.id)
            && old.is_ended()
            && !is_but_kept_otherwise(old, row)
        {
            return Err(format!(
                "S6 trial `{}` had ended as `{}` and becomes `{}`",
                row.id,
                old.state.name(),
                row.state.name()
            ));
        }
    }
    Ok(())
}

/// Whether two rows of a trial differ in nothing but what becomes of its checkpoints.
fn is_but_kept_otherwise(old: &Trial, new: &Trial) -> bool {
    let like_before = Trial {
        version: old.version,
        pinned: old.pinned,
        expendable: old.expendable,
        deleted: old.deleted.clone(),
        ..new.clone()
    };
    like_before == *old
}

/// A running trial or task has a live lease; a live lease has somebody on it, who stops exactly if
/// the lease does, and its generation was given to nobody else.
pub fn s7(cluster: &Cluster) -> Verdict {
    for trial in cluster.trials() {
        if let Some(id) = trial.lease()
            && !cluster
                .lease(id)
                .is_some_and(|lease| is_member(lease, trial.id))
        {
            return Err(format!(
                "S7 trial `{}` is `{}` without a live lease",
                trial.id,
                trial.state.name()
            ));
        }
    }
    for task in cluster.tasks() {
        if let TaskState::Running { lease } = task.state
            && (cluster.lease(lease)).is_none_or(|lease| lease.work != Work::Task(task.id))
        {
            return Err(format!("S7 task `{}` runs without a live lease", task.id));
        }
    }
    let mut generations = BTreeSet::new();
    for lease in cluster.leases() {
        if !is_used(cluster, lease) {
            return Err(format!(
                "S7 lease `{}` is live and nobody is on it as it asks",
                lease.id
            ));
        }
        if !generations.insert(lease.generation) || lease.generation > cluster.generation() {
            return Err(format!(
                "S7 lease `{}` has generation {}, which is not its own",
                lease.id, lease.generation.0
            ));
        }
    }
    Ok(())
}

/// Somebody is on it, and if it was asked to stop so was everybody on it.
fn is_used(cluster: &Cluster, lease: &Lease) -> bool {
    match &lease.work {
        Work::Trials(_) => {
            let stops = matches!(lease.state, LeaseState::Stopping { .. });
            let asked = |trial: &Trial| matches!(trial.state, TrialState::Stopping { .. });
            let mut members = cluster.members(lease).peekable();
            members.peek().is_some() && members.all(|trial| asked(trial) == stops)
        }
        Work::Task(id) => (cluster.task(*id))
            .is_some_and(|task| task.state == TaskState::Running { lease: lease.id }),
    }
}

/// Planning a planned cluster changes nothing.
pub fn s8(cluster: &Cluster, now: Timestamp) -> Verdict {
    if let Some(left) = plan(cluster, now).first() {
        return Err(format!(
            "S8 {:?} could have been placed on {:?} and was not",
            left.work, left.slots
        ));
    }
    match preemptions(cluster, now).first() {
        None => Ok(()),
        Some(left) => Err(format!(
            "S8 lease `{}` could have been asked to yield to trial `{}` and was not",
            left.lease, left.by
        )),
    }
}

/// Created ≤ `max_trials`, live ≤ `max_concurrent`.
pub fn s9(cluster: &Cluster) -> Verdict {
    for row in cluster.experiments() {
        let search = &row.spec.search;
        let made = cluster.trials_of(row.id).count();
        if row.created_trials > search.max_trials || made != row.created_trials as usize {
            return Err(format!(
                "S9 experiment `{}` has {made} trials, counts {} and may have {}",
                row.id, row.created_trials, search.max_trials
            ));
        }
        let on_lease = |trial: &&Trial| trial.lease().is_some();
        let live = cluster.trials_of(row.id).filter(on_lease).count();
        if live > search.max_concurrent as usize {
            return Err(format!(
                "S9 experiment `{}` has {live} live trials and may have {}",
                row.id, search.max_concurrent
            ));
        }
    }
    Ok(())
}

/// `load(store)` equals memory.
pub fn s10(cluster: &Cluster, loaded: &Snapshot) -> Verdict {
    let memory = cluster.snapshot();
    if memory == *loaded {
        return Ok(());
    }
    let lists = [
        ("experiments", memory.experiments == loaded.experiments),
        ("trials", memory.trials == loaded.trials),
        ("leases", memory.leases == loaded.leases),
        ("workers", memory.workers == loaded.workers),
        ("tasks", memory.tasks == loaded.tasks),
        ("checkpoints", memory.checkpoints == loaded.checkpoints),
        ("data sets", memory.datasets == loaded.datasets),
        ("backbones", memory.backbones == loaded.backbones),
        ("versions", memory.versions == loaded.versions),
        ("aliases", memory.aliases == loaded.aliases),
        (
            "deleted versions",
            memory.deleted_versions == loaded.deleted_versions,
        ),
        ("the generation", memory.generation == loaded.generation),
    ];
    let differ: Vec<&str> = (lists.into_iter())
        .filter(|(_, same)| !same)
        .map(|(name, _)| name)
        .collect();
    Err(format!(
        "S10 memory and store differ in {}",
        differ.join(", ")
    ))
}

/// An alias points to an existing version of its own model.
pub fn r2(cluster: &Cluster) -> Verdict {
    for alias in cluster.aliases() {
        if !cluster.has_version(&alias.model, alias.number) {
            return Err(format!(
                "R2 `{}@{}` points to version {}, which does not exist",
                alias.model, alias.alias, alias.number
            ));
        }
    }
    Ok(())
}

/// Every version has lineage: the trial, the checkpoint and the data it was made of, or what a client
/// said of it.
pub fn r4(before: &Cluster, changes: &[Change]) -> Verdict {
    for change in changes {
        let Change::Version(version) = change else {
            continue;
        };
        let is_there = match &version.origin {
            Origin::Registered(registration) => !registration.source.is_empty(),
            Origin::Trained(lineage) => {
                let source = before.source(lineage.trial);
                source.and_then(|source| source.lineage()).as_ref() == Some(lineage)
            }
        };
        if !is_there {
            return Err(format!(
                "R4 version {} of `{}` does not come from where its lineage says",
                version.number, version.model
            ));
        }
    }
    Ok(())
}

/// Every move of an alias says whence, whither and why, and is the next one of its alias.
pub fn r5(before: &Cluster, changes: &[Change]) -> Verdict {
    let mut newest: BTreeMap<(&str, &str), (Option<u32>, u64)> = BTreeMap::new();
    for change in changes {
        let Change::AliasMoved(moved) = change else {
            continue;
        };
        let key = (moved.model.as_str(), moved.alias.as_str());
        let old = newest.get(&key).copied().or_else(|| {
            let alias = before.alias_row(key.0, key.1)?;
            let number = Some(alias.number).filter(|_| !alias.deleted);
            Some((number, alias.revision))
        });
        let revision = old.map_or(0, |(_, revision)| revision) + 1;
        if moved.from != old.and_then(|(number, _)| number)
            || (moved.deleted && moved.from != Some(moved.to))
            || moved.revision != revision
            || moved.reason.is_empty()
        {
            return Err(format!(
                "R5 the move of `{}@{}` to version {} is not its revision {revision}",
                moved.model, moved.alias, moved.to
            ));
        }
        let to = Some(moved.to).filter(|_| !moved.deleted);
        newest.insert(key, (to, moved.revision));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
