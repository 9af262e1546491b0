//! Tracking: runs with parameters, tags, metric points and files, as MLflow's clients log them.
//!
//! Metric points come into `run_log` as they are, packed, a row for each batch, and are settled
//! later: into chunks of one metric each, and into the newest value of each metric. So a write is
//! one row however many points and metrics it has.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary, boolean, double, text, text_null,
};

use crate::columns::{Words, sequence};
use crate::tables::{
    Artifacts, LoggedModelMetrics, LoggedModelParams, LoggedModelTags, LoggedModels, RunChunks,
    RunDatasets, RunExperimentTags, RunExperiments, RunLatest, RunLog, RunModels, RunParams,
    RunTags, Runs,
};

/// See the module.
#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let words = Words(manager.get_database_backend());
        let tables = [runs, points, inputs, logged_models].map(|some| some(words));
        for table in tables.concat() {
            manager.create_table(table).await?;
        }
        for index in indices() {
            manager.create_index(index).await?;
        }
        // The one that is there from the start, with the number 0.
        let mut default = Query::insert();
        default
            .into_table(RunExperiments::Table)
            .columns([
                RunExperiments::Id,
                RunExperiments::Number,
                RunExperiments::Name,
                RunExperiments::Taken,
                RunExperiments::ArtifactLocation,
                RunExperiments::CreatedAt,
                RunExperiments::UpdatedAt,
                RunExperiments::Settled,
            ])
            .values_panic([
                "0".into(),
                0_i64.into(),
                "Default".into(),
                "Default".into(),
                "mlflow-artifacts:/0".into(),
                0_i64.into(),
                0_i64.into(),
                true.into(),
            ]);
        manager.execute(default).await
    }
}

/// A table of keys and values of an owner.
fn pairs<C: Iden + Copy + 'static>(
    w: Words,
    (table, owner, key, value): (C, C, C, C),
) -> TableCreateStatement {
    Table::create()
        .table(table)
        .col(w.string(owner))
        .col(w.string(key))
        .col(text(value))
        .primary_key(Index::create().col(owner).col(key))
        .to_owned()
}

fn runs(w: Words) -> Vec<TableCreateStatement> {
    use {RunExperimentTags as Tags, RunExperiments as E, Runs as R};
    vec![
        Table::create()
            .table(E::Table)
            .col(w.key(E::Id))
            .col(big_integer_null(E::Number).unique_key())
            .col(w.string(E::Name))
            .col(text_null(E::Taken).unique_key())
            .col(text(E::ArtifactLocation))
            .col(big_integer(E::CreatedAt))
            .col(big_integer(E::UpdatedAt))
            .col(big_integer_null(E::DeletedAt))
            .col(boolean(E::Settled))
            .to_owned(),
        pairs(w, (Tags::Table, Tags::ExperimentId, Tags::Key, Tags::Value)),
        Table::create()
            .table(R::Table)
            .col(w.key(R::Id))
            .col(w.string(R::ExperimentId))
            .col(text(R::Name))
            .col(text(R::UserId))
            .col(w.string(R::Status))
            .col(big_integer_null(R::StartTime))
            .col(big_integer_null(R::EndTime))
            .col(text(R::ArtifactUri))
            .col(big_integer_null(R::DeletedAt))
            .col(big_integer(R::Writes))
            .col(big_integer_null(R::TrialVersion))
            .to_owned(),
        pairs(
            w,
            (
                RunParams::Table,
                RunParams::RunId,
                RunParams::Key,
                RunParams::Value,
            ),
        ),
        pairs(
            w,
            (RunTags::Table, RunTags::RunId, RunTags::Key, RunTags::Value),
        ),
    ]
}

fn points(w: Words) -> Vec<TableCreateStatement> {
    use {RunChunks as Chunks, RunLatest as Latest, RunLog as Log};
    vec![
        Table::create()
            .table(Latest::Table)
            .col(w.string(Latest::RunId))
            .col(w.string(Latest::Key))
            .col(w.string(Latest::ExperimentId))
            .col(double(Latest::Value))
            .col(boolean(Latest::IsNan))
            .col(big_integer(Latest::Step))
            .col(big_integer(Latest::Timestamp))
            .primary_key(Index::create().col(Latest::RunId).col(Latest::Key))
            .to_owned(),
        Table::create()
            .table(Log::Table)
            .col(sequence(Log::Seq))
            .col(w.string(Log::RunId))
            .col(binary(Log::Points))
            .to_owned(),
        Table::create()
            .table(Chunks::Table)
            .col(w.string(Chunks::RunId))
            .col(w.string(Chunks::Key))
            .col(big_integer(Chunks::Number))
            .col(big_integer(Chunks::Count))
            .col(binary(Chunks::Points))
            .primary_key(
                Index::create()
                    .col(Chunks::RunId)
                    .col(Chunks::Key)
                    .col(Chunks::Number),
            )
            .to_owned(),
    ]
}

fn inputs(w: Words) -> Vec<TableCreateStatement> {
    use {Artifacts as A, RunDatasets as D, RunModels as M};
    vec![
        Table::create()
            .table(D::Table)
            .col(w.string(D::RunId))
            .col(w.string(D::Name))
            .col(w.string(D::Digest))
            .col(text(D::SourceType))
            .col(text(D::Source))
            .col(text_null(D::Schema))
            .col(text_null(D::Profile))
            .col(text_null(D::Context))
            .col(text(D::Tags))
            .primary_key(Index::create().col(D::RunId).col(D::Name).col(D::Digest))
            .to_owned(),
        Table::create()
            .table(M::Table)
            .col(w.string(M::RunId))
            .col(w.string(M::ModelId))
            .col(w.string(M::Role))
            .col(big_integer(M::Step))
            .primary_key(Index::create().col(M::RunId).col(M::Role).col(M::ModelId))
            .to_owned(),
        Table::create()
            .table(A::Table)
            .col(w.key(A::Path))
            .col(w.string(A::Digest))
            .col(big_integer(A::Size))
            .col(big_integer(A::At))
            .to_owned(),
    ]
}

fn logged_models(w: Words) -> Vec<TableCreateStatement> {
    use {
        LoggedModelMetrics as N, LoggedModelParams as P, LoggedModelTags as T, LoggedModels as M,
    };
    vec![
        Table::create()
            .table(M::Table)
            .col(w.key(M::Id))
            .col(w.string(M::ExperimentId))
            .col(text(M::Name))
            .col(text(M::ModelType))
            .col(w.string(M::SourceRunId))
            .col(w.string(M::Status))
            .col(text(M::ArtifactUri))
            .col(big_integer(M::CreatedAt))
            .col(big_integer(M::UpdatedAt))
            .col(big_integer_null(M::DeletedAt))
            .to_owned(),
        pairs(w, (P::Table, P::ModelId, P::Key, P::Value)),
        pairs(w, (T::Table, T::ModelId, T::Key, T::Value)),
        Table::create()
            .table(N::Table)
            .col(w.string(N::ModelId))
            .col(w.string(N::RunId))
            .col(w.string(N::Key))
            .col(w.string(N::DatasetName))
            .col(w.string(N::DatasetDigest))
            .col(double(N::Value))
            .col(boolean(N::IsNan))
            .col(big_integer(N::Step))
            .col(big_integer(N::Timestamp))
            .primary_key(
                Index::create()
                    .col(N::ModelId)
                    .col(N::Key)
                    .col(N::RunId)
                    .col(N::DatasetName)
                    .col(N::DatasetDigest)
                    .col(N::Step),
            )
            .to_owned(),
    ]
}

fn indices() -> Vec<IndexCreateStatement> {
    use RunLatest as Latest;
    let index = |name: &str| Index::create().name(name).to_owned();
    vec![
        index("run_experiments_name")
            .table(RunExperiments::Table)
            .col(RunExperiments::Name)
            .to_owned(),
        index("runs_experiment")
            .table(Runs::Table)
            .col(Runs::ExperimentId)
            .col(Runs::StartTime)
            .to_owned(),
        index("run_latest_value")
            .table(Latest::Table)
            .col(Latest::ExperimentId)
            .col(Latest::Key)
            .col(Latest::IsNan)
            .col(Latest::Value)
            .to_owned(),
        index("run_log_run")
            .table(RunLog::Table)
            .col(RunLog::RunId)
            .col(RunLog::Seq)
            .to_owned(),
        index("logged_models_experiment")
            .table(LoggedModels::Table)
            .col(LoggedModels::ExperimentId)
            .col(LoggedModels::CreatedAt)
            .to_owned(),
        index("logged_models_run")
            .table(LoggedModels::Table)
            .col(LoggedModels::SourceRunId)
            .to_owned(),
    ]
}
