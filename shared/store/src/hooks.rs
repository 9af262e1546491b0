//! Webhooks: who is told what. What is on its way to them is in [`deliveries`], and how an event of
//! the outbox gets there in [`note`].
//!
//! A secret goes in, and comes out again only with what is about to be sent ([`Due`]); no row that
//! is shown has one.

mod deliveries;
mod note;

use std::fmt;

use pomona_domain::hook::{Flavour, Hook, HookStatus};
use pomona_domain::{HookId, Timestamp};
use pomona_migrations::tables::{WebhookDeliveries as Deliveries, Webhooks as Rows};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query, SelectStatement};
use sea_orm::{ConnectionTrait, DatabaseTransaction, QueryResult};

use crate::rows::{decode, encode, parsed, unsigned};
use crate::{Page, PageRequest, Store, StoreError, ingest};

pub use deliveries::{Due, MAX_DELIVERIES, Settled};
pub(crate) use deliveries::{forget, trim};
pub(crate) use note::all as note_all;
pub use note::{MAX_PENDING, Noted};

/// Most webhooks: every event is held against each of them.
pub const MAX_HOOKS: u64 = 500;

/// What signs. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What makes a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHook {
    /// All that may be shown.
    pub hook: Hook,
    /// What signs; empty when nothing does.
    pub secret: Secret,
}

/// What changes of a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookChange {
    /// Its name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Where it is told.
    pub url: Option<String>,
    /// What it is told.
    pub events: Option<Vec<String>>,
    /// What signs.
    pub secret: Option<Secret>,
    /// Whether it is told anything.
    pub status: Option<HookStatus>,
}

/// Why nothing was done to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookRefusal {
    /// There is none.
    Missing,
    /// Another one has the name.
    NameTaken,
    /// There are [`MAX_HOOKS`] already.
    TooMany,
}

const COLUMNS: [Rows; 9] = [
    Rows::Id,
    Rows::Name,
    Rows::Description,
    Rows::Url,
    Rows::Events,
    Rows::Status,
    Rows::Flavour,
    Rows::CreatedAt,
    Rows::UpdatedAt,
];

fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from(Rows::Table)
        .to_owned()
}

fn hook(row: &QueryResult) -> Result<Hook, StoreError> {
    let text = |at: usize| row.try_get_by_index::<String>(at);
    Ok(Hook {
        id: parsed(&text(0)?)?,
        name: text(1)?,
        description: text(2)?,
        url: text(3)?,
        events: decode("webhooks", &text(4)?)?,
        status: parsed(&text(5)?)?,
        flavour: parsed(&text(6)?)?,
        created_at: Timestamp(row.try_get_by_index(7)?),
        updated_at: Timestamp(row.try_get_by_index(8)?),
    })
}

async fn hooks(
    conn: &impl ConnectionTrait,
    query: &SelectStatement,
) -> Result<Vec<Hook>, StoreError> {
    conn.query_all(query).await?.iter().map(hook).collect()
}

async fn hook_by_id(conn: &impl ConnectionTrait, id: HookId) -> Result<Option<Hook>, StoreError> {
    let mut query = select();
    query.and_where(Expr::col(Rows::Id).eq(id.to_string()));
    Ok(hooks(conn, &query).await?.pop())
}

impl Store {
    /// Makes a webhook, which is told what is committed from now on. One with this id that is there
    /// already is the answer: the request was repeated.
    pub async fn hook_create(
        &self,
        new: &NewHook,
    ) -> Result<Result<Hook, HookRefusal>, StoreError> {
        let hook = &new.hook;
        // Names of MLflow's webhooks are for people; ours are what they are called by.
        let taken = match hook.flavour {
            Flavour::Pomona => Some(hook.name.clone()),
            Flavour::Mlflow => None,
        };
        let mut insert = Query::insert();
        insert
            .into_table(Rows::Table)
            .columns(COLUMNS.into_iter().chain([Rows::Secret, Rows::Taken]))
            .values_panic([
                hook.id.to_string().into(),
                hook.name.as_str().into(),
                hook.description.as_str().into(),
                hook.url.as_str().into(),
                encode("webhooks", &hook.events)?.into(),
                hook.status.as_str().into(),
                hook.flavour.as_str().into(),
                hook.created_at.0.into(),
                hook.updated_at.0.into(),
                new.secret.0.as_str().into(),
                taken.into(),
            ])
            .on_conflict(OnConflict::new().do_nothing().to_owned());
        ingest!(self, tx => {
            note::all(tx, hook.created_at).await?;
            if count(tx).await? >= MAX_HOOKS {
                return Ok(Err(HookRefusal::TooMany));
            }
            if tx.execute(&insert).await?.rows_affected() == 1 {
                return Ok(Ok(hook.clone()));
            }
            Ok(hook_by_id(tx, hook.id).await?.ok_or(HookRefusal::NameTaken))
        })
    }

    /// A webhook.
    pub async fn hook_get(&self, id: HookId) -> Result<Option<Hook>, StoreError> {
        hook_by_id(&self.readers, id).await
    }

    /// Webhooks of this name: those of MLflow's clients may share one. Ten at most.
    pub async fn hook_named(&self, name: &str) -> Result<Vec<Hook>, StoreError> {
        let mut query = select();
        query
            .and_where(Expr::col(Rows::Name).eq(name))
            .order_by(Rows::Id, Order::Asc)
            .limit(10);
        hooks(&self.readers, &query).await
    }

    /// All webhooks, by id.
    pub async fn hook_list(&self, page: &PageRequest) -> Result<Page<Hook>, StoreError> {
        let limit = page.limit()?;
        let mut query = select();
        query.order_by(Rows::Id, Order::Asc).limit(limit + 1);
        if let Some(id) = &page.token {
            query.and_where(Expr::col(Rows::Id).gt(id.as_str()));
        }
        let rows = hooks(&self.readers, &query).await?;
        Ok(Page::cut(rows, limit, |row| row.id.to_string()))
    }

    /// Webhooks that were made by MLflow's clients, newest first.
    pub async fn hook_list_mlflow(&self, offset: u64, limit: u64) -> Result<Vec<Hook>, StoreError> {
        let mut query = select();
        query
            .and_where(Expr::col(Rows::Flavour).eq(Flavour::Mlflow.as_str()))
            .order_by(Rows::CreatedAt, Order::Desc)
            .order_by(Rows::Id, Order::Asc)
            .offset(offset)
            .limit(limit);
        hooks(&self.readers, &query).await
    }

    /// What signs what this webhook is told.
    pub async fn hook_secret(&self, id: HookId) -> Result<Option<Secret>, StoreError> {
        let query = Query::select()
            .column(Rows::Secret)
            .from(Rows::Table)
            .and_where(Expr::col(Rows::Id).eq(id.to_string()))
            .to_owned();
        let row = self.readers.query_one(&query).await?;
        let secret = row.map(|row| row.try_get_by_index(0)).transpose()?;
        Ok(secret.map(Secret))
    }

    /// Changes a webhook. What was committed before is or is not for it by what it was.
    pub async fn hook_update(
        &self,
        id: HookId,
        change: &HookChange,
        now: Timestamp,
    ) -> Result<Result<Hook, HookRefusal>, StoreError> {
        let mut update = Query::update();
        update
            .table(Rows::Table)
            .value(Rows::UpdatedAt, now.0)
            .and_where(Expr::col(Rows::Id).eq(id.to_string()));
        let texts = [
            (Rows::Name, change.name.clone()),
            (Rows::Description, change.description.clone()),
            (Rows::Url, change.url.clone()),
            (Rows::Secret, change.secret.clone().map(|secret| secret.0)),
            (
                Rows::Status,
                change.status.map(|status| status.as_str().to_owned()),
            ),
        ];
        for (column, text) in texts {
            if let Some(text) = text {
                update.value(column, text);
            }
        }
        if let Some(events) = &change.events {
            update.value(Rows::Events, encode("webhooks", events)?);
        }
        ingest!(self, tx => {
            note::all(tx, now).await?;
            let Some(hook) = hook_by_id(tx, id).await? else {
                return Ok(Err(HookRefusal::Missing));
            };
            let mut update = update.clone();
            if let (Some(name), Flavour::Pomona) = (&change.name, hook.flavour) {
                if is_taken(tx, name, id).await? {
                    return Ok(Err(HookRefusal::NameTaken));
                }
                update.value(Rows::Taken, name.as_str());
            }
            tx.execute(&update).await?;
            Ok(hook_by_id(tx, id).await?.ok_or(HookRefusal::Missing))
        })
    }

    /// Forgets a webhook and all that is on its way to it; says whether there was one.
    pub async fn hook_delete(&self, id: HookId) -> Result<bool, StoreError> {
        let deliveries = Query::delete()
            .from_table(Deliveries::Table)
            .and_where(Expr::col(Deliveries::Hook).eq(id.to_string()))
            .to_owned();
        let hook = Query::delete()
            .from_table(Rows::Table)
            .and_where(Expr::col(Rows::Id).eq(id.to_string()))
            .to_owned();
        ingest!(self, tx => {
            let there = tx.execute(&hook).await?.rows_affected() == 1;
            tx.execute(&deliveries).await?;
            Ok(there)
        })
    }
}

async fn count(tx: &DatabaseTransaction) -> Result<u64, StoreError> {
    let query = Query::select()
        .expr(Expr::col(Rows::Id).count())
        .from(Rows::Table)
        .to_owned();
    let row = tx.query_one(&query).await?;
    let count = row.map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(unsigned(count.unwrap_or(0)))
}

async fn is_taken(tx: &DatabaseTransaction, name: &str, by: HookId) -> Result<bool, StoreError> {
    let query = Query::select()
        .expr(Expr::val(1))
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Taken).eq(name))
        .and_where(Expr::col(Rows::Id).ne(by.to_string()))
        .to_owned();
    Ok(tx.query_one(&query).await?.is_some())
}
