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
        let mut pen = Pen::new(tools, order, rank);
        let mut ended = ended.subscribe();
        Self(tokio::spawn(async move {
            let mut tail = VecDeque::new();
            let Some(stderr) = stderr else {
                return Vec::new();
            };
            let mut reader = BufReader::new(stderr);
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
                pen.write(&line);
            }
            tail.into()
        }))
    }

    pub async fn end(self) -> Vec<String> {
        self.0.await.unwrap_or_default()
    }
}

/// Writes lines of a process to the log, within its rate.
#[derive(Debug)]
pub struct Pen {
    tools: Tools,
    owners: Owners,
    rank: u32,
    rate: Rate,
}

impl Pen {
    pub fn new(tools: &Tools, order: &Order, rank: u32) -> Self {
        Self {
            owners: Owners::of(order),
            rank,
            rate: Rate::new(tools.lines_per_s, Instant::now()),
            tools: tools.clone(),
        }
    }

    /// Writes a line, unless there were too many in this second.
    pub fn write(&mut self, line: &[u8]) {
        match self.rate.line(Instant::now()) {
            Verdict::Keep { dropped } => {
                if dropped > 0 {
                    let text = format!("({dropped} lines were dropped: too many a second)");
                    self.owners.log(&self.tools, self.rank, text.as_bytes());
                }
                self.owners.log(&self.tools, self.rank, line);
            }
            Verdict::Drop => {}
        }
    }
}

/// Whom a lease's log lines belong to.
#[derive(Debug, Clone)]
struct Owners(Arc<[String]>);

impl Owners {
    fn of(order: &Order) -> Self {
        Self(order.owners.clone().into())
    }

    /// A line of a rank's log. One that begins with an owner's id is that owner's, any other is
    /// everybody's. It is cut to what a log line may hold.
    fn log(&self, tools: &Tools, rank: u32, line: &[u8]) {
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
