//! Versions and aliases. A version is numbered after the newest of its model, so a number exists
//! exactly if it is between 1 and the newest (R2); an alias moves by compare-and-swap.

use super::draft::Draft;
use super::reports::Metrics;
use super::{gates, not_found};
use crate::gates::Evidence;
use pomona_domain::gate::{GateFact, GatePolicy, TestOutcomes, VersionOutcomes};
use pomona_domain::model::{AliasMove, ModelFile, Version, version_digest};
use pomona_domain::{Change, Code, Fault, TaskId, TrialId, VersionId};

/// Refuses a number that no version of the model has.
pub(crate) fn version_exists(draft: &Draft, model: &str, number: u32) -> Result<(), Fault> {
    let Some(newest) = draft.cluster().newest_version(model) else {
        return Err(not_found(model));
    };
    if (1..=newest.number).contains(&number) {
        return Ok(());
    }
    Err(Fault::new(
        Code::NotFound,
        format!("model `{model}` has no version {number}"),
    )
    .hint(format!("the newest is {}", newest.number)))
}

/// A user sets an alias to a version, only if it is at a revision, and says why: the gates of the
/// version, or of the alias, must pass.
pub(crate) fn alias_set(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    (number, expected_revision, reason): (u32, Option<u64>, &str),
    evidence: Option<&Evidence>,
) -> Result<(), Fault> {
    version_exists(draft, model, number)?;
    let revision = (draft.cluster().alias(model, alias)).map_or(0, |alias| alias.revision);
    if let Some(expected) = expected_revision
        && expected != revision
    {
        return Err(Fault::new(
            Code::AliasMoved,
            format!("`{model}@{alias}` is at revision {revision}, not {expected}"),
        )
        .hint("look at it again before moving it"));
    }
    let said = gates::judge_move(draft, (model, alias), number, evidence)?;
    let reason = match said {
        Some(said) => format!("{reason}; {said}"),
        None => reason.to_owned(),
    };
    move_alias(draft, (model, alias), number, &reason);
    Ok(())
}

/// A user moves an alias back.
pub(crate) fn alias_rollback(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    to: u32,
    reason: &str,
) -> Result<(), Fault> {
    if draft.cluster().alias(model, alias).is_none() {
        return Err(not_found(format!("{model}@{alias}")));
    }
    version_exists(draft, model, to)?;
    move_alias(draft, (model, alias), to, reason);
    Ok(())
}

/// Moves an alias, unless it is there already.
fn move_alias(draft: &mut Draft, (model, alias): (&str, &str), to: u32, reason: &str) {
    let old = draft.cluster().alias(model, alias);
    let from = old.map(|alias| alias.number);
    if from == Some(to) {
        return;
    }
    let moved = AliasMove {
        model: model.to_owned(),
        alias: alias.to_owned(),
        from,
        to,
        revision: old.map_or(0, |alias| alias.revision) + 1,
        at: draft.now,
        reason: reason.to_owned(),
    };
    draft.push(Change::AliasMoved(moved));
}

/// What a trainer says of an export.
pub(crate) struct Publication<'a> {
    pub(crate) task: TaskId,
    pub(crate) trial: TrialId,
    pub(crate) files: &'a [ModelFile],
    pub(crate) measured: &'a Metrics,
    pub(crate) outcomes: Option<&'a TestOutcomes>,
}

/// A trial's best checkpoint was exported and evaluated: it becomes a version, and the alias moves
/// when every gate of the experiment passes.
pub(crate) fn published(
    draft: &mut Draft,
    (model, alias): (&str, Option<&str>),
    made: &Publication<'_>,
) -> Result<String, Fault> {
    let trial = made.trial;
    let source = draft.cluster().source(trial);
    let source = source.ok_or_else(|| not_found(trial))?;
    let lineage = source.lineage().ok_or_else(|| {
        Fault::new(
            Code::NothingToPromote,
            format!("trial `{trial}` has no best checkpoint"),
        )
    })?;
    let mut metrics: Metrics = source.validation().cloned().unwrap_or_default();
    metrics.extend((made.measured.iter()).map(|(name, value)| (name.clone(), *value)));
    let promote = source.experiment.spec.promote.as_ref();
    let policy = (promote.filter(|promote| promote.model == model)).map(|promote| GatePolicy {
        alias: alias.unwrap_or(&promote.alias).to_owned(),
        gates: promote.gates.clone(),
    });
    // Without gates of its own, those hold under which the alias moved last.
    let policy = (policy.filter(|policy| !policy.gates.is_empty()))
        .or_else(|| gates::standing(draft, made.task, alias?));
    let name = source.experiment.spec.name.clone();
    let number = (draft.cluster().newest_version(model)).map_or(0, |version| version.number) + 1;
    let judged = policy.map(|policy| {
        let fresh = gates::Fresh {
            model,
            number,
            metrics: &metrics,
            made,
        };
        gates::judge_fresh(draft, policy, &fresh)
    });
    let (gates, promotion) = judged.unwrap_or_default();
    let mut files = made.files.to_vec();
    files.sort();
    draft.push(Change::Version(Box::new(Version {
        id: VersionId::derive(model, u64::from(number)),
        model: model.to_owned(),
        number,
        digest: version_digest(&files),
        files,
        lineage,
        metrics,
        gates: gates.clone(),
        promotion: promotion.clone(),
        created_at: draft.now,
    })));
    keep_outcomes(draft, (model, number), made.outcomes);
    let verdict = gates::verdict(draft, (model, alias), number, &gates, promotion.as_ref());
    let published = format!("`{model}` has a version {number}");
    let Some(alias) = alias else {
        return Ok(published);
    };
    let passed = match verdict {
        Ok(passed) => passed,
        Err(fault) => {
            let code = fault.code;
            let text = format!("{published}, `{alias}` was not moved ({code}): {fault}");
            return Ok(text);
        }
    };
    let why = format!("experiment `{name}` published trial `{trial}`; {passed}");
    move_alias(draft, (model, alias), number, &why);
    Ok(format!("{published} and `{alias}` points to it ({passed})"))
}

/// What a version said of each test sample, for its challengers.
fn keep_outcomes(draft: &mut Draft, (model, number): (&str, u32), found: Option<&TestOutcomes>) {
    if let Some(outcomes) = found {
        let outcomes = VersionOutcomes {
            model: model.to_owned(),
            number,
            outcomes: outcomes.clone(),
        };
        draft.push(Change::Gates(GateFact::Outcomes(Box::new(outcomes))));
    }
}
