//! What clients ask about the server itself.

use actix_web::HttpResponse;
use serde_json::json;

/// The version of MLflow whose API this is.
const VERSION: &str = "3.18.0";

/// `GET /health`
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("OK")
}

/// `GET /version`: a client parses it.
pub async fn version() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body(VERSION)
}

/// `GET …/server-info`: what a client may do.
pub async fn server_info() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "artifact_serving_enabled": true,
        "artifacts_presigned_only": false,
        "tracking_auth": "",
    }))
}
