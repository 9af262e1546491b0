use super::*;

fn check(refused: Result<(), Refusal>, starts: &str) {
    let message = refused.unwrap_err().message;
    assert!(message.starts_with(starts), "{message}");
}

#[test]
fn keys_are_words_that_are_their_own_paths() {
    for key in ["a", "acc/top 1", "val:loss", "a.b-c_d", "ключ", "a..b"] {
        assert_eq!(metric_key(key, "name"), Ok(()), "{key}");
    }
    for key in ["a\"b", "a(b)", "a\u{0}", "a,b", "a\nb", "é+"] {
        check(metric_key(key, "metrics[0].name"), "Invalid value \"");
        assert!(
            param_key(key, "key")
                .unwrap_err()
                .message
                .contains("Names may only contain")
        );
    }
    for key in [
        "", ".", "..", "../a", "/a", "//a", "a/", "a//b", "./a", "a/../b", "a/./b", "..a",
    ] {
        let message = tag_key(key, "key").unwrap_err().message;
        assert!(
            message.contains("must not resolve to other names"),
            "{key}: {message}"
        );
    }
    assert_eq!(
        metric_key("a/../b", "name").unwrap_err().message,
        "Invalid value \"a/../b\" for parameter 'name' supplied: Names may be treated as files in \
         certain cases, and must not resolve to other names when treated as such. This name would \
         resolve to 'b'"
    );
}

#[test]
fn lengths_are_counted_in_characters() {
    let long = |n: usize| "ü".repeat(n);
    assert_eq!(metric_key(&long(MAX_KEY), "name"), Ok(()));
    check(
        metric_key(&long(MAX_KEY + 1), "name"),
        "'Metric name' exceeds the maximum length of 250 characters",
    );
    assert_eq!(param_value(&long(6_001)), long(6_000));
    assert_eq!(tag_value(&long(8_001)), long(8_000));
    assert_eq!(tag_value("short"), "short");
    assert!(experiment_tag("k", &long(20_001)).is_err());
    assert!(registry_tag("k", &long(100_000)).is_ok());
    assert!(registry_tag("k", &long(100_001)).is_err());
    assert!(input_tag("k", &long(501)).is_err());
    check(
        experiment_name(&long(501)),
        "'name' exceeds the maximum length of 500 characters",
    );
    let digest = long(37);
    assert!(
        dataset(&Dataset {
            digest: &digest,
            ..Dataset::default()
        })
        .is_err()
    );
}

#[test]
fn ids_and_names() {
    for id in [
        "a",
        "0",
        "m-1_b",
        "0123456789abcdef0123456789abcdef",
        &"a".repeat(256),
    ] {
        assert_eq!(run_id(id, "run_id"), Ok(()), "{id}");
    }
    for id in ["", "-a", "_a", "a/b", "a b", "..", "a\n", &"a".repeat(257)] {
        check(run_id(id, "run_id"), "Invalid value \"");
    }
    assert_eq!(
        run_id("a/b", "run_id").unwrap_err().message,
        "Invalid value \"a/b\" for parameter 'run_id' supplied."
    );
    assert!(experiment_id(&"1".repeat(64)).is_ok());
    check(
        experiment_id(&"1".repeat(65)),
        "Invalid experiment ID: '111",
    );
    check(experiment_name("  "), "Invalid experiment name: '  '");
    assert!(experiment_name("a/b: ünï?").is_ok());
    assert!(model_name("flowers v2.1-ü").is_ok());
    check(
        model_name(" "),
        "Missing value for required parameter 'name'.",
    );
    check(
        model_name("a/b"),
        "Invalid model name 'a/b'. Names cannot contain '/' or ':'.",
    );
    check(
        model_name(".."),
        "Invalid value \"..\" for parameter 'name' supplied: ",
    );
    assert_eq!(model_version("12"), Ok(12));
    for version in ["", "a", "-1", "1.0", "99999999999"] {
        assert_eq!(
            model_version(version).unwrap_err().message,
            format!("Parameter 'version' must be an integer, got '{version}'.")
        );
    }
}

#[test]
fn a_metric_is_not_older_than_time() {
    assert_eq!(metric_timestamp("a", 1.0, 0, "timestamp"), Ok(()));
    assert_eq!(
        metric_timestamp("a", 1.0, -1, "metrics[0].timestamp")
            .unwrap_err()
            .message,
        "Invalid value -1 for parameter 'metrics[0].timestamp' supplied: metric 'a' (value=1.0). \
         Timestamp must be a nonnegative long (64-bit integer) "
    );
}

#[test]
fn aliases() {
    for name in ["champion", "a-b_C", "v", "v1a", "version1", "vorläufig"] {
        assert_eq!(new_alias(name), Ok(()), "{name}");
    }
    check(
        new_alias(""),
        "Registered model alias name cannot be empty.",
    );
    check(
        new_alias("a b"),
        "Invalid alias name: 'a b'. Names may only contain",
    );
    check(
        new_alias("Latest"),
        "'latest' alias name (case insensitive) is reserved.",
    );
    check(new_alias("V12"), "Version alias name 'V12' is reserved.");
    check(
        new_alias(&"a".repeat(256)),
        "'Registered model alias name' exceeds",
    );
    assert_eq!(alias("latest"), Ok(()));
}
