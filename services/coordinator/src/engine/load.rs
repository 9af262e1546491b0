//! Reads the cluster from the store, with the ended rows that live publish tasks need.

use pomona_domain::checkpoint::{Checkpoint, CheckpointKind};
use pomona_domain::{Code, Fault, TrialId};
use pomona_scheduler::{Cluster, Recalled};
use pomona_store::Store;

use super::Parts;

/// The cluster as it is at rest.
pub async fn cluster(parts: &Parts) -> Result<Cluster, Fault> {
    let snapshot = parts.store.load().await?;
    let mut cluster = Cluster::restore(snapshot, parts.config.clone(), parts.clock.now());
    for trial in cluster.missing_sources() {
        cluster.recall(source(&parts.store, trial).await?);
    }
    Ok(cluster)
}

/// A trial's rows, whether it has ended or not.
pub async fn source(store: &Store, id: TrialId) -> Result<Recalled, Fault> {
    let missing = |what: &str| Fault::new(Code::NotFound, format!("there is no {what} `{id}`"));
    let trial = store.trial_get(id).await?;
    let trial = trial.ok_or_else(|| missing("trial"))?;
    let experiment = store.experiment_get(trial.experiment).await?;
    let experiment = experiment.ok_or_else(|| missing("experiment of trial"))?;
    let checkpoints = store.checkpoint_list(id).await?;
    let best = |row: &Checkpoint| row.kind == CheckpointKind::Best;
    Ok(Recalled {
        experiment,
        trial,
        checkpoint: checkpoints.into_iter().find(best),
    })
}
