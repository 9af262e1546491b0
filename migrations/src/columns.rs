//! Columns that several migrations make alike.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// A number that the database gives out, growing.
pub fn sequence(name: impl IntoIden) -> ColumnDef {
    let mut column = ColumnDef::new(name);
    column
        .big_integer()
        .not_null()
        .auto_increment()
        .primary_key();
    column
}

/// Columns of short texts: names, ids, states. They are sorted by their bytes in every database,
/// whatever the language of its server.
#[derive(Debug, Clone, Copy)]
pub struct Words(pub DbBackend);

impl Words {
    pub fn string(self, name: impl IntoIden) -> ColumnDef {
        let mut column = ColumnDef::new(name);
        column.string().not_null();
        if self.0 == DbBackend::Postgres {
            column.extra("COLLATE \"C\"");
        }
        column
    }

    /// One that is the primary key.
    pub fn key(self, name: impl IntoIden) -> ColumnDef {
        self.string(name).primary_key().to_owned()
    }
}

/// Lets a migration take its time on a table that may be large: PostgreSQL's sessions have a limit.
pub async fn patiently(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Postgres {
        let patient = "SET LOCAL statement_timeout = 0";
        manager.get_connection().execute_unprepared(patient).await?;
    }
    Ok(())
}
