//! The Sigstore bundle (v0.3) around a statement: its JSON, and the bytes that are signed.
//!
//! It must never hand on a payload before the signature over it was checked.

use crate::fault::{foreign, not_a_signature, shown};
use crate::key::{SigningKey, VerifyingKey};
use crate::statement::{PAYLOAD_TYPE, read_json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pomona_domain::{Code, Fault};
use serde::Deserialize;
use serde_json::json;

/// The largest bundle that is made or read: about 60,000 files.
pub const MAX_BUNDLE_BYTES: usize = 16 * 1024 * 1024;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Digits of a key's id that a message shows.
const SHOWN_ID_DIGITS: usize = 12;

/// Signs a payload and wraps it.
pub fn seal(payload: &[u8], key: &SigningKey) -> Result<Vec<u8>, Fault> {
    let signature = key.sign(&signed_bytes(payload));
    let bundle = json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key.verifying_key().id()?},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": STANDARD.encode(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": STANDARD.encode(signature), "keyid": ""}],
        },
    });
    let bytes = bundle.to_string().into_bytes();
    check_size(
        &bytes,
        "the model has too many files: its signature would have",
    )?;
    Ok(bytes)
}

// The bundle as it is written. Other keys (log entries, which a key file has none of) mean nothing.

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "mediaType")]
    media_type: String,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "verificationMaterial")]
    material: RawMaterial,
    #[serde(rename = "dsseEnvelope")]
    envelope: Option<RawEnvelope>,
}

#[derive(Deserialize)]
struct RawMaterial {
    #[serde(rename = "publicKey")]
    public_key: Option<RawKey>,
}

#[derive(Deserialize)]
struct RawKey {
    hint: Option<String>,
}

#[derive(Deserialize)]
struct RawEnvelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
struct RawSignature {
    sig: String,
}

/// The payload of a bundle that `key` signed.
pub fn open(bundle: &[u8], key: &VerifyingKey) -> Result<Vec<u8>, Fault> {
    check_size(bundle, "the signature has")?;
    let kind: Kind = read_json("the bundle", bundle)?;
    if kind.media_type != MEDIA_TYPE {
        let found = shown(&kind.media_type);
        return Err(foreign(format!(
            "its media type is {found}, not `{MEDIA_TYPE}`"
        )));
    }
    let raw: Raw = read_json("the bundle", bundle)?;
    let Some(signer) = raw.material.public_key else {
        return Err(foreign("it was not made with a key file"));
    };
    check_signer(signer.hint.as_deref(), key)?;
    let Some(envelope) = raw.envelope else {
        return Err(foreign("it has no envelope with a statement"));
    };
    if envelope.payload_type != PAYLOAD_TYPE {
        let found = shown(&envelope.payload_type);
        return Err(foreign(format!(
            "it is over {found}, not over `{PAYLOAD_TYPE}`"
        )));
    }
    let [signature] = <[RawSignature; 1]>::try_from(envelope.signatures)
        .map_err(|all| not_a_signature(format!("it has {} signatures, not one", all.len())))?;
    let payload = decode("the statement", &envelope.payload)?;
    let signature = decode("the signature itself", &signature.sig)?;
    if !key.verifies(&signed_bytes(&payload), &signature) {
        let message = "the signature is not one of this key over what it states";
        return Err(Fault::new(Code::BadSignature, message)
            .hint("do not use the model: somebody changed its `model.sig`, or it was damaged"));
    }
    Ok(payload)
}

/// DSSE's pre-authentication encoding (DSSE v1.0.0, protocol, "PAE"): what is signed.
fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let (type_bytes, payload_bytes) = (PAYLOAD_TYPE.len(), payload.len());
    let mut bytes = format!("DSSEv1 {type_bytes} {PAYLOAD_TYPE} {payload_bytes} ").into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The hint only says sooner and better what the signature would; old tools left it out.
fn check_signer(hint: Option<&str>, key: &VerifyingKey) -> Result<(), Fault> {
    let id = key.id()?;
    let hint = hint.unwrap_or_default();
    if hint.is_empty() || hint == id {
        return Ok(());
    }
    let cut = |id: &str| id.chars().take(SHOWN_ID_DIGITS).collect::<String>();
    let (theirs, ours) = (shown(&cut(hint)), shown(&cut(&id)));
    let message = format!("the model was signed with the key {theirs}, not with {ours}");
    Err(Fault::new(Code::OtherSigner, message).hint(
        "ask who published the model for their public key, and do not take it from the model",
    ))
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, Fault> {
    STANDARD
        .decode(text)
        .map_err(|_| not_a_signature(format!("{what} is not base64")))
}

fn check_size(bundle: &[u8], who: &str) -> Result<(), Fault> {
    if bundle.len() <= MAX_BUNDLE_BYTES {
        return Ok(());
    }
    let (has, most) = (bundle.len(), MAX_BUNDLE_BYTES);
    let message = format!("{who} {has} bytes, more than the {most} that a signature may have");
    Err(Fault::new(Code::TooLarge, message))
}

#[cfg(test)]
mod tests;
