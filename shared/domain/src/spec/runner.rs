//! The sections `runner` and `params`: a program of one's own as a trial, and the hyperparameters
//! that it takes.
//!
//! Such a file has no `backbone`, `dataset`, `transfer` or `train`: the program reads what it
//! likes. Its hyperparameters are written out in `params`, so that a space that misspells one is
//! refused as it is for our own keys.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::paths::{self, join};
use super::section::describe;
use crate::{Code, Fault};

mod read;

pub(super) use read::{check_keys, params, runner};

/// Where hyperparameters of a program stand.
pub(super) const PARAMS: &str = "params";
/// What variables of hyperparameters begin with.
const PARAM_PREFIX: &str = "POMONA_PARAM_";

/// What a trial runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Runner {
    /// Our trainer.
    #[default]
    Trainer,
    /// A program of one's own.
    Command(Program),
}

impl Runner {
    /// Whether it is our trainer.
    pub fn is_trainer(&self) -> bool {
        *self == Self::Trainer
    }
}

/// A program of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments; `{params.lr}`, `{seed}` and `{replicate}` are filled in.
    pub argv: Vec<String>,
    /// Variables of its environment, filled in like arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The folder it runs in, absolute, on every worker; without it a scratch folder of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Processes of one trial.
    pub processes: Processes,
}

/// Processes of one trial that runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processes {
    /// One for each slot, as `torchrun` starts them.
    PerSlot,
    /// One that has all slots.
    One,
}

/// A program with a point put in: what one trial runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramSpec {
    /// The program, its arguments and variables filled in.
    pub program: Program,
    /// All its hyperparameters.
    pub params: Map<String, Value>,
    /// Seed of everything random, together with the replicate.
    pub seed: u64,
    /// Replicate, from 0.
    pub replicate: u32,
}

impl Program {
    /// Fills hyperparameters in.
    pub(super) fn filled(&self, point: &Point<'_>) -> Result<Self, Fault> {
        let argv = self.argv.iter().map(|word| point.fill("argv", word));
        let env = self.env.iter().map(|(name, text)| {
            let text = point.fill(&format!("env.{name}"), text)?;
            Ok((name.clone(), text))
        });
        Ok(Self {
            argv: argv.collect::<Result<_, Fault>>()?,
            env: env.collect::<Result<_, Fault>>()?,
            cwd: self.cwd.clone(),
            processes: self.processes,
        })
    }
}

/// What may be filled in.
pub(super) struct Point<'a> {
    pub(super) params: &'a Map<String, Value>,
    pub(super) seed: u64,
    pub(super) replicate: u32,
}

impl Point<'_> {
    /// A text with its places filled in. Braces around anything else stay as they are.
    fn fill(&self, place: &str, text: &str) -> Result<String, Fault> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            match after.split_once('}') {
                Some((name, behind)) if is_place(name) => {
                    filled.push_str(&self.value(place, name)?);
                    rest = behind;
                }
                Some(_) | None => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, place: &str, name: &str) -> Result<String, Fault> {
        let found = match name {
            "seed" => return Ok(self.seed.to_string()),
            "replicate" => return Ok(self.replicate.to_string()),
            path => find(self.params, path),
        };
        match found {
            Some(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => {
                Ok(text_of(value))
            }
            Some(Value::Null | Value::Array(_) | Value::Object(_)) => {
                Err(nowhere(place, name, "is no single value").hint("name one of its keys"))
            }
            None => {
                let known = variables(self.params).into_values();
                let known: Vec<String> = known.map(|(path, _)| join(PARAMS, &path)).collect();
                let near = paths::nearest(name, known.iter().map(String::as_str));
                let fault = nowhere(place, name, "is not there");
                Err(match near {
                    Some(near) => fault.hint(format!("did you mean `{{{near}}}`?")),
                    None => fault.hint("hyperparameters stand under `params:`"),
                })
            }
        }
    }
}

fn is_place(name: &str) -> bool {
    matches!(name, "seed" | "replicate")
        || name.strip_prefix("params.").is_some_and(|path| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            !path.is_empty() && path.bytes().all(fits)
        })
}

fn nowhere(place: &str, name: &str, what: &str) -> Fault {
    let message = format!("runner.{place}: `{{{name}}}` {what}");
    Fault::new(Code::BadPlaceholder, message)
}

/// The value at `params.path`.
fn find<'a>(params: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.strip_prefix("params.")?.split('.');
    let first = params.get(parts.next()?)?;
    parts.try_fold(first, |node, part| node.as_object()?.get(part))
}

/// A single value as programs read it.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// The variables that hand hyperparameters to a program: name → (path below `params`, text). A name
/// is `POMONA_PARAM_` and the path in capitals, with `_` for `.` and `-`; lists are JSON.
pub fn variables(params: &Map<String, Value>) -> BTreeMap<String, (String, String)> {
    let mut all = BTreeMap::new();
    each(params, "", &mut |path, value| {
        let name = path.to_ascii_uppercase().replace(['.', '-'], "_");
        let entry = (path.to_owned(), text_of(value));
        all.insert(format!("{PARAM_PREFIX}{name}"), entry);
    });
    all
}

/// Calls for every value that is no mapping.
fn each(map: &Map<String, Value>, path: &str, tell: &mut impl FnMut(&str, &Value)) {
    for (key, value) in map {
        let path = join(path, key);
        match value {
            Value::Object(inner) => each(inner, &path, tell),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => tell(&path, value),
        }
    }
}

/// Whether a value may stand where the file has another: a hyperparameter keeps its type.
pub(super) fn type_fault(path: &str, base: &Value, value: &Value) -> Option<Fault> {
    let (fits, wanted) = match base {
        Value::Number(number) if number.is_f64() => (value.is_number(), "a number"),
        Value::Number(_) => (value.is_i64() || value.is_u64(), "a whole number"),
        Value::String(_) => (value.is_string(), "a text"),
        Value::Bool(_) => (value.is_boolean(), "true or false"),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let message = format!("{path}: expected {wanted}, found {}", describe(value));
    let fault = Fault::new(Code::WrongType, message);
    (!fits).then(|| fault.hint(format!("the file has `{base}` there")))
}
