//! What the rest of the coordinator holds of the engine.

use pomona_domain::{Change, Code, Fault};
use pomona_scheduler::{Cluster, Event, Recalled};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

use super::reign::{self, Role};

/// What an event did, after it was committed.
#[derive(Debug, Clone)]
pub struct Done {
    /// The cluster after the batch.
    pub view: Arc<Cluster>,
    /// What this event changed.
    pub changes: Vec<Change>,
}

/// An event, and who waits for what it does.
pub(super) struct Request {
    pub(super) event: Event,
    pub(super) recall: Option<Box<Recalled>>,
    pub(super) answer: Option<oneshot::Sender<Result<Done, Fault>>>,
}

impl Request {
    pub(super) fn refuse(self, fault: &Fault) {
        if let Some(answer) = self.answer {
            // A client that has gone away does not want its answer.
            let _ = answer.send(Err(fault.clone()));
        }
    }
}

/// What the rest of the coordinator holds of the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) visible: watch::Receiver<Option<Arc<Cluster>>>,
    pub(super) role: watch::Receiver<Role>,
    pub(super) term: Duration,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.event.fmt(f)
    }
}

impl Handle {
    /// Hands an event to the engine and waits until what it changed is committed.
    pub async fn decide(&self, event: Event) -> Result<Done, Fault> {
        self.decide_with(event, None).await
    }

    /// The same, with ended rows that the decision needs.
    pub async fn decide_with(&self, event: Event, recall: Option<Recalled>) -> Result<Done, Fault> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            event,
            recall: recall.map(Box::new),
            answer: Some(answer),
        };
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    Fault::new(Code::Busy, "too many requests wait for the scheduler")
                        .hint("try again in a second")
                }
                mpsc::error::TrySendError::Closed(_) => stopping(),
            })?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Who decides.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// The generation by which this coordinator decides; nothing when it does not.
    pub fn generation(&self) -> Option<u64> {
        match *self.role.borrow() {
            Role::Leads { generation, .. } => Some(generation),
            Role::Follows { .. } => None,
        }
    }

    /// The committed cluster; `E0005` while it is being read, and when another coordinator leads.
    pub fn view(&self) -> Result<Arc<Cluster>, Fault> {
        match &*self.role.borrow() {
            Role::Follows { .. } => return Err(reign::follows()),
            role @ Role::Leads { .. } if !role.leads() => return Err(reign::uncertain(self.term)),
            Role::Leads { .. } => {}
        }
        self.visible.borrow().clone().ok_or_else(reading)
    }

    /// Wakes up after each commit.
    pub fn commits(&self) -> watch::Receiver<Option<Arc<Cluster>>> {
        self.visible.clone()
    }
}

/// Nobody sees a cluster while it is read.
pub(super) fn reading() -> Fault {
    Fault::new(Code::NotReady, "the coordinator is reading its database")
        .hint("try again in a second")
}

/// Nothing is decided here any more.
pub fn stopping() -> Fault {
    Fault::new(Code::NotReady, "the coordinator is stopping")
}
