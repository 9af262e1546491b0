//! `worker`: machines that train.

use pomona_domain::Fault;

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
        WorkerCommand::Drain { id } => {
            let row = session.client.worker_drain(&id).await?;
            let text = format!(
                "worker `{}` gets nothing new; what runs there ends first",
                row.name
            );
            session.printer.say(&text);
            let rows = std::slice::from_ref(&row);
            session
                .printer
                .data(&row, |style| views::machine::workers(style, now(), rows));
        }
    }
    Ok(Done::Well)
}
