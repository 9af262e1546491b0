//! What was produced and is not yet in the store: an append-only journal on disk.
//!
//! An entry is *put* when a trainer says it, *sealed* (it gets its sequence number) once the blobs
//! it names are in the store, and forgotten when the coordinator acknowledges its number. A seal is
//! on disk before anybody is told of it, so a number never means two things. It never drops an
//! entry that could still count; when it is full, the trainer waits.

use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::{Code, Fault, Generation, LeaseId, TrialId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

mod state;
#[cfg(test)]
mod tests;

pub use state::{Entry, Op, State, Upload};

/// A journal is written anew when it is this much longer than what lives in it.
const SLACK: u64 = 1 << 20;

/// What can go wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk refused.
    #[error("the spool `{path}` cannot be written")]
    Io {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl SpoolError {
    /// The coded error for people.
    pub fn fault(&self) -> Fault {
        let Self::Io { source, .. } = self;
        let code = if crate::is_full(source) {
            Code::DiskFull
        } else {
            Code::BadDataDir
        };
        Fault::new(code, format!("{self}: {source}"))
    }
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    length: u64,
    state: State,
    /// Entries whose blobs are in the store. Soft: a `HEAD` tells again.
    uploaded: BTreeSet<u64>,
    /// Leases whose answer cannot be delivered: their exit says why.
    spoiled: BTreeMap<LeaseId, Fault>,
}

/// The spool of a worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spool {
    inner: Arc<Mutex<Inner>>,
    limit: u64,
    changed: watch::Sender<()>,
    space: Arc<Notify>,
}

impl Spool {
    /// Opens the journal in `folder`; a last line that was cut by a crash is dropped. `limit` is
    /// how many bytes may live in it before producers wait.
    pub fn open(folder: &Path, limit: u64) -> Result<Self, SpoolError> {
        let path = folder.join("spool.jsonl");
        let broken = |source| SpoolError::Io {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(broken)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(broken)?;
        let (state, whole) = State::replay(&text);
        if whole < text.len() {
            tracing::warn!(
                dropped_bytes = text.len() - whole,
                "the spool ends in a cut line"
            );
            file.set_len(whole as u64).map_err(broken)?;
            file.sync_all().map_err(broken)?;
        }
        let mut inner = Inner {
            path: path.clone(),
            file,
            length: whole as u64,
            state,
            uploaded: BTreeSet::new(),
            spoiled: BTreeMap::new(),
        };
        inner.compact().map_err(broken)?;
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
            limit,
            changed: watch::Sender::new(()),
            space: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when an entry was put or became ready to be sealed.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether producers have to wait.
    pub fn is_full(&self) -> bool {
        self.lock().state.bytes() >= self.limit
    }

    /// Bytes that live in it.
    pub fn bytes(&self) -> u64 {
        self.lock().state.bytes()
    }

    /// Waits until there is room. The exit of a lease never waits: it is small and there is one.
    pub async fn room(&self) {
        loop {
            let waiting = self.space.notified();
            if !self.is_full() {
                return;
            }
            waiting.await;
        }
    }

    /// Puts an entry. A checkpoint replaces an older one of its trial and kind that still waits
    /// for its upload.
    pub fn put(
        &self,
        lease: LeaseId,
        generation: Generation,
        body: ReportBody,
        files: Vec<Upload>,
    ) -> Result<(), SpoolError> {
        let mut inner = self.lock();
        let entry = inner.state.next_entry();
        let mut ops = Vec::new();
        if let Some(kind) = checkpoint_of(&body) {
            let uploaded = &inner.uploaded;
            let older = inner.state.pending_of(lease);
            // The head of the queue may be on its way already: the shipper decides about it.
            ops.extend(
                older
                    .skip(1)
                    .filter(|e| {
                        checkpoint_of(&e.body) == Some(kind) && !uploaded.contains(&e.entry)
                    })
                    .map(|e| Op::Drop { entry: e.entry }),
            );
        }
        ops.push(Op::Put(Box::new(Entry {
            entry,
            lease,
            generation,
            at: crate::now(),
            body,
            files,
        })));
        inner.write(&ops)?;
        drop(inner);
        self.changed.send_replace(());
        Ok(())
    }

    /// The oldest entry of each lease that waits for its upload.
    pub fn uploads(&self) -> Vec<Entry> {
        let inner = self.lock();
        inner
            .state
            .leases()
            .into_iter()
            .filter_map(|lease| inner.state.pending_of(lease).find(|e| !inner.ready(e)))
            .cloned()
            .collect()
    }

    /// Whether the entry still waits, and is not replaced by a newer checkpoint of its kind.
    pub fn is_wanted(&self, entry: &Entry) -> bool {
        let inner = self.lock();
        inner.state.is_pending(entry.entry)
            && checkpoint_of(&entry.body).is_none_or(|kind| {
                !inner
                    .state
                    .pending_of(entry.lease)
                    .any(|e| e.entry > entry.entry && checkpoint_of(&e.body) == Some(kind))
            })
    }

    /// The entry's blobs are in the store.
    pub fn uploaded(&self, entry: u64) {
        self.lock().uploaded.insert(entry);
        self.changed.send_replace(());
    }

    /// The entry can never be delivered. When it is a task's answer, `fault` becomes its exit.
    pub fn give_up(&self, entry: &Entry, fault: Fault) -> Result<(), SpoolError> {
        let mut inner = self.lock();
        if inner.state.is_pending(entry.entry) {
            inner.write(&[Op::Drop { entry: entry.entry }])?;
        }
        if matches!(entry.body, ReportBody::Result { .. }) {
            inner.spoiled.insert(entry.lease, fault);
        }
        drop(inner);
        self.space.notify_waiters();
        self.changed.send_replace(());
        Ok(())
    }

    /// Drops a lease's entries that are not sealed: they would be refused (S3).
    pub fn forget(&self, lease: Option<LeaseId>) -> Result<(), SpoolError> {
        let mut inner = self.lock();
        let ops: Vec<Op> = inner
            .state
            .pending()
            .filter(|e| lease.is_none_or(|lease| lease == e.lease))
            .map(|e| Op::Drop { entry: e.entry })
            .collect();
        inner.write(&ops)?;
        drop(inner);
        self.space.notify_waiters();
        Ok(())
    }

    /// Numbers every entry that is ready and puts the numbers on disk.
    pub async fn seal(&self) -> Result<(), SpoolError> {
        let (file, path) = {
            let mut inner = self.lock();
            let ops = inner.seals();
            if ops.is_empty() {
                return Ok(());
            }
            inner.write(&ops)?;
            let file = inner.file.try_clone();
            (file, inner.path.clone())
        };
        let synced = match file {
            Ok(file) => tokio::task::spawn_blocking(move || file.sync_data())
                .await
                .unwrap_or_else(|e| Err(std::io::Error::other(e))),
            Err(error) => Err(error),
        };
        synced.map_err(|source| SpoolError::Io { path, source })
    }

    /// The oldest sealed reports, at most `most`.
    pub fn batch(&self, most: usize) -> Vec<Report> {
        self.lock().state.sealed().take(most).cloned().collect()
    }

    /// Files that entries without a number still need.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let inner = self.lock();
        let files = inner.state.pending().flat_map(|entry| &entry.files);
        files.map(|file| file.path.clone()).collect()
    }

    /// Takes every numbered report for acknowledged: none of them could count any more.
    pub fn renounce(&self) -> Result<(), SpoolError> {
        let last = self.lock().state.next_seq() - 1;
        self.ack(last)
    }

    /// Whether something of the lease is not acknowledged.
    pub fn holds(&self, lease: LeaseId) -> bool {
        let inner = self.lock();
        inner.state.pending_of(lease).next().is_some()
            || inner.state.sealed().any(|report| report.lease == lease)
    }

    /// Leases with something that is not acknowledged.
    pub fn leases(&self) -> BTreeMap<LeaseId, Generation> {
        let inner = self.lock();
        let sealed = inner.state.sealed().map(|r| (r.lease, r.generation));
        let pending = inner.state.pending().map(|e| (e.lease, e.generation));
        sealed.chain(pending).collect()
    }

    /// Whether anything waits to be sealed or acknowledged.
    pub fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.state.pending().next().is_none() && inner.state.sealed().next().is_none()
    }

    /// Every report up to `seq` is in the store.
    pub fn ack(&self, seq: u64) -> Result<(), SpoolError> {
        let mut inner = self.lock();
        if seq <= inner.state.acked() {
            return Ok(());
        }
        inner.write(&[Op::Ack { seq }])?;
        let path = inner.path.clone();
        inner
            .compact()
            .map_err(|source| SpoolError::Io { path, source })?;
        drop(inner);
        self.space.notify_waiters();
        Ok(())
    }
}

fn checkpoint_of(body: &ReportBody) -> Option<(TrialId, CheckpointKind)> {
    match body {
        ReportBody::Checkpoint {
            trial, checkpoint, ..
        } => Some((*trial, *checkpoint)),
        ReportBody::Started { .. }
        | ReportBody::Meets { .. }
        | ReportBody::Observed { .. }
        | ReportBody::TrialEnded { .. }
        | ReportBody::Result { .. }
        | ReportBody::Exited { .. } => None,
    }
}

impl Inner {
    fn ready(&self, entry: &Entry) -> bool {
        entry.files.is_empty() || self.uploaded.contains(&entry.entry)
    }

    /// Seals of each lease's ready entries up to the first that is not ready, in order of entry.
    fn seals(&mut self) -> Vec<Op> {
        let mut blocked = BTreeSet::new();
        let mut seq = self.state.next_seq();
        let mut ops = Vec::new();
        for entry in self.state.pending() {
            if blocked.contains(&entry.lease) {
                continue;
            }
            if !self.ready(entry) {
                blocked.insert(entry.lease);
                continue;
            }
            ops.push(Op::Seal {
                entry: entry.entry,
                seq,
                instead: self
                    .spoiled
                    .get(&entry.lease)
                    .and_then(|fault| exit_instead(&entry.body, fault)),
            });
            seq += 1;
        }
        ops
    }

    fn write(&mut self, ops: &[Op]) -> Result<(), SpoolError> {
        let mut text = Vec::new();
        let mut lengths = Vec::new();
        for op in ops {
            let start = text.len();
            serde_json::to_writer(&mut text, op).map_err(|e| self.broken(e.into()))?;
            text.push(b'\n');
            lengths.push((text.len() - start) as u64);
        }
        if let Err(error) = self.file.write_all(&text) {
            // A part of a line would hide what is written after it.
            let _ = self.file.set_len(self.length);
            return Err(self.broken(error));
        }
        self.length += text.len() as u64;
        for (op, length) in ops.iter().zip(lengths) {
            self.state.apply(op.clone(), length);
        }
        let state = &self.state;
        self.uploaded.retain(|entry| state.is_pending(*entry));
        Ok(())
    }

    fn broken(&self, source: std::io::Error) -> SpoolError {
        SpoolError::Io {
            path: self.path.clone(),
            source,
        }
    }

    /// Writes the journal anew when most of it is history.
    fn compact(&mut self) -> std::io::Result<()> {
        if self.length <= self.state.bytes().saturating_mul(2) + SLACK {
            return Ok(());
        }
        let mut text = Vec::new();
        for op in self.state.ops() {
            serde_json::to_writer(&mut text, &op)?;
            text.push(b'\n');
        }
        let next = self.path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.length = text.len() as u64;
        let (state, _) = State::replay(&text);
        self.state = state;
        Ok(())
    }
}

/// A task whose answer is lost did not finish.
fn exit_instead(body: &ReportBody, fault: &Fault) -> Option<ReportBody> {
    let ReportBody::Exited {
        outcome: Outcome::Finished,
    } = body
    else {
        return None;
    };
    Some(ReportBody::Exited {
        outcome: Outcome::Crashed {
            fault: fault.clone(),
        },
    })
}
