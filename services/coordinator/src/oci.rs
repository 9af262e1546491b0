//! Pulls in the protocol of the OCI distribution specification, under `/v2/`: a model is a
//! repository, a version two manifests.
//!
//! - Its files as they are: a manifest of the CNCF ModelPack specification, each file a layer whose
//!   blob is the one that the store has (`pack`), tagged `v7` and as every alias.
//! - An ordinary image of one uncompressed layer with `/models/…` (`image`, `layer`), tagged
//!   `v7-image` and `champion-image`.
//!
//! Both follow from a version's files alone and are rendered when they are asked for, so they have
//! one digest at every coordinator and for ever; which digest is whose is kept (`find`). Any
//! coordinator answers, leader or not. It must never give out a blob that no version of the
//! repository needs, and never hold a layer in memory.

mod blobs;
mod find;
mod image;
mod layer;
mod lists;
mod manifests;
mod pack;
mod reference;
mod refusal;

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

pub use find::{Images, keep};
use refusal::{Answer, Refused};
pub use refusal::{is_oci, unknown};

/// What a client must see to take this for a registry.
const VERSION: (&str, &str) = ("Docker-Distribution-API-Version", "registry/2.0");

/// Adds every route of the protocol to a server.
pub fn configure(server: &mut ServiceConfig) {
    let resource = |path: &str| web::resource(path).default_service(web::to(unsupported));
    for path in ["/v2", "/v2/"] {
        server.service(
            resource(path)
                .route(web::get().to(base))
                .route(web::head().to(base)),
        );
    }
    server
        .service(
            resource("/v2/{name:.+}/manifests/{reference}")
                .route(web::get().to(manifests::get))
                .route(web::head().to(manifests::head)),
        )
        .service(resource("/v2/{name:.+}/blobs/uploads{rest:.*}"))
        .service(
            resource("/v2/{name:.+}/blobs/{digest}")
                .route(web::get().to(blobs::get))
                .route(web::head().to(blobs::head)),
        )
        .service(resource("/v2/{name:.+}/tags/list").route(web::get().to(lists::tags)))
        .service(
            resource("/v2/{name:.+}/referrers/{digest}").route(web::get().to(lists::referrers)),
        );
}

/// `GET /v2/`: this is a registry.
async fn base() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(VERSION)
        .json(serde_json::json!({}))
}

/// What only registries do that others push to.
async fn unsupported(request: HttpRequest) -> Answer {
    Err(Refused::unsupported(&request))
}
