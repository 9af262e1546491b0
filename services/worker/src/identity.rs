//! Who this worker is: its id and its lock, both in the data folder.

use pomona_domain::{Code, Fault, WorkerId};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The data folder of this worker, locked as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    folder: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder and locks it.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        let refuse = |why: String| {
            let message = format!("the data folder `{}` {why}", folder.display());
            Fault::new(Code::BadDataDir, message)
        };
        let io = |error: std::io::Error| refuse(format!("cannot be written: {error}"));
        std::fs::create_dir_all(folder).map_err(io)?;
        // Trainers get paths under it and run in folders of their own.
        let folder = folder.canonicalize().map_err(io)?;
        let lock = File::create(folder.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(refuse("is in use by another worker".to_owned())
                    .hint("give each worker a `--data-dir` of its own"));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(io(error)),
        }
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The worker's id, made at the first start.
    pub fn worker_id(&self) -> Result<WorkerId, Fault> {
        if let Some(text) = self.read("id")? {
            return text.parse().map_err(|error| {
                let path = self.path("id");
                let message = format!("`{}` holds no worker id: {error}", path.display());
                Fault::new(Code::BadDataDir, message)
            });
        }
        let id = WorkerId(rand::random());
        self.write("id", &id.to_string())?;
        Ok(id)
    }

    /// The incarnation of the start before this one.
    pub fn last_incarnation(&self) -> Result<Option<u64>, Fault> {
        Ok(self.read("incarnation")?.and_then(|text| text.parse().ok()))
    }

    /// Remembers the incarnation that the coordinator knows by now.
    pub fn remember_incarnation(&self, incarnation: u64) -> Result<(), Fault> {
        self.write("incarnation", &incarnation.to_string())
    }

    /// A small file in it, if it is there.
    fn read(&self, name: &str) -> Result<Option<String>, Fault> {
        match std::fs::read_to_string(self.path(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.fault(name, &error)),
        }
    }

    /// Writes a small file, whole or not at all.
    fn write(&self, name: &str, text: &str) -> Result<(), Fault> {
        write(&self.path(name), text).map_err(|error| self.fault(name, &error))
    }

    fn fault(&self, name: &str, error: &std::io::Error) -> Fault {
        let path = self.path(name);
        let message = format!("`{}` cannot be used: {error}", path.display());
        Fault::new(Code::BadDataDir, message)
    }
}

/// Writes a small file, whole or not at all.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once_and_the_folder_serves_one_worker() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let id = data.worker_id().unwrap();
        let second = DataDir::open(folder.path()).unwrap_err();
        assert_eq!(second.code, Code::BadDataDir);
        assert!(second.message.contains("in use"), "{second}");
        drop(data);
        let data = DataDir::open(folder.path()).unwrap();
        assert_eq!(data.worker_id().unwrap(), id);
        assert_eq!(data.last_incarnation().unwrap(), None);
        data.remember_incarnation(7).unwrap();
        assert_eq!(data.last_incarnation().unwrap(), Some(7));
    }

    #[test]
    fn a_damaged_id_is_refused_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("id"), "wrk_nonsense").unwrap();
        let fault = DataDir::open(folder.path()).unwrap().worker_id();
        assert_eq!(fault.unwrap_err().code, Code::BadDataDir);
    }
}
