//! A version as a manifest of the CNCF ModelPack specification: each file a layer as it is. The
//! bytes follow from the version alone. They do not say the model's name, which may be changed.

use pomona_domain::Digest;
use pomona_domain::model::{ModelFile, Version};
use serde_json::{Value, json};

/// The type of every manifest here.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
const WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
const DOC: &str = "application/vnd.cncf.model.doc.v1.raw";
const CODE: &str = "application/vnd.cncf.model.code.v1.raw";

/// What a file is, by its name.
fn kind(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match (name, name.rsplit_once('.').map(|(_, ending)| ending)) {
        ("lineage.json" | "LICENSE" | "NOTICE", _) | (_, Some("md" | "rst" | "pdf" | "html")) => {
            DOC
        }
        ("MLmodel", _) | (_, Some("json" | "yaml" | "yml" | "toml" | "txt" | "cfg" | "ini")) => {
            WEIGHT_CONFIG
        }
        (_, Some("py")) => CODE,
        _ => WEIGHT,
    }
}

/// The digest of a file, as the protocol writes it.
fn digest(file: &ModelFile) -> String {
    format!("sha256:{}", file.sha256)
}

fn format(files: &[ModelFile]) -> Option<&'static str> {
    let has = |ending: &str| files.iter().any(|file| file.path.ends_with(ending));
    [(".safetensors", "safetensors"), (".onnx", "onnx")]
        .into_iter()
        .find_map(|(ending, format)| has(ending).then_some(format))
}

/// The bytes of the configuration.
pub fn config(version: &Version) -> Vec<u8> {
    let mut technical = serde_json::Map::new();
    if let Some(format) = format(&version.files) {
        technical.insert("format".to_owned(), format.into());
    }
    let layers: Vec<String> = version.files.iter().map(digest).collect();
    let body = json!({
        "descriptor": { "createdAt": version.created_at, "version": version.number.to_string() },
        "config": technical,
        "modelfs": { "type": "layers", "diffIds": layers },
    });
    body.to_string().into_bytes()
}

fn layer(file: &ModelFile) -> Value {
    json!({
        "mediaType": kind(&file.path),
        "digest": digest(file),
        "size": file.size,
        "annotations": {
            "org.cncf.model.filepath": file.path,
            "org.opencontainers.image.title": file.path,
        },
    })
}

/// The bytes of the manifest.
pub fn manifest(version: &Version) -> Vec<u8> {
    let config = config(version);
    let layers: Vec<Value> = version.files.iter().map(layer).collect();
    let body = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": { "mediaType": CONFIG, "digest": Digest::of(&config), "size": config.len() },
        "layers": layers,
        "annotations": annotations(version),
    });
    body.to_string().into_bytes()
}

/// What both manifests of a version say of it.
pub fn annotations(version: &Version) -> Value {
    json!({
        "org.opencontainers.image.created": version.created_at,
        "org.opencontainers.image.version": version.number.to_string(),
    })
}

#[cfg(test)]
pub mod tests;
