//! A batch on its way: decided, being written, and then shown and answered, or taken back.
//!
//! While one batch is written the next is decided, on memory that holds the changes of both. So
//! nothing is shown or answered before its own batch has landed; and when one does not, memory is
//! read again and what was decided on it is decided anew.

use pomona_domain::{Change, Code, Fault};
use pomona_scheduler::{Cluster, Event, Recalled};
use pomona_store::{Batch, StoreError};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::handle::{Done, Request, reading};
use super::{Engine, reign};

/// What became of one event before its commit.
pub(super) struct Decided {
    event: Event,
    recall: Option<Box<Recalled>>,
    answer: Option<oneshot::Sender<Result<Done, Fault>>>,
    outcome: Result<(), Fault>,
    /// What is to be committed: a refusal may leave something behind, too.
    changes: Vec<Change>,
}

impl Decided {
    /// It may be decided again.
    fn into_request(self) -> Request {
        Request {
            event: self.event,
            recall: self.recall,
            answer: self.answer,
        }
    }
}

/// A batch that is being written.
pub(super) struct Flight {
    pub(super) decided: Vec<Decided>,
    pub(super) changes: Arc<Vec<Change>>,
    /// The cluster with this batch, and without what is decided meanwhile.
    pub(super) view: Arc<Cluster>,
    pub(super) commit: JoinHandle<Result<(), StoreError>>,
    pub(super) begun: Instant,
}

/// Waits until a flight is over; for ever, when there is none.
pub(super) async fn over(flight: Option<&mut Flight>) -> Result<(), StoreError> {
    let Some(flight) = flight else {
        return std::future::pending().await;
    };
    match (&mut flight.commit).await {
        Ok(written) => written,
        // Nothing of a coordinator is right after that: it ends as if this task had panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Engine {
    /// Decides a request for the next batch. Nothing is decided on memory that another leader may
    /// have left behind, nor on what could not be read again.
    pub(super) fn accept(&mut self, request: Request, next: &mut Vec<Decided>) {
        if !self.role.borrow().leads() {
            request.refuse(&reign::uncertain(self.parts.term));
        } else if self.visible.borrow().is_none() {
            request.refuse(&reading());
        } else {
            next.push(self.decide(request));
        }
    }

    fn decide(&mut self, request: Request) -> Decided {
        let Request {
            event,
            recall,
            answer,
        } = request;
        let now = self.parts.clock.now();
        let started = Instant::now();
        if let Some(rows) = &recall {
            self.cluster.recall((**rows).clone());
        }
        if let Event::Polled {
            worker,
            incarnation,
            ..
        } = &event
            && let Some(row) = self.cluster.worker(*worker)
            && row.incarnation == *incarnation
        {
            self.cluster.touch(*worker, now);
        }
        let decision = pomona_scheduler::decide(&self.cluster, now, &event);
        for change in &decision.changes {
            self.cluster.apply(now, change);
        }
        self.parts.metrics.decided(&event, started.elapsed());
        Decided {
            event,
            recall,
            answer,
            outcome: decision.outcome,
            changes: decision.changes,
        }
    }

    /// Begins to write a batch. What changes nothing is answered at once.
    pub(super) fn launch(&mut self, decided: Vec<Decided>) -> Option<Flight> {
        let changes = decided.iter().flat_map(|one| &one.changes);
        let changes: Arc<Vec<Change>> = Arc::new(changes.cloned().collect());
        if changes.is_empty() {
            match &*self.visible.borrow() {
                Some(view) => answer(decided, view),
                None => refuse(decided, &reading()),
            }
            return None;
        }
        let (store, written) = (self.parts.store.clone(), Arc::clone(&changes));
        let (id, generation) = (self.batch + 1, self.reign.generation);
        let commit = tokio::spawn(async move {
            let batch = Batch {
                id,
                generation,
                changes: &written,
            };
            store.commit(&batch).await
        });
        Some(Flight {
            decided,
            changes,
            view: Arc::new(self.cluster.clone()),
            commit,
            begun: Instant::now(),
        })
    }

    /// A flight is over: it is shown and answered, or memory is read again. Then what was decided
    /// meanwhile is decided anew.
    pub(super) async fn land(
        &mut self,
        flight: Flight,
        written: Result<(), StoreError>,
        next: &mut Vec<Decided>,
    ) {
        match written {
            Ok(()) => {
                self.batch += 1;
                self.parts.metrics.committed(flight.begun.elapsed());
                let before = self.visible.borrow().clone();
                self.finish(before.as_deref(), flight);
            }
            Err(error) => {
                let meanwhile = std::mem::take(next);
                self.recover(error, flight).await;
                for one in meanwhile {
                    let request = one.into_request();
                    match &self.deposed {
                        Some(fault) => request.refuse(fault),
                        None => self.accept(request, next),
                    }
                }
            }
        }
    }

    /// Requests that are a batch of their own, from their decision to their answers.
    pub(super) async fn handle(&mut self, requests: Vec<Request>) {
        let mut next = Vec::new();
        for request in requests {
            self.accept(request, &mut next);
        }
        if let Some(flight) = self.launch(next) {
            self.wait_for(flight).await;
        }
    }

    /// Waits for a flight while nothing else is decided.
    pub(super) async fn wait_for(&mut self, mut flight: Flight) {
        let written = over(Some(&mut flight)).await;
        self.land(flight, written, &mut Vec::new()).await;
    }

    /// Committed: show the cluster, tell the bus, answer.
    fn finish(&mut self, before: Option<&Cluster>, flight: Flight) {
        self.tell(before, &flight.changes);
        self.visible.send_replace(Some(Arc::clone(&flight.view)));
        answer(flight.decided, &flight.view);
    }

    /// Counts what was committed and publishes it.
    fn tell(&self, before: Option<&Cluster>, changes: &[Change]) {
        let now = self.parts.clock.now();
        if let Some(before) = before {
            self.parts.metrics.count(before, now, changes.iter());
        }
        self.parts.bus.publish(changes.iter());
    }

    /// The commit failed or its outcome is unknown: memory is read again.
    pub(super) async fn recover(&mut self, error: StoreError, mut flight: Flight) {
        let attempted = self.batch + 1;
        let nothing_written = nothing_written(&error);
        let deposed = self.deposed.is_some() || matches!(error, StoreError::NotLeader { .. });
        let fault = Fault::from(error);
        tracing::error!(code = %fault.code, batch = attempted, "commit failed: {fault}");
        self.parts.metrics.commit_failures.inc();
        let before = self.visible.send_replace(None);
        if deposed {
            let fault = self.deposed.get_or_insert(fault);
            return refuse(flight.decided, fault);
        }
        let reloaded = self.reload().await;
        if reloaded.is_ok() && self.batch >= attempted {
            tracing::warn!(batch = attempted, "the commit had happened after all");
            flight.view = Arc::new(self.cluster.clone());
            return self.finish(before.as_deref(), flight);
        }
        if reloaded.is_ok() && nothing_written && flight.decided.len() > 1 {
            // One event of the batch cannot be written: alone, each gets its own answer.
            for one in flight.decided {
                Box::pin(self.handle(vec![one.into_request()])).await;
            }
            return;
        }
        refuse(flight.decided, &fault);
        if let Err(fault) = reloaded {
            tracing::error!(code = %fault.code, "cannot read the cluster: {fault}");
            self.reload_until_it_works().await;
            if self.batch >= attempted {
                tracing::warn!(batch = attempted, "the commit had happened after all");
                self.tell(before.as_deref(), &flight.changes);
            }
        }
    }
}

/// Answers what is committed, or changed nothing.
fn answer(decided: Vec<Decided>, view: &Arc<Cluster>) {
    for one in decided {
        let changes = one.changes;
        let done = one.outcome.map(|()| Done {
            view: Arc::clone(view),
            changes,
        });
        if let Some(answer) = one.answer {
            // A client that has gone away does not want its answer.
            let _ = answer.send(done);
        }
    }
}

/// Answers a batch that is not known to be committed. What was refused gets the same answer: its
/// refusal rests on memory that never came true.
pub(super) fn refuse(decided: Vec<Decided>, fault: &Fault) {
    for one in decided {
        one.into_request().refuse(fault);
    }
}

/// Errors after which the database holds nothing of the batch.
fn nothing_written(error: &StoreError) -> bool {
    matches!(
        error.code(),
        Code::Conflict | Code::BlobMissing | Code::NotANumber | Code::NotReady
    )
}
