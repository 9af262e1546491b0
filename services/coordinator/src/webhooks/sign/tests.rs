//! Against the vectors that Standard Webhooks' libraries publish, and MLflow's own function.

use super::*;

/// Of the libraries of Standard Webhooks (`libraries/*/tests`, `test_sign_function`).
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const BODY: &[u8] = br#"{"test": 2432232314}"#;

#[test]
fn the_published_vector_of_standard_webhooks() {
    let signature = sign(Flavour::Pomona, SECRET, ID, 1_614_265_330, BODY);
    assert_eq!(
        signature.as_deref(),
        Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
    );
}

#[test]
fn mlflows_signature_is_keyed_by_the_letters_of_the_secret() {
    // mlflow.webhooks.delivery._generate_hmac_signature("a secret", "id-1", "1700000000", '{"a": 1}')
    let signature = sign(
        Flavour::Mlflow,
        "a secret",
        "id-1",
        1_700_000_000,
        br#"{"a": 1}"#,
    );
    assert_eq!(
        signature.as_deref(),
        Some("v1,GqYq3JZ/rBaC4KDD6a2o61RxI7z2Y+t9JEKlDQWNJVk=")
    );
}

#[test]
fn every_part_of_the_message_is_signed() {
    let of = |id: &str, seconds: i64, body: &[u8]| sign(Flavour::Pomona, SECRET, id, seconds, body);
    let signed = of(ID, 1, BODY);
    assert_ne!(signed, of("msg_other", 1, BODY));
    assert_ne!(signed, of(ID, 2, BODY));
    assert_ne!(signed, of(ID, 1, br#"{"test":2432232314}"#));
}

#[test]
fn headers_have_the_names_of_their_flavour() {
    let names = |flavour, secret| {
        let headers = headers(flavour, secret, ID, 1, BODY);
        headers
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        names(Flavour::Pomona, SECRET),
        "webhook-id webhook-timestamp webhook-signature"
    );
    assert_eq!(
        names(Flavour::Mlflow, "s"),
        "x-mlflow-delivery-id x-mlflow-timestamp x-mlflow-signature"
    );
    assert_eq!(
        names(Flavour::Mlflow, ""),
        "x-mlflow-delivery-id x-mlflow-timestamp"
    );
}

#[test]
fn a_secret_that_does_not_sign_is_refused_and_not_repeated() {
    for secret in [
        "hush",
        "whsec_hush!",
        "whsec_aHVzaA==",
        &format!("whsec_{}", STANDARD.encode([7; 65])),
        "",
    ] {
        let fault = check(Flavour::Pomona, secret).unwrap_err();
        assert_eq!(fault.code, Code::BadSecret, "{secret}");
        assert!(
            secret.is_empty() || !fault.message.contains(secret),
            "{fault:?}"
        );
    }
    assert!(check(Flavour::Pomona, SECRET).is_ok());
    assert!(check(Flavour::Mlflow, "anything").is_ok());
    assert!(check(Flavour::Mlflow, &"x".repeat(1001)).is_err());
}
