//! A network as an ONNX model, for runtimes that are not ours: written, read again, and run for a
//! check.
//!
//! The same network gives the same bytes. It must never write a model that refers to another file,
//! or one that a reader would have to trust with more than arithmetic.

mod check;
mod export;
mod graph;
pub mod proto;
mod run;

pub use check::check;

use crate::fault;
use crate::network::Network;
use bytes::Bytes;
use pomona_domain::{Code, Fault};
use prost::Message;
use proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};

/// Name of what is fed: [N, 3, side, side], as `preprocessor_config.json` makes it of pictures.
pub const INPUT: &str = "pixel_values";
/// Name of what is answered: [N, classes]; a softmax makes probabilities of it.
pub const OUTPUT: &str = "logits";
/// Key of the class names, a JSON list by number.
pub const LABELS: &str = "labels";
/// The version of ONNX's operators.
pub const OPSET: i64 = 17;
/// The release of ONNX that brought it; its format has [`IR_VERSION`].
pub const RELEASE: &str = "1.12.0";
/// The version of the format.
pub const IR_VERSION: i64 = 8;
/// What a message of protobuf may have.
const MOST_BYTES: u64 = (1 << 31) - 1;

/// The model of `network` at serving: square images of this side, classes of these names.
pub fn model(network: &Network, side: u32, labels: &[String]) -> Result<ModelProto, Fault> {
    let property = |key: &str, value: String| StringStringEntryProto {
        key: key.to_owned(),
        value,
    };
    let labels = serde_json::to_string(labels).map_err(fault::internal)?;
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: "pomona".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(export::graph(network, side)?),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: vec![
            property("architecture", network.arch().name().to_owned()),
            property(LABELS, labels),
        ],
    })
}

/// Its bytes. `TooLarge` at 2 GiB, which no reader of protobuf takes.
pub fn encode(model: &ModelProto) -> Result<Vec<u8>, Fault> {
    encode_within(model, MOST_BYTES)
}

fn encode_within(model: &ModelProto, most: u64) -> Result<Vec<u8>, Fault> {
    let size = model.encoded_len();
    if size as u64 > most {
        let message =
            format!("the network has {size} bytes as an ONNX model, protobuf's limit is {most}");
        return Err(Fault::new(Code::TooLarge, message)
            .hint("use a smaller `transfer.head.hidden` or a smaller backbone"));
    }
    Ok(model.encode_to_vec())
}

/// The model of some bytes.
pub fn decode(bytes: Bytes) -> Result<ModelProto, Fault> {
    ModelProto::decode(bytes)
        .map_err(|error| Fault::new(Code::LocalFile, format!("this is no ONNX model: {error}")))
}

#[cfg(test)]
mod tests;
