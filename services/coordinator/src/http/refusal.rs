//! Error answers: a fault with its status, and all faults of a file when there are several.

use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use pomona_api::v1::{DetailedErrorBody, DetailedFault, FaultDetails};
use pomona_domain::{Code, Fault};
use pomona_store::StoreError;
use std::fmt;

use super::routes;

/// What a handler answers.
pub type Answer = Result<HttpResponse, Refusal>;

/// Seconds after which a busy coordinator is worth another try.
const RETRY_AFTER_S: &str = "1";

/// A refused request.
#[derive(Debug, Clone)]
pub struct Refusal(Box<Refused>);

#[derive(Debug, Clone)]
struct Refused {
    fault: Fault,
    details: Vec<Fault>,
    /// A status of its own and the header that goes with it.
    shown: Option<(StatusCode, HeaderName, String)>,
}

impl Refusal {
    /// All faults of a file. One fault alone needs no details.
    pub fn many(faults: Vec<Fault>) -> Self {
        let mut faults = faults;
        if faults.len() == 1 {
            return faults.remove(0).into();
        }
        let messages: Vec<String> = faults.iter().map(|fault| fault.message.clone()).collect();
        let first = faults.first();
        let code = first.map_or(Code::Internal, |fault| fault.code);
        let hints: Vec<&str> = faults.iter().filter_map(|f| f.hint.as_deref()).collect();
        let fault = Fault {
            code,
            message: messages.join("\n"),
            hint: (!hints.is_empty()).then(|| hints.join("\n")),
        };
        let mut refusal = Self::from(fault);
        refusal.0.details = faults;
        refusal
    }

    /// The fault, for another form of answer.
    pub fn into_fault(self) -> Fault {
        self.0.fault
    }

    /// The same with a status that the code alone does not have, and its header.
    #[must_use]
    pub fn shown(mut self, status: StatusCode, name: HeaderName, value: String) -> Self {
        self.0.shown = Some((status, name, value));
        self
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self(Box::new(Refused {
            fault,
            details: Vec::new(),
            shown: None,
        }))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Fault::from(error).into()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fault.fmt(f)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        if let Some((status, _, _)) = self.0.shown {
            return status;
        }
        StatusCode::from_u16(self.0.fault.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let body = DetailedErrorBody {
            error: DetailedFault {
                fault: self.0.fault.clone(),
                details: (!self.0.details.is_empty()).then(|| FaultDetails {
                    faults: self.0.details.clone(),
                }),
            },
        };
        let status = self.status_code();
        if status.is_server_error() {
            tracing::error!(code = %self.0.fault.code, "a request failed: {}", self.0.fault);
        }
        let mut response = HttpResponse::build(status);
        if matches!(
            self.0.fault.code,
            Code::Busy | Code::NotReady | Code::StoreDown | Code::ObjectsDown
        ) {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER_S));
        }
        if let Some((_, name, value)) = &self.0.shown {
            response.insert_header((name.clone(), value.as_str()));
        }
        response.json(body)
    }
}

/// A body that is larger than it may be.
pub fn too_large(limit: usize) -> Fault {
    Fault::new(
        Code::TooLarge,
        format!("the body is over its limit of {limit} bytes"),
    )
}

/// A body that is not the JSON that was expected.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the server wants a function of this shape"
)]
pub fn of_json(error: JsonPayloadError, _: &HttpRequest) -> actix_web::Error {
    use JsonPayloadError::{Deserialize, Overflow, OverflowKnownLength};
    let fault = if let Overflow { limit } | OverflowKnownLength { limit, .. } = &error {
        too_large(*limit)
    } else if let Deserialize(cause) = &error {
        Fault::new(
            Code::BadRequest,
            format!("the body cannot be read: {cause}"),
        )
    } else {
        Fault::new(
            Code::BadRequest,
            format!("the body cannot be read: {error}"),
        )
    };
    Refusal::from(fault).into()
}

/// A query that has unknown or wrong parameters.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the server wants a function of this shape"
)]
pub fn of_query(error: QueryPayloadError, _: &HttpRequest) -> actix_web::Error {
    let fault = Fault::new(
        Code::BadRequest,
        format!("the query cannot be read: {error}"),
    );
    Refusal::from(fault).into()
}

/// A path whose parts cannot be read.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the server wants a function of this shape"
)]
pub fn of_path(error: PathError, _: &HttpRequest) -> actix_web::Error {
    let fault = Fault::new(
        Code::BadRequest,
        format!("the path cannot be read: {error}"),
    );
    Refusal::from(fault).into()
}

/// A path that nothing serves, or not with this method.
pub async fn unknown(request: HttpRequest) -> Answer {
    let (method, path) = (request.method(), request.path());
    if crate::mlflow::is_mlflow(path) {
        return Ok(crate::mlflow::unknown(&request).error_response());
    }
    if crate::oci::is_oci(path) {
        return Ok(crate::oci::unknown(&request).error_response());
    }
    let allowed = routes::methods(path);
    if allowed.is_empty() {
        let text = format!("nothing is served at `{method} {path}`");
        let fault = Fault::new(Code::NotFound, text);
        return Err(fault.hint("`GET /openapi.json` lists every path").into());
    }
    let text = format!("`{path}` is not served with the method {method}");
    let fault = Fault::new(Code::BadRequest, text);
    let hint = format!("it is served with {}", allowed.join(", "));
    let refusal = Refusal::from(fault.hint(hint));
    Err(refusal.shown(
        StatusCode::METHOD_NOT_ALLOWED,
        header::ALLOW,
        allowed.join(", "),
    ))
}
