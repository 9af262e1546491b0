//! What gates need to know before the engine decides, read from the store.
//!
//! It is read beforehand because comparing two versions may take a second, and because a decision
//! does no I/O. Should the alias move in between, the decision notices by its revision.

use pomona_domain::Fault;
use pomona_domain::gate::TestOutcomes;
use pomona_domain::model::{Alias, Version};
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
) -> Result<Event, Fault> {
    Ok(Event::AliasSet {
        model: model.to_owned(),
        alias: alias.to_owned(),
        number,
        expected_revision,
        reason,
        evidence: Some(Box::new(of_move(store, model, alias, number).await?)),
    })
}

/// What is known of an alias that shall point to a version.
async fn of_move(store: &Store, model: &str, alias: &str, number: u32) -> Result<Evidence, Fault> {
    let (head, champion) = head(store, model, alias).await?;
    let candidate = store.version_get(model, number).await?;
    let policies = [candidate.as_ref(), champion.as_ref()]
        .into_iter()
        .flatten();
    let policies = policies.filter_map(|row| row.promotion.as_ref());
    // The first is that of the version itself: the decision takes the same one.
    let gates = (policies.map(|promotion| &promotion.policy))
        .find(|policy| policy.alias == alias)
        .map_or_else(Vec::new, |policy| policy.gates.clone());
    let weighed = if gates.is_empty() {
        Weighed::default()
    } else {
        let ours = store.outcomes_get(model, number).await?;
        let theirs = outcomes(store, champion.as_ref()).await?;
        weighed(gates, ours, theirs).await?
    };
    Ok(Evidence {
        task: None,
        revision: head.map_or(0, |head| head.revision),
        candidate: candidate.map(Box::new),
        champion: champion.map(known),
        weighed,
        approvals: store.approval_list(model, number).await?,
        been_there: store.alias_has_been(model, alias, number).await?,
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
            && let Some(promote) = &source.experiment.spec.promote
            && promote.model == *model
        {
            let alias = alias.as_ref().unwrap_or(&promote.alias);
            let (head, champion) = head(store, model, alias).await?;
            let theirs = outcomes(store, champion.as_ref()).await?;
            // What is not sound is refused by the decision, and must not be counted here.
            let ours = ours.as_deref().filter(|row| row.is_sound()).cloned();
            all.push(Evidence {
                task: Some(*task),
                revision: head.map_or(0, |head| head.revision),
                candidate: None,
                champion: champion.map(known),
                weighed: weighed(promote.gates.clone(), ours, theirs).await?,
                approvals: Vec::new(),
                been_there: false,
            });
        }
    }
    Ok(all)
}

async fn head(
    store: &Store,
    model: &str,
    alias: &str,
) -> Result<(Option<Alias>, Option<Version>), StoreError> {
    let head = store.alias_get(model, alias).await?;
    let version = match &head {
        Some(head) => store.version_get(model, head.number).await?,
        None => None,
    };
    Ok((head, version))
}

fn known(row: Version) -> Champion {
    Champion {
        number: row.number,
        policy: row.promotion.map(|promotion| promotion.policy),
    }
}

async fn outcomes(
    store: &Store,
    version: Option<&Version>,
) -> Result<Option<TestOutcomes>, StoreError> {
    match version {
        Some(row) => store.outcomes_get(&row.model, row.number).await,
        None => Ok(None),
    }
}

/// Compares on a thread of its own.
async fn weighed(
    gates: Vec<Gate>,
    ours: Option<TestOutcomes>,
    theirs: Option<TestOutcomes>,
) -> Result<Weighed, Fault> {
    let work = move || weigh(&gates, ours.as_ref(), theirs.as_ref());
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Fault::new(
            pomona_domain::Code::Internal,
            format!("two versions could not be compared: {error}"),
        )
    })
}
