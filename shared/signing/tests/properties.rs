//! What holds for every folder and every change to it.

use pomona_domain::{Code, Digest};
use pomona_signing::{SigningKey, sign, verify};
use proptest::prelude::*;
use std::collections::BTreeSet;

type Folder = Vec<(String, String)>;

fn key() -> SigningKey {
    SigningKey::from_random(&[7; 32]).expect("a key")
}

fn folders() -> impl Strategy<Value = Folder> {
    let part = "[a-z.é☃ \"\\\\-]{1,4}".prop_filter("a part", |part| part != "." && part != "..");
    let path = proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    proptest::collection::btree_set(path, 1..9).prop_map(|paths: BTreeSet<String>| {
        let file = |path: String| (path.clone(), Digest::of(path.as_bytes()).hex());
        paths.into_iter().map(file).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_signed_folder_verifies_in_any_order(folder in folders()) {
        let bundle = sign(&folder, "m", &key()).unwrap();
        let mut backwards = folder.clone();
        backwards.reverse();
        prop_assert_eq!(&sign(&backwards, "m", &key()).unwrap(), &bundle);
        let report = verify(&bundle, &backwards, &key().verifying_key()).unwrap();
        prop_assert_eq!(report.files, folder.len());
    }

    #[test]
    fn any_change_of_the_folder_is_seen(folder in folders(), at: prop::sample::Index) {
        let bundle = sign(&folder, "m", &key()).unwrap();
        let at = at.index(folder.len());
        let refused = |found: &Folder| {
            verify(&bundle, found, &key().verifying_key()).map_err(|fault| fault.code)
                == Err(Code::NotAsSigned)
        };
        let mut found = folder.clone();
        found[at].1 = Digest::of(b"changed").hex();
        prop_assert!(refused(&found));
        found[at].0.push_str("-renamed");
        prop_assert!(refused(&found));
        found.remove(at);
        prop_assert!(refused(&found));
        let mut found = folder.clone();
        found.push(("more/of it".to_owned(), Digest::of(b"").hex()));
        prop_assert!(refused(&found));
    }

    #[test]
    fn a_changed_byte_says_nothing_else(folder in folders(), at: prop::sample::Index, byte: u8) {
        let mut bundle = sign(&folder, "m", &key()).unwrap();
        let report = verify(&bundle, &folder, &key().verifying_key()).unwrap();
        let at = at.index(bundle.len());
        bundle[at] = byte;
        // A key that means nothing may be renamed; what is believed never changes.
        if let Ok(other) = verify(&bundle, &folder, &key().verifying_key()) {
            prop_assert_eq!(other, report);
        }
    }

    #[test]
    fn no_bytes_break_it(bytes: Vec<u8>) {
        prop_assert!(verify(&bytes, &[("a", "")][..0], &key().verifying_key()).is_err());
    }
}

#[test]
fn the_same_model_signs_to_the_same_bytes_for_ever() {
    let folder = [
        ("b/c", Digest::of(b"b/c").hex()),
        ("a", Digest::of(b"a").hex()),
    ];
    let bundle = sign(&folder, "flowers", &key()).expect("a signature");
    assert_eq!(
        Digest::of(&bundle).hex(),
        "f0f9970033c165d87bdb58cfc0e1b00fd4a81ad34644569ee0c70c0294e82a8f",
        "{}",
        String::from_utf8_lossy(&bundle)
    );
}

#[test]
fn what_cannot_be_signed() {
    let hex = Digest::of(b"").hex();
    let one = |path: &'static str| vec![(path, hex.as_str())];
    for (files, name, expect) in [
        (one("a"), "", Code::BadName),
        (one("a"), "a\nb", Code::BadName),
        (one("../a"), "m", Code::BadName),
        (one("model.sig"), "m", Code::BadRequest),
        (one(".git/HEAD"), "m", Code::BadRequest),
        (Vec::new(), "m", Code::BadRequest),
        (vec![("a", "0")], "m", Code::BadRequest),
    ] {
        let fault = sign(&files, name, &key()).expect_err(name);
        assert_eq!(fault.code, expect, "{files:?}");
    }
}
