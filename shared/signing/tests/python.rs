//! What the published Python tool signed. `fixtures/make.sh` made the signatures; a file's content is
//! its own path.

use pomona_domain::{Code, Digest, Fault};
use pomona_signing::{Report, SigningKey, VerifyingKey, sign, verify};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name)).as_slice()
    };
}

/// The folder of `files.txt`, with `more` and without `less`.
fn folder(more: &[&str], less: &[&str]) -> Vec<(String, String)> {
    let listed = include_str!("fixtures/files.txt").lines();
    listed
        .chain(more.iter().copied())
        .filter(|path| !less.contains(path))
        .map(|path| (path.to_owned(), Digest::of(path.as_bytes()).hex()))
        .collect()
}

fn check(bundle: &[u8], found: &[(String, String)]) -> Result<Report, Fault> {
    let key = VerifyingKey::from_pem(fixture!("key.pub")).expect("a key");
    verify(bundle, found, &key)
}

#[test]
fn what_it_signed_verifies() {
    let plain = fixture!("plain.sig");
    let git = [".gitattributes", ".git/HEAD"];
    let cached = ["cache/1", "cache/2", "cache/more/3", "notes.txt"];
    for (name, bundle, more, ignored) in [
        ("plain", plain, &[][..], &[][..]),
        ("with its signature", plain, &["model.sig"], &[]),
        ("SEC1 key", fixture!("plain.sec1.sig"), &[], &[]),
        (
            "after a git clone",
            plain,
            &git,
            &[".git/HEAD", ".gitattributes"],
        ),
        (
            "in a git clone",
            fixture!("git.sig"),
            &git,
            &[".git/HEAD", ".gitattributes"],
        ),
        ("git's files signed", fixture!("git-signed.sig"), &git, &[]),
        ("ignoring", fixture!("ignoring.sig"), &cached, &cached),
    ] {
        let report = check(bundle, &folder(more, &[])).expect(name);
        assert_eq!(report.name, "flowers", "{name}");
        assert_eq!(report.ignored, ignored, "{name}");
    }
}

#[test]
fn the_report_says_what_was_signed() {
    let report = check(fixture!("plain.sig"), &folder(&[], &[])).expect("a signature");
    let id = Digest::of(fixture!("key.pub")).hex();
    assert_eq!((report.key_id, report.files), (id, 11));
}

#[test]
fn what_is_signed_here_states_the_same() {
    let key = SigningKey::from_pem(fixture!("key.pem")).expect("a key");
    let ours = sign(&folder(&[], &[]), "flowers", &key).expect("a signature");
    let ours = check(&ours, &folder(&[], &[])).expect("ours");
    let theirs = check(fixture!("plain.sig"), &folder(&[], &[])).expect("theirs");
    assert_eq!(ours, theirs);
}

#[test]
fn files_that_are_not_as_signed() {
    let plain = fixture!("plain.sig");
    let changed = |path: &str| {
        let mut found = folder(&[], &[]);
        let at = found
            .iter()
            .position(|(other, _)| other == path)
            .expect("a file");
        found[at].1 = Digest::of(b"other").hex();
        found
    };
    for (bundle, found, expect) in [
        (plain, changed("a/1"), "1 file changed: `a/1`"),
        (
            plain,
            changed("naïve/模型/權重.bin"),
            "1 file changed: `naïve/模型/權重.bin`",
        ),
        (plain, folder(&[], &["sub.x"]), "1 file missing: `sub.x`"),
        (
            plain,
            folder(&["x/model.sig"], &[]),
            "1 file not signed: `x/model.sig`",
        ),
        (
            plain,
            folder(&["1", "2", "3", "4"], &["sub/x", "a/1"]),
            "2 files missing: `a/1`, `sub/x`; 4 files not signed: `1`, `2`, `3`, …",
        ),
        (
            fixture!("git-signed.sig"),
            folder(&[".gitattributes"], &[]),
            "missing: `.git/HEAD`",
        ),
        (plain, folder(&["cache/1"], &[]), "not signed: `cache/1`"),
        (plain, Vec::new(), "11 files missing: "),
    ] {
        let fault = check(bundle, &found).expect_err(expect);
        assert_eq!(fault.code, Code::NotAsSigned);
        assert!(fault.message.contains(expect), "{fault} is not: {expect}");
        assert!(fault.hint.is_some());
    }
}

#[test]
fn signatures_of_other_kinds() {
    for (name, bundle, expect) in [
        ("shards", fixture!("shards.sig"), Code::ForeignSignature),
        ("blake2", fixture!("blake2.sig"), Code::ForeignSignature),
        ("blake3", fixture!("blake3.sig"), Code::ForeignSignature),
        ("P-384", fixture!("p384.sig"), Code::OtherSigner),
        ("one file", fixture!("one-file.sig"), Code::NotASignature),
        (
            "an empty folder",
            fixture!("empty.sig"),
            Code::NotASignature,
        ),
    ] {
        let fault = check(bundle, &folder(&[], &[])).expect_err(name);
        assert_eq!(fault.code, expect, "{name}: {fault}");
    }
}

#[test]
fn another_key() {
    let other = VerifyingKey::from_pem(fixture!("other.pub")).expect("a key");
    let fault = verify(fixture!("plain.sig"), &folder(&[], &[]), &other).expect_err("another");
    assert_eq!(fault.code, Code::OtherSigner);
}
