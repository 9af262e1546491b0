//! HTTP for Prometheus: `GET /metrics` and `GET /healthz`, nothing else.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pomona_domain::{Code, Fault};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Metrics, Sources};

/// Connections at once; more wait to be accepted.
const MOST_CONNECTIONS: usize = 32;
/// A request's head must arrive within this time, and an idle connection ends after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After an accept that failed (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The server, bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address. `E0903` when that is impossible.
    pub async fn bind(address: SocketAddr) -> Result<Self, Fault> {
        let refuse = |error: std::io::Error| {
            Fault::new(
                Code::BadListen,
                format!("cannot listen on `{address}`: {error}"),
            )
            .hint("another program may listen there; `--listen 127.0.0.1:0` takes a free port")
        };
        let listener = TcpListener::bind(address).await.map_err(refuse)?;
        let address = listener.local_addr().map_err(refuse)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever.
    pub async fn serve(self, metrics: Metrics, sources: Sources) {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (metrics, sources) = (metrics.clone(), sources.clone());
                    tokio::spawn(async move {
                        talk(stream, &metrics, &sources).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to /metrics was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn talk(stream: TcpStream, metrics: &Metrics, sources: &Sources) {
    let service = service_fn(async |request: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(answer(
            request.method(),
            request.uri().path(),
            metrics,
            sources,
        ))
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to /metrics broke");
    }
}

fn answer(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    sources: &Sources,
) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET, "/metrics") => {
            let kind = "text/plain; version=0.0.4";
            (StatusCode::OK, kind, metrics.render(sources))
        }
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        _ => {
            let text = "this is a worker: only /metrics and /healthz are here\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain", text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
