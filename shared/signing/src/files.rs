//! The files of a folder as pairs of path and digest: what may be one, and in which order the
//! statement has them. It must never change a path: two tools must see the same bytes.

use crate::fault::shown;
use pomona_domain::{Code, Digest, Fault};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The longest path of a file, in bytes of UTF-8.
pub const MAX_PATH_BYTES: usize = 4096;

/// Paths (relative, `/` between the parts) and digests.
pub type Files<'a> = BTreeMap<&'a str, Digest>;

/// Checks a caller's list: each path once and as it would be found, each digest 64 lower-case digits.
pub fn files<P: AsRef<str>, H: AsRef<str>>(listed: &[(P, H)]) -> Result<Files<'_>, Fault> {
    let mut files = Files::new();
    for (path, hex) in listed {
        let (path, hex) = (path.as_ref(), hex.as_ref());
        if !is_plain(path) {
            let message = format!("{} is not the path of a file in a folder", shown(path));
            return Err(Fault::new(Code::BadName, message)
                .hint("paths are relative, with `/` and without `.` and `..`"));
        }
        let Some(digest) = digest(hex) else {
            let message = format!("{} has no SHA-256, but {}", shown(path), shown(hex));
            return Err(Fault::new(Code::BadRequest, message)
                .hint("a digest is written as 64 lower-case hexadecimal digits"));
        };
        if files.insert(path, digest).is_some() {
            let message = format!("{} is listed twice", shown(path));
            return Err(Fault::new(Code::BadRequest, message));
        }
    }
    Ok(files)
}

/// The digest that is written as 64 lower-case hexadecimal digits.
pub fn digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

/// Whether a path is relative, leads to a file below the folder, and has one spelling only.
pub fn is_plain(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    path.len() <= MAX_PATH_BYTES && path.split('/').all(plain)
}

/// The order of a statement: by the parts of the paths, so `a/b` comes before `a-b`.
pub fn by_parts(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

/// SHA-256 over the digests in the order of the statement: the model's own digest.
pub fn root<'a>(digests: impl Iterator<Item = &'a Digest>) -> Digest {
    let all: Vec<u8> = digests.flat_map(|digest| digest.0).collect();
    Digest::of(&all)
}

/// What a tool for git leaves beside a model. It is ignored, as the Python tool does by default.
const GIT_PATHS: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// What a statement made here says it ignores.
pub fn ignored_when_signing() -> impl Iterator<Item = &'static str> {
    std::iter::once(crate::SIGNATURE_FILE).chain(GIT_PATHS)
}

/// Whether a file is left out of every statement: the signature itself, or git's.
pub fn is_ignored(path: &str) -> bool {
    path == crate::SIGNATURE_FILE || GIT_PATHS.iter().any(|rule| is_below(path, rule))
}

/// Whether `path` is `rule`, or lies in the folder `rule`; `.` is the whole folder. A rule may be
/// spelled `./a//b/`; one that leads out of the folder fits nothing.
pub fn is_below(path: &str, rule: &str) -> bool {
    if rule.is_empty() || rule.starts_with('/') {
        return false;
    }
    let mut parts = path.split('/');
    let mut rule = rule.split('/').filter(|part| !matches!(*part, "" | "."));
    rule.all(|part| parts.next() == Some(part))
}

#[cfg(test)]
mod tests {
    use super::{by_parts, digest, files, is_below, is_ignored, is_plain};
    use pomona_domain::{Code, Digest};

    #[test]
    fn paths_that_may_be_signed() {
        for good in [
            "a",
            "a/b",
            ".hidden",
            "déjà/☃",
            "a b",
            "a\\b",
            "..a",
            "a/.b",
        ] {
            assert!(is_plain(good), "{good}");
        }
        let long = "a".repeat(4097);
        for bad in [
            "", ".", "..", "/a", "a/", "a//b", "./a", "a/../b", "a\0", &long,
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn parts_are_compared_and_not_whole_paths() {
        let mut paths = ["sub.x", "a.txt", "a-b", "sub/x", "a/1", "é", "z"];
        paths.sort_by(|a, b| by_parts(a, b));
        assert_eq!(paths, ["a/1", "a-b", "a.txt", "sub/x", "sub.x", "z", "é"]);
    }

    #[test]
    fn rules_of_what_is_ignored() {
        for (path, rule, expect) in [
            ("a", "a", true),
            ("a/b", "a", true),
            ("ab", "a", false),
            ("a", "a/b", false),
            ("a/b", "./a//b/", true),
            ("a", ".", true),
            ("a", "", false),
            ("a", "/a", false),
            ("a", "../a", false),
        ] {
            assert_eq!(is_below(path, rule), expect, "{path} below {rule}");
        }
        for (path, expect) in [
            ("model.sig", true),
            ("model.sig/weights", false),
            ("sub/model.sig", false),
            (".git/HEAD", true),
            (".gitignore", true),
            ("sub/.gitignore", false),
        ] {
            assert_eq!(is_ignored(path), expect, "{path}");
        }
    }

    #[test]
    fn a_callers_list_is_checked() {
        let good = Digest::of(b"a").hex();
        let upper = good.to_uppercase();
        for (list, expect) in [
            (vec![("../a", good.as_str())], Code::BadName),
            (vec![("a", upper.as_str())], Code::BadRequest),
            (vec![("a", "")], Code::BadRequest),
            (vec![("a", &good), ("a", &good)], Code::BadRequest),
        ] {
            assert_eq!(files(&list).unwrap_err().code, expect, "{list:?}");
        }
        assert_eq!(digest(&good), Some(Digest::of(b"a")));
    }
}
