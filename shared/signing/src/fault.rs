//! How the crate's faults are worded. What comes from a foreign file is shown in a few escaped
//! characters: it must never reach a terminal as it is.

use pomona_domain::{Code, Fault};

/// Characters of a foreign text that are shown.
const SHOWN_CHARS: usize = 80;

/// A foreign text between backticks, escaped and cut.
pub fn shown(text: &str) -> String {
    let cut = text.chars().take(SHOWN_CHARS);
    let escaped: String = cut.flat_map(escape).collect();
    let rest = if text.chars().nth(SHOWN_CHARS).is_some() {
        "…"
    } else {
        ""
    };
    format!("`{escaped}{rest}`")
}

/// Letters of any script stay; what moves a cursor, hides or mirrors text does not.
fn escape(c: char) -> impl Iterator<Item = char> {
    let plain = c == '\'' || c == '"' || c.escape_debug().count() == 1;
    let escaped = (!plain).then(|| c.escape_debug());
    plain
        .then_some(c)
        .into_iter()
        .chain(escaped.into_iter().flatten())
}

/// The file is no signature.
pub fn not_a_signature(why: impl AsRef<str>) -> Fault {
    let message = format!("the signature cannot be read: {}", why.as_ref());
    Fault::new(Code::NotASignature, message)
        .hint("get `model.sig` again from where the model was published, or sign the model anew")
}

/// It is a signature of a kind that is not checked here.
pub fn foreign(why: impl AsRef<str>) -> Fault {
    let message = format!("the signature is of another kind: {}", why.as_ref());
    Fault::new(Code::ForeignSignature, message).hint(
        "check it with the tool that made it; `model_signing sign key` with a P-256 key makes \
         signatures that are checked here",
    )
}

/// A key file that cannot be used.
pub fn bad_key(message: &str, hint: &str) -> Fault {
    Fault::new(Code::BadKey, message).hint(hint)
}

/// What a library refused although nothing can be wrong with it.
pub fn internal(what: &str) -> Fault {
    Fault::new(Code::Internal, format!("{what} failed"))
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn foreign_texts_are_harmless_and_short() {
        for (text, expect) in [
            ("config.json", "`config.json`"),
            ("déjà vu/☃ 'a'", "`déjà vu/☃ 'a'`"),
            ("\u{1b}[2J\n", "`\\u{1b}[2J\\n`"),
            ("a\u{202e}b", "`a\\u{202e}b`"),
        ] {
            assert_eq!(shown(text), expect);
        }
        let long = shown(&"x".repeat(1_000_000));
        assert_eq!(long, format!("`{}…`", "x".repeat(80)));
    }
}
