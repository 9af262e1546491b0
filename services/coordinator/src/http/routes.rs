//! Every route, said once: the server is configured from this table, the API's description is made
//! from it, and a snapshot holds it.

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use pomona_api::v1::PageQuery;
use pomona_api::v1::catalogue::{AddBackbone, AddDataset, DatasetQuery, Predict};
use pomona_api::v1::cluster::{ClusterView, Explanation, TargetGroup};
use pomona_api::v1::events::LiveEvent;
use pomona_api::v1::experiments::{
    AddObservation, ExperimentPreview, ExperimentView, LogEntry, LogsQuery, SubmitExperiment,
    TrialsQuery,
};
use pomona_api::v1::features::{
    FeatureBlob, FeatureCopy, FoundFeatures, UploadedFeature, WantFeatures,
};
use pomona_api::v1::models::{
    AuditQuery, ChangeWords, HistoryQuery, ModelView, PublishVersion, RollbackAlias, SetAlias,
    VersionQuery, Words,
};
use pomona_api::v1::uploads::{FinishUpload, ResumeUpload, UploadView};
use pomona_api::v1::workers::{Desired, DrainQuery, Poll, Register, Registered, WorkerView};

use super::{
    blobs, catalogue, cluster, events, experiments, explain, features, models, registry, trials,
    uploads, workers,
};
use crate::openapi::{About, about, rows};

/// One route and what is said of it.
pub struct Route {
    /// In lower case.
    pub method: &'static str,
    /// With `{names}`.
    pub path: &'static str,
    /// `module::function`.
    pub handler: &'static str,
    /// What it is for, takes and answers.
    pub about: About,
}

macro_rules! routes {
    ($($method:ident $path:literal => $handler:path, $about:expr;)*) => {
        /// Method and path of every route.
        const PATHS: &[(&str, &str)] = &[$((stringify!($method), $path),)*];

        /// Every route.
        pub fn table() -> Vec<Route> {
            vec![$(Route {
                method: stringify!($method),
                path: $path,
                handler: stringify!($handler),
                about: $about,
            },)*]
        }

        /// Adds every route to a server.
        pub fn configure(server: &mut ServiceConfig) {
            $(server.route($path, web::$method().to($handler));)*
        }
    };
}

routes! {
    get "/healthz" => cluster::healthz,
        about("Whether the process lives.").answers::<rows::Status>();
    get "/readyz" => cluster::readyz,
        about("Whether the coordinator can serve.").answers::<rows::Status>();
    get "/metrics" => cluster::metrics,
        about("Metrics for Prometheus.").answers_text("text/plain");
    get "/openapi.json" => cluster::openapi_json,
        about("This description.").answers::<rows::Description>();
    get "/api/v1/cluster" => cluster::get,
        about("The cluster in numbers.").answers::<ClusterView>();
    get "/api/v1/events" => events::get,
        about("What changes, as server-sent events; each `data` is a `LiveEvent`.").query::<events::EventsQuery>().header("Last-Event-ID").streams::<LiveEvent>();
    get "/api/v1/prometheus/targets" => cluster::targets,
        about("Prometheus' HTTP service discovery for the workers.").lists::<TargetGroup>();
    post "/api/v1/workers" => workers::register,
        about("A worker introduces itself.").takes::<Register>().answers::<Registered>();
    get "/api/v1/workers" => workers::list,
        about("Workers.").query::<PageQuery>().pages::<WorkerView>();
    post "/api/v1/workers/{id}/poll" => workers::poll,
        about("A worker's heartbeat: a long poll for what should run there.").takes::<Poll>().answers::<Desired>();
    post "/api/v1/workers/{id}/drain" => workers::drain,
        about("Gives a worker nothing new; what runs there writes a checkpoint and yields.").keyed().query::<DrainQuery>().answers::<rows::Worker>();
    post "/api/v1/workers/{id}/undrain" => workers::undrain,
        about("Gives a worker work again.").keyed().answers::<rows::Worker>();
    post "/api/v1/workers/{id}/features/wanted" => workers::features_wanted,
        about("Which features that a worker wants others have: blobs that are there, and names that were asked for.").takes::<WantFeatures>().answers::<FoundFeatures>();
    post "/api/v1/workers/{id}/features/uploaded" => workers::features_uploaded,
        about("A worker has uploaded features that another one wants.").takes::<UploadedFeature>().answers::<FeatureBlob>();
    get "/api/v1/features" => features::list,
        about("Features of frozen blocks that workers keep.").pages::<FeatureCopy>();
    post "/api/v1/features/{digest}/evict" => features::evict,
        about("Removes features wherever no trial uses them.").keyed().pages::<FeatureCopy>();
    put "/api/v1/blobs/{digest}" => blobs::put,
        about("Uploads a blob under its digest.").takes_bytes().status("201").answers::<rows::Blob>();
    head "/api/v1/blobs/{digest}" => blobs::head,
        about("Size of a blob; asking keeps it for a while.");
    get "/api/v1/blobs/{digest}" => blobs::get,
        about("A blob, or one range of its bytes.").header("Range").answers_bytes();
    post "/api/v1/blobs/uploads" => uploads::begin,
        about("Begins an upload in several requests.").status("201").answers::<UploadView>();
    get "/api/v1/blobs/uploads/{id}" => uploads::get,
        about("How far an upload is.").answers::<UploadView>();
    patch "/api/v1/blobs/uploads/{id}" => uploads::resume,
        about("Goes on with an upload. What came is kept, also when the request breaks off.").query::<ResumeUpload>().takes_bytes().answers::<UploadView>();
    put "/api/v1/blobs/uploads/{id}" => uploads::finish,
        about("Goes on with an upload to its end, and gives the blob its digest.").query::<FinishUpload>().takes_bytes().status("201").answers::<rows::Blob>();
    delete "/api/v1/blobs/uploads/{id}" => uploads::cancel,
        about("Forgets an upload.");
    post "/api/v1/datasets" => catalogue::dataset_add,
        about("Imports a data set from a tar that was uploaded.").keyed().takes::<AddDataset>().status("202").answers::<rows::Task>();
    get "/api/v1/datasets" => catalogue::dataset_list,
        about("Versions of data sets, by name and number.").query::<PageQuery>().pages::<rows::Dataset>();
    get "/api/v1/datasets/{name}" => catalogue::dataset_get,
        about("A version of a data set.").query::<DatasetQuery>().answers::<rows::Dataset>();
    get "/api/v1/datasets/{name}/manifest" => catalogue::dataset_manifest,
        about("Its manifest.").query::<DatasetQuery>().answers::<rows::Manifest>();
    post "/api/v1/backbones" => catalogue::backbone_add,
        about("Imports a backbone from a file that was uploaded.").keyed().takes::<AddBackbone>().status("202").answers::<rows::Task>();
    get "/api/v1/backbones" => catalogue::backbone_list,
        about("Backbones, by name.").query::<PageQuery>().pages::<rows::Backbone>();
    get "/api/v1/backbones/{name}" => catalogue::backbone_get,
        about("A backbone.").answers::<rows::Backbone>();
    get "/api/v1/tasks" => catalogue::task_list,
        about("Tasks, newest first.").query::<PageQuery>().pages::<rows::Task>();
    get "/api/v1/tasks/{id}" => catalogue::task_get,
        about("A task.").answers::<rows::Task>();
    get "/api/v1/tasks/{id}/logs" => catalogue::task_logs,
        about("Lines of its log.").query::<LogsQuery>().pages::<LogEntry>();
    post "/api/v1/tasks/{id}/cancel" => catalogue::task_cancel,
        about("Takes a task back.").keyed().answers::<rows::Task>();
    post "/api/v1/predictions" => catalogue::predict,
        about("Predicts pictures that were uploaded; the task's result holds the answer.").keyed().takes::<Predict>().status("202").answers::<rows::Task>();
    post "/api/v1/experiments" => experiments::submit,
        about("Submits an experiment.").keyed().takes::<SubmitExperiment>().status("201").answers::<ExperimentView>();
    post "/api/v1/experiments/preview" => experiments::preview,
        about("What a file would do.").takes::<SubmitExperiment>().answers::<ExperimentPreview>();
    get "/api/v1/experiments" => experiments::list,
        about("Experiments, newest first.").query::<PageQuery>().pages::<rows::Experiment>();
    get "/api/v1/experiments/{id}" => experiments::get,
        about("An experiment, by id, a unique prefix of one, or name.").answers::<ExperimentView>();
    get "/api/v1/experiments/{id}/trials" => experiments::trials,
        about("Its trials, by number or the best first.").query::<TrialsQuery>().pages::<rows::Trial>();
    post "/api/v1/experiments/{id}/pause" => experiments::pause,
        about("Gives its slots back; trials write a checkpoint first.").keyed().answers::<rows::Experiment>();
    post "/api/v1/experiments/{id}/resume" => experiments::resume,
        about("Goes on.").keyed().answers::<rows::Experiment>();
    post "/api/v1/experiments/{id}/cancel" => experiments::cancel,
        about("Takes it back.").keyed().answers::<rows::Experiment>();
    get "/api/v1/trials/{id}" => trials::get,
        about("A trial.").answers::<rows::Trial>();
    get "/api/v1/trials/{id}/observations" => trials::observations,
        about("What it measured, by step.").query::<PageQuery>().pages::<rows::Observation>();
    post "/api/v1/trials/{id}/observations" => trials::observe,
        about("Adds what a program of one's own measured; a step counts once.").takes::<AddObservation>().answers::<rows::Trial>();
    get "/api/v1/trials/{id}/checkpoints" => trials::checkpoints,
        about("Its checkpoints: at most one of each kind.").pages::<rows::Checkpoint>();
    get "/api/v1/trials/{id}/logs" => trials::logs,
        about("Lines of its log.").query::<LogsQuery>().pages::<LogEntry>();
    post "/api/v1/trials/{id}/stop" => trials::stop,
        about("Ends it with what it has.").keyed().answers::<rows::Trial>();
    post "/api/v1/trials/{id}/pin" => trials::pin,
        about("Keeps its checkpoints whatever becomes of its experiment.").keyed().answers::<rows::Trial>();
    post "/api/v1/trials/{id}/unpin" => trials::unpin,
        about("Lets go of its checkpoints: they stay as `retention` of its experiment says.").keyed().answers::<rows::Trial>();
    get "/api/v1/explain/{id}" => explain::subject,
        about("Why an experiment, trial, task or worker is as it is.").answers::<Explanation>();
    get "/api/v1/explain/model/{name}/{alias}" => explain::alias,
        about("Why an alias points where it does.").answers::<Explanation>();
    get "/api/v1/models" => models::list,
        about("Models, by name.").query::<PageQuery>().pages::<ModelView>();
    get "/api/v1/models/{name}" => models::get,
        about("A model.").answers::<ModelView>();
    post "/api/v1/models/{name}/versions" => models::publish,
        about("Publishes a trial's best checkpoint.").keyed().takes::<PublishVersion>().status("202").answers::<rows::Task>();
    patch "/api/v1/models/{name}" => registry::model_change,
        about("Describes a model, and tags it.").takes::<ChangeWords>().answers::<Words>();
    delete "/api/v1/models/{name}" => registry::model_delete,
        about("Deletes a model that no alias and no pull needs.").keyed().answers::<ModelView>();
    get "/api/v1/models/{name}/versions/{which}" => models::version_get,
        about("A version, by number or alias.").query::<VersionQuery>().answers::<rows::Version>();
    patch "/api/v1/models/{name}/versions/{which}" => registry::version_change,
        about("Describes a version, and tags it.").takes::<ChangeWords>().answers::<Words>();
    delete "/api/v1/models/{name}/versions/{which}" => registry::version_delete,
        about("Deletes a version that no alias and no pull needs.").keyed().answers::<rows::Version>();
    get "/api/v1/models/{name}/versions/{which}/signature" => models::signature,
        about("The signature of a version that was promoted (OpenSSF Model Signing 1.0).").answers::<rows::Signature>();
    get "/api/v1/signing-key" => models::signing_key,
        about("The public key of signatures, as PEM.").answers_text("application/x-pem-file");
    put "/api/v1/models/{name}/aliases/{alias}" => models::alias_set,
        about("Moves an alias.").keyed().takes::<SetAlias>().answers::<rows::Alias>();
    delete "/api/v1/models/{name}/aliases/{alias}" => registry::alias_delete,
        about("Deletes an alias; its history stays.").keyed().answers::<rows::Alias>();
    get "/api/v1/audit" => registry::audit,
        about("Who did what to the registry, newest first.").query::<AuditQuery>().pages::<rows::Audit>();
    post "/api/v1/models/{name}/aliases/{alias}/rollback" => models::alias_rollback,
        about("Moves an alias back to the version it had before.").keyed().takes::<RollbackAlias>().answers::<rows::Alias>();
    get "/api/v1/models/{name}/aliases/{alias}/history" => models::alias_history,
        about("Moves of an alias, oldest first.").query::<HistoryQuery>().lists::<rows::AliasMove>();
}

/// Live events.
pub const EVENTS: &str = "/api/v1/events";
/// Paths that show the cluster as the leader remembers it, or what happens there.
const REMEMBERED: [&str; 6] = [
    "/api/v1/cluster",
    EVENTS,
    "/api/v1/experiments/{id}",
    "/api/v1/explain/{id}",
    "/api/v1/features",
    "/api/v1/prometheus/targets",
];

/// Whether only the coordinator that leads can answer: what may decide something, and what shows
/// the cluster as it is remembered. Rows and blobs are the same for all.
pub fn is_led(method: &Method, pattern: &str) -> bool {
    if *method == Method::GET || *method == Method::HEAD {
        return REMEMBERED.contains(&pattern);
    }
    crate::mlflow::is_led(method, pattern)
        || (pattern.starts_with("/api/v1/") && !pattern.starts_with("/api/v1/blobs/"))
}

/// Methods that a path is served with; empty when nothing is served there.
pub fn methods(path: &str) -> Vec<String> {
    let served = PATHS.iter().filter(|(_, pattern)| fits(pattern, path));
    served.map(|(method, _)| method.to_uppercase()).collect()
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let fits = pattern.split('/').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| wanted == part || (wanted.starts_with('{') && !part.is_empty()))
    });
    fits && parts.next().is_none()
}

#[cfg(test)]
mod tests;
