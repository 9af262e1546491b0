//! What each kind of entity is searched by: which keys name a field, and how it may be compared.
//!
//! It must never read a filter's text; it says what a key means and what a field takes.

use super::check::{Field, Rules, Takes};
use super::field::{
    DatasetField, ExperimentAttribute, ExperimentField, LoggedModelAttribute, LoggedModelField,
    ModelVersionAttribute, ModelVersionField, RegisteredModelField, RunAttribute, RunField,
};
use super::key::{Entity, Key, no_such};
use super::{Op, Value};
use crate::Refusal;

const NUMBER_OPS: &[Op] = &[
    Op::Greater,
    Op::GreaterOrEqual,
    Op::NotEqual,
    Op::Equal,
    Op::Less,
    Op::LessOrEqual,
];
const TEXT_OPS: &[Op] = &[Op::NotEqual, Op::Equal, Op::Like, Op::Ilike];
const LIST_OPS: &[Op] = &[
    Op::NotEqual,
    Op::Equal,
    Op::Like,
    Op::Ilike,
    Op::In,
    Op::NotIn,
];
const KEY_OPS: &[Op] = &[
    Op::NotEqual,
    Op::Equal,
    Op::Like,
    Op::Ilike,
    Op::IsNull,
    Op::IsNotNull,
];
const NAME_OPS: &[Op] = &[Op::NotEqual, Op::Equal, Op::In, Op::NotIn];

impl Field for RunField {
    fn read(key: &Key<'_>) -> Result<Self, Refusal> {
        let name = key.name;
        Ok(match Entity::of_runs(key)? {
            Entity::Metric => Self::Metric(name.to_owned()),
            Entity::Param => Self::Param(name.to_owned()),
            Entity::Tag => Self::Tag(name.to_owned()),
            Entity::Attribute => Self::Attribute(
                RunAttribute::read(name)
                    .ok_or_else(|| no_such("attribute", name, &RunAttribute::NAMES))?,
            ),
            Entity::Dataset => Self::Dataset(
                DatasetField::read(name)
                    .ok_or_else(|| no_such("dataset", name, &DatasetField::NAMES))?,
            ),
        })
    }

    fn rules(&self) -> Rules {
        match self {
            Self::Metric(_) => Rules::new(NUMBER_OPS, Takes::Number, "metric"),
            Self::Param(_) => Rules::new(KEY_OPS, Takes::Text, "parameter"),
            Self::Tag(_) => Rules::new(KEY_OPS, Takes::Text, "tag"),
            Self::Dataset(_) => Rules::new(LIST_OPS, Takes::Text, "dataset attributes"),
            Self::Attribute(RunAttribute::StartTime) => {
                Rules::new(NUMBER_OPS, Takes::Time, "numeric attribute: start_time")
            }
            Self::Attribute(RunAttribute::EndTime) => {
                Rules::new(NUMBER_OPS, Takes::Time, "numeric attribute: end_time")
            }
            Self::Attribute(RunAttribute::RunId) => Rules::new(LIST_OPS, Takes::Text, "attributes"),
            Self::Attribute(
                RunAttribute::RunName
                | RunAttribute::UserId
                | RunAttribute::Status
                | RunAttribute::ArtifactUri,
            ) => Rules::new(TEXT_OPS, Takes::Text, "attributes").lists_only(&["run_id"]),
        }
    }

    fn no_null(key: &str) -> String {
        format!("IS NULL / IS NOT NULL is only supported for tags and params, not for '{key}'")
    }
}

impl Field for ExperimentField {
    fn read(key: &Key<'_>) -> Result<Self, Refusal> {
        let entity = Entity::one_of(key, &["attribute", "attributes", "tag", "tags"])?;
        if entity == Entity::Tag {
            return Ok(Self::Tag(key.name.to_owned()));
        }
        ExperimentAttribute::read(key.name)
            .map(Self::Attribute)
            .ok_or_else(|| no_such("attribute", key.name, &ExperimentAttribute::NAMES))
    }

    fn rules(&self) -> Rules {
        match self {
            Self::Tag(_) => Rules::new(KEY_OPS, Takes::Text, "tag"),
            Self::Attribute(ExperimentAttribute::Name) => {
                Rules::new(TEXT_OPS, Takes::Text, "attributes").lists_only(&["experiment_id"])
            }
            Self::Attribute(ExperimentAttribute::ExperimentId) => {
                Rules::new(NAME_OPS, Takes::Text, "attributes")
            }
            Self::Attribute(ExperimentAttribute::CreationTime) => Rules::new(
                NUMBER_OPS,
                Takes::Integer,
                "numeric attribute 'creation_time'",
            ),
            Self::Attribute(ExperimentAttribute::LastUpdateTime) => Rules::new(
                NUMBER_OPS,
                Takes::Integer,
                "numeric attribute 'last_update_time'",
            ),
        }
    }

    fn no_null(key: &str) -> String {
        format!("IS NULL / IS NOT NULL is only supported for tags, not for attribute '{key}'")
    }
}

impl Field for RegisteredModelField {
    fn read(key: &Key<'_>) -> Result<Self, Refusal> {
        let entity = Entity::one_of(key, &["attribute", "tag", "tags"])?;
        match (entity == Entity::Tag, key.name) {
            (true, name) => Ok(Self::Tag(name.to_owned())),
            (false, "name") => Ok(Self::Name),
            (false, name) => Err(no_such("attribute", name, &["name"])),
        }
    }

    fn rules(&self) -> Rules {
        match self {
            Self::Tag(_) => Rules::new(TEXT_OPS, Takes::Text, "tag"),
            Self::Name => Rules::new(LIST_OPS, Takes::Text, "attributes"),
        }
    }

    fn no_null(_key: &str) -> String {
        "IS NULL / IS NOT NULL is not supported for registered model search.".to_owned()
    }
}

impl Field for ModelVersionField {
    fn read(key: &Key<'_>) -> Result<Self, Refusal> {
        let entity = Entity::one_of(key, &["attribute", "tag", "tags"])?;
        if entity == Entity::Tag {
            return Ok(Self::Tag(key.name.to_owned()));
        }
        ModelVersionAttribute::read(key.name)
            .map(Self::Attribute)
            .ok_or_else(|| no_such("attribute", key.name, &ModelVersionAttribute::NAMES))
    }

    fn rules(&self) -> Rules {
        match self {
            Self::Tag(_) => Rules::new(TEXT_OPS, Takes::Text, "tag"),
            Self::Attribute(ModelVersionAttribute::VersionNumber) => Rules::new(
                NUMBER_OPS,
                Takes::Version,
                "numeric attribute 'version_number'",
            ),
            Self::Attribute(ModelVersionAttribute::SourcePath) => {
                Rules::new(TEXT_OPS, Takes::Text, "attributes").lists_only(&["name", "run_id"])
            }
            Self::Attribute(ModelVersionAttribute::Name | ModelVersionAttribute::RunId) => {
                Rules::new(LIST_OPS, Takes::Text, "attributes")
            }
        }
    }

    fn no_null(_key: &str) -> String {
        "IS NULL / IS NOT NULL is not supported for model version search.".to_owned()
    }
}

impl Field for LoggedModelField {
    fn read(key: &Key<'_>) -> Result<Self, Refusal> {
        let name = key.name.to_owned();
        match key.entity {
            Some("metrics") => Ok(Self::Metric(name)),
            Some("params") => Ok(Self::Param(name)),
            Some("tags") => Ok(Self::Tag(name)),
            None | Some("attributes") => LoggedModelAttribute::read(&name)
                .map(Self::Attribute)
                .ok_or_else(|| no_such("attribute", &name, &LoggedModelAttribute::NAMES)),
            Some(other) => Err(Refusal::invalid(format!(
                "Invalid entity type: '{other}'. Expected one of \
                 ['attributes', 'metrics', 'params', 'tags']."
            ))),
        }
    }

    fn rules(&self) -> Rules {
        match self {
            Self::Metric(_) => Rules::new(NUMBER_OPS, Takes::Number, "metric"),
            Self::Param(_) => Rules::new(LIST_OPS, Takes::LooseText, "parameter"),
            Self::Tag(_) => Rules::new(LIST_OPS, Takes::LooseText, "tag"),
            Self::Attribute(attribute) if attribute.is_number() => {
                Rules::new(NUMBER_OPS, Takes::Time, "numeric attribute")
            }
            Self::Attribute(LoggedModelAttribute::Status) => {
                Rules::new(NAME_OPS, Takes::LooseText, "attributes")
            }
            Self::Attribute(_) => Rules::new(LIST_OPS, Takes::LooseText, "attributes"),
        }
    }

    fn no_null(key: &str) -> String {
        format!("Invalid comparison: {key} IS NULL. Expected a comparison with 3 tokens.")
    }

    fn accept(&self, value: &Value) -> Result<(), Refusal> {
        if *self != Self::Attribute(LoggedModelAttribute::Status) {
            return Ok(());
        }
        let texts = match value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::List(texts) => texts,
            Value::Integer(_) | Value::Number(_) | Value::Nothing => &[],
        };
        let unknown = |text: &&String| !LoggedModelAttribute::STATUSES.contains(&text.as_str());
        texts.iter().find(unknown).map_or(Ok(()), |text| {
            Err(Refusal::invalid(format!(
                "Unknown model status in filter: '{text}'"
            )))
        })
    }
}
