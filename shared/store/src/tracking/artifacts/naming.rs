//! Files without a name become blobs.

use pomona_domain::Timestamp;
use pomona_migrations::tables::Artifacts as Rows;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};

use super::write::refer;
use crate::blobs::{Blobs, Folder, Put, blocking, upsert};
use crate::rows::unsigned;
use crate::{Store, StoreError, ingest};

/// Ids that one list has at most.
const LISTED: u64 = 100;

impl Store {
    /// Files that have no name yet, the oldest first.
    pub async fn artifacts_unnamed(&self) -> Result<Vec<String>, StoreError> {
        let query = Query::select()
            .column(Rows::Unnamed)
            .from(Rows::Table)
            .and_where(Expr::col(Rows::Unnamed).is_not_null())
            .order_by(Rows::At, Order::Asc)
            .limit(LISTED)
            .to_owned();
        let rows = self.readers.query_all(&query).await?;
        let ids = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Whether a large file is coming: whoever could hash as well later would be in its way.
    pub fn artifact_is_coming(&self) -> bool {
        match &self.blobs {
            Blobs::Folder(folder) => folder.is_one_coming(),
            Blobs::Bucket(_) => false,
        }
    }

    /// Hashes a file that has no name yet, and makes it a blob. Nothing when it is one by now, or
    /// is gone. It goes on when whoever asked goes away, and who asks again waits for the same.
    pub async fn artifact_name(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let folder = self.blobs.folder("a file without a name")?.clone();
        let (store, id) = (self.clone(), id.to_owned());
        let named = tokio::spawn(async move {
            let turn = folder.turn(&id);
            let _turn = turn.lock().await;
            store.make_blob(&folder, &id, now).await
        });
        match named.await {
            Ok(named) => named,
            Err(error) => Err(StoreError::folder("unnamed")(std::io::Error::other(error))),
        }
    }

    async fn make_blob(&self, folder: &Folder, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let Some((path, size)) = self.unnamed_row(id).await? else {
            return Ok(());
        };
        let (hashed, own) = (folder.clone(), id.to_owned());
        let blob = match blocking(move || hashed.hash_unnamed(&own, size)).await {
            // Another process was faster, or it was written over or deleted meanwhile.
            Err(_) if self.unnamed_row(id).await?.is_none() => return Ok(()),
            hashed => hashed?,
        };
        ingest!(self, tx => {
            let update = Query::update()
                .table(Rows::Table)
                .value(Rows::Digest, blob.digest.to_string())
                .value(Rows::Unnamed, Option::<String>::None)
                .and_where(Expr::col(Rows::Unnamed).eq(id))
                .to_owned();
            if tx.execute(&update).await?.rows_affected() == 0 {
                return Ok(());
            }
            tx.execute(&upsert(blob, &Put::File, now)).await?;
            refer(tx, &path, blob).await?;
            let (folder, id) = (folder.clone(), id.to_owned());
            blocking(move || folder.name_unnamed(&id, blob.digest)).await
        })?;
        self.unnamed_remove(vec![id.to_owned()]).await
    }

    /// The path and the bytes of a file that has no name yet.
    async fn unnamed_row(&self, id: &str) -> Result<Option<(String, u64)>, StoreError> {
        let query = Query::select()
            .columns([Rows::Path, Rows::Size])
            .from(Rows::Table)
            .and_where(Expr::col(Rows::Unnamed).eq(id))
            .to_owned();
        let Some(row) = self.readers.query_one(&query).await? else {
            return Ok(None);
        };
        let size = unsigned(row.try_get_by_index(1)?);
        Ok(Some((row.try_get_by_index(0)?, size)))
    }

    /// Removes files that no row names any more by their ids.
    pub(super) async fn unnamed_remove(&self, ids: Vec<String>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let folder = self.blobs.folder("a file without a name")?.clone();
        blocking(move || folder.remove_unnamed(&ids)).await
    }
}
