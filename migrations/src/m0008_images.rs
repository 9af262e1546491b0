//! Images: which digests of a registry's protocol belong to which version. They follow from a
//! version's files and are kept so that a pull by digest finds its version at once.

use sea_orm_migration::prelude::*;

use crate::columns::Words;
use crate::tables::ImageParts as Parts;

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
        let parts = Table::create()
            .table(Parts::Table)
            .col(words.string(Parts::VersionId))
            .col(words.string(Parts::Part))
            .col(words.string(Parts::Digest))
            .primary_key(
                Index::create()
                    .col(Parts::VersionId)
                    .col(Parts::Part)
                    .col(Parts::Digest),
            )
            .to_owned();
        manager.create_table(parts).await?;
        let index = Index::create()
            .name("image_parts_digest")
            .table(Parts::Table)
            .col(Parts::Digest)
            .to_owned();
        manager.create_index(index).await
    }
}
