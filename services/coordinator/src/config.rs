//! Configuration: file < environment < flag. Unknown keys are refused (`E0901`).
//!
//! [`KEYS`] says every key once; `config/coordinator.toml` is that list written out, and a test
//! holds the two together.

mod blobs;
mod keys;
mod webhooks;

pub use blobs::BlobsSection;
pub use keys::KEYS;
pub use webhooks::WebhooksSection;

use pomona_daemon::{Table, Value, bad, check_log};
use pomona_domain::policy::{Policy, Pool, Project};
use pomona_domain::{Code, Fault, name};
use pomona_store::BlobsAt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::args::ServeArgs;

/// The database in the data folder.
pub const DATABASE: &str = "pomona.db";
/// The folder of blobs in the data folder.
pub const BLOBS: &str = "blobs";

/// The shortest term of leadership.
const MIN_TERM_MS: u64 = 500;

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub listen: String,
    pub data_dir: String,
    pub advertise: String,
    pub insecure_behind_proxy: bool,
    pub projects: Vec<Project>,
    pub pools: Vec<Pool>,
    pub store: StoreSection,
    pub leader: LeaderSection,
    pub redis: RedisSection,
    pub http: HttpSection,
    pub workers: WorkersSection,
    pub scheduler: SchedulerSection,
    pub events: EventsSection,
    pub blobs: BlobsSection,
    pub signing: SigningSection,
    pub webhooks: WebhooksSection,
    pub metrics: MetricsSection,
    pub log: LogSection,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreSection {
    pub url: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaderSection {
    pub term_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RedisSection {
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
    pub aging_ms: i64,
    pub preempt_gap: u32,
    pub preempt_after_ms: i64,
    pub exclude_after: u32,
    pub exclude_window_ms: i64,
    pub exclude_base_ms: i64,
    pub exclude_max_ms: i64,
    pub max_test_uses: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventsSection {
    pub kept: usize,
    pub kept_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SigningSection {
    pub key: String,
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
        let file = pomona_daemon::read(args.common.config.as_deref())?;
        Self::layered(&file, KEYS.environment()?, args)
    }

    /// Lays environment and flags over `file`.
    pub fn layered(
        file: &Table,
        environment: BTreeMap<String, String>,
        args: &ServeArgs,
    ) -> Result<Self, Fault> {
        let config: Self = KEYS.layered(file, environment, from_flags(args))?;
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
        if self.leader.term_ms < MIN_TERM_MS {
            return Err(
                bad(format!("`leader.term_ms` must be {MIN_TERM_MS} or more")).hint(
                    "it is renewed four times in a term, and a database may be slow for a moment",
                ),
            );
        }
        if !self.advertise.is_empty() && !self.advertise.starts_with("http://") {
            return Err(bad("`advertise` must begin with `http://`")
                .hint("write it like `http://coordinator-1:7878`"));
        }
        let term = self.scheduler.lease_term_ms;
        if i64::try_from(self.workers.poll_wait_ms).unwrap_or(i64::MAX) * 2 > term {
            return Err(bad(
                "`workers.poll_wait_ms` must be at most half of `scheduler.lease_term_ms`",
            )
            .hint("a worker that polls too rarely loses its leases"));
        }
        self.blobs_at()?;
        self.webhooks.check()?;
        self.check_policy()?;
        check_log(&self.log.format)
    }

    /// Names stand once, and what is shared or offered is something.
    fn check_policy(&self) -> Result<(), Fault> {
        let projects = self.projects.iter().map(|row| ("projects", &row.name));
        let pools = self.pools.iter().map(|row| ("pools", &row.name));
        let mut seen = BTreeSet::new();
        for (list, name) in projects.chain(pools) {
            name::check(list, name).map_err(|fault| bad(fault.message))?;
            if !seen.insert((list, name)) {
                return Err(bad(format!("`{list}` has `{name}` twice")));
            }
        }
        if let Some(row) = self.projects.iter().find(|row| row.weight == 0) {
            let text = format!("`projects`: the weight of `{}` must be above 0", row.name);
            return Err(bad(text).hint("to let a project run nothing write `quota_slots = 0`"));
        }
        match self.pools.iter().find(|row| row.slots == 0) {
            Some(row) => Err(bad(format!("`pools`: `{}` must have slots", row.name))),
            None => Ok(()),
        }
    }

    /// The address to listen on; refused beyond loopback without the explicit flag.
    pub fn address(&self) -> Result<SocketAddr, Fault> {
        let address = pomona_daemon::address(&self.listen, "127.0.0.1:7878")?;
        if address.ip().is_loopback() || self.insecure_behind_proxy {
            return Ok(address);
        }
        Err(Fault::new(
            Code::OpenToTheWorld,
            format!("`{address}` is reachable from other machines and nobody would be asked who they are"),
        )
        .hint("listen on `127.0.0.1`, or add `--insecure-behind-proxy` when a proxy in front checks who may do what"))
    }

    /// Where other coordinators reach this one, which listens on `listening`; empty when only
    /// `advertise` could say so.
    pub fn advertised(&self, listening: SocketAddr) -> String {
        let own = self.advertise.trim_end_matches('/');
        if own.is_empty() && !listening.ip().is_unspecified() {
            return format!("http://{listening}");
        }
        own.to_owned()
    }

    /// The data folder, `~` resolved.
    pub fn data_dir(&self) -> PathBuf {
        pomona_daemon::folder(&self.data_dir)
    }

    /// The database's address.
    pub fn store_url(&self) -> String {
        if self.has_url() {
            self.store.url.clone()
        } else {
            pomona_store::sqlite_url(&self.data_dir().join(DATABASE))
        }
    }

    /// Whether the database is another one than the file in the data folder.
    pub fn has_url(&self) -> bool {
        !self.store.url.is_empty()
    }

    /// Where the blobs lie.
    pub fn blobs_at(&self) -> Result<BlobsAt, Fault> {
        self.blobs.at(&self.data_dir().join(BLOBS))
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
            aging_ms: self.scheduler.aging_ms,
            preempt_gap: self.scheduler.preempt_gap,
            preempt_after_ms: self.scheduler.preempt_after_ms,
            exclude_after: self.scheduler.exclude_after,
            exclude_window_ms: self.scheduler.exclude_window_ms,
            exclude_base_ms: self.scheduler.exclude_base_ms,
            exclude_max_ms: self.scheduler.exclude_max_ms,
            max_test_uses: self.scheduler.max_test_uses,
            policy: Policy {
                projects: self.projects.clone(),
                pools: self.pools.clone(),
            },
            ..pomona_scheduler::Config::default()
        }
    }

    /// The effective configuration as TOML, secrets masked.
    pub fn render(&self) -> String {
        let mut shown = self.clone();
        shown.store.url = masked(&shown.store.url);
        shown.redis.url = masked(&shown.redis.url);
        shown.blobs.mask();
        KEYS.render(&shown)
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

/// What the flags say.
fn from_flags(args: &ServeArgs) -> [(&'static str, Option<Value>); 3] {
    let text = |path: &PathBuf| Value::String(path.to_string_lossy().into_owned());
    let open = args.insecure_behind_proxy.then_some(Value::Boolean(true));
    [
        ("listen", args.listen.clone().map(Value::String)),
        ("data_dir", args.common.data_dir.as_ref().map(text)),
        ("insecure_behind_proxy", open),
    ]
}

#[cfg(test)]
mod tests;
