//! Files whose bytes nobody has hashed yet. To hash takes longer than to send and to write, and
//! whoever sends a large file and does not say its digest need not wait for it.
//!
//! ```text
//! sent ──synced──▶ unnamed/<id> ──hashed──▶ linked to its name, with the row of the blob ──▶ id gone
//! ```
//! What is acknowledged is on the disk, and a row says its id. Whoever asks for its digest first, or
//! a quiet moment, has it hashed. The file keeps its id until the row of the blob is there: killed
//! before that, it is done again. Only in a folder; what goes into a bucket is hashed as it comes.

use pomona_domain::Timestamp;
use pomona_migrations::tables::Artifacts;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};

use super::folder::{Coming, Folder, Upload};
use super::write::{ToFile, grown};
use super::{Blobs, DIGESTS_PER_STATEMENT, blocking};
use crate::{Store, StoreError};

/// How old a file without a row must be before it is taken for a left-over: its row is written
/// right after the file is at rest.
pub const UNNAMED_STRAY_MS: i64 = 3_600_000;

/// A file that is coming and gets its name later. Dropped before [`UnnamedWriter::finish`], it
/// leaves nothing.
#[derive(Debug)]
pub(crate) struct UnnamedWriter {
    coming: Coming,
    file: ToFile,
    limit: u64,
    size: u64,
}

impl UnnamedWriter {
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.size = grown(self.size, bytes, self.limit)?;
        self.file.write(bytes).await
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns when the file is at rest under its id, and says its bytes.
    pub async fn finish(self, id: String) -> Result<u64, StoreError> {
        let Self {
            coming, file, size, ..
        } = self;
        let upload = file.sync().await?;
        blocking(move || upload.set_down(&coming.0, &id)).await?;
        Ok(size)
    }
}

impl Store {
    /// Begins a file that gets its name later; `None` where every file has one from the start.
    pub(crate) async fn unnamed_writer(
        &self,
        limit: u64,
    ) -> Result<Option<UnnamedWriter>, StoreError> {
        let Blobs::Folder(folder) = &self.blobs else {
            return Ok(None);
        };
        let coming = Coming::new(folder.clone());
        let folder = folder.clone();
        let upload = blocking(move || Upload::create(&folder, None)).await?;
        Ok(Some(UnnamedWriter {
            coming,
            file: ToFile::new(upload),
            limit,
            size: 0,
        }))
    }

    /// Removes files without a name that no row names.
    pub(super) async fn sweep_unnamed(
        &self,
        folder: &Folder,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let looked = folder.clone();
        let before = now.plus_ms(-UNNAMED_STRAY_MS);
        let mut strays = blocking(move || looked.old_unnamed(before)).await?;
        let mut named = Vec::new();
        for chunk in strays.chunks(DIGESTS_PER_STATEMENT) {
            let query = Query::select()
                .column(Artifacts::Unnamed)
                .from(Artifacts::Table)
                .and_where(Expr::col(Artifacts::Unnamed).is_in(chunk))
                .to_owned();
            for row in self.readers.query_all(&query).await? {
                named.push(row.try_get_by_index::<String>(0)?);
            }
        }
        strays.retain(|id| !named.contains(id));
        let folder = folder.clone();
        let swept = strays.len() as u64;
        blocking(move || {
            folder.unlink(&strays);
            Ok(())
        })
        .await?;
        Ok(swept)
    }
}
