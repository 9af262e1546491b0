//! Who decides: one row says which coordinator leads, by which generation, and until when.
//!
//! The generation fences: [`Store::commit`](crate::Store::commit) shows it, and one that is not the
//! row's writes nothing. The term only says when another may take over. It is measured by the
//! database's clock, so that clocks of coordinators need not agree.

use pomona_migrations::tables::Leader as Row;
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType, Query, SimpleExpr};
use sea_orm::{ConnectionTrait, DbBackend};
use std::time::Duration;

use crate::rows::{signed, unsigned};
use crate::{Store, StoreError, dialect, transaction};

/// Who would lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Names this coordinator over its restarts, and no other one.
    pub holder: String,
    /// Where other coordinators reach it.
    pub address: String,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its name over its restarts; empty when it did not say.
    pub holder: String,
    /// Where it is reached; empty when it did not say.
    pub address: String,
    /// How much of its term is left; `None` when it is over.
    pub left: Option<Duration>,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Election {
    /// It leads by this generation, which is greater than every one before.
    Leads(u64),
    /// Another one does.
    Follows(Leader),
}

impl Store {
    /// Whether other coordinators may use the same database.
    pub fn is_shared(&self) -> bool {
        self.writer.get_database_backend() == DbBackend::Postgres
    }

    /// Takes leadership from whoever has it, for ever: every earlier leader's commits are refused
    /// from now on. For a database that nobody else uses.
    pub async fn lead(&self) -> Result<u64, StoreError> {
        let mut take = Query::update();
        take.table(Row::Table)
            .value(Row::Generation, Expr::col(Row::Generation).add(1))
            .values([
                (Row::Holder, "".into()),
                (Row::Address, "".into()),
                (Row::Until, 0.into()),
            ])
            .and_where(Expr::col(Row::Id).eq(1));
        transaction!(self, tx => {
            tx.execute(&take).await?;
            let (generation, _) = row(tx, Wait::No).await?;
            Ok(generation)
        })
    }

    /// Takes leadership for `term`, if nobody else's term is running. Who led last leads again at
    /// once: its earlier process is gone.
    pub async fn stand(&self, me: &Candidate, term: Duration) -> Result<Election, StoreError> {
        let mut take = Query::update();
        take.table(Row::Table)
            .value(Row::Generation, Expr::col(Row::Generation).add(1))
            .values([
                (Row::Holder, me.holder.as_str().into()),
                (Row::Address, me.address.as_str().into()),
                (Row::Until, self.after(term)),
            ])
            .and_where(Expr::col(Row::Id).eq(1))
            .and_where(
                Expr::col(Row::Holder)
                    .eq(me.holder.as_str())
                    .or(Expr::col(Row::Until).lte(self.now())),
            );
        transaction!(self, tx => {
            if tx.execute(&take).await?.rows_affected() == 1 {
                let (generation, _) = row(tx, Wait::No).await?;
                Ok(Election::Leads(generation))
            } else {
                let row = self.read_leader(tx).await?;
                Ok(Election::Follows(row))
            }
        })
    }

    /// Begins the leader's term anew. [`StoreError::NotLeader`] when another one leads.
    pub async fn renew(&self, generation: u64, term: Duration) -> Result<(), StoreError> {
        self.move_end(generation, self.after(term)).await
    }

    /// Ends the leader's term: another may take over at once.
    pub async fn resign(&self, generation: u64) -> Result<(), StoreError> {
        self.move_end(generation, 0.into()).await
    }

    /// Who leads, or led last.
    pub async fn leader(&self) -> Result<Leader, StoreError> {
        self.read_leader(&self.readers).await
    }

    async fn move_end(&self, generation: u64, end: SimpleExpr) -> Result<(), StoreError> {
        let mut renew = Query::update();
        renew
            .table(Row::Table)
            .value(Row::Until, end)
            .and_where(Expr::col(Row::Id).eq(1))
            .and_where(Expr::col(Row::Generation).eq(signed(generation)));
        let renewed = self.writer.execute(&renew).await?.rows_affected();
        if renewed == 1 {
            Ok(())
        } else {
            Err(StoreError::NotLeader { generation })
        }
    }

    async fn read_leader(&self, conn: &impl ConnectionTrait) -> Result<Leader, StoreError> {
        let mut select = Query::select();
        select
            .columns([Row::Holder, Row::Address])
            .expr(Expr::col(Row::Until).sub(self.now()))
            .from(Row::Table)
            .and_where(Expr::col(Row::Id).eq(1));
        let row = conn.query_one(&select).await?;
        let row = row.ok_or(StoreError::NotMigrated)?;
        let left: i64 = row.try_get_by_index(2)?;
        let left = u64::try_from(left).ok().filter(|left| *left > 0);
        Ok(Leader {
            holder: row.try_get_by_index(0)?,
            address: row.try_get_by_index(1)?,
            left: left.map(Duration::from_millis),
        })
    }

    /// The database's clock, in milliseconds.
    fn now(&self) -> SimpleExpr {
        Expr::cust(dialect::clock_ms(self.writer.get_database_backend()))
    }

    fn after(&self, term: Duration) -> SimpleExpr {
        let term = i64::try_from(term.as_millis()).unwrap_or(i64::MAX);
        self.now().add(term)
    }
}

/// Whether a reader waits for commits that are under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    ForCommits,
}

/// The leader's generation and the id of the last batch.
pub(crate) async fn row(conn: &impl ConnectionTrait, wait: Wait) -> Result<(u64, u64), StoreError> {
    let mut select = Query::select();
    select
        .columns([Row::Generation, Row::Seq])
        .from(Row::Table)
        .and_where(Expr::col(Row::Id).eq(1));
    if wait == Wait::ForCommits {
        select.lock(LockType::Update);
    }
    let row = conn
        .query_one(&select)
        .await?
        .ok_or(StoreError::NotMigrated)?;
    let generation: i64 = row.try_get_by_index(0)?;
    let seq: i64 = row.try_get_by_index(1)?;
    Ok((unsigned(generation), unsigned(seq)))
}
