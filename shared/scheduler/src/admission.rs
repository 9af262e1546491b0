//! What could ever run here: asked when an experiment is submitted, and while it waits.
//!
//! It never asks what is free, only what there is and what may come.

use crate::Cluster;
use crate::plan::slots::{kinds, model};
use pomona_domain::policy::Pool;
use pomona_domain::spec::ExperimentSpec;
use pomona_domain::worker::{Selector, SlotKind, Worker, WorkerState, is_selected, show_selector};
use pomona_domain::{Code, Fault};
use std::collections::BTreeMap;

/// Workers and pools that a refusal names one by one.
const MAX_NAMED: usize = 5;

/// Most slots of one kind on one worker, of those that get work; 0 without any. What is advised
/// counts no trial over several workers, whose ranks meet over a network.
pub fn largest_gang(cluster: &Cluster) -> usize {
    let alive = (cluster.workers()).filter(|worker| worker.state == WorkerState::Alive);
    alive.map(largest).max().unwrap_or(0)
}

/// Most slots of some workers that are alike.
fn together<'a>(workers: impl Iterator<Item = &'a Worker>) -> usize {
    let mut classes: BTreeMap<(SlotKind, &str), usize> = BTreeMap::new();
    for worker in workers {
        for (kind, slots) in kinds(worker) {
            if let Some(model) = model(worker, &slots) {
                *classes.entry((kind, model)).or_default() += slots.len();
            }
        }
    }
    classes.into_values().max().unwrap_or(0)
}

fn largest(worker: &Worker) -> usize {
    let sizes = kinds(worker).into_values().map(|slots| slots.len());
    sizes.max().unwrap_or(0)
}

/// Refuses what no worker that ever registered and no pool could run (`E0301`), and what its
/// project's quota never lets run (`E0307`). Where neither a worker nor a pool is known, nobody
/// knows what may come, and all is let in.
pub fn admission(cluster: &Cluster, spec: &ExperimentSpec) -> Result<(), Fault> {
    let slots = spec.resources.slots_per_trial;
    let selector = &spec.resources.selector;
    if let Some(quota) = cluster.config().policy.quota(&spec.project)
        && quota < slots
    {
        let project = &spec.project;
        let text = format!(
            "a trial asks for {slots} slots, and project `{project}` may hold {quota} at once"
        );
        let hint = "lower `resources.slots_per_trial`, or ask the operator for a larger quota";
        return Err(Fault::new(Code::OverQuota, text).hint(hint));
    }
    let workers = || cluster.workers();
    let pools = || cluster.config().policy.pools.iter();
    let is_unknown = workers().next().is_none() && pools().next().is_none();
    let of_workers = workers().map(|row| lack_of_worker(row, slots, selector));
    let of_pools = pools().map(|row| lack_of_pool(row, slots, selector));
    let lacks: Option<Vec<String>> = of_workers.chain(of_pools).collect();
    let selected = workers().filter(|row| is_selected(&row.labels, selector));
    let most = together(selected);
    match lacks {
        Some(lacks) if !is_unknown && most < slots as usize => {
            Err(refusal(slots, selector, &lacks, most))
        }
        Some(_) | None => Ok(()),
    }
}

fn refusal(slots: u32, selector: &Selector, lacks: &[String], together: usize) -> Fault {
    let mut named = lacks[..lacks.len().min(MAX_NAMED)].join("; ");
    if lacks.len() > MAX_NAMED {
        named = format!("{named}; and {} more", lacks.len() - MAX_NAMED);
    }
    if slots > 1 && together > 0 {
        named = format!("{named}; {} of all workers are alike", count(together));
    }
    let text = format!(
        "no worker or pool could ever run {}: {named}",
        what(slots, selector)
    );
    let hint = "lower `resources.slots_per_trial`, change `resources.selector`, or declare a pool \
                of such machines in the coordinator's configuration";
    Fault::new(Code::Unplaceable, text).hint(hint)
}

/// `a trial of 2 slots where zone=a`
fn what(slots: u32, selector: &Selector) -> String {
    let slots = count(slots as usize);
    if selector.is_empty() {
        format!("a trial of {slots}")
    } else {
        format!("a trial of {slots} where {}", show_selector(selector))
    }
}

fn count(slots: usize) -> String {
    let noun = if slots == 1 { "slot" } else { "slots" };
    format!("{slots} {noun}")
}

/// What a worker lacks, whatever its state: it may come back.
fn lack_of_worker(row: &Worker, slots: u32, selector: &Selector) -> Option<String> {
    let name = &row.name;
    if !is_selected(&row.labels, selector) {
        return Some(format!("worker `{name}` has other labels"));
    }
    let most = largest(row);
    (most < slots as usize).then(|| format!("worker `{name}` has {} of a kind", count(most)))
}

fn lack_of_pool(row: &Pool, slots: u32, selector: &Selector) -> Option<String> {
    let name = &row.name;
    if row.max_workers == 0 {
        return Some(format!("pool `{name}` is closed"));
    }
    if !is_selected(&row.labels, selector) {
        return Some(format!("workers of pool `{name}` have other labels"));
    }
    // Workers of a pool are alike, so that one trial may have slots of several.
    let most = u64::from(row.slots) * u64::from(row.max_workers);
    let one = count(row.slots as usize);
    (most < u64::from(slots)).then(|| match row.max_workers {
        1 => format!("a worker of pool `{name}` has {one}"),
        most => format!("a worker of pool `{name}` has {one}, and there are at most {most}"),
    })
}

/// Why nothing that is there now could serve an experiment's trials: `E0301`. Workers that are lost
/// or drain get nothing new and do not count; a pool may bring what is missing.
pub fn unplaceable(cluster: &Cluster, spec: &ExperimentSpec) -> Option<Fault> {
    let slots = spec.resources.slots_per_trial;
    let selector = &spec.resources.selector;
    let alive = || {
        cluster
            .workers()
            .filter(|row| row.state == WorkerState::Alive)
    };
    let selected = || alive().filter(|row| is_selected(&row.labels, selector));
    let most = selected().map(largest).max().unwrap_or(0);
    let together = together(selected());
    if most.max(together) >= slots as usize {
        return None;
    }
    let drains = (cluster.workers())
        .any(|row| row.state == WorkerState::Draining && is_selected(&row.labels, selector));
    let labels = show_selector(selector);
    let why = if most > 0 {
        let whose = if selector.is_empty() {
            "the largest"
        } else {
            "the largest selected"
        };
        let alike = if together > most {
            format!(", and all that are alike have {together}")
        } else {
            String::new()
        };
        format!("a trial asks for {slots} slots, {whose} worker has {most}{alike}")
    } else if drains && selector.is_empty() {
        "every worker drains and takes nothing new".to_owned()
    } else if drains {
        format!("every worker with the labels it selects ({labels}) drains")
    } else if alive().any(|row| !row.slots.is_empty()) {
        format!("no worker has the labels it selects ({labels})")
    } else {
        "no worker with slots is there".to_owned()
    };
    let pool = (cluster.config().policy.pools.iter())
        .find(|pool| lack_of_pool(pool, slots, selector).is_none());
    let hint = match pool {
        Some(pool) => format!("it starts when a worker of pool `{}` joins", pool.name),
        None if slots == 1 => "start a worker".to_owned(),
        None => format!("start a worker with {slots} slots or lower `resources.slots_per_trial`"),
    };
    Some(Fault::new(Code::Unplaceable, why).hint(hint))
}

#[cfg(test)]
mod tests;
