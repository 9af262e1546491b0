//! Uploads: files that reports name become blobs before those reports get their numbers.
//!
//! A file is kept by a link of our own in the outbox, so a trainer may remove its own name of it at
//! any time. It must never report a blob that is not in the store, and never keep a file that no
//! entry of the spool needs.

use pomona_api::client::Client;
use pomona_domain::{Code, Fault, LeaseId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::spool::{Entry, Spool};
use crate::work::cannot;

#[cfg(test)]
mod tests;

/// Uploads at once.
const MOST_AT_ONCE: usize = 4;
/// Wait after the first failed attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest wait between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The folder of files on their way. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    folder: Arc<PathBuf>,
    next: Arc<AtomicU64>,
}

impl Outbox {
    /// Makes the folder, or opens the one that is there.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        let broken = |error: std::io::Error| cannot("use", folder, &error);
        std::fs::create_dir_all(folder).map_err(broken)?;
        let mut next = 0;
        for file in std::fs::read_dir(folder).map_err(broken)? {
            let name = file.map_err(broken)?.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            next = next.max(number.map_or(0, |number| number + 1));
        }
        Ok(Self {
            folder: Arc::new(folder.to_owned()),
            next: Arc::new(AtomicU64::new(next)),
        })
    }

    /// Keeps the content of `file`, whatever becomes of that name. `None` when it is gone already.
    pub fn keep(&self, file: &Path) -> Result<Option<PathBuf>, Fault> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let kept = self.folder.join(number.to_string());
        match std::fs::hard_link(file, &kept) {
            Ok(()) => return Ok(Some(kept)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // Another file system, or one without links.
            Err(error) => tracing::debug!(%error, "a file is copied into the outbox"),
        }
        match std::fs::copy(file, &kept) {
            Ok(_) => Ok(Some(kept)),
            Err(error) => {
                // Half a copy is no copy.
                let _ = std::fs::remove_file(&kept);
                Err(cannot("keep", file, &error))
            }
        }
    }

    /// Removes what no entry needs. Call it where nobody is between keeping and putting.
    pub fn sweep(&self, spool: &Spool) {
        let needed = spool.files();
        let Ok(files) = std::fs::read_dir(self.folder.as_path()) else {
            return;
        };
        for file in files.flatten().map(|file| file.path()) {
            if !needed.contains(&file)
                && let Err(error) = std::fs::remove_file(&file)
            {
                tracing::warn!(%error, "`{}` cannot be removed", file.display());
            }
        }
    }
}

/// Whether trying again is no use: the file is not what the trainer said.
fn is_hopeless(code: Code) -> bool {
    matches!(
        code,
        Code::DigestMismatch
            | Code::BlobCorrupt
            | Code::TooLarge
            | Code::LocalFile
            | Code::BadRequest
    )
}

/// Ships for ever.
pub async fn ship(client: Client, spool: Spool, outbox: Outbox, metrics: Metrics) {
    let mut changed = spool.subscribe();
    let mut under_way: BTreeSet<LeaseId> = BTreeSet::new();
    let mut sending = JoinSet::new();
    loop {
        changed.mark_unchanged();
        for entry in spool.uploads() {
            if under_way.len() >= MOST_AT_ONCE {
                break;
            }
            if under_way.insert(entry.lease) {
                let (client, spool, metrics) = (client.clone(), spool.clone(), metrics.clone());
                sending.spawn(async move {
                    send(&client, &spool, &metrics, &entry).await;
                    entry.lease
                });
            }
        }
        tokio::select! {
            done = sending.join_next(), if !sending.is_empty() => match done {
                Some(Ok(lease)) => {
                    under_way.remove(&lease);
                    outbox.sweep(&spool);
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "an upload broke");
                    under_way.clear();
                    sending = JoinSet::new();
                }
                None => {}
            },
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

/// Uploads the files of an entry, as often as it takes, while the entry is wanted.
async fn send(client: &Client, spool: &Spool, metrics: &Metrics, entry: &Entry) {
    let mut pause = PAUSE;
    loop {
        if !spool.is_wanted(entry) {
            let fault = Fault::new(Code::Internal, "a newer one took its place");
            return give_up(spool, entry, fault).await;
        }
        let Err(fault) = put_all(client, entry).await else {
            return spool.uploaded(entry.entry);
        };
        if !spool.is_wanted(entry) {
            // Its file went while it was sent: nobody waits for it.
            continue;
        }
        metrics.upload_failed();
        let lease = entry.lease;
        if is_hopeless(fault.code) {
            tracing::warn!(lease.id = %lease, code = %fault.code, "a file is given up: {fault}");
            return give_up(spool, entry, fault).await;
        }
        tracing::debug!(lease.id = %lease, code = %fault.code, "an upload will be tried again: {fault}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn put_all(client: &Client, entry: &Entry) -> Result<(), Fault> {
    for file in &entry.files {
        client.blob_put(file.digest, &file.path).await?;
    }
    Ok(())
}

/// A full disk may not take the word at once.
async fn give_up(spool: &Spool, entry: &Entry, fault: Fault) {
    while let Err(error) = spool.give_up(entry, fault.clone()) {
        tracing::error!("{}", error.fault());
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
}
