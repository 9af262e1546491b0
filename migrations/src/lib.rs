//! The schema of the database, as migrations that only go forward.
//!
//! It must never import anything of ours: a migration says what a table was on the day it was
//! written, whatever the domain becomes later. The names of tables and columns stand in
//! [`tables`], once, and the store uses the same ones.

mod columns;
pub mod m0001_initial;
pub mod m0002_leadership;
pub mod m0003_objects;
pub mod m0004_tracking;
pub mod m0005_registry;
pub mod m0006_gates;
pub mod m0007_webhooks;
pub mod m0008_images;
pub mod m0009_shown;
pub mod m0010_unnamed;
pub mod tables;

use sea_orm_migration::prelude::*;

/// All migrations, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_initial::Migration),
            Box::new(m0002_leadership::Migration),
            Box::new(m0003_objects::Migration),
            Box::new(m0004_tracking::Migration),
            Box::new(m0005_registry::Migration),
            Box::new(m0006_gates::Migration),
            Box::new(m0007_webhooks::Migration),
            Box::new(m0008_images::Migration),
            Box::new(m0009_shown::Migration),
            Box::new(m0010_unnamed::Migration),
        ]
    }
}
