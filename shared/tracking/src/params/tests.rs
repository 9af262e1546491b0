use super::*;

fn body(text: &str) -> Body<'static> {
    Body::parse(text.as_bytes()).unwrap()
}

fn says<T: std::fmt::Debug>(refused: Result<T, Refusal>) -> String {
    refused.unwrap_err().message
}

#[test]
fn a_required_text() {
    assert_eq!(body(r#"{"name": "a"}"#).required_str("name"), Ok("a"));
    for absent in [
        "",
        "  ",
        "null",
        "{}",
        r#"{"name": null}"#,
        r#"{"name": ""}"#,
        r#""{}""#,
    ] {
        assert_eq!(
            says(body(absent).required_str("name")),
            "Missing value for required parameter 'name'. See the API docs for more information about \
             request parameters."
        );
    }
    for (sent, value, kind) in [
        ("123", "123", "int"),
        ("1.5", "1.5", "float"),
        ("true", "true", "bool"),
        ("[1, 2]", "[1,2]", "list"),
        (
            r#"{"b": 1, "a": "ü𝄞"}"#,
            r#"{"a":"\u00fc\ud834\udd1e","b":1}"#,
            "dict",
        ),
    ] {
        assert_eq!(
            says(body(&format!(r#"{{"name": {sent}}}"#)).required_str("name")),
            format!(
                "Invalid value {value} for parameter 'name' supplied:  Hint: Value was of type '{kind}'. \
                 See the API docs for more information about request parameters."
            )
        );
    }
}

#[test]
fn whole_numbers_come_as_numbers_or_texts() {
    let cases = [
        ("5", Some(5)),
        ("-5", Some(-5)),
        ("\"5\"", Some(5)),
        ("5.0", Some(5)),
        ("9223372036854775807", Some(i64::MAX)),
        ("\"-9223372036854775808\"", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("1e300", None),
        ("5.5", None),
        ("\"5.5\"", None),
        ("\"\"", None),
        ("true", None),
    ];
    for (sent, expect) in cases {
        let read = body(&format!(r#"{{"step": {sent}}}"#)).optional_i64("step");
        assert_eq!(read.ok().flatten(), expect, "{sent}");
    }
    assert_eq!(body("{}").optional_i64("step"), Ok(None));
    assert!(says(body("{}").required_i64("step")).starts_with("Missing value"));
}

#[test]
fn doubles_have_words_for_what_json_cannot_say() {
    let read = |sent: &str| body(&format!(r#"{{"value": {sent}}}"#)).required_f64("value");
    assert!(read("\"NaN\"").unwrap().is_nan());
    assert_eq!(read("\"Infinity\""), Ok(f64::INFINITY));
    assert_eq!(read("\"-Infinity\""), Ok(f64::NEG_INFINITY));
    assert_eq!(read("\"0.25\""), Ok(0.25));
    assert_eq!(read("3"), Ok(3.0));
    for wrong in ["\"nan\"", "\"inf\"", "\"\"", "\"a\"", "true", "[]"] {
        assert!(says(read(wrong)).starts_with("Invalid value"), "{wrong}");
    }
}

#[test]
fn lists_say_which_item_is_wrong() {
    let read = |sent: &str| {
        body(sent).list("tags", |tag| {
            let value = tag.optional_str("value")?.unwrap_or_default();
            Ok((tag.required_str("key")?.to_owned(), value.to_owned()))
        })
    };
    assert_eq!(
        read(r#"{"tags": [{"key": "a", "value": "1", "more": 3}, {"key": "b"}]}"#),
        Ok(vec![("a".into(), "1".into()), ("b".into(), String::new())])
    );
    assert_eq!(read(r#"{"tags": null}"#), Ok(vec![]));
    assert!(
        says(read(r#"{"tags": [{"key": "a"}, {}]}"#))
            .starts_with("Missing value for required parameter 'tags[1].key'.")
    );
    assert!(
        says(read(r#"{"tags": [{"key": "a"}, 5]}"#))
            .starts_with("Invalid value 5 for parameter 'tags[1]' supplied")
    );
    assert!(says(read(r#"{"tags": {}}"#)).starts_with("Invalid value {} for parameter 'tags'"));
}

#[test]
fn messages_and_choices() {
    let sent = body(r#"{"dataset": {"name": "d"}, "status": "RUNNING", "viewType": "ALL"}"#);
    assert_eq!(
        sent.required_message("dataset")
            .unwrap()
            .required_str("name"),
        Ok("d")
    );
    assert!(
        says(
            sent.required_message("dataset")
                .unwrap()
                .required_str("digest")
        )
        .contains("'dataset.digest'")
    );
    assert_eq!(
        sent.optional_choice("status", &[("RUNNING", 1), ("FAILED", 2)]),
        Ok(Some(1))
    );
    assert!(says(sent.optional_choice("status", &[("FAILED", 2)])).contains("\"RUNNING\""));
    assert_eq!(sent.optional_str("view_type"), Ok(Some("ALL")));
}

#[test]
fn a_query_is_read_like_a_body() {
    let query = Body::from_query("run_ids=a&run_ids=b%20c&max_results=5&flag=True&name=&x=+y");
    assert_eq!(query.strings("run_ids"), Ok(vec!["a".into(), "b c".into()]));
    assert_eq!(query.optional_i64("max_results"), Ok(Some(5)));
    assert_eq!(query.optional_bool("flag"), Ok(Some(true)));
    assert_eq!(query.required_str("run_ids"), Ok("a"));
    assert_eq!(query.optional_str("x"), Ok(Some(" y")));
    assert!(query.required_str("name").is_err());
    assert_eq!(query.strings("order_by"), Ok(vec![]));
    assert!(says(Body::from_query("flag=2").optional_bool("flag")).starts_with("Invalid boolean"));
}

#[test]
fn what_is_no_object_is_refused() {
    for wrong in ["[]", "1", "{", "\"a\"", "{\"a\": }", "\u{0}"] {
        assert!(Body::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(Body::parse(b"\xff\xfe").is_err());
    let deep = "[".repeat(100_000);
    assert!(Body::parse(deep.as_bytes()).is_err());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
        let _ = Body::parse(&bytes);
        let _ = Body::from_query(&String::from_utf8_lossy(&bytes));
    }
}
