//! `top`: a picture of the cluster, again and again.

use pomona_api::v1::experiments::TrialOrder;
use pomona_domain::Fault;
use pomona_domain::trial::{Trial, TrialState};
use std::time::Duration;

use super::Done;
use super::session::{Session, all, first_page, is_passing, trials};
use crate::args::machine::TopArgs;
use crate::human::now;
use crate::printer::Style;
use crate::views;
use crate::views::machine::Top;

/// Experiments whose trials are looked at.
const MAX_EXPERIMENTS: usize = 20;

/// `pomona top`.
pub async fn run(args: TopArgs, session: Session) -> Result<Done, Fault> {
    let printer = &session.printer;
    let once = args.once || printer.is_json() || !printer.out_is_terminal();
    if once {
        let top = look(&session).await?;
        printer.data(&top, |style| draw(style, &session, &top));
        return Ok(Done::Well);
    }
    // A coordinator that is not there at the beginning is an error; one that goes away later is not.
    let mut top = look(&session).await?;
    loop {
        printer.redraw(&draw(printer.style(), &session, &top));
        tokio::time::sleep(Duration::from_secs(args.every)).await;
        match look(&session).await {
            Ok(next) => top = next,
            Err(fault) if is_passing(fault.code) => {
                let gone = printer.style().yellow("the coordinator is away");
                printer.redraw(&format!("{gone}: {fault}\n"));
            }
            Err(fault) => return Err(fault),
        }
    }
}

fn draw(style: Style, session: &Session, top: &Top) -> String {
    views::machine::top(style, now(), session.client.server(), top)
}

async fn look(session: &Session) -> Result<Top, Fault> {
    let client = &session.client;
    let cluster = client.cluster().await?;
    let workers = all(|query| async move { client.worker_list(&query).await })
        .await?
        .items;
    // Newest first: what has not ended is on the first page.
    let page = client.experiment_list(&first_page()).await?;
    let experiments: Vec<_> = page
        .items
        .into_iter()
        .filter(|row| !row.is_ended())
        .take(MAX_EXPERIMENTS)
        .collect();
    let mut running = Vec::new();
    for row in &experiments {
        let trials = trials(session, &row.id.to_string(), TrialOrder::Number).await?;
        running.extend(
            trials
                .into_iter()
                .filter(is_on_slots)
                .map(|trial| (row.spec.name.clone(), trial)),
        );
    }
    Ok(Top {
        cluster,
        workers,
        experiments,
        running,
    })
}

fn is_on_slots(trial: &Trial) -> bool {
    match trial.state {
        TrialState::Running { .. } | TrialState::Stopping { .. } => true,
        TrialState::Waiting { .. }
        | TrialState::Paused
        | TrialState::Completed
        | TrialState::Failed { .. }
        | TrialState::Canceled => false,
    }
}
