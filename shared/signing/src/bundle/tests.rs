use super::{MAX_BUNDLE_BYTES, open, seal, signed_bytes};
use crate::key::SigningKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pomona_domain::Code;
use serde_json::{Value, json};

const PAYLOAD: &[u8] = b"{\"any\": \"thing\"}";

fn key() -> SigningKey {
    SigningKey::from_random(&[7; 32]).unwrap()
}

fn edited(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(&seal(PAYLOAD, &key()).unwrap()).unwrap();
    edit(&mut value);
    value.to_string().into_bytes()
}

fn code(bundle: &[u8]) -> Code {
    open(bundle, &key().verifying_key()).unwrap_err().code
}

#[test]
fn what_is_signed_is_the_encoding_of_dsse() {
    let expect = b"DSSEv1 28 application/vnd.in-toto+json 16 {\"any\": \"thing\"}";
    assert_eq!(signed_bytes(PAYLOAD), expect);
}

#[test]
fn a_bundle_opens_with_its_key() {
    let public = key().verifying_key();
    for bundle in [
        edited(|_| ()),
        edited(|v| v["verificationMaterial"]["publicKey"] = json!({})),
        edited(|v| v["verificationMaterial"]["publicKey"] = json!({"hint": null})),
        edited(|v| v["verificationMaterial"]["tlogEntries"] = json!([{"logIndex": "7"}])),
        edited(|v| v["later"] = json!(true)),
    ] {
        assert_eq!(open(&bundle, &public).unwrap(), PAYLOAD);
    }
}

#[test]
fn bundles_that_are_refused() {
    type Edit = fn(&mut Value);
    let media = "application/vnd.dev.sigstore.bundle+json;version=0.2";
    let old = edited(|v| v["mediaType"] = json!(media));
    assert_eq!(code(&old), Code::ForeignSignature);
    let cases: [(Edit, Code); 15] = [
        (|v| v["mediaType"] = json!(7), Code::NotASignature),
        (
            |v| v["verificationMaterial"] = json!({"certificate": {}}),
            Code::ForeignSignature,
        ),
        (
            |v| v["verificationMaterial"] = json!(null),
            Code::NotASignature,
        ),
        (
            |v| v["verificationMaterial"]["publicKey"]["hint"] = json!("00"),
            Code::OtherSigner,
        ),
        (|v| v["dsseEnvelope"] = json!(null), Code::ForeignSignature),
        (
            |v| {
                v.as_object_mut().unwrap().remove("dsseEnvelope");
                v["messageSignature"] = json!({"signature": ""});
            },
            Code::ForeignSignature,
        ),
        (
            |v| v["dsseEnvelope"]["payloadType"] = json!("text/plain"),
            Code::ForeignSignature,
        ),
        (
            |v| v["dsseEnvelope"]["payload"] = json!("%%%%"),
            Code::NotASignature,
        ),
        (
            |v| v["dsseEnvelope"]["payload"] = json!("e30="),
            Code::BadSignature,
        ),
        (
            |v| v["dsseEnvelope"]["signatures"] = json!([]),
            Code::NotASignature,
        ),
        (
            |v| {
                let one = v["dsseEnvelope"]["signatures"][0].clone();
                v["dsseEnvelope"]["signatures"] = json!([one, one]);
            },
            Code::NotASignature,
        ),
        (
            |v| v["dsseEnvelope"]["signatures"][0]["sig"] = json!("x"),
            Code::NotASignature,
        ),
        (
            |v| v["dsseEnvelope"]["signatures"][0]["sig"] = json!(""),
            Code::BadSignature,
        ),
        // DER of r = 0, s = 0.
        (
            |v| v["dsseEnvelope"]["signatures"][0]["sig"] = json!("MAYCAQACAQA="),
            Code::BadSignature,
        ),
        (|v| *v = json!([v]), Code::NotASignature),
    ];
    for (at, (edit, expect)) in cases.into_iter().enumerate() {
        assert_eq!(code(&edited(edit)), expect, "case {at}");
    }
}

#[test]
fn another_keys_signature_is_no_signature() {
    let other = SigningKey::from_random(&[8; 32]).unwrap();
    let forged = STANDARD.encode(other.sign(&signed_bytes(PAYLOAD)));
    let bundle = edited(|v| v["dsseEnvelope"]["signatures"][0]["sig"] = json!(forged));
    assert_eq!(code(&bundle), Code::BadSignature);
    assert_eq!(code(&seal(PAYLOAD, &other).unwrap()), Code::OtherSigner);
}

#[test]
fn hostile_json() {
    let good = String::from_utf8(edited(|_| ())).unwrap();
    let twice = good.replacen("\"payload\":", "\"payload\":\"e30=\",\"payload\":", 1);
    let deep = "[".repeat(1_000_000);
    let deep_inside = good.replacen('{', &format!("{{\"x\":{deep}{},", "]".repeat(1_000_000)), 1);
    let deep_known = good.replacen("\"signatures\":", &format!("\"signatures\":{deep}"), 1);
    for (bundle, expect) in [
        (format!("{good}x"), Code::NotASignature),
        (format!("{good}{good}"), Code::NotASignature),
        (format!("\u{feff}{good}"), Code::NotASignature),
        (good[..good.len() - 2].to_owned(), Code::NotASignature),
        (String::new(), Code::NotASignature),
        (twice, Code::NotASignature),
        (deep, Code::NotASignature),
        (deep_known, Code::NotASignature),
        (" ".repeat(MAX_BUNDLE_BYTES + 1), Code::TooLarge),
    ] {
        let start: String = bundle.chars().take(40).collect();
        assert_eq!(code(bundle.as_bytes()), expect, "{start}");
    }
    // What means nothing is passed over at any depth, without a stack.
    let opened = open(deep_inside.as_bytes(), &key().verifying_key());
    assert_eq!(opened.unwrap(), PAYLOAD);
    assert_eq!(code(b"\xff\xff"), Code::NotASignature);
}

#[test]
fn a_signature_that_nobody_would_read_is_not_made() {
    let fault = seal(&vec![b' '; MAX_BUNDLE_BYTES], &key()).unwrap_err();
    assert_eq!(fault.code, Code::TooLarge);
}
