//! Signatures of what is delivered: HMAC-SHA256 over id, time and the very bytes that are sent, as
//! Standard Webhooks 1 says (`webhook-signature`) and as MLflow's server does (`X-MLflow-Signature`).
//!
//! The two differ in what the key is: the bytes behind `whsec_` in base64, or the secret's own letters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pomona_domain::hook::Flavour;
use pomona_domain::{Code, Fault};
use sha2::Sha256;

/// What a secret begins with.
pub const PREFIX: &str = "whsec_";
/// Bytes of a key, at least and at most.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Most bytes of a secret of MLflow's clients.
const MAX_SECRET: usize = 1000;

/// Refuses what does not sign.
pub fn check(flavour: Flavour, secret: &str) -> Result<(), Fault> {
    match flavour {
        Flavour::Pomona => key(secret).map(|_| ()),
        Flavour::Mlflow if secret.len() > MAX_SECRET => {
            let text = format!("secret: it is longer than {MAX_SECRET} bytes");
            Err(Fault::new(Code::BadSecret, text))
        }
        Flavour::Mlflow => Ok(()),
    }
}

/// The key in a secret of ours.
fn key(secret: &str) -> Result<Vec<u8>, Fault> {
    let bad = |why: &str| {
        Fault::new(Code::BadSecret, format!("secret: {why}"))
            .hint("`pomona webhook add` draws one; it is `whsec_` and the base64 of 24 to 64 bytes")
    };
    let text = secret.strip_prefix(PREFIX);
    let text = text.ok_or_else(|| bad("it does not begin with `whsec_`"))?;
    let key = STANDARD.decode(text);
    let key = key.map_err(|_| bad("what follows `whsec_` is not base64"))?;
    if KEY_BYTES.contains(&key.len()) {
        Ok(key)
    } else {
        Err(bad("it does not hold 24 to 64 bytes"))
    }
}

/// `v1,<base64>`; nothing when no secret signs.
pub fn sign(flavour: Flavour, secret: &str, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    if secret.is_empty() {
        return None;
    }
    let key = match flavour {
        Flavour::Pomona => key(secret).ok()?,
        Flavour::Mlflow => secret.as_bytes().to_owned(),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!(
        "v1,{}",
        STANDARD.encode(mac.finalize().into_bytes())
    ))
}

/// The headers of one attempt.
pub fn headers(
    flavour: Flavour,
    secret: &str,
    id: &str,
    seconds: i64,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let [name, time, signature] = match flavour {
        Flavour::Pomona => ["webhook-id", "webhook-timestamp", "webhook-signature"],
        Flavour::Mlflow => [
            "x-mlflow-delivery-id",
            "x-mlflow-timestamp",
            "x-mlflow-signature",
        ],
    };
    let mut headers = vec![(name, id.to_owned()), (time, seconds.to_string())];
    headers.extend(sign(flavour, secret, id, seconds, body).map(|text| (signature, text)));
    headers
}

#[cfg(test)]
mod tests;
