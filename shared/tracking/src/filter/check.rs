//! From clauses to comparisons: which field a key names, and which operators and values it takes.
//!
//! It must never let a comparison out whose value does not fit its operator.

use super::key::{Key, listed};
use super::read::{self, Clause, Literal};
use super::{Comparison, Op, Value};
use crate::Refusal;

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
    pub(super) fn new(ops: &'static [Op], takes: Takes, called: impl Into<String>) -> Self {
        Self {
            ops,
            takes,
            called: called.into(),
            no_list: String::new(),
        }
    }

    pub(super) fn lists_only(mut self, keys: &[&str]) -> Self {
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
