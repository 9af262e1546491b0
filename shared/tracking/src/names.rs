//! Which names, ids and values MLflow takes, and how many of them.
//!
//! Every limit of the protocol is a constant here. What is too long is refused, or cut where MLflow
//! cuts it. Lengths are counted in characters, as MLflow counts them. It must never look anything up:
//! whether a name is free is the store's to say.

use crate::Refusal;

/// The longest key of a metric, a parameter or a run's tag.
pub const MAX_KEY: usize = 250;
/// The longest value of a parameter; a longer one is cut.
pub const MAX_PARAM_VALUE: usize = 6_000;
/// The longest value of a run's tag; a longer one is cut.
pub const MAX_TAG_VALUE: usize = 8_000;
/// The longest name of an experiment.
pub const MAX_EXPERIMENT_NAME: usize = 500;
/// The longest key of an experiment's tag.
pub const MAX_EXPERIMENT_TAG_KEY: usize = 250;
/// The longest value of an experiment's tag.
pub const MAX_EXPERIMENT_TAG_VALUE: usize = 20_000;
/// The longest key of a tag in the registry.
pub const MAX_REGISTRY_TAG_KEY: usize = 250;
/// The longest value of a tag in the registry.
pub const MAX_REGISTRY_TAG_VALUE: usize = 100_000;
/// The longest name of a registered model. MLflow leaves it to the database, whose column has 256.
pub const MAX_MODEL_NAME: usize = 256;
/// The longest alias.
pub const MAX_ALIAS: usize = 255;
/// The longest name of a dataset.
pub const MAX_DATASET_NAME: usize = 500;
/// The longest digest of a dataset.
pub const MAX_DATASET_DIGEST: usize = 36;
/// The longest schema of a dataset.
pub const MAX_DATASET_SCHEMA: usize = 1_048_575;
/// The longest source of a dataset.
pub const MAX_DATASET_SOURCE: usize = 65_535;
/// The longest profile of a dataset.
pub const MAX_DATASET_PROFILE: usize = 16_777_215;
/// The longest key of an input's tag.
pub const MAX_INPUT_TAG_KEY: usize = 255;
/// The longest value of an input's tag.
pub const MAX_INPUT_TAG_VALUE: usize = 500;
/// The longest id of a run.
pub const MAX_RUN_ID: usize = 256;
/// The longest id of an experiment.
pub const MAX_EXPERIMENT_ID: usize = 64;

const BAD_CHARACTERS: &str = "Names may only contain alphanumerics, underscores (_), dashes (-), \
     periods (.), spaces ( ), colon(:) and slashes (/).";

/// `Invalid value … for parameter '…' supplied`, the value as compact JSON.
pub fn invalid_value(path: &str, value: &str, why: Option<&str>) -> Refusal {
    let value = crate::params::compact(&value.into());
    Refusal::invalid(match why {
        Some(why) => format!("Invalid value {value} for parameter '{path}' supplied: {why}"),
        None => format!("Invalid value {value} for parameter '{path}' supplied."),
    })
}

/// A metric's key; `path` is the parameter that refusals name.
pub fn metric_key(key: &str, path: &str) -> Result<(), Refusal> {
    key_form(key, path)?;
    at_most("Metric name", MAX_KEY, key)
}

/// When a metric was measured: not before 1970.
pub fn metric_timestamp(key: &str, value: f64, timestamp: i64, path: &str) -> Result<(), Refusal> {
    if timestamp >= 0 {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "Invalid value {timestamp} for parameter '{path}' supplied: metric '{key}' (value={value:?}). \
         Timestamp must be a nonnegative long (64-bit integer) "
    )))
}

/// A parameter's key.
pub fn param_key(key: &str, path: &str) -> Result<(), Refusal> {
    key_form(key, path)?;
    at_most("Param key", MAX_KEY, key)
}

/// The key of a run's tag.
pub fn tag_key(key: &str, path: &str) -> Result<(), Refusal> {
    key_form(key, path)?;
    at_most(path, MAX_KEY, key)
}

/// A parameter's value, cut to its limit.
pub fn param_value(value: &str) -> &str {
    cut(value, MAX_PARAM_VALUE)
}

/// The value of a run's tag, cut to its limit.
pub fn tag_value(value: &str) -> &str {
    cut(value, MAX_TAG_VALUE)
}

/// The tag of an experiment that says for how many days after their end runs keep every point;
/// later a metric's history keeps its shape.
pub const FULL_DAYS: &str = "pomona.points.full_days";
/// The most days of [`FULL_DAYS`], a century.
const MOST_DAYS: u32 = 36_525;

/// A tag of an experiment.
pub fn experiment_tag(key: &str, value: &str) -> Result<(), Refusal> {
    key_form(key, "key")?;
    at_most("key", MAX_EXPERIMENT_TAG_KEY, key)?;
    at_most("value", MAX_EXPERIMENT_TAG_VALUE, value)?;
    if key == FULL_DAYS && !value.parse().is_ok_and(|days: u32| days <= MOST_DAYS) {
        return Err(Refusal::invalid(format!(
            "Tag '{FULL_DAYS}' must be a number of days from 0 to {MOST_DAYS}. Got '{value}'."
        )));
    }
    Ok(())
}

/// A tag of a registered model or of a version.
pub fn registry_tag(key: &str, value: &str) -> Result<(), Refusal> {
    key_form(key, "key")?;
    at_most("key", MAX_REGISTRY_TAG_KEY, key)?;
    at_most("value", MAX_REGISTRY_TAG_VALUE, value)
}

/// A tag of a dataset's use.
pub fn input_tag(key: &str, value: &str) -> Result<(), Refusal> {
    at_most("key", MAX_INPUT_TAG_KEY, key)?;
    at_most("value", MAX_INPUT_TAG_VALUE, value)
}

/// A dataset as `log-inputs` sends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dataset<'a> {
    /// `name`
    pub name: &'a str,
    /// `digest`
    pub digest: &'a str,
    /// `source`
    pub source: &'a str,
    /// `schema`
    pub schema: Option<&'a str>,
    /// `profile`
    pub profile: Option<&'a str>,
}

/// The lengths of a dataset's fields.
pub fn dataset(dataset: &Dataset<'_>) -> Result<(), Refusal> {
    at_most("name", MAX_DATASET_NAME, dataset.name)?;
    at_most("digest", MAX_DATASET_DIGEST, dataset.digest)?;
    at_most("source", MAX_DATASET_SOURCE, dataset.source)?;
    at_most(
        "schema",
        MAX_DATASET_SCHEMA,
        dataset.schema.unwrap_or_default(),
    )?;
    at_most(
        "profile",
        MAX_DATASET_PROFILE,
        dataset.profile.unwrap_or_default(),
    )
}

/// A run's id: a letter or digit of ASCII, then up to 255 letters, digits, `_`, `-`.
pub fn run_id(id: &str, path: &str) -> Result<(), Refusal> {
    if is_id(id, MAX_RUN_ID) {
        return Ok(());
    }
    Err(invalid_value(path, id, None))
}

/// An experiment's id.
pub fn experiment_id(id: &str) -> Result<(), Refusal> {
    if is_id(id, MAX_EXPERIMENT_ID) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("Invalid experiment ID: '{id}'")))
}

/// An experiment's name.
pub fn experiment_name(name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() {
        return Err(Refusal::invalid(format!(
            "Invalid experiment name: '{name}'"
        )));
    }
    at_most("name", MAX_EXPERIMENT_NAME, name)
}

/// A registered model's name.
pub fn model_name(name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() {
        return Err(crate::params::missing_value("name"));
    }
    if name.contains(['/', ':']) {
        return Err(Refusal::invalid(format!(
            "Invalid model name '{name}'. Names cannot contain '/' or ':'."
        )));
    }
    is_its_own_path(name, "name")?;
    at_most("name", MAX_MODEL_NAME, name)
}

/// The number of a model version; it is sent as text.
pub fn model_version(version: &str) -> Result<u32, Refusal> {
    version.trim().parse().map_err(|_| {
        Refusal::invalid(format!(
            "Parameter 'version' must be an integer, got '{version}'."
        ))
    })
}

/// An alias that can be read; [`new_alias`] asks more of one that is to be set.
pub fn alias(alias: &str) -> Result<(), Refusal> {
    if alias.is_empty() {
        return Err(Refusal::invalid(
            "Registered model alias name cannot be empty.",
        ));
    }
    if !alias.chars().all(|c| is_word(c) || c == '-') {
        return Err(Refusal::invalid(format!(
            "Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), \
             and dashes (-)."
        )));
    }
    at_most("Registered model alias name", MAX_ALIAS, alias)
}

/// An alias that is to be set: not `latest`, and nothing that reads as a version.
pub fn new_alias(name: &str) -> Result<(), Refusal> {
    alias(name)?;
    if name.eq_ignore_ascii_case("latest") {
        return Err(Refusal::invalid(
            "'latest' alias name (case insensitive) is reserved.",
        ));
    }
    let version = name.strip_prefix(['v', 'V']).unwrap_or_default();
    if !version.is_empty() && version.chars().all(char::is_numeric) {
        return Err(Refusal::invalid(format!(
            "Version alias name '{name}' is reserved."
        )));
    }
    Ok(())
}

/// Refuses a text with more than `limit` characters.
pub fn at_most(what: &str, limit: usize, text: &str) -> Result<(), Refusal> {
    if text.len() > limit && text.chars().nth(limit).is_some() {
        return Err(Refusal::invalid(format!(
            "'{what}' exceeds the maximum length of {limit} characters"
        )));
    }
    Ok(())
}

fn cut(text: &str, limit: usize) -> &str {
    match text.char_indices().nth(limit) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

fn key_form(key: &str, path: &str) -> Result<(), Refusal> {
    let is_fit = |c: char| is_word(c) || matches!(c, '/' | '.' | '-' | ' ' | ':');
    if !key.chars().all(is_fit) {
        return Err(invalid_value(path, key, Some(BAD_CHARACTERS)));
    }
    is_its_own_path(key, path)
}

/// A name that is also a path must be the path that it resolves to.
fn is_its_own_path(name: &str, path: &str) -> Result<(), Refusal> {
    let normal = normal_path(name);
    if normal == name && normal != "." && !normal.starts_with("..") && !normal.starts_with('/') {
        return Ok(());
    }
    let why = format!(
        "Names may be treated as files in certain cases, and must not resolve to other names when \
         treated as such. This name would resolve to '{normal}'"
    );
    Err(invalid_value(path, name, Some(&why)))
}

/// POSIX path normalisation: empty and `.` parts go, `..` takes a part with it, two leading slashes
/// stay two.
fn normal_path(path: &str) -> String {
    let root = match path.bytes().take_while(|byte| *byte == b'/').count() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        let is_up = part == "..";
        if !is_up || (root.is_empty() && parts.last().is_none_or(|last| *last == "..")) {
            parts.push(part);
        } else {
            parts.pop();
        }
    }
    let normal = format!("{root}{}", parts.join("/"));
    if normal.is_empty() {
        ".".to_owned()
    } else {
        normal
    }
}

fn is_id(id: &str, limit: usize) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| is_word(c) || c == '-')
        && id.chars().count() <= limit
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests;
