use super::{read, read_json, write};
use crate::files::files;
use pomona_domain::{Code, Digest};
use serde_json::{Value, json};

/// The statement of two files, edited.
fn edited(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (a, b) = (Digest::of(b"a").hex(), Digest::of(b"b").hex());
    let listed = [("a", a), ("b/c", b)];
    let mut value: Value = serde_json::from_slice(&write(&files(&listed).unwrap(), "m")).unwrap();
    edit(&mut value);
    value.to_string().into_bytes()
}

fn text() -> String {
    String::from_utf8(edited(|_| ())).unwrap()
}

#[test]
fn a_statement_reads_back() {
    let statement = read(&edited(|_| ())).unwrap();
    assert_eq!(statement.name, "m");
    let files: Vec<&String> = statement.files.keys().collect();
    assert_eq!(files, ["a", "b/c"]);
    let ignored = [
        "model.sig",
        ".git",
        ".gitattributes",
        ".github",
        ".gitignore",
    ];
    assert_eq!(statement.ignored, ignored);
}

#[test]
fn keys_that_mean_nothing_are_passed_over() {
    let payload = edited(|value| {
        value["more"] = json!({"a": [1.5, null]});
        value["predicate"]["card"] = json!("README.md");
        value["predicate"]["serialization"]["shard_size"] = json!(8);
        value["predicate"]["resources"][0]["size"] = json!(1);
    });
    assert_eq!(read(&payload).unwrap().files.len(), 2);
}

#[test]
fn statements_of_another_kind() {
    let no_edit = |pointer: &str, to: Value| {
        edited(|value| *value.pointer_mut(pointer).expect("a place") = to)
    };
    for (pointer, to, expect) in [
        (
            "/_type",
            "https://in-toto.io/Statement/v0.1",
            "its statement is",
        ),
        (
            "/predicateType",
            "https://model_signing/Digests/v0.1",
            "its predicate is",
        ),
        (
            "/predicateType",
            "https://slsa.dev/provenance/v1",
            "its predicate is",
        ),
        ("/predicate/serialization/method", "shards", "over `shards`"),
        (
            "/predicate/serialization/hash_type",
            "blake2b",
            "are `blake2b`",
        ),
        ("/predicate/resources/1/algorithm", "md5", "are `md5`"),
    ] {
        let fault = read(&no_edit(pointer, json!(to))).unwrap_err();
        assert_eq!(fault.code, Code::ForeignSignature, "{pointer}");
        assert!(fault.message.contains(expect), "{fault} is not: {expect}");
    }
}

#[test]
fn statements_that_contradict_themselves() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 12] = [
        (|v| v["subject"] = json!([]), "0 subjects"),
        (
            |v| v["subject"] = json!([v["subject"][0], v["subject"][0]]),
            "2 subjects",
        ),
        (
            |v| v["subject"][0]["digest"]["sha256"] = json!("00"),
            "files do not have the digest",
        ),
        (|v| v["predicate"]["resources"] = json!([]), "no file"),
        (
            |v| v["predicate"]["resources"][1]["name"] = json!("a"),
            "`a` is listed twice",
        ),
        (
            |v| v["predicate"]["resources"][1]["name"] = json!("."),
            "`.` is not the path",
        ),
        (
            |v| v["predicate"]["resources"][1]["name"] = json!("../c"),
            "`../c` is not the path",
        ),
        (
            |v| v["predicate"]["resources"][1]["name"] = json!("/c"),
            "`/c` is not the path",
        ),
        (
            |v| v["predicate"]["resources"][1]["digest"] = json!("00"),
            "`b/c` has no SHA-256",
        ),
        (
            |v| v["predicate"]["serialization"]["ignore_paths"] = json!(["."]),
            "`a` is both signed and ignored",
        ),
        (
            |v| v["predicate"]["serialization"]["ignore_paths"] = json!(["b"]),
            "`b/c` is both signed and ignored",
        ),
        // The order counts for the digest over all files.
        (
            |v| {
                let all = v["predicate"]["resources"].as_array_mut();
                all.unwrap().reverse();
            },
            "files do not have the digest",
        ),
    ];
    for (edit, expect) in cases {
        let fault = read(&edited(edit)).unwrap_err();
        assert_eq!(fault.code, Code::NotASignature, "{expect}");
        assert!(fault.message.contains(expect), "{fault} is not: {expect}");
    }
}

#[test]
fn statements_in_broken_json() {
    let text = text();
    for broken in [
        String::new(),
        "null".to_owned(),
        text[..text.len() - 1].to_owned(),
        format!("{text}{text}"),
        format!("{text}x"),
        text.replacen("\"_type\"", "\"_type\":\"x\",\"_type\"", 1),
        text.replacen("\"name\":\"a\"", "\"name\":\"a\",\"name\":\"a\"", 1),
        text.replacen("\"name\":\"a\"", "\"name\":\"\\ud800\"", 1),
        text.replacen("\"name\":\"a\"", "\"name\":7", 1),
        text.replacen("\"hash_type\":\"sha256\",", "", 1),
        text.replacen("[\"model.sig\"", "[7,\"model.sig\"", 1),
    ] {
        let fault = read(broken.as_bytes()).unwrap_err();
        assert_eq!(fault.code, Code::NotASignature, "{broken}");
    }
}

#[test]
fn a_fault_repeats_nothing_of_what_is_read() {
    let fault = read_json::<Vec<u8>>("the bundle", b"[1,\"\x1b[2Jsecret\"]").unwrap_err();
    assert_eq!(
        fault.message,
        "the signature cannot be read: the bundle is no JSON at line 1, column 5"
    );
}
