//! What is shown of runs, kept ready: all that was logged with a run that ended, and the outline of
//! each full chunk of points. Both are made again from what they show, and nothing depends on them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer_null, binary_null, text_null};

use crate::tables::{RunChunks, Runs};

/// See the module.
#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            (Runs::Table.into_iden(), text_null(Runs::Shown)),
            (Runs::Table.into_iden(), big_integer_null(Runs::ShownWrites)),
            (
                RunChunks::Table.into_iden(),
                binary_null(RunChunks::Outline),
            ),
        ];
        for (table, column) in columns {
            // One column a statement: SQLite takes no more.
            let mut alter = Table::alter();
            alter.table(table).add_column(column);
            manager.alter_table(alter).await?;
        }
        Ok(())
    }
}
