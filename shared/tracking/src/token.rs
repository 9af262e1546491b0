//! Page tokens: base64 of `{"offset": N}`, opaque to clients.
//!
//! A token must never be trusted: what this crate did not make is refused.

use crate::Refusal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest token that is read, in bytes.
pub const MAX_TOKEN_BYTES: usize = 1_000;

/// The token of the page that begins behind `offset` results.
pub fn encode(offset: u64) -> String {
    STANDARD.encode(format!("{{\"offset\": {offset}}}"))
}

/// The token of the next page, if there is one: `found` is how many results were read from
/// `offset` on when one more than `size` was asked for.
pub fn next(offset: u64, size: usize, found: usize) -> Option<String> {
    (found > size).then(|| encode(offset.saturating_add(size as u64)))
}

/// How many results come before the page; no token is the first page.
pub fn decode(token: &str) -> Result<u64, Refusal> {
    if token.is_empty() {
        return Ok(0);
    }
    let undecodable = || Refusal::invalid("Invalid page token, could not base64-decode");
    if token.len() > MAX_TOKEN_BYTES {
        return Err(undecodable());
    }
    let bytes = STANDARD.decode(token).map_err(|_| undecodable())?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        Refusal::invalid(format!("Invalid page token, decoded value={shown:?}"))
    })?;
    // It becomes a signed number of SQL.
    value
        .get("offset")
        .and_then(serde_json::Value::as_i64)
        .filter(|offset| *offset > 0)
        .map(i64::unsigned_abs)
        .ok_or_else(|| Refusal::invalid(format!("Invalid page token, parsed value={value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_mlflows() {
        assert_eq!(encode(5), "eyJvZmZzZXQiOiA1fQ==");
        assert_eq!(decode("eyJvZmZzZXQiOiA1fQ=="), Ok(5));
        assert_eq!(decode(""), Ok(0));
        assert_eq!(next(10, 5, 5), None);
        assert_eq!(next(10, 5, 6), Some(encode(15)));
    }

    #[test]
    fn other_tokens_are_refused() {
        let of = |text: &str| STANDARD.encode(text);
        let wrong = [
            "nope!".to_owned(),
            "eyJvZmZzZXQiOiA1fQ".to_owned(),
            of("nope"),
            of("{}"),
            of("5"),
            of(r#"{"offset": 0}"#),
            of(r#"{"offset": -1}"#),
            of(r#"{"offset": "1"}"#),
            of(r#"{"offset": 1.5}"#),
            of(r#"{"offset": 9223372036854775808}"#),
            "A".repeat(MAX_TOKEN_BYTES + 4),
        ];
        for token in wrong {
            let message = decode(&token).unwrap_err().message;
            assert!(message.starts_with("Invalid page token, "), "{token}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_offset_comes_back(offset in 1..=i64::MAX.unsigned_abs()) {
            proptest::prop_assert_eq!(decode(&encode(offset)), Ok(offset));
        }

        #[test]
        fn no_token_makes_it_panic(token in "\\PC{0,40}") {
            let _ = decode(&token);
        }
    }
}
