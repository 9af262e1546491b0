//! A consistent copy of the database and of the files that it refers to, made while others write.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pomona_domain::Digest;
use sea_orm::DbBackend;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::blobs::{self, BlobStat, Folder, blocking, sync_folder};
use crate::dialect::Needed;
use crate::{Store, StoreError, dialect};

/// The list that makes a folder a finished backup.
const LIST: &str = "blobs.json";
/// The copy of the database.
const DATABASE: &str = "pomona.db";

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// Blobs.
    pub blobs: u64,
    /// Bytes of the database and of the blobs.
    pub bytes: u64,
}

/// A line of the list.
#[derive(Serialize)]
struct Listed {
    digest: Digest,
    size: u64,
}

impl Store {
    /// Writes a backup into the folder `target`, which must be empty or not exist.
    ///
    /// No file is removed while it works, by whichever process: so every blob that the copied
    /// database refers to is still there when it is linked, or copied where the target is on
    /// another disk. One that is not there, or has another size, is an error: a backup has all of
    /// them. Blobs that nothing refers to are left out, their rows too.
    pub async fn backup(&self, target: &Path) -> Result<BackupReport, StoreError> {
        if self.writer.get_database_backend() != DbBackend::Sqlite {
            return Err(StoreError::OnlySqlite { what: "a backup" });
        }
        let blobs = self.blobs.folder("a backup")?.clone();
        if self.schema_version().await? == 0 {
            return Err(StoreError::NotMigrated);
        }
        let target = target.to_owned();
        let folder = target.clone();
        blocking(move || prepare(&folder)).await?;
        let held = blobs.hold_all().await?;
        let database = target.join(DATABASE);
        dialect::copy_database(&self.readers, &text(&database)?).await?;
        let needed = dialect::needed_files(&database).await?;
        let report = blocking(move || copy(&blobs, &target, &needed)).await?;
        drop(held);
        Ok(report)
    }
}

fn text(path: &Path) -> Result<String, StoreError> {
    let is_text = path.to_str().map(str::to_owned);
    is_text.ok_or_else(|| {
        let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not text");
        StoreError::folder(path)(why)
    })
}

fn prepare(target: &Path) -> Result<(), StoreError> {
    let folder = || StoreError::folder(target);
    std::fs::create_dir_all(target).map_err(folder())?;
    if std::fs::read_dir(target)
        .map_err(folder())?
        .next()
        .is_some()
    {
        return Err(StoreError::NotEmpty {
            path: target.to_owned(),
        });
    }
    let root = target.join("blobs");
    std::fs::create_dir(&root).map_err(StoreError::folder(&root))?;
    blobs::make(&root)
}

/// Copies the files and, when all that is on disk, writes the list.
fn copy(blobs: &Folder, target: &Path, needed: &Needed) -> Result<BackupReport, StoreError> {
    let root = target.join("blobs");
    let mut shards = std::collections::BTreeSet::new();
    let mut report = BackupReport {
        blobs: 0,
        bytes: sync_file(&target.join(DATABASE))?,
    };
    for stat in &needed.blobs {
        let path = root.join(blobs::relative(stat.digest));
        take(&blobs.path(stat.digest), &path, *stat)?;
        shards.extend(path.parent().map(Path::to_owned));
        report.blobs += 1;
        report.bytes += stat.size;
    }
    for (id, size) in &needed.unnamed {
        let path = root.join(blobs::UNNAMED).join(id);
        take_unnamed(&blobs.unnamed(id), &path, *size)?;
        shards.extend(path.parent().map(Path::to_owned));
        report.blobs += 1;
        report.bytes += size;
    }
    for shard in &shards {
        sync_folder(shard)?;
    }
    sync_folder(target)?;
    list(target, &needed.blobs)?;
    sync_folder(target)?;
    if let Some(parent) = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        sync_folder(parent)?;
    }
    Ok(report)
}

/// Links a blob, or copies and checks it.
fn take(from: &Path, to: &Path, stat: BlobStat) -> Result<(), StoreError> {
    let missing = StoreError::BlobMissing {
        digest: stat.digest,
    };
    let Ok(file) = File::open(from) else {
        return Err(missing);
    };
    let size = file.metadata().map_err(StoreError::folder(from))?.len();
    if size == stat.size && std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    copy_checked(&file, to, stat)
}

/// The same for a file whose digest nobody knows yet.
fn take_unnamed(from: &Path, to: &Path, size: u64) -> Result<(), StoreError> {
    let failed = StoreError::folder(from);
    let found = || from.metadata().map(|file| file.len());
    if found().is_ok_and(|found| found == size) && std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let copied = std::fs::copy(from, to).and_then(|copied| {
        File::open(to)?.sync_all()?;
        if copied == size {
            return Ok(());
        }
        let text = format!("it has {copied} bytes, not {size}");
        Err(std::io::Error::other(text))
    });
    copied.map_err(failed)
}

fn copy_checked(mut from: &File, to: &Path, stat: BlobStat) -> Result<(), StoreError> {
    let mut copy = Copy {
        file: File::create_new(to).map_err(StoreError::folder(to))?,
        hasher: Sha256::new(),
    };
    std::io::copy(&mut from, &mut copy).map_err(StoreError::folder(to))?;
    copy.file.sync_all().map_err(StoreError::folder(to))?;
    let found = Digest(copy.hasher.finalize().into());
    if found == stat.digest {
        return Ok(());
    }
    Err(StoreError::BlobCorrupt {
        digest: stat.digest,
        found,
    })
}

/// A file that is hashed as it is written.
struct Copy {
    file: File,
    hasher: Sha256,
}

impl std::io::Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn sync_file(path: &Path) -> Result<u64, StoreError> {
    let sync = || {
        let file = File::open(path)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    sync().map_err(StoreError::folder(path))
}

fn list(target: &Path, needed: &[BlobStat]) -> Result<(), StoreError> {
    let listed: Vec<Listed> = needed
        .iter()
        .map(|stat| Listed {
            digest: stat.digest,
            size: stat.size,
        })
        .collect();
    let text = crate::rows::encode(LIST, &serde_json::json!({ "blobs": listed }))?;
    let unfinished: PathBuf = target.join("blobs.json.part");
    let write = || {
        let mut file = File::create_new(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, target.join(LIST))
    };
    write().map_err(StoreError::folder(&unfinished))
}

#[cfg(test)]
mod tests;
