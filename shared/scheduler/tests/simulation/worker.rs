//! A worker of a simulated world, the mirror image of the real one: a spool of numbered reports on
//! disk that goes out at least once, and leases that become what should run. It keeps running what
//! it has while the coordinator is away, and loses what it runs when its process dies.

use pomona_domain::lease::{Rendezvous, StopKind};
use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::worker::{Slot, SlotKind};
use pomona_domain::{Generation, LeaseId, Timestamp, WorkerId};
use pomona_scheduler::Event;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::coordinator::Wanted;
use crate::mood::Mood;
use crate::trainer::Trainer;

/// Reports of one poll.
const BATCH: usize = 6;

pub struct Worker {
    pub id: WorkerId,
    pub name: String,
    pub slots: Vec<Slot>,
    pub labels: BTreeMap<String, String>,
    /// Every trainer breaks on it.
    pub is_bad: bool,
    pub is_up: bool,
    pub is_registered: bool,
    /// Nothing comes through until then.
    pub cut_until: Timestamp,
    pub incarnation: u64,
    pub local: BTreeMap<LeaseId, Local>,
    /// The poll whose answer it waits for, and until when.
    pub asked: Option<(u64, Timestamp)>,
    polls: u64,
    spool: Spool,
    /// Leases it ever began: none is begun twice, not even by another process of it.
    begun: BTreeSet<LeaseId>,
}

/// A lease on this machine.
pub struct Local {
    pub generation: Generation,
    pub slots: Vec<u32>,
    pub trainer: Trainer,
    /// Rank 0 is here: it speaks for the trial.
    pub leads: bool,
    pub time_left_ms: Option<u64>,
    pub stop: Option<StopKind>,
    pub is_live: bool,
}

/// What survives the process: reports that have their number. What waits for its upload does not.
#[derive(Default)]
struct Spool {
    next: u64,
    sealed: VecDeque<Report>,
    pending: VecDeque<(Timestamp, LeaseId, Generation, ReportBody)>,
}

/// What a worker wants to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A trainer begins.
    Begin(LeaseId),
    /// A trainer was asked to stop and takes a moment.
    Stop(LeaseId),
}

impl Worker {
    pub fn new(name: &str, slots: &[SlotKind]) -> Self {
        let slot = |(index, kind): (usize, &SlotKind)| Slot {
            index: index as u32,
            kind: *kind,
            name: format!("{kind:?}"),
            memory_bytes: None,
        };
        Self {
            id: WorkerId::derive(name, 0),
            name: name.to_owned(),
            slots: slots.iter().enumerate().map(slot).collect(),
            labels: BTreeMap::new(),
            is_bad: false,
            is_up: true,
            is_registered: false,
            cut_until: Timestamp::default(),
            incarnation: 1,
            local: BTreeMap::new(),
            asked: None,
            polls: 0,
            spool: Spool::default(),
            begun: BTreeSet::new(),
        }
    }

    /// The process and all it ran are gone.
    pub fn die(&mut self) {
        self.is_up = false;
        self.is_registered = false;
        self.asked = None;
        self.local.clear();
        self.spool.pending.clear();
    }

    /// It begins anew with what is on its disk.
    pub fn begin(&mut self) {
        self.is_up = true;
        self.incarnation += 1;
    }

    /// The next thing it says to the coordinator.
    pub fn say(&mut self, now: Timestamp, patience_ms: i64) -> (u64, Event) {
        self.polls += 1;
        self.asked = Some((self.polls, now.plus_ms(patience_ms)));
        if !self.is_registered {
            let event = Event::Registered {
                id: self.id,
                name: self.name.clone(),
                incarnation: self.incarnation,
                slots: self.slots.clone(),
                labels: self.labels.clone(),
            };
            return (self.polls, event);
        }
        self.spool.seal(now);
        let live = self.local.iter().filter(|(_, local)| local.is_live);
        let event = Event::Polled {
            worker: self.id,
            incarnation: self.incarnation,
            running: live.map(|(id, local)| (*id, local.generation)).collect(),
            reports: self.spool.sealed.iter().take(BATCH).cloned().collect(),
            evidence: Vec::new(),
        };
        (self.polls, event)
    }

    /// Puts what a trainer said into the spool; checkpoints wait for their upload.
    pub fn put(&mut self, now: Timestamp, upload_ms: i64, lease: LeaseId, said: Vec<ReportBody>) {
        let Some(generation) = self.local.get(&lease).map(|local| local.generation) else {
            return;
        };
        let leads = self.local.get(&lease).is_some_and(|local| local.leads);
        let counts = |body: &ReportBody| leads || matches!(body, ReportBody::Exited { .. });
        for body in said.into_iter().filter(counts) {
            let wait = match &body {
                ReportBody::Checkpoint { .. } | ReportBody::Result { .. } => upload_ms,
                ReportBody::Started { .. }
                | ReportBody::Meets { .. }
                | ReportBody::Observed { .. }
                | ReportBody::TrialEnded { .. }
                | ReportBody::Exited { .. } => 0,
            };
            let entry = (now.plus_ms(wait), lease, generation, body);
            self.spool.pending.push_back(entry);
        }
    }

    /// A trainer's processes are gone.
    pub fn end(&mut self, now: Timestamp, lease: LeaseId, outcome: Outcome) {
        if let Some(local) = self.local.get_mut(&lease) {
            local.is_live = false;
        }
        self.put(now, 0, lease, vec![ReportBody::Exited { outcome }]);
    }

    /// Whether something can go out at once.
    pub fn has_news(&self, now: Timestamp) -> bool {
        !self.spool.sealed.is_empty() || self.spool.pending.iter().any(|entry| entry.0 <= now)
    }

    /// The coordinator's answer to a poll: what runs becomes what should run.
    pub fn reconcile(
        &mut self,
        now: Timestamp,
        acked: u64,
        wanted: &[Wanted],
        mut moods: impl FnMut(&Wanted) -> Vec<Mood>,
    ) -> Result<Vec<Wish>, String> {
        self.spool.sealed.retain(|report| report.seq > acked);
        let mut wishes = self.end_unwanted(now, wanted);
        let mut held: BTreeSet<u32> = (self.local.values())
            .filter(|local| local.is_live)
            .flat_map(|local| local.slots.iter().copied())
            .collect();
        for want in wanted {
            if let Some(local) = self.local.get(&want.lease) {
                if !local.is_live && !self.spool.holds(want.lease) {
                    let name = &self.name;
                    return Err(format!(
                        "worker `{name}`: lease `{}` is wanted after its exit was counted",
                        want.lease
                    ));
                }
                continue;
            }
            if want.slots.iter().any(|slot| held.contains(slot)) {
                continue;
            }
            // Ranks elsewhere wait until rank 0's worker has said where they meet.
            if want.is_wide && !want.leads && !want.can_meet && want.stop.is_none() {
                continue;
            }
            if !self.begun.insert(want.lease) {
                let name = &self.name;
                return Err(format!(
                    "S3 worker `{name}`: lease `{}` begins twice",
                    want.lease
                ));
            }
            held.extend(&want.slots);
            let mut fates = moods(want);
            if self.is_bad {
                fates.fill(Mood::Crashes(0));
            }
            let local = Local {
                generation: want.generation,
                slots: want.slots.clone(),
                trainer: Trainer::new(want.job.clone(), &fates),
                leads: want.leads,
                time_left_ms: want.time_left_ms,
                stop: want.stop,
                is_live: want.stop.is_none(),
            };
            self.local.insert(want.lease, local);
            match want.stop {
                None => {
                    if want.is_wide && want.leads {
                        let host = self.name.clone();
                        let at = Rendezvous { host, port: 1 };
                        self.put(now, 0, want.lease, vec![ReportBody::Meets { at }]);
                    }
                    wishes.push(Wish::Begin(want.lease));
                }
                Some(StopKind::Checkpoint) => self.end(now, want.lease, Outcome::Stopped),
                Some(StopKind::Kill) => self.end(now, want.lease, Outcome::Killed),
            }
        }
        let gone = |lease: &LeaseId| {
            wanted.iter().all(|want| want.lease != *lease) && !self.spool.holds(*lease)
        };
        self.local
            .retain(|lease, local| local.is_live || !gone(lease));
        Ok(wishes)
    }

    fn end_unwanted(&mut self, now: Timestamp, wanted: &[Wanted]) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut killed = Vec::new();
        for (id, local) in self.local.iter_mut().filter(|(_, local)| local.is_live) {
            let want = (wanted.iter())
                .find(|want| want.lease == *id && want.generation == local.generation);
            match want.map_or(Some(StopKind::Kill), |want| want.stop) {
                None => {}
                Some(StopKind::Kill) => killed.push(*id),
                Some(StopKind::Checkpoint) if local.stop.is_some() => {}
                Some(StopKind::Checkpoint) => {
                    local.stop = Some(StopKind::Checkpoint);
                    wishes.push(Wish::Stop(*id));
                }
            }
        }
        for id in killed {
            self.end(now, id, Outcome::Killed);
        }
        wishes
    }

    /// A slot of this machine is in at most one trainer.
    pub fn check(&self) -> Result<(), String> {
        let mut held = BTreeSet::new();
        for (id, local) in self.local.iter().filter(|(_, local)| local.is_live) {
            if !local.slots.iter().all(|slot| held.insert(*slot)) {
                let name = &self.name;
                return Err(format!(
                    "S1 worker `{name}`: a slot of lease `{id}` is held twice"
                ));
            }
        }
        Ok(())
    }
}

impl Spool {
    /// Numbers what is ready, in order within each lease.
    fn seal(&mut self, now: Timestamp) {
        let mut blocked: BTreeSet<LeaseId> = BTreeSet::new();
        let mut rest = VecDeque::new();
        for (ready, lease, generation, body) in std::mem::take(&mut self.pending) {
            if ready > now || blocked.contains(&lease) {
                blocked.insert(lease);
                rest.push_back((ready, lease, generation, body));
                continue;
            }
            self.next += 1;
            self.sealed.push_back(Report {
                seq: self.next,
                lease,
                generation,
                at: now,
                body,
            });
        }
        self.pending = rest;
    }

    fn holds(&self, lease: LeaseId) -> bool {
        self.sealed.iter().any(|report| report.lease == lease)
            || self.pending.iter().any(|entry| entry.1 == lease)
    }
}
