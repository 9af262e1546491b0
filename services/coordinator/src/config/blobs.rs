//! Where the blobs lie, from the keys of `blobs`.

use pomona_daemon::bad;
use pomona_domain::Fault;
use pomona_store::{BlobsAt, BucketConfig};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct BlobsSection {
    pub url: String,
    pub endpoint: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    pub path_style: bool,
    pub allow_http: bool,
    pub ca_file: String,
    pub collect_every_s: u64,
}

impl fmt::Debug for BlobsSection {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobsSection")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl BlobsSection {
    /// The place; `folder` when none is named.
    pub fn at(&self, folder: &Path) -> Result<BlobsAt, Fault> {
        if self.url.is_empty() {
            return Ok(BlobsAt::Folder(folder.to_owned()));
        }
        if let Some(path) = self.url.strip_prefix("file://") {
            if path.starts_with('/') {
                return Ok(BlobsAt::Folder(PathBuf::from(path)));
            }
            return Err(bad("`blobs.url` must name a folder from the root")
                .hint("`file:///var/lib/pomona/blobs` has three slashes"));
        }
        let Some(place) = self.url.strip_prefix("s3://") else {
            return Err(bad("`blobs.url` is no place that Pomona keeps blobs in")
                .hint("an address begins with `file:///` or `s3://`"));
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || bucket.contains('@') {
            return Err(bad("`blobs.url` names no bucket").hint(
                "write `s3://bucket/prefix`; keys belong into `blobs.access_key` and `blobs.secret_key`",
            ));
        }
        self.bucket(bucket, prefix)
    }

    fn bucket(&self, bucket: &str, prefix: &str) -> Result<BlobsAt, Fault> {
        if self.access_key.is_empty() != self.secret_key.is_empty() {
            return Err(
                bad("`blobs.access_key` and `blobs.secret_key` belong together")
                    .hint("give both, or neither: then the `AWS_…` variables count"),
            );
        }
        let is_plain = self.endpoint.starts_with("http://");
        let is_known = is_plain || self.endpoint.starts_with("https://");
        if !self.endpoint.is_empty() && !is_known {
            return Err(bad("`blobs.endpoint` must begin with `https://`"));
        }
        if is_plain && !self.allow_http {
            return Err(bad("`blobs.endpoint` is an address without TLS").hint(
                "give one with `https://`, or set `blobs.allow_http` for a store on this machine",
            ));
        }
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let keys = given(&self.access_key).zip(given(&self.secret_key));
        Ok(BlobsAt::Bucket(Box::new(BucketConfig {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            endpoint: given(&self.endpoint),
            region: self.region.clone(),
            keys,
            path_style: self.path_style,
            allow_http: self.allow_http,
            ca_file: given(&self.ca_file).map(PathBuf::from),
            writer: rand::random(),
        })))
    }

    /// Whether the blobs lie elsewhere than in the data folder.
    pub fn has_url(&self) -> bool {
        !self.url.is_empty()
    }

    /// The secret becomes `***`.
    pub fn mask(&mut self) {
        if !self.secret_key.is_empty() {
            "***".clone_into(&mut self.secret_key);
        }
    }
}
