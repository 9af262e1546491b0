//! What runs took and made: data sets, and logged models.

use std::collections::BTreeMap;

use pomona_migrations::tables::{RunDatasets as D, RunModels as M};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Order, Query};
use serde::{Deserialize, Serialize};

use super::{KEYS_PER_STATEMENT, RunData, RunRefusal, runs};
use crate::commit::{OnRepeat, insert};
use crate::rows::{decode, encode};
use crate::{Store, StoreError, ingest};

/// A data set that a run used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunDataset {
    /// Its name.
    pub name: String,
    /// Its digest, as the client says.
    pub digest: String,
    /// What kind of place it comes from.
    pub source_type: String,
    /// The place.
    pub source: String,
    /// Its columns, as the client says.
    pub schema: Option<String>,
    /// Its size, as the client says.
    pub profile: Option<String>,
    /// Tags of its use.
    pub tags: Vec<(String, String)>,
}

/// How a run is related to a logged model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRole {
    /// It took it.
    Input,
    /// It made it.
    Output,
}

impl ModelRole {
    const fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// The tag that says what a data set was used for.
const CONTEXT: &str = "mlflow.data.context";

impl Store {
    /// Adds what an active run took or made. A data set that is there already stays as it is.
    pub async fn run_relate(
        &self,
        run: &str,
        datasets: &[RunDataset],
        models: &[(ModelRole, String, i64)],
    ) -> Result<Result<(), RunRefusal>, StoreError> {
        ingest!(self, tx => {
            if let Err(refusal) = runs::lock(tx, run).await? {
                return Ok(Err(refusal));
            }
            let mut rows = Vec::new();
            for dataset in datasets {
                let context = dataset.tags.iter().find(|(key, _)| key == CONTEXT);
                rows.push(vec![
                    run.into(),
                    dataset.name.as_str().into(),
                    dataset.digest.as_str().into(),
                    dataset.source_type.as_str().into(),
                    dataset.source.as_str().into(),
                    dataset.schema.clone().into(),
                    dataset.profile.clone().into(),
                    context.map(|(_, value)| value.clone()).into(),
                    encode("run_datasets", &dataset.tags)?.into(),
                ]);
            }
            let columns = [
                D::RunId,
                D::Name,
                D::Digest,
                D::SourceType,
                D::Source,
                D::Schema,
                D::Profile,
                D::Context,
                D::Tags,
            ]
            .map(IntoIden::into_iden);
            insert(tx, D::Table.into_iden(), &columns, rows, &OnRepeat::Skip).await?;
            let rows = models.iter().map(|(role, model, step)| {
                let role = role.word();
                vec![run.into(), role.into(), model.as_str().into(), (*step).into()]
            });
            let columns = [M::RunId, M::Role, M::ModelId, M::Step].map(IntoIden::into_iden);
            let rows = rows.collect();
            insert(tx, M::Table.into_iden(), &columns, rows, &OnRepeat::Replace { key: 3 }).await?;
            Ok(Ok(()))
        })
    }

    /// Adds what runs took and made to what is logged with them.
    pub(super) async fn relations(
        &self,
        runs: &[String],
        all: &mut BTreeMap<String, RunData>,
    ) -> Result<(), StoreError> {
        let query = Query::select()
            .columns([
                D::RunId,
                D::Name,
                D::Digest,
                D::SourceType,
                D::Source,
                D::Schema,
                D::Profile,
                D::Tags,
            ])
            .from(D::Table)
            .and_where(Expr::col(D::RunId).is_in(runs))
            .order_by(D::RunId, Order::Asc)
            .order_by(D::Name, Order::Asc)
            .to_owned();
        for row in self.readers.query_all(&query).await? {
            let tags: String = row.try_get_by_index(7)?;
            let dataset = RunDataset {
                name: row.try_get_by_index(1)?,
                digest: row.try_get_by_index(2)?,
                source_type: row.try_get_by_index(3)?,
                source: row.try_get_by_index(4)?,
                schema: row.try_get_by_index(5)?,
                profile: row.try_get_by_index(6)?,
                tags: decode("run_datasets", &tags)?,
            };
            let data = all.entry(row.try_get_by_index(0)?).or_default();
            data.datasets.push(dataset);
        }
        let query = Query::select()
            .columns([M::RunId, M::Role, M::ModelId, M::Step])
            .from(M::Table)
            .and_where(Expr::col(M::RunId).is_in(runs))
            .order_by(M::RunId, Order::Asc)
            .order_by(M::Step, Order::Asc)
            .order_by(M::ModelId, Order::Asc)
            .to_owned();
        for row in self.readers.query_all(&query).await? {
            let role: String = row.try_get_by_index(1)?;
            let role = if role == ModelRole::Input.word() {
                ModelRole::Input
            } else {
                ModelRole::Output
            };
            let model = (role, row.try_get_by_index(2)?, row.try_get_by_index(3)?);
            let data = all.entry(row.try_get_by_index(0)?).or_default();
            data.models.push(model);
        }
        Ok(())
    }

    /// Data sets that runs of some experiments used: experiment, name, digest and context.
    pub async fn run_datasets(
        &self,
        experiments: &[String],
        limit: u64,
    ) -> Result<Vec<(String, String, String, Option<String>)>, StoreError> {
        use pomona_migrations::tables::Runs;
        let mut found = Vec::new();
        for some in experiments.chunks(KEYS_PER_STATEMENT) {
            let query = Query::select()
                .distinct()
                .column((Runs::Table, Runs::ExperimentId))
                .columns([
                    (D::Table, D::Name),
                    (D::Table, D::Digest),
                    (D::Table, D::Context),
                ])
                .from(D::Table)
                .inner_join(
                    Runs::Table,
                    Expr::col((Runs::Table, Runs::Id)).equals((D::Table, D::RunId)),
                )
                .and_where(Expr::col((Runs::Table, Runs::ExperimentId)).is_in(some))
                .limit(limit)
                .to_owned();
            for row in self.readers.query_all(&query).await? {
                found.push((
                    row.try_get_by_index(0)?,
                    row.try_get_by_index(1)?,
                    row.try_get_by_index(2)?,
                    row.try_get_by_index(3)?,
                ));
            }
        }
        Ok(found)
    }
}
