//! Promotions are judged, and that is kept: with the version, and for each attempt to move an alias.
//!
//! There is one way for an alias to move forward, [`judge_move`], whoever asks; it has no exception
//! but a version that the alias pointed to before.

use super::draft::Draft;
use super::registry::{Publication, version_exists};
use super::reports::Metrics;
use crate::gates::{Case, Evidence, judge, needs_champion, weigh};
use pomona_domain::gate::{Approval, GateFact, GatePolicy, Judgement, Promotion, TestUse, Usage};
use pomona_domain::model::{GateOutcome, Version};
use pomona_domain::spec::Gate;
use pomona_domain::{Change, Code, Digest, Fault, TaskId};
use std::borrow::Cow;

/// Somebody says yes to a version.
pub(crate) fn approved(draft: &mut Draft, approval: &Approval) -> Result<(), Fault> {
    approval.check()?;
    version_exists(draft, &approval.model, approval.number)?;
    let row = Approval {
        at: draft.now,
        ..approval.clone()
    };
    draft.push(Change::Gates(GateFact::Approved(row)));
    Ok(())
}

/// A version that is being made.
pub(crate) struct Fresh<'a> {
    pub(crate) model: &'a str,
    pub(crate) number: u32,
    pub(crate) metrics: &'a Metrics,
    pub(crate) made: &'a Publication<'a>,
}

/// The gates under which an alias moved last, as far as they were read.
pub(crate) fn standing(draft: &Draft, task: TaskId, alias: &str) -> Option<GatePolicy> {
    let evidence = (draft.evidence.iter()).find(|known| known.task == Some(task))?;
    let policy = evidence.champion.as_ref()?.policy.as_ref()?;
    (policy.alias == alias).then(|| policy.clone())
}

/// Judges a version by the gates of its experiment, or of the alias.
pub(crate) fn judge_fresh(
    draft: &mut Draft,
    policy: GatePolicy,
    fresh: &Fresh<'_>,
) -> (Vec<GateOutcome>, Option<Promotion>) {
    let evidence = (draft.evidence.iter()).find(|known| known.task == Some(fresh.made.task));
    let head = draft.cluster().alias(fresh.model, &policy.alias);
    let revision = head.map_or(0, |head| head.revision);
    let champion = head.map(|head| head.number);
    let stale = champion.is_some() && evidence.is_none_or(|known| known.revision != revision);
    let weighed = match evidence {
        Some(known) => Cow::Borrowed(&known.weighed),
        None => Cow::Owned(weigh(&[], fresh.made.outcomes, None)),
    };
    let pair = (fresh.model, fresh.number, champion);
    let test_use = count(draft, &policy.gates, weighed.split, pair);
    let case = Case {
        metrics: fresh.metrics,
        weighed: &weighed,
        champion,
        stale,
        uses: test_use.map_or(1, |usage| usage.place),
        approvals: &[],
    };
    let outcomes = judge(&policy.gates, &case);
    (outcomes, Some(Promotion { policy, test_use }))
}

/// Counts a use of a test split, unless the same pair was judged on it before.
fn count(
    draft: &mut Draft,
    gates: &[Gate],
    split: Option<Digest>,
    (model, number, champion): (&str, u32, Option<u32>),
) -> Option<Usage> {
    let split = split.filter(|_| gates.iter().any(Gate::uses_test_labels))?;
    let same = |row: &&TestUse| {
        (row.model.as_str(), row.number, row.champion) == (model, number, champion)
    };
    let most = draft.config().max_test_uses;
    let mut last = 0;
    let known = draft.cluster().test_uses(split);
    let before = known.inspect(|row| last = row.place).find(same);
    if let Some(place) = before.map(|row| row.place) {
        return Some(Usage { split, place, most });
    }
    let row = TestUse {
        split,
        place: last + 1,
        model: model.to_owned(),
        number,
        champion,
        at: draft.now,
    };
    draft.keep(Change::Gates(GateFact::Used(row)));
    Some(Usage {
        split,
        place: last + 1,
        most,
    })
}

/// Whether all gates passed, in a sentence; keeps the decision, if there was anything to decide.
pub(crate) fn verdict(
    draft: &mut Draft,
    (model, alias): (&str, Option<&str>),
    number: u32,
    outcomes: &[GateOutcome],
    promotion: Option<&Promotion>,
) -> Result<String, Fault> {
    let test_use = promotion.and_then(|promotion| promotion.test_use);
    let failed: Vec<&GateOutcome> = outcomes.iter().filter(|gate| !gate.passed).collect();
    let mut text = match (failed.as_slice(), outcomes.len()) {
        ([], 0) => "it has no gate".to_owned(),
        ([], 1) => "1 gate passed".to_owned(),
        ([], many) => format!("{many} gates passed"),
        ([first, rest @ ..], _) => {
            let more = match rest.len() {
                0 => String::new(),
                1 => "; 1 more gate failed".to_owned(),
                many => format!("; {many} more gates failed"),
            };
            format!(
                "the gate `{}` failed: {}{more}",
                first.gate,
                first.sentence()
            )
        }
    };
    if let Some(warning) = test_use.and_then(|usage| usage.warning()) {
        text = format!("{text}; {warning}");
    }
    if outcomes.is_empty() {
        return Ok(text);
    }
    let champion = alias.and_then(|alias| draft.cluster().alias(model, alias));
    let row = Judgement {
        model: model.to_owned(),
        number,
        alias: alias.map(ToOwned::to_owned),
        at: draft.now,
        allowed: failed.is_empty(),
        champion: champion.map(|head| head.number),
        policy: promotion.map(|promotion| promotion.policy.clone()),
        gates: outcomes.to_vec(),
        test_use,
        text: text.clone(),
    };
    draft.keep(Change::Gates(GateFact::Judged(Box::new(row))));
    if failed.is_empty() {
        return Ok(text);
    }
    let hint = format!("`pomona model show {model}@{number}` has each gate with its numbers");
    Err(Fault::new(Code::GateFailed, text).hint(hint))
}

/// Judges a move of an alias by request: by the gates of the version for this alias, or, if it has
/// none, by those under which the alias got where it is. Says what is to be said of it in the
/// history. A move that gates refuse is kept as a decision, and nothing else of the event is.
pub(crate) fn judge_move(
    draft: &mut Draft,
    (model, alias): (&str, &str),
    number: u32,
    evidence: Option<&Evidence>,
) -> Result<Option<String>, Fault> {
    let head = draft.cluster().alias(model, alias).cloned();
    if head.as_ref().is_some_and(|head| head.number == number) {
        return Ok(None);
    }
    let newest = draft.cluster().newest_version(model).cloned();
    let known = known(evidence, newest.as_ref(), number);
    let Some((candidate, evidence)) = known else {
        let text = format!("the gates of `{model}@{number}` were not read");
        return Err(Fault::new(Code::NotReady, text).hint("try again"));
    };
    if evidence.revision != head.as_ref().map_or(0, |head| head.revision) {
        let text = format!("`{model}@{alias}` moved while its gates were read");
        return Err(Fault::new(Code::AliasMoved, text).hint("look at it again before moving it"));
    }
    if evidence.been_there {
        let text = "it pointed there before, so no gate was asked".to_owned();
        return Ok(Some(text));
    }
    let own = candidate
        .promotion
        .as_ref()
        .map(|promotion| &promotion.policy);
    let theirs = evidence
        .champion
        .as_ref()
        .and_then(|champion| champion.policy.as_ref());
    let holds = |policy: &&GatePolicy| policy.alias == alias && !policy.gates.is_empty();
    let Some(policy) = [own, theirs].into_iter().flatten().find(holds) else {
        return Ok(None);
    };
    let champion = head.map(|head| head.number);
    let pair = (model, number, champion);
    let test_use = count(draft, &policy.gates, evidence.weighed.split, pair);
    let case = Case {
        metrics: &candidate.metrics,
        weighed: &evidence.weighed,
        champion,
        stale: needs_champion(&policy.gates)
            && evidence.champion.as_ref().map(|row| row.number) != champion,
        uses: test_use.map_or(1, |usage| usage.place),
        approvals: &evidence.approvals,
    };
    let outcomes = judge(&policy.gates, &case);
    let policy = policy.clone();
    let promotion = Promotion { policy, test_use };
    let place = (model, Some(alias));
    verdict(draft, place, number, &outcomes, Some(&promotion)).map(Some)
}

/// The version that an alias shall point to, with what is known of it.
fn known<'a>(
    evidence: Option<&'a Evidence>,
    newest: Option<&'a Version>,
    number: u32,
) -> Option<(&'a Version, &'a Evidence)> {
    let evidence = evidence?;
    let read = evidence.candidate.as_deref();
    let candidate = read.or(newest).filter(|row| row.number == number)?;
    Some((candidate, evidence))
}
