//! Blobs in a bucket of an S3-compatible store, which several coordinators share.
//!
//! ```text
//! pomona.json                         which store the bucket (or the prefix in it) belongs to
//! sha256/ab/abcdef….<writer>-<n>      an object with a blob's bytes
//! sha256/ab/abcdef….<writer>-<n>.tail bytes of an upload that are too few for a part
//! ```
//! An object's name is never used again: `writer` is drawn at random by each process, `n` counts.
//! `blobs.object` says which object has a blob's bytes. So there is no race between an upload and
//! the removal of the same digest, with no lock over the network: a removal that comes late removes
//! an object that no row names. For the same reason an object may be there without a row (a
//! coordinator was killed between the two, or the row went over to a newer upload): those are swept
//! by age, and never those of an upload that has a row of its own.
//!
//! A digest is checked before an upload is completed, so an object that can be seen is whole.

mod http;
mod open;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload,
    RetryConfig,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::{SHARDS, SHARDS_PER_CALL};
use crate::StoreError;

pub(super) use open::Open;
pub(super) use upload::{Upload, record};

/// Bytes of a part of an upload; what is shorter goes up in one request. An S3 takes 5 MiB at
/// least and 10,000 parts.
pub(super) const PART: usize = 8 << 20;
/// How often, and for how long, a request is tried again.
const RETRIES: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(20);
/// How long the question whether the bucket answers may take.
const PING: Duration = Duration::from_secs(5);
/// What says whose bucket it is.
const MARK: &str = "pomona.json";

/// Where a bucket is, and how to come in.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// The bucket's name.
    pub bucket: String,
    /// What all names in it begin with; may be empty.
    pub prefix: String,
    /// The server (`https://s3.example.org`); none means AWS.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// Key and secret; without them they are looked for where AWS's own programs look: the
    /// `AWS_…` variables, a web identity, the instance's role.
    pub keys: Option<(String, String)>,
    /// Whether the bucket stands in the path of an address, and not in the host's name.
    pub path_style: bool,
    /// Whether the endpoint may be one without TLS.
    pub allow_http: bool,
    /// Certificates to trust, and no others.
    pub ca_file: Option<PathBuf>,
    /// A number that no other process has: drawn at random.
    pub writer: u64,
}

impl std::fmt::Debug for BucketConfig {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketConfig")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A bucket. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Bucket(Arc<Place>);

struct Place {
    s3: AmazonS3,
    prefix: String,
    writer: u64,
    /// The next object's number.
    object: AtomicU64,
    /// Where collection looks for objects without a row next.
    shard: AtomicUsize,
}

impl std::fmt::Debug for Place {
    /// Without the client, which knows the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// A bucket; nothing is asked of it yet.
    pub fn open(config: BucketConfig) -> Result<Self, StoreError> {
        let connector = http::Connector {
            tls: trust(config.ca_file.as_ref())?,
            allow_http: config.allow_http,
        };
        let mut builder = match config.keys {
            Some((key, secret)) => AmazonS3Builder::new()
                .with_access_key_id(key)
                .with_secret_access_key(secret),
            None => AmazonS3Builder::from_env(),
        };
        if let Some(endpoint) = config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let s3 = builder
            .with_bucket_name(config.bucket)
            .with_region(config.region)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_allow_http(config.allow_http)
            // The server compares what came with the sum, for each request.
            .with_checksum_algorithm(Checksum::SHA256)
            // Not every S3 has the bulk request.
            .with_disable_bulk_delete(true)
            .with_retry(retries())
            .with_http_connector(connector)
            .build()
            .map_err(|error| refused(&error))?;
        Ok(Self(Arc::new(Place {
            s3,
            prefix: config.prefix.trim_matches('/').to_owned(),
            writer: config.writer,
            object: AtomicU64::new(0),
            shard: AtomicUsize::new(0),
        })))
    }

    /// What this process is called.
    pub(super) fn writer(&self) -> String {
        format!("{:016x}", self.0.writer)
    }

    /// A name for an object that is coming: a digest's digits, or those of an id.
    pub(super) fn name(&self, hex: &str) -> String {
        let number = self.0.object.fetch_add(1, Ordering::Relaxed);
        format!("sha256/{}/{hex}.{}-{number}", &hex[..2], self.writer())
    }

    /// Where an object is.
    fn path(&self, object: &str) -> Path {
        Path::from(format!("{}/{object}", self.0.prefix))
    }

    /// An object of at most one part, in one request.
    pub(super) async fn put(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(object);
        let put = self.0.s3.put(&path, PutPayload::from(bytes)).await;
        put.map(|_| ()).map_err(broken)
    }

    /// A small object, whole; none when it is not there.
    pub(super) async fn read(&self, object: &str) -> Result<Option<Bytes>, StoreError> {
        let got = match self.0.s3.get(&self.path(object)).await {
            Ok(got) => got,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(broken(error)),
        };
        got.bytes().await.map(Some).map_err(broken)
    }

    /// An object's bytes; none when it is not there.
    pub(super) async fn size(&self, object: &str) -> Result<Option<u64>, StoreError> {
        match self.0.s3.head(&self.path(object)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(broken(error)),
        }
    }

    /// Removes objects. Those that are not there are no error.
    pub(super) async fn remove(&self, objects: &[String]) -> Result<(), StoreError> {
        let paths: Vec<_> = objects.iter().map(|object| Ok(self.path(object))).collect();
        let mut removals = self
            .0
            .s3
            .delete_stream(futures::stream::iter(paths).boxed());
        while let Some(removed) = removals.next().await {
            match removed {
                Err(error) if !is_missing(&error) => return Err(broken(error)),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whose bucket it is: `name`'s if it was nobody's.
    pub(super) async fn claim(&self, name: &str) -> Result<(), StoreError> {
        let found = match self.read(MARK).await? {
            Some(found) => found,
            None => self.mark(name).await?,
        };
        if found == mark(name) {
            return Ok(());
        }
        Err(StoreError::BucketTaken {
            prefix: self.0.prefix.clone(),
        })
    }

    /// Writes the mark, unless somebody was faster; says what stands there.
    async fn mark(&self, name: &str) -> Result<Bytes, StoreError> {
        let path = self.path(MARK);
        let payload = PutPayload::from(mark(name));
        let put = self.0.s3.put_opts(&path, payload, PutMode::Create.into());
        match put.await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(broken(error)),
        }
        Ok(self.read(MARK).await?.unwrap_or_default())
    }

    /// Whether the bucket answers.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        match tokio::time::timeout(PING, self.size(MARK)).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(StoreError::ObjectsDown {
                why: "it does not answer".to_owned(),
            }),
        }
    }

    /// Names of the objects in the next few folders, with the time (ms since the Unix epoch, by the
    /// bucket's clock) at which each was made, or its upload begun.
    pub(super) async fn some_objects(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let place = &self.0;
        let first = place.shard.fetch_add(SHARDS_PER_CALL, Ordering::Relaxed);
        let mut objects = Vec::new();
        for shard in first..first + SHARDS_PER_CALL {
            let folder = self.path(&format!("sha256/{:02x}", shard % SHARDS));
            let found: Vec<ObjectMeta> = place
                .s3
                .list(Some(&folder))
                .try_collect()
                .await
                .map_err(broken)?;
            objects.extend(found.iter().filter_map(|meta| {
                let path = meta.location.as_ref();
                let object = path.strip_prefix(place.prefix.as_str())?;
                let object = object.trim_start_matches('/').to_owned();
                Some((object, meta.last_modified.timestamp_millis()))
            }));
        }
        Ok(objects)
    }
}

fn mark(name: &str) -> Bytes {
    Bytes::from(format!("{}\n", serde_json::json!({ "store": name })))
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
    }
}

/// Whom to trust: the certificates in a file, or the public authorities.
fn trust(ca_file: Option<&PathBuf>) -> Result<ClientConfig, StoreError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unusable = |why: String| StoreError::folder(path)(std::io::Error::other(why));
            let found = CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))?;
            for certificate in found {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                let added = roots.add(certificate);
                added.map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("it holds no certificate in PEM".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::ObjectsRefused {
            why: error.to_string(),
        })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Whether an error says that an object is not there, in a bucket that is.
fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && !text(error).contains("NoSuchBucket")
}

fn text(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn refused(error: &object_store::Error) -> StoreError {
    StoreError::ObjectsRefused { why: why(error) }
}

/// What went wrong, by whose fault.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
pub(super) fn broken(error: object_store::Error) -> StoreError {
    use object_store::Error as E;
    let is_final = matches!(
        error,
        E::NotFound { .. }
            | E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
    );
    if is_final {
        return refused(&error);
    }
    StoreError::ObjectsDown { why: why(&error) }
}

/// The cause in a few words. What the server wrote is left out: it may repeat keys and signatures.
fn why(error: &object_store::Error) -> String {
    const MOST: usize = 200;
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let text = innermost.to_string();
    let text = text.split('<').next().unwrap_or_default();
    let text = text.trim_end_matches([' ', ':', '\n']);
    let whole = self::text(error);
    let text: String = text.chars().take(MOST).collect();
    match code(&whole) {
        Some(code) => format!("{text} ({code})"),
        None => text,
    }
}

/// The name that S3 gives an error, in the text of an answer.
fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_word = code.len() < 64 && code.chars().all(|letter| letter.is_ascii_alphanumeric());
    is_word.then_some(code)
}

#[cfg(test)]
mod tests;
