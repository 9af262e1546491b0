//! What gates need to know before the engine decides, read from the store.
//!
//! It is read beforehand because comparing two versions may take a second, and because a decision
//! does no I/O. Should the alias move in between, the decision notices by its revision.

use pomona_domain::Fault;
use pomona_domain::gate::{GatePolicy, TestOutcomes};
use pomona_domain::model::{Actor, Alias};
use pomona_domain::report::{Report, ReportBody};
use pomona_domain::spec::Gate;
use pomona_domain::task::{TaskResult, TaskSpec};
use pomona_scheduler::gates::{Champion, Evidence, Weighed, weigh};
use pomona_scheduler::{Cluster, Event};
use pomona_store::{Store, StoreError};

/// An event that sets an alias, with what its gates need to know.
pub async fn alias_set(
    store: &Store,
    (model, alias): (&str, &str),
    number: u32,
    (expected_revision, reason): (Option<u64>, String),
    by: Actor,
) -> Result<Event, Fault> {
    Ok(Event::AliasSet {
        model: model.to_owned(),
        alias: alias.to_owned(),
        number,
        expected_revision,
        reason,
        by,
        evidence: Some(Box::new(of_move(store, model, alias, number).await?)),
    })
}

/// What is known of an alias that shall point to a version.
async fn of_move(store: &Store, model: &str, alias: &str, number: u32) -> Result<Evidence, Fault> {
    let candidate = store.version_get(model, number).await?;
    if store.alias_has_been(model, alias, number).await? {
        // No gate is asked, so there is nothing to weigh.
        let head = store.alias_get(model, alias).await?;
        return Ok(Evidence {
            candidate: candidate.map(Box::new),
            been_there: true,
            ..unweighed(head.as_ref())
        });
    }
    let own = (candidate.as_ref().and_then(|row| row.promotion.clone()))
        .map(|promotion| promotion.policy)
        .filter(|policy| policy.alias == alias);
    let gates = own.map_or_else(Vec::new, |policy| policy.gates);
    let ours = store.outcomes_get(model, number).await?;
    Ok(Evidence {
        candidate: candidate.map(Box::new),
        approvals: store.approval_list(model, number).await?,
        ..compared(store, (model, alias), gates, ours).await?
    })
}

/// What is known of the versions that a worker's reports publish.
pub async fn of_reports(
    store: &Store,
    cluster: &Cluster,
    reports: &[Report],
) -> Result<Vec<Evidence>, Fault> {
    let mut all = Vec::new();
    for report in reports {
        if let ReportBody::Result { task, result } = &report.body
            && let TaskResult::Published { outcomes: ours, .. } = &**result
            && let Some(row) = cluster.task(*task)
            && let TaskSpec::Publish {
                model,
                trial,
                alias,
            } = &row.spec
            && let Some(source) = cluster.source(*trial)
        {
            let promote = source.experiment.spec.promote.as_ref();
            let promote = promote.filter(|promote| promote.model == *model);
            let Some(alias) = alias.as_ref().or(promote.map(|promote| &promote.alias)) else {
                continue;
            };
            let gates = promote.map_or_else(Vec::new, |promote| promote.gates.clone());
            // What is not sound is refused by the decision, and must not be counted here.
            let ours = ours.as_deref().filter(|row| row.is_sound()).cloned();
            all.push(Evidence {
                task: Some(*task),
                ..compared(store, (model, alias), gates, ours).await?
            });
        }
    }
    Ok(all)
}

/// What is known of where an alias points, and what a candidate's outcomes say against that. Where
/// the candidate has no gates those hold under which the alias moved last.
async fn compared(
    store: &Store,
    (model, alias): (&str, &str),
    own: Vec<Gate>,
    ours: Option<TestOutcomes>,
) -> Result<Evidence, Fault> {
    let head = store.alias_get(model, alias).await?;
    let mut champion = None;
    let mut theirs = None;
    let mut gates = own;
    if let Some(head) = &head {
        let policy = policy(store, (model, alias), head.number).await?;
        if gates.is_empty() {
            gates = policy
                .as_ref()
                .map_or_else(Vec::new, |policy| policy.gates.clone());
        }
        theirs = store.outcomes_get(model, head.number).await?;
        champion = Some(Champion {
            number: head.number,
            policy,
        });
    }
    Ok(Evidence {
        champion,
        weighed: weighed(gates, ours, theirs).await?,
        ..unweighed(head.as_ref())
    })
}

/// What an alias says of itself.
fn unweighed(head: Option<&Alias>) -> Evidence {
    Evidence {
        task: None,
        revision: head.map_or(0, |head| head.revision),
        candidate: None,
        champion: None,
        weighed: Weighed::default(),
        approvals: Vec::new(),
        been_there: false,
    }
}

/// The gates under which an alias moved last: those of its version, or, if that has none, of the
/// newest decision that let it move.
async fn policy(
    store: &Store,
    (model, alias): (&str, &str),
    number: u32,
) -> Result<Option<GatePolicy>, StoreError> {
    let version = store.version_get(model, number).await?;
    let own = (version.and_then(|row| row.promotion))
        .map(|promotion| promotion.policy)
        .filter(|policy| policy.alias == alias && !policy.gates.is_empty());
    if own.is_some() {
        return Ok(own);
    }
    let last = store.judgement_allowed(model, alias).await?;
    Ok(last.and_then(|row| row.policy))
}

/// Compares on a thread of its own.
async fn weighed(
    gates: Vec<Gate>,
    ours: Option<TestOutcomes>,
    theirs: Option<TestOutcomes>,
) -> Result<Weighed, Fault> {
    if gates.is_empty() {
        return Ok(Weighed::default());
    }
    let work = move || weigh(&gates, ours.as_ref(), theirs.as_ref());
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Fault::new(
            pomona_domain::Code::Internal,
            format!("two versions could not be compared: {error}"),
        )
    })
}
