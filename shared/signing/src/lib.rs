//! Signatures of models: OpenSSF Model Signing 1.0 with a key file (`model.sig`).
//!
//! A signature is a Sigstore bundle (JSON) around a DSSE envelope around an in-toto statement that
//! lists a folder's files with their SHA-256. The published tool `model-signing` (Python) verifies
//! what is signed here, and the other way round.
//!
//! It must never read or write a file, make a key out of anything but the bytes it is given, show a
//! private key, or believe a statement whose signature it has not checked.

mod bundle;
mod fault;
mod files;
mod key;
mod sign;
mod statement;
mod verify;

pub use bundle::MAX_BUNDLE_BYTES;
pub use files::MAX_PATH_BYTES;
pub use key::{MAX_KEY_FILE_BYTES, SecretText, SigningKey, VerifyingKey};
pub use sign::sign;
pub use verify::{Report, verify};

/// The name of a folder's signature. It is the one file that can never be signed.
pub const SIGNATURE_FILE: &str = "model.sig";
