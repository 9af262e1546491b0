//! Refusals in MLflow's form: `{"error_code": …, "message": …}` with MLflow's statuses.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use pomona_domain::{Code, Fault};
use pomona_store::{ExperimentRefusal, RunRefusal, StoreError};
use pomona_tracking::{ErrorCode, Refusal};
use serde_json::json;
use std::fmt;

/// A refused request.
#[derive(Debug, Clone)]
pub struct Refused(pub Refusal);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let code = match fault.code.http_status() {
            _ if fault.code == Code::GateFailed => ErrorCode::PermissionDenied,
            400 if fault.code == Code::NotFound => ErrorCode::ResourceDoesNotExist,
            404 => ErrorCode::ResourceDoesNotExist,
            409 => ErrorCode::ResourceConflict,
            400..=499 => ErrorCode::InvalidParameterValue,
            503 => ErrorCode::TemporarilyUnavailable,
            _ => ErrorCode::InternalError,
        };
        let hint = fault.hint.as_deref().map(|hint| format!(" ({hint})"));
        let text = format!(
            "{}: {}{}",
            fault.code,
            fault.message,
            hint.unwrap_or_default()
        );
        Self(Refusal::new(code, text))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Fault::from(error).into()
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        if status.is_server_error() {
            tracing::error!("a request of MLflow's failed: {}", self.0);
        }
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        response.json(json!({"error_code": self.0.code.name(), "message": self.0.message}))
    }
}

/// There is no such run.
pub fn no_run(id: &str) -> Refused {
    Refusal::missing(format!("Run with id={id} not found")).into()
}

/// There is no such experiment.
pub fn no_experiment(id: &str) -> Refused {
    Refusal::missing(format!("No Experiment with id={id} exists")).into()
}

/// Why a run took nothing.
pub fn of_run(id: &str, refusal: RunRefusal) -> Refused {
    match refusal {
        RunRefusal::Missing => no_run(id),
        RunRefusal::Deleted => Refusal::invalid(format!(
            "The run {id} must be in the 'active' state. Current state is deleted."
        ))
        .into(),
        RunRefusal::ParamChanged { key, old, new } => Refusal::invalid(format!(
            "Changing param values is not allowed. Param with key='{key}' was already logged with \
             value='{old}' for run ID='{id}'. Attempted logging new value '{new}'."
        ))
        .into(),
    }
}

/// Why nothing was done to an experiment, by its id or the name that it should have.
pub fn of_experiment(id: &str, name: &str, refusal: &ExperimentRefusal) -> Refused {
    match refusal {
        ExperimentRefusal::Missing => no_experiment(id),
        ExperimentRefusal::NameTaken { deleted: false } => Refusal::new(
            ErrorCode::ResourceAlreadyExists,
            format!("Experiment(name={name}) already exists."),
        )
        .into(),
        ExperimentRefusal::NameTaken { deleted: true } => Refusal::new(
            ErrorCode::ResourceAlreadyExists,
            format!(
                "Experiment '{name}' already exists in deleted state. You can restore the \
                 experiment, or permanently delete the experiment from the .trash folder (under \
                 tracking server's root folder) in order to use this experiment name again."
            ),
        )
        .into(),
        ExperimentRefusal::WrongState { deleted } => {
            let (wanted, is) = if *deleted {
                ("active", "deleted")
            } else {
                ("deleted", "active")
            };
            Refusal::invalid(format!(
                "The experiment {id} must be in the '{wanted}' state. Current state is {is}."
            ))
            .into()
        }
    }
}

/// Whether a path is one at which clients of MLflow look.
pub fn is_mlflow(path: &str) -> bool {
    ["/api/2.0", "/api/3.0", "/ajax-api/", "/v1/traces"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
}

/// A path of MLflow's that is not served.
pub fn unknown(request: &HttpRequest) -> Refused {
    let text = format!(
        "{} {} is not served here: traces, prompts, workspaces and gateways are out of scope.",
        request.method(),
        request.path()
    );
    Refusal::new(ErrorCode::EndpointNotFound, text).into()
}
