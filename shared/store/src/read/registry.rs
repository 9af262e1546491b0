//! Models, versions, aliases and their history, and what waits to be told to the outside.

use pomona_domain::Timestamp;
use pomona_domain::model::{Actor, Alias, AliasMove, Version};
use pomona_migrations::tables::{AliasHistory, Aliases, Outbox, Versions};
use sea_orm::ConnectionTrait;
use sea_orm::QueryResult;
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};
use std::collections::BTreeMap;

use crate::rows::{doc, docs, unsigned};
use crate::{Page, PageRequest, Store, StoreError};

/// Something that waits to be told to the outside.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Grows.
    pub seq: u64,
    /// What it is (`model_version.created`).
    pub topic: String,
    /// Whom it is about (`model/NAME`): of one subject, what happened first is told first.
    pub subject: String,
    /// When it happened.
    pub at: Timestamp,
    /// The fact as JSON.
    pub doc: String,
}

fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Aliases of one model or of all, by model and name; those that are deleted only when asked for.
pub(crate) async fn aliases(
    conn: &impl ConnectionTrait,
    models: Option<&[String]>,
    with_deleted: bool,
) -> Result<Vec<Alias>, StoreError> {
    let mut query = Query::select();
    query
        .columns([
            Aliases::Model,
            Aliases::Alias,
            Aliases::Number,
            Aliases::Revision,
            Aliases::Deleted,
        ])
        .from(Aliases::Table)
        .order_by(Aliases::Model, Order::Asc)
        .order_by(Aliases::Alias, Order::Asc);
    if !with_deleted {
        query.and_where(Expr::col(Aliases::Deleted).eq(false));
    }
    if let Some(models) = models {
        query.and_where(Expr::col(Aliases::Model).is_in(models.iter().map(String::as_str)));
    }
    let rows = conn.query_all(&query).await?;
    rows.iter().map(alias).collect()
}

fn alias(row: &QueryResult) -> Result<Alias, StoreError> {
    Ok(Alias {
        model: row.try_get_by_index(0)?,
        alias: row.try_get_by_index(1)?,
        number: small(row.try_get_by_index(2)?),
        revision: unsigned(row.try_get_by_index(3)?),
        deleted: row.try_get_by_index(4)?,
    })
}

/// The number of the newest version of each model that has one.
pub(crate) async fn newest(
    conn: &impl ConnectionTrait,
    models: &[String],
) -> Result<BTreeMap<String, u32>, StoreError> {
    let query = Query::select()
        .column(Versions::Model)
        .expr(Expr::col(Versions::Number).max())
        .from(Versions::Table)
        .and_where(Expr::col(Versions::DeletedAt).is_null())
        .and_where(Expr::col(Versions::Model).is_in(models.iter().map(String::as_str)))
        .group_by_col(Versions::Model)
        .to_owned();
    let mut newest = BTreeMap::new();
    for row in conn.query_all(&query).await? {
        newest.insert(row.try_get_by_index(0)?, small(row.try_get_by_index(1)?));
    }
    Ok(newest)
}

impl Store {
    /// A model's versions, newest first.
    pub async fn version_list(
        &self,
        model: &str,
        page: &PageRequest,
    ) -> Result<Page<Version>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .column(Versions::Doc)
            .from(Versions::Table)
            .and_where(Expr::col(Versions::DeletedAt).is_null())
            .and_where(Expr::col(Versions::Model).eq(model))
            .order_by(Versions::Number, Order::Desc)
            .limit(limit + 1);
        if let Some(number) = page.token::<u32>()? {
            query.and_where(Expr::col(Versions::Number).lt(i64::from(number)));
        }
        let rows: Vec<Version> = docs(&self.readers, "versions", &query).await?;
        Ok(Page::cut(rows, limit, |row| row.number.to_string()))
    }

    /// A version by its number.
    pub async fn version_get(
        &self,
        model: &str,
        number: u32,
    ) -> Result<Option<Version>, StoreError> {
        let query = Query::select()
            .column(Versions::Doc)
            .from(Versions::Table)
            .and_where(Expr::col(Versions::DeletedAt).is_null())
            .and_where(Expr::col(Versions::Model).eq(model))
            .and_where(Expr::col(Versions::Number).eq(i64::from(number)))
            .to_owned();
        doc(&self.readers, "versions", &query).await
    }

    /// A model's aliases, by name.
    pub async fn alias_list(&self, model: &str) -> Result<Vec<Alias>, StoreError> {
        aliases(&self.readers, Some(&[model.to_owned()]), false).await
    }

    /// Where an alias points.
    pub async fn alias_get(
        &self,
        model: &str,
        alias_name: &str,
    ) -> Result<Option<Alias>, StoreError> {
        let query = Query::select()
            .columns([
                Aliases::Model,
                Aliases::Alias,
                Aliases::Number,
                Aliases::Revision,
                Aliases::Deleted,
            ])
            .from(Aliases::Table)
            .and_where(Expr::col(Aliases::Deleted).eq(false))
            .and_where(Expr::col(Aliases::Model).eq(model))
            .and_where(Expr::col(Aliases::Alias).eq(alias_name))
            .to_owned();
        let row = self.readers.query_one(&query).await?;
        row.as_ref().map(alias).transpose()
    }

    /// The moves of an alias, newest first, up to a moment: the first one says where it pointed
    /// then.
    pub async fn alias_history(
        &self,
        model: &str,
        alias_name: &str,
        as_of: Option<Timestamp>,
        page: &PageRequest,
    ) -> Result<Page<AliasMove>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .columns([
                AliasHistory::FromNumber,
                AliasHistory::ToNumber,
                AliasHistory::Revision,
                AliasHistory::At,
                AliasHistory::Reason,
                AliasHistory::Deleted,
                AliasHistory::Actor,
                AliasHistory::Origin,
            ])
            .from(AliasHistory::Table)
            .and_where(Expr::col(AliasHistory::Model).eq(model))
            .and_where(Expr::col(AliasHistory::Alias).eq(alias_name))
            .order_by(AliasHistory::Revision, Order::Desc)
            .limit(limit + 1);
        if let Some(at) = as_of {
            query.and_where(Expr::col(AliasHistory::At).lte(at.0));
        }
        if let Some(revision) = page.token::<i64>()? {
            query.and_where(Expr::col(AliasHistory::Revision).lt(revision));
        }
        let mut moves = Vec::new();
        for row in self.readers.query_all(&query).await? {
            moves.push(AliasMove {
                model: model.to_owned(),
                alias: alias_name.to_owned(),
                from: row.try_get_by_index::<Option<i64>>(0)?.map(small),
                to: small(row.try_get_by_index(1)?),
                revision: unsigned(row.try_get_by_index(2)?),
                at: Timestamp(row.try_get_by_index(3)?),
                reason: row.try_get_by_index(4)?,
                deleted: row.try_get_by_index(5)?,
                by: Actor {
                    name: row.try_get_by_index(6)?,
                    origin: row.try_get_by_index(7)?,
                },
            });
        }
        Ok(Page::cut(moves, limit, |row| row.revision.to_string()))
    }

    /// Whether any alias has ever pointed to a version.
    pub async fn version_was_promoted(&self, model: &str, number: u32) -> Result<bool, StoreError> {
        let query = Query::select()
            .expr(Expr::val(1))
            .from(AliasHistory::Table)
            .and_where(Expr::col(AliasHistory::Model).eq(model))
            .and_where(Expr::col(AliasHistory::ToNumber).eq(i64::from(number)))
            .limit(1)
            .to_owned();
        Ok(self.readers.query_one(&query).await?.is_some())
    }

    /// What waits to be told to the outside, oldest first, after a number.
    pub async fn outbox_list(&self, after: u64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let limit = PageRequest::first(limit).limit()?;
        let query = Query::select()
            .columns([
                Outbox::Seq,
                Outbox::Topic,
                Outbox::At,
                Outbox::Doc,
                Outbox::Subject,
            ])
            .from(Outbox::Table)
            .and_where(Expr::col(Outbox::Seq).gt(crate::rows::signed(after)))
            .order_by(Outbox::Seq, Order::Asc)
            .limit(limit)
            .to_owned();
        let mut rows = Vec::new();
        for row in self.readers.query_all(&query).await? {
            rows.push(OutboxRow {
                seq: unsigned(row.try_get_by_index(0)?),
                topic: row.try_get_by_index(1)?,
                at: Timestamp(row.try_get_by_index(2)?),
                doc: row.try_get_by_index(3)?,
                subject: row.try_get_by_index(4)?,
            });
        }
        Ok(rows)
    }
}
