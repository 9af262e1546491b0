//! Signing a folder by what is known of its files. It must never need their bytes: the store knows
//! every digest already.

use crate::fault::shown;
use crate::files::{files, is_ignored};
use crate::key::SigningKey;
use crate::{bundle, statement};
use pomona_domain::{Code, Fault};

/// The bytes of `model.sig` for a folder with these files.
///
/// `files` are pairs of path (relative, with `/`) and SHA-256 (64 lower-case hexadecimal digits) in
/// any order; `name` is the model's, for people. `model.sig` itself and what git keeps beside a model
/// (`.git`, `.github`, `.gitattributes`, `.gitignore`) are left out, as the Python tool does: it
/// would not look at them.
///
/// The same files, name and key give the same bytes (RFC 6979).
///
/// # Errors
/// [`Code::BadName`] for a path or a name that cannot be signed, [`Code::BadRequest`] for a wrong
/// digest, a path listed twice, or nothing to sign, [`Code::TooLarge`] for too many files.
pub fn sign<P: AsRef<str>, H: AsRef<str>>(
    files: &[(P, H)],
    name: &str,
    key: &SigningKey,
) -> Result<Vec<u8>, Fault> {
    if name.is_empty() || name.chars().any(char::is_control) {
        let message = format!("{} cannot be a model's name in a signature", shown(name));
        return Err(Fault::new(Code::BadName, message));
    }
    let mut files = self::files(files)?;
    files.retain(|path, _| !is_ignored(path));
    if files.is_empty() {
        return Err(Fault::new(Code::BadRequest, "there is no file to sign"));
    }
    bundle::seal(&statement::write(&files, name), key)
}
