//! What should run on a worker: its leases, each with everything a trainer needs, as blobs.
//!
//! It decides nothing: it writes out what the cluster holds.

use pomona_api::v1::workers::{
    BackboneBlobs, DataBlobs, Desired, DesiredLease, DesiredMember, DesiredProgram, DesiredWork,
    Gang, ProgramCheckpoint,
};
use pomona_domain::backbone::frozen_blocks;
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::experiment::Experiment;
use pomona_domain::lease::{Lease, Work};
use pomona_domain::model::Version;
use pomona_domain::plan::{Choice, CutPlan};
use pomona_domain::task::TaskSpec;
use pomona_domain::worker::Worker;
use pomona_domain::{Code, Digest, Fault, TaskId, TrialId, WorkerId, name};
use pomona_scheduler::Cluster;
use pomona_store::Store;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Label under which a worker's row keeps the address of its own metrics.
pub const METRICS_ADDRESS: &str = "metrics_address";
/// Label under which a worker's row keeps the bytes of features that it may keep.
pub const FEATURE_BUDGET: &str = "feature_budget_bytes";
/// Rows of each kind that are kept in memory.
const KEPT: usize = 64;

/// Immutable rows that leases refer to and that the cluster does not hold.
#[derive(Debug, Default)]
pub struct Inputs {
    archives: Mutex<BTreeMap<Digest, Digest>>,
    versions: Mutex<BTreeMap<(String, u32), Arc<Version>>>,
}

impl Inputs {
    /// The archive of an experiment's data set.
    async fn archive(&self, store: &Store, experiment: &Experiment) -> Result<Digest, Fault> {
        let manifest = experiment.dataset;
        let manifest = manifest.ok_or_else(|| gone("data set", &experiment.spec.dataset))?;
        if let Some(archive) = lock(&self.archives).get(&manifest) {
            return Ok(*archive);
        }
        let (name, number) = name::dataset_reference("dataset", &experiment.spec.dataset)?;
        let row = store.dataset_get(&name, number).await?;
        let row = row.ok_or_else(|| gone("data set", &experiment.spec.dataset))?;
        keep(&self.archives, manifest, row.archive);
        Ok(row.archive)
    }

    async fn version(
        &self,
        store: &Store,
        model: &str,
        number: u32,
    ) -> Result<Arc<Version>, Fault> {
        let key = (model.to_owned(), number);
        if let Some(version) = lock(&self.versions).get(&key) {
            return Ok(Arc::clone(version));
        }
        let row = store.version_get(model, number).await?;
        let row = Arc::new(row.ok_or_else(|| gone("version", &format!("{model}@{number}")))?);
        keep(&self.versions, key, Arc::clone(&row));
        Ok(row)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep<K: Ord, V>(rows: &Mutex<BTreeMap<K, V>>, key: K, value: V) {
    let mut rows = lock(rows);
    if rows.len() >= KEPT {
        rows.clear();
    }
    rows.insert(key, value);
}

fn gone(what: &str, name: &str) -> Fault {
    Fault::new(
        Code::Internal,
        format!("a lease needs the {what} `{name}`, which is not there"),
    )
}

/// What should run on a worker.
pub async fn desired(
    store: &Store,
    inputs: &Inputs,
    cluster: &Cluster,
    worker: &Worker,
) -> Result<Desired, Fault> {
    let mut leases = Vec::new();
    for lease in cluster.leases_of(worker.id) {
        let written = Writer {
            store,
            inputs,
            cluster,
        };
        match written.lease(lease, worker.id).await {
            Ok(lease) => leases.push(lease),
            Err(fault) if fault.code == Code::Internal => {
                tracing::error!(lease.id = %lease.id, "a lease cannot be written out: {fault}");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(Desired {
        acked_seq: worker.acked_seq,
        leases,
        evict: Vec::new(),
        want_features: false,
        upload: Vec::new(),
    })
}

struct Writer<'a> {
    store: &'a Store,
    inputs: &'a Inputs,
    cluster: &'a Cluster,
}

impl Writer<'_> {
    async fn lease(&self, lease: &Lease, worker: WorkerId) -> Result<DesiredLease, Fault> {
        let slots = lease.slots.iter().filter(|slot| slot.worker == worker);
        let (time_left_ms, work) = match &lease.work {
            Work::Trials(_) => {
                // Who has left meanwhile is not trained again by a worker that starts late.
                let members: Vec<TrialId> = self.cluster.members(lease).map(|row| row.id).collect();
                let left = members.iter().map(|id| self.cluster.time_left_ms(*id));
                (left.flatten().min(), self.train(&members).await?)
            }
            Work::Task(task) => (None, self.task(*task).await?),
        };
        Ok(DesiredLease {
            lease: lease.id,
            generation: lease.generation,
            slots: slots.map(|slot| slot.index).collect(),
            gang: gang(lease, worker),
            stop: lease.stop(),
            time_left_ms,
            work,
        })
    }

    async fn train(&self, trials: &[TrialId]) -> Result<DesiredWork, Fault> {
        if let [only] = trials
            && let Some(program) = self.program(*only)?
        {
            return Ok(DesiredWork::Program(Box::new(program)));
        }
        let mut members = Vec::new();
        let mut owner = None;
        for id in trials {
            let trial = self.cluster.trial(*id);
            let trial = trial.ok_or_else(|| gone("trial", &id.to_string()))?;
            let experiment = self.cluster.experiment(trial.experiment);
            let experiment = experiment.ok_or_else(|| gone("experiment of", &id.to_string()))?;
            owner = Some(experiment);
            let resume = self.cluster.checkpoint(*id, CheckpointKind::Last);
            members.push(DesiredMember {
                trial: *id,
                spec: (experiment.spec).trial_spec(&trial.hparams, trial.replicate)?,
                resume: resume.map(|row| row.digest),
            });
        }
        let owner = owner.ok_or_else(|| gone("trial", "none"))?;
        Ok(DesiredWork::Train {
            data: self.data(owner).await?,
            backbone: self.backbone(owner)?,
            keep_features: self.keeps_features(owner, &members),
            members,
        })
    }

    /// The program that a trial runs, if it runs one of its own.
    fn program(&self, id: TrialId) -> Result<Option<DesiredProgram>, Fault> {
        let trial = self.cluster.trial(id);
        let trial = trial.ok_or_else(|| gone("trial", &id.to_string()))?;
        let owner = self.cluster.experiment(trial.experiment);
        let owner = owner.ok_or_else(|| gone("experiment of", &id.to_string()))?;
        if owner.spec.runner.is_trainer() {
            return Ok(None);
        }
        let last = self.cluster.checkpoint(id, CheckpointKind::Last);
        Ok(Some(DesiredProgram {
            trial: id,
            experiment: owner.id,
            spec: (owner.spec).program_spec(&trial.hparams, trial.replicate)?,
            resume: last.map(|row| ProgramCheckpoint {
                digest: row.digest,
                step: row.step,
                epoch: row.epoch,
            }),
        }))
    }

    /// Whether the plan keeps features at the depth of these trials, which is one for all of them.
    fn keeps_features(&self, owner: &Experiment, members: &[DesiredMember]) -> bool {
        let backbone = self.cluster.backbone(&owner.spec.backbone);
        let (Some(plan), Some(backbone), Some(first)) = (&owner.plan, backbone, members.first())
        else {
            return true;
        };
        let names = backbone.blocks.iter().map(|block| block.name.as_str());
        let frozen = frozen_blocks(names, &first.spec.transfer.frozen_depth);
        let is_it = |cut: &&CutPlan| frozen == Some(cut.frozen_blocks as usize);
        let cut = plan.cuts.iter().find(is_it);
        // Without a budget the workers alone know what fits.
        plan.feature_budget_bytes.is_none() || cut.is_none_or(|cut| cut.choice != Choice::Pixels)
    }

    async fn task(&self, id: TaskId) -> Result<DesiredWork, Fault> {
        let task = self.cluster.task(id);
        let task = task.ok_or_else(|| gone("task", &id.to_string()))?;
        Ok(match &task.spec {
            TaskSpec::ImportDataset {
                archive, options, ..
            } => DesiredWork::ImportDataset {
                task: id,
                archive: *archive,
                options: options.clone(),
            },
            TaskSpec::ImportBackbone { arch, weights, .. } => DesiredWork::ImportBackbone {
                task: id,
                arch: arch.clone(),
                weights: *weights,
            },
            TaskSpec::Publish { model, trial, .. } => self.publish(id, model, *trial).await?,
            TaskSpec::Predict {
                model,
                version,
                pictures,
                top,
            } => {
                let version = self.inputs.version(self.store, model, *version).await?;
                DesiredWork::Predict {
                    task: id,
                    files: files(&version)?,
                    pictures: *pictures,
                    top: *top,
                }
            }
        })
    }

    async fn publish(&self, id: TaskId, model: &str, trial: TrialId) -> Result<DesiredWork, Fault> {
        let source = self.cluster.source(trial);
        let source = source.ok_or_else(|| gone("trial", &trial.to_string()))?;
        let lineage = source.lineage();
        let lineage = lineage.ok_or_else(|| gone("best checkpoint of", &trial.to_string()))?;
        Ok(DesiredWork::Publish {
            task: id,
            spec: Box::new(
                (source.experiment.spec)
                    .trial_spec(&source.trial.hparams, source.trial.replicate)?,
            ),
            data: self.data(source.experiment).await?,
            backbone: self.backbone(source.experiment)?,
            checkpoint: lineage.checkpoint,
            lineage: Box::new(lineage),
            model: model.to_owned(),
            validation: source.validation().cloned().unwrap_or_default(),
        })
    }

    async fn data(&self, experiment: &Experiment) -> Result<DataBlobs, Fault> {
        Ok(DataBlobs {
            manifest: (experiment.dataset)
                .ok_or_else(|| gone("data set", &experiment.spec.dataset))?,
            archive: self.inputs.archive(self.store, experiment).await?,
        })
    }

    fn backbone(&self, experiment: &Experiment) -> Result<BackboneBlobs, Fault> {
        let name = &experiment.spec.backbone;
        let row = self.cluster.backbone(name);
        let row = row.ok_or_else(|| gone("backbone", name))?;
        Ok(BackboneBlobs {
            name: name.clone(),
            arch: row.arch.clone(),
            weights: experiment.backbone.ok_or_else(|| gone("backbone", name))?,
        })
    }
}

/// A worker's part of a lease on several.
pub fn gang(lease: &Lease, worker: WorkerId) -> Option<Gang> {
    let workers = lease.workers();
    let part = workers.iter().position(|other| *other == worker)?;
    let first = lease.slots.iter().position(|slot| slot.worker == worker)?;
    lease.is_wide().then(|| Gang {
        first_rank: first as u32,
        world_size: lease.world_size(),
        part: part as u32,
        parts: workers.len() as u32,
        rendezvous: lease.meets_at.clone(),
    })
}

/// Path in the published folder → blob.
fn files(version: &Version) -> Result<BTreeMap<String, Digest>, Fault> {
    let blob = |file: &pomona_domain::model::ModelFile| {
        let digest = file
            .digest()
            .map_err(|error| Fault::new(Code::Internal, format!("{error}")));
        Ok((file.path.clone(), digest?))
    };
    version.files.iter().map(blob).collect()
}
