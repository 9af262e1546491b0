//! Verifying a folder by what was found in it.
//!
//! It must never pass a file that the signer did not state, and never pass over one silently: what
//! is ignored is in the report.

use crate::fault::shown;
use crate::files::{Files, files, is_below, is_ignored};
use crate::key::VerifyingKey;
use crate::statement::Statement;
use crate::{SIGNATURE_FILE, bundle, statement};
use pomona_domain::{Code, Digest, Fault};

/// Paths of each kind that a message names.
const NAMED: usize = 3;

/// What a signature that holds says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The name that the signer gave the model. Show it escaped: any key holder could write it.
    pub name: String,
    /// The id of the key: 64 hexadecimal digits.
    pub key_id: String,
    /// How many files were checked.
    pub files: usize,
    /// SHA-256 over the files' digests, the subject of the statement.
    pub root: Digest,
    /// Files that were found and that the signature says nothing of, because the signer ignored them
    /// or git keeps them beside a model; without `model.sig`.
    pub ignored: Vec<String>,
}

/// Checks that `key` signed exactly the files found in a folder.
///
/// `bundle` is the content of `model.sig`. `found` are pairs of path (relative, with `/`) and SHA-256
/// (64 lower-case hexadecimal digits) of every file in the folder and below it, `model.sig` among
/// them or not. The caller refuses symbolic links, as the Python tool does.
///
/// # Errors
/// [`Code::NotASignature`], [`Code::ForeignSignature`] and [`Code::TooLarge`] for a file that is no
/// such signature; [`Code::OtherSigner`] and [`Code::BadSignature`] for one that is not of `key`;
/// [`Code::NotAsSigned`] for files that are wrong, missing or too many.
pub fn verify<P: AsRef<str>, H: AsRef<str>>(
    bundle: &[u8],
    found: &[(P, H)],
    key: &VerifyingKey,
) -> Result<Report, Fault> {
    let found = files(found)?;
    let statement = statement::read(&bundle::open(bundle, key)?)?;
    let ignored = compare(&statement, &found)?;
    Ok(Report {
        name: statement.name,
        key_id: key.id()?,
        files: statement.files.len(),
        root: statement.root,
        ignored,
    })
}

/// The ignored files, if all others are as they were signed.
fn compare(statement: &Statement, found: &Files<'_>) -> Result<Vec<String>, Fault> {
    let mut ignored = Vec::new();
    let mut extra = Vec::new();
    for path in found.keys().copied() {
        if statement.files.contains_key(path) || path == SIGNATURE_FILE {
            continue;
        }
        if is_ignored(path) || statement.ignored.iter().any(|rule| is_below(path, rule)) {
            ignored.push(path.to_owned());
        } else {
            extra.push(path);
        }
    }
    let mut missing = Vec::new();
    let mut changed = Vec::new();
    for (path, digest) in &statement.files {
        match found.get(path.as_str()) {
            None => missing.push(path.as_str()),
            Some(other) if other != digest => changed.push(path.as_str()),
            Some(_) => (),
        }
    }
    let kinds = [
        ("changed", changed),
        ("missing", missing),
        ("not signed", extra),
    ];
    let differences: Vec<String> = kinds.iter().filter_map(difference).collect();
    if differences.is_empty() {
        return Ok(ignored);
    }
    let message = format!(
        "the folder is not as it was signed: {}",
        differences.join("; ")
    );
    Err(Fault::new(Code::NotAsSigned, message)
        .hint("do not use the model; pull it again into an empty folder"))
}

/// `2 files changed: a, b`.
fn difference((what, paths): &(&str, Vec<&str>)) -> Option<String> {
    let count = paths.len();
    if count == 0 {
        return None;
    }
    let files = if count == 1 { "file" } else { "files" };
    let mut named: Vec<String> = paths.iter().take(NAMED).map(|path| shown(path)).collect();
    if count > NAMED {
        named.push("…".to_owned());
    }
    Some(format!("{count} {files} {what}: {}", named.join(", ")))
}
