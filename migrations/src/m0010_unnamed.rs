//! Large artifacts whose bytes nobody has hashed yet: which file of the blobs' folder they are.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

use crate::columns::patiently;
use crate::tables::Artifacts;

/// See the module.
#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        patiently(manager).await?;
        let alter = Table::alter()
            .table(Artifacts::Table)
            .add_column(text_null(Artifacts::Unnamed))
            .to_owned();
        manager.alter_table(alter).await?;
        // Of few rows at any time.
        let index = Index::create()
            .name("artifacts_unnamed")
            .table(Artifacts::Table)
            .col(Artifacts::Unnamed)
            .and_where(Expr::col(Artifacts::Unnamed).is_not_null())
            .to_owned();
        manager.create_index(index).await
    }
}
