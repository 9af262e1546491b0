//! The key of a clause: an entity's word and a name, with the quotes gone.
//!
//! It must never decide which names exist.

use crate::Refusal;

/// `entity.name`, or `name` alone, which means an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    /// The text before the first dot, as written.
    pub(crate) entity: Option<&'a str>,
    /// The text behind it, without its quotes.
    pub(crate) name: &'a str,
}

impl<'a> Key<'a> {
    /// Cuts at the first dot, as MLflow does, whatever is quoted.
    pub(crate) fn read(text: &'a str) -> Self {
        match text.split_once('.') {
            Some((entity, name)) => Self {
                entity: Some(entity),
                name: unquoted(name),
            },
            None => Self {
                entity: None,
                name: unquoted(text),
            },
        }
    }
}

/// What an entity's word means; singular, plural and short forms are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entity {
    Metric,
    Param,
    Tag,
    Attribute,
    Dataset,
}

impl Entity {
    /// The entities of runs.
    pub(crate) fn of_runs(key: &Key<'_>) -> Result<Self, Refusal> {
        let Some(word) = key.entity else {
            return Ok(Self::Attribute);
        };
        let word = without(word, '`');
        Self::read(word).ok_or_else(|| {
            Refusal::invalid(format!(
                "Invalid entity type '{word}'. Valid values are \
                 ['metric', 'parameter', 'tag', 'attribute', 'dataset']"
            ))
        })
    }

    /// The entities of experiments and of the registry: attributes and tags.
    pub(crate) fn one_of(key: &Key<'_>, valid: &[&str]) -> Result<Self, Refusal> {
        let Some(word) = key.entity else {
            return Ok(Self::Attribute);
        };
        Self::read(word)
            .filter(|_| valid.contains(&word))
            .ok_or_else(|| {
                Refusal::invalid(format!(
                    "Invalid entity type '{word}'. Valid entity types are ({})",
                    listed(valid)
                ))
            })
    }

    fn read(word: &str) -> Option<Self> {
        match word {
            "metric" | "metrics" => Some(Self::Metric),
            "param" | "params" | "parameter" | "parameters" => Some(Self::Param),
            "tag" | "tags" => Some(Self::Tag),
            "attribute" | "attributes" | "attr" | "run" => Some(Self::Attribute),
            "dataset" | "datasets" => Some(Self::Dataset),
            _ => None,
        }
    }
}

/// `Invalid attribute key …`, in MLflow's words.
pub(crate) fn no_such(what: &str, name: &str, valid: &[&str]) -> Refusal {
    Refusal::invalid(format!(
        "Invalid {what} key '{name}' specified. Valid keys are '{{{}}}'",
        listed(valid)
    ))
}

/// `'a', 'b'`, as Python shows texts.
pub(crate) fn listed(texts: &[&str]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
    quoted.join(", ")
}

fn unquoted(name: &str) -> &str {
    without(without(name, '"'), '`')
}

fn without(text: &str, quote: char) -> &str {
    text.strip_prefix(quote)
        .and_then(|inner| inner.strip_suffix(quote))
        .unwrap_or(text)
}
