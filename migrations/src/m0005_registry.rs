//! The registry beyond versions: words and tags of models and versions, what was deleted, who did
//! it, and whom an outbox row is about.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, boolean, text, text_null};
use sea_orm_migration::sea_orm::DbBackend;

use crate::columns::{Words, patiently, sequence};
use crate::tables::{
    AliasHistory, Aliases, Audit, ModelTags, Models, Outbox, VersionTags, Versions,
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
        let backend = manager.get_database_backend();
        patiently(manager).await?;
        for (table, columns) in columns() {
            // One column a statement: SQLite takes no more.
            for column in columns {
                let mut alter = Table::alter();
                alter.table(table.clone()).add_column(column);
                manager.alter_table(alter).await?;
            }
        }
        for table in tables(Words(backend)) {
            manager.create_table(table).await?;
        }
        for index in indices() {
            manager.create_index(index).await?;
        }
        let trial = if backend == DbBackend::Postgres {
            "doc::json -> 'lineage' ->> 'trial'"
        } else {
            "json_extract(doc, '$.lineage.trial')"
        };
        // What was there before says what new rows say.
        let known = format!(
            "UPDATE versions SET run_id = {trial}, updated_at = created_at, \
             source = 'mlflow-artifacts:/pomona-models/' || model || '/' || number"
        );
        manager.get_connection().execute_unprepared(&known).await?;
        let told =
            "UPDATE outbox SET topic = 'model_version_alias.created' WHERE topic = 'alias_moved'";
        manager.get_connection().execute_unprepared(told).await?;
        Ok(())
    }
}

fn columns() -> Vec<(DynIden, Vec<ColumnDef>)> {
    let empty = |column: &mut ColumnDef| column.default("").to_owned();
    let no = |column: &mut ColumnDef| column.default(false).to_owned();
    vec![
        (
            Models::Table.into_iden(),
            vec![
                empty(&mut text(Models::Description)),
                big_integer_null(Models::UpdatedAt),
                big_integer_null(Models::DeletedAt),
            ],
        ),
        (
            Versions::Table.into_iden(),
            vec![
                empty(&mut text(Versions::Description)),
                text(Versions::Stage).default("None").to_owned(),
                text_null(Versions::Source),
                text_null(Versions::RunId),
                big_integer_null(Versions::UpdatedAt),
                big_integer_null(Versions::DeletedAt),
                big_integer_null(Versions::PulledUntil),
            ],
        ),
        (
            Aliases::Table.into_iden(),
            vec![no(&mut boolean(Aliases::Deleted))],
        ),
        (
            AliasHistory::Table.into_iden(),
            vec![
                no(&mut boolean(AliasHistory::Deleted)),
                text(AliasHistory::Actor).default("unknown").to_owned(),
                text(AliasHistory::Origin).default("unknown").to_owned(),
            ],
        ),
        (
            Outbox::Table.into_iden(),
            vec![empty(&mut text(Outbox::Subject))],
        ),
    ]
}

fn tables(w: Words) -> Vec<TableCreateStatement> {
    use {ModelTags as M, VersionTags as V};
    vec![
        Table::create()
            .table(M::Table)
            .col(w.string(M::Model))
            .col(w.string(M::Key))
            .col(text(M::Value))
            .primary_key(Index::create().col(M::Model).col(M::Key))
            .to_owned(),
        Table::create()
            .table(V::Table)
            .col(w.string(V::Model))
            .col(big_integer(V::Number))
            .col(w.string(V::Key))
            .col(text(V::Value))
            .primary_key(Index::create().col(V::Model).col(V::Number).col(V::Key))
            .to_owned(),
        Table::create()
            .table(Audit::Table)
            .col(sequence(Audit::Seq))
            .col(big_integer(Audit::At))
            .col(text(Audit::Actor))
            .col(text(Audit::Origin))
            .col(w.string(Audit::Action))
            .col(w.string(Audit::Subject))
            .col(w.string(Audit::Result))
            .col(text(Audit::Detail))
            .to_owned(),
    ]
}

fn indices() -> Vec<IndexCreateStatement> {
    vec![
        Index::create()
            .name("audit_subject")
            .table(Audit::Table)
            .col(Audit::Subject)
            .col(Audit::Seq)
            .to_owned(),
        Index::create()
            .name("versions_run")
            .table(Versions::Table)
            .col(Versions::RunId)
            .to_owned(),
    ]
}
