//! From clauses to comparisons: which field a key names, and which operators and values it takes.
//!
//! It must never let a comparison out whose value does not fit its operator.

use super::field::{
    DatasetField, ExperimentAttribute, ExperimentField, LoggedModelAttribute, LoggedModelField,
    ModelVersionAttribute, ModelVersionField, RegisteredModelField, RunAttribute, RunField,
};
use super::key::{Entity, Key, listed, no_such};
use super::read::{self, Clause, Literal};
use super::{Comparison, Op, Value};
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

/// What a field is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A bare number, a metric's.
    Number,
    /// Milliseconds: a bare number, whole or not.
    Time,
    /// A bare whole number.
    Integer,
    /// A whole number, in quotes or not.
    Version,
    /// A text in quotes.
    Text,
    /// A text in quotes, or a bare number or word taken for one (logged models only).
    LooseText,
}

/// How a field may be compared.
pub(super) struct Rules {
    ops: &'static [Op],
    takes: Takes,
    /// What messages call it.
    called: String,
    /// Said when a list comes where none may.
    no_list: String,
}

impl Rules {
    fn new(ops: &'static [Op], takes: Takes, called: impl Into<String>) -> Self {
        Self {
            ops,
            takes,
            called: called.into(),
            no_list: String::new(),
        }
    }

    fn lists_only(mut self, keys: &[&str]) -> Self {
        self.no_list = format!(
            "Only [{}] attributes support comparison with a list of quoted string values.",
            listed(keys)
        );
        self
    }
}

pub(super) trait Field: Sized {
    fn read(key: &Key<'_>) -> Result<Self, Refusal>;
    fn rules(&self) -> Rules;
    /// What is said of `IS NULL` where there is none.
    fn no_null(key: &str) -> String;
    /// A last look at a comparison whose operator and value fit.
    fn accept(&self, _value: &Value) -> Result<(), Refusal> {
        Ok(())
    }
}

pub(super) fn comparisons<F: Field>(filter: &str) -> Result<Vec<Comparison<F>>, Refusal> {
    let clauses = read::clauses(filter)?;
    clauses.iter().map(comparison).collect()
}

fn comparison<F: Field>(clause: &Clause<'_>) -> Result<Comparison<F>, Refusal> {
    let field = F::read(&Key::read(clause.key))?;
    let rules = field.rules();
    let op = clause.op.filter(|op| rules.ops.contains(op));
    if clause.value == Literal::Absent && op.is_none() {
        return Err(Refusal::invalid(F::no_null(clause.key)));
    }
    let value = value(&rules, &clause.value)?;
    let op = op.ok_or_else(|| {
        let valid: Vec<&str> = rules.ops.iter().map(|op| op.text()).collect();
        Refusal::invalid(format!(
            "Invalid comparator '{}' not one of '{{{}}}'",
            clause.op_text,
            listed(&valid)
        ))
    })?;
    if matches!(value, Value::List(_)) != matches!(op, Op::In | Op::NotIn) {
        return Err(Refusal::invalid(format!(
            "Invalid comparison clause. '{}' does not take '{}'",
            op.text(),
            clause.value.raw()
        )));
    }
    field.accept(&value)?;
    Ok(Comparison { field, op, value })
}

fn value(rules: &Rules, literal: &Literal<'_>) -> Result<Value, Refusal> {
    if *literal == Literal::Absent {
        return Ok(Value::Nothing);
    }
    let refused = || Refusal::invalid(wrong_value(rules, literal));
    match rules.takes {
        Takes::Number => number(literal).map(Value::Number).ok_or_else(refused),
        Takes::Time => integer(literal)
            .map(Value::Integer)
            .or_else(|| number(literal).map(Value::Number))
            .ok_or_else(refused),
        Takes::Integer => integer(literal).map(Value::Integer).ok_or_else(refused),
        Takes::Version => {
            let quoted = if let Literal::Quoted { inner, .. } = literal {
                inner.trim().parse().ok()
            } else {
                integer(literal)
            };
            quoted.map(Value::Integer).ok_or_else(refused)
        }
        Takes::Text | Takes::LooseText => text(rules, literal),
    }
}

fn number(literal: &Literal<'_>) -> Option<f64> {
    let (Literal::Integer(text) | Literal::Float(text)) = literal else {
        return None;
    };
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn integer(literal: &Literal<'_>) -> Option<i64> {
    let Literal::Integer(text) = literal else {
        return None;
    };
    text.parse().ok()
}

fn text(rules: &Rules, literal: &Literal<'_>) -> Result<Value, Refusal> {
    match literal {
        Literal::Quoted { inner, .. } => Ok(Value::Text((*inner).to_owned())),
        Literal::List { raw, items } => {
            if !rules.ops.contains(&Op::In) {
                return Err(Refusal::invalid(wrong_value(rules, literal)));
            }
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    Literal::Quoted { inner, .. } => Some((*inner).to_owned()),
                    Literal::Integer(_)
                    | Literal::Float(_)
                    | Literal::Bare(_)
                    | Literal::List { .. }
                    | Literal::Absent => None,
                })
                .collect();
            texts.map(Value::List).ok_or_else(|| {
                Refusal::invalid(format!(
                    "While parsing a list in the query, expected string value, punctuation, or \
                     whitespace, but got different type in list: {raw}"
                ))
            })
        }
        Literal::Integer(raw) | Literal::Float(raw) | Literal::Bare(raw)
            if rules.takes == Takes::LooseText =>
        {
            Ok(Value::Text((*raw).to_owned()))
        }
        Literal::Bare(raw) => Err(Refusal::invalid(format!(
            "Parameter value is either not quoted or unidentified quote types used for string \
             value {raw}. Use either single or double quotes."
        ))),
        Literal::Integer(_) | Literal::Float(_) | Literal::Absent => {
            Err(Refusal::invalid(wrong_value(rules, literal)))
        }
    }
}

fn wrong_value(rules: &Rules, literal: &Literal<'_>) -> String {
    let (called, raw) = (&rules.called, literal.raw());
    let is_list = matches!(literal, Literal::List { .. });
    match rules.takes {
        Takes::Text | Takes::LooseText if is_list && !rules.no_list.is_empty() => {
            rules.no_list.clone()
        }
        Takes::Number | Takes::Time => {
            format!("Expected numeric value type for {called}. Found {raw}")
        }
        Takes::Integer | Takes::Version => format!("Invalid value for {called}: {raw}"),
        Takes::Text | Takes::LooseText => {
            format!(
                "Expected a quoted string value for {called} (e.g. 'my-value'). Got value {raw}"
            )
        }
    }
}

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
