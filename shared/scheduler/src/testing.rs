//! A small house for tests: a cluster to which events are told. Every decision is checked, and
//! applied as the engine would apply it.

use crate::{Cluster, Config, Event, decide, explain, invariants};
use pomona_domain::backbone::{Backbone, Block};
use pomona_domain::change::{Change, Subject};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::lease::{Generation, Lease};
use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::spec::{ExperimentSpec, parse};
use pomona_domain::trial::{Trial, TrialState};
use pomona_domain::worker::{PROCESSOR, Slot, SlotKind};
use pomona_domain::{Code, Digest, ExperimentId, Fault, LeaseId, Timestamp, TrialId, WorkerId};
use std::collections::BTreeMap;

pub(crate) struct House {
    pub(crate) cluster: Cluster,
    pub(crate) now: Timestamp,
    /// Rows of the last decision, by their newest content; what ended has left the cluster.
    pub(crate) last: Vec<Change>,
    seqs: BTreeMap<WorkerId, u64>,
    submitted: u64,
}

/// The file of an experiment `e` with one line per key that differs from the defaults.
pub(crate) fn spec(rest: &str) -> ExperimentSpec {
    let text = format!("name: e\nbackbone: b\ndataset: c\n{rest}");
    parse(&text, &[]).unwrap_or_else(|faults| panic!("{text}: {faults:#?}"))
}

/// The backbone that files name: three blocks.
pub(crate) fn backbone() -> Backbone {
    let block = |name: &str| Block {
        name: name.to_owned(),
        parameters: 1,
        macs: 1,
        cut_bytes: 1,
        output_shape: vec![1],
    };
    Backbone {
        name: "b".to_owned(),
        arch: "test-convnet".to_owned(),
        weights: Digest([2; 32]),
        source: Digest([2; 32]),
        image_size: 4,
        blocks: ["stem", "layer1.0", "layer1.1"].map(block).to_vec(),
        tensors: 3,
        head_parameters: 1,
        created_at: Timestamp::default(),
    }
}

/// A grid of so many trials, and more keys.
pub(crate) fn grid(trials: u32, rest: &str) -> ExperimentSpec {
    let rates: Vec<String> = (1..=trials)
        .map(|n| format!("{}", f64::from(n) / 1000.0))
        .collect();
    let rates = rates.join(", ");
    let space = format!("space: {{train.learning_rate: {{values: [{rates}]}}}}");
    let mut spec = spec(&format!("search: {{{space}}}\n{rest}"));
    spec.search.max_concurrent = trials;
    spec
}

pub(crate) fn slots(kinds: &[SlotKind]) -> Vec<Slot> {
    let slot = |(index, kind): (usize, &SlotKind)| Slot {
        index: u32::try_from(index).expect("an index"),
        kind: *kind,
        name: format!("slot {index}"),
        memory_bytes: None,
    };
    kinds.iter().enumerate().map(slot).collect()
}

pub(crate) fn worker_id(name: &str) -> WorkerId {
    WorkerId::derive(name, 0)
}

pub(crate) fn crashed(text: &str) -> Outcome {
    Outcome::Crashed {
        fault: Fault::new(Code::TrainerCrashed, text),
    }
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            cluster: Cluster::new(config),
            now: Timestamp(1_000_000),
            last: Vec::new(),
            seqs: BTreeMap::new(),
            submitted: 0,
        }
    }

    /// The backbone is in the catalogue, so that head-only trials share leases.
    pub(crate) fn sharing() -> Self {
        Self::sharing_with(Config::default())
    }

    pub(crate) fn sharing_with(config: Config) -> Self {
        let mut house = Self::with(config);
        let row = Change::Backbone(Box::new(backbone()));
        house.cluster.apply(house.now, &row);
        house
    }

    /// Decides, checks, applies.
    pub(crate) fn decide(&mut self, event: &Event) -> Result<(), Fault> {
        if let Event::Polled { worker, .. } = event {
            self.cluster.touch(*worker, self.now);
        }
        let decision = decide(&self.cluster, self.now, event);
        let before = self.cluster.clone();
        for change in &decision.changes {
            self.cluster.apply(self.now, change);
        }
        invariants::check_decision(&before, self.now, event, &decision, &self.cluster)
            .unwrap_or_else(|broken| panic!("{broken} after {event:?}"));
        self.last = decision.changes;
        decision.outcome
    }

    pub(crate) fn tell(&mut self, event: &Event) {
        let outcome = self.decide(event);
        outcome.unwrap_or_else(|fault| panic!("{event:?}: {fault}"));
    }

    /// Tells something that must be refused and change nothing.
    pub(crate) fn refused(&mut self, event: &Event) -> Code {
        let outcome = self.decide(event);
        assert_eq!(self.last, Vec::new(), "{event:?}");
        outcome.expect_err("a refusal").code
    }

    pub(crate) fn joins(&mut self, name: &str, count: usize) -> WorkerId {
        self.registers(name, 1, &vec![SlotKind::Cpu; count])
    }

    /// The same, with a label `zone`.
    pub(crate) fn joins_in(&mut self, name: &str, count: usize, zone: &str) -> WorkerId {
        let labels = BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        self.introduces((name, 1), &vec![SlotKind::Cpu; count], labels)
    }

    /// The same on a processor, whose slots are alike wherever they are.
    pub(crate) fn joins_on(&mut self, name: &str, count: usize, processor: &str) -> WorkerId {
        let labels = BTreeMap::from([(PROCESSOR.to_owned(), processor.to_owned())]);
        self.introduces((name, 1), &vec![SlotKind::Cpu; count], labels)
    }

    /// A worker of [`House::joins_on`] began anew.
    pub(crate) fn registers_again(&mut self, name: &str, count: usize) {
        let row = self.cluster.worker(worker_id(name)).expect("a worker");
        let (incarnation, labels) = (row.incarnation + 1, row.labels.clone());
        self.introduces((name, incarnation), &vec![SlotKind::Cpu; count], labels);
    }

    pub(crate) fn registers(&mut self, name: &str, nth: u64, kinds: &[SlotKind]) -> WorkerId {
        self.introduces((name, nth), kinds, BTreeMap::new())
    }

    fn introduces(
        &mut self,
        (name, incarnation): (&str, u64),
        kinds: &[SlotKind],
        labels: BTreeMap<String, String>,
    ) -> WorkerId {
        self.tell(&Event::Registered {
            id: worker_id(name),
            name: name.to_owned(),
            incarnation,
            slots: slots(kinds),
            labels,
        });
        worker_id(name)
    }

    pub(crate) fn submits(&mut self, spec: ExperimentSpec) -> ExperimentId {
        self.submitted += 1;
        let id = ExperimentId(self.submitted);
        self.tell(&Event::Submitted {
            id,
            spec: Box::new(spec),
            source: String::new(),
            dataset: Some(Digest([1; 32])),
            backbone: Some(Digest([2; 32])),
            plan: None,
        });
        id
    }

    /// Time passes; workers named are heard of meanwhile.
    pub(crate) fn passes(&mut self, ms: i64, heard: &[WorkerId]) {
        self.now = self.now.plus_ms(ms);
        for worker in heard {
            self.cluster.touch(*worker, self.now);
        }
        self.tell(&Event::Tick);
    }

    /// What the worker of rank 0 reports of a lease.
    pub(crate) fn report(&mut self, lease: &Lease, body: ReportBody) -> Report {
        self.report_of(lease.slots[0].worker, lease, body)
    }

    fn report_of(&mut self, worker: WorkerId, lease: &Lease, body: ReportBody) -> Report {
        let seq = self.seqs.entry(worker).or_default();
        *seq += 1;
        Report {
            seq: *seq,
            lease: lease.id,
            generation: lease.generation,
            at: self.now,
            body,
        }
    }

    pub(crate) fn poll(&self, worker: WorkerId, reports: Vec<Report>) -> Event {
        let row = self.cluster.worker(worker).expect("a worker");
        Event::Polled {
            worker,
            incarnation: row.incarnation,
            running: Vec::new(),
            reports,
            evidence: Vec::new(),
        }
    }

    /// A lease's worker reports something of it.
    pub(crate) fn says(&mut self, lease: &Lease, body: ReportBody) {
        self.says_on(lease.slots[0].worker, lease, body);
    }

    /// A worker reports something of a lease.
    pub(crate) fn says_on(&mut self, worker: WorkerId, lease: &Lease, body: ReportBody) {
        let report = self.report_of(worker, lease, body);
        let event = self.poll(worker, vec![report]);
        self.tell(&event);
    }

    pub(crate) fn exits(&mut self, lease: &Lease, outcome: Outcome) {
        self.says(lease, ReportBody::Exited { outcome });
    }

    pub(crate) fn observes(&mut self, lease: &Lease, trial: TrialId, step: u64, value: f64) {
        self.says(lease, observed(trial, step, value));
    }

    pub(crate) fn keeps(&mut self, lease: &Lease, trial: TrialId, kind: CheckpointKind, step: u64) {
        self.says(lease, checkpoint(trial, kind, step));
    }

    /// The row of a trial as it was last written, in memory or not.
    pub(crate) fn trial(&self, owner: ExperimentId, number: u32) -> Trial {
        let id = TrialId::derive(&owner.to_string(), u64::from(number));
        let written = self.last.iter().rev().find_map(|change| {
            if let Change::Trial(row) = change
                && row.id == id
            {
                Some((**row).clone())
            } else {
                None
            }
        });
        written
            .or_else(|| self.cluster.trial(id).cloned())
            .expect("a trial")
    }

    pub(crate) fn state(&self, owner: ExperimentId, number: u32) -> TrialState {
        self.trial(owner, number).state
    }

    /// The same for an experiment.
    pub(crate) fn experiment(&self, id: ExperimentId) -> Experiment {
        let written = self.last.iter().rev().find_map(|change| {
            if let Change::Experiment(row) = change
                && row.id == id
            {
                Some((**row).clone())
            } else {
                None
            }
        });
        written
            .or_else(|| self.cluster.experiment(id).cloned())
            .expect("an experiment")
    }

    pub(crate) fn standing(&self, id: ExperimentId) -> ExperimentState {
        self.experiment(id).state
    }

    /// The lease a trial is on.
    pub(crate) fn lease_of(&self, owner: ExperimentId, number: u32) -> Lease {
        let held = self.trial(owner, number).lease().expect("a lease");
        self.lease(held)
    }

    pub(crate) fn lease(&self, id: LeaseId) -> Lease {
        self.cluster.lease(id).cloned().expect("a live lease")
    }

    /// Numbers of the trials that are still on a lease.
    pub(crate) fn members(&self, lease: &Lease) -> Vec<u32> {
        let members = self.cluster.members(lease);
        members.map(|trial| trial.number).collect()
    }

    /// The only live lease.
    pub(crate) fn only_lease(&self) -> Lease {
        let leases: Vec<&Lease> = self.cluster.leases().collect();
        assert_eq!(leases.len(), 1);
        leases[0].clone()
    }

    pub(crate) fn generations(&self) -> Vec<Generation> {
        self.cluster
            .leases()
            .map(|lease| lease.generation)
            .collect()
    }

    /// Reasons of the last decision, in order.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let text = |change: &Change| {
            if let Change::Reason(row) = change {
                Some(row.text.clone())
            } else {
                None
            }
        };
        self.last.iter().filter_map(text).collect()
    }

    pub(crate) fn explains(&self, subject: Subject) -> String {
        explain(&self.cluster, subject, self.now)
    }

    /// The coordinator restarts: what is soft is lost.
    pub(crate) fn restarts(&mut self) {
        let snapshot = self.cluster.snapshot();
        let config = self.cluster.config().clone();
        self.cluster = Cluster::restore(snapshot.clone(), config, self.now);
        invariants::s10(&self.cluster, &snapshot).expect("S10");
    }
}

pub(crate) fn observed(trial: TrialId, step: u64, value: f64) -> ReportBody {
    ReportBody::Observed {
        trial,
        step,
        epoch: u32::try_from(step / 10).expect("an epoch"),
        metrics: BTreeMap::from([("val/accuracy".to_owned(), value)]),
        confusion: Vec::new(),
    }
}

pub(crate) fn checkpoint(trial: TrialId, kind: CheckpointKind, step: u64) -> ReportBody {
    ReportBody::Checkpoint {
        trial,
        checkpoint: kind,
        step,
        epoch: u32::try_from(step / 10).expect("an epoch"),
        digest: Digest::of(format!("{trial} {kind:?} {step}").as_bytes()),
        size: 1,
    }
}
