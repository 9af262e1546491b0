//! What a pulled folder's digest should be.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A version's digest, computed anew from files.
pub fn folder_digest(folder: &Path) -> String {
    let mut files: Vec<(String, String, u64)> = fs::read_dir(folder)
        .expect("the pulled folder")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("a pulled file");
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, hex(&Sha256::digest(&bytes)), bytes.len() as u64)
        })
        // It is about the version, and not of it.
        .filter(|(name, ..)| name != "model.sig")
        .collect();
    files.sort();
    let list: Vec<Value> = files
        .iter()
        .map(|(path, sha256, size)| json!({"path": path, "sha256": sha256, "size": size}))
        .collect();
    format!(
        "sha256:{}",
        hex(&Sha256::digest(
            serde_json::to_string(&list).expect("JSON").as_bytes()
        ))
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
