//! The spool's memory as a function of its journal. Pure.

use pomona_domain::report::{Report, ReportBody};
use pomona_domain::{Digest, Generation, LeaseId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A file that must be a blob before the report that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Its digest.
    pub digest: Digest,
    /// Where it is.
    pub path: PathBuf,
}

/// Something that was produced and has no sequence number yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in the journal.
    pub entry: u64,
    /// The lease.
    pub lease: LeaseId,
    /// Its generation.
    pub generation: Generation,
    /// When.
    pub at: Timestamp,
    /// What.
    pub body: ReportBody,
    /// Blobs it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Upload>,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Counters, after the journal was written anew.
    Head {
        /// Number of the next entry.
        next_entry: u64,
        /// Next sequence number.
        next_seq: u64,
        /// Acknowledged.
        acked: u64,
    },
    /// An entry was produced.
    Put(Box<Entry>),
    /// An entry was replaced or given up.
    Drop {
        /// Which.
        entry: u64,
    },
    /// An entry got its sequence number.
    Seal {
        /// Which.
        entry: u64,
        /// Its number.
        seq: u64,
        /// The body it is reported with, when not its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead: Option<ReportBody>,
    },
    /// A report that was sealed before the journal was written anew.
    Sealed {
        /// The report.
        report: Box<Report>,
    },
    /// Reports up to here are in the store.
    Ack {
        /// The number.
        seq: u64,
    },
}

/// What the journal says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    pending: BTreeMap<u64, (Entry, u64)>,
    sealed: BTreeMap<u64, (Report, u64)>,
    next_entry: u64,
    last_seq: u64,
    acked: u64,
    bytes: u64,
}

impl State {
    /// The state after the whole lines of `text`, and how many bytes they take. It ends at the
    /// first line that is cut or cannot be read.
    pub fn replay(text: &[u8]) -> (Self, usize) {
        let (mut state, mut whole) = (Self::default(), 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(body) = line.strip_suffix(b"\n") else {
                break;
            };
            let Ok(op) = serde_json::from_slice(body) else {
                break;
            };
            state.apply(op, line.len() as u64);
            whole += line.len();
        }
        (state, whole)
    }

    /// Applies one line of `length` bytes.
    pub fn apply(&mut self, op: Op, length: u64) {
        match op {
            Op::Head {
                next_entry,
                next_seq,
                acked,
            } => {
                self.next_entry = next_entry;
                self.last_seq = next_seq.saturating_sub(1);
                self.acked = acked;
            }
            Op::Put(entry) => {
                self.next_entry = entry.entry + 1;
                self.bytes += length;
                self.pending.insert(entry.entry, (*entry, length));
            }
            Op::Drop { entry } => {
                if let Some((_, length)) = self.pending.remove(&entry) {
                    self.bytes -= length;
                }
            }
            Op::Seal {
                entry,
                seq,
                instead,
            } => {
                if let Some((entry, length)) = self.pending.remove(&entry) {
                    let report = Report {
                        seq,
                        lease: entry.lease,
                        generation: entry.generation,
                        at: entry.at,
                        body: instead.unwrap_or(entry.body),
                    };
                    self.sealed.insert(seq, (report, length));
                }
                self.last_seq = self.last_seq.max(seq);
            }
            Op::Sealed { report } => {
                self.last_seq = self.last_seq.max(report.seq);
                self.bytes += length;
                self.sealed.insert(report.seq, (*report, length));
            }
            Op::Ack { seq } => {
                let kept = self.sealed.split_off(&(seq + 1));
                for (_, length) in std::mem::replace(&mut self.sealed, kept).into_values() {
                    self.bytes -= length;
                }
                self.acked = self.acked.max(seq);
                self.last_seq = self.last_seq.max(seq);
            }
        }
    }

    /// The lines that make this state from nothing.
    pub fn ops(&self) -> impl Iterator<Item = Op> {
        let head = Op::Head {
            next_entry: self.next_entry,
            next_seq: self.next_seq(),
            acked: self.acked,
        };
        let sealed = self.sealed.values().map(|(report, _)| Op::Sealed {
            report: Box::new(report.clone()),
        });
        // A put sets the next entry's number, which never goes back: the head is said again.
        let pending = self
            .pending
            .values()
            .map(|(entry, _)| Op::Put(Box::new(entry.clone())));
        std::iter::once(head.clone())
            .chain(sealed)
            .chain(pending)
            .chain(std::iter::once(head))
    }

    /// Bytes of lines that live.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of the next entry.
    pub fn next_entry(&self) -> u64 {
        self.next_entry
    }

    /// The next sequence number; the first is 1.
    pub fn next_seq(&self) -> u64 {
        self.last_seq + 1
    }

    /// Acknowledged up to here.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Entries without a number, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = &Entry> {
        self.pending.values().map(|(entry, _)| entry)
    }

    /// Those of one lease.
    pub fn pending_of(&self, lease: LeaseId) -> impl Iterator<Item = &Entry> {
        self.pending().filter(move |entry| entry.lease == lease)
    }

    /// Leases that have some.
    pub fn leases(&self) -> BTreeSet<LeaseId> {
        self.pending().map(|entry| entry.lease).collect()
    }

    /// Whether an entry has no number yet.
    pub fn is_pending(&self, entry: u64) -> bool {
        self.pending.contains_key(&entry)
    }

    /// Numbered reports that are not acknowledged, oldest first.
    pub fn sealed(&self) -> impl Iterator<Item = &Report> {
        self.sealed.values().map(|(report, _)| report)
    }
}
