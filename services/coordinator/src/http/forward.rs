//! Requests that only the leader can answer, on a coordinator that follows: they are handed on, and
//! the answer is handed back as it comes.
//!
//! It must never hand on what was handed on: two coordinators that take each other for the leader
//! would do so for ever. What may have reached a leader is never sent twice.

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{Error, FromRequest as _, HttpRequest, HttpResponse, ResponseError as _};
use pomona_domain::{Code, Fault};
use std::time::Duration;
use tokio::time::Instant;

use super::{App, Refusal, actor, refusal, routes};
use crate::engine::Role;

/// Who handed a request on.
const HANDED_ON: &str = "pomona-forwarded-by";
/// A leader that does not take a connection in this time does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A leader may be silent for this long (events and polls say something well before).
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// A request waits this long for a leader.
const PATIENCE: Duration = Duration::from_secs(6);
/// A leader that was not reached is tried again after this long.
const PAUSE: Duration = Duration::from_millis(100);
/// Headers that are about one connection.
const OF_A_CONNECTION: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Connections to the leader.
#[derive(Debug)]
pub struct Line {
    http: reqwest::Client,
    /// Names this coordinator.
    me: String,
}

impl Line {
    /// No connection is made yet.
    pub fn new(me: &str) -> Result<Self, Fault> {
        let built = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // Neither a proxy nor a redirection stands between coordinators.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let http = built.map_err(|error| {
            Fault::new(Code::Internal, format!("no client can be made: {error}"))
        })?;
        let me = me.to_owned();
        Ok(Self { http, me })
    }
}

/// Answers here what may be answered here, and hands on the rest.
pub async fn to_leader(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let app = request.app_data::<Data<App>>().cloned();
    let pattern = request.match_pattern().unwrap_or_default();
    let led = routes::is_led(request.method(), &pattern);
    let is_here = |app: &Data<App>| {
        let leads = app.engine.generation().is_some();
        leads || (pattern == routes::EVENTS && app.bus.is_relayed())
    };
    let Some(app) = app.filter(|app| led && !is_here(app)) else {
        return Ok(next.call(request).await?.map_into_left_body());
    };
    let (request, payload) = request.into_parts();
    let handed_on = request.headers().contains_key(HANDED_ON);
    let limit = app.config.http.max_body_bytes;
    let body = Payload::from_request(&request, &mut { payload }).await?;
    let answer = match body.to_bytes_limited(limit).await {
        Err(_) => Err(refusal::too_large(limit)),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(_)) if handed_on => Err(nobody()),
        Ok(Ok(body)) => hand_on(&app, &request, body).await,
    };
    let answer = answer.unwrap_or_else(|fault| {
        if crate::mlflow::is_mlflow(request.path()) {
            return crate::mlflow::Refused::from(fault).error_response();
        }
        Refusal::from(fault).error_response()
    });
    Ok(ServiceResponse::new(request, answer).map_into_right_body())
}

/// Sends a request to whoever leads, as soon as somebody does.
async fn hand_on(app: &App, request: &HttpRequest, body: Bytes) -> Result<HttpResponse, Fault> {
    let end = Instant::now() + PATIENCE;
    let mut role = app.engine.role();
    while Instant::now() < end && !app.stopping() {
        let address = match &*role.borrow_and_update() {
            Role::Follows { address } => address.clone(),
            // This one leads by now; it would have been asked by itself a moment later.
            Role::Leads { .. } => app.me.address.clone(),
        };
        if !address.is_empty() {
            match send(app, &address, request, body.clone()).await {
                Ok(answer) => return Ok(hand_back(answer)),
                Err(error) if error.is_connect() => tracing::debug!("`{address}`: {error}"),
                Err(error) => return Err(broke(&address, &error)),
            }
        }
        let news = tokio::time::timeout(PAUSE, role.changed()).await;
        if matches!(news, Ok(Err(_))) {
            break;
        }
    }
    Err(nobody())
}

async fn send(
    app: &App,
    address: &str,
    request: &HttpRequest,
    body: Bytes,
) -> Result<reqwest::Response, reqwest::Error> {
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str());
    let url = format!("{address}{path}");
    // The same word in the types of two versions of a library.
    let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes());
    let mut call = app.line.http.request(method.unwrap_or_default(), url);
    for (name, value) in kept(request.headers()) {
        call = call.header(name.as_str(), value.as_bytes());
    }
    call.header(HANDED_ON, &app.line.me)
        .header(actor::CAME_FROM, actor::address(request))
        .body(body)
        .send()
        .await
}

fn kept(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let about_us = |name: &HeaderName| {
        OF_A_CONNECTION.contains(&name.as_str()) || name.as_str() == actor::CAME_FROM
    };
    headers.iter().filter(move |(name, _)| !about_us(name))
}

/// The leader's answer, byte by byte as it comes.
fn hand_back(answer: reqwest::Response) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status().as_u16());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::BAD_GATEWAY));
    for (name, value) in answer.headers() {
        if !OF_A_CONNECTION.contains(&name.as_str()) {
            response.append_header((name.as_str(), value.as_bytes()));
        }
    }
    if let Some(length) = answer.content_length() {
        response.no_chunking(length);
    }
    response.streaming(answer.bytes_stream())
}

fn nobody() -> Fault {
    Fault::new(Code::NotReady, "no coordinator leads at the moment")
        .hint("try again in a second; `advertise` must be an address at which coordinators reach each other")
}

fn broke(address: &str, error: &reqwest::Error) -> Fault {
    let text = format!("the coordinator that leads, at `{address}`, broke off: {error}");
    Fault::new(Code::NotReady, text).hint("look whether it was done before you ask again")
}
