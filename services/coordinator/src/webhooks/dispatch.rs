//! The task that delivers, on the coordinator that leads.
//!
//! It remembers nothing but what it is attempting now: what waits is in the store, so that another
//! coordinator, or this one after a restart, goes on where it was, under the same ids. What it
//! attempts when it is deposed is attempted again by the next one: at least once.

use actix_web::web::Data;
use pomona_domain::hook::HookStatus;
use pomona_domain::{DeliveryId, Fault, Timestamp};
use pomona_store::{Due, HookChange, StoreError};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

use super::backoff::{Result as Outcome, Retries};
use super::payload;
use super::send::Message;
use crate::http::App;

/// Deliveries to one webhook at a time; one whose receiver is slow takes no other's turn.
const AT_ONCE: u64 = 4;
/// Deliveries at a time.
const ALL_AT_ONCE: usize = 64;
/// How often the store is asked when nothing rings: other coordinators write to it, too.
const LOOK: Duration = Duration::from_millis(500);
/// How often the oldest event that waits is looked for.
const MEASURE: Duration = Duration::from_secs(2);
/// Pause after the store could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);

/// Delivers for ever, while this coordinator leads.
pub async fn run(app: Data<App>) {
    loop {
        if app.engine.role().borrow().leads() {
            let mut dispatcher = Dispatcher {
                app: app.clone(),
                busy: BTreeSet::new(),
                attempts: JoinSet::new(),
                measured: None,
            };
            dispatcher.lead().await;
            app.metrics.outbox_oldest.set(0.0);
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Dispatcher {
    app: Data<App>,
    /// What is being attempted.
    busy: BTreeSet<DeliveryId>,
    attempts: JoinSet<DeliveryId>,
    measured: Option<Instant>,
}

impl Dispatcher {
    async fn lead(&mut self) {
        let mut troubled = false;
        while self.app.engine.role().borrow().leads() {
            let next = match self.round().await {
                Ok(next) => {
                    troubled = false;
                    next
                }
                Err(error) => {
                    if !std::mem::replace(&mut troubled, true) {
                        let fault = Fault::from(error);
                        tracing::warn!(code = %fault.code, "webhooks wait: {fault}");
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let until = next.map_or(LOOK, |at| {
                let ms = at.since_ms(self.app.now()).max(1);
                LOOK.min(Duration::from_millis(ms.unsigned_abs()))
            });
            tokio::select! {
                Some(ended) = self.attempts.join_next() => self.ended(ended),
                () = self.app.bus.told.notified() => {}
                () = tokio::time::sleep(until) => {}
            }
            while let Some(ended) = self.attempts.try_join_next() {
                self.ended(ended);
            }
        }
    }

    fn ended(&mut self, ended: Result<DeliveryId, tokio::task::JoinError>) {
        match ended {
            Ok(id) => {
                self.busy.remove(&id);
            }
            // Which one it was is not known: all that is attempted now may be attempted once more.
            Err(error) => {
                tracing::error!("an attempt of a delivery broke: {error}");
                self.attempts.abort_all();
                self.attempts = JoinSet::new();
                self.busy.clear();
            }
        }
    }

    /// Notes what happened and begins what is due; says when more is.
    async fn round(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let app = &self.app;
        while app.store.outbox_waits().await? {
            let noted = app.store.outbox_note(app.now()).await?;
            app.metrics
                .deliveries
                .with_label_values(&["dropped"])
                .inc_by(noted.dropped);
            if noted.dropped > 0 {
                tracing::warn!(
                    count = noted.dropped,
                    "too many deliveries wait: some are dropped"
                );
            }
        }
        if self.measured.is_none_or(|at| at.elapsed() >= MEASURE) {
            self.measured = Some(Instant::now());
            let oldest = app.store.outbox_oldest().await?;
            let age = oldest.map_or(0, |at| app.now().since_ms(at).max(0));
            app.metrics.outbox_oldest.set(age as f64 / 1000.0);
        }
        if self.busy.len() >= ALL_AT_ONCE {
            return Ok(None);
        }
        let (due, next) = app
            .store
            .deliveries_due(app.now(), AT_ONCE, &self.busy)
            .await?;
        for one in due.into_iter().take(ALL_AT_ONCE - self.busy.len()) {
            let id = one.delivery.id;
            if self.busy.insert(id) {
                let app = self.app.clone();
                self.attempts.spawn(async move {
                    attempt(&app, one).await;
                    id
                });
            }
        }
        Ok(next)
    }
}

/// One attempt, and what becomes of the delivery.
async fn attempt(app: &App, due: Due) {
    let delivery = &due.delivery;
    let answer = match &due.doc {
        Some(doc) => {
            app.hooks
                .post(&due.url, message(&due, doc, app.now()))
                .await
        }
        None => Err("what happened is not kept any more".to_owned()),
    };
    let mut retries = retries(app);
    if due.doc.is_none() {
        retries.attempts = 0;
    }
    let (outcome, settled) = retries.settle(
        delivery.attempts.saturating_add(1),
        &answer,
        app.now(),
        rand::random(),
    );
    say(&due, outcome, settled.error.as_deref());
    let kept = async {
        if outcome == Outcome::Gone {
            let disable = HookChange {
                status: Some(HookStatus::Disabled),
                ..HookChange::default()
            };
            // It may be deleted meanwhile.
            let _ = app
                .store
                .hook_update(delivery.hook, &disable, app.now())
                .await?;
        }
        app.store
            .delivery_settle(delivery, &settled, app.now())
            .await
    };
    match kept.await {
        Ok(true) => app
            .metrics
            .deliveries
            .with_label_values(&[outcome.as_str()])
            .inc(),
        // A replay came between: it is attempted again.
        Ok(false) => {}
        Err(error) => {
            let fault = Fault::from(error);
            tracing::warn!(code = %fault.code, delivery.id = %delivery.id,
                "what became of a delivery cannot be written, so it is made again: {fault}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What is sent, signed for this moment.
fn message(due: &Due, doc: &str, now: Timestamp) -> Message {
    let delivery = &due.delivery;
    let id = delivery.id.to_string();
    let event = (id.as_str(), delivery.topic.as_str(), delivery.created_at);
    payload::message(due.flavour, &due.secret, event, doc, now)
}

fn retries(app: &App) -> Retries {
    let section = &app.config.webhooks;
    Retries {
        base_ms: section.backoff_base_ms,
        max_ms: section.backoff_max_ms,
        attempts: section.max_attempts,
    }
}

/// A receiver's address may hold a token: it is named by its webhook.
fn say(due: &Due, outcome: Outcome, why: Option<&str>) {
    let (hook, id) = (due.delivery.hook, due.delivery.id);
    let why = why.unwrap_or_default();
    match outcome {
        Outcome::Delivered => tracing::debug!(hook.id = %hook, delivery.id = %id, "delivered"),
        Outcome::Retried => {
            tracing::info!(hook.id = %hook, delivery.id = %id, "a delivery is made again later: {why}");
        }
        Outcome::GivenUp => {
            tracing::warn!(hook.id = %hook, delivery.id = %id, "a delivery is given up: {why}");
        }
        Outcome::Gone => {
            tracing::warn!(hook.id = %hook, delivery.id = %id, "a webhook is disabled: {why}");
        }
    }
}
