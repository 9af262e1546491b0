//! `experiment`: submit, look, follow, control.

use pomona_api::v1::experiments::{ExperimentView, TrialOrder};
use pomona_domain::Fault;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::trial::Trial;
use serde::Serialize;

use super::session::{Session, all, trials};
use super::{Done, ask, submit, talk, watch};
use crate::args::GlobalArgs;
use crate::args::experiment::{ExperimentCommand, ExperimentRef};
use crate::human::now;
use crate::printer::Printer;
use crate::views;

/// An experiment with its trials, the best first.
#[derive(Debug, Serialize)]
struct WithLeaders<'a> {
    #[serde(flatten)]
    experiment: &'a ExperimentView,
    leaderboard: &'a [Trial],
}

/// `pomona experiment`.
pub fn run(
    command: ExperimentCommand,
    global: &GlobalArgs,
    printer: &Printer,
) -> Result<Done, Fault> {
    match command {
        ExperimentCommand::Preview(file) => submit::preview(&file, global, printer),
        ExperimentCommand::Submit { file, watch } => {
            // Read, parsed and refused before anybody is asked.
            let body = submit::read(&file)?;
            talk(global, printer, |session| async move {
                let row = submit::send(&body, &session).await?;
                if watch {
                    return watch::follow(&session, row).await;
                }
                session
                    .printer
                    .data(&row, |style| views::experiment::submitted(style, &row));
                warn(&session, &row);
                Ok(Done::Well)
            })
        }
        ExperimentCommand::Watch(id) => talk(global, printer, |session| async move {
            let row = session.client.experiment_get(&id.experiment).await?;
            watch::follow(&session, row).await
        }),
        ExperimentCommand::List => ask(global, printer, list),
        ExperimentCommand::Show { id, all } => ask(global, printer, |s| show(id, all, s)),
        ExperimentCommand::Pause(id) => ask(global, printer, |session| async move {
            let row = session.client.experiment_pause(&id.experiment).await?;
            Ok(told(&session, &row))
        }),
        ExperimentCommand::Resume(id) => ask(global, printer, |session| async move {
            let row = session.client.experiment_resume(&id.experiment).await?;
            Ok(told(&session, &row))
        }),
        ExperimentCommand::Cancel(id) => ask(global, printer, |session| async move {
            let row = session.client.experiment_cancel(&id.experiment).await?;
            Ok(told(&session, &row))
        }),
    }
}

/// What stands in its way.
fn warn(session: &Session, row: &ExperimentView) {
    for warning in &row.warnings {
        session.printer.warning(warning);
    }
}

/// What a control did.
fn told(session: &Session, row: &Experiment) -> Done {
    let text = match row.state {
        ExperimentState::Active => "goes on from its checkpoints",
        ExperimentState::Paused => "writes checkpoints and gives its slots back",
        ExperimentState::Canceled => "is taken back; what runs is stopped",
        ExperimentState::Promoting { .. } => "publishes its best checkpoint",
        ExperimentState::Completed => "is completed",
        ExperimentState::Failed { .. } => "has failed",
    };
    session.printer.data(row, |style| {
        format!("{} ({}) {text}", style.bold(&row.spec.name), row.id)
    });
    Done::Well
}

async fn list(session: Session) -> Result<Done, Fault> {
    let session = &session;
    let page = all(|query| async move { session.client.experiment_list(&query).await }).await?;
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return "no experiment yet: `pomona experiment submit FILE`".to_owned();
        }
        views::experiment::list(style, now(), &page.items)
    });
    Ok(Done::Well)
}

async fn show(id: ExperimentRef, everything: bool, session: Session) -> Result<Done, Fault> {
    let row = session.client.experiment_get(&id.experiment).await?;
    let trials = trials(&session, &row.id.to_string(), TrialOrder::Leaderboard).await?;
    let limit = if everything {
        usize::MAX
    } else {
        views::experiment::LEADERS
    };
    let answer = WithLeaders {
        experiment: &row,
        leaderboard: &trials,
    };
    session.printer.data(&answer, |style| {
        views::experiment::show(style, now(), &row, &trials, limit)
    });
    warn(&session, &row);
    Ok(Done::Well)
}
