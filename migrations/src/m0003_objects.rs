//! Blobs in a bucket: which object has a blob's bytes, uploads that anybody may go on with, and a
//! name for the store, which a bucket is marked with.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, boolean, text, text_null};

use crate::tables::{BlobStore, BlobUploads, Blobs};

/// See the module.
#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One column a statement: SQLite takes no more.
        let columns = [
            text_null(Blobs::Object),
            boolean(Blobs::Damaged).default(false).to_owned(),
        ];
        for column in columns {
            let mut alter = Table::alter();
            alter.table(Blobs::Table).add_column(column);
            manager.alter_table(alter).await?;
        }
        let uploads = Table::create()
            .table(BlobUploads::Table)
            .col(text(BlobUploads::Id).primary_key())
            .col(big_integer(BlobUploads::Version))
            .col(big_integer(BlobUploads::TouchedAt))
            .col(text_null(BlobUploads::Object))
            .col(text(BlobUploads::Doc))
            .to_owned();
        manager.create_table(uploads).await?;
        let index = Index::create()
            .name("blob_uploads_touched")
            .table(BlobUploads::Table)
            .col(BlobUploads::TouchedAt)
            .to_owned();
        manager.create_index(index).await?;
        let store = Table::create()
            .table(BlobStore::Table)
            .col(big_integer(BlobStore::Id).primary_key())
            .col(text(BlobStore::Name))
            .to_owned();
        manager.create_table(store).await
    }
}
