//! Versions and aliases. A version is numbered after the newest of its model, so a number exists
//! exactly if it is between 1 and the newest (R2); an alias moves by compare-and-swap.

use super::draft::Draft;
use super::not_found;
use super::reports::Metrics;
use pomona_domain::model::{AliasMove, GateOutcome, ModelFile, Version, version_digest};
use pomona_domain::spec::Gate;
use pomona_domain::{Change, Code, Fault, TrialId, VersionId};

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

/// A user sets an alias.
pub(crate) fn alias_set(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    number: u32,
    expected_revision: Option<u64>,
    reason: &str,
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
    move_alias(draft, (model, alias), number, reason);
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

/// A trial's best checkpoint was exported and evaluated: it becomes a version, and the alias moves
/// when every gate of the experiment passes.
pub(crate) fn published(
    draft: &mut Draft,
    (model, alias): (&str, Option<&str>),
    trial: TrialId,
    files: &[ModelFile],
    measured: &Metrics,
) -> Result<String, Fault> {
    let source = draft.cluster().source(trial);
    let source = source.ok_or_else(|| not_found(trial))?;
    let lineage = source.lineage().ok_or_else(|| {
        Fault::new(
            Code::NothingToPromote,
            format!("trial `{trial}` has no best checkpoint"),
        )
    })?;
    let mut metrics: Metrics = source.validation().cloned().unwrap_or_default();
    metrics.extend(measured.iter().map(|(name, value)| (name.clone(), *value)));
    let promote = source.experiment.spec.promote.as_ref();
    let wanted = promote.filter(|promote| promote.model == model);
    let gates = wanted.map_or_else(Vec::new, |promote| evaluate(&promote.gates, &metrics));
    let name = source.experiment.spec.name.clone();
    let number = (draft.cluster().newest_version(model)).map_or(0, |version| version.number) + 1;
    let mut files = files.to_vec();
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
        created_at: draft.now,
    })));
    let published = format!("`{model}` has a version {number}");
    let Some(alias) = alias else {
        return Ok(published);
    };
    if let Some(failed) = gates.iter().find(|gate| !gate.passed) {
        let fault = gate_fault(failed);
        return Ok(format!(
            "{published}, `{alias}` was not moved ({}): {fault}",
            fault.code
        ));
    }
    let passed = match gates.len() {
        0 => "it has no gate".to_owned(),
        1 => "1 gate passed".to_owned(),
        many => format!("{many} gates passed"),
    };
    let why = format!("experiment `{name}` published trial `{trial}`; {passed}");
    move_alias(draft, (model, alias), number, &why);
    Ok(format!("{published} and `{alias}` points to it ({passed})"))
}

fn gate_fault(failed: &GateOutcome) -> Fault {
    let measured = failed.measured.map_or_else(
        || "was not measured".to_owned(),
        |value| format!("was measured as {value}"),
    );
    Fault::new(
        Code::GateFailed,
        format!("the gate `{}` failed: it {measured}", failed.gate),
    )
}

/// Each bound of each gate, with its numbers.
pub(crate) fn evaluate(gates: &[Gate], metrics: &Metrics) -> Vec<GateOutcome> {
    let mut outcomes = Vec::new();
    for gate in gates {
        let measured = metrics.get(&gate.metric).copied();
        if let Some(wanted) = gate.at_least {
            outcomes.push(GateOutcome {
                gate: format!("{} at least {wanted}", gate.metric),
                passed: measured.is_some_and(|value| value >= wanted),
                measured,
                wanted,
            });
        }
        if let Some(wanted) = gate.at_most {
            outcomes.push(GateOutcome {
                gate: format!("{} at most {wanted}", gate.metric),
                passed: measured.is_some_and(|value| value <= wanted),
                measured,
                wanted,
            });
        }
    }
    outcomes
}
