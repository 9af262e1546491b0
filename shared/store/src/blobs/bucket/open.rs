//! An object that is being read.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::{GetOptions, GetRange, ObjectStore as _};
use pomona_domain::Digest;
use pomona_migrations::tables::Blobs as Rows;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sha2::{Digest as _, Sha256};

use super::{Bucket, broken, is_missing};
use crate::blobs::BlobStat;
use crate::{Store, StoreError};

/// An object that is being read. The whole is checked, and a range is not: what stands before it
/// would have to come over the network for nothing.
pub(crate) struct Open {
    bucket: Bucket,
    store: Store,
    object: String,
    body: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    /// Bytes that came.
    came: u64,
    hasher: Sha256,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("object", &self.object)
            .field("came", &self.came)
            .finish_non_exhaustive()
    }
}

impl Open {
    pub(crate) fn new(bucket: Bucket, store: Store, object: String) -> Self {
        Self {
            bucket,
            store,
            object,
            body: None,
            came: 0,
            hasher: Sha256::new(),
        }
    }

    /// The next bytes of what is left of a range.
    pub(crate) async fn read(
        &mut self,
        stat: BlobStat,
        left: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let is_whole = left.start == self.came && left.end == stat.size;
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.ask(stat, left.clone(), is_whole).await?,
        };
        loop {
            let bytes = match body.next().await {
                Some(bytes) => bytes.map_err(broken)?,
                None if is_whole => return self.end(stat, Bytes::new()).await,
                None if left.is_empty() => return Ok(Bytes::new()),
                None => return Err(self.corrupt(stat).await),
            };
            if bytes.is_empty() {
                continue;
            }
            self.came += bytes.len() as u64;
            if is_whole {
                self.hasher.update(&bytes);
                if self.came >= stat.size {
                    return self.end(stat, bytes).await;
                }
            }
            self.body = Some(body);
            return Ok(bytes);
        }
    }

    /// Begins to read; an object of another size is damaged.
    async fn ask(
        &mut self,
        stat: BlobStat,
        range: Range<u64>,
        is_whole: bool,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, StoreError> {
        let range = (!is_whole).then_some(GetRange::Bounded(range));
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let path = self.bucket.path(&self.object);
        match self.bucket.0.s3.get_opts(&path, options).await {
            Ok(got) if got.meta.size == stat.size => Ok(got.into_stream()),
            Ok(_) => Err(self.corrupt(stat).await),
            Err(error) if is_missing(&error) => Err(StoreError::BlobMissing {
                digest: stat.digest,
            }),
            Err(error) => Err(broken(error)),
        }
    }

    /// The last bytes of the whole, if all of them have the blob's name.
    async fn end(&mut self, stat: BlobStat, last: Bytes) -> Result<Bytes, StoreError> {
        if self.came == stat.size && self.found() == stat.digest {
            return Ok(last);
        }
        Err(self.corrupt(stat).await)
    }

    fn found(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    /// Marks the blob, so that nobody takes it for being here and an upload can repair it.
    async fn corrupt(&mut self, stat: BlobStat) -> StoreError {
        let mut update = Query::update();
        update
            .table(Rows::Table)
            .value(Rows::Damaged, true)
            .and_where(Expr::col(Rows::Digest).eq(stat.digest.to_string()))
            // Not one that was uploaded meanwhile.
            .and_where(Expr::col(Rows::Object).eq(self.object.as_str()));
        // The error says the same; the mark is for those who come later.
        let _ = self.store.change(&update).await;
        match self.digest().await {
            Ok(found) => StoreError::BlobCorrupt {
                digest: stat.digest,
                found,
            },
            Err(error) => error,
        }
    }

    /// The digest of what is there.
    async fn digest(&mut self) -> Result<Digest, StoreError> {
        self.hasher = Sha256::new();
        let path = self.bucket.path(&self.object);
        let got = self
            .bucket
            .0
            .s3
            .get_opts(&path, GetOptions::default())
            .await;
        let mut body = got.map_err(broken)?.into_stream();
        while let Some(bytes) = body.next().await {
            self.hasher.update(&bytes.map_err(broken)?);
        }
        Ok(self.found())
    }
}
