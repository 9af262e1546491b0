//! Keys of signatures: ECDSA on the curve P-256, read from PEM and written as PEM.
//!
//! It must never show a private key but by [`SigningKey::to_pem`], nor draw randomness.

use crate::fault::{bad_key, internal};
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{self, DerSignature};
use p256::elliptic_curve::zeroize::Zeroizing;
use p256::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    LineEnding,
};
use pomona_domain::{Digest, Fault};
use std::fmt;

/// The largest file that is looked at for a key.
pub const MAX_KEY_FILE_BYTES: usize = 64 * 1024;

/// A text that is wiped from memory when it is dropped.
pub type SecretText = Zeroizing<String>;

const MAKE_ONE: &str = "make a key with `openssl ecparam -name prime256v1 -genkey -noout -out KEY`";
const PUBLIC_PART: &str = "`openssl pkey -in KEY -pubout -out KEY.pub` writes a key's public part";

/// A private key, which signs.
pub struct SigningKey(ecdsa::SigningKey);

impl SigningKey {
    /// Makes a key of 32 random bytes: the caller draws them from the operating system, once.
    ///
    /// One draw in four thousand million is no key (FIPS 186-5, A.2.2): the caller draws again.
    pub fn from_random(bytes: &[u8; 32]) -> Result<Self, Fault> {
        ecdsa::SigningKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| bad_key("the 32 bytes drawn are no key", "draw 32 other bytes"))
    }

    /// Reads a private key as `openssl` writes them: `PRIVATE KEY` (PKCS#8) or `EC PRIVATE KEY`
    /// (SEC1). Other blocks of the file, as `EC PARAMETERS`, are passed over.
    pub fn from_pem(file: &[u8]) -> Result<Self, Fault> {
        let text = text(file)?;
        let key = if let Some(pem) = block(text, "PRIVATE KEY") {
            p256::SecretKey::from_pkcs8_pem(pem).ok()
        } else if let Some(pem) = block(text, "EC PRIVATE KEY") {
            // Here a password is a header of the block.
            if pem.contains("ENCRYPTED") {
                return Err(locked());
            }
            p256::SecretKey::from_sec1_pem(pem).ok()
        } else if block(text, "ENCRYPTED PRIVATE KEY").is_some() {
            return Err(locked());
        } else if block(text, "PUBLIC KEY").is_some() {
            let message = "the file holds a public key, which cannot sign";
            return Err(bad_key(message, "give the private key that belongs to it"));
        } else {
            return Err(bad_key("the file holds no private key in PEM", MAKE_ONE));
        };
        key.map(|key| Self(ecdsa::SigningKey::from(&key)))
            .ok_or_else(|| bad_key("the private key is damaged, or not of P-256", MAKE_ONE))
    }

    /// The key as a file: `PRIVATE KEY` (PKCS#8), not encrypted. Only its owner may read it.
    pub fn to_pem(&self) -> Result<SecretText, Fault> {
        self.0
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| internal("writing a private key"))
    }

    /// The public key that verifies what this one signs.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(*self.0.verifying_key())
    }

    /// ECDSA with SHA-256 and the nonce of RFC 6979, in DER: the same bytes have one signature.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.verifying_key())
    }
}

/// A public key, which verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey(ecdsa::VerifyingKey);

impl VerifyingKey {
    /// Reads a public key: `PUBLIC KEY` (SPKI), as `openssl pkey -pubout` writes it.
    pub fn from_pem(file: &[u8]) -> Result<Self, Fault> {
        let text = text(file)?;
        let Some(pem) = block(text, "PUBLIC KEY") else {
            let message = if text.contains("PRIVATE KEY-----") {
                "the file holds a private key; a public one is asked for"
            } else {
                "the file holds no public key in PEM"
            };
            return Err(bad_key(message, PUBLIC_PART));
        };
        ecdsa::VerifyingKey::from_public_key_pem(pem)
            .map(Self)
            .map_err(|_| bad_key("the public key is damaged, or not of P-256", PUBLIC_PART))
    }

    /// The key as a file: `PUBLIC KEY` (SPKI).
    pub fn to_pem(&self) -> Result<String, Fault> {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .map_err(|_| internal("writing a public key"))
    }

    /// The key's id, as a bundle's `hint` has it: 64 hexadecimal digits, the SHA-256 of the PEM.
    pub fn id(&self) -> Result<String, Fault> {
        Ok(Digest::of(self.to_pem()?.as_bytes()).hex())
    }

    /// Whether `signature` (DER) is this key's of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        DerSignature::from_bytes(signature)
            .is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id().unwrap_or_default())
    }
}

fn text(file: &[u8]) -> Result<&str, Fault> {
    if file.len() > MAX_KEY_FILE_BYTES {
        return Err(bad_key("the file is too large for a key", MAKE_ONE));
    }
    std::str::from_utf8(file).map_err(|_| {
        bad_key(
            "the file is no text, so no key in PEM",
            "`openssl pkey -inform DER -in FILE -out KEY` writes a private key in DER as PEM",
        )
    })
}

fn locked() -> Fault {
    bad_key(
        "the private key is locked with a password",
        "`openssl pkey -in KEY -out UNLOCKED` unlocks a copy; let nobody else read it",
    )
}

/// The first block of a PEM file with this label, its first and last line included.
fn block<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let from = text.find(&begin)?;
    let to = from + text[from..].find(&end)? + end.len();
    Some(&text[from..to])
}

#[cfg(test)]
mod tests;
