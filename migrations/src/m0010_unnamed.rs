//! Large artifacts whose bytes nobody has hashed yet: which file of the blobs' folder they are.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;
use sea_orm_migration::sea_orm::DbBackend;

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
        if manager.get_database_backend() == DbBackend::Postgres {
            let patient = "SET LOCAL statement_timeout = 0";
            manager.get_connection().execute_unprepared(patient).await?;
        }
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
