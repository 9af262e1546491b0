//! Writes to runs, many requests in one transaction: whoever comes while one is under way goes with
//! the next, which waits a moment for as many as the last one had, since those who were answered
//! together come back together. A request is answered when it is on disk.
//!
//! It must never hold what was acknowledged: everything in its queue still has somebody waiting.

use actix_web::web::Data;
use pomona_domain::{Code, Fault};
use pomona_store::{RunRefusal, RunWrite, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use super::Refused;
use super::refusal::of_run;
use crate::http::App;
use crate::metrics::Metrics;

/// Requests that wait at most.
const QUEUE: usize = 1024;
/// Points that go in one transaction, about.
const POINTS: usize = 100_000;
/// How long a transaction waits for as many requests as the last one had.
const GATHER: Duration = Duration::from_millis(1);
/// How often what is in the log is settled where there is much of it, in rows.
const OFTEN: (Duration, u64) = (Duration::from_secs(1), 100);
/// How often all of it is, in times the other.
const SELDOM: u32 = 10;

type Written = Result<Result<(), RunRefusal>, Fault>;

#[derive(Debug)]
struct Order {
    write: RunWrite,
    answer: oneshot::Sender<Written>,
}

/// The way to the writer.
#[derive(Debug)]
pub struct Writer(mpsc::Sender<Order>);

impl Writer {
    /// Starts the writer. It ends when nobody can reach it any more.
    pub fn start(store: Store, metrics: Arc<Metrics>) -> Self {
        let (sender, orders) = mpsc::channel(QUEUE);
        tokio::spawn(work(store, metrics, orders));
        Self(sender)
    }

    async fn send(&self, write: RunWrite) -> Written {
        let (answer, written) = oneshot::channel();
        let gone = || Fault::new(Code::NotReady, "the coordinator stops");
        let sent = self.0.send(Order { write, answer }).await;
        sent.map_err(|_| gone())?;
        written.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn work(store: Store, metrics: Arc<Metrics>, mut orders: mpsc::Receiver<Order>) {
    let mut expected = 1;
    while let Some(first) = orders.recv().await {
        let (writes, answers) = gather(first, &mut orders, expected).await;
        expected = writes.len();
        match store.run_write(&writes).await {
            Ok(written) => {
                for ((answer, written), write) in answers.into_iter().zip(written).zip(&writes) {
                    if written.is_ok() {
                        metrics.points.inc_by(size(write) as u64);
                    }
                    // Whoever asked may have gone.
                    let _ = answer.send(Ok(written));
                }
            }
            Err(error) => {
                let fault = Fault::from(error);
                for answer in answers {
                    let _ = answer.send(Err(fault.clone()));
                }
            }
        }
    }
}

/// What goes with `first`: all that is there, and what comes in a moment while fewer than
/// `expected` are.
async fn gather(
    first: Order,
    orders: &mut mpsc::Receiver<Order>,
    expected: usize,
) -> (Vec<RunWrite>, Vec<oneshot::Sender<Written>>) {
    let mut points = size(&first.write);
    let (mut writes, mut answers) = (vec![first.write], vec![first.answer]);
    let end = tokio::time::Instant::now() + GATHER;
    while points < POINTS && writes.len() < QUEUE {
        let next = match orders.try_recv() {
            Ok(next) => Some(next),
            Err(_) if writes.len() >= expected => None,
            Err(_) => (tokio::time::timeout_at(end, orders.recv()).await)
                .ok()
                .flatten(),
        };
        let Some(next) = next else { break };
        points += size(&next.write);
        writes.push(next.write);
        answers.push(next.answer);
    }
    (writes, answers)
}

/// Points of a request.
fn size(write: &RunWrite) -> usize {
    write.points.values().map(Vec::len).sum()
}

/// Writes to a run; the face of a trial is made when it has none.
pub async fn write(app: &Data<App>, write: RunWrite) -> Result<(), Refused> {
    let id = write.run.clone();
    let is_trial = id.starts_with("tri_");
    let again = is_trial.then(|| write.clone());
    let mut written = app.writer.send(write).await?;
    if let (Err(RunRefusal::Missing), Some(again)) = (&written, again) {
        app.store.run_face(&id).await?;
        written = app.writer.send(again).await?;
    }
    written.map_err(|refusal| of_run(&id, refusal))
}

/// Settles what is in the log, for ever.
pub async fn settle(app: Data<App>) {
    let mut every = tokio::time::interval(OFTEN.0);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round = 0_u32;
    loop {
        every.tick().await;
        round = round.wrapping_add(1);
        let least = if round.is_multiple_of(SELDOM) {
            1
        } else {
            OFTEN.1
        };
        let settled = async {
            let runs = app.store.runs_unsettled(least).await?;
            app.store.runs_settle(&runs).await
        };
        if let Err(error) = settled.await {
            tracing::warn!("cannot settle what runs logged: {}", Fault::from(error));
        }
    }
}
