//! Files that clients put under a path: names for blobs.
//!
//! A path is what the caller has checked; here it is a key. Its blob is kept as long as its row is,
//! and writing over a path lets the blob of before go.

use std::collections::{BTreeMap, BTreeSet};

use pomona_domain::{Digest, Timestamp};
use pomona_migrations::tables::{Artifacts as Rows, BlobRefs};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Order, Query, SimpleExpr};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::KEYS_PER_STATEMENT;
use crate::commit::refs::hold;
use crate::commit::{OnRepeat, insert};
use crate::rows::{parsed, signed, unsigned};
use crate::{BlobStat, Store, StoreError, ingest};

/// The role of an artifact's reference to its blob; the owner is its path.
const ROLE: &str = "artifact";
/// Paths that one list reads at most.
const LISTED: u64 = 100_000;

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactEntry {
    /// Its name in the folder.
    pub name: String,
    /// Its bytes; `None`: it is a folder.
    pub size: Option<u64>,
}

impl Store {
    /// Gives a blob a path; whatever had it loses it.
    pub async fn artifact_put(
        &self,
        path: &str,
        blob: BlobStat,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let digest = blob.digest.to_string();
        ingest!(self, tx => {
            let row = vec![
                path.into(),
                digest.as_str().into(),
                signed(blob.size).into(),
                now.0.into(),
            ];
            let columns = [Rows::Path, Rows::Digest, Rows::Size, Rows::At].map(IntoIden::into_iden);
            let table = Rows::Table.into_iden();
            insert(tx, table, &columns, vec![row], &OnRepeat::Replace { key: 1 }).await?;
            hold(tx, BTreeSet::from([blob.digest])).await?;
            let row = vec![path.into(), ROLE.into(), digest.as_str().into()];
            let columns = [BlobRefs::Owner, BlobRefs::Role, BlobRefs::Digest];
            let columns = columns.map(IntoIden::into_iden);
            let table = BlobRefs::Table.into_iden();
            insert(tx, table, &columns, vec![row], &OnRepeat::Replace { key: 2 }).await?;
            Ok(())
        })
    }

    /// The blob at a path.
    pub async fn artifact_get(&self, path: &str) -> Result<Option<BlobStat>, StoreError> {
        let query = Query::select()
            .columns([Rows::Digest, Rows::Size])
            .from(Rows::Table)
            .and_where(Expr::col(Rows::Path).eq(path))
            .to_owned();
        let Some(row) = self.readers.query_one(&query).await? else {
            return Ok(None);
        };
        let digest: Digest = parsed(&row.try_get_by_index::<String>(0)?)?;
        let size = unsigned(row.try_get_by_index(1)?);
        Ok(Some(BlobStat { digest, size }))
    }

    /// What is in a folder, by name; nothing in one that is not there.
    pub async fn artifact_list(&self, folder: &str) -> Result<Vec<ArtifactEntry>, StoreError> {
        let query = Query::select()
            .columns([Rows::Path, Rows::Size])
            .from(Rows::Table)
            .and_where(within(folder))
            .order_by(Rows::Path, Order::Asc)
            .limit(LISTED)
            .to_owned();
        let mut entries: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for row in self.readers.query_all(&query).await? {
            let path: String = row.try_get_by_index(0)?;
            let below = below(&path, folder);
            if let Some((name, _)) = below.split_once('/') {
                entries.insert(name.to_owned(), None);
            } else {
                let size = unsigned(row.try_get_by_index(1)?);
                entries.entry(below.to_owned()).or_insert(Some(size));
            }
        }
        let entries = entries.into_iter();
        Ok(entries
            .map(|(name, size)| ArtifactEntry { name, size })
            .collect())
    }

    /// Every file in a folder and below, by path.
    pub async fn artifact_tree(&self, folder: &str) -> Result<Vec<(String, BlobStat)>, StoreError> {
        let query = Query::select()
            .columns([Rows::Path, Rows::Digest, Rows::Size])
            .from(Rows::Table)
            .and_where(within(folder))
            .order_by(Rows::Path, Order::Asc)
            .limit(LISTED)
            .to_owned();
        let mut files = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let path: String = row.try_get_by_index(0)?;
            let digest: Digest = parsed(&row.try_get_by_index::<String>(1)?)?;
            let size = unsigned(row.try_get_by_index(2)?);
            let below = below(&path, folder);
            files.push((below.to_owned(), BlobStat { digest, size }));
        }
        Ok(files)
    }

    /// Removes a file, or a folder with all below it; answers how many files went.
    pub async fn artifact_delete(&self, path: &str) -> Result<u64, StoreError> {
        ingest!(self, tx => {
            let mut removed = 0;
            loop {
                let some = paths(tx, path).await?;
                if some.is_empty() {
                    break Ok(removed);
                }
                let names = || some.iter().map(String::as_str);
                let rows = Query::delete()
                    .from_table(Rows::Table)
                    .and_where(Expr::col(Rows::Path).is_in(names()))
                    .to_owned();
                removed += tx.execute(&rows).await?.rows_affected();
                let references = Query::delete()
                    .from_table(BlobRefs::Table)
                    .and_where(Expr::col(BlobRefs::Role).eq(ROLE))
                    .and_where(Expr::col(BlobRefs::Owner).is_in(names()))
                    .to_owned();
                tx.execute(&references).await?;
            }
        })
    }
}

/// Some of the files at a path and below.
async fn paths(tx: &DatabaseTransaction, path: &str) -> Result<Vec<String>, StoreError> {
    let query = Query::select()
        .column(Rows::Path)
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Path).eq(path).or(within(path)))
        .limit(KEYS_PER_STATEMENT as u64)
        .to_owned();
    let rows = tx.query_all(&query).await?;
    let paths = rows.iter().map(|row| row.try_get_by_index(0));
    Ok(paths.collect::<Result<_, _>>()?)
}

/// A path as it is called in a folder; the root has no name.
fn below<'a>(path: &'a str, folder: &str) -> &'a str {
    let path = path.strip_prefix(folder).unwrap_or(path);
    path.strip_prefix('/').unwrap_or(path)
}

/// Paths below a folder: `0` follows `/`.
fn within(folder: &str) -> SimpleExpr {
    let path = Expr::col(Rows::Path);
    if folder.is_empty() {
        return path.ne("");
    }
    let from = path.clone().gte(format!("{folder}/"));
    from.and(path.lt(format!("{folder}0")))
}
