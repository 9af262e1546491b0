//! The audit: who did what to the registry. Rows are only added.

use pomona_domain::Timestamp;
use pomona_domain::model::{Actor, Audit};
use pomona_migrations::tables::Audit as Rows;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, LikeExpr, Order, Query};

use crate::commit::registry::audits;
use crate::{Page, PageRequest, Store, StoreError, ingest};

impl Store {
    /// Adds an entry by itself: something was refused, or changed nothing else.
    pub async fn audit_add(&self, entry: &Audit) -> Result<(), StoreError> {
        ingest!(self, tx => audits(tx, &[entry]).await)
    }

    /// Entries, newest first: all, or those of a subject and of what belongs to it.
    pub async fn audit_list(
        &self,
        subject: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Audit>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .columns([
                Rows::Seq,
                Rows::At,
                Rows::Actor,
                Rows::Origin,
                Rows::Action,
                Rows::Subject,
                Rows::Result,
                Rows::Detail,
            ])
            .from(Rows::Table)
            .order_by(Rows::Seq, Order::Desc)
            .limit(limit + 1);
        if let Some(subject) = subject {
            let escaped = subject
                .replace('\\', "\\\\")
                .replace('%', "\\%")
                .replace('_', "\\_");
            let below = LikeExpr::new(format!("{escaped}/%")).escape('\\');
            let is_it = Expr::col(Rows::Subject).eq(subject);
            query.and_where(is_it.or(Expr::col(Rows::Subject).like(below)));
        }
        if let Some(seq) = page.token::<i64>()? {
            query.and_where(Expr::col(Rows::Seq).lt(seq));
        }
        let mut entries: Vec<(i64, Audit)> = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let entry = Audit {
                at: Timestamp(row.try_get_by_index(1)?),
                by: Actor {
                    name: row.try_get_by_index(2)?,
                    origin: row.try_get_by_index(3)?,
                },
                action: row.try_get_by_index(4)?,
                subject: row.try_get_by_index(5)?,
                result: row.try_get_by_index(6)?,
                detail: row.try_get_by_index(7)?,
            };
            entries.push((row.try_get_by_index(0)?, entry));
        }
        let page = Page::cut(entries, limit, |(seq, _)| seq.to_string());
        Ok(Page {
            items: page.items.into_iter().map(|(_, entry)| entry).collect(),
            next_page_token: page.next_page_token,
        })
    }
}
