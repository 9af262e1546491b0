//! What is said of models and versions: descriptions, tags, stages; and that somebody pulls one.

use pomona_domain::Timestamp;
use pomona_domain::model::{Actor, Audit};
use pomona_migrations::tables::{ModelTags, Models, VersionTags, Versions};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden as _, Query, SimpleExpr, UpdateStatement};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};
use serde_json::json;

use crate::commit::outbox::{Told, of_model, tell};
use crate::commit::registry::version_tags;
use crate::commit::registry::{audits, model};
use crate::commit::{OnRepeat, insert};
use crate::{Store, StoreError, ingest};

/// The stage of versions that were archived.
const ARCHIVED: &str = "Archived";

/// An update of a model that is there.
fn change_model(name: &str, now: Timestamp) -> UpdateStatement {
    Query::update()
        .table(Models::Table)
        .value(Models::UpdatedAt, now.0)
        .and_where(Expr::col(Models::Name).eq(name))
        .and_where(Expr::col(Models::DeletedAt).is_null())
        .to_owned()
}

fn is_version(model: &str, number: u32) -> SimpleExpr {
    Expr::col(Versions::Model)
        .eq(model)
        .and(Expr::col(Versions::Number).eq(i64::from(number)))
        .and(Expr::col(Versions::DeletedAt).is_null())
}

/// An update of a version that is there.
fn change_version(model: &str, number: u32, now: Timestamp) -> UpdateStatement {
    Query::update()
        .table(Versions::Table)
        .value(Versions::UpdatedAt, now.0)
        .and_where(is_version(model, number))
        .to_owned()
}

fn entry(by: &Actor, at: Timestamp, action: &str, subject: String, detail: String) -> Audit {
    Audit {
        at,
        by: by.clone(),
        action: action.to_owned(),
        subject,
        result: "done".to_owned(),
        detail,
    }
}

impl Store {
    /// Makes a model without a version; answers whether there was none of that name.
    pub async fn model_create(
        &self,
        name: &str,
        (description, tags): (&str, &[(String, String)]),
        now: Timestamp,
        by: &Actor,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            if !model(tx, name, (description, tags), now).await? {
                return Ok(false);
            }
            if !description.is_empty() {
                let say = change_model(name, now)
                    .value(Models::Description, description)
                    .to_owned();
                tx.execute(&say).await?;
            }
            for (key, value) in tags {
                put_model_tag(tx, name, (key, value)).await?;
            }
            let made = entry(by, now, "model.created", of_model(name), "without a version".to_owned());
            audits(tx, &[&made]).await?;
            Ok(true)
        })
    }

    /// Describes a model; answers whether it is there.
    pub async fn model_describe(
        &self,
        name: &str,
        text: &str,
        now: Timestamp,
        by: &Actor,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            let say = change_model(name, now)
                .value(Models::Description, text)
                .to_owned();
            if tx.execute(&say).await?.rows_affected() == 0 {
                return Ok(false);
            }
            let said = entry(by, now, "model.described", of_model(name), text.to_owned());
            audits(tx, &[&said]).await?;
            Ok(true)
        })
    }

    /// Sets a tag of a model, or removes it; answers whether the model is there.
    pub async fn model_tag(
        &self,
        name: &str,
        (key, value): (&str, Option<&str>),
        now: Timestamp,
        by: &Actor,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            if tx.execute(&change_model(name, now)).await?.rows_affected() == 0 {
                return Ok(false);
            }
            if let Some(value) = value {
                put_model_tag(tx, name, (key, value)).await?;
            } else {
                let delete = Query::delete()
                    .from_table(ModelTags::Table)
                    .and_where(Expr::col(ModelTags::Model).eq(name))
                    .and_where(Expr::col(ModelTags::Key).eq(key))
                    .to_owned();
                tx.execute(&delete).await?;
            }
            let tagged = entry(by, now, "model.tagged", of_model(name), tag_text(key, value));
            audits(tx, &[&tagged]).await?;
            Ok(true)
        })
    }

    /// Describes a version; answers whether it is there.
    pub async fn version_describe(
        &self,
        (model, number): (&str, u32),
        text: &str,
        now: Timestamp,
        by: &Actor,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            let say = change_version(model, number, now)
                .value(Versions::Description, text)
                .to_owned();
            if tx.execute(&say).await?.rows_affected() == 0 {
                return Ok(false);
            }
            let said = entry(by, now, "version.described", of_version(model, number), text.to_owned());
            audits(tx, &[&said]).await?;
            Ok(true)
        })
    }

    /// Sets a tag of a version, or removes it; answers whether the version is there.
    pub async fn version_tag(
        &self,
        (model, number): (&str, u32),
        (key, value): (&str, Option<&str>),
        now: Timestamp,
        by: &Actor,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            if tx.execute(&change_version(model, number, now)).await?.rows_affected() == 0 {
                return Ok(false);
            }
            if let Some(value) = value {
                version_tags(tx, (model, number), [(key, value)]).await?;
            } else {
                let delete = Query::delete()
                    .from_table(VersionTags::Table)
                    .and_where(Expr::col(VersionTags::Model).eq(model))
                    .and_where(Expr::col(VersionTags::Number).eq(i64::from(number)))
                    .and_where(Expr::col(VersionTags::Key).eq(key))
                    .to_owned();
                tx.execute(&delete).await?;
            }
            let told = Told {
                topic: if value.is_some() { "model_version_tag.set" } else { "model_version_tag.deleted" },
                subject: of_model(model),
                at: now,
                doc: json!({ "name": model, "version": number, "key": key, "value": value }).to_string(),
            };
            tell(tx, vec![told]).await?;
            let tagged = entry(by, now, "version.tagged", of_version(model, number), tag_text(key, value));
            audits(tx, &[&tagged]).await?;
            Ok(true)
        })
    }

    /// Gives a version a stage, and takes it from the others when asked; answers whether the version
    /// is there. A stage is a word: nothing is pulled by it.
    pub async fn version_stage(
        &self,
        (model, number): (&str, u32),
        (stage, archive_others): (&str, bool),
        now: Timestamp,
        by: &Actor,
    ) -> Result<bool, StoreError> {
        ingest!(self, tx => {
            let move_it = change_version(model, number, now)
                .value(Versions::Stage, stage)
                .to_owned();
            if tx.execute(&move_it).await?.rows_affected() == 0 {
                return Ok(false);
            }
            if archive_others {
                let others = Query::update()
                    .table(Versions::Table)
                    .value(Versions::UpdatedAt, now.0)
                    .value(Versions::Stage, ARCHIVED)
                    .and_where(Expr::col(Versions::Model).eq(model))
                    .and_where(Expr::col(Versions::Number).ne(i64::from(number)))
                    .and_where(Expr::col(Versions::Stage).eq(stage))
                    .and_where(Expr::col(Versions::DeletedAt).is_null())
                    .to_owned();
                tx.execute(&others).await?;
            }
            tx.execute(&change_model(model, now)).await?;
            let moved = entry(by, now, "version.staged", of_version(model, number), stage.to_owned());
            audits(tx, &[&moved]).await?;
            Ok(true)
        })
    }

    /// Somebody pulls a version: it is not deleted until then. Written at most about once a minute.
    pub async fn version_pulled(
        &self,
        (model, number): (&str, u32),
        until: Timestamp,
    ) -> Result<(), StoreError> {
        const MINUTE_MS: i64 = 60_000;
        let stale = Expr::col(Versions::PulledUntil)
            .is_null()
            .or(Expr::col(Versions::PulledUntil).lt(until.0 - MINUTE_MS));
        let ask = Query::select()
            .expr(Expr::val(1))
            .from(Versions::Table)
            .and_where(is_version(model, number))
            .and_where(stale)
            .to_owned();
        if self.readers.query_one(&ask).await?.is_none() {
            return Ok(());
        }
        ingest!(self, tx => {
            let hold = Query::update()
                .table(Versions::Table)
                .value(Versions::PulledUntil, until.0)
                .and_where(is_version(model, number))
                .to_owned();
            tx.execute(&hold).await?;
            Ok(())
        })
    }

    /// Until when somebody pulls a version, or any version of a model.
    pub async fn pulled_until(
        &self,
        model: &str,
        number: Option<u32>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut query = Query::select();
        query
            .expr(Expr::col(Versions::PulledUntil).max())
            .from(Versions::Table)
            .and_where(Expr::col(Versions::Model).eq(model))
            .and_where(Expr::col(Versions::DeletedAt).is_null());
        if let Some(number) = number {
            query.and_where(Expr::col(Versions::Number).eq(i64::from(number)));
        }
        let row = self.readers.query_one(&query).await?;
        let until: Option<i64> = match row {
            Some(row) => row.try_get_by_index(0)?,
            None => None,
        };
        Ok(until.map(Timestamp))
    }
}

fn of_version(model: &str, number: u32) -> String {
    format!("{}/{number}", of_model(model))
}

fn tag_text(key: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("`{key}` is `{value}`"),
        None => format!("`{key}` was removed"),
    }
}

async fn put_model_tag(
    tx: &DatabaseTransaction,
    model: &str,
    (key, value): (&str, &str),
) -> Result<(), StoreError> {
    let columns = [ModelTags::Model, ModelTags::Key, ModelTags::Value]
        .map(sea_orm::sea_query::IntoIden::into_iden);
    let row = vec![model.into(), key.into(), value.into()];
    let table = ModelTags::Table.into_iden();
    insert(
        tx,
        table,
        &columns,
        vec![row],
        &OnRepeat::Replace { key: 2 },
    )
    .await?;
    Ok(())
}
