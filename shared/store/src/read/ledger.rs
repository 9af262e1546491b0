//! What trials produced, and why things happened.

use pomona_domain::change::{Reason, Subject};
use pomona_domain::checkpoint::Checkpoint;
use pomona_domain::metric::Observation;
use pomona_domain::{Generation, Timestamp, TrialId};
use pomona_migrations::tables::{Checkpoints, Observations, Reasons};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};

use crate::commit::subject;
use crate::rows::{decode, docs, unsigned};
use crate::{Page, PageRequest, Store, StoreError};

impl Store {
    /// A trial's observations, by step.
    pub async fn observation_list(
        &self,
        trial: TrialId,
        page: &PageRequest,
    ) -> Result<Page<Observation>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .columns([
                Observations::Step,
                Observations::Epoch,
                Observations::Generation,
                Observations::At,
                Observations::Metrics,
                Observations::Confusion,
            ])
            .from(Observations::Table)
            .and_where(Expr::col(Observations::TrialId).eq(trial.to_string()))
            .order_by(Observations::Step, Order::Asc)
            .limit(limit + 1);
        if let Some(step) = page.token_step()? {
            query.and_where(Expr::col(Observations::Step).gt(step));
        }
        let mut observations = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let metrics: String = row.try_get_by_index(4)?;
            let confusion: Option<String> = row.try_get_by_index(5)?;
            let confusion = confusion.map(|text| decode("observations", &text));
            observations.push(Observation {
                trial,
                step: unsigned(row.try_get_by_index(0)?),
                epoch: u32::try_from(row.try_get_by_index::<i64>(1)?).unwrap_or(u32::MAX),
                generation: Generation(unsigned(row.try_get_by_index(2)?)),
                at: Timestamp(row.try_get_by_index(3)?),
                metrics: decode("observations", &metrics)?,
                confusion: confusion.transpose()?.unwrap_or_default(),
            });
        }
        Ok(Page::cut(observations, limit, |row| row.step.to_string()))
    }

    /// A trial's checkpoints: at most one of each kind.
    pub async fn checkpoint_list(&self, trial: TrialId) -> Result<Vec<Checkpoint>, StoreError> {
        let query = Query::select()
            .column(Checkpoints::Doc)
            .from(Checkpoints::Table)
            .and_where(Expr::col(Checkpoints::TrialId).eq(trial.to_string()))
            .to_owned();
        let mut rows: Vec<Checkpoint> = docs(&self.readers, "checkpoints", &query).await?;
        rows.sort_by_key(|row| row.kind);
        Ok(rows)
    }

    /// Explanations of a subject, oldest first.
    pub async fn reason_list(
        &self,
        about: Subject,
        page: &PageRequest,
    ) -> Result<Page<Reason>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .columns([Reasons::Seq, Reasons::At, Reasons::Text])
            .from(Reasons::Table)
            .and_where(Expr::col(Reasons::Subject).eq(subject(&about)))
            .order_by(Reasons::Seq, Order::Asc)
            .limit(limit + 1);
        if let Some(seq) = page.token::<i64>()? {
            query.and_where(Expr::col(Reasons::Seq).gt(seq));
        }
        let mut reasons: Vec<(i64, Reason)> = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let reason = Reason {
                subject: about,
                at: Timestamp(row.try_get_by_index(1)?),
                text: row.try_get_by_index(2)?,
            };
            reasons.push((row.try_get_by_index(0)?, reason));
        }
        let page = Page::cut(reasons, limit, |(seq, _)| seq.to_string());
        Ok(Page {
            items: page.items.into_iter().map(|(_, reason)| reason).collect(),
            next_page_token: page.next_page_token,
        })
    }
}
