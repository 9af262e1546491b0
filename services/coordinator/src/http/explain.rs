//! Why something is as it is: the present state in a sentence, and the stored reasons.

use actix_web::web::{Data, Path};
use pomona_api::v1::cluster::{Because, Explanation};
use pomona_domain::change::Subject;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::gate::Judgement;
use pomona_domain::model::{AliasMove, GateOutcome, Version};
use pomona_domain::task::{Task, TaskState};
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::{Code, Fault, Timestamp};
use pomona_scheduler::explain;
use pomona_store::PageRequest;

use super::{Answer, App, Refusal, found, ok};

/// Reasons that are shown.
const MAX_REASONS: u32 = 1000;

/// `GET /api/v1/explain/{id}`
pub async fn subject(app: Data<App>, id: Path<String>) -> Answer {
    let (subject, shown, ended) = find(&app, &id).await?;
    let request = PageRequest::first(MAX_REASONS);
    let reasons = app.store.reason_list(subject, &request).await?.items;
    let now = match ended {
        Some(sentence) => sentence,
        None => explain(&*app.view()?, subject, app.now()),
    };
    let because = |reason: pomona_domain::change::Reason| Because {
        at: reason.at,
        text: reason.text,
    };
    ok(&Explanation {
        subject: shown,
        now,
        reasons: reasons.into_iter().map(because).collect(),
    })
}

/// `GET /api/v1/explain/model/{name}/{alias}`
pub async fn alias(app: Data<App>, path: Path<(String, String)>) -> Answer {
    let (name, alias) = path.into_inner();
    let shown = format!("{name}@{alias}");
    let head = app.store.alias_get(&name, &alias).await?;
    let request = PageRequest::first(MAX_REASONS);
    let moves = app
        .store
        .alias_history(&name, &alias, None, &request)
        .await?;
    let decisions = (app.store)
        .judgement_list(&name, &alias, &request)
        .await?
        .items;
    let refused = decisions.iter().filter(|row| !row.allowed).map(refused);
    let mut reasons: Vec<Because> = moves.items.iter().map(moved).chain(refused).collect();
    reasons.sort_by_key(|reason| reason.at);
    let Some(head) = head else {
        // Perhaps it is not there because every version was refused.
        found(decisions.first(), "alias", &shown)?;
        return ok(&Explanation {
            subject: shown,
            now: "it does not exist yet: no version has passed its gates".to_owned(),
            reasons,
        });
    };
    // The newest decision that let it there; the publication of a version may have been refused.
    let decision = (decisions.iter()).find(|row| row.allowed && row.number == head.number);
    let version = app.store.version_get(&name, head.number).await?;
    let gates = match (decision, version) {
        (Some(row), _) => format!("; {}: {}", judged(row), told(&row.gates)),
        (None, Some(version)) => gates(&version),
        (None, None) => String::new(),
    };
    ok(&Explanation {
        subject: shown,
        now: format!("it points to version {}{gates}", head.number),
        reasons,
    })
}

/// The gates of a version with their numbers.
fn gates(version: &Version) -> String {
    if version.gates.is_empty() {
        return "; it had no gates to pass when it was published".to_owned();
    }
    format!("; when it was published, {}", told(&version.gates))
}

fn told(gates: &[GateOutcome]) -> String {
    let gate = |gate: &GateOutcome| {
        let verdict = if gate.passed { "passed" } else { "failed" };
        let why = gate.sentence();
        let colon = if why.is_empty() { "" } else { ": " };
        format!("`{}` {verdict}{colon}{why}", gate.gate)
    };
    let told: Vec<String> = gates.iter().map(gate).collect();
    told.join(", ")
}

/// A decision in a few words: against whom, and how worn the test split is.
fn judged(row: &Judgement) -> String {
    let against = row.champion.map_or_else(
        || "as the first one there".to_owned(),
        |champion| format!("against version {champion}"),
    );
    let uses = row.test_use.map_or_else(String::new, |usage| {
        let warning = usage.warning();
        let said = warning.unwrap_or_else(|| format!("use {} of its test split", usage.place));
        format!(", {said}")
    });
    format!("it was judged {against}{uses}")
}

fn refused(row: &Judgement) -> Because {
    Because {
        at: row.at,
        text: format!("version {} was refused: {}", row.number, row.text),
    }
}

fn moved(row: &AliasMove) -> Because {
    let from = row
        .from
        .map_or_else(String::new, |from| format!(" from version {from}"));
    Because {
        at: row.at,
        text: format!("moved{from} to version {}: {}", row.to, row.reason),
    }
}

/// Who an id is, and a sentence if it has ended.
async fn find(app: &App, id: &str) -> Result<(Subject, String, Option<String>), Refusal> {
    let store = &app.store;
    match id.split('_').next() {
        Some("exp") => {
            let row = found(store.experiment_find(id).await?, "experiment", id)?;
            Ok((
                Subject::Experiment(row.id),
                row.id.to_string(),
                experiment(&row),
            ))
        }
        Some("tri") => {
            let row = found(store.trial_find(id).await?, "trial", id)?;
            Ok((Subject::Trial(row.id), row.id.to_string(), trial(&row)))
        }
        Some("tsk") => {
            let row = found(store.task_find(id).await?, "task", id)?;
            Ok((Subject::Task(row.id), row.id.to_string(), task(&row)))
        }
        Some("wrk") => {
            let row = found(store.worker_find(id).await?, "worker", id)?;
            Ok((Subject::Worker(row.id), row.id.to_string(), None))
        }
        _ => Err(Fault::new(Code::BadRequest, format!("`{id}` is not an id"))
            .hint("ids begin with `exp_`, `tri_`, `tsk_` or `wrk_`")
            .into()),
    }
}

fn at(moment: Option<Timestamp>) -> String {
    moment.map_or_else(String::new, |moment| format!(" at {moment}"))
}

fn experiment(row: &Experiment) -> Option<String> {
    let at = at(row.ended_at);
    let how = match &row.state {
        ExperimentState::Active | ExperimentState::Paused | ExperimentState::Promoting { .. } => {
            return None;
        }
        ExperimentState::Completed => match row.best {
            Some(best) => format!("it was completed{at}; its best trial is `{best}`"),
            None => format!("it was completed{at}"),
        },
        ExperimentState::Failed { fault } => format!("it failed{at}: {fault}"),
        ExperimentState::Canceled => format!("it was canceled{at}"),
    };
    // Rows from before costs were counted have none, nor has what never ran.
    if row.spent.is_nothing() {
        return Some(how);
    }
    Some(format!("{how}; it cost {}", row.spent.sentence()))
}

fn trial(row: &Trial) -> Option<String> {
    let at = at(row.ended_at);
    match &row.state {
        TrialState::Waiting { .. }
        | TrialState::Running { .. }
        | TrialState::Stopping { .. }
        | TrialState::Paused => None,
        TrialState::Completed => Some(format!("it was completed{at} at step {}", row.last_step)),
        TrialState::Failed { fault } => Some(format!("it failed{at}: {fault}")),
        TrialState::Canceled => Some(format!("it was canceled{at}")),
    }
}

fn task(row: &Task) -> Option<String> {
    let at = at(row.ended_at);
    match &row.state {
        TaskState::Waiting | TaskState::Running { .. } => None,
        TaskState::Completed { .. } => Some(format!("it was completed{at}")),
        TaskState::Failed { fault } => Some(format!("it failed{at}: {fault}")),
        TaskState::Canceled => Some(format!("it was canceled{at}")),
    }
}
