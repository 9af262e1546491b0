//! `trial`: single points of an experiment.

use pomona_api::v1::Page;
use pomona_api::v1::experiments::{LogEntry, TrialOrder};
use pomona_domain::Fault;
use pomona_domain::checkpoint::Checkpoint;
use pomona_domain::metric::Observation;
use pomona_domain::trial::Trial;
use serde::Serialize;
use std::time::{Duration, Instant};

use super::Done;
use super::live::GIVE_UP;
use super::session::{Session, all, is_passing, trials};
use crate::args::experiment::TrialCommand;
use crate::human::now;
use crate::views;

/// Lines that are asked for at once.
const LOG_PAGE: u32 = 1000;
/// A log that is followed is read this often.
const LOG_PAUSE: Duration = Duration::from_millis(300);
/// Log lines travel apart from the exit: an ended trial is read on until it is silent this often.
const SILENCE: u32 = 4;

/// A trial with its curve and checkpoints.
#[derive(Debug, Serialize)]
struct WithCurve<'a> {
    #[serde(flatten)]
    trial: &'a Trial,
    observations: &'a [Observation],
    checkpoints: &'a [Checkpoint],
}

/// `pomona trial`.
pub async fn run(command: TrialCommand, session: Session) -> Result<Done, Fault> {
    match command {
        TrialCommand::List(id) => list(&id.experiment, &session).await,
        TrialCommand::Show(id) => show(&id.trial, &session).await,
        TrialCommand::Logs { id, follow: false } => logs(&id.trial, &session).await,
        TrialCommand::Logs { id, follow: true } => follow(&id.trial, &session).await,
        TrialCommand::Stop(id) => {
            let row = session.client.trial_stop(&id.trial).await?;
            session.printer.data(&row, |style| {
                let what = "ends now and counts as completed with what it has";
                format!(
                    "trial {} ({}) {what}",
                    row.number,
                    style.bold(&row.id.to_string())
                )
            });
            Ok(Done::Well)
        }
        TrialCommand::Pin(id) => pin(&id.trial, true, &session).await,
        TrialCommand::Unpin(id) => pin(&id.trial, false, &session).await,
    }
}

async fn pin(id: &str, pinned: bool, session: &Session) -> Result<Done, Fault> {
    let row = session.client.trial_pin(id, pinned).await?;
    session.printer.data(&row, |style| {
        let what = match (&row.deleted, pinned) {
            (_, true) => "is pinned: its checkpoints stay".to_owned(),
            (None, false) => "is not pinned".to_owned(),
            (Some(why), false) => format!("has no checkpoints any more: {why}"),
        };
        let id = style.bold(&row.id.to_string());
        format!("trial {} ({id}) {what}", row.number)
    });
    Ok(Done::Well)
}

async fn list(experiment: &str, session: &Session) -> Result<Done, Fault> {
    let page = Page {
        items: trials(session, experiment, TrialOrder::Number).await?,
        next_page_token: None,
    };
    session
        .printer
        .data(&page, |style| views::trial::list(style, now(), &page.items));
    Ok(Done::Well)
}

async fn show(id: &str, session: &Session) -> Result<Done, Fault> {
    let client = &session.client;
    let trial = client.trial_get(id).await?;
    let id = trial.id.to_string();
    let id = id.as_str();
    let experiment = client.experiment_get(&trial.experiment.to_string()).await?;
    let curve = all(|query| async move { client.trial_observations(id, &query).await })
        .await?
        .items;
    let checkpoints = client.trial_checkpoints(id).await?.items;
    let answer = WithCurve {
        trial: &trial,
        observations: &curve,
        checkpoints: &checkpoints,
    };
    session.printer.data(&answer, |style| {
        views::trial::show(style, now(), &trial, &experiment, &curve, &checkpoints)
    });
    Ok(Done::Well)
}

async fn logs(id: &str, session: &Session) -> Result<Done, Fault> {
    let mut items = Vec::new();
    let mut after = 0;
    loop {
        let page = session.client.trial_logs(id, after, Some(LOG_PAGE)).await?;
        let Some(last) = page.items.last() else { break };
        after = last.seq;
        if !session.printer.is_json() {
            lines(&page.items, session);
        }
        items.extend(page.items);
    }
    if session.printer.is_json() {
        let page = Page {
            items,
            next_page_token: None,
        };
        session.printer.data(&page, |_| String::new());
    } else if items.is_empty() {
        session.printer.say("it has said nothing yet");
    }
    Ok(Done::Well)
}

/// Lines as they come, until the trial has ended; as JSON, one object a line.
async fn follow(id: &str, session: &Session) -> Result<Done, Fault> {
    let trial = session.client.trial_get(id).await?;
    let id = trial.id.to_string();
    let mut ended = trial.is_ended();
    let mut after = 0;
    let mut silent = 0;
    let mut heard = Instant::now();
    while !ended || silent < SILENCE {
        match session.client.trial_logs(&id, after, Some(LOG_PAGE)).await {
            Ok(page) => {
                heard = Instant::now();
                silent = if page.items.is_empty() { silent + 1 } else { 0 };
                after = page.items.last().map_or(after, |last| last.seq);
                lines(&page.items, session);
                if page.items.len() >= LOG_PAGE as usize {
                    continue;
                }
            }
            // The trial goes on without a coordinator.
            Err(fault) if is_passing(fault.code) && heard.elapsed() < GIVE_UP => {}
            Err(fault) => return Err(fault),
        }
        if !ended && let Ok(row) = session.client.trial_get(&id).await {
            ended = row.is_ended();
            silent = 0;
        }
        tokio::time::sleep(LOG_PAUSE).await;
    }
    Ok(Done::Well)
}

fn lines(entries: &[LogEntry], session: &Session) {
    let printer = &session.printer;
    for entry in entries {
        if printer.is_json() {
            printer.json_line(entry);
        } else {
            printer.text(&views::trial::log_line(printer.style(), entry));
        }
    }
}
