//! `explain`: what a code means (offline), and why something is as it is.

use pomona_api::v1::PageQuery;
use pomona_api::v1::cluster::Explanation;
use pomona_domain::gate::Judgement;
use pomona_domain::model::GateOutcome;
use pomona_domain::{Code, Fault, WorkerId, explain};
use serde::Serialize;

use super::session::{Session, all, version_reference};
use super::{Done, ask};
use crate::args::GlobalArgs;
use crate::args::model::ExplainArgs;
use crate::printer::Printer;
use crate::views;

/// Why an alias points where it does, with the numbers of its version's gates.
#[derive(Debug, Serialize)]
struct ModelExplanation {
    #[serde(flatten)]
    explanation: Explanation,
    /// None as long as every version was refused.
    version: Option<u32>,
    gates: Vec<GateOutcome>,
    /// Newest first, whether it moved or not.
    decisions: Vec<Judgement>,
}

/// An error code's section.
#[derive(Debug, Serialize)]
struct Section {
    code: Code,
    text: &'static str,
}

/// `pomona explain`.
pub fn run(args: ExplainArgs, global: &GlobalArgs, printer: &Printer) -> Result<Done, Fault> {
    let ExplainArgs { what, which } = args;
    let Some(which) = which else {
        return code(&what, printer);
    };
    ask(global, printer, |session| async move {
        match what.as_str() {
            "model" => model(&which, &session).await,
            "trial" => {
                let id = session.client.trial_get(&which).await?.id;
                subject(&id.to_string(), &session).await
            }
            "experiment" => {
                let id = session.client.experiment_get(&which).await?.id;
                subject(&id.to_string(), &session).await
            }
            "task" => {
                let id = session.client.task_get(&which).await?.id;
                subject(&id.to_string(), &session).await
            }
            "worker" => {
                let id = worker(&which, &session).await?;
                subject(&id.to_string(), &session).await
            }
            _ => Err(unknown(&what)),
        }
    })
}

fn code(text: &str, printer: &Printer) -> Result<Done, Fault> {
    let Some(code) = Code::parse(text) else {
        return Err(unknown(text));
    };
    let section = Section {
        code,
        text: explain(code),
    };
    printer.data(&section, |style| {
        let (heading, body) = section.text.split_once('\n').unwrap_or((section.text, ""));
        format!("{}\n\n{}\n", style.bold(heading), body.trim())
    });
    Ok(Done::Well)
}

fn unknown(text: &str) -> Fault {
    if ["trial", "experiment", "task", "worker", "model"].contains(&text) {
        let id = if text == "model" { "NAME@ALIAS" } else { "ID" };
        return Fault::new(
            Code::BadRequest,
            format!("`explain {text}` needs to know which one"),
        )
        .hint(format!("write `pomona explain {text} {id}`"));
    }
    Fault::new(Code::BadRequest, format!("`{text}` cannot be explained")).hint(
        "it is an error code like `E0203`, or one of trial, experiment, task, worker and model \
         with an id",
    )
}

async fn subject(id: &str, session: &Session) -> Result<Done, Fault> {
    let answer = session.client.explain(id).await?;
    session
        .printer
        .data(&answer, |style| views::machine::explanation(style, &answer));
    Ok(Done::Well)
}

async fn model(text: &str, session: &Session) -> Result<Done, Fault> {
    let (name, alias) = version_reference(text)?;
    if alias.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = format!("`{text}` is a version, which never moves");
        return Err(Fault::new(Code::BadRequest, message).hint(format!(
            "`pomona model show {text}` has its gates and lineage"
        )));
    }
    let explanation = session.client.explain_model(name, alias).await?;
    let version = match session.client.version_get(name, alias).await {
        Ok(version) => Some(version),
        Err(fault) if fault.code == Code::NotFound => None,
        Err(fault) => return Err(fault),
    };
    let query = PageQuery::default();
    let decisions = session.client.decision_list(name, alias, &query).await?;
    let decisions = decisions.items;
    let number = version.as_ref().map(|version| version.number);
    let stands = |row: &&Judgement| match number {
        Some(number) => row.allowed && row.number == number,
        None => true,
    };
    let decision = decisions.iter().find(stands);
    let published = version.map_or_else(Vec::new, |version| version.gates);
    let answer = ModelExplanation {
        explanation,
        version: number,
        gates: decision.map_or(published, |row| row.gates.clone()),
        decisions,
    };
    session.printer.data(&answer, |style| {
        let mut text = views::machine::explanation(style, &answer.explanation);
        if !answer.gates.is_empty() {
            text.push('\n');
            text.push_str(&views::model::gates(style, &answer.gates));
        }
        text
    });
    Ok(Done::Well)
}

/// A worker's id, from its id, the beginning of it, or its name.
async fn worker(text: &str, session: &Session) -> Result<WorkerId, Fault> {
    let workers = all(|query| async move { session.client.worker_list(&query).await }).await?;
    let fits: Vec<WorkerId> = workers
        .items
        .iter()
        .map(|row| &row.worker)
        .filter(|row| row.name == text || row.id.to_string().starts_with(text))
        .map(|row| row.id)
        .collect();
    match fits[..] {
        [id] => Ok(id),
        [] => Err(
            Fault::new(Code::NotFound, format!("there is no worker `{text}`"))
                .hint("`pomona worker list` shows them"),
        ),
        [..] => Err(
            Fault::new(Code::Ambiguous, format!("`{text}` fits several workers"))
                .hint("write more of the id"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_explained_is_refused_with_what_can() {
        assert!(unknown("trial").message.contains("needs to know which one"));
        let fault = unknown("E12");
        assert_eq!(fault.code, Code::BadRequest);
        assert!(fault.hint.is_some());
    }
}
