//! What a person sees of errors: the words of the real program, without what differs each time.

use super::harness::House;

/// Words that differ each time, by what stands before them.
const DIGITS: [(&str, &str); 7] = [
    ("exp_", "[id]"),
    ("tri_", "[id]"),
    ("tsk_", "[id]"),
    ("wrk_", "[id]"),
    ("lea_", "[id]"),
    ("sha256:", "[digest]"),
    ("127.0.0.1:", "[port]"),
];

/// Ids, digests and ports become the name of what they are.
pub fn redacted(text: &str) -> String {
    DIGITS.iter().fold(text.to_owned(), |text, (before, name)| {
        let mut parts = text.split(before);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit());
            out.push_str(before);
            // Port 0 is what somebody typed.
            let least = if *name == "[port]" { 4 } else { 1 };
            if part.len() - rest.len() >= least {
                out.push_str(name);
                out.push_str(rest);
            } else {
                out.push_str(part);
            }
        }
        out
    })
}

/// A page of refusals for a snapshot.
pub struct Page<'a> {
    house: &'a House,
    text: String,
}

impl<'a> Page<'a> {
    /// An empty one.
    pub fn of(house: &'a House) -> Self {
        Self {
            house,
            text: String::new(),
        }
    }

    /// Types a command that is refused, as a person does: its exit status, its code, a word of its
    /// message; all that it shows comes on the page.
    pub fn refused(&mut self, words: &[&str], expect: (i32, &str, &str)) {
        let typed = words.join(" ");
        let (status, out, err) = self.house.shown(&[&["--quiet"], words].concat());
        assert_eq!(status, Some(expect.0), "`pomona {typed}`: {out}{err}");
        let label = format!("error[{}]: ", expect.1);
        let message = err.split(&label).nth(1);
        let fits = message.is_some_and(|message| message.contains(expect.2));
        assert!(fits, "`pomona {typed}`: {err}");
        let folder = self.house.path("");
        let folder = folder.to_str().expect("UTF-8");
        let shown = format!("$ pomona {typed}\n{err}[{}]\n\n", expect.0).replace(folder, "");
        self.text.push_str(&redacted(&shown));
    }

    /// All of it.
    pub fn end(self) -> String {
        self.text
    }
}
