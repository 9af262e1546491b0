//! One request to a receiver.
//!
//! Every attempt looks the name up, judges the addresses, and connects to one of those that it judged:
//! nothing is looked up a second time, so a name that changes its mind gains nothing. There is no pool
//! and no proxy, a redirection is an answer like any other, and no more of a body is read than is shown.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use pomona_domain::{Code, Fault};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use url::Url;

use super::address::{self, Policy};

/// Bytes of an answer that are read.
const ANSWER_BYTES: usize = 4096;
/// Bytes of an answer's headers that are read.
const HEAD_BYTES: usize = 64 << 10;
/// How long a look-up may take when an address is only checked.
const LOOK_UP: Duration = Duration::from_secs(3);
const AGENT: &str = concat!("pomona/", env!("CARGO_PKG_VERSION"));

/// What a receiver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    /// The pause that it asks for.
    pub retry_after_s: Option<u64>,
    /// The beginning of its body.
    pub body: String,
}

/// What a request says.
#[derive(Debug)]
pub struct Message {
    /// Beside those of every request.
    pub headers: Vec<(&'static str, String)>,
    /// The very bytes that were signed.
    pub body: Bytes,
}

/// Sends requests to receivers.
#[derive(Debug)]
pub struct Sender {
    policy: Policy,
    tls: Arc<ClientConfig>,
    timeout: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Sender {
    /// Trusts the public authorities, or those of a file (PEM).
    pub fn new(policy: Policy, ca_file: Option<&Path>, timeout: Duration) -> Result<Self, Fault> {
        let tls = Arc::new(tls(ca_file)?);
        Ok(Self {
            policy,
            tls,
            timeout,
        })
    }

    /// What may be reached.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sends a message; what went wrong in a sentence without secrets.
    pub async fn post(&self, url: &str, message: Message) -> Result<Answered, String> {
        let sent = tokio::time::timeout(self.timeout, self.exchange(url, message)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {} ms", self.timeout.as_millis())))
    }

    async fn exchange(&self, url: &str, message: Message) -> Result<Answered, String> {
        let url = address::check(url, &self.policy).map_err(|fault| fault.message)?;
        let stream = self.connect(&url).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broke(&error))?;
        let request = request(&url, message)?;
        // It ends with this attempt. How it ends says nothing that the answer does not say: a
        // receiver may answer and then break off.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let answer = sender.send_request(request).await;
        Ok(read(answer.map_err(|error| broke(&error))?).await)
    }

    /// A connection to an address that was judged.
    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, String> {
        let mut last = "its name has no address".to_owned();
        for address in self.addresses(url).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // It only costs time when it cannot be set.
                    let _ = stream.set_nodelay(true);
                    return self.encrypt(url, stream).await;
                }
                Err(error) => last = format!("no connection: {error}"),
            }
        }
        Err(last)
    }

    async fn encrypt(&self, url: &Url, stream: TcpStream) -> Result<Box<dyn Stream>, String> {
        if url.scheme() != "https" {
            return Ok(Box::new(stream));
        }
        let name = match (address::literal(url), url.host_str()) {
            (Some(ip), _) => ServerName::from(ip),
            (None, Some(host)) => ServerName::try_from(host.to_owned())
                .map_err(|_| "its host is no name that a certificate has".to_owned())?,
            (None, None) => return Err("it has no host".to_owned()),
        };
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        let stream = tls.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("no TLS: {error}"))?;
        Ok(Box::new(stream))
    }

    /// The addresses of a receiver, all of which may be reached.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, String> {
        let port = url.port_or_known_default().unwrap_or(443);
        let found = match (address::literal(url), url.host_str()) {
            (Some(ip), _) => vec![SocketAddr::new(ip, port)],
            (None, Some(host)) => look_up(host, port).await?,
            (None, None) => return Err("it has no host".to_owned()),
        };
        for address in &found {
            if let Some(what) = self.policy.refuses(address.ip()) {
                return Err(format!("refused: `{}` is {what}", address.ip()));
            }
        }
        Ok(found)
    }

    /// Where a receiver's name leads that may not be reached; a name that leads nowhere at the moment
    /// is judged when something is delivered.
    pub async fn forbidden(&self, url: &Url) -> Result<Option<(IpAddr, &'static str)>, String> {
        let (Some(host), None) = (url.host_str(), address::literal(url)) else {
            return Ok(None);
        };
        let found = tokio::time::timeout(LOOK_UP, look_up(host, 443)).await;
        let found =
            found.unwrap_or_else(|_| Err("its name is looked up for too long".to_owned()))?;
        Ok(found.into_iter().find_map(|address| {
            let what = self.policy.refuses(address.ip())?;
            Some((address.ip(), what))
        }))
    }
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    Ok(found
        .map_err(|error| format!("its name has no address: {error}"))?
        .collect())
}

fn request(url: &Url, message: Message) -> Result<Request<Full<Bytes>>, String> {
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in message.headers {
        let value = HeaderValue::try_from(value).map_err(|_| "a header cannot be written")?;
        request = request.header(HeaderName::from_static(name), value);
    }
    let request = request.body(Full::new(message.body));
    request.map_err(|_| "its path cannot be asked for".to_owned())
}

/// The head of an answer and the beginning of its body; the rest is left where it is.
async fn read(answer: Response<Incoming>) -> Answered {
    let (head, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data[..data.len().min(ANSWER_BYTES - bytes.len())]);
                }
            }
            // The status has come: a body that breaks off changes nothing.
            Some(Err(_)) | None => break,
        }
    }
    let retry_after = head.headers.get(RETRY_AFTER);
    let retry_after_s = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Answered {
        status: head.status.as_u16(),
        retry_after_s,
        body: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn broke(error: &hyper::Error) -> String {
    format!("the connection broke: {error}")
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, Fault> {
    let bad = |why: String| {
        Fault::new(
            Code::BadConfig,
            format!("`webhooks.ca_file` cannot be used: {why}"),
        )
    };
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let found = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?;
            for certificate in found {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| bad(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad("it holds no certificate in PEM".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new(Code::Internal, format!("no TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
