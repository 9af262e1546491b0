//! From the text of a filter to its clauses: the words, not yet what they mean.
//!
//! It follows sqlparse where MLflow's clients rely on it (quotes inside quotes, keys with dots). It
//! must never know an entity or a field, and never panic: it only ever cuts at the ends of characters.

use super::{MAX_COMPARISONS, MAX_FILTER_BYTES, MAX_LIST_VALUES, Op};
use crate::Refusal;

/// `key op value` as written.
#[derive(Debug)]
pub(super) struct Clause<'a> {
    pub(super) key: &'a str,
    /// `None`: it looks like an operator, and is none of MLflow's.
    pub(super) op: Option<Op>,
    pub(super) op_text: String,
    pub(super) value: Literal<'a>,
}

/// A value as written; `inner` is without its quotes, and nothing in it is an escape.
#[derive(Debug, PartialEq)]
pub(super) enum Literal<'a> {
    Quoted {
        raw: &'a str,
        inner: &'a str,
    },
    Integer(&'a str),
    Float(&'a str),
    Bare(&'a str),
    List {
        raw: &'a str,
        items: Vec<Literal<'a>>,
    },
    Absent,
}

impl Literal<'_> {
    pub(super) fn raw(&self) -> &str {
        match self {
            Self::Quoted { raw, .. }
            | Self::List { raw, .. }
            | Self::Integer(raw)
            | Self::Float(raw)
            | Self::Bare(raw) => raw,
            Self::Absent => "",
        }
    }
}

/// The clauses of a filter, joined by `AND`.
pub(super) fn clauses(filter: &str) -> Result<Vec<Clause<'_>>, Refusal> {
    if filter.len() > MAX_FILTER_BYTES {
        return Err(Refusal::invalid(format!(
            "Invalid filter. It must be at most {MAX_FILTER_BYTES} bytes, got {}",
            filter.len()
        )));
    }
    let mut cursor = Cursor { rest: filter };
    let mut clauses = Vec::new();
    loop {
        // MLflow takes an `AND` for white space: one too many is no error there either.
        while cursor.keyword("AND") {}
        if cursor.rest.is_empty() {
            return Ok(clauses);
        }
        if clauses.len() == MAX_COMPARISONS {
            return Err(Refusal::invalid(format!(
                "Invalid filter. It must have at most {MAX_COMPARISONS} comparisons"
            )));
        }
        clauses.push(cursor.clause()?);
        cursor.skip_space();
        if !cursor.rest.is_empty() && !cursor.clone().keyword("AND") {
            let word = cursor.rest.split(char::is_whitespace).next();
            return Err(stray(word.unwrap_or_default()));
        }
    }
}

/// A key with its order: `key`, `key ASC`, `key DESC`. `None` is anything else.
pub(crate) fn ordered_key(text: &str) -> Option<(&str, Option<&str>)> {
    let mut cursor = Cursor { rest: text };
    cursor.skip_space();
    let key = cursor.key()?;
    let rest = cursor.rest;
    if rest.trim().is_empty() {
        return Some((key, None));
    }
    let direction = rest.trim();
    (rest.starts_with(char::is_whitespace) && direction.chars().all(char::is_alphanumeric))
        .then_some((key, Some(direction)))
}

fn stray(rest: &str) -> Refusal {
    const SHOWN: usize = 200;
    let shown: String = rest.trim().chars().take(SHOWN).collect();
    Refusal::invalid(format!("Invalid clause(s) in filter string: '{shown}'"))
}

/// The operators that are words; `None` is known to sqlparse and not to MLflow.
const WORDS: [(&[&str], Option<Op>); 9] = [
    (&["IS", "NOT", "NULL"], Some(Op::IsNotNull)),
    (&["IS", "NULL"], Some(Op::IsNull)),
    (&["NOT", "IN"], Some(Op::NotIn)),
    (&["IN"], Some(Op::In)),
    (&["LIKE"], Some(Op::Like)),
    (&["ILIKE"], Some(Op::Ilike)),
    (&["RLIKE"], None),
    (&["NOT", "LIKE"], None),
    (&["NOT", "ILIKE"], None),
];

#[derive(Clone)]
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// What `length` bytes from here are; the cursor stands behind them.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// Skips white space and this word, in any case, if a word ends there.
    fn keyword(&mut self, word: &str) -> bool {
        self.skip_space();
        let mut ahead = self.clone();
        let found = ahead.take_while(is_word);
        let is_it = found.eq_ignore_ascii_case(word);
        if is_it {
            *self = ahead;
            self.skip_space();
        }
        is_it
    }

    fn clause(&mut self) -> Result<Clause<'a>, Refusal> {
        let start = self.rest;
        let key = self.key().ok_or_else(|| stray(start))?;
        let here = self.clone();
        let Some((op, op_text)) = self.operator() else {
            return Err(no_operator(start, here.rest));
        };
        if key.starts_with(|c: char| c.is_ascii_digit()) && key.parse::<f64>().is_ok() {
            return Err(no_identifier(key));
        }
        let value = match op {
            Some(Op::IsNull | Op::IsNotNull) => Literal::Absent,
            Some(Op::In | Op::NotIn) => {
                self.skip_space();
                if !self.rest.starts_with('(') {
                    return Err(stray(start));
                }
                self.literal().ok_or_else(|| stray(start))??
            }
            Some(
                Op::Equal
                | Op::NotEqual
                | Op::Greater
                | Op::GreaterOrEqual
                | Op::Less
                | Op::LessOrEqual
                | Op::Like
                | Op::Ilike,
            )
            | None => self.literal().ok_or_else(|| stray(start))??,
        };
        Ok(Clause {
            key,
            op,
            op_text,
            value,
        })
    }

    /// `word`, `word.word`, with any part in backticks or double quotes.
    fn key(&mut self) -> Option<&'a str> {
        let start = self.rest;
        let mut ahead = self.clone();
        loop {
            if ahead.rest.starts_with(['`', '"']) {
                ahead.quoted()?;
            } else if ahead.take_while(is_word).is_empty() {
                return None;
            }
            if !ahead.rest.starts_with('.') {
                break;
            }
            ahead.take(1);
        }
        let length = start.len() - ahead.rest.len();
        Some(self.take(length))
    }

    fn operator(&mut self) -> Option<(Option<Op>, String)> {
        self.skip_space();
        let symbols = self.take_while(|c| matches!(c, '<' | '>' | '=' | '!' | '~'));
        if !symbols.is_empty() {
            let op = match symbols {
                "=" => Some(Op::Equal),
                "!=" => Some(Op::NotEqual),
                ">" => Some(Op::Greater),
                ">=" => Some(Op::GreaterOrEqual),
                "<" => Some(Op::Less),
                "<=" => Some(Op::LessOrEqual),
                _ => None,
            };
            return Some((op, symbols.to_owned()));
        }
        for (words, op) in WORDS {
            let mut ahead = self.clone();
            if words.iter().all(|word| ahead.keyword(word)) {
                *self = ahead;
                return Some((op, words.join(" ")));
            }
        }
        None
    }

    /// A value; `Some(Err)` is a list that cannot be read.
    fn literal(&mut self) -> Option<Result<Literal<'a>, Refusal>> {
        self.skip_space();
        if self.rest.starts_with('(') {
            return Some(self.list());
        }
        self.scalar().map(Ok)
    }

    fn scalar(&mut self) -> Option<Literal<'a>> {
        self.skip_space();
        if self.rest.starts_with(['\'', '"']) {
            let (raw, inner) = self.quoted()?;
            return Some(Literal::Quoted { raw, inner });
        }
        if let Some(number) = self.number() {
            return Some(number);
        }
        let raw = self
            .take_while(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | ',' | '\'' | '"' | ';'));
        (!raw.is_empty()).then_some(Literal::Bare(raw))
    }

    fn number(&mut self) -> Option<Literal<'a>> {
        let text = self
            .clone()
            .take_while(|c| is_word(c) || matches!(c, '.' | '-' | '+'));
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            return Some(Literal::Integer(self.take(text.len())));
        }
        let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && digits
                .bytes()
                .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'))
            && text.parse::<f64>().is_ok();
        numeric.then(|| Literal::Float(self.take(text.len())))
    }

    fn list(&mut self) -> Result<Literal<'a>, Refusal> {
        const SAYS: &str = "While parsing a list in the query, expected a non-empty list of string values, but got";
        let ill_formed = || Refusal::invalid(format!("{SAYS} ill-formed list."));
        let start = self.rest;
        let mut items = Vec::new();
        self.take(1);
        self.skip_space();
        while !self.rest.starts_with(')') {
            if items.len() == MAX_LIST_VALUES {
                return Err(Refusal::invalid(format!(
                    "While parsing a list in the query, got more than {MAX_LIST_VALUES} values"
                )));
            }
            items.push(self.scalar().ok_or_else(ill_formed)?);
            self.skip_space();
            if self.rest.starts_with(',') {
                self.take(1);
                self.skip_space();
            } else if !self.rest.starts_with(')') {
                return Err(ill_formed());
            }
        }
        self.take(1);
        if items.is_empty() {
            return Err(Refusal::invalid(format!("{SAYS} empty list")));
        }
        let raw = start.get(..start.len() - self.rest.len()).unwrap_or(start);
        Ok(Literal::List { raw, items })
    }

    /// A quoted part with and without its quotes. A doubled quote and one behind a backslash do not
    /// end it, unless nothing else would: sqlparse goes back to the last quote that can.
    fn quoted(&mut self) -> Option<(&'a str, &'a str)> {
        let quote = self.rest.chars().next()?;
        let mut end = None;
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\\' && quote != '`' {
                if let Some((at, _)) = chars.next_if(|(_, next)| *next == quote) {
                    end = Some(at);
                }
            } else if c == quote {
                end = Some(at);
                if chars.next_if(|(_, next)| *next == quote).is_none() {
                    break;
                }
            }
        }
        let raw = self.take(end? + quote.len_utf8());
        let inner = raw.strip_prefix(quote)?.strip_suffix(quote)?;
        Some((raw, inner))
    }
}

fn no_operator(start: &str, rest: &str) -> Refusal {
    if rest.is_empty() || rest.starts_with(char::is_whitespace) {
        return stray(start);
    }
    let word = start
        .split(|c: char| c.is_whitespace() || matches!(c, '=' | '<' | '>' | '!'))
        .next();
    no_identifier(word.unwrap_or_default())
}

fn no_identifier(found: &str) -> Refusal {
    Refusal::invalid(format!(
        "Invalid comparison clause. Expected 'Identifier' found '{found}'"
    ))
}

/// The characters of a bare word: others ask for backticks.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '#' | '@')
}
