//! Rows of uploads under way: what somebody else needs to go on with one, or to give it up.

use pomona_domain::Timestamp;
use pomona_migrations::tables::BlobUploads as Rows;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{DeleteStatement, Expr, ExprTrait as _, Query, UpdateStatement};
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::{Blobs, blocking};
use crate::rows::{decode, encode, signed, unsigned};
use crate::{Store, StoreError, ingest};

/// How long an upload is kept after the last sign of life of its sender.
pub const UPLOAD_KEEP_MS: i64 = 86_400_000;
/// Uploads that one call of the collection gives up at most.
const EXPIRE_BATCH: u64 = 100;

/// What is known of an upload, beside its row's columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Doc {
    /// The object it becomes; empty in a folder.
    pub object: String,
    /// Its name on the server, when parts went there.
    pub multipart: Option<String>,
    /// What the server called each part.
    pub parts: Vec<String>,
    /// Bytes of those.
    pub kept: u64,
    /// Bytes after them that are too few for a part.
    pub tail: u64,
    /// Whether there may be an object with such bytes.
    pub has_tail: bool,
    /// The state of the hash after `kept` bytes.
    pub hash: Option<String>,
}

/// The right to go on with an upload, until somebody else takes it.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub id: String,
    version: u64,
}

/// The object with the bytes that are too few for a part.
pub(super) fn tail(object: &str) -> String {
    format!("{object}.tail")
}

/// The object whose upload an object is of: itself, but for a tail.
pub(super) fn whole(object: &str) -> String {
    object.strip_suffix(".tail").unwrap_or(object).to_owned()
}

/// A row that somebody may still be at work on.
pub(super) async fn insert(
    store: &Store,
    id: &str,
    doc: &Doc,
    now: Timestamp,
) -> Result<(), StoreError> {
    let text = encode("blob_uploads", doc)?;
    let object = (!doc.object.is_empty()).then_some(doc.object.as_str());
    let mut insert = Query::insert();
    insert
        .into_table(Rows::Table)
        .columns([
            Rows::Id,
            Rows::Version,
            Rows::TouchedAt,
            Rows::Object,
            Rows::Doc,
        ])
        .values_panic([
            id.into(),
            1.into(),
            now.0.into(),
            object.into(),
            text.into(),
        ]);
    ingest!(store, tx => {
        tx.execute(&insert).await?;
        Ok(())
    })
}

/// An upload and its version.
pub(super) async fn get(store: &Store, id: &str) -> Result<(u64, Doc), StoreError> {
    let query = Query::select()
        .columns([Rows::Version, Rows::Doc])
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Id).eq(id))
        .to_owned();
    let row = store.readers.query_one(&query).await?;
    let row = row.ok_or(StoreError::UploadMissing)?;
    let doc = decode("blob_uploads", &row.try_get_by_index::<String>(1)?)?;
    Ok((unsigned(row.try_get_by_index(0)?), doc))
}

/// Takes the right to go on from whoever has it, if nobody did since it was read.
pub(super) async fn claim(
    store: &Store,
    id: &str,
    version: u64,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    let mut update = update(id, version, now);
    update.value(Rows::Version, signed(version + 1));
    if store.change(&update).await? == 0 {
        return Err(StoreError::UploadBusy);
    }
    Ok(Claim {
        id: id.to_owned(),
        version: version + 1,
    })
}

/// A sign of life of whoever has the right, and what is known now.
pub(super) async fn touch(
    store: &Store,
    claim: &Claim,
    doc: Option<&Doc>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut update = update(&claim.id, claim.version, now);
    if let Some(doc) = doc {
        update.value(Rows::Doc, encode("blob_uploads", doc)?);
    }
    match store.change(&update).await? {
        0 => Err(StoreError::UploadBusy),
        _ => Ok(()),
    }
}

fn update(id: &str, version: u64, now: Timestamp) -> UpdateStatement {
    let mut update = Query::update();
    update
        .table(Rows::Table)
        .value(Rows::TouchedAt, now.0)
        .and_where(Expr::col(Rows::Id).eq(id))
        .and_where(Expr::col(Rows::Version).eq(signed(version)));
    update
}

/// The end of a row.
pub(super) fn deletion(id: &str) -> DeleteStatement {
    let mut delete = Query::delete();
    delete
        .from_table(Rows::Table)
        .and_where(Expr::col(Rows::Id).eq(id));
    delete
}

pub(super) async fn remove(store: &Store, id: &str) -> Result<(), StoreError> {
    let delete = deletion(id);
    ingest!(store, tx => {
        tx.execute(&delete).await?;
        Ok(())
    })
}

/// Those of the objects that an upload with a row becomes.
pub(super) async fn coming(store: &Store, objects: &[String]) -> Result<Vec<String>, StoreError> {
    let query = Query::select()
        .column(Rows::Object)
        .from(Rows::Table)
        .and_where(Expr::col(Rows::Object).is_in(objects))
        .to_owned();
    let rows = store.readers.query_all(&query).await?;
    let ids: Result<_, _> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
    Ok(ids?)
}

/// Gives up uploads whose sender was silent for [`UPLOAD_KEEP_MS`]; says how many. The bytes go
/// first: killed in between, it is done again.
pub(super) async fn expire(store: &Store, now: Timestamp) -> Result<u64, StoreError> {
    let query = Query::select()
        .columns([Rows::Id, Rows::Doc])
        .from(Rows::Table)
        .and_where(Expr::col(Rows::TouchedAt).lt(now.plus_ms(-UPLOAD_KEEP_MS).0))
        .limit(EXPIRE_BATCH)
        .to_owned();
    let mut expired = 0;
    for row in store.readers.query_all(&query).await? {
        let id: String = row.try_get_by_index(0)?;
        let doc: Doc = decode("blob_uploads", &row.try_get_by_index::<String>(1)?)?;
        expired += u64::from(give_up(store, &id, &doc).await?);
    }
    Ok(expired)
}

/// Forgets an upload and its bytes; says whether that was possible.
pub(super) async fn give_up(store: &Store, id: &str, doc: &Doc) -> Result<bool, StoreError> {
    match &store.blobs {
        Blobs::Folder(folder) => {
            let path = folder.session(id);
            // What stays has no row, and nobody asks for it.
            blocking(move || {
                let _ = std::fs::remove_file(path);
                Ok(())
            })
            .await?;
        }
        Blobs::Bucket(bucket) => {
            if !forget(bucket, doc).await? {
                return Ok(false);
            }
            if doc.has_tail {
                bucket.remove(&[tail(&doc.object)]).await?;
            }
        }
    }
    remove(store, id).await?;
    Ok(true)
}

/// Makes the server forget an upload; says whether it did.
async fn forget(bucket: &Bucket, doc: &Doc) -> Result<bool, StoreError> {
    let Some(multipart) = &doc.multipart else {
        return Ok(true);
    };
    match bucket.abort(&doc.object, multipart).await {
        Ok(()) => Ok(true),
        // Some servers refuse what they do not know. One that was completed is not known any more.
        Err(StoreError::ObjectsRefused { .. }) => Ok(bucket.size(&doc.object).await?.is_some()),
        Err(error) => Err(error),
    }
}
