//! A configuration is a table of keys: file < environment < flags. Unknown keys are refused
//! (`E0901`).
//!
//! Every value has the type of its key's default; what more a value must be, the program checks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use pomona_domain::{Code, Fault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::bad;

/// One key of a configuration.
#[derive(Debug)]
pub struct Key {
    /// Dotted path.
    pub path: &'static str,
    /// Its default, as TOML.
    pub default: &'static str,
    /// One sentence.
    pub doc: &'static str,
}

/// A key by its dotted path, its default as TOML, and one sentence.
pub const fn key(path: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { path, default, doc }
}

impl Key {
    /// Its default as a value.
    pub fn default(&self) -> Value {
        let line = format!("x = {}", self.default);
        line.parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("x"))
            .unwrap_or_else(|| Value::String(String::new()))
    }

    /// A value of the file or a flag, if its type is the default's.
    fn checked(&self, value: Value) -> Result<Value, Fault> {
        let wanted = self.default();
        if value.same_type(&wanted) {
            return Ok(value);
        }
        let (is, must) = (value.type_str(), wanted.type_str());
        Err(bad(format!(
            "`{}` is of type {is}, it must be of type {must}",
            self.path
        )))
    }

    /// A variable's text as the type of the default.
    fn parsed(&self, name: &str, text: &str) -> Result<Value, Fault> {
        let wanted = self.default();
        let value = if wanted.is_array() {
            let table = format!("x = {text}").parse::<Table>().ok();
            table
                .and_then(|mut table| table.remove("x"))
                .filter(Value::is_array)
        } else if wanted.is_str() {
            Some(Value::String(text.to_owned()))
        } else if wanted.is_integer() {
            text.parse().ok().map(Value::Integer)
        } else {
            text.parse().ok().map(Value::Boolean)
        };
        let must = wanted.type_str();
        value.ok_or_else(|| bad(format!("`{name}` is `{text}`, it must be of type {must}")))
    }
}

/// All keys of a program.
#[derive(Debug)]
pub struct Keys {
    /// What the name of every variable begins with.
    pub prefix: &'static str,
    /// The program, as it is typed.
    pub program: &'static str,
    /// The keys; sections stand together, those without a section come first.
    pub all: &'static [Key],
}

impl Keys {
    /// The environment variable that sets a key.
    pub fn variable(&self, key: &Key) -> String {
        let name = key.path.to_uppercase().replace('.', "_");
        format!("{}{name}", self.prefix)
    }

    /// The variables of this process that are meant for the program.
    pub fn environment(&self) -> Result<BTreeMap<String, String>, Fault> {
        let prefix = self.prefix.as_bytes();
        std::env::vars_os()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(prefix))
            .map(|(name, value)| {
                let name = name.to_string_lossy().into_owned();
                match value.into_string() {
                    Ok(value) => Ok((name, value)),
                    Err(_) => Err(bad(format!("the variable `{name}` is not UTF-8"))),
                }
            })
            .collect()
    }

    /// All defaults as a table.
    pub fn defaults(&self) -> Table {
        let mut table = Table::new();
        for key in self.all {
            put(&mut table, key.path, key.default());
        }
        table
    }

    /// Lays environment and flags over `file`. A flag without a value was not given.
    pub fn layered<T: DeserializeOwned>(
        &self,
        file: &Table,
        environment: BTreeMap<String, String>,
        flags: impl IntoIterator<Item = (&'static str, Option<Value>)>,
    ) -> Result<T, Fault> {
        let mut values = self.defaults();
        for (path, value) in leaves(file, "") {
            let key = self.find(&path)?;
            put(&mut values, key.path, key.checked(value)?);
        }
        for (name, text) in environment {
            let key = self.find_variable(&name)?;
            put(&mut values, key.path, key.parsed(&name, &text)?);
        }
        for (path, value) in flags {
            let key = self.find(path)?;
            if let Some(value) = value {
                put(&mut values, key.path, key.checked(value)?);
            }
        }
        Value::Table(values)
            .try_into()
            .map_err(|error: toml::de::Error| bad(error.message()))
    }

    /// The effective configuration as TOML, every key annotated. Whoever calls it has masked the
    /// secrets.
    pub fn render<T: Serialize>(&self, config: &T) -> String {
        let table = Table::try_from(config).unwrap_or_default();
        let values: BTreeMap<String, Value> = leaves(&table, "").into_iter().collect();
        self.written("# The effective configuration.\n", |key| {
            values
                .get(key.path)
                .map(Value::to_string)
                .unwrap_or_default()
        })
    }

    /// The program's file in `config/`: every key with its default.
    pub fn file(&self) -> String {
        let whose = self.program.trim_start_matches("pomona-");
        let head = format!(
            "# The {whose}'s configuration: every key with its default.\n\
             # Flags go before variables, variables before this file. Unknown keys are refused.\n"
        );
        self.written(&head, |key| key.default.to_owned())
    }

    /// Every key with its sentence, its variable and a value, as TOML.
    fn written(&self, head: &str, value: impl Fn(&Key) -> String) -> String {
        let mut text = head.to_owned();
        let mut section = "";
        for key in self.all {
            let (here, name) = key.path.split_once('.').unwrap_or(("", key.path));
            if here != section {
                section = here;
                let _ = write!(text, "\n[{section}]");
            }
            let (doc, variable) = (key.doc, self.variable(key));
            let _ = write!(text, "\n# {doc}\n# {variable}\n{name} = {}\n", value(key));
        }
        text
    }

    fn find(&self, path: &str) -> Result<&'static Key, Fault> {
        let found = self.all.iter().find(|key| key.path == path);
        found.ok_or_else(|| {
            let fault = bad(format!("`{path}` is not a key of the configuration"));
            let names = self.all.iter().map(|key| key.path.to_owned());
            fault.hint(self.hint(path, names))
        })
    }

    fn find_variable(&self, name: &str) -> Result<&'static Key, Fault> {
        let found = self.all.iter().find(|key| self.variable(key) == name);
        found.ok_or_else(|| {
            let fault = bad(format!(
                "the variable `{name}` names no key of the configuration"
            ));
            let names = self.all.iter().map(|key| self.variable(key));
            fault.hint(self.hint(name, names))
        })
    }

    /// What was meant, if a name is near, and where all names are.
    fn hint(&self, wrong: &str, names: impl Iterator<Item = String>) -> String {
        // What all variables have in common says nothing about which one was meant.
        let said = wrong.strip_prefix(self.prefix).unwrap_or(wrong);
        let near = names
            .map(|name| (strsim::damerau_levenshtein(wrong, &name), name))
            .min()
            .filter(|(distance, _)| *distance <= said.len().div_ceil(3));
        let all = format!("`{} check-config` prints every key", self.program);
        match near {
            Some((_, name)) => format!("did you mean `{name}`? {all}"),
            None => all,
        }
    }
}

/// A file as a table; without a file, an empty one.
pub fn read(path: Option<&Path>) -> Result<Table, Fault> {
    let Some(path) = path else {
        return Ok(Table::new());
    };
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot read `{shown}`: {error}");
        Fault::new(Code::LocalFile, message)
    })?;
    text.parse().map_err(|error: toml::de::Error| {
        bad(format!("`{shown}` is not TOML: {}", error.message()))
    })
}

/// Every value of a table with its dotted path.
fn leaves(table: &Table, prefix: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in table {
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value.as_table() {
            Some(inner) => found.extend(leaves(inner, &path)),
            None => found.push((path, value.clone())),
        }
    }
    found
}

fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Some(inner) = inner.as_table_mut() {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
