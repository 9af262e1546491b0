//! Waits for a task: imports, publications and predictions are leased work in a trainer.

use indicatif::ProgressBar;
use pomona_api::v1::events::{Topic, What};
use pomona_domain::task::{Task, TaskResult, TaskState};
use pomona_domain::{Code, Fault, TaskId};
use std::time::{Duration, Instant};

use super::live::{Live, News};
use super::session::{Session, is_passing};
use crate::views::state;

/// The task is looked at this often even when nothing is heard.
const PATIENCE: Duration = Duration::from_secs(1);
/// A task that waits longer is asked why.
const WAITS_LONG: Duration = Duration::from_secs(3);
/// Lines of a task's log that are read at once.
const LOG_LINES: u32 = 200;

/// Waits until a task has ended, and gives its result; `label` says what it does.
pub async fn finish(session: &Session, task: Task, label: &str) -> Result<TaskResult, Fault> {
    let mut wait = Waiting {
        session,
        task: task.id,
        ended: false,
        spinner: session.printer.spinner(label),
        label,
        said: None,
        since: Instant::now(),
        asked_why: false,
        log_seq: 0,
        log_line: String::new(),
    };
    let ended = wait.end_of(task).await;
    wait.ended = true;
    drop(wait);
    let task = ended?;
    match task.state {
        TaskState::Completed { result } => Ok(*result),
        TaskState::Failed { fault } => Err(fault),
        TaskState::Canceled => Err(Fault::new(
            Code::WrongState,
            format!("task `{}` was canceled", task.id),
        )),
        TaskState::Waiting | TaskState::Running { .. } => Err(Fault::new(
            Code::Internal,
            format!("task `{}` has not ended", task.id),
        )),
    }
}

struct Waiting<'a> {
    session: &'a Session,
    task: TaskId,
    /// Nobody went away before its end.
    ended: bool,
    spinner: ProgressBar,
    label: &'a str,
    said: Option<&'static str>,
    since: Instant,
    asked_why: bool,
    log_seq: u64,
    log_line: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
        if !self.ended {
            self.session.printer.say(&format!(
                "detached: the task goes on; `pomona explain task {}` says how it is",
                self.task
            ));
        }
    }
}

impl Waiting<'_> {
    async fn end_of(&mut self, mut task: Task) -> Result<Task, Fault> {
        let mut live = Live::new(&self.session.client, &[Topic::Tasks]);
        let id = task.id.to_string();
        while !task.is_ended() {
            self.show(&task).await;
            match live.next(PATIENCE).await? {
                News::What(What::Task(row)) if row.id == task.id => task = *row,
                News::What(_) => {}
                News::AskAgain => match self.session.client.task_get(&id).await {
                    Ok(row) => task = row,
                    Err(fault) if is_passing(fault.code) => {}
                    Err(fault) => return Err(fault),
                },
                News::Away(fault) => {
                    let text = format!("{fault}; it is waited for, the task goes on");
                    self.spinner.suspend(|| self.session.printer.warn(&text));
                }
            }
        }
        Ok(task)
    }

    async fn show(&mut self, task: &Task) {
        let state = state::task(&task.state);
        if !self.session.printer.is_live() {
            if self.said != Some(state) {
                self.said = Some(state);
                let text = format!("{}: task {} {state}", self.label, task.id);
                self.session.printer.say(&text);
            }
            self.explain_a_long_wait(task).await;
            return;
        }
        self.explain_a_long_wait(task).await;
        let id = task.id.to_string();
        let logs = self
            .session
            .client
            .task_logs(&id, self.log_seq, Some(LOG_LINES));
        if let Ok(page) = logs.await
            && let Some(last) = page.items.last()
        {
            self.log_seq = last.seq;
            self.log_line.clone_from(&last.line);
        }
        let style = self.session.printer.talk_style();
        let detail = if self.log_line.is_empty() {
            state
        } else {
            &self.log_line
        };
        let text = format!("{}  {}", self.label, style.dim(detail));
        self.spinner.set_message(text);
    }

    /// Once: somebody who waits long for a slot wants to know why.
    async fn explain_a_long_wait(&mut self, task: &Task) {
        let waits = task.state == TaskState::Waiting;
        if self.asked_why || !waits || self.since.elapsed() < WAITS_LONG {
            return;
        }
        self.asked_why = true;
        if let Ok(why) = self.session.client.explain(&task.id.to_string()).await {
            let text = format!("task {}: {}", task.id, why.now);
            self.spinner.suspend(|| self.session.printer.say(&text));
        }
    }
}
