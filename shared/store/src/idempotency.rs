//! Answers that were given to keyed requests, so that a repeat gets the same one.

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::IdempotencyKeys;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};

use crate::rows::parsed;
use crate::{Store, StoreError, ingest};

/// The answer to a keyed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Digest of the request's body: another body under the same key is refused.
    pub request: Digest,
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// The answer that was given under `key`, if there is one; [`StoreError::KeyReused`] when it
    /// was given to another request.
    pub async fn idempotency_get(
        &self,
        key: &str,
        request: Digest,
    ) -> Result<Option<Answer>, StoreError> {
        let query = Query::select()
            .columns([
                IdempotencyKeys::Request,
                IdempotencyKeys::Status,
                IdempotencyKeys::Answer,
                IdempotencyKeys::At,
            ])
            .from(IdempotencyKeys::Table)
            .and_where(Expr::col(IdempotencyKeys::Key).eq(key))
            .to_owned();
        let Some(row) = self.readers.query_one(&query).await? else {
            return Ok(None);
        };
        let answer = Answer {
            request: parsed(&row.try_get_by_index::<String>(0)?)?,
            status: u16::try_from(row.try_get_by_index::<i64>(1)?).unwrap_or(500),
            body: row.try_get_by_index(2)?,
            at: Timestamp(row.try_get_by_index(3)?),
        };
        if answer.request == request {
            Ok(Some(answer))
        } else {
            Err(StoreError::KeyReused {
                key: key.to_owned(),
            })
        }
    }

    /// Keeps an answer. The first one under a key stays; says whether this was it.
    pub async fn idempotency_put(&self, key: &str, answer: &Answer) -> Result<bool, StoreError> {
        let mut insert = Query::insert();
        insert
            .into_table(IdempotencyKeys::Table)
            .columns([
                IdempotencyKeys::Key,
                IdempotencyKeys::Request,
                IdempotencyKeys::Status,
                IdempotencyKeys::Answer,
                IdempotencyKeys::At,
            ])
            .values_panic([
                key.into(),
                answer.request.to_string().into(),
                i64::from(answer.status).into(),
                answer.body.as_str().into(),
                answer.at.0.into(),
            ])
            .on_conflict(OnConflict::new().do_nothing().to_owned());
        ingest!(self, tx => Ok(tx.execute(&insert).await?.rows_affected() == 1))
    }
}
