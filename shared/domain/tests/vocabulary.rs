//! Ids, digests, moments and faults: how they are written, and what is refused.

use pomona_domain::model::{ModelFile, version_digest};
use pomona_domain::{Code, Digest, ExperimentId, Fault, Timestamp, TrialId, error::Blame, name};

#[test]
fn an_id_reads_back_and_says_its_kind() {
    let id = ExperimentId(0x1f);
    assert_eq!(id.to_string(), "exp_000000000000001f");
    assert_eq!(id.to_string().parse(), Ok(id));
    for wrong in [
        "",
        "exp_",
        "tri_000000000000001f",
        "exp_1f",
        "exp_zzzzzzzzzzzzzzzz",
    ] {
        assert!(wrong.parse::<ExperimentId>().is_err(), "{wrong}");
    }
}

#[test]
fn children_have_their_own_ids_the_same_every_time() {
    let owner = ExperimentId(7).to_string();
    assert_eq!(TrialId::derive(&owner, 1), TrialId::derive(&owner, 1));
    assert_ne!(TrialId::derive(&owner, 1), TrialId::derive(&owner, 2));
}

#[test]
fn a_digest_reads_back_and_nothing_else_is_one() {
    let digest = Digest::of(b"pomona");
    assert_eq!(digest.to_string().parse(), Ok(digest));
    let upper = digest.to_string().to_uppercase();
    for wrong in ["sha256:", "md5:00", &upper, &digest.hex()] {
        assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
    }
}

#[test]
fn the_digest_of_a_version_does_not_depend_on_the_order_of_its_files() {
    let file = |path: &str| ModelFile {
        path: path.to_owned(),
        sha256: Digest::of(path.as_bytes()).hex(),
        size: 1,
    };
    let digest = version_digest(&[file("a"), file("b")]);
    assert_eq!(digest, version_digest(&[file("b"), file("a")]));
    assert_ne!(digest, version_digest(&[file("a")]));
}

#[test]
fn moments_are_written_in_utc_to_the_millisecond() {
    let at = Timestamp(1_700_000_000_123);
    let text = serde_json::to_string(&at).expect("a text");
    assert_eq!(text, r#""2023-11-14T22:13:20.123Z""#);
    assert_eq!(
        serde_json::from_str::<Timestamp>(&text).expect("a moment"),
        at
    );
    assert_eq!(Timestamp(i64::MAX).plus_ms(1), Timestamp(i64::MAX));
}

#[test]
fn a_fault_travels_with_code_and_hint() {
    let fault = Fault::new(Code::MissingKey, "dataset: missing key").hint("write `dataset: NAME`");
    let text = serde_json::to_string(&fault).expect("a text");
    assert_eq!(
        text,
        r#"{"code":"E0203","message":"dataset: missing key","hint":"write `dataset: NAME`"}"#
    );
    assert_eq!(
        serde_json::from_str::<Fault>(&text).expect("a fault"),
        fault
    );
}

#[test]
fn blame_goes_with_the_status() {
    for code in Code::ALL {
        let ours = code.http_status() >= 500;
        assert_eq!(code.blame() == Blame::Ours, ours, "{code}");
        assert!((400..600).contains(&code.http_status()), "{code}");
    }
}

#[test]
fn names() {
    for good in ["a", "tux", "efficientnet-lite0", "v1.2_b", "0a"] {
        assert_eq!(name::check("name", good), Ok(()), "{good}");
    }
    let long = "a".repeat(65);
    for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a@1", "..", &long] {
        let fault = name::check("name", bad).expect_err(bad);
        assert_eq!(fault.code, Code::BadName, "{bad}");
    }
    assert!(name::check_alias("alias", "3").is_err());
    assert_eq!(
        name::dataset_reference("d", "tux@3"),
        Ok(("tux".to_owned(), Some(3)))
    );
    assert_eq!(
        name::dataset_reference("d", "tux"),
        Ok(("tux".to_owned(), None))
    );
    for bad in ["tux@", "tux@0", "tux@+1", "tux@1@2", "@1"] {
        assert!(name::dataset_reference("d", bad).is_err(), "{bad}");
    }
}
