//! The first schema: rows with the columns that are asked for, and the whole row as a JSON
//! document beside them.
//!
//! Numbers that the domain has as `u64` are stored as 64-bit integers; times are milliseconds
//! since the Unix epoch; documents are text, because a reader never looks into them with SQL.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, double_null, text, text_null,
};

use crate::columns::{Words, sequence};
use crate::tables::{
    AliasHistory, Aliases, Backbones, BlobRefs, Blobs, Checkpoints, Datasets, Experiments,
    IdempotencyKeys, Leader, Leases, LogLines, Models, Observations, Outbox, Reasons, Tasks,
    Trials, Versions, Workers,
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
        let tables = [engine, ledger, catalogue, registry, service];
        let tables = tables.map(|some| some(words)).concat();
        for table in tables {
            manager.create_table(table).await?;
        }
        for index in indices() {
            manager.create_index(index).await?;
        }
        let mut leader = Query::insert();
        leader
            .into_table(Leader::Table)
            .columns([Leader::Id, Leader::Generation, Leader::Seq])
            .values_panic([1.into(), 0.into(), 0.into()]);
        manager.execute(leader).await
    }
}

/// Rows that the scheduler decides about.
fn engine(w: Words) -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table(Leader::Table)
            .col(
                ColumnDef::new(Leader::Id)
                    .big_integer()
                    .not_null()
                    .primary_key(),
            )
            .col(big_integer(Leader::Generation))
            .col(big_integer(Leader::Seq))
            .to_owned(),
        Table::create()
            .table(Experiments::Table)
            .col(w.key(Experiments::Id))
            .col(big_integer(Experiments::Version))
            .col(w.string(Experiments::Name))
            .col(w.string(Experiments::State))
            .col(boolean(Experiments::Ended))
            .col(big_integer(Experiments::SubmittedAt))
            .col(text(Experiments::Doc))
            .to_owned(),
        Table::create()
            .table(Trials::Table)
            .col(w.key(Trials::Id))
            .col(big_integer(Trials::Version))
            .col(w.string(Trials::ExperimentId))
            .col(big_integer(Trials::Number))
            .col(w.string(Trials::State))
            .col(boolean(Trials::Ended))
            .col(double_null(Trials::BestValue))
            .col(double_null(Trials::BestTie))
            .col(text(Trials::Doc))
            .foreign_key(
                ForeignKey::create()
                    .from(Trials::Table, Trials::ExperimentId)
                    .to(Experiments::Table, Experiments::Id),
            )
            .to_owned(),
        Table::create()
            .table(Leases::Table)
            .col(w.key(Leases::Id))
            .col(big_integer(Leases::Version))
            .col(big_integer(Leases::Generation))
            .col(boolean(Leases::Ended))
            .col(big_integer(Leases::GrantedAt))
            .col(text(Leases::Doc))
            .to_owned(),
        Table::create()
            .table(Workers::Table)
            .col(w.key(Workers::Id))
            .col(big_integer(Workers::Version))
            .col(w.string(Workers::Name))
            .col(w.string(Workers::State))
            .col(text(Workers::Doc))
            .to_owned(),
        Table::create()
            .table(Tasks::Table)
            .col(w.key(Tasks::Id))
            .col(big_integer(Tasks::Version))
            .col(w.string(Tasks::Kind))
            .col(w.string(Tasks::State))
            .col(boolean(Tasks::Ended))
            .col(big_integer(Tasks::SubmittedAt))
            .col(text(Tasks::Doc))
            .to_owned(),
    ]
}

/// What trials produced and why things happened.
fn ledger(w: Words) -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table(Observations::Table)
            .col(w.string(Observations::TrialId))
            .col(big_integer(Observations::Step))
            .col(big_integer(Observations::Epoch))
            .col(big_integer(Observations::Generation))
            .col(big_integer(Observations::At))
            .col(text(Observations::Metrics))
            .col(text_null(Observations::Confusion))
            .primary_key(
                Index::create()
                    .col(Observations::TrialId)
                    .col(Observations::Step),
            )
            .foreign_key(
                ForeignKey::create()
                    .from(Observations::Table, Observations::TrialId)
                    .to(Trials::Table, Trials::Id),
            )
            .to_owned(),
        Table::create()
            .table(Checkpoints::Table)
            .col(w.string(Checkpoints::TrialId))
            .col(w.string(Checkpoints::Kind))
            .col(w.string(Checkpoints::Digest))
            .col(big_integer(Checkpoints::Size))
            .col(text(Checkpoints::Doc))
            .primary_key(
                Index::create()
                    .col(Checkpoints::TrialId)
                    .col(Checkpoints::Kind),
            )
            .foreign_key(
                ForeignKey::create()
                    .from(Checkpoints::Table, Checkpoints::TrialId)
                    .to(Trials::Table, Trials::Id),
            )
            .to_owned(),
        Table::create()
            .table(Reasons::Table)
            .col(sequence(Reasons::Seq))
            .col(w.string(Reasons::Subject))
            .col(big_integer(Reasons::At))
            .col(text(Reasons::Text))
            .to_owned(),
    ]
}

/// What trials start from, and the blobs.
fn catalogue(w: Words) -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table(Datasets::Table)
            .col(w.string(Datasets::Name))
            .col(big_integer(Datasets::Number))
            .col(w.string(Datasets::Manifest))
            .col(w.string(Datasets::Archive))
            .col(big_integer(Datasets::CreatedAt))
            .col(text(Datasets::Doc))
            .primary_key(Index::create().col(Datasets::Name).col(Datasets::Number))
            .to_owned(),
        Table::create()
            .table(Backbones::Table)
            .col(w.key(Backbones::Name))
            .col(w.string(Backbones::Arch))
            .col(w.string(Backbones::Weights))
            .col(big_integer(Backbones::CreatedAt))
            .col(text(Backbones::Doc))
            .to_owned(),
        Table::create()
            .table(Blobs::Table)
            .col(w.key(Blobs::Digest))
            .col(big_integer(Blobs::Size))
            .col(w.string(Blobs::State))
            .col(big_integer(Blobs::KeepUntil))
            .col(big_integer_null(Blobs::MarkedAt))
            .to_owned(),
        Table::create()
            .table(BlobRefs::Table)
            .col(w.string(BlobRefs::Owner))
            .col(w.string(BlobRefs::Role))
            .col(w.string(BlobRefs::Digest))
            .primary_key(Index::create().col(BlobRefs::Owner).col(BlobRefs::Role))
            .foreign_key(
                ForeignKey::create()
                    .from(BlobRefs::Table, BlobRefs::Digest)
                    .to(Blobs::Table, Blobs::Digest),
            )
            .to_owned(),
    ]
}

/// Models, versions and aliases.
fn registry(w: Words) -> Vec<TableCreateStatement> {
    let to_version = |table: TableRef, columns: [DynIden; 2]| {
        let mut key = ForeignKey::create();
        key.from_tbl(table)
            .from_col(columns[0].clone())
            .from_col(columns[1].clone())
            .to_tbl(Versions::Table)
            .to_col(Versions::Model)
            .to_col(Versions::Number);
        key
    };
    vec![
        Table::create()
            .table(Models::Table)
            .col(w.key(Models::Name))
            .col(big_integer(Models::CreatedAt))
            .to_owned(),
        Table::create()
            .table(Versions::Table)
            .col(w.key(Versions::Id))
            .col(w.string(Versions::Model))
            .col(big_integer(Versions::Number))
            .col(w.string(Versions::Digest))
            .col(big_integer(Versions::CreatedAt))
            .col(text(Versions::Doc))
            .index(
                Index::create()
                    .unique()
                    .name("versions_model_number")
                    .col(Versions::Model)
                    .col(Versions::Number),
            )
            .foreign_key(
                ForeignKey::create()
                    .from(Versions::Table, Versions::Model)
                    .to(Models::Table, Models::Name),
            )
            .to_owned(),
        Table::create()
            .table(Aliases::Table)
            .col(w.string(Aliases::Model))
            .col(w.string(Aliases::Alias))
            .col(big_integer(Aliases::Number))
            .col(big_integer(Aliases::Revision))
            .primary_key(Index::create().col(Aliases::Model).col(Aliases::Alias))
            .foreign_key(&mut to_version(
                Aliases::Table.into_table_ref(),
                [Aliases::Model.into_iden(), Aliases::Number.into_iden()],
            ))
            .to_owned(),
        Table::create()
            .table(AliasHistory::Table)
            .col(sequence(AliasHistory::Seq))
            .col(w.string(AliasHistory::Model))
            .col(w.string(AliasHistory::Alias))
            .col(big_integer(AliasHistory::Revision))
            .col(big_integer_null(AliasHistory::FromNumber))
            .col(big_integer(AliasHistory::ToNumber))
            .col(big_integer(AliasHistory::At))
            .col(text(AliasHistory::Reason))
            .foreign_key(&mut to_version(
                AliasHistory::Table.into_table_ref(),
                [
                    AliasHistory::Model.into_iden(),
                    AliasHistory::ToNumber.into_iden(),
                ],
            ))
            .to_owned(),
    ]
}

/// What the service remembers for its callers.
fn service(w: Words) -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table(Outbox::Table)
            .col(sequence(Outbox::Seq))
            .col(w.string(Outbox::Topic))
            .col(big_integer(Outbox::At))
            .col(text(Outbox::Doc))
            .to_owned(),
        Table::create()
            .table(IdempotencyKeys::Table)
            .col(w.key(IdempotencyKeys::Key))
            .col(w.string(IdempotencyKeys::Request))
            .col(big_integer(IdempotencyKeys::Status))
            .col(text(IdempotencyKeys::Answer))
            .col(big_integer(IdempotencyKeys::At))
            .to_owned(),
        Table::create()
            .table(LogLines::Table)
            .col(sequence(LogLines::Seq))
            .col(w.string(LogLines::Owner))
            .col(big_integer(LogLines::Rank))
            .col(big_integer(LogLines::At))
            .col(text(LogLines::Line))
            .to_owned(),
    ]
}

/// An index on `columns`.
fn index<C: IntoIden + 'static>(
    name: &str,
    table: impl IntoTableRef,
    columns: impl IntoIterator<Item = C>,
) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table(table);
    for column in columns {
        index.col(column.into_iden());
    }
    index
}

fn indices() -> Vec<IndexCreateStatement> {
    vec![
        index(
            "experiments_ended",
            Experiments::Table,
            [Experiments::Ended],
        ),
        index("experiments_name", Experiments::Table, [Experiments::Name]),
        index(
            "experiments_submitted",
            Experiments::Table,
            [Experiments::SubmittedAt, Experiments::Id],
        ),
        index(
            "trials_number",
            Trials::Table,
            [Trials::ExperimentId, Trials::Number],
        )
        .unique()
        .to_owned(),
        index("leases_ended", Leases::Table, [Leases::Ended]),
        index("leases_generation", Leases::Table, [Leases::Generation]),
        index("tasks_ended", Tasks::Table, [Tasks::Ended]),
        index(
            "tasks_submitted",
            Tasks::Table,
            [Tasks::SubmittedAt, Tasks::Id],
        ),
        index(
            "reasons_subject",
            Reasons::Table,
            [Reasons::Subject, Reasons::Seq],
        ),
        index("blobs_keep", Blobs::Table, [Blobs::State, Blobs::KeepUntil]),
        index("blob_refs_digest", BlobRefs::Table, [BlobRefs::Digest]),
        index(
            "alias_history_revision",
            AliasHistory::Table,
            [
                AliasHistory::Model,
                AliasHistory::Alias,
                AliasHistory::Revision,
            ],
        )
        .unique()
        .to_owned(),
        index(
            "idempotency_at",
            IdempotencyKeys::Table,
            [IdempotencyKeys::At],
        ),
        index(
            "log_lines_owner",
            LogLines::Table,
            [LogLines::Owner, LogLines::Seq],
        ),
        index("log_lines_at", LogLines::Table, [LogLines::At]),
    ]
}
