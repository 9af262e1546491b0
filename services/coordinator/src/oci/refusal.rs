//! Refusals in the form of the OCI distribution specification: `{"errors": [{"code", "message"}]}`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use pomona_domain::{Code, Fault};
use pomona_store::StoreError;
use serde_json::json;
use std::fmt;

/// What a handler answers.
pub type Answer = Result<HttpResponse, Refused>;

/// A refused request.
#[derive(Debug, Clone)]
pub struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// `Content-Range`: how large it is that has no such range.
    size: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            message,
            size: None,
        }
    }

    pub fn no_model(name: &str) -> Self {
        let text = format!("there is no model `{name}`");
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", text)
    }

    pub fn no_manifest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
    }

    pub fn no_blob(name: &str, digest: &str) -> Self {
        let text = format!("no version of `{name}` has the blob `{digest}`");
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", text)
    }

    pub fn bad_digest(text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", text)
    }

    pub fn bad_page(text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", text)
    }

    pub fn bad_range(size: u64) -> Self {
        let text = format!("the range is not within the blob's {size} bytes");
        let refused = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", text);
        Self {
            size: Some(size),
            ..refused
        }
    }

    pub fn unsupported(request: &HttpRequest) -> Self {
        let text = format!(
            "models are pulled here, not pushed: {} is not served",
            request.method()
        );
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", text)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let status = StatusCode::from_u16(fault.code.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = if fault.code == Code::BlobMissing {
            "BLOB_UNKNOWN"
        } else if fault.code == Code::NotFound {
            "MANIFEST_UNKNOWN"
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            "UNAVAILABLE"
        } else {
            "UNKNOWN"
        };
        Self::new(status, code, format!("{}: {}", fault.code, fault.message))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Fault::from(error).into()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        if self.status.is_server_error() {
            tracing::error!("a pull failed: {self}");
        }
        let mut response = HttpResponse::build(self.status);
        response.insert_header(super::VERSION);
        if let Some(size) = self.size {
            response.insert_header((header::CONTENT_RANGE, format!("bytes */{size}")));
        }
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                response.insert_header((header::ALLOW, "GET, HEAD"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            _ => {}
        }
        response.json(json!({"errors": [{"code": self.code, "message": self.message}]}))
    }
}

/// Whether a path is one at which clients of registries look.
pub fn is_oci(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// A path of the protocol that is not served.
pub fn unknown(request: &HttpRequest) -> Refused {
    let text = format!(
        "nothing is served at `{} {}`",
        request.method(),
        request.path()
    );
    Refused::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", text)
}
