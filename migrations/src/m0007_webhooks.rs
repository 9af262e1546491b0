//! Webhooks: who is told what, which events are on their way to whom, and what became of them.
//!
//! What was in the outbox before there were webhooks is for nobody.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, text, text_null};

use crate::columns::{Words, patiently};
use crate::tables::{Outbox, WebhookDeliveries as Deliveries, Webhooks as Hooks};

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
        let mut noted = ColumnDef::new(Outbox::Noted);
        noted.boolean().not_null().default(false);
        let alter = Table::alter()
            .table(Outbox::Table)
            .add_column(&mut noted)
            .to_owned();
        manager.alter_table(alter).await?;
        let mut before = Query::update();
        before.table(Outbox::Table).value(Outbox::Noted, true);
        manager.execute(before).await?;
        for table in tables(Words(backend)) {
            manager.create_table(table).await?;
        }
        for index in indices() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

fn tables(w: Words) -> [TableCreateStatement; 2] {
    [
        Table::create()
            .table(Hooks::Table)
            .col(w.key(Hooks::Id))
            .col(w.string(Hooks::Name))
            .col(text_null(Hooks::Taken).unique_key())
            .col(text(Hooks::Description))
            .col(text(Hooks::Url))
            .col(text(Hooks::Events))
            .col(text(Hooks::Secret))
            .col(w.string(Hooks::Status))
            .col(w.string(Hooks::Flavour))
            .col(big_integer(Hooks::CreatedAt))
            .col(big_integer(Hooks::UpdatedAt))
            .to_owned(),
        Table::create()
            .table(Deliveries::Table)
            .col(w.key(Deliveries::Id))
            .col(w.string(Deliveries::Hook))
            .col(big_integer(Deliveries::Event))
            .col(w.string(Deliveries::Topic))
            .col(w.string(Deliveries::Subject))
            .col(w.string(Deliveries::State))
            .col(big_integer(Deliveries::Attempts))
            .col(big_integer(Deliveries::NextAt))
            .col(big_integer_null(Deliveries::LastStatus))
            .col(text_null(Deliveries::LastError))
            .col(big_integer(Deliveries::CreatedAt))
            .col(big_integer_null(Deliveries::AttemptedAt))
            .to_owned(),
    ]
}

fn indices() -> [IndexCreateStatement; 4] {
    let index = |name: &str| Index::create().name(name).to_owned();
    [
        index("outbox_noted")
            .table(Outbox::Table)
            .col(Outbox::Noted)
            .col(Outbox::Seq)
            .to_owned(),
        index("webhook_deliveries_event")
            .table(Deliveries::Table)
            .col(Deliveries::Hook)
            .col(Deliveries::Event)
            .unique()
            .to_owned(),
        index("webhook_deliveries_next")
            .table(Deliveries::Table)
            .col(Deliveries::State)
            .col(Deliveries::Hook)
            .col(Deliveries::NextAt)
            .to_owned(),
        index("webhook_deliveries_subject")
            .table(Deliveries::Table)
            .col(Deliveries::State)
            .col(Deliveries::Hook)
            .col(Deliveries::Subject)
            .col(Deliveries::Event)
            .to_owned(),
    ]
}
