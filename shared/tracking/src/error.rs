//! MLflow's error codes, and the refusal that every function of this crate answers with.
//!
//! It must never hold a code that MLflow's client does not know.

use std::fmt;

/// A code of MLflow's protocol, as `error_code` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The server failed.
    InternalError,
    /// What is stored cannot be.
    InvalidState,
    /// Stored data is lost.
    DataLoss,
    /// The server does not know this way yet.
    NotImplemented,
    /// Try again later.
    TemporarilyUnavailable,
    /// It took too long.
    DeadlineExceeded,
    /// Too many requests.
    RequestLimitExceeded,
    /// The caller gave up.
    Cancelled,
    /// A quota is used up.
    ResourceExhausted,
    /// Another write came first.
    Aborted,
    /// Two states that exclude each other.
    ResourceConflict,
    /// It exists (409).
    AlreadyExists,
    /// It was not found.
    NotFound,
    /// No such path.
    EndpointNotFound,
    /// No such run, experiment, model.
    ResourceDoesNotExist,
    /// Known, and not allowed.
    PermissionDenied,
    /// Not allowed in (the older name).
    CustomerUnauthorized,
    /// Not known.
    Unauthenticated,
    /// The request cannot be read.
    BadRequest,
    /// It exists (400, the older name; MLflow's stores use this one).
    ResourceAlreadyExists,
    /// A parameter is missing or wrong.
    InvalidParameterValue,
}

impl ErrorCode {
    /// The name on the wire, as `INVALID_PARAMETER_VALUE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InternalError => "INTERNAL_ERROR",
            Self::InvalidState => "INVALID_STATE",
            Self::DataLoss => "DATA_LOSS",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::TemporarilyUnavailable => "TEMPORARILY_UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::RequestLimitExceeded => "REQUEST_LIMIT_EXCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Aborted => "ABORTED",
            Self::ResourceConflict => "RESOURCE_CONFLICT",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::NotFound => "NOT_FOUND",
            Self::EndpointNotFound => "ENDPOINT_NOT_FOUND",
            Self::ResourceDoesNotExist => "RESOURCE_DOES_NOT_EXIST",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::CustomerUnauthorized => "CUSTOMER_UNAUTHORIZED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::BadRequest => "BAD_REQUEST",
            Self::ResourceAlreadyExists => "RESOURCE_ALREADY_EXISTS",
            Self::InvalidParameterValue => "INVALID_PARAMETER_VALUE",
        }
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::InternalError | Self::InvalidState | Self::DataLoss => 500,
            Self::NotImplemented => 501,
            Self::TemporarilyUnavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::RequestLimitExceeded | Self::ResourceExhausted => 429,
            Self::Cancelled => 499,
            Self::Aborted | Self::ResourceConflict | Self::AlreadyExists => 409,
            Self::NotFound | Self::EndpointNotFound | Self::ResourceDoesNotExist => 404,
            Self::PermissionDenied => 403,
            Self::CustomerUnauthorized | Self::Unauthenticated => 401,
            Self::BadRequest | Self::ResourceAlreadyExists | Self::InvalidParameterValue => 400,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a request is refused: MLflow's code and a message in MLflow's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The code that the client switches on.
    pub code: ErrorCode,
    /// The sentence that a person reads; MLflow's tests compare it.
    pub message: String,
}

impl Refusal {
    /// A refusal with any code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// `INVALID_PARAMETER_VALUE` (400), by far the most frequent.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidParameterValue, message)
    }

    /// `RESOURCE_DOES_NOT_EXIST` (404).
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ResourceDoesNotExist, message)
    }
}
