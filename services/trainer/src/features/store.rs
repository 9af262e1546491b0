//! Shards on disk: one file for each key, whole or not there, under a budget.
//!
//! A shard (`pomona_api::shard` has its format) is written under another name, synced and renamed,
//! and read only after its rows hashed to what its footer says. Processes meet through file locks,
//! which die with them: a builder holds its unfinished file, a reader the shard it maps. It must
//! never hand out a row that was not checked, and never remove a shard that a process uses.

use crate::fault;
use pomona_api::shard::{Footer, PART, Plan, WHOLE};
use pomona_domain::{Code, Digest, Fault};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tch::{Device, Kind, Tensor};

/// Between two looks at a shard that another process writes.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The folder of a machine's shards. Cheap to clone; every process opens its own.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    budget: u64,
}

/// A shard that was checked and is mapped. While it lives nobody removes the file.
#[derive(Debug)]
pub struct Shard {
    /// [rows, shape…], f32, read-only by custom.
    pub rows: Tensor,
    /// SHA-256 of the rows.
    pub digest: Digest,
    _pin: File,
}

/// How a shard came to be.
#[derive(Debug)]
pub enum Found {
    /// It was there, or another process wrote it while this one waited.
    Hit(Shard),
    /// This process computed it.
    Built(Shard),
    /// Another process is at it, or was a moment ago.
    Busy,
    /// It does not fit beside what others use, or onto the disk.
    NoRoom,
    /// The caller's `go_on` said no.
    Stopped,
}

/// Takes the rows of a shard in order.
#[derive(Debug)]
pub struct Writer<'a> {
    file: &'a mut File,
    path: &'a Path,
    hash: Sha256,
    written: u64,
}

impl Writer<'_> {
    /// Adds rows, as a contiguous f32 tensor on the CPU.
    pub fn rows(&mut self, rows: &Tensor) -> Result<(), Fault> {
        let bytes = crate::network::host_tensor(rows).bytes;
        self.hash.update(&bytes);
        self.written += bytes.len() as u64;
        self.file
            .write_all(&bytes)
            .map_err(|error| unwritten(self.path, &error))
    }
}

impl Store {
    /// Opens the store in `folder`, which may hold `budget` bytes.
    pub fn open(folder: &Path, budget: u64) -> Result<Self, Fault> {
        std::fs::create_dir_all(folder).map_err(|error| fault::file("make", folder, &error))?;
        Ok(Self {
            folder: folder.to_owned(),
            budget,
        })
    }

    /// The most bytes that it holds.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The shard of `plan`, as [`Self::try_get`] finds it, waiting while another process writes it.
    /// `go_on` is asked while it waits.
    pub fn get(
        &self,
        plan: &Plan,
        mut go_on: impl FnMut() -> bool,
        mut build: impl FnMut(&mut Writer<'_>) -> Result<bool, Fault>,
    ) -> Result<Found, Fault> {
        loop {
            let found = self.try_get(plan, &mut build)?;
            if !matches!(found, Found::Busy) {
                return Ok(found);
            }
            if !go_on() {
                return Ok(Found::Stopped);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The shard of `plan`: the one on disk, or what `build` writes, unless another process is at
    /// it. `build` gives `false` to stop.
    pub fn try_get(
        &self,
        plan: &Plan,
        build: impl FnOnce(&mut Writer<'_>) -> Result<bool, Fault>,
    ) -> Result<Found, Fault> {
        let [part, whole] = self.paths(plan)?;
        let cannot = |error: &std::io::Error| fault::file("write", &part, error);
        if let Some(shard) = read(plan, &whole)? {
            return Ok(Found::Hit(shard));
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(&part).map_err(|error| cannot(&error))?;
        match file.try_lock() {
            // The builder before us may have renamed it between the look and the lock.
            Ok(()) if is_at(&file, &part) && !whole.exists() => {
                let made = self.build(plan, file, (&part, &whole), build);
                if !matches!(made, Ok(Found::Built(_))) {
                    remove(&part);
                }
                return made;
            }
            Ok(()) if is_at(&file, &part) => remove(&part),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(cannot(&error)),
        }
        Ok(Found::Busy)
    }

    /// The shard of `plan` when it is there.
    pub fn find(&self, plan: &Plan) -> Result<Option<Shard>, Fault> {
        let [_, whole] = self.paths(plan)?;
        read(plan, &whole)
    }

    /// Where it is written, and where it is when it is whole.
    fn paths(&self, plan: &Plan) -> Result<[PathBuf; 2], Fault> {
        let name = plan.key.digest()?.hex();
        Ok([PART, WHOLE].map(|ending| self.folder.join(format!("{name}.{ending}"))))
    }

    /// Fills the locked file at `part` and gives it its name. What is not built stays as it is.
    fn build(
        &self,
        plan: &Plan,
        mut file: File,
        (part, whole): (&Path, &Path),
        build: impl FnOnce(&mut Writer<'_>) -> Result<bool, Fault>,
    ) -> Result<Found, Fault> {
        if !self.make_room(&file, plan.bytes())? {
            return Ok(Found::NoRoom);
        }
        let mut writer = Writer {
            file: &mut file,
            path: part,
            hash: Sha256::new(),
            written: 0,
        };
        let made = match build(&mut writer) {
            Ok(false) => return Ok(Found::Stopped),
            Ok(true) if writer.written != plan.bytes() => {
                return Err(fault::internal("a shard got other rows than were planned"));
            }
            Ok(true) => {
                let footer = Footer {
                    plan: plan.clone(),
                    rows_sha256: Digest(writer.hash.finalize().into()),
                };
                finish(&mut file, part, whole, &footer).map(|()| footer)
            }
            Err(fault) => Err(fault),
        };
        match made {
            Ok(footer) => map(file, whole, &footer).map(Found::Built),
            Err(fault) if fault.code == Code::DiskFull => {
                crate::protocol::log(&format!("features are not kept: {}", fault.message));
                Ok(Found::NoRoom)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Reserves `bytes` for the locked, unfinished `file`, removing what was not used for longest
    /// and nobody uses. Says whether it fits.
    fn make_room(&self, file: &File, bytes: u64) -> Result<bool, Fault> {
        let turn = self.folder.join("turn");
        let cannot = |error: &std::io::Error| fault::file("use", &turn, error);
        let turn = File::create(&turn).map_err(|error| cannot(&error))?;
        // Held for milliseconds: nothing is computed meanwhile.
        turn.lock().map_err(|error| cannot(&error))?;
        let own = file.metadata().map_err(|error| cannot(&error))?.ino();
        file.set_len(0).map_err(|error| cannot(&error))?;
        let mut shards = Vec::new();
        let mut total = bytes;
        for entry in std::fs::read_dir(&self.folder).map_err(|error| cannot(&error))? {
            let entry = entry.map_err(|error| cannot(&error))?;
            let (path, Ok(data)) = (entry.path(), entry.metadata()) else {
                continue;
            };
            let ending = path.extension().unwrap_or_default();
            if data.ino() == own || !(ending == WHOLE || ending == PART) {
                continue;
            }
            total += data.len();
            // What a killed builder left goes first.
            let used = if ending == PART {
                SystemTime::UNIX_EPOCH
            } else {
                data.modified().unwrap_or(SystemTime::UNIX_EPOCH)
            };
            shards.push((used, path, data.len()));
        }
        shards.sort();
        for (_, path, size) in shards {
            if total <= self.budget {
                break;
            }
            if evict(&path) {
                total -= size;
            }
        }
        if total > self.budget {
            return Ok(false);
        }
        // Counted from now on, though the disk gives it when it is written.
        match file.set_len(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Ok(false),
            done => done.map(|()| true).map_err(|error| cannot(&error)),
        }
    }
}

/// The whole shard, checked and mapped. One that is not what its footer says is removed.
fn read(plan: &Plan, whole: &Path) -> Result<Option<Shard>, Fault> {
    let Some(mut file) = opened(whole)? else {
        return Ok(None);
    };
    let Some(footer) = check(&mut file, plan) else {
        crate::protocol::log(&format!(
            "the features in `{}` are damaged: computing them again",
            whole.display()
        ));
        remove(whole);
        return Ok(None);
    };
    // For the order of eviction.
    let _unknown_time = file.set_modified(SystemTime::now());
    map(file, whole, &footer).map(Some)
}

/// Maps a shard that is known to be what its footer says; `file` holds a shared lock on it.
fn map(file: File, whole: &Path, footer: &Footer) -> Result<Shard, Fault> {
    let plan = &footer.plan;
    let mut shape = vec![plan.rows as i64];
    shape.extend(&plan.shape);
    let elements = (plan.bytes() / 4) as i64;
    let options = (Kind::Float, Device::Cpu);
    let rows = Tensor::f_from_file(&whole.to_string_lossy(), false, elements, options)
        .map_err(|error| fault::torch(&error))?
        .reshape(shape);
    Ok(Shard {
        rows,
        digest: footer.rows_sha256,
        _pin: file,
    })
}

/// The file at `path`, with a shared lock on it.
fn opened(path: &Path) -> Result<Option<File>, Fault> {
    let cannot = |error: &std::io::Error| fault::file("read", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(&error)),
    };
    match file.try_lock_shared() {
        Ok(()) if is_at(&file, path) => Ok(Some(file)),
        // Removed a moment ago.
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(cannot(&error)),
    }
}

/// The footer, when rows and footer are what they should be.
fn check(file: &mut File, plan: &Plan) -> Option<Footer> {
    let footer = Footer::read(file)?;
    if footer.plan != *plan {
        return None;
    }
    file.rewind().ok()?;
    let mut hash = Sha256::new();
    let mut left = plan.bytes();
    let mut chunk = vec![0; 1 << 20];
    while left > 0 {
        let size = left.min(chunk.len() as u64) as usize;
        file.read_exact(&mut chunk[..size]).ok()?;
        hash.update(&chunk[..size]);
        left -= size as u64;
    }
    (Digest(hash.finalize().into()) == footer.rows_sha256).then_some(footer)
}

/// Footer, sync, rename, sync of the folder.
fn finish(file: &mut File, part: &Path, whole: &Path, footer: &Footer) -> Result<(), Fault> {
    let folder = whole.parent().unwrap_or(Path::new("."));
    footer
        .write(file)
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(0o444)))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(part, whole))
        .and_then(|()| File::open(folder)?.sync_all())
        // From a builder to a reader: others may read it now.
        .and_then(|()| file.lock_shared())
        .map_err(|error| unwritten(part, &error))
}

/// Why a shard cannot be written. A limit on the size of files is a disk of that size.
fn unwritten(path: &Path, error: &std::io::Error) -> Fault {
    let mut fault = fault::file("write", path, error);
    if error.kind() == std::io::ErrorKind::FileTooLarge {
        fault.code = Code::DiskFull;
    }
    fault
}

/// Removes a file that no process holds. Says whether it is gone.
fn evict(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    file.try_lock().is_ok() && is_at(&file, path) && std::fs::remove_file(path).is_ok()
}

/// Whether the open file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let here = file.metadata().map(|data| (data.dev(), data.ino()));
    let there = std::fs::metadata(path).map(|data| (data.dev(), data.ino()));
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        crate::protocol::log(&format!("`{}` cannot be removed: {error}", path.display()));
    }
}
