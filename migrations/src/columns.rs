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
