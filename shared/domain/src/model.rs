//! The registry: models, immutable versions with lineage, movable aliases.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::digest::DigestError;
use crate::gate::{Compared, GateKind, Promotion};
use crate::{Digest, ExperimentId, Timestamp, TrialId, VersionId};

/// One file of a published folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelFile {
    /// Path in the folder.
    pub path: String,
    /// Digest as 64 hexadecimal digits (the field's name says which).
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

impl ModelFile {
    /// The blob that it is.
    pub fn digest(&self) -> Result<Digest, DigestError> {
        format!("sha256:{}", self.sha256).parse()
    }
}

/// The digest of a version: SHA-256 of the canonical JSON list of its files, sorted by path.
pub fn version_digest(files: &[ModelFile]) -> Digest {
    let mut sorted: Vec<&ModelFile> = files.iter().collect();
    sorted.sort();
    Digest::of(
        serde_json::to_string(&sorted)
            .unwrap_or_default()
            .as_bytes(),
    )
}

/// Where a version comes from (R4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The experiment.
    pub experiment: ExperimentId,
    /// The trial.
    pub trial: TrialId,
    /// The checkpoint's step.
    pub step: u64,
    /// The seed of the experiment.
    pub seed: u64,
    /// The checkpoint's blob.
    pub checkpoint: Digest,
    /// Digest of the data set's manifest.
    pub dataset: Digest,
    /// Digest of the backbone's weights.
    pub backbone: Digest,
    /// Version of the program that trained it.
    pub code: String,
}

/// Where a version comes from that was trained elsewhere and registered by a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Where its files were, as the client says: `runs:/…`, `models:/…`, or an address elsewhere.
    pub source: String,
    /// The run that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The logged model that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// A page about the run, elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_link: Option<String>,
    /// Where its files are kept here: the folder of artifacts they were taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<String>,
}

/// What is said of a version: it may change, and the version is what it is without it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionWords {
    /// The model.
    pub model: String,
    /// The version.
    pub number: u32,
    /// What it is for.
    pub description: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// Where a version comes from (R4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Origin {
    /// A trial of ours.
    Trained(Lineage),
    /// A client's own doing.
    Registered(Registration),
}

/// Who did something, and from where. There are no tokens yet: the name is what the caller claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Who.
    pub name: String,
    /// The interface and the address it came from (`mlflow 127.0.0.1`), or `engine`.
    pub origin: String,
}

impl Actor {
    /// A decision of the coordinator's own.
    pub fn engine() -> Self {
        Self {
            name: "pomona".to_owned(),
            origin: "engine".to_owned(),
        }
    }
}

impl Default for Actor {
    /// What rows say that were written before anybody was asked.
    fn default() -> Self {
        Self {
            name: "unknown".to_owned(),
            origin: "unknown".to_owned(),
        }
    }
}

/// One thing that was done to the registry, or refused. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Actor,
    /// What (`alias.moved`, `version.deleted`).
    pub action: String,
    /// To what (`model/flowers`, `model/flowers/3`).
    pub subject: String,
    /// `done`, or `refused`.
    pub result: String,
    /// A sentence.
    pub detail: String,
}

/// What happens to models and versions besides new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// A version is deleted: its row stays for the history, its files go.
    Version {
        /// The model.
        model: String,
        /// Its number, which is never given again.
        number: u32,
        /// When.
        at: Timestamp,
    },
    /// A model is deleted with all its versions.
    Model {
        /// The model.
        model: String,
        /// When.
        at: Timestamp,
    },
    /// A model has another name; its versions, aliases and history go with it.
    Renamed {
        /// Its name before.
        model: String,
        /// Its name.
        to: String,
        /// When.
        at: Timestamp,
    },
}

/// One gate's outcome, with its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateOutcome {
    /// The gate as the file states it, for people (`test/accuracy at least 0.6`).
    pub gate: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was measured.
    pub measured: Option<f64>,
    /// What was wanted.
    pub wanted: f64,
    /// What it asks for.
    #[serde(default)]
    pub kind: GateKind,
    /// Why it passed or failed, and what would have passed; empty where the numbers say it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The comparison with the champion, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

impl GateOutcome {
    /// How it came out, in a sentence without the gate's name.
    pub fn sentence(&self) -> String {
        let measured = match (self.kind, self.measured) {
            (GateKind::Threshold, Some(value)) => format!("it was measured as {value:.4}"),
            (GateKind::Threshold, None) if self.text.is_empty() => "it was not measured".to_owned(),
            (GateKind::ClassFloor, Some(value)) if self.passed => {
                format!("the lowest class has {value:.4}")
            }
            (_, _) => String::new(),
        };
        let parts = [measured, self.text.clone()];
        let told: Vec<&str> = parts
            .iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        told.join("; ")
    }
}

/// An immutable numbered entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// The model.
    pub model: String,
    /// Its number, from 1.
    pub number: u32,
    /// Digest of the list of files.
    pub digest: Digest,
    /// Its files, sorted by path.
    pub files: Vec<ModelFile>,
    /// Where it comes from.
    #[serde(rename = "lineage")]
    pub origin: Origin,
    /// Test and validation metrics, measured on the exported files.
    pub metrics: BTreeMap<String, f64>,
    /// Gates that were evaluated when it was published.
    pub gates: Vec<GateOutcome>,
    /// The gates that hold when an alias shall move to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// When.
    pub created_at: Timestamp,
}

impl Version {
    /// The trial it comes from, if it was trained here.
    pub fn trained(&self) -> Option<&Lineage> {
        match &self.origin {
            Origin::Trained(lineage) => Some(lineage),
            Origin::Registered(_) => None,
        }
    }

    /// Gives it another model's name, as if it had been that one's from the start; its id follows.
    pub fn rename(&mut self, model: &str) {
        model.clone_into(&mut self.model);
        self.id = VersionId::derive(model, u64::from(self.number));
    }

    /// What the registering client said, if one did.
    pub fn registered(&self) -> Option<&Registration> {
        match &self.origin {
            Origin::Trained(_) => None,
            Origin::Registered(registration) => Some(registration),
        }
    }
}

/// A movable pointer (R2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The model.
    pub model: String,
    /// The alias.
    pub alias: String,
    /// The version's number.
    pub number: u32,
    /// Grows with each move: compare-and-swap.
    pub revision: u64,
    /// It was deleted. Should it come back, its revision grows on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// One move of an alias (R5). Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasMove {
    /// The model.
    pub model: String,
    /// The alias.
    pub alias: String,
    /// From which version (none at first).
    pub from: Option<u32>,
    /// To which version; when it was deleted, the one it pointed to last.
    pub to: u32,
    /// It was deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The alias's revision after the move.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// Why, a sentence.
    pub reason: String,
    /// Who.
    #[serde(default)]
    pub by: Actor,
}
