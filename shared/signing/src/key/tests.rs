use super::{SigningKey, VerifyingKey};
use crate::files::digest;
use pomona_domain::Code;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/fixtures/", $name)).as_slice()
    };
}

#[test]
fn signatures_are_those_of_rfc_6979() {
    // Appendix A.2.5, P-256 with SHA-256.
    let secret = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
    let key = SigningKey::from_random(&digest(secret).unwrap().0).unwrap();
    for (message, r, s) in [
        (
            "sample",
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
            "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        (
            "test",
            "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
            "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
        ),
    ] {
        let der = key.sign(message.as_bytes());
        let signature = p256::ecdsa::Signature::from_der(&der).unwrap();
        let expect = [digest(r).unwrap().0, digest(s).unwrap().0].concat();
        assert_eq!(signature.to_bytes().as_slice(), expect, "{message}");
        assert!(key.verifying_key().verifies(message.as_bytes(), &der));
        assert!(!key.verifying_key().verifies(b"other", &der));
        let longer = [der.as_slice(), &[0]].concat();
        assert!(!key.verifying_key().verifies(message.as_bytes(), &longer));
    }
}

#[test]
fn every_form_of_a_key_is_the_same_key() {
    let public = VerifyingKey::from_pem(fixture!("key.pub")).unwrap();
    for (form, file) in [
        ("PKCS#8", fixture!("key.pem")),
        ("SEC1", fixture!("key.sec1.pem")),
        ("SEC1 after its parameters", fixture!("key.params.pem")),
    ] {
        let key = SigningKey::from_pem(file).expect(form);
        assert_eq!(key.verifying_key(), public, "{form}");
        let crlf = String::from_utf8_lossy(file).replace('\n', "\r\n");
        let key = SigningKey::from_pem(crlf.as_bytes()).expect(form);
        assert_eq!(key.verifying_key(), public, "{form}, lines of Windows");
    }
    let compressed = VerifyingKey::from_pem(fixture!("key.compressed.pub")).unwrap();
    assert_eq!(compressed.id(), public.id());
}

#[test]
fn a_key_is_written_as_openssl_writes_it() {
    let key = SigningKey::from_pem(fixture!("key.pem")).unwrap();
    assert_eq!(key.to_pem().unwrap().as_bytes(), fixture!("key.pem"));
    let public = key.verifying_key().to_pem().unwrap();
    assert_eq!(public.as_bytes(), fixture!("key.pub"));
}

#[test]
fn a_new_key_reads_back() {
    let key = SigningKey::from_random(&[7; 32]).unwrap();
    let again = SigningKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
    assert_eq!(again.verifying_key(), key.verifying_key());
    for no_key in [[0; 32], [0xff; 32]] {
        let fault = SigningKey::from_random(&no_key).unwrap_err();
        assert_eq!(fault.code, Code::BadKey);
    }
}

#[test]
fn a_private_key_is_not_shown() {
    let key = SigningKey::from_pem(fixture!("key.pem")).unwrap();
    let id = key.verifying_key().id().unwrap();
    assert_eq!(
        format!("{key:?}"),
        format!("SigningKey(VerifyingKey({id}))")
    );
}

#[test]
fn files_that_hold_no_private_key() {
    let large = vec![b' '; super::MAX_KEY_FILE_BYTES + 1];
    let cut = &fixture!("key.pem")[..100];
    let broken = String::from_utf8_lossy(fixture!("key.pem")).replace('M', "N");
    for (file, expect) in [
        (fixture!("locked.pem"), "locked with a password"),
        (fixture!("locked.sec1.pem"), "locked with a password"),
        (fixture!("key.pub"), "holds a public key"),
        (fixture!("p384.pem"), "not of P-256"),
        (fixture!("rsa.pem"), "not of P-256"),
        (broken.as_bytes(), "damaged"),
        (cut, "no private key"),
        (b"".as_slice(), "no private key"),
        (b"\xff\xfe".as_slice(), "no text"),
        (&large, "too large"),
    ] {
        let fault = SigningKey::from_pem(file).unwrap_err();
        assert_eq!(fault.code, Code::BadKey);
        assert!(fault.message.contains(expect), "{fault} is not: {expect}");
        assert!(fault.hint.is_some(), "{fault}");
    }
}

#[test]
fn files_that_hold_no_public_key() {
    for (file, expect) in [
        (fixture!("key.pem"), "holds a private key"),
        (fixture!("key.sec1.pem"), "holds a private key"),
        (fixture!("p384.pub"), "not of P-256"),
        (fixture!("rsa.pub"), "not of P-256"),
        (fixture!("plain.sig"), "no public key"),
    ] {
        let fault = VerifyingKey::from_pem(file).unwrap_err();
        assert_eq!(fault.code, Code::BadKey);
        assert!(fault.message.contains(expect), "{fault} is not: {expect}");
        assert!(fault.hint.is_some(), "{fault}");
    }
}
