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
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::v1::{ACTOR, ErrorBody, IDEMPOTENCY_KEY};

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

/// A client of one coordinator, or of several that share a database: then it speaks to one of them
/// until that one is not reached. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    bases: Arc<[Url]>,
    /// Which of them is spoken to.
    current: Arc<AtomicUsize>,
    attempts: u32,
    /// Who uses it.
    actor: Option<Arc<str>>,
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
    /// A client of the coordinator at `server` (`http://host:port`); several addresses stand with
    /// commas between them. It does not connect yet.
    pub fn new(server: &str) -> Result<Self, Fault> {
        let bases: Vec<Url> = server.split(',').map(base).collect::<Result<_, _>>()?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("pomona/", env!("CARGO_PKG_VERSION")));
        if bases.iter().all(is_loopback) {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|error| no_address(server, &error.to_string()))?;
        Ok(Self {
            http,
            bases: bases.into(),
            current: Arc::default(),
            attempts: ATTEMPTS,
            actor: None,
        })
    }

    /// The same client with another number of attempts (1: never repeat).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The same client, saying who uses it.
    #[must_use]
    pub fn used_by(mut self, actor: &str) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// The coordinator's address; of several that of the one which is spoken to.
    pub fn server(&self) -> &str {
        self.base().as_str().trim_end_matches('/')
    }

    fn base(&self) -> &Url {
        &self.bases[self.current.load(Ordering::Relaxed) % self.bases.len()]
    }

    fn url(&self, path: &[&str], query: &[(&'static str, String)]) -> Url {
        let mut url = self.base().clone();
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
        let attempts = if call.repeat { self.attempts } else { 1 };
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let fault = match self.send_somewhere(&call).await {
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

    /// Sends a call to the first coordinator that takes the connection: none has heard of it before.
    async fn send_somewhere(&self, call: &Call<'_>) -> Result<Response, Fault> {
        let mut others = self.bases.len() - 1;
        loop {
            match self.request(call).send().await {
                Ok(response) => return self.check(response).await,
                Err(error) => {
                    let fault = self.fault(&error);
                    if others == 0 || !error.is_connect() {
                        return Err(fault);
                    }
                    others -= 1;
                }
            }
        }
    }

    fn request(&self, call: &Call<'_>) -> reqwest::RequestBuilder {
        let url = self.url(call.path, &call.query);
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
        if let Some(actor) = &self.actor {
            request = request.header(ACTOR, actor.as_ref());
        }
        request
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

    /// A failure of the transport. What is asked next is asked of the next coordinator.
    fn fault(&self, error: &reqwest::Error) -> Fault {
        let server = self.server();
        self.current.fetch_add(1, Ordering::Relaxed);
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

/// One address of a coordinator.
fn base(server: &str) -> Result<Url, Fault> {
    let base = Url::parse(server.trim()).map_err(|error| no_address(server, &error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(no_address(server, "it does not begin with `http://`"));
    }
    Ok(base)
}

fn no_address(server: &str, why: &str) -> Fault {
    let text = format!("`{server}` is not the address of a coordinator: {why}");
    Fault::new(Code::BadConfig, text).hint(format!("write it like `{DEFAULT_SERVER}`"))
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
