//! Versions and aliases. A version is numbered after the newest of its model, so a number exists
//! exactly if it is between 1 and the newest and was not deleted (R2); an alias moves by
//! compare-and-swap. Whatever is done here leaves an entry in the audit, in the same commit.

use super::draft::Draft;
use super::reports::Metrics;
use super::{gates, not_found};
use crate::event::{Event, RegistryWish};
use crate::gates::Evidence;
use pomona_domain::gate::{GateFact, GatePolicy, TestOutcomes, VersionOutcomes};
use pomona_domain::model::{
    Actor, AliasMove, Audit, ModelFile, Origin, Registration, Removal, Version, VersionWords,
    version_digest,
};
use pomona_domain::{Change, Code, Fault, TaskId, Timestamp, TrialId, VersionId};

/// Refuses a number that no version of the model has.
pub(crate) fn version_exists(draft: &Draft, model: &str, number: u32) -> Result<(), Fault> {
    let Some(newest) = draft.cluster().newest_version(model) else {
        return Err(not_found(model));
    };
    if draft.cluster().has_version(model, number) {
        return Ok(());
    }
    let was = (1..=newest.number).contains(&number);
    let text = if was {
        format!("version {number} of model `{model}` was deleted")
    } else {
        format!("model `{model}` has no version {number}")
    };
    Err(Fault::new(Code::NotFound, text).hint(format!("the newest is {}", newest.number)))
}

/// A user sets an alias.
pub(crate) fn alias_asked(draft: &mut Draft, event: &Event) -> Result<(), Fault> {
    let Event::AliasSet {
        model,
        alias,
        number,
        expected_revision,
        reason,
        by,
        evidence,
    } = event
    else {
        return Ok(());
    };
    let wanted = (*number, *expected_revision);
    let why = (reason.as_str(), by);
    alias_set(draft, (model, alias), wanted, why, evidence.as_deref())
}

/// A user sets an alias to a version, only if it is at a revision, and says why: the gates of the
/// version, or of the alias, must pass.
fn alias_set(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    (number, expected_revision): (u32, Option<u64>),
    (reason, by): (&str, &Actor),
    evidence: Option<&Evidence>,
) -> Result<(), Fault> {
    version_exists(draft, model, number)?;
    let revision = (draft.cluster().alias_row(model, alias)).map_or(0, |alias| alias.revision);
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
    move_alias(draft, (model, alias), number, (&reason, by));
    Ok(())
}

/// Somebody registers something, or takes it away.
pub(crate) fn wished(
    draft: &mut Draft,
    model: &str,
    wish: &RegistryWish,
    by: &Actor,
) -> Result<(), Fault> {
    match wish {
        RegistryWish::DeleteAlias { alias, reason } => {
            alias_delete(draft, (model, alias), (reason, by))
        }
        RegistryWish::Register {
            files,
            registration,
            metrics,
            description,
            tags,
        } => {
            let number = registered(draft, model, files, (registration, metrics), by);
            if !(description.is_empty() && tags.is_empty()) {
                draft.push(Change::Described(Box::new(VersionWords {
                    model: model.to_owned(),
                    number,
                    description: description.clone(),
                    tags: tags.clone(),
                })));
            }
            Ok(())
        }
        RegistryWish::DeleteVersion {
            number,
            pulled_until,
        } => version_delete(draft, model, *number, *pulled_until, by),
        RegistryWish::DeleteModel { pulled_until } => model_delete(draft, model, *pulled_until, by),
        RegistryWish::Rename { to } => model_rename(draft, model, to, by),
    }
}

/// An alias goes.
fn alias_delete(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    (reason, by): (&str, &Actor),
) -> Result<(), Fault> {
    let Some(old) = draft.cluster().alias(model, alias) else {
        return Err(not_found(format!("{model}@{alias}")));
    };
    let moved = AliasMove {
        model: model.to_owned(),
        alias: alias.to_owned(),
        from: Some(old.number),
        to: old.number,
        deleted: true,
        revision: old.revision + 1,
        at: draft.now,
        reason: reason.to_owned(),
        by: by.clone(),
    };
    draft.push(Change::AliasMoved(moved));
    Ok(())
}

/// A user moves an alias back.
pub(crate) fn alias_rollback(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    to: u32,
    (reason, by): (&str, &Actor),
) -> Result<(), Fault> {
    if draft.cluster().alias(model, alias).is_none() {
        return Err(not_found(format!("{model}@{alias}")));
    }
    version_exists(draft, model, to)?;
    move_alias(draft, (model, alias), to, (reason, by));
    Ok(())
}

/// Files are a version.
fn registered(
    draft: &mut Draft,
    model: &str,
    files: &[ModelFile],
    (registration, metrics): (&Registration, &Metrics),
    by: &Actor,
) -> u32 {
    let number = (draft.cluster().newest_version(model)).map_or(0, |version| version.number) + 1;
    let mut files = files.to_vec();
    files.sort();
    draft.push(Change::Version(Box::new(Version {
        id: VersionId::derive(model, u64::from(number)),
        model: model.to_owned(),
        number,
        digest: version_digest(&files),
        files,
        origin: Origin::Registered(registration.clone()),
        metrics: metrics.clone(),
        gates: Vec::new(),
        promotion: None,
        created_at: draft.now,
    })));
    let detail = format!("registered from `{}`", registration.source);
    audit(
        draft,
        by,
        "version.registered",
        (model, Some(number)),
        detail,
    );
    number
}

/// A version goes, unless somebody needs it.
fn version_delete(
    draft: &mut Draft,
    model: &str,
    number: u32,
    pulled_until: Option<Timestamp>,
    by: &Actor,
) -> Result<(), Fault> {
    version_exists(draft, model, number)?;
    let held: Vec<String> = (draft.cluster().aliases_of(model, number))
        .map(|alias| format!("`{}`", alias.alias))
        .collect();
    if !held.is_empty() {
        let text = format!(
            "version {number} of `{model}` is needed by the alias {}",
            held.join(", ")
        );
        return Err(Fault::new(Code::WrongState, text).hint("move or delete the alias first"));
    }
    not_pulled(
        draft,
        &format!("version {number} of `{model}`"),
        pulled_until,
    )?;
    draft.push(Change::Removed(Removal::Version {
        model: model.to_owned(),
        number,
        at: draft.now,
    }));
    let detail = "its row and history stay, its files go".to_owned();
    audit(draft, by, "version.deleted", (model, Some(number)), detail);
    Ok(())
}

/// Refuses to delete what somebody pulls just now.
fn not_pulled(draft: &Draft, what: &str, until: Option<Timestamp>) -> Result<(), Fault> {
    let Some(until) = until.filter(|until| *until > draft.now) else {
        return Ok(());
    };
    let seconds = (until.0 - draft.now.0).div_euclid(1000) + 1;
    let text = format!("{what} is being pulled");
    Err(Fault::new(Code::WrongState, text).hint(format!("try again in {seconds} s")))
}

/// A model goes, unless somebody needs it.
fn model_delete(
    draft: &mut Draft,
    model: &str,
    pulled_until: Option<Timestamp>,
    by: &Actor,
) -> Result<(), Fault> {
    let held: Vec<String> = (draft.cluster().aliases())
        .filter(|alias| alias.model == model)
        .map(|alias| format!("`{}`", alias.alias))
        .collect();
    if !held.is_empty() {
        let text = format!("`{model}` has the alias {}", held.join(", "));
        return Err(Fault::new(Code::WrongState, text).hint("delete its aliases first"));
    }
    not_pulled(draft, &format!("a version of `{model}`"), pulled_until)?;
    draft.push(Change::Removed(Removal::Model {
        model: model.to_owned(),
        at: draft.now,
    }));
    let detail = "with all its versions, whose numbers are never given again".to_owned();
    audit(draft, by, "model.deleted", (model, None), detail);
    Ok(())
}

/// A model has another name.
fn model_rename(draft: &mut Draft, model: &str, to: &str, by: &Actor) -> Result<(), Fault> {
    if draft.cluster().newest_version(to).is_some() {
        let text = format!("`{to}` is or was another model's name");
        return Err(Fault::new(Code::WrongState, text).hint("choose a name that was never used"));
    }
    draft.push(Change::Removed(Removal::Renamed {
        model: model.to_owned(),
        to: to.to_owned(),
        at: draft.now,
    }));
    let detail = format!("renamed to `{to}`");
    audit(draft, by, "model.renamed", (model, None), detail);
    Ok(())
}

/// Leaves an entry in the audit.
fn audit(
    draft: &mut Draft,
    by: &Actor,
    action: &str,
    (model, number): (&str, Option<u32>),
    detail: String,
) {
    let number = number.map_or_else(String::new, |number| format!("/{number}"));
    draft.push(Change::Audited(Audit {
        at: draft.now,
        by: by.clone(),
        action: action.to_owned(),
        subject: format!("model/{model}{number}"),
        result: "done".to_owned(),
        detail,
    }));
}

/// Moves an alias, unless it is there already.
fn move_alias(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    to: u32,
    (reason, by): (&str, &Actor),
) {
    let old = draft.cluster().alias_row(model, alias);
    let from = old.filter(|alias| !alias.deleted).map(|alias| alias.number);
    if from == Some(to) {
        return;
    }
    let moved = AliasMove {
        model: model.to_owned(),
        alias: alias.to_owned(),
        from,
        to,
        deleted: false,
        revision: old.map_or(0, |alias| alias.revision) + 1,
        at: draft.now,
        reason: reason.to_owned(),
        by: by.clone(),
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
        origin: Origin::Trained(lineage),
        metrics,
        gates: gates.clone(),
        promotion: promotion.clone(),
        created_at: draft.now,
    })));
    let by = Actor::engine();
    let detail = format!("published from trial `{trial}`");
    audit(
        draft,
        &by,
        "version.published",
        (model, Some(number)),
        detail,
    );
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
    move_alias(draft, (model, alias), number, (&why, &by));
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
