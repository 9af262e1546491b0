//! A machine in a few lines: it registers, polls and reports what the test says.

use pomona_api::PROTOCOL;
use pomona_api::client::Client;
use pomona_api::v1::catalogue::{AddBackbone, AddDataset};
use pomona_api::v1::features::PROCESSOR;
use pomona_api::v1::workers::{
    Desired, DesiredLease, DesiredWork, LogLine, Poll, Register, Running,
};
use pomona_domain::backbone::Block;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::{DatasetSummary, ImportOptions, Manifest, Sample, Split};
use pomona_domain::gate::TestOutcomes;
use pomona_domain::model::ModelFile;
use pomona_domain::report::{Outcome, Report, ReportBody};
use pomona_domain::task::{TaskResult, TestPrediction};
use pomona_domain::worker::{Slot, SlotKind};
use pomona_domain::{Digest, Fault, LeaseId, TaskId, Timestamp, TrialId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::harness::DEADLINE;

/// A moment that is the same in every run.
pub const AT: Timestamp = Timestamp(1_700_000_000_000);

/// What `POST /api/v1/workers` gets.
pub fn introduction(number: u64, slots: u32) -> Register {
    let slot = |index| Slot {
        index,
        kind: SlotKind::Cpu,
        name: "one core".to_owned(),
        memory_bytes: None,
    };
    Register {
        protocol: PROTOCOL,
        version: "0.1.0".to_owned(),
        id: WorkerId(number),
        name: format!("machine-{number}"),
        incarnation: 1,
        slots: (0..slots).map(slot).collect(),
        // Machines of ten are alike.
        labels: BTreeMap::from([(PROCESSOR.to_owned(), format!("chip {}", number / 10))]),
        metrics_address: Some(format!("127.0.0.1:{}", 9000 + number)),
        feature_budget_bytes: None,
    }
}

/// A worker that does what it is told.
pub struct Machine {
    client: Client,
    id: WorkerId,
    seq: u64,
    spool: Vec<Report>,
    ended: BTreeSet<LeaseId>,
    /// Its leases, as it was told last.
    pub leases: Vec<DesiredLease>,
    /// Log lines for the next poll.
    pub logs: Vec<LogLine>,
}

impl Machine {
    /// Registers.
    pub async fn join(client: &Client, number: u64, slots: u32) -> Self {
        let said = client.worker_register(&introduction(number, slots)).await;
        let seq = said.expect("a registration").worker.acked_seq;
        Self {
            client: client.clone(),
            id: WorkerId(number),
            seq,
            spool: Vec::new(),
            ended: BTreeSet::new(),
            leases: Vec::new(),
            logs: Vec::new(),
        }
    }

    /// Its coordinator has another address now.
    pub fn meet(&mut self, client: &Client) {
        self.client = client.clone();
    }

    /// Its id.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// What runs here.
    pub fn running(&self) -> Vec<Running> {
        let leases = self.leases.iter().map(|lease| Running {
            lease: lease.lease,
            generation: lease.generation,
        });
        leases.collect()
    }

    /// One poll as it would be sent now.
    pub fn body(&mut self, wait_ms: u64) -> Poll {
        Poll {
            protocol: PROTOCOL,
            incarnation: 1,
            running: self.running(),
            reports: self.spool.clone(),
            logs: std::mem::take(&mut self.logs),
            features: None,
            wait_ms,
        }
    }

    /// Sends what was produced and learns what should run.
    pub async fn poll(&mut self, wait_ms: u64) -> Desired {
        let body = self.body(wait_ms);
        self.send(&body).await.expect("an answer")
    }

    /// Sends a poll.
    pub async fn send(&mut self, body: &Poll) -> Result<Desired, Fault> {
        let desired = self.client.worker_poll(self.id, body).await?;
        self.spool.retain(|report| report.seq > desired.acked_seq);
        self.leases.clone_from(&desired.leases);
        self.leases
            .retain(|lease| !self.ended.contains(&lease.lease));
        Ok(desired)
    }

    /// Polls until its leases are as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&[DesiredLease]) -> bool) {
        let end = Instant::now() + DEADLINE;
        loop {
            self.poll(200).await;
            if wanted(&self.leases) {
                return;
            }
            assert!(
                Instant::now() < end,
                "waited in vain until {what}: {:?}",
                self.leases
            );
        }
    }

    /// Polls until it has so many leases.
    pub async fn has(&mut self, count: usize) -> Vec<DesiredLease> {
        self.until(&format!("there are {count} leases"), |leases| {
            leases.len() == count
        })
        .await;
        self.leases.clone()
    }

    /// Notes something for the next poll.
    pub fn report(&mut self, lease: &DesiredLease, body: ReportBody) {
        self.seq += 1;
        if matches!(body, ReportBody::Exited { .. }) {
            self.ended.insert(lease.lease);
            self.leases.retain(|held| held.lease != lease.lease);
        }
        self.spool.push(Report {
            seq: self.seq,
            lease: lease.lease,
            generation: lease.generation,
            at: AT,
            body,
        });
    }

    /// Notes an evaluation.
    pub fn observe(&mut self, lease: &DesiredLease, step: u64, accuracy: f64, loss: f64) {
        let metrics = [("val/accuracy", accuracy), ("val/loss", loss)];
        let body = ReportBody::Observed {
            trial: trial_of(lease),
            step,
            epoch: u32::try_from(step / 10).expect("few steps"),
            metrics: metrics.map(|(name, value)| (name.to_owned(), value)).into(),
            confusion: Vec::new(),
        };
        self.report(lease, body);
    }

    /// Uploads and notes a checkpoint.
    pub async fn checkpoint(
        &mut self,
        lease: &DesiredLease,
        kind: CheckpointKind,
        step: u64,
    ) -> Digest {
        let bytes = format!("{} at {step}", trial_of(lease));
        let size = bytes.len() as u64;
        let digest = self.client.blob_put_bytes(bytes).await.expect("an upload");
        let body = ReportBody::Checkpoint {
            trial: trial_of(lease),
            checkpoint: kind,
            step,
            epoch: 1,
            digest,
            size,
        };
        self.report(lease, body);
        digest
    }

    /// Notes that a lease is over.
    pub fn exit(&mut self, lease: &DesiredLease, outcome: Outcome) {
        self.report(lease, ReportBody::Exited { outcome });
    }

    /// Trains a lease to its end with one evaluation.
    pub async fn train(&mut self, lease: &DesiredLease, accuracy: f64, loss: f64) {
        let environment = BTreeMap::from([("threads".to_owned(), "1".to_owned())]);
        self.report(lease, ReportBody::Started { environment });
        self.observe(lease, 10, accuracy, loss);
        self.checkpoint(lease, CheckpointKind::Best, 10).await;
        self.exit(lease, Outcome::Finished);
        self.poll(0).await;
    }

    /// Answers a task and ends its lease.
    pub async fn answer(&mut self, lease: &DesiredLease, result: TaskResult) {
        let task = task_of(lease);
        self.report(
            lease,
            ReportBody::Result {
                task,
                result: Box::new(result),
            },
        );
        self.exit(lease, Outcome::Finished);
        self.poll(0).await;
    }

    /// Adds the data set `flowers` and the backbone `lite`, as a worker would.
    pub async fn furnish(&mut self) {
        self.add_dataset("flowers", "key-data").await;
        let weights = self
            .client
            .blob_put_bytes("weights")
            .await
            .expect("an upload");
        let body = AddBackbone {
            name: "lite".to_owned(),
            arch: "efficientnet-lite0".to_owned(),
            weights,
        };
        self.client
            .backbone_add(&body, "key-backbone")
            .await
            .expect("a task");
        let lease = self.has(1).await.remove(0);
        let digest = self
            .client
            .blob_put_bytes("safetensors")
            .await
            .expect("an upload");
        self.answer(&lease, backbone(digest)).await;
    }

    /// Adds a version of a data set.
    pub async fn add_dataset(&mut self, name: &str, key: &str) {
        let side = ImportOptions::default().image_size;
        self.add_dataset_of(name, key, side).await;
    }

    /// The same with images of another size.
    pub async fn add_dataset_of(&mut self, name: &str, key: &str, image_size: u32) {
        let archive = self
            .client
            .blob_put_bytes("a tar")
            .await
            .expect("an upload");
        let body = AddDataset {
            name: name.to_owned(),
            archive,
            options: ImportOptions {
                image_size,
                ..ImportOptions::default()
            },
        };
        self.client.dataset_add(&body, key).await.expect("a task");
        let lease = self.has(1).await.remove(0);
        assert!(
            matches!(lease.work, DesiredWork::ImportDataset { archive: a, .. } if a == archive)
        );
        let manifest = serde_json::to_vec(&manifest(archive)).expect("JSON");
        let digest = self
            .client
            .blob_put_bytes(manifest)
            .await
            .expect("an upload");
        self.answer(&lease, dataset(digest)).await;
    }
}

/// The manifest of a data set of two pictures.
pub fn manifest(archive: Digest) -> Manifest {
    let sample = |path: &str, label, split| Sample {
        path: path.to_owned(),
        label,
        split,
        group: label,
        file: Digest::of(path.as_bytes()),
        pixels: Digest::of(path.as_bytes()),
    };
    Manifest {
        archive,
        options: ImportOptions::default(),
        classes: vec!["daisy".to_owned(), "rose".to_owned()],
        samples: vec![
            sample("daisy/1.png", 0, Split::Train),
            sample("rose/1.png", 1, Split::Test),
        ],
        problems: Vec::new(),
    }
}

fn dataset(digest: Digest) -> TaskResult {
    let classes = [("daisy", [6, 2, 2]), ("rose", [6, 2, 2])];
    TaskResult::Dataset {
        manifest: "manifest.json".to_owned(),
        digest,
        summary: DatasetSummary {
            classes: classes
                .map(|(name, counts)| (name.to_owned(), counts))
                .into(),
            groups: 20,
            ..DatasetSummary::default()
        },
    }
}

fn backbone(digest: Digest) -> TaskResult {
    let block = |name: &str| Block {
        name: name.to_owned(),
        parameters: 100,
        macs: 1000,
        cut_bytes: 64,
        output_shape: vec![8, 4, 4],
    };
    TaskResult::Backbone {
        weights: "backbone.safetensors".to_owned(),
        digest,
        image_size: 224,
        blocks: ["_blocks.0", "_blocks.1"].map(block).into(),
        tensors: 7,
        head_parameters: 1000,
    }
}

/// The same, with what it said of forty samples of two classes: those below `wrong` are mistakes.
pub async fn published_with(client: &Client, wrong: u32) -> TaskResult {
    let mut result = published(client, 1.0 - f64::from(wrong) / 40.0).await;
    let labels: Vec<u32> = (0..40).map(|at| at % 2).collect();
    let predict = |at: u32| if at < wrong { 1 - at % 2 } else { at % 2 };
    let said = TestOutcomes {
        split: Digest::of(b"the test split"),
        classes: vec!["rose".to_owned(), "tulip".to_owned()],
        predicted: (0..40).map(predict).collect(),
        confidence: vec![0.9; 40],
        truth: vec![0.5; 40],
        labels,
    };
    if let TaskResult::Published { outcomes, .. } = &mut result {
        *outcomes = Some(Box::new(said));
    }
    result
}

/// A published folder of one file, with a measured accuracy.
pub async fn published(client: &Client, accuracy: f64) -> TaskResult {
    let bytes = format!("a model of {accuracy}");
    let digest = client
        .blob_put_bytes(bytes.clone())
        .await
        .expect("an upload");
    let file = ModelFile {
        path: "model.safetensors".to_owned(),
        sha256: digest.hex(),
        size: bytes.len() as u64,
    };
    let prediction = TestPrediction {
        path: "rose/1.png".to_owned(),
        label: 1,
        predicted: 1,
        probability: 0.9,
    };
    TaskResult::Published {
        files: vec![file],
        metrics: BTreeMap::from([("test/accuracy".to_owned(), accuracy)]),
        confusion: vec![vec![2, 0], vec![0, 2]],
        predictions: vec![prediction],
        outcomes: None,
    }
}

/// The trials of a lease.
pub fn trials_of(lease: &DesiredLease) -> Vec<TrialId> {
    let DesiredWork::Train { members, .. } = &lease.work else {
        panic!("not a trial: {lease:?}");
    };
    members.iter().map(|member| member.trial).collect()
}

/// The only trial of a lease.
pub fn trial_of(lease: &DesiredLease) -> TrialId {
    let trials = trials_of(lease);
    assert_eq!(trials.len(), 1, "one trial: {lease:?}");
    trials[0]
}

/// The task of a lease.
pub fn task_of(lease: &DesiredLease) -> TaskId {
    match &lease.work {
        DesiredWork::ImportDataset { task, .. }
        | DesiredWork::ImportBackbone { task, .. }
        | DesiredWork::Publish { task, .. }
        | DesiredWork::Predict { task, .. } => *task,
        DesiredWork::Train { .. } | DesiredWork::Program(_) => panic!("not a task: {lease:?}"),
    }
}
