//! Readers, noun first. They see what was committed, and never wait for a writer.
//!
//! Ended rows stay readable here after they have left memory. A list that grows at its head
//! (experiments, tasks) is read newest first; the others in the order of their key.

mod catalogue;
mod engine;
pub(crate) mod gates;
mod ledger;
pub(crate) mod registry;

pub use registry::OutboxRow;

use pomona_domain::metric::Direction;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait as _, Iden, Order, Query, SelectStatement};
use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::rows::{doc, docs};

/// In which order trials are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrialOrder {
    /// By number.
    #[default]
    Number,
    /// The best first (ties by validation loss, then by number); those without a value last.
    Leaderboard(Direction),
}

/// Most characters of a prefix that is looked up: the longest id and some.
const MAX_PREFIX: usize = 64;

/// The document of a row by its key.
async fn by_key<T: DeserializeOwned, C: Iden + Copy + 'static>(
    conn: &impl ConnectionTrait,
    name: &'static str,
    columns: (C, C, C),
    key: &str,
) -> Result<Option<T>, StoreError> {
    let (table, document, id) = columns;
    let query = Query::select()
        .column(document)
        .from(table)
        .and_where(Expr::col(id).eq(key))
        .to_owned();
    doc(conn, name, &query).await
}

/// Rows whose id begins with `text` (with or without the kind's `prefix_`), two at most.
async fn by_prefix<T: DeserializeOwned, C: Iden + Copy + 'static>(
    conn: &impl ConnectionTrait,
    name: &'static str,
    columns: (C, C, C),
    (prefix, text): (&str, &str),
) -> Result<Vec<T>, StoreError> {
    let digits = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .unwrap_or(text);
    let is_hex = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits.is_empty() || digits.len() > MAX_PREFIX || !is_hex {
        return Ok(Vec::new());
    }
    let (table, document, id) = columns;
    let low = format!("{prefix}_{digits}");
    // `g` follows every hexadecimal digit.
    let high = format!("{low}g");
    let query = Query::select()
        .column(document)
        .from(table)
        .and_where(Expr::col(id).gte(low))
        .and_where(Expr::col(id).lt(high))
        .order_by(id, Order::Asc)
        .limit(2)
        .to_owned();
    docs(conn, name, &query).await
}

/// The one row that a prefix fits.
fn only<T>(rows: Vec<T>, what: &'static str, text: &str) -> Result<Option<T>, StoreError> {
    if rows.len() > 1 {
        return Err(StoreError::Ambiguous {
            what,
            prefix: text.to_owned(),
        });
    }
    Ok(rows.into_iter().next())
}

/// `query`, from the row after `(at, id)`, newest first.
fn newest_first<C: Iden + Copy + 'static>(
    query: &mut SelectStatement,
    (at, id): (C, C),
    after: Option<(i64, String)>,
) {
    if let Some((time, key)) = after {
        query.and_where(
            Expr::col(at)
                .lt(time)
                .or(Expr::col(at).eq(time).and(Expr::col(id).lt(key))),
        );
    }
    query.order_by(at, Order::Desc).order_by(id, Order::Desc);
}
