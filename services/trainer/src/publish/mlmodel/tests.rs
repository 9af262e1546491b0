use super::*;
use crate::publish::folder::Source;
use pomona_domain::spec::Head;
use pomona_domain::{ExperimentId, TrialId};
use std::collections::BTreeMap;

fn config() -> Config {
    Config {
        library_name: "pomona".into(),
        architecture: "test-resnet".into(),
        backbone: Source {
            name: "test".into(),
            sha256: String::new(),
        },
        head: Head::Linear,
        image_size: 32,
        frozen_depth: 0,
        frozen_through: None,
        num_labels: 3,
        id2label: BTreeMap::new(),
        label2id: BTreeMap::new(),
        torch_dtype: "float32".into(),
    }
}

fn lineage(step: u64) -> Lineage {
    Lineage {
        experiment: ExperimentId(2),
        trial: TrialId(1),
        step,
        seed: 7,
        checkpoint: Digest::of(b"checkpoint"),
        dataset: Digest::of(b"data set"),
        backbone: Digest::of(b"backbone"),
        code: "0.1.0".into(),
    }
}

#[test]
fn the_file_is_what_the_client_reads() {
    let text = render(&config(), &lineage(15)).unwrap();
    let id = uuid(&lineage(15)).unwrap();
    let told = |name: &str, shape: &str| {
        format!(
            r#"[{{"name":"{name}","type":"tensor","tensor-spec":{{"dtype":"float32","shape":{shape}}}}}]"#
        )
    };
    // Text in double quotes reads alike in YAML and in JSON.
    let quoted = |text: String| serde_json::to_string(&text).unwrap();
    let inputs = quoted(told("pixel_values", "[-1,3,32,32]"));
    let outputs = quoted(told("logits", "[-1,3]"));
    assert_eq!(
        text,
        format!(
            "flavors:
  onnx:
    data: model.onnx
    onnx_version: \"1.12.0\"
    providers:
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    loader_module: mlflow.onnx
mlflow_version: \"3.18.0\"
model_uuid: {id}
signature:
  inputs: {inputs}
  outputs: {outputs}
"
        )
    );
}

#[test]
fn a_lineage_has_one_uuid_and_another_lineage_another() {
    let [one, again, other] = [15, 15, 16].map(|step| uuid(&lineage(step)).unwrap());
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert_eq!((one.len(), &one[12..13]), (32, "8"));
    assert!("89ab".contains(&one[16..17]), "{one}");
}
