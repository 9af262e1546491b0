//! What is an address, and where home is.

use super::*;

#[test]
fn an_address_is_numbers_or_this_machine() {
    for (text, expect) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("localhost:7878", "127.0.0.1:7878"),
        ("[::1]:7878", "[::1]:7878"),
    ] {
        assert_eq!(address(text, "").unwrap().to_string(), expect);
    }
    for text in ["", "here", "127.0.0.1", "127.0.0.1:70000", ":7878"] {
        let fault = address(text, "127.0.0.1:1").unwrap_err();
        assert_eq!(fault.code, Code::BadListen, "`{text}`");
        assert!(fault.message.contains(&format!("`{text}`")), "{fault}");
        assert_eq!(fault.hint.as_deref(), Some("write it like `127.0.0.1:1`"));
    }
}

#[test]
fn only_a_tilde_at_the_front_is_home() {
    let home = std::env::home_dir().unwrap();
    assert_eq!(folder("~/a b/c"), home.join("a b/c"));
    for text in ["/a/~/b", "~else/b", "a", "~"] {
        assert_eq!(folder(text), PathBuf::from(text));
    }
}
