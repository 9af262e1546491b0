//! Typed HTTP client of a coordinator.
//!
//! Every error is a [`Fault`]: the coordinator's own, or `E0002` when it cannot be reached. Calls
//! that are safe to repeat (reads, `PUT`s, and `POST`s with an idempotency key) are repeated a few
//! times; nothing else ever is.

mod blobs;
mod calls;
mod events;

pub use blobs::file_digest;
pub use events::EventStream;

use bytes::Bytes;
use pomona_domain::{Code, Fault};
use reqwest::{Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::error::Error;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use crate::v1::{ErrorBody, IDEMPOTENCY_KEY};

/// Where a coordinator listens when nothing is said.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7878";

/// Attempts of a call that is safe to repeat.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A call without a stream may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A stream may be silent for this long (the coordinator sends a comment well before).
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// A long poll may take this much longer than it was asked to wait.
const POLL_MARGIN: Duration = Duration::from_secs(10);

/// A client of one coordinator. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    attempts: u32,
}

/// One request.
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    key: Option<Cow<'a, str>>,
    timeout: Duration,
    repeat: bool,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: &'a [&'a str]) -> Self {
        let repeat = method != Method::POST;
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            key: None,
            timeout: CALL_TIMEOUT,
            repeat,
        }
    }

    fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    fn post(path: &'a [&'a str]) -> Self {
        Self::new(Method::POST, path)
    }

    /// A `POST` with a key of its own: done once, however often it is sent.
    fn once(path: &'a [&'a str]) -> Self {
        // Two hashers with keys that the system drew: no more is needed to be different.
        let draw = || RandomState::new().build_hasher().finish();
        let mut call = Self::post(path);
        call.key = Some(format!("call-{:016x}{:016x}", draw(), draw()).into());
        call.repeat = true;
        call
    }

    fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.query.push((name, value.to_string()));
        }
        self
    }

    fn json(mut self, body: &impl Serialize) -> Result<Self, Fault> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Fault::new(Code::Internal, format!("cannot write JSON: {error}")))?;
        self.body = Some(bytes.into());
        Ok(self)
    }

    /// A key makes a `POST` safe to repeat.
    fn key(mut self, key: &'a str) -> Self {
        self.key = Some(key.into());
        self.repeat = true;
        self
    }
}

impl Client {
    /// A client of the coordinator at `server` (`http://host:port`). It does not connect yet.
    pub fn new(server: &str) -> Result<Self, Fault> {
        let wrong = |why: String| {
            Fault::new(
                Code::BadConfig,
                format!("`{server}` is not the address of a coordinator: {why}"),
            )
            .hint(format!("write it like `{DEFAULT_SERVER}`"))
        };
        let base = Url::parse(server).map_err(|error| wrong(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("it does not begin with `http://`".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("pomona/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            http,
            base,
            attempts: ATTEMPTS,
        })
    }

    /// The same client with another number of attempts (1: never repeat).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The coordinator's address.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn url(&self, path: &[&str], query: &[(&'static str, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn answer<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Fault> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Fault::new(
                Code::VersionMismatch,
                format!("cannot read the coordinator's answer: {error}"),
            )
            .hint("`pomona --version` and the coordinator's version should be the same")
        })
    }

    async fn bytes(&self, call: Call<'_>) -> Result<Bytes, Fault> {
        let response = self.send(call).await?;
        response.bytes().await.map_err(|error| self.fault(&error))
    }

    async fn send(&self, call: Call<'_>) -> Result<Response, Fault> {
        let url = self.url(call.path, &call.query);
        let attempts = if call.repeat { self.attempts } else { 1 };
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let fault = match self.send_once(&call, url.clone()).await {
                Ok(response) => return Ok(response),
                Err(fault) => fault,
            };
            if attempt >= attempts || !is_passing(fault.code) {
                return Err(fault);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }

    async fn send_once(&self, call: &Call<'_>, url: Url) -> Result<Response, Fault> {
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .timeout(call.timeout);
        if let Some(body) = &call.body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        if let Some(key) = &call.key {
            request = request.header(IDEMPOTENCY_KEY, key.as_ref());
        }
        let response = request.send().await.map_err(|error| self.fault(&error))?;
        self.check(response).await
    }

    /// The response, or the fault it holds.
    async fn check(&self, response: Response) -> Result<Response, Fault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.map_err(|error| self.fault(&error))?;
        Err(match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => body.error,
            Err(_) => fault_of_status(status.as_u16(), self.server()),
        })
    }

    /// A failure of the transport.
    fn fault(&self, error: &reqwest::Error) -> Fault {
        let server = self.server();
        let why = if error.is_timeout() {
            "it did not answer in time".to_owned()
        } else {
            root_cause(error)
        };
        Fault::new(
            Code::Unreachable,
            format!("cannot reach the coordinator at `{server}`: {why}"),
        )
        .hint("start one with `pomona up`, or name another with `--server URL`")
    }
}

/// Whether the same call may succeed a moment later.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unreachable | Code::NotReady | Code::Busy | Code::StoreDown | Code::ObjectsDown
    )
}

/// An answer without our body: something else listens there, or the path is unknown to an older
/// coordinator.
fn fault_of_status(status: u16, server: &str) -> Fault {
    let code = match status {
        404 => Code::NotFound,
        413 => Code::TooLarge,
        429 => Code::Busy,
        500.. => Code::NotReady,
        _ => Code::BadRequest,
    };
    Fault::new(code, format!("`{server}` answered with status {status}"))
        .hint("is this address a Pomona coordinator of the same version?")
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(
        || "the connection broke".to_owned(),
        |first| first.to_lowercase().chain(chars).collect(),
    )
}

#[cfg(test)]
mod tests;
