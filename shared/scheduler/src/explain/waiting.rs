//! Why something waits: the first thing in its way, from what it is itself to who is served first.

use super::{held, lack, seconds};
use crate::Cluster;
use crate::queue::{Entry, Owner, Queue};
use pomona_domain::Timestamp;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::{Lease, SlotRef};
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::{Selector, Worker, WorkerState, is_selected, show_selector};

/// A worker that may be gone gets nothing new.
const UNHEARD: &str = "no worker was heard of since the coordinator started";

/// Why a trial waits.
pub(super) fn trial(
    cluster: &Cluster,
    owner: &Experiment,
    not_before: Timestamp,
    now: Timestamp,
) -> String {
    if owner.state == ExperimentState::Paused {
        return "its experiment is paused".to_owned();
    }
    if not_before > now {
        return backs_off(not_before, now);
    }
    if let Some(lack) = lack(cluster, owner) {
        return lack.message;
    }
    let live = cluster
        .trials_of(owner.id)
        .filter(|trial: &&Trial| trial.lease().is_some());
    let limit = owner.spec.search.max_concurrent;
    if live.count() >= limit as usize {
        return format!("`search.max_concurrent: {limit}` of its experiment is reached");
    }
    if let Some(why) = quota(cluster, owner) {
        return why;
    }
    let need = owner.spec.resources.slots_per_trial as usize;
    let mine = |entry: &Entry| match entry.owner {
        Owner::Experiment(row) => row.id == owner.id,
        Owner::Task(_) => false,
    };
    room(cluster, (need, &owner.spec.resources.selector), mine, now)
}

/// Why a task waits.
pub(super) fn task(cluster: &Cluster, row: &Task, now: Timestamp) -> String {
    let until = cluster.task_not_before(row.id);
    if until > now {
        return backs_off(until, now);
    }
    let mine = |entry: &Entry| match entry.owner {
        Owner::Task(task) => task.id == row.id,
        Owner::Experiment(_) => false,
    };
    room(cluster, (1, &Selector::new()), mine, now)
}

fn backs_off(until: Timestamp, now: Timestamp) -> String {
    let left = seconds(until.since_ms(now));
    format!("it backs off after a failure for another {left}")
}

fn quota(cluster: &Cluster, owner: &Experiment) -> Option<String> {
    let project = &owner.spec.project;
    let quota = cluster.config().policy.quota(project)?;
    let used = cluster.slots_of_project(project);
    let need = owner.spec.resources.slots_per_trial;
    (used + need > quota).then(|| {
        format!("project `{project}` holds {used} of the {quota} slots that its quota allows")
    })
}

/// Which slots there are for it, and who comes first.
fn room(
    cluster: &Cluster,
    (need, selector): (usize, &Selector),
    mine: impl Fn(&Entry) -> bool,
    now: Timestamp,
) -> String {
    let alive =
        |row: &&Worker| row.state == WorkerState::Alive && is_selected(&row.labels, selector);
    let workers: Vec<&Worker> = cluster.workers().filter(alive).collect();
    let total: usize = workers.iter().map(|row| row.slots.len()).sum();
    if total == 0 {
        return "no worker with slots is there".to_owned();
    }
    if !workers.iter().any(|row| cluster.takes_work(row)) {
        return UNHEARD.to_owned();
    }
    let (open, shut): (Vec<&Worker>, Vec<&Worker>) = workers
        .into_iter()
        .partition(|row| cluster.is_open(row, now));
    let slots: usize = open.iter().map(|row| row.slots.len()).sum();
    let busy: usize = open.iter().map(|row| held(cluster, row)).sum();
    let free = slots.saturating_sub(busy);
    let where_ = if selector.is_empty() {
        String::new()
    } else {
        format!(" where {}", show_selector(selector))
    };
    let what = if slots == 0 {
        format!("all workers{where_} are excluded or not heard of")
    } else if free == 0 {
        format!("all {slots} slots{where_} are busy")
    } else if need > 1 {
        let size = open.iter().map(|row| row.slots.len()).max();
        let whose = if size < Some(need) {
            "workers that are alike do not have"
        } else {
            "no worker has"
        };
        format!("{whose} {need} free slots ({free} of {slots}{where_} are free in all)")
    } else {
        format!("{free} of {slots} slots{where_} are free and set aside for work of higher rank")
    };
    let parts = [
        excluded(cluster, &shut, now),
        coming(cluster, &open),
        first(cluster, mine, now),
    ];
    parts
        .into_iter()
        .flatten()
        .fold(what, |said, part| format!("{said}; {part}"))
}

/// Workers that would do and get no work.
fn excluded(cluster: &Cluster, shut: &[&Worker], now: Timestamp) -> Option<String> {
    let names: Vec<&str> = (shut.iter())
        .filter(|row| cluster.excluded_until(row.id, now).is_some())
        .map(|row| row.name.as_str())
        .collect();
    let noun = if names.len() == 1 {
        "worker"
    } else {
        "workers"
    };
    (!names.is_empty()).then(|| format!("{noun} `{}` excluded after failures", names.join("`, `")))
}

/// Slots that come free soon.
fn coming(cluster: &Cluster, open: &[&Worker]) -> Option<String> {
    let stops = |lease: &&Lease| lease.stop().is_some();
    let is_open = |slot: &&SlotRef| open.iter().any(|row| row.id == slot.worker);
    let slots = (cluster.leases().filter(stops))
        .flat_map(|lease| &lease.slots)
        .filter(is_open)
        .count();
    match slots {
        0 => None,
        1 => Some("1 slot was asked to come free".to_owned()),
        _ => Some(format!("{slots} slots were asked to come free")),
    }
}

/// Who is served before it, and why.
fn first(cluster: &Cluster, mine: impl Fn(&Entry) -> bool, now: Timestamp) -> Option<String> {
    let queue = Queue::new(cluster, now);
    let ahead: Vec<&Entry> = (queue.in_order())
        .take_while(|entry| !mine(entry))
        .filter(|entry| queue.leases_within_quota(entry) > 0)
        .collect();
    let own = queue.in_order().find(|entry| mine(entry))?;
    let next = ahead.first()?;
    let name = match next.owner {
        Owner::Task(row) => format!("task `{}`", row.id),
        Owner::Experiment(row) => format!("`{}`", row.spec.name),
    };
    let (theirs, ours) = (queue.effective(next), queue.effective(own));
    let why = match (next.project(), own.project()) {
        _ if theirs > ours && i64::from(next.priority()) < theirs => {
            format!(
                "priority {} raised to {theirs} by waiting, its own is {ours}",
                next.priority()
            )
        }
        _ if theirs > ours => format!("priority {theirs}, its own is {ours}"),
        (Some(theirs), Some(ours)) if queue.share(theirs) != queue.share(ours) => format!(
            "project `{theirs}` holds {} slots and `{ours}` {}, for their weights {} and {}",
            cluster.slots_of_project(theirs),
            cluster.slots_of_project(ours),
            cluster.config().policy.weight(theirs),
            cluster.config().policy.weight(ours),
        ),
        _ => "submitted earlier".to_owned(),
    };
    let others = ahead.len() - 1;
    Some(match others {
        0 => format!("{name} is served first ({why})"),
        _ => format!("{name} is served first ({why}), and {others} more before it"),
    })
}
