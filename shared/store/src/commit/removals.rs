//! What is deleted from the registry or has another name. Rows of what is deleted stay: numbers and
//! revisions go on from them.

use pomona_domain::model::{Removal, Version};
use pomona_domain::{Timestamp, VersionId};
use pomona_migrations::tables::{
    AliasHistory, Aliases, Approvals, BlobRefs, Judgements, ModelTags, Models, VersionOutcomes,
    VersionTags, Versions,
};
use sea_orm::sea_query::{DynIden, Expr, ExprTrait as _, IntoIden, Query, UpdateStatement};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::registry::{run, source};
use super::{OnRepeat, insert};
use crate::StoreError;
use crate::rows::encode;

/// Deletes and renames, oldest first.
pub(super) async fn removals(
    tx: &DatabaseTransaction,
    removals: &[&Removal],
) -> Result<(), StoreError> {
    for removal in removals {
        match removal {
            Removal::Version { model, number, at } => {
                delete_versions(tx, model, Some(*number), *at).await?;
            }
            Removal::Model { model, at } => {
                delete_versions(tx, model, None, *at).await?;
                let delete = Query::update()
                    .table(Models::Table)
                    .value(Models::DeletedAt, at.0)
                    .and_where(Expr::col(Models::Name).eq(model))
                    .to_owned();
                tx.execute(&delete).await?;
                let tags = Query::delete()
                    .from_table(ModelTags::Table)
                    .and_where(Expr::col(ModelTags::Model).eq(model))
                    .to_owned();
                tx.execute(&tags).await?;
            }
            Removal::Renamed { model, to, at } => rename(tx, model, to, *at).await?,
        }
    }
    Ok(())
}

/// Marks versions as deleted and lets go of their files.
async fn delete_versions(
    tx: &DatabaseTransaction,
    model: &str,
    number: Option<u32>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut delete = Query::update();
    delete
        .table(Versions::Table)
        .value(Versions::DeletedAt, at.0)
        .and_where(Expr::col(Versions::Model).eq(model))
        .and_where(Expr::col(Versions::DeletedAt).is_null());
    let mut owners = Query::select();
    owners
        .column(Versions::Id)
        .from(Versions::Table)
        .and_where(Expr::col(Versions::Model).eq(model));
    if let Some(number) = number {
        delete.and_where(Expr::col(Versions::Number).eq(i64::from(number)));
        owners.and_where(Expr::col(Versions::Number).eq(i64::from(number)));
    }
    tx.execute(&delete).await?;
    let release = Query::delete()
        .from_table(BlobRefs::Table)
        .and_where(Expr::col(BlobRefs::Owner).in_subquery(owners))
        .to_owned();
    tx.execute(&release).await?;
    Ok(())
}

/// Gives a model another name: new rows first, then whatever points to the old ones, then the old
/// ones go.
async fn rename(
    tx: &DatabaseTransaction,
    model: &str,
    to: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let of_model = || Expr::col(Models::Name).eq(model);
    // A model without a version may have been made of that name since it was decided.
    let taken = Query::select()
        .expr(Expr::val(1))
        .from(Models::Table)
        .and_where(Expr::col(Models::Name).eq(to))
        .to_owned();
    if tx.query_one(&taken).await?.is_some() {
        return Err(StoreError::Conflict {
            what: format!("the name `{to}`"),
        });
    }
    let columns = [Models::CreatedAt, Models::Description, Models::DeletedAt];
    let mut old = Query::select();
    old.expr(Expr::val(to))
        .expr(Expr::val(at.0))
        .columns(columns)
        .from(Models::Table)
        .and_where(of_model());
    let mut new = Query::insert();
    new.into_table(Models::Table).columns([
        Models::Name,
        Models::UpdatedAt,
        Models::CreatedAt,
        Models::Description,
        Models::DeletedAt,
    ]);
    new.select_from(old).map_err(|error| StoreError::NotFound {
        what: error.to_string(),
    })?;
    tx.execute(&new).await?;
    rename_versions(tx, model, to).await?;
    for update in renamings(model, to) {
        tx.execute(&update).await?;
    }
    let versions = Query::delete()
        .from_table(Versions::Table)
        .and_where(Expr::col(Versions::Model).eq(model))
        .to_owned();
    tx.execute(&versions).await?;
    let models = Query::delete()
        .from_table(Models::Table)
        .and_where(of_model())
        .to_owned();
    tx.execute(&models).await?;
    Ok(())
}

/// Whatever else has a model's name.
fn renamings(model: &str, to: &str) -> Vec<UpdateStatement> {
    let renamed = |table: DynIden, column: DynIden| {
        Query::update()
            .table(table)
            .value(column.clone(), to)
            .and_where(Expr::col(column).eq(model))
            .to_owned()
    };
    vec![
        renamed(Aliases::Table.into_iden(), Aliases::Model.into_iden()),
        renamed(
            AliasHistory::Table.into_iden(),
            AliasHistory::Model.into_iden(),
        ),
        renamed(ModelTags::Table.into_iden(), ModelTags::Model.into_iden()),
        renamed(
            VersionTags::Table.into_iden(),
            VersionTags::Model.into_iden(),
        ),
        renamed(
            VersionOutcomes::Table.into_iden(),
            VersionOutcomes::Model.into_iden(),
        ),
        renamed(Approvals::Table.into_iden(), Approvals::Model.into_iden()),
        renamed(Judgements::Table.into_iden(), Judgements::Model.into_iden()),
    ]
}

/// Copies versions to another model, with what holds their blobs.
async fn rename_versions(
    tx: &DatabaseTransaction,
    model: &str,
    to: &str,
) -> Result<(), StoreError> {
    use Versions as V;
    let query = Query::select()
        .columns([
            V::Doc,
            V::Description,
            V::Stage,
            V::UpdatedAt,
            V::DeletedAt,
            V::PulledUntil,
        ])
        .from(V::Table)
        .and_where(Expr::col(V::Model).eq(model))
        .to_owned();
    let mut values = Vec::new();
    let mut ids: Vec<(VersionId, VersionId)> = Vec::new();
    for row in tx.query_all(&query).await? {
        let text: String = row.try_get_by_index(0)?;
        let mut version: Version = crate::rows::decode("versions", &text)?;
        let before = version.id;
        version.rename(to);
        ids.push((before, version.id));
        values.push(vec![
            version.id.to_string().into(),
            to.into(),
            i64::from(version.number).into(),
            version.digest.to_string().into(),
            version.created_at.0.into(),
            encode("versions", &version)?.into(),
            source(&version).into(),
            run(&version).into(),
            row.try_get_by_index::<String>(1)?.into(),
            row.try_get_by_index::<String>(2)?.into(),
            row.try_get_by_index::<Option<i64>>(3)?.into(),
            row.try_get_by_index::<Option<i64>>(4)?.into(),
            row.try_get_by_index::<Option<i64>>(5)?.into(),
        ]);
    }
    let columns = [
        V::Id,
        V::Model,
        V::Number,
        V::Digest,
        V::CreatedAt,
        V::Doc,
        V::Source,
        V::RunId,
        V::Description,
        V::Stage,
        V::UpdatedAt,
        V::DeletedAt,
        V::PulledUntil,
    ]
    .map(IntoIden::into_iden);
    insert(tx, V::Table.into_iden(), &columns, values, &OnRepeat::Skip).await?;
    for (before, id) in ids {
        let holds = Query::update()
            .table(BlobRefs::Table)
            .value(BlobRefs::Owner, id.to_string())
            .and_where(Expr::col(BlobRefs::Owner).eq(before.to_string()))
            .to_owned();
        tx.execute(&holds).await?;
    }
    Ok(())
}
