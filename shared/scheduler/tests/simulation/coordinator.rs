//! The coordinator of a simulated world: the production `decide`, `apply` and `restore` around the
//! journal, with the ways in which a commit can go wrong. Every decision is checked.

use pomona_domain::backbone::{Backbone, Block};
use pomona_domain::change::Change;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::Experiment;
use pomona_domain::gate::TestOutcomes;
use pomona_domain::lease::{Lease, StopKind, Work};
use pomona_domain::model::ModelFile;
use pomona_domain::policy::Policy;
use pomona_domain::report::ReportBody;
use pomona_domain::task::{TaskResult, TaskSpec};
use pomona_domain::trial::Trial;
use pomona_domain::{
    Code, Digest, Fault, Generation, LeaseId, TaskId, Timestamp, TrialId, WorkerId,
};
use pomona_scheduler::gates::{Evidence, weigh};
use pomona_scheduler::{Cluster, Config, Event, decide, invariants};
use std::collections::BTreeMap;

use crate::journal::Journal;

/// How a commit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    /// It is written and shown.
    Fine,
    /// The store refuses: nothing happened, everybody gets a code.
    Refused,
    /// It is written, the answer of the store is lost, and the batch id says that it was written.
    Unknown,
    /// The coordinator dies before it.
    DiesBefore,
    /// The coordinator dies between commit and apply.
    DiesAfter,
}

/// What an event got, when anybody is there to answer.
pub type Answered = Result<Vec<Change>, Fault>;

pub struct Coordinator {
    pub cluster: Cluster,
    pub journal: Journal,
    pub is_up: bool,
    config: Config,
}

/// A lease as a worker is told of it.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub lease: LeaseId,
    pub generation: Generation,
    pub slots: Vec<u32>,
    /// Others have slots of it, too.
    pub is_wide: bool,
    /// Rank 0 is here.
    pub leads: bool,
    /// It is known where its ranks meet.
    pub can_meet: bool,
    pub stop: Option<StopKind>,
    pub time_left_ms: Option<u64>,
    pub job: Job,
}

/// What a trainer is to do.
#[derive(Debug, Clone)]
pub enum Job {
    Train {
        members: Vec<Member>,
    },
    Task {
        task: TaskId,
        answer: Box<TaskResult>,
    },
}

/// One trial of a job.
#[derive(Debug, Clone)]
pub struct Member {
    pub trial: TrialId,
    pub epochs: u32,
    pub resume: u64,
    pub resume_best: Option<u64>,
}

/// How long a trial is trained: its point may say otherwise than the file.
pub fn epochs(owner: &Experiment, trial: &Trial) -> u32 {
    let own = trial.hparams.0.get("train.epochs");
    let own = own.and_then(serde_json::Value::as_u64);
    own.map_or(owner.spec.train.epochs, |epochs| epochs as u32)
}

/// The backbone that all experiments name.
fn backbone() -> Backbone {
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
        blocks: ["stem", "layer1", "layer2"].map(block).to_vec(),
        tensors: 3,
        head_parameters: 1,
        created_at: Timestamp::default(),
    }
}

impl Coordinator {
    pub fn new(config: Config) -> Self {
        let mut cluster = Cluster::new(config.clone());
        let mut journal = Journal::default();
        let known = Change::Backbone(Box::new(backbone()));
        cluster.apply(Timestamp::default(), &known);
        journal.commit(&[known]).expect("an empty journal");
        Self {
            cluster,
            journal,
            is_up: true,
            config,
        }
    }

    /// One batch: decide all on speculative memory, commit once, answer. `Err` is a broken
    /// invariant; `None` that nobody is there to answer.
    pub fn handle(
        &mut self,
        now: Timestamp,
        events: &[Event],
        luck: Luck,
    ) -> Result<Option<Vec<Answered>>, String> {
        let mut answers = Vec::new();
        let mut batch = Vec::new();
        for event in events {
            let read = self.prepare(now, event, &batch);
            let (answer, changes) = self.decide(now, read.as_ref().unwrap_or(event))?;
            batch.extend(changes);
            answers.push(answer);
        }
        let luck = if batch.is_empty() { Luck::Fine } else { luck };
        if matches!(luck, Luck::Fine | Luck::Unknown | Luck::DiesAfter) {
            self.journal.commit(&batch)?;
        }
        match luck {
            Luck::Fine => Ok(Some(answers)),
            Luck::Unknown => {
                self.restart(now)?;
                Ok(Some(answers))
            }
            Luck::Refused => {
                self.restart(now)?;
                let fault = Fault::new(Code::StoreDown, "the database refused");
                let refused = |answer: Answered| Err(answer.err().unwrap_or_else(|| fault.clone()));
                Ok(Some(answers.into_iter().map(refused).collect()))
            }
            Luck::DiesBefore | Luck::DiesAfter => {
                self.is_up = false;
                Ok(None)
            }
        }
    }

    /// What a handler reads for an event, and the engine does before it decides. Gives the event with
    /// what was read in it.
    fn prepare(&mut self, now: Timestamp, event: &Event, batch: &[Change]) -> Option<Event> {
        if let Event::Pin { trial, pinned, .. } = event {
            // A row that another event of the batch has written would be a conflict, which the
            // user is told.
            let (trial, pinned) = (*trial, *pinned);
            let is_written =
                |change: &Change| matches!(change, Change::Trial(row) if row.id == trial);
            let ended = if batch.iter().any(is_written) {
                None
            } else {
                self.journal.ended(trial)
            };
            return Some(Event::Pin {
                trial,
                pinned,
                ended,
            });
        }
        if let Event::TaskSubmitted {
            spec: TaskSpec::Publish { trial, .. },
            ..
        } = event
            && let Some(rows) = self.journal.source(*trial)
        {
            self.cluster.recall(rows);
        }
        if let Event::Polled {
            worker,
            incarnation,
            ..
        } = event
            && let Some(row) = self.cluster.worker(*worker)
            && row.incarnation == *incarnation
        {
            self.cluster.touch(*worker, now);
        }
        self.informed(event)
    }

    /// An event with what gates need to know, as it was committed: it may have changed since.
    fn informed(&self, event: &Event) -> Option<Event> {
        let mut event = event.clone();
        if let Event::AliasSet {
            model,
            alias,
            number,
            evidence,
            ..
        } = &mut event
        {
            *evidence = Some(Box::new(self.journal.evidence((model, alias), *number)));
            return Some(event);
        }
        if let Event::Polled {
            reports, evidence, ..
        } = &mut event
        {
            let known = reports
                .iter()
                .filter_map(|report| self.published(&report.body));
            *evidence = known.collect();
            return (!evidence.is_empty()).then_some(event);
        }
        None
    }

    fn published(&self, body: &ReportBody) -> Option<Evidence> {
        let ReportBody::Result { task, result } = body else {
            return None;
        };
        let TaskSpec::Publish {
            model,
            trial,
            alias,
        } = &self.cluster.task(*task)?.spec
        else {
            return None;
        };
        let TaskResult::Published { outcomes, .. } = &**result else {
            return None;
        };
        let promote = self
            .cluster
            .source(*trial)?
            .experiment
            .spec
            .promote
            .as_ref()?;
        let alias = alias.as_ref().unwrap_or(&promote.alias);
        let known = self.journal.evidence((model, alias), 0);
        let champion = known.champion.as_ref();
        let theirs =
            champion.and_then(|row| self.journal.outcomes.get(&(model.clone(), row.number)));
        Some(Evidence {
            task: Some(*task),
            weighed: weigh(&promote.gates, outcomes.as_deref(), theirs),
            ..known
        })
    }

    /// The answer, and what is to be committed: a refusal may leave something behind, too.
    fn decide(&mut self, now: Timestamp, event: &Event) -> Result<(Answered, Vec<Change>), String> {
        let decision = decide(&self.cluster, now, event);
        let before = self.cluster.clone();
        for change in &decision.changes {
            self.cluster.apply(now, change);
        }
        invariants::check_decision(&before, now, event, &decision, &self.cluster)?;
        let changes = decision.changes;
        Ok((decision.outcome.map(|()| changes.clone()), changes))
    }

    /// Memory is read again, as at a start.
    pub fn restart(&mut self, now: Timestamp) -> Result<(), String> {
        let loaded = self.journal.load();
        let mut cluster = Cluster::restore(loaded.clone(), self.config.clone(), now);
        for trial in cluster.missing_sources() {
            let rows = self.journal.source(trial);
            cluster.recall(rows.ok_or_else(|| format!("no rows of trial `{trial}`"))?);
        }
        invariants::s10(&cluster, &loaded)?;
        invariants::check(&cluster)?;
        self.cluster = cluster;
        self.is_up = true;
        Ok(())
    }

    /// The operator changes projects and pools, for which the coordinator begins anew.
    pub fn change_policy(&mut self, now: Timestamp, policy: Policy) -> Result<(), String> {
        self.config.policy = policy;
        self.restart(now)
    }

    /// S10 in the middle of a run, and what experiments have spent.
    pub fn check_store(&self) -> Result<(), String> {
        self.journal.check_spent()?;
        invariants::s10(&self.cluster, &self.journal.load())
    }

    /// What should run on a worker, and up to where its reports were counted.
    pub fn desired(&self, worker: WorkerId) -> (u64, Vec<Wanted>) {
        let acked = self.cluster.worker(worker).map_or(0, |row| row.acked_seq);
        let wanted = self.cluster.leases_of(worker).filter_map(|lease| {
            Some(Wanted {
                lease: lease.id,
                generation: lease.generation,
                slots: (lease.slots.iter())
                    .filter(|slot| slot.worker == worker)
                    .map(|slot| slot.index)
                    .collect(),
                is_wide: lease.is_wide(),
                leads: lease.is_led_by(worker),
                can_meet: lease.meets_at.is_some(),
                stop: lease.stop(),
                time_left_ms: (self.cluster.members(lease))
                    .filter_map(|trial| self.cluster.time_left_ms(trial.id))
                    .min(),
                job: self.job(lease)?,
            })
        });
        (acked, wanted.collect())
    }

    /// Who has ended meanwhile is not trained again by a worker that starts late.
    fn job(&self, lease: &Lease) -> Option<Job> {
        match &lease.work {
            Work::Trials(_) => {
                let step = |trial, kind| (self.cluster.checkpoint(trial, kind)).map(|row| row.step);
                let member = |trial: &Trial| {
                    let owner = self.cluster.experiment(trial.experiment)?;
                    Some(Member {
                        trial: trial.id,
                        epochs: epochs(owner, trial),
                        resume: step(trial.id, CheckpointKind::Last).unwrap_or(0),
                        resume_best: step(trial.id, CheckpointKind::Best),
                    })
                };
                let members = self.cluster.members(lease).filter_map(member);
                Some(Job::Train {
                    members: members.collect(),
                })
            }
            Work::Task(id) => {
                let row = self.cluster.task(*id)?;
                Some(Job::Task {
                    task: *id,
                    answer: Box::new(answer(&row.spec)),
                })
            }
        }
    }
}

/// What a version of a trial says of forty samples of two classes.
fn outcomes(trial: TrialId) -> TestOutcomes {
    let skill = 0.5 + crate::trainer::curve(trial, 0) / 2.0;
    let labels: Vec<u32> = (0..40).map(|at| at % 2).collect();
    let predict = |(at, label): (usize, &u32)| {
        let luck = crate::trainer::curve(trial, at as u64 + 1);
        if luck < skill { *label } else { 1 - *label }
    };
    TestOutcomes {
        split: Digest::of(b"the test split"),
        classes: vec!["a".to_owned(), "b".to_owned()],
        predicted: labels.iter().enumerate().map(predict).collect(),
        confidence: vec![0.9; 40],
        truth: vec![0.5; 40],
        labels,
    }
}

/// What a good trainer answers to a task.
fn answer(spec: &TaskSpec) -> TaskResult {
    match spec {
        TaskSpec::ImportDataset { name, .. } => TaskResult::Dataset {
            manifest: "manifest.json".to_owned(),
            digest: Digest::of(name.as_bytes()),
            summary: pomona_domain::dataset::DatasetSummary::default(),
        },
        TaskSpec::ImportBackbone { weights, .. } => TaskResult::Backbone {
            weights: "backbone.safetensors".to_owned(),
            digest: *weights,
            image_size: 224,
            blocks: Vec::new(),
            tensors: 2,
            head_parameters: 10,
        },
        TaskSpec::Publish { trial, .. } => TaskResult::Published {
            files: vec![ModelFile {
                path: "model.safetensors".to_owned(),
                sha256: format!("{:064x}", trial.0),
                size: 1,
            }],
            metrics: BTreeMap::from([(
                "test/accuracy".to_owned(),
                crate::trainer::curve(*trial, 0),
            )]),
            confusion: Vec::new(),
            predictions: Vec::new(),
            outcomes: Some(Box::new(outcomes(*trial))),
        },
        TaskSpec::Predict { .. } => TaskResult::Predicted {
            pictures: Vec::new(),
        },
    }
}
