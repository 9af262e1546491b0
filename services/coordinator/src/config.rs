//! Configuration: file < environment < flag. Unknown keys are refused (`E0901`).
//!
//! [`KEYS`] says every key once; `config/coordinator.toml` is that list written out, and a test
//! holds the two together.

mod keys;

pub use keys::KEYS;

use pomona_domain::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

use crate::args::ServeArgs;
use keys::Key;

/// Every variable of ours begins with this.
pub const ENV_PREFIX: &str = "POMONA_COORDINATOR_";

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub listen: String,
    pub data_dir: String,
    pub insecure_behind_proxy: bool,
    pub store: StoreSection,
    pub http: HttpSection,
    pub workers: WorkersSection,
    pub scheduler: SchedulerSection,
    pub events: EventsSection,
    pub blobs: BlobsSection,
    pub metrics: MetricsSection,
    pub log: LogSection,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreSection {
    pub url: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpSection {
    pub threads: usize,
    pub max_connections: usize,
    pub max_body_bytes: usize,
    pub max_blob_bytes: u64,
    pub stop_grace_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkersSection {
    pub poll_wait_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SchedulerSection {
    pub tick_ms: u64,
    pub lease_term_ms: i64,
    pub stop_grace_ms: i64,
    pub backoff_base_ms: i64,
    pub backoff_max_ms: i64,
    pub lost_after_ms: i64,
    pub max_task_attempts: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventsSection {
    pub kept: usize,
    pub kept_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlobsSection {
    pub collect_every_s: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsSection {
    pub max_experiments: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogSection {
    pub filter: String,
    pub format: String,
}

impl Config {
    /// The effective configuration of this process.
    pub fn load(args: &ServeArgs) -> Result<Self, Fault> {
        let file = match &args.common.config {
            Some(path) => read(path)?,
            None => Table::new(),
        };
        let environment = std::env::vars().filter(|(name, _)| name.starts_with(ENV_PREFIX));
        Self::layered(&file, environment.collect(), args)
    }

    /// Lays environment and flags over `file`.
    pub fn layered(
        file: &Table,
        environment: BTreeMap<String, String>,
        args: &ServeArgs,
    ) -> Result<Self, Fault> {
        let mut values = defaults();
        for (path, value) in leaves(file, "") {
            let key = find(&path)?;
            put(&mut values, key.path, checked(key, value)?);
        }
        for (name, text) in environment {
            let key = find_variable(&name)?;
            put(&mut values, key.path, parsed(key, &name, &text)?);
        }
        if let Some(listen) = &args.listen {
            put(&mut values, "listen", Value::String(listen.clone()));
        }
        if let Some(folder) = &args.common.data_dir {
            let text = folder.to_string_lossy().into_owned();
            put(&mut values, "data_dir", Value::String(text));
        }
        if args.insecure_behind_proxy {
            put(&mut values, "insecure_behind_proxy", Value::Boolean(true));
        }
        let config: Self = Value::Table(values)
            .try_into()
            .map_err(|error: toml::de::Error| bad(error.message().to_owned()))?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), Fault> {
        let positive = [
            ("scheduler.tick_ms", self.scheduler.tick_ms > 0),
            ("scheduler.lease_term_ms", self.scheduler.lease_term_ms > 0),
            ("scheduler.stop_grace_ms", self.scheduler.stop_grace_ms > 0),
            ("scheduler.lost_after_ms", self.scheduler.lost_after_ms > 0),
            ("http.threads", self.http.threads > 0),
            ("http.max_connections", self.http.max_connections > 0),
            ("events.kept", self.events.kept > 0),
            ("blobs.collect_every_s", self.blobs.collect_every_s > 0),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, fine)| !fine) {
            return Err(bad(format!("`{key}` must be above 0")));
        }
        let term = self.scheduler.lease_term_ms;
        if i64::try_from(self.workers.poll_wait_ms).unwrap_or(i64::MAX) * 2 > term {
            return Err(bad(
                "`workers.poll_wait_ms` must be at most half of `scheduler.lease_term_ms`".into(),
            )
            .hint("a worker that polls too rarely loses its leases"));
        }
        if !matches!(self.log.format.as_str(), "text" | "json") {
            return Err(bad(format!(
                "`log.format` is `{}`, it may be `text` or `json`",
                self.log.format
            )));
        }
        Ok(())
    }

    /// The address to listen on; refused beyond loopback without the explicit flag.
    pub fn address(&self) -> Result<SocketAddr, Fault> {
        let address: SocketAddr = self
            .listen
            .replace("localhost", "127.0.0.1")
            .parse()
            .map_err(|_| {
                Fault::new(
                    Code::BadListen,
                    format!(
                        "`{}` is not an address of the form `host:port`",
                        self.listen
                    ),
                )
                .hint("write it like `127.0.0.1:7878`")
            })?;
        if address.ip().is_loopback() || self.insecure_behind_proxy {
            return Ok(address);
        }
        Err(Fault::new(
            Code::OpenToTheWorld,
            format!("`{address}` is reachable from other machines and nobody would be asked who they are"),
        )
        .hint("listen on `127.0.0.1`, or add `--insecure-behind-proxy` when a proxy in front checks who may do what"))
    }

    /// The data folder, `~` resolved.
    pub fn data_dir(&self) -> PathBuf {
        match self.data_dir.strip_prefix("~/") {
            Some(rest) => std::env::home_dir().unwrap_or_default().join(rest),
            None => PathBuf::from(&self.data_dir),
        }
    }

    /// The database's address.
    pub fn store_url(&self) -> String {
        if self.store.url.is_empty() {
            format!("sqlite://{}", self.data_dir().join("pomona.db").display())
        } else {
            self.store.url.clone()
        }
    }

    /// The folder of blobs.
    pub fn blobs_dir(&self) -> PathBuf {
        self.data_dir().join("blobs")
    }

    /// Terms and limits of the scheduler.
    pub fn scheduler(&self) -> pomona_scheduler::Config {
        pomona_scheduler::Config {
            lease_term_ms: self.scheduler.lease_term_ms,
            stop_grace_ms: self.scheduler.stop_grace_ms,
            backoff_base_ms: self.scheduler.backoff_base_ms,
            backoff_max_ms: self.scheduler.backoff_max_ms,
            lost_after_ms: self.scheduler.lost_after_ms,
            max_task_attempts: self.scheduler.max_task_attempts,
            ..pomona_scheduler::Config::default()
        }
    }

    /// The effective configuration as TOML, secrets masked.
    pub fn render(&self) -> String {
        let mut shown = self.clone();
        shown.store.url = masked(&shown.store.url);
        let values = Table::try_from(&shown).unwrap_or_default();
        let leaves: BTreeMap<String, Value> = leaves(&values, "").into_iter().collect();
        let value = |key: &Key| leaves.get(key.path).map(Value::to_string);
        keys::written("# The effective configuration.\n", |key| {
            value(key).unwrap_or_default()
        })
    }
}

/// A password in an address becomes `***`.
fn masked(url: &str) -> String {
    let parts = url.split_once("://");
    // A password may hold any letter: it ends at the last `@`.
    match parts.and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (who, place))) => {
            let user = who.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{place}")
        }
        None => url.to_owned(),
    }
}

fn read(path: &Path) -> Result<Table, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Fault::new(
            Code::LocalFile,
            format!("cannot read `{}`: {error}", path.display()),
        )
    })?;
    text.parse().map_err(|error: toml::de::Error| {
        bad(format!(
            "`{}` is not TOML: {}",
            path.display(),
            error.message()
        ))
    })
}

/// All defaults as a table.
pub fn defaults() -> Table {
    let mut table = Table::new();
    for key in KEYS {
        put(&mut table, key.path, key.default());
    }
    table
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

fn find(path: &str) -> Result<&'static Key, Fault> {
    KEYS.iter().find(|key| key.path == path).ok_or_else(|| {
        let fault = bad(format!("`{path}` is not a key of the configuration"));
        suggest(fault, path, KEYS.iter().map(|key| key.path.to_owned()))
    })
}

fn find_variable(name: &str) -> Result<&'static Key, Fault> {
    KEYS.iter()
        .find(|key| key.variable() == name)
        .ok_or_else(|| {
            let fault = bad(format!(
                "the variable `{name}` names no key of the configuration"
            ));
            suggest(fault, name, KEYS.iter().map(Key::variable))
        })
}

fn suggest(fault: Fault, wrong: &str, names: impl Iterator<Item = String>) -> Fault {
    let near = names
        .map(|name| (strsim::damerau_levenshtein(wrong, &name), name))
        .min()
        .filter(|(distance, _)| *distance <= wrong.len().div_ceil(3));
    match near {
        Some((_, name)) => fault.hint(format!("did you mean `{name}`?")),
        None => fault.hint("`pomona-coordinator check-config` prints every key"),
    }
}

/// A value of the file, if its type is the default's.
fn checked(key: &Key, value: Value) -> Result<Value, Fault> {
    let wanted = key.default();
    if value.same_type(&wanted) {
        return Ok(value);
    }
    Err(bad(format!(
        "`{}` is of type {}, it must be of type {}",
        key.path,
        value.type_str(),
        wanted.type_str()
    )))
}

/// A variable's text as the type of the default.
fn parsed(key: &Key, name: &str, text: &str) -> Result<Value, Fault> {
    let wanted = key.default();
    let value = if wanted.is_str() {
        Some(Value::String(text.to_owned()))
    } else if wanted.is_integer() {
        text.parse().ok().map(Value::Integer)
    } else {
        text.parse().ok().map(Value::Boolean)
    };
    value.ok_or_else(|| {
        bad(format!(
            "`{name}` is `{text}`, it must be of type {}",
            wanted.type_str()
        ))
    })
}

fn bad(message: String) -> Fault {
    Fault::new(Code::BadConfig, message)
}

#[cfg(test)]
mod tests;
