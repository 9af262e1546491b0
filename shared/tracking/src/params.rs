//! The parameters of a request, read from a JSON body or a query, with MLflow's validation texts.
//!
//! `null` is absent, an unknown field is ignored, a number may come as text (proto-JSON). A required
//! text that is empty is missing, as protobuf cannot tell the two apart. It must never know what an
//! endpoint is: a handler asks for what it needs.
//!
//! ```
//! # use pomona_tracking::{Body, Refusal};
//! # fn main() -> Result<(), Refusal> {
//! let body = Body::parse(br#"{"run_id": "r", "tags": [{"key": "a", "value": "b"}]}"#)?;
//! assert_eq!(body.required_str("run_id")?, "r");
//! let tags = body.list("tags", |tag| {
//!     let value = tag.optional_str("value")?.unwrap_or_default();
//!     Ok((tag.required_str("key")?.to_owned(), value.to_owned()))
//! })?;
//! assert_eq!(tags, [("a".to_owned(), "b".to_owned())]);
//! # Ok(())
//! # }
//! ```

use crate::Refusal;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt::Write;

/// The most items of one repeated field.
pub const MAX_ITEMS: usize = 10_000;

const HINT: &str = " See the API docs for more information about request parameters.";

/// The parameters of one request, or of one item of a repeated field.
#[derive(Debug, Clone, PartialEq)]
pub struct Body<'a> {
    fields: Cow<'a, Map<String, Value>>,
    /// In a query every value is a text, and every field repeated.
    query: bool,
    /// Before a field's name in messages: `tags[0].`
    path: String,
}

impl Body<'static> {
    /// A JSON object; no bytes are an empty one. Old clients send the object as a JSON text.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::of(Map::new(), false));
        }
        let mut value: Value = serde_json::from_slice(bytes).map_err(|e| no_json(&e))?;
        if let Value::String(text) = &value {
            value = serde_json::from_str(text).map_err(|e| no_json(&e))?;
        }
        match value {
            Value::Object(fields) => Ok(Self::of(fields, false)),
            Value::Null => Ok(Self::of(Map::new(), false)),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(Refusal::invalid(format!(
                    "Invalid request: the body must be a JSON object, got {}",
                    compact(&value)
                )))
            }
        }
    }

    /// The pairs of a query, `run_ids=a&run_ids=b`, without the question mark.
    pub fn from_query(query: &str) -> Self {
        let mut fields = Map::new();
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            let entry = fields
                .entry(name.into_owned())
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(values) = entry {
                values.push(Value::String(text.into_owned()));
            }
        }
        Self::of(fields, true)
    }

    fn of(fields: Map<String, Value>, query: bool) -> Self {
        Self {
            fields: Cow::Owned(fields),
            query,
            path: String::new(),
        }
    }
}

impl Body<'_> {
    /// Whether the field is there, and not null.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// A field's value as it came; of a query the first one.
    pub fn value(&self, name: &str) -> Option<&Value> {
        let value = self.field(name)?;
        match value.as_array() {
            Some(values) if self.query => values.first(),
            _ => Some(value),
        }
    }

    /// A text that must be there and not empty.
    pub fn required_str(&self, name: &str) -> Result<&str, Refusal> {
        self.optional_str(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.missing(name))
    }

    /// A text, perhaps empty.
    pub fn optional_str(&self, name: &str) -> Result<Option<&str>, Refusal> {
        self.read(name, Value::as_str)
    }

    /// A whole number that must be there.
    pub fn required_i64(&self, name: &str) -> Result<i64, Refusal> {
        self.optional_i64(name)?.ok_or_else(|| self.missing(name))
    }

    /// A whole number, as a number or as text.
    pub fn optional_i64(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.read(name, whole)
    }

    /// A number that must be there.
    pub fn required_f64(&self, name: &str) -> Result<f64, Refusal> {
        self.optional_f64(name)?.ok_or_else(|| self.missing(name))
    }

    /// A number, as a number or as text; `NaN`, `Infinity` and `-Infinity` come as texts.
    pub fn optional_f64(&self, name: &str) -> Result<Option<f64>, Refusal> {
        self.read(name, double)
    }

    /// Yes or no, that must be there.
    pub fn required_bool(&self, name: &str) -> Result<bool, Refusal> {
        self.optional_bool(name)?.ok_or_else(|| self.missing(name))
    }

    /// Yes or no; in a query as `true` or `false` in any case.
    pub fn optional_bool(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let read = match value.as_str() {
            Some(text) if self.query => match text.to_ascii_lowercase().as_str() {
                "true" => Some(true),
                "false" => Some(false),
                _ => {
                    return Err(Refusal::invalid(format!(
                        "Invalid boolean value: {text}, must be 'true' or 'false'."
                    )));
                }
            },
            _ => value.as_bool(),
        };
        read.map(Some).ok_or_else(|| self.invalid(name, value))
    }

    /// One of the names of an enum, as `RUNNING`.
    pub fn optional_choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Refusal> {
        self.read(name, |value| {
            let text = value.as_str()?;
            choices
                .iter()
                .find(|(choice, _)| *choice == text)
                .map(|(_, meaning)| *meaning)
        })
    }

    /// The texts of a repeated field; an absent one has none.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, Refusal> {
        self.items(name)?
            .iter()
            .map(|value| {
                let text = value.as_str().ok_or_else(|| self.invalid(name, value))?;
                Ok(text.to_owned())
            })
            .collect()
    }

    /// The items of a repeated message, each read by `item`, whose refusals say which one.
    pub fn list<T>(
        &self,
        name: &str,
        item: impl Fn(&Body<'_>) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let items = self.items(name)?;
        items
            .iter()
            .enumerate()
            .map(|(index, value)| item(&self.inner(&format!("{name}[{index}]"), value)?))
            .collect()
    }

    /// A message inside this one.
    pub fn optional_message(&self, name: &str) -> Result<Option<Body<'_>>, Refusal> {
        self.value(name)
            .map(|value| self.inner(name, value))
            .transpose()
    }

    /// A message inside this one, that must be there.
    pub fn required_message(&self, name: &str) -> Result<Body<'_>, Refusal> {
        self.optional_message(name)?
            .ok_or_else(|| self.missing(name))
    }

    /// A field's name in messages, as `tags[0].key`.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// `Missing value for required parameter …`, for what this type cannot see.
    pub fn missing(&self, name: &str) -> Refusal {
        let missing = missing_value(&self.path(name));
        Refusal::invalid(missing.message + HINT)
    }

    /// `Invalid value … for parameter … supplied`, for what this type cannot see.
    pub fn invalid(&self, name: &str, value: &Value) -> Refusal {
        let kind = match value {
            Value::Null => "NoneType",
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "float",
            Value::Number(_) => "int",
            Value::String(_) => "str",
            Value::Array(_) => "list",
            Value::Object(_) => "dict",
        };
        Refusal::invalid(format!(
            "Invalid value {} for parameter '{}' supplied:  Hint: Value was of type '{kind}'.{HINT}",
            compact(value),
            self.path(name)
        ))
    }

    fn inner<'b>(&self, name: &str, value: &'b Value) -> Result<Body<'b>, Refusal> {
        let fields = value.as_object().ok_or_else(|| self.invalid(name, value))?;
        Ok(Body {
            fields: Cow::Borrowed(fields),
            query: false,
            path: format!("{}.", self.path(name)),
        })
    }

    /// By its name in the protocol, or as proto-JSON's lowerCamelCase.
    fn field(&self, name: &str) -> Option<&Value> {
        let there = |value: &&Value| !value.is_null();
        let found = self.fields.get(name).filter(there);
        found.or_else(|| self.fields.get(&camel(name)).filter(there))
    }

    fn read<'b, T>(
        &'b self,
        name: &str,
        read: impl FnOnce(&'b Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| self.invalid(name, value))
    }

    fn items(&self, name: &str) -> Result<&[Value], Refusal> {
        let Some(value) = self.field(name) else {
            return Ok(&[]);
        };
        let items = value.as_array().ok_or_else(|| self.invalid(name, value))?;
        if items.len() > MAX_ITEMS {
            return Err(Refusal::invalid(format!(
                "Parameter '{}' must have at most {MAX_ITEMS} items, got {}.",
                self.path(name),
                items.len()
            )));
        }
        Ok(items)
    }
}

/// `Missing value for required parameter '…'.`
pub fn missing_value(path: &str) -> Refusal {
    Refusal::invalid(format!("Missing value for required parameter '{path}'."))
}

/// A value as MLflow prints it: compact JSON, keys sorted, ASCII only, and not too much of it.
pub(crate) fn compact(value: &Value) -> String {
    const SHOWN: usize = 2_000;
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    let mut text = String::new();
    for c in sorted.to_string().chars() {
        if text.len() > SHOWN {
            text.push_str("...");
            break;
        }
        if c.is_ascii() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a text cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

fn no_json(error: &serde_json::Error) -> Refusal {
    Refusal::invalid(format!("Invalid request: the body is no JSON: {error}"))
}

fn camel(name: &str) -> String {
    let mut upper = false;
    let mut camel = String::with_capacity(name.len());
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            camel.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    camel
}

fn whole(value: &Value) -> Option<i64> {
    // The last double below 2^63; above it a double is no i64.
    const MOST: f64 = 9_223_372_036_854_774_784.0;
    if let Some(text) = value.as_str() {
        return text.trim().parse().ok();
    }
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() <= MOST).then_some(number as i64)
    })
}

fn double(value: &Value) -> Option<f64> {
    match value.as_str() {
        None => value.as_f64(),
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite()),
    }
}

#[cfg(test)]
mod tests;
