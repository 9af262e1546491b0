//! Gates: what versions said of each test sample, uses of test splits, approvals, and decisions
//! about aliases whether they moved or not.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, boolean, text};

use crate::columns::{Words, sequence};
use crate::tables::{Approvals, Judgements, TestUses, VersionOutcomes};

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
        for table in tables(words) {
            manager.create_table(table).await?;
        }
        for index in indices() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

fn tables(w: Words) -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table(VersionOutcomes::Table)
            .col(w.string(VersionOutcomes::Model))
            .col(big_integer(VersionOutcomes::Number))
            .col(w.string(VersionOutcomes::Split))
            .col(text(VersionOutcomes::Doc))
            .primary_key(
                Index::create()
                    .col(VersionOutcomes::Model)
                    .col(VersionOutcomes::Number),
            )
            .to_owned(),
        Table::create()
            .table(TestUses::Table)
            .col(w.string(TestUses::Split))
            .col(big_integer(TestUses::Place))
            .col(w.string(TestUses::Model))
            .col(big_integer(TestUses::Number))
            .col(big_integer_null(TestUses::Champion))
            .col(big_integer(TestUses::At))
            // The place is drawn by who commits first: two decisions never share one.
            .primary_key(Index::create().col(TestUses::Split).col(TestUses::Place))
            .to_owned(),
        Table::create()
            .table(Approvals::Table)
            .col(sequence(Approvals::Seq))
            .col(w.string(Approvals::Model))
            .col(big_integer(Approvals::Number))
            .col(text(Approvals::Doc))
            .to_owned(),
        Table::create()
            .table(Judgements::Table)
            .col(sequence(Judgements::Seq))
            .col(w.string(Judgements::Model))
            .col(big_integer(Judgements::Number))
            .col(w.string(Judgements::Alias))
            .col(boolean(Judgements::Allowed))
            .col(big_integer(Judgements::At))
            .col(text(Judgements::Doc))
            .to_owned(),
    ]
}

fn indices() -> Vec<IndexCreateStatement> {
    vec![
        Index::create()
            .name("approvals_version")
            .table(Approvals::Table)
            .col(Approvals::Model)
            .col(Approvals::Number)
            .col(Approvals::Seq)
            .to_owned(),
        Index::create()
            .name("judgements_alias")
            .table(Judgements::Table)
            .col(Judgements::Model)
            .col(Judgements::Alias)
            .col(Judgements::Seq)
            .to_owned(),
    ]
}
