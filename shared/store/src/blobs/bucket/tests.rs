//! What is said of the server's errors.

use super::*;

fn generic(text: &str) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source: text.into(),
    }
}

#[test]
fn what_a_server_writes_is_not_repeated() {
    let body = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error>\
                <Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId>\
                <StringToSign>secret things</StringToSign></Error>";
    let said = why(&generic(body));
    let expect = "Server returned non-2xx status code: 403 Forbidden (SignatureDoesNotMatch)";
    assert_eq!(said, expect);
    assert_eq!(why(&generic("Connection refused")), "Connection refused");
    assert_eq!(why(&generic(&"x".repeat(999))).len(), 200);
    assert_eq!(code("<Code>a b</Code>"), None, "not a name");
}

#[test]
fn a_bucket_that_is_not_there_is_no_missing_object() {
    let missing = |text: &str| object_store::Error::NotFound {
        path: "x".to_owned(),
        source: text.into(),
    };
    assert!(is_missing(&missing("404: <Code>NoSuchKey</Code>")));
    assert!(!is_missing(&missing("404: <Code>NoSuchBucket</Code>")));
    assert!(!is_missing(&generic("404")));
}
