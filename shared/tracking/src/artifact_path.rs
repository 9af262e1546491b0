//! Artifact paths: what a client may name below a run's or a model's root.
//!
//! A path is refused when it, or anything that decoding its percent signs once more gives, could lead
//! out of the root or hide a separator. It must never be repaired: a path that is taken is stored as
//! it came.

use crate::Refusal;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The longest path, in bytes: the longest key of an S3 object.
pub const MAX_PATH_BYTES: usize = 1_024;
/// The longest name of a file or folder, in bytes: what file systems take.
pub const MAX_NAME_BYTES: usize = 255;
/// How often a path may turn out to be encoded; deeper nesting is an attack.
const MAX_DECODINGS: usize = 10;

/// The path of a file: names joined by `/`, as it came from HTTP, decoded once.
pub fn file(path: &str) -> Result<&str, Refusal> {
    if is_safe(path) {
        return Ok(path);
    }
    Err(Refusal::invalid("Invalid path"))
}

/// The path of a folder to list: no path is the root, and a slash at the end is no matter.
pub fn folder(path: &str) -> Result<&str, Refusal> {
    if path.is_empty() {
        return Ok(path);
    }
    file(path.strip_suffix('/').unwrap_or(path))
}

/// A file's path below a folder's, both taken already.
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// The folder of artifacts in which the files of versions appear, read-only.
pub const VERSIONS: &str = "pomona-models";

/// The address under which the files of a version are served to MLflow's clients.
pub fn of_version(model: &str, number: u32) -> String {
    format!("mlflow-artifacts:/{VERSIONS}/{model}/{number}")
}

/// What is wrong with the source of a version, in words that follow it: it leads up or cuts itself
/// off, however it is encoded.
pub fn wrong_source(source: &str) -> Option<&'static str> {
    let leads_up = |text: &str| text.split(['/', '\\', '?', '#']).any(|part| part == "..");
    match read(source, |text| !leads_up(text) && !text.contains('\0')) {
        Reading::Fit => None,
        Reading::Unfit => Some("A source must not contain '..' or NUL."),
        Reading::Endless => Some("It is encoded too often."),
    }
}

fn is_safe(path: &str) -> bool {
    if path.len() > MAX_PATH_BYTES {
        return false;
    }
    let depth = path.split('/').count();
    let fits = |plain: &str| is_plain(plain) && plain.split('/').count() == depth;
    read(path, fits) == Reading::Fit
}

/// What became of a text that was decoded as often as it may be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It fits, and so does all that decoding it gives.
    Fit,
    /// It does not, as it is or decoded.
    Unfit,
    /// There was no end of it.
    Endless,
}

/// Reads a text and all that decoding its percent signs once more gives.
fn read(text: &str, fits: impl Fn(&str) -> bool) -> Reading {
    let mut plain = Cow::Borrowed(text);
    for _ in 0..MAX_DECODINGS {
        if !fits(&plain) {
            return Reading::Unfit;
        }
        let decoded = percent_decode_str(&plain).decode_utf8_lossy().into_owned();
        if decoded == *plain {
            return Reading::Fit;
        }
        plain = Cow::Owned(decoded);
    }
    Reading::Endless
}

fn is_plain(path: &str) -> bool {
    let mut chars = path.chars();
    let has_drive =
        chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':');
    // MLflow refuses `#`, which its URLs would lose.
    let is_fit = |c: char| !c.is_control() && !matches!(c, '\\' | '#');
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME_BYTES;
    !has_drive && path.chars().all(is_fit) && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_taken_as_they_come() {
        let paths = [
            "a",
            "model/MLmodel",
            "plots/été – 花.png",
            "a b/c+d=e&f.txt",
            "100%.txt",
            "50%20off.txt",
            "..a/b..",
            "a...b",
            ".hidden/..x",
            "model:v1",
            "~/x",
            "%zz",
            "a%",
        ];
        for path in paths {
            assert_eq!(file(path), Ok(path));
        }
    }

    #[test]
    fn tricks_are_refused() {
        let long_name = "n".repeat(256);
        let long_path = ["a"; 600].join("/");
        let nested = format!("%{}2e%2e/x", "25".repeat(20));
        let paths = [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "./a",
            "a/.",
            "a//b",
            "a/",
            "%2e%2e/x",
            "%2E%2E%2Fx",
            "%252e%252e%252fx",
            "a/%2e%2e/b",
            "a/.%2e/b",
            "a%2fb",
            "%2fetc/passwd",
            "a%00b",
            "a\0b",
            "a\nb",
            "a%0ab",
            "a\u{7f}b",
            "a\\b",
            "..\\x",
            "a%5cb",
            "%255c",
            "C:",
            "c:/x",
            "C:x",
            "%43:x",
            "c%3a/x",
            "//server/share",
            "file:///etc/passwd",
            "a#b",
            "a%23b",
            &long_name,
            &long_path,
            &nested,
        ];
        for path in paths {
            assert_eq!(
                file(path),
                Err(Refusal::invalid("Invalid path")),
                "{path:?}"
            );
        }
    }

    #[test]
    fn a_folder_may_be_the_root() {
        assert_eq!(folder(""), Ok(""));
        assert_eq!(folder("a/"), Ok("a"));
        for path in ["/", "a//", "..", ".", "/a"] {
            assert!(folder(path).is_err(), "{path}");
        }
        assert_eq!(join("", "a"), "a");
        assert_eq!(join("a/b", "c"), "a/b/c");
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_stays_below_the_root(path in "[a./%25eEfFcC\\\\:\u{0}é]{0,24}") {
            if let Ok(path) = file(&path) {
                let mut decoded = path.to_owned();
                for _ in 0..12 {
                    let parts: Vec<&str> = decoded.split(['/', '\\']).collect();
                    proptest::prop_assert!(!parts.contains(&"..") && !decoded.starts_with('/'));
                    decoded = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
                }
            }
        }
    }
}
