//! What the agent says to the coordinator: who it is, what it produced, and what it does when
//! nobody answers.

use pomona_api::PROTOCOL;
use pomona_api::v1::features::PROCESSOR;
use pomona_api::v1::workers::{Desired, MAX_REPORTS_PER_POLL, Poll, Register, Report};
use pomona_domain::error::Blame;
use pomona_domain::{Code, Fault};
use std::time::{Duration, Instant};
use tokio::sync::watch;

use super::{Agent, is_passing};
use crate::slots::processor;
use crate::spool::SpoolError;

/// Wait after the first poll that failed; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Bytes of reports in one poll: well under what a coordinator takes.
const MAX_BATCH_BYTES: usize = 10 << 20;
/// Log lines are gathered this long before they interrupt a poll that waits.
const GATHER: Duration = Duration::from_millis(250);
/// What a process of before left behind is delivered for at most this long.
const DELIVERY: Duration = Duration::from_secs(10);
/// A call beside the poll may take this long when the worker stops.
const ASIDE: Duration = Duration::from_secs(2);
/// How long a poll waits until the coordinator says better.
const POLL_WAIT: Duration = Duration::from_secs(5);

/// How the next poll is made.
#[derive(Debug)]
pub(super) struct Manners {
    wait: Duration,
    pause: Duration,
    batch: usize,
    /// Whether the last poll was answered.
    answered: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            wait: POLL_WAIT,
            pause: PAUSE,
            batch: MAX_REPORTS_PER_POLL,
            answered: false,
        }
    }
}

impl Manners {
    /// The next pause, with a third of chance in it so that workers do not come back as one.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(0.67 + 0.33 * rand::random::<f64>())
    }
}

/// Whether the same words may be taken another time.
fn is_worth_asking_again(code: Code) -> bool {
    is_passing(code) || code.blame() == Blame::Ours
}

impl Agent {
    /// Delivers what an earlier process left, then registers as this one.
    pub(super) async fn introduce(&mut self) -> Result<(), Fault> {
        if let Some(before) = self.data.last_incarnation()?
            && !self.yard.tools.spool.is_empty()
        {
            self.deliver_as(before).await?;
        }
        self.register().await?;
        // Leases of before ended with the registration: nothing of them counts any more.
        let spool = &self.yard.tools.spool;
        let renounced = spool.forget(None).and_then(|()| spool.renounce());
        renounced.map_err(|error| error.fault())?;
        self.yard.tools.outbox.sweep(spool);
        Ok(())
    }

    /// Polls as an earlier incarnation until its reports are counted, the coordinator refuses, or
    /// it has taken long enough.
    async fn deliver_as(&mut self, incarnation: u64) -> Result<(), Fault> {
        tracing::info!("what the process before left is delivered first");
        let mut by: Option<Instant> = None;
        while !self.yard.tools.spool.is_empty() && by.is_none_or(|by| Instant::now() < by) {
            let mut changed = self.yard.tools.spool.subscribe();
            self.seal().await?;
            let body = self.body(incarnation, self.batch(), Duration::ZERO);
            if by.is_some() && body.reports.is_empty() {
                // The rest waits for its upload.
                let _ = tokio::time::timeout(GATHER, changed.changed()).await;
                continue;
            }
            match self.yard.client.worker_poll(self.id, &body).await {
                Ok(answer) => {
                    by = by.or(Some(Instant::now() + DELIVERY));
                    let acked = self.yard.tools.spool.ack(answer.acked_seq);
                    acked.map_err(|error| error.fault())?;
                }
                Err(fault) if is_worth_asking_again(fault.code) => self.rest(&fault).await,
                Err(fault) => {
                    tracing::info!(code = %fault.code, "it does not count any more: {fault}");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Registers, however long the coordinator is away. An error is final.
    pub(super) async fn register(&mut self) -> Result<(), Fault> {
        let config = &self.yard.config;
        let mut labels = config.labels()?;
        labels.insert(PROCESSOR.to_owned(), processor());
        let body = Register {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id,
            name: config.name(),
            incarnation: self.incarnation,
            slots: self.yard.tools.slots.list.clone(),
            labels,
            metrics_address: self.metrics_address.clone(),
            feature_budget_bytes: Some(self.yard.features.max_bytes()),
        };
        loop {
            match self.yard.client.worker_register(&body).await {
                Ok(registered) => {
                    self.manners.wait = Duration::from_millis(registered.poll_wait_ms);
                    self.data.remember_incarnation(self.incarnation)?;
                    // A coordinator that has counted more than we remember goes before.
                    let acked = self.yard.tools.spool.ack(registered.worker.acked_seq);
                    acked.map_err(|error| error.fault())?;
                    tracing::info!(
                        worker.id = %self.id,
                        name = body.name,
                        slots = body.slots.len(),
                        "registered at {}",
                        self.yard.client.server()
                    );
                    self.heard();
                    return Ok(());
                }
                Err(fault) if is_worth_asking_again(fault.code) => self.rest(&fault).await,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Gives everything that is ready its number.
    async fn seal(&self) -> Result<(), Fault> {
        let sealed = self.yard.tools.spool.seal().await;
        sealed.map_err(|error: SpoolError| error.fault())
    }

    /// The oldest reports, as many as fit into a poll.
    fn batch(&self) -> Vec<Report> {
        let mut reports = self.yard.tools.spool.batch(self.manners.batch);
        let mut bytes = 0;
        let fit = reports.iter().take_while(|report| {
            bytes += serde_json::to_vec(report).map_or(0, |text| text.len());
            bytes <= MAX_BATCH_BYTES
        });
        let fit = fit.count().max(1);
        reports.truncate(fit);
        reports
    }

    fn body(&self, incarnation: u64, reports: Vec<Report>, wait: Duration) -> Poll {
        Poll {
            protocol: PROTOCOL,
            incarnation,
            running: self.running(),
            reports,
            logs: Vec::new(),
            features: None,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// One poll. `None` when it was taken back because something is to be said or done.
    pub(super) async fn poll(
        &mut self,
        stop: &mut watch::Receiver<u32>,
    ) -> Result<Option<Desired>, Fault> {
        let spool = self.yard.tools.spool.clone();
        let logs = std::sync::Arc::clone(&self.yard.tools.logs);
        let mut changed = spool.subscribe();
        self.seal().await?;
        let mut body = self.body(self.incarnation, self.batch(), self.manners.wait);
        body.logs = logs.take();
        body.features = self.yard.features.news();
        if !body.reports.is_empty() || !body.logs.is_empty() || body.features.is_some() {
            body.wait_ms = 0;
            let answer = self.yard.client.worker_poll(self.id, &body).await;
            if answer.is_err() {
                logs.put_back(body.logs);
                self.yard.features.forget_telling();
            }
            return answer.map(Some);
        }
        let mut call = std::pin::pin!(self.yard.client.worker_poll(self.id, &body));
        let gathered = async {
            logs.arrived().await;
            tokio::time::sleep(GATHER).await;
        };
        let mut gathered = std::pin::pin!(gathered);
        loop {
            tokio::select! {
                answer = &mut call => return answer.map(Some),
                _ = changed.changed() => {
                    self.seal().await?;
                    if !spool.batch(1).is_empty() {
                        return Ok(None);
                    }
                }
                () = &mut gathered => return Ok(None),
                () = self.yard.over.notified() => return Ok(None),
                asked = stop.changed() => if asked.is_ok() { return Ok(None) },
            }
        }
    }

    /// A poll was answered.
    pub(super) fn heard(&mut self) {
        if !std::mem::replace(&mut self.manners.answered, true) {
            tracing::debug!("the coordinator answers");
        }
        self.manners.pause = PAUSE;
        self.manners.batch = MAX_REPORTS_PER_POLL;
        self.yard.tools.metrics.connected.set(1);
    }

    /// What a refused poll means. An error is final.
    pub(super) async fn cope(
        &mut self,
        fault: Fault,
        stop: &mut watch::Receiver<u32>,
    ) -> Result<(), Fault> {
        if fault.code == Code::UnknownWorker {
            tracing::info!("the coordinator does not know this worker: it registers again");
            return self.register().await;
        }
        if fault.code == Code::VersionMismatch {
            return Err(fault);
        }
        if fault.code == Code::TooLarge {
            self.manners.batch = (self.manners.batch / 2).max(1);
        }
        tokio::select! {
            () = self.rest(&fault) => {}
            _ = stop.changed() => {}
        }
        Ok(())
    }

    /// Waits after a failure; the first one in a row is told.
    async fn rest(&mut self, fault: &Fault) {
        self.yard.tools.metrics.connected.set(0);
        if std::mem::replace(&mut self.manners.answered, false) || self.manners.pause == PAUSE {
            tracing::warn!(code = %fault.code, "no answer, training goes on: {fault}");
        } else {
            tracing::debug!(code = %fault.code, "still no answer: {fault}");
        }
        let pause = self.manners.next_pause();
        tokio::time::sleep(pause).await;
    }

    /// Asks for no new work. Best effort: a lease that is granted all the same is not started.
    pub(super) async fn drain(&self) {
        let id = self.id.to_string();
        match tokio::time::timeout(ASIDE, self.yard.client.worker_drain(&id, None)).await {
            Ok(Ok(_)) => {}
            Ok(Err(fault)) => tracing::debug!("the coordinator was not told: {fault}"),
            Err(_) => tracing::debug!("the coordinator was not told in time"),
        }
    }
}
