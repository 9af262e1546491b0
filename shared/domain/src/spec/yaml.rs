//! YAML text to a tree of values, with limits. It knows nothing of the experiment file's keys.

use serde_json::Value;
use serde_saphyr::options::NonFiniteFloatPolicy;

use crate::{Code, Fault};

/// The longest experiment file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// Reads YAML 1.2 (core schema: `off` and `no` are texts). Refused: two equal keys in one mapping,
/// numbers that are not finite, several documents, alias bombs, and texts over the limit. `what`
/// says what is read, for the message.
pub fn read(what: &str, text: &str) -> Result<Value, Fault> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Fault::new(
            Code::TooLarge,
            format!(
                "{what} has {} bytes, the limit is {MAX_FILE_BYTES}",
                text.len()
            ),
        ));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let detail = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        Fault::new(
            Code::NotYaml,
            format!("{what} is not YAML: {}", detail.trim()),
        )
    })
}

/// Writes a tree as YAML.
pub fn write(value: &Value) -> Result<String, Fault> {
    serde_saphyr::to_string(value).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("a value cannot be written as YAML: {error}"),
        )
    })
}
