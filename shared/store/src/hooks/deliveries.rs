//! Deliveries: events on their way to webhooks, and the log of what became of them.
//!
//! Of one subject a webhook is told in the events' order: the later event waits until the earlier
//! one was taken or given up ([`Store::deliveries_due`] gives only the first of each). Other subjects
//! do not wait. A result counts only for the attempt that it is of.

use std::collections::BTreeSet;

use pomona_domain::hook::{Delivery, DeliveryState, Flavour, HookStatus};
use pomona_domain::{DeliveryId, HookId, Timestamp};
use pomona_migrations::tables::{Outbox, WebhookDeliveries as Rows, Webhooks as Hooks};
use sea_orm::sea_query::{
    Alias, Cond, DeleteStatement, Expr, ExprTrait as _, Func, JoinType, Order, Query,
    SelectStatement,
};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, QueryResult};

use super::note::{self, Event};
use super::{MAX_PENDING, Secret};
use crate::rows::{parsed, signed, unsigned};
use crate::{Page, PageRequest, Store, StoreError, ingest};

/// Deliveries of a webhook that are kept when nothing waits any more; the oldest go first.
pub const MAX_DELIVERIES: u64 = 10_000;
/// Events that one replay looks at in one statement.
const REPLAYED_AT_ONCE: u64 = 1000;

/// A delivery that is to be attempted, and all that this takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// It.
    pub delivery: Delivery,
    /// Where to.
    pub url: String,
    /// In whose words.
    pub flavour: Flavour,
    /// What signs; empty when nothing does.
    pub secret: Secret,
    /// The fact as JSON; nothing when it was forgotten.
    pub doc: Option<String>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What the delivery is now.
    pub state: DeliveryState,
    /// When the next attempt may begin.
    pub next_at: Timestamp,
    /// The answer's status, if one came.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
}

const COLUMNS: [Rows; 12] = [
    Rows::Id,
    Rows::Hook,
    Rows::Event,
    Rows::Topic,
    Rows::Subject,
    Rows::State,
    Rows::Attempts,
    Rows::NextAt,
    Rows::LastStatus,
    Rows::LastError,
    Rows::CreatedAt,
    Rows::AttemptedAt,
];

fn of(hook: HookId) -> SelectStatement {
    let mut query = Query::select();
    query
        .columns(COLUMNS.map(|column| (Rows::Table, column)))
        .from(Rows::Table)
        .and_where(Expr::col((Rows::Table, Rows::Hook)).eq(hook.to_string()));
    query
}

fn delivery(row: &QueryResult) -> Result<Delivery, StoreError> {
    let text = |at: usize| row.try_get_by_index::<String>(at);
    let status: Option<i64> = row.try_get_by_index(8)?;
    let attempted: Option<i64> = row.try_get_by_index(11)?;
    Ok(Delivery {
        id: parsed(&text(0)?)?,
        hook: parsed(&text(1)?)?,
        event: unsigned(row.try_get_by_index(2)?),
        topic: text(3)?,
        subject: text(4)?,
        state: parsed(&text(5)?)?,
        attempts: u32::try_from(row.try_get_by_index::<i64>(6)?).unwrap_or(u32::MAX),
        next_at: Timestamp(row.try_get_by_index(7)?),
        last_status: status.and_then(|status| u16::try_from(status).ok()),
        last_error: row.try_get_by_index(9)?,
        created_at: Timestamp(row.try_get_by_index(10)?),
        attempted_at: attempted.map(Timestamp),
    })
}

impl Store {
    /// What may be attempted now, at most `limit` for each webhook, and when the next one may.
    /// What is in `busy` is being attempted.
    pub async fn deliveries_due(
        &self,
        now: Timestamp,
        limit: u64,
        busy: &BTreeSet<DeliveryId>,
    ) -> Result<(Vec<Due>, Option<Timestamp>), StoreError> {
        let query = Query::select()
            .distinct()
            .column((Rows::Table, Rows::Hook))
            .from(Rows::Table)
            .inner_join(
                Hooks::Table,
                Expr::col((Hooks::Table, Hooks::Id)).equals((Rows::Table, Rows::Hook)),
            )
            .and_where(Expr::col((Rows::Table, Rows::State)).eq(DeliveryState::Pending.as_str()))
            .and_where(Expr::col((Hooks::Table, Hooks::Status)).eq(HookStatus::Active.as_str()))
            .to_owned();
        let (mut due, mut next) = (Vec::new(), None::<Timestamp>);
        for row in self.readers.query_all(&query).await? {
            let hook: HookId = parsed(&row.try_get_by_index::<String>(0)?)?;
            let mut room = limit;
            for head in self.heads(hook, limit + busy.len() as u64).await? {
                if busy.contains(&head.delivery.id) {
                    room = room.saturating_sub(1);
                } else if head.delivery.next_at > now {
                    let at = head.delivery.next_at;
                    next = Some(next.map_or(at, |next| next.min(at)));
                    break;
                } else if room > 0 {
                    room -= 1;
                    due.push(head);
                }
            }
        }
        Ok((due, next))
    }

    /// The first delivery of each subject that waits for a webhook, the earliest to begin first.
    async fn heads(&self, hook: HookId, limit: u64) -> Result<Vec<Due>, StoreError> {
        let (heads, first) = (Alias::new("heads"), Alias::new("first"));
        let firsts = Query::select()
            .expr_as(Func::min(Expr::col(Rows::Event)), first.clone())
            .from(Rows::Table)
            .and_where(Expr::col(Rows::State).eq(DeliveryState::Pending.as_str()))
            .and_where(Expr::col(Rows::Hook).eq(hook.to_string()))
            .group_by_col(Rows::Subject)
            .to_owned();
        let mut query = of(hook);
        query
            .columns([
                (Hooks::Table, Hooks::Url),
                (Hooks::Table, Hooks::Flavour),
                (Hooks::Table, Hooks::Secret),
            ])
            .column((Outbox::Table, Outbox::Doc))
            .join_subquery(
                JoinType::InnerJoin,
                firsts,
                heads.clone(),
                Expr::col((heads, first)).equals((Rows::Table, Rows::Event)),
            )
            .inner_join(
                Hooks::Table,
                Expr::col((Hooks::Table, Hooks::Id)).equals((Rows::Table, Rows::Hook)),
            )
            .left_join(
                Outbox::Table,
                Expr::col((Outbox::Table, Outbox::Seq)).equals((Rows::Table, Rows::Event)),
            )
            .order_by((Rows::Table, Rows::NextAt), Order::Asc)
            .order_by((Rows::Table, Rows::Event), Order::Asc)
            .limit(limit);
        let mut due = Vec::new();
        for row in self.readers.query_all(&query).await? {
            due.push(Due {
                delivery: delivery(&row)?,
                url: row.try_get_by_index(12)?,
                flavour: parsed(&row.try_get_by_index::<String>(13)?)?,
                secret: Secret(row.try_get_by_index(14)?),
                doc: row.try_get_by_index(15)?,
            });
        }
        Ok(due)
    }

    /// Writes what became of an attempt, unless another attempt or a replay came first; says whether
    /// it was written.
    pub async fn delivery_settle(
        &self,
        before: &Delivery,
        settled: &Settled,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut update = Query::update();
        update
            .table(Rows::Table)
            .value(Rows::State, settled.state.as_str())
            .value(Rows::Attempts, i64::from(before.attempts) + 1)
            .value(Rows::NextAt, settled.next_at.0)
            .value(Rows::LastStatus, settled.status.map(i64::from))
            .value(Rows::LastError, settled.error.clone())
            .value(Rows::AttemptedAt, now.0)
            .and_where(Expr::col(Rows::Id).eq(before.id.to_string()))
            .and_where(Expr::col(Rows::Attempts).eq(i64::from(before.attempts)))
            .and_where(Expr::col(Rows::State).eq(before.state.as_str()));
        ingest!(self, tx => Ok(tx.execute(&update).await?.rows_affected() == 1))
    }

    /// Deliveries to a webhook, the newest event first.
    pub async fn delivery_list(
        &self,
        hook: HookId,
        state: Option<DeliveryState>,
        page: &PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        let limit = page.limit()?;
        let mut query = of(hook);
        query.order_by(Rows::Event, Order::Desc).limit(limit + 1);
        if let Some(event) = page.token_step()? {
            query.and_where(Expr::col(Rows::Event).lt(event));
        }
        if let Some(state) = state {
            query.and_where(Expr::col(Rows::State).eq(state.as_str()));
        }
        let rows = self.readers.query_all(&query).await?;
        let rows: Vec<Delivery> = rows.iter().map(delivery).collect::<Result<_, _>>()?;
        Ok(Page::cut(rows, limit, |row| row.event.to_string()))
    }

    /// Sends an event once more, under its old id, from its first attempt on.
    pub async fn delivery_replay(
        &self,
        hook: HookId,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Option<Delivery>, StoreError> {
        let mut again = again(hook, now);
        again.and_where(Expr::col(Rows::Id).eq(id.to_string()));
        let mut query = of(hook);
        query.and_where(Expr::col((Rows::Table, Rows::Id)).eq(id.to_string()));
        ingest!(self, tx => {
            tx.execute(&again).await?;
            let row = tx.query_one(&query).await?;
            row.as_ref().map(delivery).transpose()
        })
    }

    /// Sends everything once more that happened from `since` on and is still kept, also what a
    /// webhook was not told because it was disabled; says how much. No more than [`MAX_PENDING`]
    /// wait then.
    pub async fn deliveries_replay(
        &self,
        hook: HookId,
        events: &[String],
        since: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        ingest!(self, tx => {
            note::all(tx, now).await?;
            let mut room = MAX_PENDING
                .saturating_sub(note::waiting(tx).await?.get(&hook).copied().unwrap_or(0));
            let (mut sent, mut after) = (0, -1_i64);
            while room > 0 {
                let some = happened(tx, events, since, after, Ord::min(room, REPLAYED_AT_ONCE)).await?;
                let Some(last) = some.last() else { break };
                after = signed(last.seq);
                let missing = some.iter().map(|event| note::row(hook, event, now, true));
                let new = note::insert_rows(tx, missing.collect()).await?;
                let mut again = again(hook, now);
                again
                    .and_where(Expr::col(Rows::State).ne(DeliveryState::Pending.as_str()))
                    .and_where(Expr::col(Rows::Event).is_in(some.iter().map(|e| signed(e.seq))));
                let old = tx.execute(&again).await?.rows_affected();
                sent += new + old;
                room = room.saturating_sub(new + old);
            }
            Ok(sent)
        })
    }

    /// How many deliveries of a webhook wait, and how many were given up or dropped.
    pub async fn delivery_counts(&self, hook: HookId) -> Result<(u64, u64), StoreError> {
        let query = Query::select()
            .column(Rows::State)
            .expr(Expr::col(Rows::Id).count())
            .from(Rows::Table)
            .and_where(Expr::col(Rows::Hook).eq(hook.to_string()))
            .group_by_col(Rows::State)
            .to_owned();
        let (mut waiting, mut failed) = (0, 0);
        for row in self.readers.query_all(&query).await? {
            let count = unsigned(row.try_get_by_index(1)?);
            match parsed(&row.try_get_by_index::<String>(0)?)? {
                DeliveryState::Pending => waiting += count,
                DeliveryState::Failed | DeliveryState::Dropped => failed += count,
                DeliveryState::Delivered => {}
            }
        }
        Ok((waiting, failed))
    }

    /// When the oldest event happened that an active webhook is still to be told.
    pub async fn outbox_oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        let noted = Query::select()
            .expr(Func::min(Expr::col((Rows::Table, Rows::CreatedAt))))
            .from(Rows::Table)
            .inner_join(
                Hooks::Table,
                Expr::col((Hooks::Table, Hooks::Id)).equals((Rows::Table, Rows::Hook)),
            )
            .and_where(Expr::col((Rows::Table, Rows::State)).eq(DeliveryState::Pending.as_str()))
            .and_where(Expr::col((Hooks::Table, Hooks::Status)).eq(HookStatus::Active.as_str()))
            .to_owned();
        let waits = Query::select()
            .expr(Func::min(Expr::col(Outbox::At)))
            .from(Outbox::Table)
            .and_where(Expr::col(Outbox::Noted).eq(false))
            .to_owned();
        let mut oldest = None::<i64>;
        for query in [noted, waits] {
            if let Some(row) = self.readers.query_one(&query).await? {
                let at: Option<i64> = row.try_get_by_index(0)?;
                oldest = match (oldest, at) {
                    (Some(a), Some(b)) => Some(Ord::min(a, b)),
                    (a, b) => a.or(b),
                };
            }
        }
        Ok(oldest.map(Timestamp))
    }
}

/// The first attempt of deliveries lies ahead again.
fn again(hook: HookId, now: Timestamp) -> sea_orm::sea_query::UpdateStatement {
    let mut update = Query::update();
    update
        .table(Rows::Table)
        .value(Rows::State, DeliveryState::Pending.as_str())
        .value(Rows::Attempts, 0_i64)
        .value(Rows::NextAt, now.0)
        .and_where(Expr::col(Rows::Hook).eq(hook.to_string()));
    update
}

/// Events that happened from `since` on, by their numbers, after one.
async fn happened(
    tx: &DatabaseTransaction,
    events: &[String],
    since: Timestamp,
    after: i64,
    limit: u64,
) -> Result<Vec<Event>, StoreError> {
    let query = Query::select()
        .columns([Outbox::Seq, Outbox::Topic, Outbox::Subject, Outbox::At])
        .from(Outbox::Table)
        .and_where(Expr::col(Outbox::Noted).eq(true))
        .and_where(Expr::col(Outbox::At).gte(since.0))
        .and_where(Expr::col(Outbox::Seq).gt(after))
        .and_where(Expr::col(Outbox::Topic).is_in(events.iter().map(String::as_str)))
        .order_by(Outbox::Seq, Order::Asc)
        .limit(limit)
        .to_owned();
    let mut found = Vec::new();
    for row in tx.query_all(&query).await? {
        found.push(Event {
            seq: unsigned(row.try_get_by_index(0)?),
            topic: row.try_get_by_index(1)?,
            subject: row.try_get_by_index(2)?,
            at: Timestamp(row.try_get_by_index(3)?),
        });
    }
    Ok(found)
}

/// What of the log is older than `before`: all but what an active webhook is still to be told, and
/// that, too, once it is older than `long_before`.
pub(crate) fn forget(before: Timestamp, long_before: Timestamp) -> DeleteStatement {
    let active = Query::select()
        .column(Hooks::Id)
        .from(Hooks::Table)
        .and_where(Expr::col(Hooks::Status).eq(HookStatus::Active.as_str()))
        .to_owned();
    let settled = Cond::any()
        .add(Expr::col(Rows::State).ne(DeliveryState::Pending.as_str()))
        .add(Expr::col(Rows::Hook).not_in_subquery(active))
        .add(Expr::col(Rows::CreatedAt).lt(long_before.0));
    Query::delete()
        .from_table(Rows::Table)
        .and_where(Expr::col(Rows::CreatedAt).lt(before.0))
        .cond_where(settled)
        .to_owned()
}

/// Drops what is beyond a webhook's share of the log.
pub(crate) async fn trim(tx: &DatabaseTransaction) -> Result<(), StoreError> {
    let settled = || Expr::col(Rows::State).ne(DeliveryState::Pending.as_str());
    let crowded = Query::select()
        .column(Rows::Hook)
        .from(Rows::Table)
        .and_where(settled())
        .group_by_col(Rows::Hook)
        .and_having(Expr::col(Rows::Id).count().gt(signed(MAX_DELIVERIES)))
        .to_owned();
    for row in tx.query_all(&crowded).await? {
        let hook: String = row.try_get_by_index(0)?;
        let newest_beyond = Query::select()
            .column(Rows::Event)
            .from(Rows::Table)
            .and_where(Expr::col(Rows::Hook).eq(hook.as_str()))
            .and_where(settled())
            .order_by(Rows::Event, Order::Desc)
            .offset(MAX_DELIVERIES)
            .limit(1)
            .to_owned();
        if let Some(row) = tx.query_one(&newest_beyond).await? {
            let event: i64 = row.try_get_by_index(0)?;
            let mut drop = Query::delete();
            drop.from_table(Rows::Table)
                .and_where(Expr::col(Rows::Hook).eq(hook.as_str()))
                .and_where(settled())
                .and_where(Expr::col(Rows::Event).lte(event));
            tx.execute(&drop).await?;
        }
    }
    Ok(())
}
