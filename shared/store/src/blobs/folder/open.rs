//! A file that is being read.

use std::fs::File;
use std::io::{IoSliceMut, Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use rustix::io::{ReadWriteFlags, preadv2};

use super::{Folder, Stamp};
use crate::StoreError;
use crate::blobs::hash::Hasher;
use crate::blobs::{BlobStat, CHUNK};

#[derive(Debug)]
pub(crate) struct Open {
    blobs: Folder,
    file: File,
    /// The next byte's place.
    at: u64,
    hasher: Hasher,
    stamp: Stamp,
    /// Whether its bytes are hashed: not when this process has seen that very file to be whole, or
    /// when whoever reads it checks it.
    is_checked: bool,
}

impl Open {
    /// Leaves the check to the reader.
    pub(crate) fn unchecked(&mut self) {
        self.is_checked = false;
    }

    /// The next bytes if they are in memory, so that nobody has to wait for the disk; none, too, if
    /// they must be hashed, which takes its time.
    pub(crate) fn read_now(&self, range: &Range<u64>) -> Option<Vec<u8>> {
        if self.is_checked {
            return None;
        }
        let most = (range.end - range.start).min(CHUNK as u64);
        let mut bytes = vec![0; usize::try_from(most).unwrap_or(CHUNK)];
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let flags = ReadWriteFlags::NOWAIT;
        let read = preadv2(&self.file, &mut buffers, range.start, flags).ok()?;
        bytes.truncate(read);
        (read > 0).then_some(bytes)
    }

    pub(crate) fn read(
        &mut self,
        stat: BlobStat,
        range: Range<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        let is_checked = self.is_checked && range.end == stat.size;
        let path = self.blobs.path(stat.digest);
        if is_checked {
            while self.at < range.start {
                let skipped = self
                    .take(range.start - self.at)
                    .map_err(StoreError::folder(&path))?;
                if skipped.is_empty() {
                    return Err(self.corrupt(stat));
                }
            }
        } else if self.at != range.start {
            self.file
                .seek(SeekFrom::Start(range.start))
                .map_err(StoreError::folder(&path))?;
            self.at = range.start;
        }
        let bytes = self
            .take(range.end - range.start)
            .map_err(StoreError::folder(&path))?;
        let is_short = bytes.is_empty() && !range.is_empty();
        if is_short || (is_checked && self.at == stat.size && self.hasher.found() != stat.digest) {
            return Err(self.corrupt(stat));
        }
        if is_checked && self.at == stat.size {
            self.blobs.is_now_whole(stat.digest, self.stamp);
            // It was repaired while a reader of the damaged file marked it.
            let _ = std::fs::remove_file(self.blobs.damaged(stat.digest));
        }
        Ok(bytes)
    }

    /// Up to `most` bytes, or a chunk.
    fn take(&mut self, most: u64) -> std::io::Result<Vec<u8>> {
        let most = most.min(CHUNK as u64);
        let mut bytes = Vec::with_capacity(usize::try_from(most).unwrap_or(CHUNK));
        (&self.file).take(most).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        if self.is_checked {
            self.hasher.update(&bytes);
        }
        Ok(bytes)
    }

    /// Marks the blob, so that nobody takes it for being here and an upload can repair it.
    fn corrupt(&mut self, stat: BlobStat) -> StoreError {
        // The error says the same; the mark is for those who come later.
        let _ = File::create(self.blobs.damaged(stat.digest));
        let rest = self.file.rewind().and_then(|()| {
            self.hasher = Hasher::new();
            self.is_checked = true;
            while !self.take(CHUNK as u64)?.is_empty() {}
            Ok(())
        });
        match rest {
            Ok(()) => StoreError::BlobCorrupt {
                digest: stat.digest,
                found: self.hasher.found(),
            },
            Err(error) => StoreError::folder(self.blobs.path(stat.digest))(error),
        }
    }
}

pub(crate) fn open(blobs: Folder, stat: BlobStat) -> Result<Open, StoreError> {
    let path = blobs.path(stat.digest);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::BlobMissing {
                digest: stat.digest,
            });
        }
        Err(error) => return Err(StoreError::folder(path)(error)),
    };
    let stamp = Stamp::of(&file.metadata().map_err(StoreError::folder(path))?);
    let mut open = Open {
        is_checked: !blobs.was_whole(stat.digest, stamp),
        blobs,
        file,
        at: 0,
        hasher: Hasher::new(),
        stamp,
    };
    if stamp.size == stat.size {
        Ok(open)
    } else {
        Err(open.corrupt(stat))
    }
}
