//! `MLmodel`: what MLflow's client reads to load the folder as its flavours `onnx` and
//! `python_function`, without a line of ours.
//!
//! It has no time and no Python version: nothing but the lineage makes it, so its bytes repeat, and
//! no Python made the model.

use super::folder::{Config, ONNX};
use crate::{fault, onnx};
use pomona_domain::model::Lineage;
use pomona_domain::{Digest, Fault};
use serde::Serialize;
use serde_json::json;

/// The client's version whose fields these are.
pub const CLIENT: &str = "3.18.0";
/// ONNX Runtime's processors. The figures were measured on a CPU; whoever has another says so when
/// opening `model.onnx`.
const PROVIDERS: [&str; 1] = ["CPUExecutionProvider"];

#[derive(Serialize)]
struct MlModel {
    flavors: Flavors,
    mlflow_version: &'static str,
    model_uuid: String,
    signature: Signature,
}

#[derive(Serialize)]
struct Flavors {
    onnx: Onnx,
    python_function: PythonFunction,
}

#[derive(Serialize)]
struct Onnx {
    data: &'static str,
    #[serde(rename = "onnx_version")]
    release: &'static str,
    providers: [&'static str; 1],
}

#[derive(Serialize)]
struct PythonFunction {
    data: &'static str,
    loader_module: &'static str,
}

/// Each a JSON list of tensors, as text.
#[derive(Serialize)]
struct Signature {
    inputs: String,
    outputs: String,
}

/// The file's text.
pub fn render(config: &Config, lineage: &Lineage) -> Result<String, Fault> {
    let side = i64::from(config.image_size);
    let file = MlModel {
        flavors: Flavors {
            onnx: Onnx {
                data: ONNX,
                release: onnx::RELEASE,
                providers: PROVIDERS,
            },
            python_function: PythonFunction {
                data: ONNX,
                loader_module: "mlflow.onnx",
            },
        },
        mlflow_version: CLIENT,
        model_uuid: uuid(lineage)?,
        signature: Signature {
            inputs: tensor(onnx::INPUT, &[-1, 3, side, side]),
            outputs: tensor(onnx::OUTPUT, &[-1, i64::from(config.num_labels)]),
        },
    };
    serde_saphyr::to_string(&file).map_err(fault::internal)
}

fn tensor(name: &str, shape: &[i64]) -> String {
    let spec = json!({"dtype": "float32", "shape": shape});
    json!([{"name": name, "type": "tensor", "tensor-spec": spec}]).to_string()
}

/// A UUID of version 8 (RFC 9562) from the lineage, as the client writes its own: without hyphens.
fn uuid(lineage: &Lineage) -> Result<String, Fault> {
    let text = serde_json::to_vec(lineage).map_err(fault::internal)?;
    let Digest(hash) = Digest::of(&text);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id[6] = 0x80 | id[6] & 0x0f;
    id[8] = 0x80 | id[8] & 0x3f;
    Ok(format!("{:032x}", u128::from_be_bytes(id)))
}

#[cfg(test)]
mod tests;
