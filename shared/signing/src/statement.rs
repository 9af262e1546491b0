//! The in-toto statement of OpenSSF Model Signing 1.0: which files a model has, and their digests.
//!
//! It must never be read before the signature around it was checked, and then it trusts nothing
//! either: a text that two tools could understand differently is refused.

use crate::fault::{foreign, not_a_signature, shown};
use crate::files::{Files, by_parts, digest, ignored_when_signing, is_below, is_plain, root};
use pomona_domain::{Digest, Fault};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::json;
use std::collections::BTreeMap;

/// The envelope's `payloadType`.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
const METHOD: &str = "files";
const ALGORITHM: &str = "sha256";

/// Writes the statement of `files`, always the same bytes for the same files.
pub fn write(files: &Files<'_>, name: &str) -> Vec<u8> {
    let mut sorted: Vec<(&&str, &Digest)> = files.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| by_parts(a, b));
    let resource = |(path, digest): &(&&str, &Digest)| json!({"name": path, "algorithm": ALGORITHM, "digest": digest.hex()});
    let resources: Vec<_> = sorted.iter().map(resource).collect();
    let root = root(sorted.iter().map(|(_, digest)| *digest));
    let ignored: Vec<_> = ignored_when_signing().collect();
    json!({
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {ALGORITHM: root.hex()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": METHOD,
                "hash_type": ALGORITHM,
                "allow_symlinks": false,
                "ignore_paths": ignored,
            },
            "resources": resources,
        },
    })
    .to_string()
    .into_bytes()
}

/// What a signer stated of a folder.
#[derive(Debug)]
pub struct Statement {
    /// The model's name, for people: nothing depends on it.
    pub name: String,
    /// The files that belong to the model.
    pub files: BTreeMap<String, Digest>,
    /// SHA-256 over their digests.
    pub root: Digest,
    /// What the signer left out, and a verifier leaves out too.
    pub ignored: Vec<String>,
}

// The statement as it is written. Keys that are not named here mean nothing (the format wants a
// verifier to ignore them); a named one that comes twice is refused by serde.

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "_type")]
    statement: String,
    #[serde(rename = "predicateType")]
    predicate: String,
}

#[derive(Deserialize)]
struct Raw {
    subject: Vec<RawSubject>,
    predicate: RawPredicate,
}

#[derive(Deserialize)]
struct RawSubject {
    name: String,
    digest: RawDigest,
}

#[derive(Deserialize)]
struct RawDigest {
    sha256: String,
}

#[derive(Deserialize)]
struct RawPredicate {
    serialization: RawSerialization,
    resources: Vec<RawResource>,
}

#[derive(Deserialize)]
struct RawSerialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Deserialize)]
struct RawResource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Reads a statement whose signature was checked.
pub fn read(payload: &[u8]) -> Result<Statement, Fault> {
    let kind: Kind = read_json("the statement", payload)?;
    for (what, found, wanted) in [
        ("statement", kind.statement, STATEMENT_TYPE),
        ("predicate", kind.predicate, PREDICATE_TYPE),
    ] {
        if found != wanted {
            let why = format!("its {what} is {}, not `{wanted}`", shown(&found));
            return Err(foreign(why));
        }
    }
    let raw: Raw = read_json("the statement", payload)?;
    let serialization = raw.predicate.serialization;
    if serialization.method != METHOD {
        let method = shown(&serialization.method);
        return Err(foreign(format!("it is over {method}, not over `{METHOD}`")));
    }
    check_algorithm(&serialization.hash_type)?;
    let [subject] = <[RawSubject; 1]>::try_from(raw.subject)
        .map_err(|subjects| not_a_signature(format!("it has {} subjects", subjects.len())))?;
    let (files, root) = resources(raw.predicate.resources, &serialization.ignore_paths)?;
    if digest(&subject.digest.sha256) != Some(root) {
        return Err(not_a_signature(
            "its files do not have the digest that it states of them together",
        ));
    }
    Ok(Statement {
        name: subject.name,
        files,
        root,
        ignored: serialization.ignore_paths,
    })
}

fn check_algorithm(name: &str) -> Result<(), Fault> {
    if name == ALGORITHM {
        return Ok(());
    }
    let why = format!("its digests are {}, not `{ALGORITHM}`", shown(name));
    Err(foreign(why))
}

/// The files of a statement, and the digest over them in the order in which they are written.
fn resources(
    listed: Vec<RawResource>,
    ignored: &[String],
) -> Result<(BTreeMap<String, Digest>, Digest), Fault> {
    let mut files = BTreeMap::new();
    let mut digests = Vec::with_capacity(listed.len());
    for resource in listed {
        check_algorithm(&resource.algorithm)?;
        let name = resource.name;
        let refused = |why: &str| Err(not_a_signature(format!("{} {why}", shown(&name))));
        let Some(digest) = digest(&resource.digest) else {
            return refused("has no SHA-256");
        };
        if !is_plain(&name) {
            return refused("is not the path of a file in a folder");
        }
        if ignored.iter().any(|rule| is_below(&name, rule)) {
            return refused("is both signed and ignored");
        }
        if files.contains_key(&name) {
            return refused("is listed twice");
        }
        digests.push(digest);
        files.insert(name, digest);
    }
    if files.is_empty() {
        return Err(not_a_signature("it lists no file"));
    }
    Ok((files, root(digests.iter())))
}

/// Reads JSON, all of it. The fault says where it is wrong, and repeats nothing of it.
pub fn read_json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        let why = match error.classify() {
            Category::Io | Category::Syntax => "is no JSON",
            Category::Eof => "ends too early",
            Category::Data => "lacks a key, or has one twice or with a wrong value,",
        };
        let (line, column) = (error.line(), error.column());
        not_a_signature(format!("{what} {why} at line {line}, column {column}"))
    })
}

#[cfg(test)]
mod tests;
