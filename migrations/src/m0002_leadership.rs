//! Leadership as a lease: who leads, where it is reached, and until when nobody else may.

use sea_orm_migration::prelude::*;

use crate::tables::Leader;

/// See the module.
#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One statement each: SQLite adds one column at a time.
        for mut column in columns() {
            let table = Table::alter()
                .table(Leader::Table)
                .add_column(&mut column)
                .to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }
}

fn columns() -> [ColumnDef; 3] {
    let text = |name| {
        let mut column = ColumnDef::new(name);
        column.text().not_null().default("");
        column
    };
    let mut until = ColumnDef::new(Leader::Until);
    until.big_integer().not_null().default(0);
    [text(Leader::Holder), text(Leader::Address), until]
}
