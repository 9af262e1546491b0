//! Blobs in a folder of this machine.
//!
//! ```text
//! sha256/ab/abcdef…   a blob
//! incoming/           uploads under way, and files on their way out
//! unnamed/0123…       a file at rest whose bytes nobody has hashed yet ([`super::unnamed`])
//! damaged/abcdef…     an empty file: the blob was read and its bytes do not have its name
//! open.lock           held shared by everyone who has the folder open
//! collect.lock        held shared by a backup, and alone by a collection that removes files
//! ```
//! A file gets its name only when all its bytes are on disk and have that digest; it must never be
//! changed in place. The file is renamed inside the transaction that writes the row, here and in
//! collection, so that an upload and a deletion of the same digest come one after the other.
//!
//! A file without a row is what a killed upload left between the rename and the commit; collection
//! adopts it, and it goes the way of everything that nothing refers to.

mod open;
mod unnamed;
mod upload;

use std::collections::BTreeMap;
use std::fs::{File, Metadata, TryLockError};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pomona_domain::Digest;

use super::{BlobStat, SHARDS, SHARDS_PER_CALL, blocking};
use crate::StoreError;

pub(super) use open::{Open, open};
pub(super) use unnamed::Coming;
pub(super) use upload::Upload;

/// What the files of sessions are called.
const SESSION: &str = "session-";
/// The folder of files without a name.
pub(crate) const UNNAMED: &str = "unnamed";
/// Files that are remembered to be whole; with one more all are forgotten.
const MAX_WHOLE: usize = 10_000;

/// The folder of blobs. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Folder(Arc<Place>);

#[derive(Debug)]
struct Place {
    root: PathBuf,
    /// Says to others that uploads may be under way; the lock ends with the process.
    _open: File,
    /// The next upload's number.
    upload: AtomicUsize,
    /// Where collection looks for files without a row next.
    shard: AtomicUsize,
    /// Files whose bytes this process has seen to have their name.
    whole: Mutex<BTreeMap<Digest, Stamp>>,
    /// Files that are being hashed to be named: by one at a time.
    naming: Mutex<BTreeMap<String, Weak<Turn>>>,
    /// Files that are coming and will have no name at first.
    coming: AtomicUsize,
}

/// The right to name a file.
pub(super) type Turn = tokio::sync::Mutex<()>;

/// A file as it was: another one, or one that was written to since, differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
            size: file.len(),
        }
    }
}

impl Folder {
    /// Opens the folder, makes what is missing, and clears away what killed uploads left, unless
    /// somebody else has it open: those uploads may be alive.
    pub fn open(root: PathBuf) -> Result<Self, StoreError> {
        make(&root)?;
        let open = lock_file(&root.join("open.lock"))?;
        let folder = StoreError::folder(root.join("open.lock"));
        match open.try_lock() {
            Ok(()) => {
                clear(&root.join("incoming"))?;
                open.unlock().map_err(folder)?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(folder(error)),
        }
        open.lock_shared()
            .map_err(StoreError::folder(root.join("open.lock")))?;
        Ok(Self(Arc::new(Place {
            root,
            _open: open,
            upload: AtomicUsize::new(0),
            shard: AtomicUsize::new(0),
            whole: Mutex::default(),
            naming: Mutex::default(),
            coming: AtomicUsize::new(0),
        })))
    }

    /// The file of a blob.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.0.root.join(relative(digest))
    }

    /// The mark of a blob whose bytes do not have its name.
    pub(super) fn damaged(&self, digest: Digest) -> PathBuf {
        self.0.root.join("damaged").join(digest.hex())
    }

    /// A name for a file that is coming or going.
    pub(super) fn incoming(&self) -> PathBuf {
        let number = self.0.upload.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        self.0.root.join("incoming").join(name)
    }

    /// The file of an upload that somebody may go on with.
    pub(super) fn session(&self, id: &str) -> PathBuf {
        let name = format!("{SESSION}{id}");
        self.0.root.join("incoming").join(name)
    }

    /// Keeps files from being removed as long as the answer lives. Waits for a removal that is
    /// under way.
    pub(crate) async fn hold_all(&self) -> Result<File, StoreError> {
        let path = self.0.root.join("collect.lock");
        blocking(move || {
            let file = lock_file(&path)?;
            file.lock_shared().map_err(StoreError::folder(path))?;
            Ok(file)
        })
        .await
    }

    /// The right to remove files, if nobody keeps them from being removed.
    pub(super) fn try_remove(&self) -> Result<Option<File>, StoreError> {
        let path = self.0.root.join("collect.lock");
        let file = lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::folder(path)(error)),
        }
    }

    /// Whether this very file was seen to have the bytes of its name.
    pub(super) fn was_whole(&self, digest: Digest, stamp: Stamp) -> bool {
        let whole = self.0.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.get(&digest) == Some(&stamp)
    }

    /// Remembers that a file has the bytes of its name.
    pub(super) fn is_now_whole(&self, digest: Digest, stamp: Stamp) {
        let mut whole = self.0.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if whole.len() >= MAX_WHOLE {
            whole.clear();
        }
        whole.insert(digest, stamp);
    }

    /// Whether the file is there, with its size, and not known to be damaged.
    pub(super) fn is_whole(&self, stat: BlobStat) -> bool {
        let file = std::fs::metadata(self.path(stat.digest));
        file.is_ok_and(|file| file.is_file() && file.len() == stat.size)
            && !self.damaged(stat.digest).exists()
    }
}

/// Makes the folders of a root, on disk.
pub(crate) fn make(root: &Path) -> Result<(), StoreError> {
    for folder in ["incoming", UNNAMED, "damaged", "sha256"] {
        let path = root.join(folder);
        std::fs::create_dir_all(&path).map_err(StoreError::folder(path))?;
    }
    let shards = root.join("sha256");
    for shard in 0..SHARDS {
        let path = shards.join(format!("{shard:02x}"));
        match std::fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StoreError::folder(path)(error)),
        }
    }
    sync_folder(&shards)?;
    sync_folder(root)
}

/// Where a blob lies under a root.
pub(crate) fn relative(digest: Digest) -> PathBuf {
    let hex = digest.hex();
    Path::new("sha256").join(&hex[..2]).join(hex)
}

/// Makes names in a folder last.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::folder(path))
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(StoreError::folder(path))
}

/// A file that can be written; it is made when it is not there.
pub(super) fn writable(path: &Path) -> Result<File, StoreError> {
    let failed = || StoreError::folder(path);
    if let Ok(found) = path.metadata() {
        let mut permissions = found.permissions();
        // One that was at its end already, when its row could not be written, was sealed.
        permissions.set_mode(0o644);
        std::fs::set_permissions(path, permissions).map_err(failed())?;
    }
    lock_file(path)
}

/// Removes the files in a folder, but for those of sessions: they go with their rows.
fn clear(path: &Path) -> Result<(), StoreError> {
    let remove = || {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(SESSION) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().map_err(StoreError::folder(path))
}

/// Takes a blob's file out of its place; says where it is now.
pub(super) fn set_aside(blobs: &Folder, digest: Digest) -> Result<PathBuf, StoreError> {
    let (path, aside) = (blobs.path(digest), blobs.incoming());
    // A mark that stays costs the next upload nothing.
    let _ = std::fs::remove_file(blobs.damaged(digest));
    match std::fs::rename(&path, &aside) {
        // A collection that was killed has taken it already.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::folder(path)(error))
        }
        Ok(()) | Err(_) => Ok(aside),
    }
}

impl Folder {
    /// Digests and sizes of the files in the next few folders.
    pub(super) fn some_files(&self) -> Result<Vec<BlobStat>, StoreError> {
        let first = self.0.shard.fetch_add(SHARDS_PER_CALL, Ordering::Relaxed);
        let mut files = Vec::new();
        for shard in first..first + SHARDS_PER_CALL {
            let path = self
                .0
                .root
                .join("sha256")
                .join(format!("{:02x}", shard % SHARDS));
            let folder = || StoreError::folder(&path);
            for entry in std::fs::read_dir(&path).map_err(folder())? {
                let entry = entry.map_err(folder())?;
                let name = format!("sha256:{}", entry.file_name().to_string_lossy());
                // One that was removed meanwhile is no stray.
                if let (Ok(digest), Ok(file)) = (name.parse(), entry.metadata()) {
                    let size = file.len();
                    files.push(BlobStat { digest, size });
                }
            }
        }
        Ok(files)
    }
}
