//! One mapping of the file under a strict reader: every getter names the path of what is wrong,
//! pushes a fault and goes on with a stand-in, so that one run finds all faults.

use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;

use super::kinds;
use super::paths::{join, nearest};
use crate::{Code, Fault};

/// Faults found so far.
pub(super) type Faults = RefCell<Vec<Fault>>;

/// An upper end that only keeps numbers sane and is not worth telling.
pub(super) const VAST: f64 = 1e12;

/// An interval of numbers, either end open or closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    low: f64,
    low_open: bool,
    high: f64,
    high_open: bool,
}

impl Limits {
    /// Both ends belong to it.
    pub(super) const fn closed(low: f64, high: f64) -> Self {
        Self {
            low,
            low_open: false,
            high,
            high_open: false,
        }
    }

    /// The upper end does not belong to it.
    pub(super) const fn below(low: f64, high: f64) -> Self {
        Self {
            low,
            low_open: false,
            high,
            high_open: true,
        }
    }

    /// The lower end does not belong to it.
    pub(super) const fn above(low: f64, high: f64) -> Self {
        Self {
            low,
            low_open: true,
            high,
            high_open: false,
        }
    }

    fn holds(self, number: f64) -> bool {
        let low = if self.low_open {
            number > self.low
        } else {
            number >= self.low
        };
        let high = if self.high_open {
            number < self.high
        } else {
            number <= self.high
        };
        low && high
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = if self.low_open { "above" } else { "at least" };
        let high = if self.high_open { "below" } else { "at most" };
        if self.high >= VAST {
            return write!(f, "{low} {}", self.low);
        }
        write!(f, "{low} {} and {high} {}", self.low, self.high)
    }
}

/// What a value is, for people.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(text) if text.is_empty() => "an empty text".to_owned(),
        Value::String(text) => format!("the text `{}`", shorten(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// A value as a fault shows it: one line, not too long.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 48;
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST).chain(['…']).collect()
}

/// `` `a`, `b` or `c` ``.
pub(super) fn choices(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// One mapping of the file.
pub(super) struct Section<'a> {
    path: String,
    map: Option<&'a Map<String, Value>>,
    known: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    /// The mapping at the top.
    pub(super) fn top(map: &'a Map<String, Value>, faults: &'a Faults) -> Self {
        Self {
            path: String::new(),
            map: Some(map),
            known: Vec::new(),
            faults,
        }
    }

    /// A mapping somewhere below; anything else is a fault and read as empty.
    pub(super) fn at(path: String, value: Option<&'a Value>, faults: &'a Faults) -> Self {
        let map = match value {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => {
                let mut fault = Fault::new(
                    Code::WrongType,
                    format!("{path}: expected a mapping, found {}", describe(other)),
                );
                let kinds = kinds::ALL.iter().find(|kinds| kinds.path == path);
                if let (Some(kinds), Some(word)) = (kinds, other.as_str())
                    && kinds.names().contains(&word)
                {
                    let key = path.rsplit('.').next().unwrap_or_default();
                    fault = fault.hint(format!("write `{key}: {{kind: {word}}}`"));
                }
                faults.borrow_mut().push(fault);
                None
            }
        };
        Self {
            path,
            map,
            known: Vec::new(),
            faults,
        }
    }

    /// The path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the file has this mapping at all.
    pub(super) fn is_written(&self) -> bool {
        self.map.is_some()
    }

    /// Its keys as written.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        self.map.into_iter().flat_map(Map::keys)
    }

    /// The value of a key, whatever it is; does not make the key known.
    pub(super) fn child(&self, key: &str) -> Option<&'a Value> {
        self.map.and_then(|map| map.get(key))
    }

    /// Adds a fault.
    pub(super) fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Adds a fault about one key.
    pub(super) fn complain(&self, code: Code, key: &str, message: impl fmt::Display) {
        self.fault(Fault::new(
            code,
            format!("{}: {message}", self.path_of(key)),
        ));
    }

    /// Adds a fault about one key, with a hint.
    pub(super) fn advise(
        &self,
        code: Code,
        key: &str,
        message: impl fmt::Display,
        hint: impl Into<String>,
    ) {
        let message = format!("{}: {message}", self.path_of(key));
        self.fault(Fault::new(code, message).hint(hint));
    }

    /// The value of a key, `null` included; makes the key known.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.map.and_then(|map| map.get(key))
    }

    /// The value of a key that may be absent. A key without a value is a fault.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<&'a Value> {
        let value = self.raw(key)?;
        if value.is_null() {
            self.advise(
                Code::WrongType,
                key,
                "has no value",
                "give it one, or leave the key out for the default",
            );
            return None;
        }
        Some(value)
    }

    /// The value of a key that must be there.
    pub(super) fn required(&mut self, key: &'static str, example: &str) -> Option<&'a Value> {
        if self.map.is_some_and(|map| map.contains_key(key)) {
            return self.optional(key);
        }
        self.known.push(key);
        self.advise(
            Code::MissingKey,
            key,
            "missing key",
            format!("write `{example}`"),
        );
        None
    }

    /// A section below.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let value = self.optional(key);
        Section::at(self.path_of(key), value, self.faults)
    }

    /// A number.
    pub(super) fn number(&mut self, key: &'static str, default: f64, limits: Limits) -> f64 {
        match self.optional(key) {
            None => default,
            Some(value) => self.as_number(key, value, limits).unwrap_or(default),
        }
    }

    /// A value as a number within limits.
    pub(super) fn as_number(&self, key: &str, value: &Value, limits: Limits) -> Option<f64> {
        let Some(number) = value.as_f64() else {
            self.wrong(key, "a number", value);
            return None;
        };
        if limits.holds(number) {
            return Some(number);
        }
        self.complain(
            Code::OutOfRange,
            key,
            format_args!("{value} is out of range, it must be {limits}"),
        );
        None
    }

    /// A whole number.
    pub(super) fn whole(
        &mut self,
        key: &'static str,
        default: u64,
        limits: RangeInclusive<u64>,
    ) -> u64 {
        match self.optional(key) {
            None => default,
            Some(value) => self.as_whole(key, value, limits).unwrap_or(default),
        }
    }

    /// The same, as `u32`; the limits must fit.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: u32,
        limits: RangeInclusive<u32>,
    ) -> u32 {
        let wide = u64::from(*limits.start())..=u64::from(*limits.end());
        u32::try_from(self.whole(key, u64::from(default), wide)).unwrap_or(default)
    }

    /// A value as a whole number within limits.
    pub(super) fn as_whole(
        &self,
        key: &str,
        value: &Value,
        limits: RangeInclusive<u64>,
    ) -> Option<u64> {
        if !value.is_number() || (value.as_u64().is_none() && value.as_i64().is_none()) {
            self.wrong(key, "a whole number", value);
            return None;
        }
        if let Some(number) = value.as_u64().filter(|number| limits.contains(number)) {
            return Some(number);
        }
        self.complain(
            Code::OutOfRange,
            key,
            format_args!(
                "{value} is out of range, it must be from {} to {}",
                limits.start(),
                limits.end()
            ),
        );
        None
    }

    /// A text that must be there; an empty stand-in when it is not.
    pub(super) fn text(&mut self, key: &'static str, example: &str) -> &'a str {
        match self.required(key, example) {
            None => "",
            Some(value) => self.as_text(key, value).unwrap_or(""),
        }
    }

    /// A value as a text.
    pub(super) fn as_text(&self, key: &str, value: &'a Value) -> Option<&'a str> {
        if let Value::String(text) = value {
            return Some(text);
        }
        let message = format_args!("expected a text, found {}", describe(value)).to_string();
        if value.is_number() || value.is_boolean() {
            self.advise(
                Code::WrongType,
                key,
                message,
                format!("quote it: `\"{value}\"`"),
            );
        } else {
            self.complain(Code::WrongType, key, message);
        }
        None
    }

    /// One of a few words; `None` for the default or after a fault.
    pub(super) fn word(
        &mut self,
        key: &'static str,
        built: &[&'static str],
        planned: &[&'static str],
    ) -> Option<&'static str> {
        let value = self.optional(key)?;
        self.as_word(key, value, built, planned)
    }

    /// A value as one of a few words; those of `planned` are refused as not built.
    pub(super) fn as_word(
        &self,
        key: &str,
        value: &'a Value,
        built: &[&'static str],
        planned: &[&'static str],
    ) -> Option<&'static str> {
        let Value::String(text) = value else {
            self.wrong(key, &choices(built), value);
            return None;
        };
        if let Some(word) = built.iter().find(|word| *word == text) {
            return Some(word);
        }
        if planned.contains(&text.as_str()) {
            self.advise(
                Code::NotBuilt,
                key,
                format_args!("`{text}` is not built yet"),
                format!("use {}", choices(built)),
            );
            return None;
        }
        let message = match built {
            [only] => format!("`{}` is not `{only}`, the only choice here", shorten(text)),
            _ => format!("`{}` is not one of {}", shorten(text), choices(built)),
        };
        let all = built.iter().chain(planned).copied();
        match nearest(text, all).filter(|word| built.contains(word)) {
            Some(word) => self.advise(
                Code::OutOfRange,
                key,
                message,
                format!("did you mean `{word}`?"),
            ),
            None => self.complain(Code::OutOfRange, key, message),
        }
        None
    }

    /// Complains about a value's type.
    pub(super) fn wrong(&self, key: &str, expected: &str, found: &Value) {
        let message = format!("expected {expected}, found {}", describe(found));
        let unquoted = found
            .as_str()
            .filter(|text| text.parse::<f64>().is_ok_and(f64::is_finite));
        match unquoted {
            Some(text) if expected.contains("number") => self.advise(
                Code::WrongType,
                key,
                message,
                format!("write it without quotes: `{text}`"),
            ),
            Some(_) | None => self.complain(Code::WrongType, key, message),
        }
    }

    /// Complains about every key that no getter asked for. `elsewhere` may know better.
    pub(super) fn finish(self, elsewhere: impl Fn(&str) -> Option<Fault>) {
        for key in self.keys() {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            if let Some(fault) = elsewhere(key) {
                self.fault(fault);
                continue;
            }
            let path = self.path_of(&shorten(key));
            let message = match nearest(key, self.known.iter().copied()) {
                Some(near) => format!("{path}: unknown key, did you mean `{near}`?"),
                None => format!("{path}: unknown key"),
            };
            let mut fault = Fault::new(Code::UnknownKey, message);
            if fault.message.ends_with("key") && !self.known.is_empty() {
                fault = fault.hint(match self.known.as_slice() {
                    [only] => format!("the only key here is `{only}`"),
                    _ => format!("the keys here are {}", and(&self.known)),
                });
            }
            self.fault(fault);
        }
    }
}

fn and(words: &[&str]) -> String {
    let mut sorted = words.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    choices(&sorted).replace(" or ", " and ")
}
