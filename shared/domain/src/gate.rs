//! Gates: what a promotion needs, what was measured for it, and what was decided.
//!
//! The words only: deciding is the scheduler's (`pomona_scheduler::gates`). Nobody is identified
//! here: who approves, and in which role, is what the caller says.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::model::GateOutcome;
use crate::spec::Gate;
use crate::{Code, Digest, Fault, Timestamp};

/// What a gate asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// A metric within bounds.
    #[default]
    Threshold,
    /// A metric of every class at least so high.
    ClassFloor,
    /// No worse than the champion beyond a margin.
    NoWorseThan,
    /// Better than the champion.
    BetterThan,
    /// People said yes.
    Approvals,
}

impl GateKind {
    /// Its name in metrics and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Threshold => "threshold",
            Self::ClassFloor => "class_floor",
            Self::NoWorseThan => "no_worse_than",
            Self::BetterThan => "better_than",
            Self::Approvals => "approvals",
        }
    }
}

/// In which role somebody approves. A role is claimed by the caller until there are tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Submits experiments.
    Submitter,
    /// Promotes and pulls.
    Deployer,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Submitter, Self::Deployer, Self::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }

    /// The role of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Somebody's yes to a version. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The model.
    pub model: String,
    /// The version's number.
    pub number: u32,
    /// In which role, as the caller says.
    pub role: Role,
    /// Who, as the caller says.
    pub actor: String,
    /// When.
    pub at: Timestamp,
    /// Why, a sentence; may be empty.
    pub reason: String,
}

/// The longest name of who approves, in bytes.
pub const MAX_ACTOR_BYTES: usize = 200;
/// The longest reason of an approval, in bytes.
pub const MAX_REASON_BYTES: usize = 2_000;

impl Approval {
    /// Refuses one that says nobody, or too much.
    pub fn check(&self) -> Result<(), Fault> {
        let bad = |message: String, hint: &str| {
            Err(Fault::new(Code::BadRequest, message).hint(hint.to_owned()))
        };
        if self.actor.trim().is_empty() || self.actor.chars().any(char::is_control) {
            return bad(
                "actor: an approval must say who approves".to_owned(),
                "write a name, without control characters",
            );
        }
        for (what, length, most) in [
            ("actor", self.actor.len(), MAX_ACTOR_BYTES),
            ("reason", self.reason.len(), MAX_REASON_BYTES),
        ] {
            if length > most {
                return bad(
                    format!("{what}: {length} bytes are more than {most}"),
                    "shorten it",
                );
            }
        }
        if self.reason.contains('\0') {
            return bad("reason: it contains a NUL".to_owned(), "take it out");
        }
        Ok(())
    }
}

/// The gates under which a version may become what an alias points to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatePolicy {
    /// The alias.
    pub alias: String,
    /// Its gates.
    pub gates: Vec<Gate>,
}

/// What a version's publication left for later decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// The gates that hold for it.
    pub policy: GatePolicy,
    /// The use of the test split that its publication was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_use: Option<Usage>,
}

/// How often a test split has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The split.
    pub split: Digest,
    /// This decision's place among all on the split, from 1.
    pub place: u32,
    /// How many are good practice.
    pub most: u32,
}

impl Usage {
    /// Whether the split was used for more decisions than it should be.
    pub fn is_too_much(&self) -> bool {
        self.place > self.most
    }

    /// What to say of a split that was used too often.
    pub fn warning(&self) -> Option<String> {
        self.is_too_much().then(|| {
            format!(
                "this test split was used for {} promotion decisions, more than {}: what it says is \
                 worn out, set fresh test data aside",
                self.place, self.most
            )
        })
    }
}

/// One use of a test split: a candidate judged against what the alias pointed to. The same pair
/// asked again is the same question, and no further use. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestUse {
    /// The split.
    pub split: Digest,
    /// Its place among the split's uses, from 1.
    pub place: u32,
    /// The model.
    pub model: String,
    /// The candidate's number.
    pub number: u32,
    /// The champion's number, if there was one.
    pub champion: Option<u32>,
    /// When.
    pub at: Timestamp,
}

/// What a version said of each test sample, in the order of the samples' pixel digests, so that two
/// versions measured on one split are paired by place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestOutcomes {
    /// Which samples with which labels ([`crate::dataset::Manifest::test_split`]).
    pub split: Digest,
    /// Class names.
    pub classes: Vec<String>,
    /// True class of each sample.
    pub labels: Vec<u32>,
    /// Predicted class.
    pub predicted: Vec<u32>,
    /// Probability of the predicted class.
    pub confidence: Vec<f32>,
    /// Probability of the true class.
    pub truth: Vec<f32>,
}

impl TestOutcomes {
    /// Whether it is what it says: as many of each, classes that exist, probabilities.
    pub fn is_sound(&self) -> bool {
        let samples = self.labels.len();
        let class = |class: &u32| (*class as usize) < self.classes.len();
        let share = |value: &f32| (0.0..=1.0001).contains(value);
        [
            self.predicted.len(),
            self.confidence.len(),
            self.truth.len(),
        ] == [samples; 3]
            && self.labels.iter().chain(&self.predicted).all(class)
            && self.confidence.iter().chain(&self.truth).all(share)
    }
}

/// The outcomes of one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionOutcomes {
    /// The model.
    pub model: String,
    /// The version's number.
    pub number: u32,
    /// What it said.
    pub outcomes: TestOutcomes,
}

/// The numbers of a comparison with the champion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The champion's number.
    pub champion: u32,
    /// How the candidate is better in the metric (negative: worse), on the same samples.
    pub difference: f64,
    /// The lower confidence bound of the difference, where the method has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// The one-sided p-value, where the method has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// The confidence that the gate asks for.
    pub confidence: f64,
    /// The same after the correction for the uses of the test split.
    pub corrected: f64,
    /// Uses of the test split, this one included.
    pub uses: u32,
    /// Samples.
    pub samples: u32,
    /// Samples that only the candidate has right.
    pub wins: u32,
    /// Samples that only the champion has right.
    pub losses: u32,
    /// How it was computed (`exact McNemar`, `Tango's score bound`, `paired bootstrap`).
    pub method: String,
}

/// A decision about an alias, kept whether it moved or not. Append-only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The model.
    pub model: String,
    /// The version's number.
    pub number: u32,
    /// The alias, if one was to be moved.
    pub alias: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Whether the version may be what the alias points to.
    pub allowed: bool,
    /// What the alias pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<u32>,
    /// The gates that were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<GatePolicy>,
    /// Each gate with its numbers.
    pub gates: Vec<GateOutcome>,
    /// The use of the test split that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_use: Option<Usage>,
    /// The decision in a sentence.
    pub text: String,
}

/// What gates leave behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateFact {
    /// What a version said of each test sample.
    Outcomes(Box<VersionOutcomes>),
    /// A use of a test split.
    Used(TestUse),
    /// Somebody's yes.
    Approved(Approval),
    /// A decision.
    Judged(Box<Judgement>),
}
