//! Shards on disk: one file for each key, whole or not there, under a budget.
//!
//! A shard (`pomona_api::shard` has its format) is written under another name, synced and renamed,
//! and read only after its rows hashed to what its footer says. Processes meet through file locks,
//! which die with them: a builder holds its unfinished file, a reader the shard it maps. It must
//! never hand out a row that was not checked, and never remove a shard that a process uses.

use super::pace::Pace;
use crate::fault;
use pomona_api::shard::folder::{Folder, Unfinished, check, opened};
use pomona_api::shard::{Footer, Plan};
use pomona_api::trainer::MissingShard;
use pomona_domain::{Code, Digest, Fault};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tch::{Device, Kind, Tensor};

/// Between two looks at a shard that another process writes.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The folder of a machine's shards. Cheap to clone; every process opens its own.
#[derive(Debug, Clone)]
pub struct Store {
    folder: Folder,
    pace: Arc<Pace>,
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
    /// It does not fit beside what others use.
    NoRoom,
    /// The disk is full, perhaps not for long; nothing is left of what was begun.
    DiskFull,
    /// The caller's `go_on` said no.
    Stopped,
}

/// Takes the rows of a shard in order.
#[derive(Debug)]
pub struct Writer<'a> {
    unfinished: &'a mut Unfinished,
    pace: &'a Pace,
    hash: Sha256,
    written: u64,
}

impl Writer<'_> {
    /// Adds rows, as a contiguous f32 tensor on the CPU.
    pub fn rows(&mut self, rows: &Tensor) -> Result<(), Fault> {
        let bytes = crate::network::host_tensor(rows).bytes;
        self.hash.update(&bytes);
        self.written += bytes.len() as u64;
        self.pace.wrote(bytes.len() as u64);
        (self.unfinished.file.write_all(&bytes))
            .map_err(|error| unwritten(self.unfinished.part(), &error))
    }
}

impl Store {
    /// Opens the store in `folder`, which may hold `budget` bytes.
    pub fn open(folder: &Path, budget: u64) -> Result<Self, Fault> {
        let opened = Folder::open(folder, budget);
        Ok(Self {
            folder: opened.map_err(|error| fault::file("make", folder, &error))?,
            pace: Arc::default(),
        })
    }

    /// The most bytes that it holds.
    pub fn budget(&self) -> u64 {
        self.folder.budget()
    }

    /// What is missing in it, and how fast this process computes it.
    pub fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace)
    }

    /// Notes which of these shards are not there.
    pub fn look_for<'p>(&self, plans: impl Iterator<Item = &'p Plan>) -> Result<(), Fault> {
        let mut missing = Vec::new();
        for plan in plans {
            let shard = plan.key.digest()?;
            if !self.folder.whole(shard).exists() {
                missing.push(MissingShard {
                    shard,
                    bytes: plan.bytes(),
                });
            }
        }
        self.pace.misses(missing);
        Ok(())
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
        if let Some(shard) = self.find(plan)? {
            return Ok(Found::Hit(shard));
        }
        let shard = plan.key.digest()?;
        let claimed = self.folder.claim(shard);
        match claimed.map_err(|error| fault::file("write", &self.folder.part(shard), &error))? {
            Some(unfinished) => self.build(plan, unfinished, build),
            None => Ok(Found::Busy),
        }
    }

    /// The shard of `plan` when it is there.
    pub fn find(&self, plan: &Plan) -> Result<Option<Shard>, Fault> {
        read(plan, &self.folder.whole(plan.key.digest()?))
    }

    /// Fills the claimed file and gives it its name. What is not built is gone.
    fn build(
        &self,
        plan: &Plan,
        mut unfinished: Unfinished,
        build: impl FnOnce(&mut Writer<'_>) -> Result<bool, Fault>,
    ) -> Result<Found, Fault> {
        let part = unfinished.part().to_owned();
        let reserved = unfinished.reserve(plan.bytes());
        if !reserved.map_err(|error| fault::file("use", &part, &error))? {
            return Ok(Found::NoRoom);
        }
        self.pace.begins();
        let mut writer = Writer {
            unfinished: &mut unfinished,
            pace: &self.pace,
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
                let written = footer.write(&mut unfinished.file);
                let file = written.and_then(|()| unfinished.finish());
                file.map_err(|error| unwritten(&part, &error))
                    .map(|file| (file, footer))
            }
            Err(fault) => Err(fault),
        };
        match made {
            Ok((file, footer)) => {
                map(file, &self.folder.whole(plan.key.digest()?), &footer).map(Found::Built)
            }
            Err(fault) if fault.code == Code::DiskFull => {
                crate::protocol::log(&format!("features are not kept: {}", fault.message));
                Ok(Found::DiskFull)
            }
            Err(fault) => Err(fault),
        }
    }
}

/// The whole shard, checked and mapped. One that is not what its footer says is removed.
fn read(plan: &Plan, whole: &Path) -> Result<Option<Shard>, Fault> {
    let found = opened(whole).map_err(|error| fault::file("read", whole, &error))?;
    let Some(mut file) = found else {
        return Ok(None);
    };
    let checked = check(&mut file, plan.key.digest()?);
    let Some(footer) = checked.filter(|footer| footer.plan == *plan) else {
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

/// Why a shard cannot be written. A limit on the size of files is a disk of that size.
fn unwritten(path: &Path, error: &std::io::Error) -> Fault {
    let mut fault = fault::file("write", path, error);
    if error.kind() == std::io::ErrorKind::FileTooLarge {
        fault.code = Code::DiskFull;
    }
    fault
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        crate::protocol::log(&format!("`{}` cannot be removed: {error}", path.display()));
    }
}
