//! What a lease's processes write for people: whose lines they are, and the last of them for a crash.
//!
//! It must never hold a process up.

use pomona_api::v1::workers::LogLine;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, BufReader};
use tokio::sync::watch;

use super::crew::drained;
use super::{Order, Tools};
use crate::line::next_line;
use crate::logs::{MAX_LINE_BYTES, Rate, Verdict};

/// Last lines of stderr that are kept for a crash.
const TAIL: usize = 20;

/// A process's stderr: forwarded within its rate, its last lines kept.
pub struct Tail(tokio::task::JoinHandle<Vec<String>>);

impl Tail {
    pub fn start(
        tools: &Tools,
        order: &Order,
        rank: u32,
        stderr: Option<impl AsyncRead + Unpin + Send + 'static>,
        ended: &watch::Sender<bool>,
    ) -> Self {
        let (tools, owners) = (tools.clone(), Owners::of(order));
        let mut ended = ended.subscribe();
        Self(tokio::spawn(async move {
            let mut tail = VecDeque::new();
            let Some(stderr) = stderr else {
                return Vec::new();
            };
            let mut reader = BufReader::new(stderr);
            let mut rate = Rate::new(tools.lines_per_s, Instant::now());
            let mut line = Vec::new();
            loop {
                let read = tokio::select! {
                    biased;
                    read = next_line(&mut reader, MAX_LINE_BYTES, &mut line) => read,
                    () = drained(&mut ended) => break,
                };
                let Ok(Some(_)) = read else { break };
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(String::from_utf8_lossy(&line).into_owned());
                match rate.line(Instant::now()) {
                    Verdict::Keep { dropped } => {
                        if dropped > 0 {
                            let text = format!("({dropped} lines were dropped: too many a second)");
                            owners.log(&tools, rank, text.as_bytes());
                        }
                        owners.log(&tools, rank, &line);
                    }
                    Verdict::Drop => {}
                }
            }
            tail.into()
        }))
    }

    pub async fn end(self) -> Vec<String> {
        self.0.await.unwrap_or_default()
    }
}

/// Whom a lease's log lines belong to.
#[derive(Debug, Clone)]
pub struct Owners(Arc<[String]>);

impl Owners {
    pub fn of(order: &Order) -> Self {
        Self(order.owners.clone().into())
    }

    /// A line of a rank's log. One that begins with an owner's id is that owner's, any other is
    /// everybody's. It is cut to what a log line may hold.
    pub fn log(&self, tools: &Tools, rank: u32, line: &[u8]) {
        let line = &line[..line.len().min(MAX_LINE_BYTES)];
        let mut line = String::from_utf8_lossy(line).into_owned();
        // A replacement character takes more bytes than what it replaces.
        while line.len() > MAX_LINE_BYTES {
            line.pop();
        }
        let own = line.split_once(": ");
        let own = own.filter(|(owner, _)| self.0.iter().any(|known| known == owner));
        let push = |owner: &str, line: &str| {
            tools.logs.push(LogLine {
                owner: owner.to_owned(),
                rank,
                at: crate::now(),
                line: line.to_owned(),
            });
        };
        match own {
            Some((owner, line)) => push(owner, line),
            None => self.0.iter().for_each(|owner| push(owner, &line)),
        }
    }
}
