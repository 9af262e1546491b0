//! From the outbox to deliveries: for each event, the webhooks that are told of it.
//!
//! An event is noted once, whoever does it and however many at once: its row says so in the
//! transaction that writes its deliveries. It must never read the outbox by "after number n":
//! numbers are given out before transactions commit, and one that commits late would be passed over.

use std::collections::BTreeMap;

use pomona_domain::hook::{DeliveryState, HookStatus};
use pomona_domain::{DeliveryId, HookId, Timestamp};
use pomona_migrations::tables::{Outbox, WebhookDeliveries as Rows, Webhooks as Hooks};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Order, Query, UpdateStatement, Value};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use crate::commit::{OnRepeat, insert};
use crate::rows::{decode, parsed, signed, unsigned};
use crate::{Store, StoreError, ingest};

/// Deliveries that wait for one webhook; what happens beyond is noted as dropped.
pub const MAX_PENDING: u64 = 10_000;
/// Events of one round.
const EVENTS_AT_ONCE: u64 = 500;
/// Rounds of one transaction.
const ROUNDS: usize = 100;

/// What was noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted {
    /// Events.
    pub events: u64,
    /// Deliveries that are on their way now.
    pub pending: u64,
    /// Deliveries that are not, because too many are.
    pub dropped: u64,
}

/// An event as it is noted.
pub(super) struct Event {
    pub seq: u64,
    pub topic: String,
    pub subject: String,
    pub at: Timestamp,
}

impl Store {
    /// Notes some of what was committed and is not noted yet, for every webhook that is told of it:
    /// ask [`Store::outbox_waits`] whether there is more.
    pub async fn outbox_note(&self, now: Timestamp) -> Result<Noted, StoreError> {
        ingest!(self, tx => {
            let mut noted = Noted::default();
            some(tx, now, &mut noted).await?;
            Ok(noted)
        })
    }

    /// Whether something waits to be noted. It costs no writer its turn.
    pub async fn outbox_waits(&self) -> Result<bool, StoreError> {
        let query = Query::select()
            .expr(Expr::val(1))
            .from(Outbox::Table)
            .and_where(Expr::col(Outbox::Noted).eq(false))
            .limit(1)
            .to_owned();
        Ok(self.readers.query_one(&query).await?.is_some())
    }
}

/// Notes all there is. Its first statement writes.
pub(crate) async fn all(tx: &DatabaseTransaction, now: Timestamp) -> Result<Noted, StoreError> {
    let mut noted = Noted::default();
    for _ in 0..ROUNDS {
        if !some(tx, now, &mut noted).await? {
            break;
        }
    }
    Ok(noted)
}

/// Notes some; says whether there was anything.
async fn some(
    tx: &DatabaseTransaction,
    now: Timestamp,
    noted: &mut Noted,
) -> Result<bool, StoreError> {
    let events = claim(tx).await?;
    noted.events += events.len() as u64;
    write(tx, &events, now, noted).await?;
    Ok(!events.is_empty())
}

fn claims() -> UpdateStatement {
    let oldest = Query::select()
        .column(Outbox::Seq)
        .from(Outbox::Table)
        .and_where(Expr::col(Outbox::Noted).eq(false))
        .order_by(Outbox::Seq, Order::Asc)
        .limit(EVENTS_AT_ONCE)
        .to_owned();
    let columns = [Outbox::Seq, Outbox::Topic, Outbox::Subject, Outbox::At];
    let mut claim = Query::update();
    claim
        .table(Outbox::Table)
        .value(Outbox::Noted, true)
        // Twice: who waited for another one's claim looks at the row again, not at the list.
        .and_where(Expr::col(Outbox::Noted).eq(false))
        .and_where(Expr::col(Outbox::Seq).in_subquery(oldest))
        .returning(Query::returning().columns(columns));
    claim
}

async fn claim(tx: &DatabaseTransaction) -> Result<Vec<Event>, StoreError> {
    let mut events = Vec::new();
    for row in tx.query_all(&claims()).await? {
        events.push(Event {
            seq: unsigned(row.try_get_by_index(0)?),
            topic: row.try_get_by_index(1)?,
            subject: row.try_get_by_index(2)?,
            at: Timestamp(row.try_get_by_index(3)?),
        });
    }
    events.sort_by_key(|event| event.seq);
    Ok(events)
}

/// Webhooks that are told something, and what.
async fn listeners(tx: &DatabaseTransaction) -> Result<Vec<(HookId, Vec<String>)>, StoreError> {
    let query = Query::select()
        .columns([Hooks::Id, Hooks::Events])
        .from(Hooks::Table)
        .and_where(Expr::col(Hooks::Status).eq(HookStatus::Active.as_str()))
        .order_by(Hooks::Id, Order::Asc)
        .to_owned();
    let mut listeners = Vec::new();
    for row in tx.query_all(&query).await? {
        let id: String = row.try_get_by_index(0)?;
        let events: String = row.try_get_by_index(1)?;
        listeners.push((parsed(&id)?, decode("webhooks", &events)?));
    }
    Ok(listeners)
}

/// How many deliveries wait for each webhook.
pub(super) async fn waiting(tx: &DatabaseTransaction) -> Result<BTreeMap<HookId, u64>, StoreError> {
    let query = Query::select()
        .column(Rows::Hook)
        .expr(Expr::col(Rows::Id).count())
        .from(Rows::Table)
        .and_where(Expr::col(Rows::State).eq(DeliveryState::Pending.as_str()))
        .group_by_col(Rows::Hook)
        .to_owned();
    let mut waiting = BTreeMap::new();
    for row in tx.query_all(&query).await? {
        let id: String = row.try_get_by_index(0)?;
        waiting.insert(parsed(&id)?, unsigned(row.try_get_by_index(1)?));
    }
    Ok(waiting)
}

async fn write(
    tx: &DatabaseTransaction,
    events: &[Event],
    now: Timestamp,
    noted: &mut Noted,
) -> Result<(), StoreError> {
    let listeners = if events.is_empty() {
        Vec::new()
    } else {
        listeners(tx).await?
    };
    if listeners.is_empty() {
        return Ok(());
    }
    let mut waiting = waiting(tx).await?;
    let mut rows = Vec::new();
    for event in events {
        for (hook, topics) in &listeners {
            if !topics.contains(&event.topic) {
                continue;
            }
            let count = waiting.entry(*hook).or_default();
            let fits = *count < MAX_PENDING;
            if fits {
                *count += 1;
                noted.pending += 1;
            } else {
                noted.dropped += 1;
            }
            rows.push(row(*hook, event, now, fits));
        }
    }
    insert_rows(tx, rows).await.map(|_| ())
}

/// A delivery's row.
pub(super) fn row(hook: HookId, event: &Event, now: Timestamp, fits: bool) -> Vec<Value> {
    let state = if fits {
        DeliveryState::Pending
    } else {
        DeliveryState::Dropped
    };
    let error = (!fits).then(|| format!("{MAX_PENDING} deliveries waited already"));
    vec![
        DeliveryId::of(hook, event.seq).to_string().into(),
        hook.to_string().into(),
        signed(event.seq).into(),
        event.topic.as_str().into(),
        event.subject.as_str().into(),
        state.as_str().into(),
        0_i64.into(),
        now.0.into(),
        event.at.0.into(),
        error.into(),
    ]
}

/// Writes deliveries; one that is there already stays as it is.
pub(super) async fn insert_rows(
    tx: &DatabaseTransaction,
    rows: Vec<Vec<Value>>,
) -> Result<u64, StoreError> {
    let columns = [
        Rows::Id,
        Rows::Hook,
        Rows::Event,
        Rows::Topic,
        Rows::Subject,
        Rows::State,
        Rows::Attempts,
        Rows::NextAt,
        Rows::CreatedAt,
        Rows::LastError,
    ]
    .map(IntoIden::into_iden);
    insert(tx, Rows::Table.into_iden(), &columns, rows, &OnRepeat::Skip).await
}
