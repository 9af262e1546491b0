//! Files that clients put under a path: names for blobs.
//!
//! A path is what the caller has checked; here it is a key. Its blob is kept as long as its row is,
//! and writing over a path lets the blob of before go. A large file is no blob yet when its sender is
//! answered ([`crate::blobs::unnamed`]): it becomes one in a quiet moment ([`naming`]), or when
//! somebody asks for it here.

mod naming;
mod write;

use std::collections::BTreeMap;

use pomona_domain::Timestamp;
use pomona_migrations::tables::{Artifacts as Rows, BlobRefs};
use sea_orm::sea_query::{
    DeleteStatement, Expr, ExprTrait as _, Order, Query, SelectStatement, SimpleExpr,
};
use sea_orm::{ConnectionTrait as _, QueryResult};

use super::KEYS_PER_STATEMENT;
use crate::rows::{parsed, unsigned};
use crate::{BlobStat, Store, StoreError, ingest};

pub use write::ArtifactWriter;

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
    /// Whether there is a file at a path.
    pub async fn artifact_exists(&self, path: &str) -> Result<bool, StoreError> {
        let rows = self.readers.query_one(&at(path)).await?;
        Ok(rows.is_some())
    }

    /// The blob at a path. A file that has no name yet gets it first, and that takes a while.
    pub async fn artifact_get(
        &self,
        path: &str,
        now: Timestamp,
    ) -> Result<Option<BlobStat>, StoreError> {
        loop {
            let Some(row) = self.readers.query_one(&at(path)).await? else {
                return Ok(None);
            };
            match content(&row)? {
                Content::Blob(blob) => return Ok(Some(blob)),
                Content::Unnamed(id) => self.artifact_name(&id, now).await?,
            }
        }
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

    /// Every file in a folder and below, by path. Those that have no name yet get it first.
    pub async fn artifact_tree(
        &self,
        folder: &str,
        now: Timestamp,
    ) -> Result<Vec<(String, BlobStat)>, StoreError> {
        let mut query = contents();
        query
            .and_where(within(folder))
            .order_by(Rows::Path, Order::Asc)
            .limit(LISTED);
        'again: loop {
            let mut files = Vec::new();
            for row in self.readers.query_all(&query).await? {
                match content(&row)? {
                    Content::Blob(blob) => {
                        let path: String = row.try_get_by_index(3)?;
                        files.push((below(&path, folder).to_owned(), blob));
                    }
                    Content::Unnamed(id) => {
                        self.artifact_name(&id, now).await?;
                        continue 'again;
                    }
                }
            }
            return Ok(files);
        }
    }

    /// Removes a file, or a folder with all below it; answers how many files went.
    pub async fn artifact_delete(&self, path: &str) -> Result<u64, StoreError> {
        let mut unnamed = Vec::new();
        let removed = ingest!(self, tx => {
            let mut removed = 0;
            unnamed.clear();
            loop {
                let gone = tx.query_all(&deletion(path)).await?;
                if gone.is_empty() {
                    break Ok(removed);
                }
                removed += gone.len() as u64;
                let mut names: Vec<String> = Vec::new();
                for row in &gone {
                    names.push(row.try_get_by_index(0)?);
                    unnamed.extend(row.try_get_by_index::<Option<String>>(1)?);
                }
                let references = Query::delete()
                    .from_table(BlobRefs::Table)
                    .and_where(Expr::col(BlobRefs::Role).eq(ROLE))
                    .and_where(Expr::col(BlobRefs::Owner).is_in(names))
                    .to_owned();
                tx.execute(&references).await?;
            }
        })?;
        self.unnamed_remove(unnamed).await?;
        Ok(removed)
    }
}

/// What is at a path.
enum Content {
    Blob(BlobStat),
    /// A file that has no name yet, by its id.
    Unnamed(String),
}

/// What [`content`] reads, and paths.
fn contents() -> SelectStatement {
    Query::select()
        .columns([Rows::Digest, Rows::Size, Rows::Unnamed, Rows::Path])
        .from(Rows::Table)
        .to_owned()
}

fn at(path: &str) -> SelectStatement {
    let mut query = contents();
    query.and_where(Expr::col(Rows::Path).eq(path));
    query
}

fn content(row: &QueryResult) -> Result<Content, StoreError> {
    if let Some(id) = row.try_get_by_index(2)? {
        return Ok(Content::Unnamed(id));
    }
    let digest = parsed(&row.try_get_by_index::<String>(0)?)?;
    let size = unsigned(row.try_get_by_index(1)?);
    Ok(Content::Blob(BlobStat { digest, size }))
}

/// The end of some of the files at a path and below. Says their paths, and the ids of those that
/// have no name yet.
fn deletion(path: &str) -> DeleteStatement {
    let some = Query::select()
        .column(Rows::Path)
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Path).eq(path).or(within(path)))
        .limit(KEYS_PER_STATEMENT as u64)
        .to_owned();
    Query::delete()
        .from_table(Rows::Table)
        .and_where(Expr::col(Rows::Path).in_subquery(some))
        .returning(Query::returning().columns([Rows::Path, Rows::Unnamed]))
        .to_owned()
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
