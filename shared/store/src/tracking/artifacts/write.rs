//! A file that is coming, and the row about it.

use std::collections::BTreeSet;

use pomona_domain::Timestamp;
use pomona_migrations::tables::{Artifacts as Rows, BlobRefs};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Query};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};

use super::{Content, ROLE};
use crate::blobs::unnamed::UnnamedWriter;
use crate::commit::refs::hold;
use crate::commit::{OnRepeat, insert};
use crate::rows::signed;
use crate::{BlobStat, BlobWriter, Store, StoreError, ingest};

/// Bytes from which a file is hashed after its sender was answered: fewer are hashed in no time.
const LARGE: u64 = 16 << 20;

/// A file that is coming. Dropped before [`ArtifactWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct ArtifactWriter {
    store: Store,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Blob(BlobWriter),
    Unnamed(String, UnnamedWriter),
}

impl ArtifactWriter {
    /// Takes the next bytes. [`StoreError::TooLarge`] when they are more than the limit.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match &mut self.sink {
            Sink::Blob(writer) => writer.write(bytes).await,
            Sink::Unnamed(_, writer) => writer.write(bytes).await,
        }
    }

    /// Bytes that came so far.
    pub fn size(&self) -> u64 {
        match &self.sink {
            Sink::Blob(writer) => writer.size(),
            Sink::Unnamed(_, writer) => writer.size(),
        }
    }

    /// The end of the bytes: returns when the file is at rest at a path. Whatever had it loses it.
    pub async fn finish(self, path: &str, now: Timestamp) -> Result<(), StoreError> {
        let (content, size) = match self.sink {
            Sink::Blob(writer) => {
                let blob = writer.finish(now).await?;
                (Content::Blob(blob), blob.size)
            }
            Sink::Unnamed(id, writer) => {
                let size = writer.finish(id.clone()).await?;
                (Content::Unnamed(id), size)
            }
        };
        put(&self.store, path, (content, size), now).await
    }
}

impl Store {
    /// Begins a file of at most `limit` bytes, of which its sender announced some. `id` is 32
    /// hexadecimal digits that nobody else has.
    pub async fn artifact_writer(
        &self,
        announced: Option<u64>,
        id: String,
        limit: u64,
        now: Timestamp,
    ) -> Result<ArtifactWriter, StoreError> {
        let unnamed = if announced.is_some_and(|size| size >= LARGE) {
            self.unnamed_writer(limit).await?
        } else {
            None
        };
        let sink = match unnamed {
            Some(writer) => Sink::Unnamed(id, writer),
            None => Sink::Blob(self.blob_writer(None, limit, now).await?),
        };
        Ok(ArtifactWriter {
            store: self.clone(),
            sink,
        })
    }
}

/// Gives a path to a blob, or to a file that has an id and no name yet.
async fn put(
    store: &Store,
    path: &str,
    (content, size): (Content, u64),
    now: Timestamp,
) -> Result<(), StoreError> {
    let (digest, unnamed) = match &content {
        Content::Blob(blob) => (blob.digest.to_string(), None),
        Content::Unnamed(id) => (String::new(), Some(id.clone())),
    };
    let row = vec![
        path.into(),
        digest.into(),
        signed(size).into(),
        now.0.into(),
        unnamed.into(),
    ];
    let columns = [
        Rows::Path,
        Rows::Digest,
        Rows::Size,
        Rows::At,
        Rows::Unnamed,
    ];
    let columns = columns.map(IntoIden::into_iden);
    // One that another writer puts there meanwhile is swept.
    let before = unnamed_at(store, path).await?;
    ingest!(store, tx => {
        let table = Rows::Table.into_iden();
        insert(tx, table, &columns, vec![row.clone()], &OnRepeat::Replace { key: 1 }).await?;
        match &content {
            Content::Blob(blob) => refer(tx, path, *blob).await?,
            Content::Unnamed(_) => release(tx, path).await?,
        }
        Ok(())
    })?;
    store.unnamed_remove(before).await
}

/// The file without a name that has a path.
async fn unnamed_at(store: &Store, path: &str) -> Result<Vec<String>, StoreError> {
    let query = Query::select()
        .column(Rows::Unnamed)
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Path).eq(path))
        .and_where(Expr::col(Rows::Unnamed).is_not_null())
        .to_owned();
    let rows = store.readers.query_all(&query).await?;
    let ids = rows.iter().map(|row| row.try_get_by_index(0));
    Ok(ids.collect::<Result<_, _>>()?)
}

/// That a path needs a blob, which must be here, and none that it needed before.
pub(super) async fn refer(
    tx: &DatabaseTransaction,
    path: &str,
    blob: BlobStat,
) -> Result<(), StoreError> {
    hold(tx, BTreeSet::from([blob.digest])).await?;
    let row = vec![path.into(), ROLE.into(), blob.digest.to_string().into()];
    let columns = [BlobRefs::Owner, BlobRefs::Role, BlobRefs::Digest];
    let columns = columns.map(IntoIden::into_iden);
    let table = BlobRefs::Table.into_iden();
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

/// That a path needs no blob.
async fn release(tx: &DatabaseTransaction, path: &str) -> Result<(), StoreError> {
    let release = Query::delete()
        .from_table(BlobRefs::Table)
        .and_where(Expr::col(BlobRefs::Role).eq(ROLE))
        .and_where(Expr::col(BlobRefs::Owner).eq(path))
        .to_owned();
    tx.execute(&release).await?;
    Ok(())
}
