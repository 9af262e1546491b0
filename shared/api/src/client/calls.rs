//! One method a route.

use bytes::Bytes;
use pomona_domain::backbone::Backbone;
use pomona_domain::checkpoint::Checkpoint;
use pomona_domain::dataset::{Dataset, Manifest};
use pomona_domain::experiment::Experiment;
use pomona_domain::metric::Observation;
use pomona_domain::model::{Alias, AliasMove, Audit, Version};
use pomona_domain::task::Task;
use pomona_domain::trial::Trial;
use pomona_domain::worker::Worker;
use pomona_domain::{Digest, Fault, Timestamp, WorkerId};
use reqwest::Method;
use serde::de::DeserializeOwned;
use std::time::Duration;

use super::{Call, Client, POLL_MARGIN};
use crate::v1::catalogue::{AddBackbone, AddDataset, Predict};
use crate::v1::cluster::{ClusterView, Explanation};
use crate::v1::experiments::{
    ExperimentPreview, ExperimentView, LogEntry, SubmitExperiment, TrialsQuery,
};
use crate::v1::features::{FeatureBlob, FeatureCopy, FoundFeatures, UploadedFeature, WantFeatures};
use crate::v1::models::{
    AuditQuery, ChangeWords, ModelView, PublishVersion, RollbackAlias, SetAlias, Words,
};
use crate::v1::workers::{Desired, Poll, Register, Registered, WorkerView};
use crate::v1::{Page, PageQuery};

impl Client {
    /// Whether the coordinator can serve.
    pub async fn ready(&self) -> Result<(), Fault> {
        self.bytes(Call::get(&["readyz"])).await.map(|_| ())
    }

    /// The coordinator's metrics as text.
    pub async fn metrics(&self) -> Result<String, Fault> {
        let bytes = self.bytes(Call::get(&["metrics"])).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The cluster in numbers.
    pub async fn cluster(&self) -> Result<ClusterView, Fault> {
        self.answer(Call::get(&["api", "v1", "cluster"])).await
    }

    /// Registers a worker.
    pub async fn worker_register(&self, body: &Register) -> Result<Registered, Fault> {
        let call = Call::post(&["api", "v1", "workers"]).json(body)?;
        self.answer(call).await
    }

    /// The heartbeat: waits at most `body.wait_ms` for a difference. Never repeated here; the
    /// worker knows better when to poll again.
    pub async fn worker_poll(&self, worker: WorkerId, body: &Poll) -> Result<Desired, Fault> {
        let id = worker.to_string();
        let path = ["api", "v1", "workers", &id, "poll"];
        let mut call = Call::post(&path).json(body)?;
        call.timeout = Duration::from_millis(body.wait_ms) + POLL_MARGIN;
        self.answer(call).await
    }

    /// Workers.
    pub async fn worker_list(&self, page: &PageQuery) -> Result<Page<WorkerView>, Fault> {
        self.page(&["api", "v1", "workers"], page).await
    }

    /// Gives a worker nothing new; what runs there yields after so many seconds, at once without a
    /// number. `worker` is an id, a unique prefix of one, or a name.
    pub async fn worker_drain(&self, worker: &str, grace_s: Option<u32>) -> Result<Worker, Fault> {
        let path = ["api", "v1", "workers", worker, "drain"];
        let call = Call::once(&path).query("grace_s", grace_s);
        self.answer(call).await
    }

    /// Gives a worker work again.
    pub async fn worker_undrain(&self, worker: &str) -> Result<Worker, Fault> {
        self.answer(Call::once(&["api", "v1", "workers", worker, "undrain"]))
            .await
    }

    /// Features of frozen blocks on all workers that are there.
    pub async fn feature_list(&self) -> Result<Page<FeatureCopy>, Fault> {
        self.answer(Call::get(&["api", "v1", "features"])).await
    }

    /// Removes a shard wherever nobody uses it; gives the copies that will go.
    pub async fn feature_evict(&self, shard: Digest) -> Result<Page<FeatureCopy>, Fault> {
        let shard = shard.to_string();
        self.answer(Call::once(&["api", "v1", "features", &shard, "evict"]))
            .await
    }

    /// Which of the shards that a worker wants others have; they are asked for them.
    pub async fn features_wanted(
        &self,
        worker: WorkerId,
        body: &WantFeatures,
    ) -> Result<FoundFeatures, Fault> {
        let id = worker.to_string();
        let path = ["api", "v1", "workers", &id, "features", "wanted"];
        let mut call = Call::post(&path).json(body)?;
        call.timeout = Duration::from_millis(body.wait_ms) + POLL_MARGIN;
        self.answer(call).await
    }

    /// Tells that a shard which another worker wants is in the blob store.
    pub async fn feature_uploaded(
        &self,
        worker: WorkerId,
        body: &UploadedFeature,
    ) -> Result<FeatureBlob, Fault> {
        let id = worker.to_string();
        let path = ["api", "v1", "workers", &id, "features", "uploaded"];
        self.answer(Call::post(&path).json(body)?).await
    }

    /// Imports a data set from a tar that was uploaded.
    pub async fn dataset_add(&self, body: &AddDataset, key: &str) -> Result<Task, Fault> {
        let call = Call::post(&["api", "v1", "datasets"]).json(body)?;
        self.answer(call.key(key)).await
    }

    /// Versions of data sets, by name and number.
    pub async fn dataset_list(&self, page: &PageQuery) -> Result<Page<Dataset>, Fault> {
        self.page(&["api", "v1", "datasets"], page).await
    }

    /// A version of a data set, the newest without a number.
    pub async fn dataset_get(&self, name: &str, version: Option<u32>) -> Result<Dataset, Fault> {
        let path = ["api", "v1", "datasets", name];
        self.answer(Call::get(&path).query("version", version))
            .await
    }

    /// Its manifest.
    pub async fn dataset_manifest(
        &self,
        name: &str,
        version: Option<u32>,
    ) -> Result<Manifest, Fault> {
        let path = ["api", "v1", "datasets", name, "manifest"];
        self.answer(Call::get(&path).query("version", version))
            .await
    }

    /// Imports a backbone from a file that was uploaded.
    pub async fn backbone_add(&self, body: &AddBackbone, key: &str) -> Result<Task, Fault> {
        let call = Call::post(&["api", "v1", "backbones"]).json(body)?;
        self.answer(call.key(key)).await
    }

    /// Backbones.
    pub async fn backbone_list(&self, page: &PageQuery) -> Result<Page<Backbone>, Fault> {
        self.page(&["api", "v1", "backbones"], page).await
    }

    /// A backbone.
    pub async fn backbone_get(&self, name: &str) -> Result<Backbone, Fault> {
        self.answer(Call::get(&["api", "v1", "backbones", name]))
            .await
    }

    /// A task, by id or a unique prefix of one.
    pub async fn task_get(&self, id: &str) -> Result<Task, Fault> {
        self.answer(Call::get(&["api", "v1", "tasks", id])).await
    }

    /// Takes a task back.
    pub async fn task_cancel(&self, id: &str) -> Result<Task, Fault> {
        self.answer(Call::once(&["api", "v1", "tasks", id, "cancel"]))
            .await
    }

    /// Lines of a task's log after a sequence number.
    pub async fn task_logs(
        &self,
        id: &str,
        after: u64,
        limit: Option<u32>,
    ) -> Result<Page<LogEntry>, Fault> {
        let path = ["api", "v1", "tasks", id, "logs"];
        let call = Call::get(&path).query("after", Some(after));
        self.answer(call.query("limit", limit)).await
    }

    /// What a file would do.
    pub async fn experiment_preview(
        &self,
        body: &SubmitExperiment,
    ) -> Result<ExperimentPreview, Fault> {
        let mut call = Call::post(&["api", "v1", "experiments", "preview"]).json(body)?;
        call.repeat = true;
        self.answer(call).await
    }

    /// Submits an experiment.
    pub async fn experiment_submit(
        &self,
        body: &SubmitExperiment,
        key: &str,
    ) -> Result<ExperimentView, Fault> {
        let call = Call::post(&["api", "v1", "experiments"]).json(body)?;
        self.answer(call.key(key)).await
    }

    /// Experiments, newest first.
    pub async fn experiment_list(&self, page: &PageQuery) -> Result<Page<Experiment>, Fault> {
        self.page(&["api", "v1", "experiments"], page).await
    }

    /// An experiment, by id, a unique prefix of one, or name (the newest of that name).
    pub async fn experiment_get(&self, id: &str) -> Result<ExperimentView, Fault> {
        self.answer(Call::get(&["api", "v1", "experiments", id]))
            .await
    }

    /// Gives its slots back; trials write a checkpoint first. A name must fit one experiment that
    /// has not ended; so for the next two.
    pub async fn experiment_pause(&self, id: &str) -> Result<Experiment, Fault> {
        self.answer(Call::once(&["api", "v1", "experiments", id, "pause"]))
            .await
    }

    /// Goes on.
    pub async fn experiment_resume(&self, id: &str) -> Result<Experiment, Fault> {
        self.answer(Call::once(&["api", "v1", "experiments", id, "resume"]))
            .await
    }

    /// Takes it back.
    pub async fn experiment_cancel(&self, id: &str) -> Result<Experiment, Fault> {
        self.answer(Call::once(&["api", "v1", "experiments", id, "cancel"]))
            .await
    }

    /// Trials of an experiment.
    pub async fn trial_list(
        &self,
        experiment: &str,
        query: &TrialsQuery,
    ) -> Result<Page<Trial>, Fault> {
        let order = serde_json::to_value(query.order_by).ok();
        let order = order.as_ref().and_then(|name| name.as_str());
        let path = ["api", "v1", "experiments", experiment, "trials"];
        let call = Call::get(&path)
            .query("order_by", order)
            .query("page_size", query.page_size)
            .query("page_token", query.page_token.as_ref());
        self.answer(call).await
    }

    /// A trial, by id or a unique prefix of one.
    pub async fn trial_get(&self, id: &str) -> Result<Trial, Fault> {
        self.answer(Call::get(&["api", "v1", "trials", id])).await
    }

    /// Its observations, by step.
    pub async fn trial_observations(
        &self,
        id: &str,
        page: &PageQuery,
    ) -> Result<Page<Observation>, Fault> {
        self.page(&["api", "v1", "trials", id, "observations"], page)
            .await
    }

    /// Its checkpoints: at most one of each kind.
    pub async fn trial_checkpoints(&self, id: &str) -> Result<Page<Checkpoint>, Fault> {
        self.answer(Call::get(&["api", "v1", "trials", id, "checkpoints"]))
            .await
    }

    /// Lines of its log after a sequence number.
    pub async fn trial_logs(
        &self,
        id: &str,
        after: u64,
        limit: Option<u32>,
    ) -> Result<Page<LogEntry>, Fault> {
        let path = ["api", "v1", "trials", id, "logs"];
        let call = Call::get(&path).query("after", Some(after));
        self.answer(call.query("limit", limit)).await
    }

    /// Ends it; it counts as completed with what it has.
    pub async fn trial_stop(&self, id: &str) -> Result<Trial, Fault> {
        self.answer(Call::once(&["api", "v1", "trials", id, "stop"]))
            .await
    }

    /// Keeps its checkpoints whatever becomes of its experiment (`pinned`), or lets go of them.
    pub async fn trial_pin(&self, id: &str, pinned: bool) -> Result<Trial, Fault> {
        let verb = if pinned { "pin" } else { "unpin" };
        self.answer(Call::once(&["api", "v1", "trials", id, verb]))
            .await
    }

    /// Why an experiment, trial, task or worker is as it is; by typed id.
    pub async fn explain(&self, id: &str) -> Result<Explanation, Fault> {
        self.answer(Call::get(&["api", "v1", "explain", id])).await
    }

    /// Why an alias points where it does.
    pub async fn explain_model(&self, name: &str, alias: &str) -> Result<Explanation, Fault> {
        self.answer(Call::get(&["api", "v1", "explain", "model", name, alias]))
            .await
    }

    /// Models.
    pub async fn model_list(&self, page: &PageQuery) -> Result<Page<ModelView>, Fault> {
        self.page(&["api", "v1", "models"], page).await
    }

    /// A model.
    pub async fn model_get(&self, name: &str) -> Result<ModelView, Fault> {
        self.answer(Call::get(&["api", "v1", "models", name])).await
    }

    /// A version, by number or alias.
    pub async fn version_get(&self, name: &str, which: &str) -> Result<Version, Fault> {
        self.answer(Call::get(&["api", "v1", "models", name, "versions", which]))
            .await
    }

    /// A version whose files are pulled: it is not deleted meanwhile.
    pub async fn version_pull(&self, name: &str, which: &str) -> Result<Version, Fault> {
        let path = ["api", "v1", "models", name, "versions", which];
        self.answer(Call::get(&path).query("pull", Some(true)))
            .await
    }

    /// The version that an alias pointed to at a moment.
    pub async fn version_at(
        &self,
        name: &str,
        alias: &str,
        as_of: Timestamp,
    ) -> Result<Version, Fault> {
        let path = ["api", "v1", "models", name, "versions", alias];
        self.answer(Call::get(&path).query("as_of", Some(as_of)))
            .await
    }

    /// Deletes a model with all its versions.
    pub async fn model_delete(&self, name: &str, key: &str) -> Result<ModelView, Fault> {
        let path = ["api", "v1", "models", name];
        self.answer(Call::new(Method::DELETE, &path).key(key)).await
    }

    /// Deletes a version.
    pub async fn version_delete(
        &self,
        name: &str,
        which: &str,
        key: &str,
    ) -> Result<Version, Fault> {
        let path = ["api", "v1", "models", name, "versions", which];
        self.answer(Call::new(Method::DELETE, &path).key(key)).await
    }

    /// Deletes an alias.
    pub async fn alias_delete(&self, name: &str, alias: &str, key: &str) -> Result<Alias, Fault> {
        let path = ["api", "v1", "models", name, "aliases", alias];
        self.answer(Call::new(Method::DELETE, &path).key(key)).await
    }

    /// Says something of a model, or of a version of it.
    pub async fn words_change(
        &self,
        name: &str,
        which: Option<&str>,
        body: &ChangeWords,
    ) -> Result<Words, Fault> {
        let mut path = vec!["api", "v1", "models", name];
        path.extend(which.into_iter().flat_map(|which| ["versions", which]));
        self.answer(Call::new(Method::PATCH, &path).json(body)?)
            .await
    }

    /// Who did what to the registry, newest first.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Page<Audit>, Fault> {
        let call = Call::get(&["api", "v1", "audit"])
            .query("subject", query.subject.as_ref())
            .query("page_size", query.page_size)
            .query("page_token", query.page_token.as_ref());
        self.answer(call).await
    }

    /// The signature of a version, as the bytes of `model.sig`.
    pub async fn version_signature(&self, name: &str, which: &str) -> Result<Bytes, Fault> {
        let path = ["api", "v1", "models", name, "versions", which, "signature"];
        self.bytes(Call::get(&path)).await
    }

    /// The public key of signatures, as PEM.
    pub async fn signing_key(&self) -> Result<Bytes, Fault> {
        self.bytes(Call::get(&["api", "v1", "signing-key"])).await
    }

    /// Publishes a trial's best checkpoint.
    pub async fn version_publish(
        &self,
        name: &str,
        body: &PublishVersion,
        key: &str,
    ) -> Result<Task, Fault> {
        let path = ["api", "v1", "models", name, "versions"];
        let call = Call::post(&path).json(body)?;
        self.answer(call.key(key)).await
    }

    /// Moves an alias.
    pub async fn alias_set(
        &self,
        name: &str,
        alias: &str,
        body: &SetAlias,
        key: &str,
    ) -> Result<Alias, Fault> {
        let path = ["api", "v1", "models", name, "aliases", alias];
        let call = Call::new(Method::PUT, &path).json(body)?;
        self.answer(call.key(key)).await
    }

    /// Moves an alias back to the version it had before.
    pub async fn alias_rollback(
        &self,
        name: &str,
        alias: &str,
        body: &RollbackAlias,
        key: &str,
    ) -> Result<Alias, Fault> {
        let path = ["api", "v1", "models", name, "aliases", alias, "rollback"];
        let call = Call::post(&path).json(body)?;
        self.answer(call.key(key)).await
    }

    /// Every move of an alias, oldest first, up to `as_of`.
    pub async fn alias_history(
        &self,
        name: &str,
        alias: &str,
        as_of: Option<Timestamp>,
    ) -> Result<Vec<AliasMove>, Fault> {
        let path = ["api", "v1", "models", name, "aliases", alias, "history"];
        self.answer(Call::get(&path).query("as_of", as_of)).await
    }

    /// Predicts pictures that were uploaded; the task's result holds the answer.
    pub async fn predict(&self, body: &Predict, key: &str) -> Result<Task, Fault> {
        let call = Call::post(&["api", "v1", "predictions"]).json(body)?;
        self.answer(call.key(key)).await
    }

    async fn page<T: DeserializeOwned>(
        &self,
        path: &[&str],
        page: &PageQuery,
    ) -> Result<Page<T>, Fault> {
        let call = Call::get(path)
            .query("page_size", page.page_size)
            .query("page_token", page.page_token.as_ref());
        self.answer(call).await
    }
}
