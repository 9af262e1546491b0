//! What gates left behind.

use pomona_domain::gate::{Approval, Judgement, TestOutcomes, TestUse};
use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::{AliasHistory, Approvals, Judgements, TestUses, VersionOutcomes};
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};

use crate::rows::{decode, doc, docs};
use crate::{Page, PageRequest, Store, StoreError};

/// Approvals of a version that are read, the newest ones.
const MOST_APPROVALS: u64 = 1000;

/// Uses of all test splits, by split and place.
pub(crate) async fn test_uses(conn: &impl ConnectionTrait) -> Result<Vec<TestUse>, StoreError> {
    let query = Query::select()
        .columns([
            TestUses::Split,
            TestUses::Place,
            TestUses::Model,
            TestUses::Number,
            TestUses::Champion,
            TestUses::At,
        ])
        .from(TestUses::Table)
        .to_owned();
    let small = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let mut uses = Vec::new();
    for row in conn.query_all(&query).await? {
        let split: String = row.try_get_by_index(0)?;
        uses.push(TestUse {
            split: split.parse::<Digest>().map_err(|_| StoreError::NotFound {
                what: format!("a digest in `test_uses`: `{split}`"),
            })?,
            place: small(row.try_get_by_index(1)?),
            model: row.try_get_by_index(2)?,
            number: small(row.try_get_by_index(3)?),
            champion: row.try_get_by_index::<Option<i64>>(4)?.map(small),
            at: Timestamp(row.try_get_by_index(5)?),
        });
    }
    uses.sort_by_key(|row| (row.split, row.place));
    Ok(uses)
}

impl Store {
    /// What a version said of each test sample, if it was published with that.
    pub async fn outcomes_get(
        &self,
        model: &str,
        number: u32,
    ) -> Result<Option<TestOutcomes>, StoreError> {
        let query = Query::select()
            .column(VersionOutcomes::Doc)
            .from(VersionOutcomes::Table)
            .and_where(Expr::col(VersionOutcomes::Model).eq(model))
            .and_where(Expr::col(VersionOutcomes::Number).eq(i64::from(number)))
            .to_owned();
        doc(&self.readers, "version_outcomes", &query).await
    }

    /// Who said yes to a version, oldest first.
    pub async fn approval_list(
        &self,
        model: &str,
        number: u32,
    ) -> Result<Vec<Approval>, StoreError> {
        let query = Query::select()
            .column(Approvals::Doc)
            .from(Approvals::Table)
            .and_where(Expr::col(Approvals::Model).eq(model))
            .and_where(Expr::col(Approvals::Number).eq(i64::from(number)))
            .order_by(Approvals::Seq, Order::Desc)
            .limit(MOST_APPROVALS)
            .to_owned();
        let mut rows: Vec<Approval> = docs(&self.readers, "approvals", &query).await?;
        rows.reverse();
        Ok(rows)
    }

    /// Decisions about an alias, newest first, whether it moved or not.
    pub async fn judgement_list(
        &self,
        model: &str,
        alias: &str,
        page: &PageRequest,
    ) -> Result<Page<Judgement>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .columns([Judgements::Seq, Judgements::Doc])
            .from(Judgements::Table)
            .and_where(Expr::col(Judgements::Model).eq(model))
            .and_where(Expr::col(Judgements::Alias).eq(alias))
            .order_by(Judgements::Seq, Order::Desc)
            .limit(limit + 1);
        if let Some(seq) = page.token::<i64>()? {
            query.and_where(Expr::col(Judgements::Seq).lt(seq));
        }
        let mut rows: Vec<(i64, Judgement)> = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let text: String = row.try_get_by_index(1)?;
            rows.push((row.try_get_by_index(0)?, decode("judgements", &text)?));
        }
        let page = Page::cut(rows, limit, |(seq, _)| seq.to_string());
        Ok(Page {
            items: page.items.into_iter().map(|(_, row)| row).collect(),
            next_page_token: page.next_page_token,
        })
    }

    /// The newest decision that let an alias move.
    pub async fn judgement_allowed(
        &self,
        model: &str,
        alias: &str,
    ) -> Result<Option<Judgement>, StoreError> {
        let query = Query::select()
            .column(Judgements::Doc)
            .from(Judgements::Table)
            .and_where(Expr::col(Judgements::Model).eq(model))
            .and_where(Expr::col(Judgements::Alias).eq(alias))
            .and_where(Expr::col(Judgements::Allowed).eq(true))
            .order_by(Judgements::Seq, Order::Desc)
            .limit(1)
            .to_owned();
        doc(&self.readers, "judgements", &query).await
    }

    /// Whether an alias has ever pointed to a version.
    pub async fn alias_has_been(
        &self,
        model: &str,
        alias: &str,
        number: u32,
    ) -> Result<bool, StoreError> {
        let query = Query::select()
            .expr(Expr::val(1))
            .from(AliasHistory::Table)
            .and_where(Expr::col(AliasHistory::Model).eq(model))
            .and_where(Expr::col(AliasHistory::Alias).eq(alias))
            .and_where(Expr::col(AliasHistory::ToNumber).eq(i64::from(number)))
            .limit(1)
            .to_owned();
        Ok(self.readers.query_one(&query).await?.is_some())
    }
}
