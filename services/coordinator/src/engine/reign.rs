//! Leadership over time: a coordinator stands, leads while its term is renewed, is deposed, and
//! stands again.
//!
//! It must never let anybody believe that this coordinator leads after its term: what it remembers
//! may be old then. The end is reckoned on the monotonic clock from before the database was asked,
//! so it comes here before it comes there.

use pomona_domain::{Code, Fault};
use pomona_store::{Election, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Parts, Request};

/// A term is renewed this many times before it is over.
const RENEWALS: u32 = 4;
/// A coordinator that follows looks so many times in a term whether it may lead.
const LOOKS: u32 = 10;

/// Who decides, as far as this coordinator knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// This one, until then at least (`None`: for ever).
    Leads {
        generation: u64,
        until: Option<Instant>,
    },
    /// Another one, which is reached there; empty when that is not known.
    Follows { address: String },
}

impl Role {
    /// Whether this coordinator decides now.
    pub fn leads(&self) -> bool {
        match self {
            Self::Leads { until, .. } => until.is_none_or(|until| Instant::now() < until),
            Self::Follows { .. } => false,
        }
    }
}

/// A time of leadership; its term is renewed as long as this lives.
#[derive(Debug)]
pub struct Reign {
    pub generation: u64,
    /// Ends when another one leads.
    keeper: JoinHandle<()>,
}

impl Reign {
    /// Waits until another coordinator leads.
    pub async fn deposed(&mut self) {
        // It breaks by no panic of ours; if it did, leadership would be over, too.
        let _ = (&mut self.keeper).await;
    }
}

impl Drop for Reign {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Stands once; nothing when another coordinator leads.
pub async fn stand(
    parts: &Parts,
    role: &Arc<watch::Sender<Role>>,
) -> Result<Option<Reign>, StoreError> {
    if !parts.store.is_shared() {
        // Nobody else has this file: there is no term, and nothing to renew.
        let generation = parts.store.lead().await?;
        let until = None;
        role.send_replace(Role::Leads { generation, until });
        let keeper = tokio::spawn(std::future::pending());
        return Ok(Some(Reign { generation, keeper }));
    }
    let asked = Instant::now();
    match parts.store.stand(&parts.me, parts.term).await? {
        Election::Leads(generation) => {
            let until = Some(asked + parts.term);
            role.send_replace(Role::Leads { generation, until });
            let keeper = tokio::spawn(keep(parts.clone(), Arc::clone(role), generation));
            Ok(Some(Reign { generation, keeper }))
        }
        Election::Follows(leader) => {
            let address = leader.address;
            role.send_if_modified(|known| {
                let now = Role::Follows { address };
                let news = *known != now;
                *known = now;
                news
            });
            Ok(None)
        }
    }
}

/// Renews the term until another coordinator leads.
async fn keep(parts: Parts, role: Arc<watch::Sender<Role>>, generation: u64) {
    let pause = parts.term / RENEWALS;
    let mut troubled = false;
    loop {
        tokio::time::sleep(pause).await;
        let asked = Instant::now();
        match parts.store.renew(generation, parts.term).await {
            Ok(()) => {
                troubled = false;
                let until = Some(asked + parts.term);
                role.send_replace(Role::Leads { generation, until });
            }
            Err(StoreError::NotLeader { .. }) => return,
            Err(error) if !std::mem::replace(&mut troubled, true) => {
                let fault = Fault::from(error);
                tracing::warn!(code = %fault.code, "leadership cannot be renewed: {fault}");
            }
            Err(_) => {}
        }
    }
}

/// Waits until this coordinator leads; nothing when it stops first. It looks for the first time
/// after a rest. What is asked meanwhile is told that another one decides.
pub async fn stand_by(
    parts: &Parts,
    role: &Arc<watch::Sender<Role>>,
    waiting: &mut mpsc::Receiver<Request>,
    rest: Duration,
) -> Option<Reign> {
    let mut stop = parts.stop.clone();
    let begin = tokio::time::Instant::now() + rest;
    let mut look = tokio::time::interval_at(begin, parts.term / LOOKS);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut troubled = false;
    loop {
        tokio::select! {
            _ = look.tick() => {}
            // Through Redis: the leader said that it resigns.
            () = parts.bus.wake.notified(), if tokio::time::Instant::now() >= begin => {}
            request = waiting.recv() => {
                request?.refuse(&follows());
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => return None,
        }
        match stand(parts, role).await {
            Ok(Some(reign)) => return Some(reign),
            Ok(None) => troubled = false,
            Err(error) if !std::mem::replace(&mut troubled, true) => {
                let fault = Fault::from(error);
                tracing::warn!(code = %fault.code, "nobody knows who leads: {fault}");
            }
            Err(_) => {}
        }
    }
}

/// This coordinator does not decide.
pub fn follows() -> Fault {
    Fault::new(
        Code::NotReady,
        "another coordinator leads, or will in a moment",
    )
    .hint("try again in a second")
}

/// Whether this coordinator still decides is not known: the database has not said so for a term.
pub fn uncertain(term: Duration) -> Fault {
    let text = format!(
        "the database has not renewed this coordinator's leadership for {} ms",
        term.as_millis()
    );
    Fault::new(Code::StoreDown, text)
        .hint("look whether the database answers; it goes on by itself")
}
