//! Files without a name: `unnamed/<id>`, until somebody has hashed them.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::UNIX_EPOCH;

use pomona_domain::{Digest, Timestamp};

use super::upload::{stat_of, take_name};
use super::{Folder, Turn, UNNAMED};
use crate::StoreError;
use crate::blobs::BlobStat;

/// That a file is coming which will have no name at first.
#[derive(Debug)]
pub(crate) struct Coming(pub Folder);

impl Coming {
    pub fn new(blobs: Folder) -> Self {
        blobs.0.coming.fetch_add(1, Ordering::Relaxed);
        Self(blobs)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.0.coming.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Folder {
    /// Whether a file is coming that will have no name at first.
    pub(crate) fn is_one_coming(&self) -> bool {
        self.0.coming.load(Ordering::Relaxed) > 0
    }

    /// A file without a name.
    pub(crate) fn unnamed(&self, id: &str) -> PathBuf {
        self.0.root.join(UNNAMED).join(id)
    }

    /// The right to name a file, for one at a time in this process.
    pub(crate) fn turn(&self, id: &str) -> Arc<Turn> {
        let turns = self.0.naming.lock();
        let mut turns = turns.unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(id).and_then(std::sync::Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(id.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Hashes a file without a name, which must have `size` bytes.
    pub(crate) fn hash_unnamed(&self, id: &str, size: u64) -> Result<BlobStat, StoreError> {
        let path = self.unnamed(id);
        let stat = stat_of(&path)?;
        if stat.size == size {
            return Ok(stat);
        }
        let text = format!("it has {} bytes, not {size}", stat.size);
        Err(StoreError::folder(path)(std::io::Error::other(text)))
    }

    /// Gives it the name of its digest beside its own, which it keeps: killed before the row of the
    /// blob is there, it is done again.
    pub(crate) fn name_unnamed(&self, id: &str, digest: Digest) -> Result<(), StoreError> {
        let (from, link) = (self.unnamed(id), self.incoming());
        if std::fs::hard_link(&from, &link).is_err() {
            // Not every file system has links.
            let copied = std::fs::copy(&from, &link);
            let copied = copied.and_then(|_| File::open(&link)?.sync_all());
            copied.map_err(StoreError::folder(&from))?;
        }
        let named = take_name(&link, self, digest);
        // It is still there when the file has had its name already.
        let _ = std::fs::remove_file(&link);
        named
    }

    /// Removes what no row names any more, unless a backup is being made: then the sweep does.
    pub(crate) fn remove_unnamed(&self, ids: &[String]) -> Result<(), StoreError> {
        if let Some(_alone) = self.try_remove()? {
            self.unlink(ids);
        }
        Ok(())
    }

    /// The same for whoever has the right to remove files.
    pub(crate) fn unlink(&self, ids: &[String]) {
        for id in ids {
            // What stays is swept.
            let _ = std::fs::remove_file(self.unnamed(id));
        }
    }

    /// Files without a name that were at rest before a moment.
    pub(crate) fn old_unnamed(&self, before: Timestamp) -> Result<Vec<String>, StoreError> {
        let path = self.0.root.join(UNNAMED);
        let failed = || StoreError::folder(&path);
        let mut old = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let modified = entry.metadata().and_then(|file| file.modified());
            // One that was removed meanwhile is no stray.
            let Ok(modified) = modified else { continue };
            let at = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            if i64::try_from(at.as_millis()).is_ok_and(|at| at < before.0) {
                old.extend(entry.file_name().into_string());
            }
        }
        Ok(old)
    }
}
