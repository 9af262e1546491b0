//! One point of a space, in canonical form: paths of the experiment file, sorted, with scalars.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::Digest;

/// Path of the experiment file → scalar (number, string or bool).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hparams(pub BTreeMap<String, Value>);

impl Hparams {
    /// The canonical text: sorted keys, no spaces, shortest numbers that read back the same.
    pub fn canonical(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The digest of the canonical text: two points are the same exactly if it is.
    pub fn digest(&self) -> Digest {
        Digest::of(self.canonical().as_bytes())
    }
}
