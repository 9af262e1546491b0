//! Trainers that have started before there is work for them. Loading libtorch takes a third of a
//! second; a process that has done so and waits costs next to nothing.
//!
//! A spare knows nothing of any lease: it waits for its command on stdin, as every rank does. It must
//! never be the only way to a rank: where there is none, one is started.

use pomona_domain::Fault;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::Child;

use crate::process;

/// Between two looks at how many there are.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After one was taken its lease starts, and has the processor for itself.
const REST: Duration = Duration::from_secs(10);

/// The spares of this worker. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spares(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    wanted: usize,
    spares: Vec<Spare>,
    taken: Option<Instant>,
}

#[derive(Debug)]
struct Spare {
    child: Child,
    build: Build,
}

/// What a spare is started from.
#[derive(Debug)]
pub struct Recipe {
    /// The program that ties it to this process.
    pub launcher: PathBuf,
    /// The trainer.
    pub trainer: PathBuf,
    /// What a lease of one rank has in its environment.
    pub environment: BTreeMap<String, String>,
    /// The folder that it starts in.
    pub folder: PathBuf,
}

/// Which build of the trainer a file is: an upgrade replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Build {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Build {
    fn of(trainer: &Path) -> Option<Self> {
        let file = std::fs::metadata(trainer).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl Spares {
    /// So many.
    pub fn new(wanted: usize) -> Self {
        Self(Arc::new(Mutex::new(Waiting {
            wanted,
            ..Waiting::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that lives and is of the trainer as it is now. It leads a process group of its own.
    pub fn take(&self, trainer: &Path) -> Option<Child> {
        let now = Build::of(trainer)?;
        let mut waiting = self.lock();
        waiting.taken = Some(Instant::now());
        while let Some(mut spare) = waiting.spares.pop() {
            // One of another build is dropped, and thereby killed.
            if spare.build == now && matches!(spare.child.try_wait(), Ok(None)) {
                return Some(spare.child);
            }
        }
        None
    }

    /// Keeps as many waiting as are wanted, until one ends by itself. It must be spawned on the
    /// thread that starts ranks.
    pub async fn keep(self, recipe: Recipe) {
        loop {
            if let Err(fault) = self.refill(&recipe) {
                tracing::warn!("no trainer is kept ready any more: {fault}");
                self.lock().wanted = 0;
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn refill(&self, recipe: &Recipe) -> Result<(), Fault> {
        let mut waiting = self.lock();
        for spare in &mut waiting.spares {
            if let Ok(Some(status)) = spare.child.try_wait() {
                return Err(missing(&recipe.trainer, &format!("it ended with {status}")));
            }
        }
        let rests = waiting.taken.is_some_and(|taken| taken.elapsed() < REST);
        if rests || waiting.spares.len() >= waiting.wanted {
            return Ok(());
        }
        let trainer = &recipe.trainer;
        let build = Build::of(trainer).ok_or_else(|| missing(trainer, "it is not there"))?;
        let (environment, folder) = (&recipe.environment, &recipe.folder);
        let child = process::spawn(&recipe.launcher, trainer, &[], environment, None, folder)
            .map_err(|error| missing(trainer, &error.to_string()))?;
        waiting.spares.push(Spare { child, build });
        Ok(())
    }
}

fn missing(trainer: &Path, why: &str) -> Fault {
    let message = format!("`{}` does not wait for work: {why}", trainer.display());
    Fault::new(pomona_domain::Code::MissingProgram, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A launcher that becomes what stands after `--`, as this program would.
    fn recipe(folder: &Path, trainer: &str) -> Recipe {
        let script = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        Recipe {
            launcher: script("launcher", "shift 4; exec \"$@\""),
            trainer: script("trainer", trainer),
            environment: BTreeMap::new(),
            folder: folder.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_spare_waits_and_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = recipe(folder.path(), "read line; echo \"heard $line\"");
        let spares = Spares::new(1);
        assert!(spares.take(&recipe.trainer).is_none(), "there is none yet");
        spares.lock().taken = None;
        spares.refill(&recipe).unwrap();
        spares.refill(&recipe).unwrap();
        assert_eq!(spares.lock().spares.len(), 1, "as many as are wanted");
        let child = spares.take(&recipe.trainer).unwrap();
        spares.refill(&recipe).unwrap();
        assert!(spares.take(&recipe.trainer).is_none(), "a lease starts now");
        let said = tokio::spawn(child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        assert!(said.status.success(), "the end of stdin ends it: {said:?}");
    }

    #[tokio::test]
    async fn a_spare_of_an_older_build_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = recipe(folder.path(), "read line");
        let spares = Spares::new(1);
        spares.refill(&recipe).unwrap();
        let newer = folder.path().join("newer");
        std::fs::copy(&recipe.trainer, &newer).unwrap();
        std::fs::rename(&newer, &recipe.trainer).unwrap();
        assert!(spares.take(&recipe.trainer).is_none());
    }

    #[tokio::test]
    async fn a_trainer_that_does_not_wait_is_not_started_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = recipe(folder.path(), "exit 3");
        let spares = Spares::new(1);
        let keeper = spares.clone().keep(recipe);
        tokio::time::timeout(Duration::from_mins(1), keeper)
            .await
            .unwrap();
        assert_eq!(spares.lock().wanted, 0);
    }
}
