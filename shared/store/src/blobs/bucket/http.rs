//! How the bucket is talked to: HTTP over the connection pool of hyper, TLS by rustls with `ring`,
//! and nothing that waits for ever.
//!
//! Our own because the crate's comes with a second crypto library, or switches TLS on in every HTTP
//! client of the workspace, which then all need the machine's certificates.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use rustls::ClientConfig;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request of at most one part may take, to the head of its answer.
const ANSWER: Duration = Duration::from_mins(1);
/// How long an answer may be silent in its middle.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Makes the client.
#[derive(Debug)]
pub(super) struct Connector {
    /// Whom to trust.
    pub tls: ClientConfig,
    /// Whether the address may be one without TLS.
    pub allow_http: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let tls = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        let tls = if self.allow_http {
            tls.https_or_http()
        } else {
            tls.https_only()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(tls.enable_http1().wrap_connector(tcp));
        Ok(HttpClient::new(Service(client)))
    }
}

#[derive(Debug)]
struct Service(Client<HttpsConnector<Tcp>, HttpRequestBody>);

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = timeout(ANSWER, self.0.request(request)).await;
        let answer = answer.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
        let (head, body) = answer.map_err(of_client)?.into_parts();
        let body = Impatient {
            body,
            until: Box::pin(sleep(SILENCE)),
        };
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

/// What the crate tries again by, said of hyper's error.
fn of_client(error: Error) -> HttpError {
    let mut kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Unknown
    };
    let mut cause = error.source();
    while let (HttpErrorKind::Unknown, Some(error)) = (kind, cause) {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            kind = kind_of(error);
        } else if error.is::<std::io::Error>() {
            kind = HttpErrorKind::Interrupted;
        }
        cause = error.source();
    }
    HttpError::new(kind, error)
}

fn kind_of(error: &hyper::Error) -> HttpErrorKind {
    if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_incomplete_message() || error.is_closed() || error.is_body_write_aborted() {
        HttpErrorKind::Request
    } else {
        HttpErrorKind::Unknown
    }
}

/// An answer's bytes; silence for too long is an error.
#[derive(Debug)]
struct Impatient {
    body: Incoming,
    until: Pin<Box<Sleep>>,
}

impl Body for Impatient {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.until.as_mut().reset(Instant::now() + SILENCE);
                Poll::Ready(frame.map(|frame| {
                    frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))
                }))
            }
            Poll::Pending => {
                ready!(self.until.as_mut().poll(cx));
                let silent = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, silent))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
