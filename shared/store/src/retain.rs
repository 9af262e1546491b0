//! What is forgotten with time.

use pomona_domain::Timestamp;
use pomona_migrations::tables::{IdempotencyKeys, LogLines, Outbox, Reasons, WebhookDeliveries};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};

use crate::{Store, StoreError, hooks, ingest};

/// Explanations that are kept for each subject; the oldest go first.
pub const REASONS_PER_SUBJECT: u64 = 1000;
/// Subjects that are trimmed in one call; the rest comes in the next.
const SUBJECTS_PER_CALL: u64 = 1000;

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Log lines.
    pub logs_ms: i64,
    /// Answers to keyed requests.
    pub idempotency_ms: i64,
    /// What was or could have been told to the outside, and the log of it. What an active webhook is
    /// still to be told is kept for twice as long.
    pub outbox_ms: i64,
}

impl Default for Retention {
    /// Logs and the outbox 30 days, answers 1 day.
    fn default() -> Self {
        const DAY_MS: i64 = 86_400_000;
        Self {
            logs_ms: 30 * DAY_MS,
            idempotency_ms: DAY_MS,
            outbox_ms: 30 * DAY_MS,
        }
    }
}

impl Store {
    /// Forgets what is older than `retention`, and explanations beyond
    /// [`REASONS_PER_SUBJECT`]. To be called now and then.
    pub async fn retain(&self, now: Timestamp, retention: &Retention) -> Result<(), StoreError> {
        let before = |ms: i64| now.plus_ms(ms.saturating_neg()).0;
        let old = [
            Query::delete()
                .from_table(LogLines::Table)
                .and_where(Expr::col(LogLines::At).lt(before(retention.logs_ms)))
                .to_owned(),
            Query::delete()
                .from_table(IdempotencyKeys::Table)
                .and_where(Expr::col(IdempotencyKeys::At).lt(before(retention.idempotency_ms)))
                .to_owned(),
            hooks::forget(
                Timestamp(before(retention.outbox_ms)),
                Timestamp(before(retention.outbox_ms.saturating_mul(2))),
            ),
            Query::delete()
                .from_table(Outbox::Table)
                .and_where(Expr::col(Outbox::At).lt(before(retention.outbox_ms)))
                .and_where(Expr::col(Outbox::Seq).not_in_subquery(on_their_way()))
                .to_owned(),
        ];
        let crowded = Query::select()
            .column(Reasons::Subject)
            .from(Reasons::Table)
            .group_by_col(Reasons::Subject)
            .and_having(
                Expr::col(Reasons::Seq)
                    .count()
                    .gt(REASONS_PER_SUBJECT as i64),
            )
            .limit(SUBJECTS_PER_CALL)
            .to_owned();
        ingest!(self, tx => {
            // What nobody has noted yet may be for somebody.
            hooks::note_all(tx, now).await?;
            for delete in &old {
                tx.execute(delete).await?;
            }
            hooks::trim(tx).await?;
            for row in tx.query_all(&crowded).await? {
                let subject: String = row.try_get_by_index(0)?;
                trim_reasons(tx, &subject).await?;
            }
            Ok(())
        })
    }
}

/// Events that a delivery is of.
fn on_their_way() -> SelectStatement {
    Query::select()
        .column(WebhookDeliveries::Event)
        .from(WebhookDeliveries::Table)
        .to_owned()
}

async fn trim_reasons(tx: &sea_orm::DatabaseTransaction, subject: &str) -> Result<(), StoreError> {
    let newest_beyond = Query::select()
        .column(Reasons::Seq)
        .from(Reasons::Table)
        .and_where(Expr::col(Reasons::Subject).eq(subject))
        .order_by(Reasons::Seq, Order::Desc)
        .offset(REASONS_PER_SUBJECT)
        .limit(1)
        .to_owned();
    if let Some(row) = tx.query_one(&newest_beyond).await? {
        let seq: i64 = row.try_get_by_index(0)?;
        let mut drop = Query::delete();
        drop.from_table(Reasons::Table)
            .and_where(Expr::col(Reasons::Subject).eq(subject))
            .and_where(Expr::col(Reasons::Seq).lte(seq));
        tx.execute(&drop).await?;
    }
    Ok(())
}
