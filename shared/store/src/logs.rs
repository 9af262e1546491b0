//! Lines that ranks wrote to their standard error: best effort, bounded for each owner.

use std::collections::BTreeSet;

use pomona_domain::Timestamp;
use pomona_migrations::tables::LogLines;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};

use crate::rows::{signed, unsigned};
use crate::{PageRequest, Store, StoreError, ingest};

/// Lines that are kept for each owner; the oldest go first.
pub const LOG_LINES_PER_OWNER: u64 = 10_000;
/// Bytes of a line that are kept.
pub const LOG_LINE_BYTES: usize = 4096;
/// Lines in one statement.
const LINES_PER_STATEMENT: usize = 1000;

/// A line to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLogRow {
    /// `tri_…` or `tsk_…`.
    pub owner: String,
    /// Rank.
    pub rank: u32,
    /// When.
    pub at: Timestamp,
    /// The line; what is over [`LOG_LINE_BYTES`] is cut off.
    pub line: String,
}

/// A line that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Grows over all owners: ask for what comes after it.
    pub seq: u64,
    /// Rank.
    pub rank: u32,
    /// When.
    pub at: Timestamp,
    /// The line.
    pub line: String,
}

impl Store {
    /// Writes lines, in their order.
    pub async fn log_append(&self, lines: &[NewLogRow]) -> Result<(), StoreError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut inserts = Vec::new();
        for chunk in lines.chunks(LINES_PER_STATEMENT) {
            let mut insert = Query::insert();
            insert.into_table(LogLines::Table).columns([
                LogLines::Owner,
                LogLines::Rank,
                LogLines::At,
                LogLines::Line,
            ]);
            for line in chunk {
                let text = &line.line[..line.line.floor_char_boundary(LOG_LINE_BYTES)];
                // PostgreSQL has no text with a zero in it.
                let text = text.replace('\0', "\u{fffd}");
                insert.values_panic([
                    line.owner.as_str().into(),
                    i64::from(line.rank).into(),
                    line.at.0.into(),
                    text.into(),
                ]);
            }
            inserts.push(insert);
        }
        let owners: BTreeSet<&str> = lines.iter().map(|line| line.owner.as_str()).collect();
        ingest!(self, tx => {
            for insert in &inserts {
                tx.execute(insert).await?;
            }
            for owner in &owners {
                trim(tx, owner).await?;
            }
            Ok(())
        })
    }

    /// An owner's lines after a number, oldest first. 0 is before the first.
    pub async fn log_list(
        &self,
        owner: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let limit = PageRequest::first(limit).limit()?;
        let query = Query::select()
            .columns([LogLines::Seq, LogLines::Rank, LogLines::At, LogLines::Line])
            .from(LogLines::Table)
            .and_where(Expr::col(LogLines::Owner).eq(owner))
            .and_where(Expr::col(LogLines::Seq).gt(signed(after)))
            .order_by(LogLines::Seq, Order::Asc)
            .limit(limit)
            .to_owned();
        let mut lines = Vec::new();
        for row in self.readers.query_all(&query).await? {
            lines.push(LogRow {
                seq: unsigned(row.try_get_by_index(0)?),
                rank: u32::try_from(row.try_get_by_index::<i64>(1)?).unwrap_or(u32::MAX),
                at: Timestamp(row.try_get_by_index(2)?),
                line: row.try_get_by_index(3)?,
            });
        }
        Ok(lines)
    }
}

/// Drops what is beyond an owner's share.
async fn trim(tx: &sea_orm::DatabaseTransaction, owner: &str) -> Result<(), StoreError> {
    let newest_beyond = Query::select()
        .column(LogLines::Seq)
        .from(LogLines::Table)
        .and_where(Expr::col(LogLines::Owner).eq(owner))
        .order_by(LogLines::Seq, Order::Desc)
        .offset(LOG_LINES_PER_OWNER)
        .limit(1)
        .to_owned();
    let Some(row) = tx.query_one(&newest_beyond).await? else {
        return Ok(());
    };
    let seq: i64 = row.try_get_by_index(0)?;
    let mut drop = Query::delete();
    drop.from_table(LogLines::Table)
        .and_where(Expr::col(LogLines::Owner).eq(owner))
        .and_where(Expr::col(LogLines::Seq).lte(seq));
    tx.execute(&drop).await?;
    Ok(())
}
