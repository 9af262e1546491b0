//! Typed ids: a prefix that names the kind, and 64 bits in lower-case hexadecimal.
//!
//! An id is given (by the coordinator) or derived (from its owner and a number), never drawn here.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}_` and 16 hexadecimal digits")]
pub struct IdError {
    text: String,
    prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The text before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// The id that belongs to the `number`-th child of `owner`: the same on every replay.
            pub fn derive(owner: &str, number: u64) -> Self {
                let mut hash = Sha256::new();
                hash.update($prefix.as_bytes());
                hash.update(owner.as_bytes());
                hash.update(number.to_be_bytes());
                let bytes = hash.finalize();
                let mut head = [0u8; 8];
                head.copy_from_slice(&bytes[..8]);
                Self(u64::from_be_bytes(head))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{:016x}", $prefix, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError { text: text.to_owned(), prefix: $prefix };
                let digits = text
                    .strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .filter(|digits| digits.len() == 16)
                    .ok_or_else(wrong)?;
                u64::from_str_radix(digits, 16).map(Self).map_err(|_| wrong())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// One spec, one searcher, one objective.
    ExperimentId = "exp";
    /// One point of the space, trained once, perhaps over several leases.
    TrialId = "tri";
    /// Slots given to trials or to a task.
    LeaseId = "lea";
    /// Our agent on a machine.
    WorkerId = "wrk";
    /// Leased work that is not a trial.
    TaskId = "tsk";
    /// An immutable numbered entry of a model.
    VersionId = "ver";
    /// An address that is told what happens.
    HookId = "whk";
    /// One event on its way to one webhook: the `webhook-id` of every attempt.
    DeliveryId = "msg";
}
