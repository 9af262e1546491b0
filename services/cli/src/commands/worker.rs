//! `worker`: machines that train.

use pomona_api::v1::workers::WorkerView;
use pomona_domain::Fault;
use pomona_domain::worker::Worker;

use super::Done;
use super::session::{Session, all};
use crate::args::machine::WorkerCommand;
use crate::human::now;
use crate::views;

/// `pomona worker`.
pub async fn run(command: WorkerCommand, session: Session) -> Result<Done, Fault> {
    let session = &session;
    match command {
        WorkerCommand::List => {
            let page = all(|query| async move { session.client.worker_list(&query).await }).await?;
            session.printer.data(&page, |style| {
                if page.items.is_empty() {
                    return "no worker yet: `pomona up` starts one here".to_owned();
                }
                views::machine::workers(style, now(), &page.items)
            });
        }
        WorkerCommand::Drain { id, deadline } => {
            let row = session.client.worker_drain(&id, deadline).await?;
            let what = if deadline.unwrap_or(0) > 0 {
                "trials there may go on until its deadline"
            } else {
                "trials there write a checkpoint and go on elsewhere"
            };
            told(session, row, &format!("gets nothing new; {what}"));
        }
        WorkerCommand::Undrain { id } => {
            let row = session.client.worker_undrain(&id).await?;
            told(session, row, "gets work again");
        }
    }
    Ok(Done::Well)
}

/// Says what was done to a worker, and shows it.
fn told(session: &Session, row: Worker, what: &str) {
    session
        .printer
        .say(&format!("worker `{}` {what}", row.name));
    let shown = WorkerView {
        worker: row,
        excluded: None,
    };
    let rows = std::slice::from_ref(&shown);
    let printer = &session.printer;
    printer.data(&shown, |style| views::machine::workers(style, now(), rows));
}
