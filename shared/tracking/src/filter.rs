//! MLflow's filter strings, read into typed comparisons that a SQL layer translates without reading
//! text again.
//!
//! The grammar is `key op value` joined by `AND`: no `OR`, no parentheses but around the list of
//! `IN`. What a field is compared with, and how, is checked here, so a comparison that leaves this
//! module is always one that MLflow's stores would carry out. It must never panic, and never build
//! SQL.

mod check;
mod field;
pub(crate) mod key;
mod read;
mod rules;

pub use field::{
    DatasetField, ExperimentAttribute, ExperimentField, LoggedModelAttribute, LoggedModelField,
    ModelVersionAttribute, ModelVersionField, RegisteredModelField, RunAttribute, RunField,
};

pub(crate) use read::ordered_key;

use crate::Refusal;

/// The longest filter that is read, in bytes.
pub const MAX_FILTER_BYTES: usize = 200_000;
/// The most comparisons of one filter.
pub const MAX_COMPARISONS: usize = 100;
/// The most values of one `IN` list.
pub const MAX_LIST_VALUES: usize = 1_000;

/// One condition of a filter; all of a filter's must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison<F> {
    /// What is compared.
    pub field: F,
    /// How.
    pub op: Op,
    /// With what; its variant fits `op` and `field`.
    pub value: Value,
}

/// How a field is compared. A comparison with a tag or a parameter holds only for entities that have
/// the key, except for [`Op::IsNull`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `LIKE`: case-sensitive, `%` is any run of characters and `_` any one; nothing escapes them.
    Like,
    /// `ILIKE`: [`Op::Like`] without regard to case.
    Ilike,
    /// `IN`
    In,
    /// `NOT IN`
    NotIn,
    /// `IS NULL`: the entity has no such key.
    IsNull,
    /// `IS NOT NULL`: the entity has the key.
    IsNotNull,
}

impl Op {
    /// As it is written in a filter, and in SQL.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Like => "LIKE",
            Self::Ilike => "ILIKE",
            Self::In => "IN",
            Self::NotIn => "NOT IN",
            Self::IsNull => "IS NULL",
            Self::IsNotNull => "IS NOT NULL",
        }
    }
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number: times in milliseconds and version numbers.
    Integer(i64),
    /// A number: metrics, always; never NaN nor infinite.
    Number(f64),
    /// The texts of an `IN` list, at least one.
    List(Vec<String>),
    /// Nothing: `IS NULL`, `IS NOT NULL`.
    Nothing,
}

/// The filter of `runs/search`.
pub fn runs(filter: &str) -> Result<Vec<Comparison<RunField>>, Refusal> {
    check::comparisons(filter)
}

/// The filter of `experiments/search`.
pub fn experiments(filter: &str) -> Result<Vec<Comparison<ExperimentField>>, Refusal> {
    check::comparisons(filter)
}

/// The filter of `registered-models/search`.
pub fn registered_models(filter: &str) -> Result<Vec<Comparison<RegisteredModelField>>, Refusal> {
    check::comparisons(filter)
}

/// The filter of `model-versions/search`.
pub fn model_versions(filter: &str) -> Result<Vec<Comparison<ModelVersionField>>, Refusal> {
    check::comparisons(filter)
}

/// The filter of `logged-models/search`.
pub fn logged_models(filter: &str) -> Result<Vec<Comparison<LoggedModelField>>, Refusal> {
    check::comparisons(filter)
}

/// A `LIKE` pattern as a pattern of SQLite's `GLOB`, which regards case where its `LIKE` does not.
pub fn glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '%' => glob.push('*'),
            '_' => glob.push('?'),
            '*' | '?' | '[' => glob.extend(['[', c, ']']),
            other => glob.push(other),
        }
    }
    glob
}

#[cfg(test)]
mod tests;
