//! A version as an ordinary image of one layer, for what mounts images: Kubernetes image volumes,
//! KServe modelcars. The bytes follow from the version and the layer's digest.

use pomona_domain::Digest;
use pomona_domain::model::Version;
use serde_json::json;

use super::pack;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The bytes of the configuration. Nothing in the image runs, so its platform is the one that is
/// asked for most.
pub fn config(version: &Version, layer: Digest) -> Vec<u8> {
    let body = json!({
        "created": version.created_at,
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
        "history": [{ "created": version.created_at, "created_by": "pomona" }],
    });
    body.to_string().into_bytes()
}

/// The bytes of the manifest.
pub fn manifest(version: &Version, layer: Digest, size: u64) -> Vec<u8> {
    let config = config(version, layer);
    let body = json!({
        "schemaVersion": 2,
        "mediaType": pack::MANIFEST,
        "config": { "mediaType": CONFIG, "digest": Digest::of(&config), "size": config.len() },
        "layers": [{ "mediaType": LAYER, "digest": layer, "size": size }],
        "annotations": pack::annotations(version),
    });
    body.to_string().into_bytes()
}
