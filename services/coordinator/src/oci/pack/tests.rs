use super::*;
use pomona_domain::model::{Lineage, Origin, version_digest};
use pomona_domain::{ExperimentId, Timestamp, TrialId, VersionId};
use std::collections::BTreeMap;

/// A version of files with these paths and bytes.
pub fn version(files: &[(&str, &[u8])]) -> Version {
    let file = |(path, bytes): &(&str, &[u8])| ModelFile {
        path: (*path).to_owned(),
        sha256: Digest::of(bytes).hex(),
        size: bytes.len() as u64,
    };
    let files: Vec<ModelFile> = files.iter().map(file).collect();
    let nothing = Digest::of(b"");
    Version {
        id: VersionId(7),
        model: "tux".to_owned(),
        number: 7,
        digest: version_digest(&files),
        files,
        origin: Origin::Trained(Lineage {
            experiment: ExperimentId(1),
            trial: TrialId(1),
            step: 1,
            seed: 1,
            checkpoint: nothing,
            dataset: nothing,
            backbone: nothing,
            code: "test".to_owned(),
        }),
        metrics: BTreeMap::new(),
        gates: Vec::new(),
        promotion: None,
        created_at: Timestamp(1_700_000_000_123),
    }
}

#[test]
fn a_version_as_its_files() {
    let version = version(&[
        ("MLmodel", b"flavors"),
        ("README.md", b"card"),
        ("config.json", b"{}"),
        ("lineage.json", b"{}"),
        ("model.onnx", b"graph"),
        ("model.safetensors", b"weights"),
    ]);
    let shown = |bytes: Vec<u8>| -> Value { serde_json::from_slice(&bytes).expect("JSON") };
    insta::assert_json_snapshot!("manifest", shown(manifest(&version)));
    insta::assert_json_snapshot!("config", shown(config(&version)));
    // The digest is for ever: whoever changes the bytes breaks pulls by digest.
    insta::assert_snapshot!(
        "digests",
        format!(
            "{}\n{}",
            Digest::of(&manifest(&version)),
            Digest::of(&config(&version))
        )
    );
    // Every layer is a blob that the store has under that name.
    let layers = shown(manifest(&version))["layers"].clone();
    for (layer, file) in layers
        .as_array()
        .expect("layers")
        .iter()
        .zip(&version.files)
    {
        assert_eq!(layer["digest"], format!("sha256:{}", file.sha256));
        assert_eq!(layer["size"], file.size);
    }
}
