//! The MLflow-compatible API: what an unmodified MLflow client asks, answered in its words.
//!
//! Bodies and queries are read by `pomona_tracking`, rows come from the store, and this only turns
//! one into the other. Bad input must never be answered with a 5xx: the client would retry it for
//! minutes. Any coordinator answers, leader or not, but for what the registry decides.

mod artifacts;
mod batch;
mod experiments;
mod info;
mod inputs;
mod logged_models;
mod metrics;
mod model_versions;
mod naming;
mod refusal;
mod registered_models;
mod render;
mod runs;
mod source;
mod webhooks;
mod writer;

use actix_web::http::Method;
use actix_web::web::{self, Bytes, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Scope};
use pomona_tracking::params::Body;

use crate::http::App;

pub use naming::name;
pub use refusal::{Refused, is_mlflow, unknown};
pub use writer::{Writer, settle};

/// What a handler answers.
type Answer = Result<HttpResponse, Refused>;

/// The parameters of a request, wherever they are: MLflow's servers read a query for `GET` and a
/// body for the rest.
fn parameters(request: &HttpRequest, bytes: &Bytes) -> Result<Body<'static>, Refused> {
    if request.method() == Method::GET {
        return Ok(Body::from_query(request.query_string()));
    }
    Ok(Body::parse(bytes)?)
}

/// Prefixes under which clients and pages look for the routes.
const PREFIXES: [&str; 4] = [
    "/api/2.0/mlflow",
    "/ajax-api/2.0/mlflow",
    "/api/3.0/mlflow",
    "/ajax-api/3.0/mlflow",
];

macro_rules! routes {
    ($scope:ident: $($method:ident $path:literal => $handler:path;)*) => {
        $scope$(.route($path, web::$method().to($handler)))*
    };
}

/// Adds every route of MLflow's to a server. A scope for each prefix: of hundreds of routes, a request
/// is compared with those below its own.
pub fn configure(server: &mut ServiceConfig) {
    for prefix in PREFIXES {
        server.service(registry(tracking(web::scope(prefix))));
    }
    server.route("/health", web::get().to(info::health));
    server.route("/version", web::get().to(info::version));
    for prefix in ["/api/2.0", "/ajax-api/2.0"] {
        // As upstream spells it.
        let datasets = format!("{prefix}mlflow/experiments/search-datasets");
        server.route(&datasets, web::post().to(inputs::search_datasets));
        let files = format!("{prefix}/mlflow-artifacts/artifacts");
        server.route(&files, web::get().to(artifacts::list));
        let file = format!("{files}/{{path:.*}}");
        server.route(&file, web::get().to(artifacts::get));
        server.route(&file, web::put().to(artifacts::put));
        server.route(&file, web::delete().to(artifacts::delete));
    }
    server.route(
        "/model-versions/get-artifact",
        web::get().to(model_versions::get_artifact),
    );
    server.route("/get-artifact", web::get().to(artifacts::get_of_run));
}

fn tracking(scope: Scope) -> Scope {
    routes! { scope:
        get "/server-info" => info::server_info;
        post "/experiments/create" => experiments::create;
        get "/experiments/get" => experiments::get;
        get "/experiments/get-by-name" => experiments::get_by_name;
        get "/experiments/search" => experiments::search;
        post "/experiments/search" => experiments::search;
        post "/experiments/update" => experiments::update;
        post "/experiments/delete" => experiments::delete;
        post "/experiments/restore" => experiments::restore;
        post "/experiments/set-experiment-tag" => experiments::set_tag;
        post "/experiments/delete-experiment-tag" => experiments::delete_tag;
        post "/runs/create" => runs::create;
        get "/runs/get" => runs::get;
        post "/runs/update" => runs::update;
        post "/runs/delete" => runs::delete;
        post "/runs/restore" => runs::restore;
        post "/runs/search" => runs::search;
        post "/runs/log-metric" => batch::log_metric;
        post "/runs/log-parameter" => batch::log_parameter;
        post "/runs/set-tag" => batch::set_tag;
        post "/runs/delete-tag" => runs::delete_tag;
        post "/runs/log-batch" => batch::log_batch;
        post "/runs/log-inputs" => inputs::log_inputs;
        post "/runs/outputs" => inputs::log_outputs;
        post "/runs/log-model" => inputs::log_model;
        post "/experiments/search-datasets" => inputs::search_datasets;
        post "/logged-models" => logged_models::create;
        post "/logged-models/search" => logged_models::search;
        get "/logged-models/{id}" => logged_models::get;
        patch "/logged-models/{id}" => logged_models::finish;
        delete "/logged-models/{id}" => logged_models::delete;
        patch "/logged-models/{id}/tags" => logged_models::set_tags;
        delete "/logged-models/{id}/tags/{key:.*}" => logged_models::delete_tag;
        post "/logged-models/{id}/params" => logged_models::log_params;
        get "/logged-models/{id}/artifacts/directories" => logged_models::artifacts;
        get "/metrics/get-history" => metrics::history;
        get "/metrics/get-history-bulk" => metrics::bulk;
        get "/metrics/get-history-bulk-interval" => metrics::bulk_interval;
        get "/artifacts/list" => artifacts::of_run;
        post "/webhooks" => webhooks::create;
        get "/webhooks" => webhooks::list;
        get "/webhooks/{id}" => webhooks::get;
        patch "/webhooks/{id}" => webhooks::update;
        delete "/webhooks/{id}" => webhooks::delete;
        post "/webhooks/{id}/test" => webhooks::test;
    }
}

fn registry(scope: Scope) -> Scope {
    routes! { scope:
        post "/registered-models/create" => registered_models::create;
        get "/registered-models/get" => registered_models::get;
        get "/registered-models/search" => registered_models::search;
        patch "/registered-models/update" => registered_models::update;
        post "/registered-models/rename" => registered_models::rename;
        delete "/registered-models/delete" => registered_models::delete;
        post "/registered-models/set-tag" => registered_models::set_tag;
        delete "/registered-models/delete-tag" => registered_models::delete_tag;
        get "/registered-models/get-latest-versions" => registered_models::latest;
        post "/registered-models/get-latest-versions" => registered_models::latest;
        get "/registered-models/alias" => registered_models::by_alias;
        post "/registered-models/alias" => registered_models::set_alias;
        delete "/registered-models/alias" => registered_models::delete_alias;
        post "/model-versions/create" => model_versions::create;
        get "/model-versions/get" => model_versions::get;
        get "/model-versions/search" => model_versions::search;
        patch "/model-versions/update" => model_versions::update;
        delete "/model-versions/delete" => model_versions::delete;
        post "/model-versions/set-tag" => model_versions::set_tag;
        delete "/model-versions/delete-tag" => model_versions::delete_tag;
        post "/model-versions/transition-stage" => model_versions::transition;
        get "/model-versions/get-download-uri" => model_versions::download_uri;
    }
}

/// What only the leader can do: versions and aliases are decided.
const LED: [&str; 5] = [
    "registered-models/alias",
    "registered-models/delete",
    "registered-models/rename",
    "model-versions/create",
    "model-versions/delete",
];

/// Whether only the coordinator that leads can answer.
pub fn is_led(method: &Method, pattern: &str) -> bool {
    *method != Method::GET
        && is_mlflow(pattern)
        && LED
            .iter()
            .any(|path| pattern.ends_with(&format!("/mlflow/{path}")))
}

/// A run's row, with a trial's face brought up to date first.
async fn run(app: &Data<App>, id: &str) -> Result<pomona_store::Run, Refused> {
    app.store.run_face(id).await?;
    let run = app.store.run_get(id).await?;
    run.ok_or_else(|| refusal::no_run(id))
}
