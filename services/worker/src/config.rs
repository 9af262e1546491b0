//! Configuration: file < environment < flag. Unknown keys are refused (`E0901`).
//!
//! [`KEYS`] says every key once; `config/worker.toml` is that list written out, and a test holds
//! the two together. It must never hold a secret: `check-config` prints all of it.

mod keys;
#[cfg(test)]
mod tests;

pub use keys::KEYS;

use clap::Args;
use pomona_daemon::{Table, Value, bad, check_log};
use pomona_domain::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::watch::Limits;

/// The trainer's program when none is named.
pub const TRAINER: &str = "pomona-trainer";

/// What `run` and `check-config` take.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Configuration file (TOML); environment variables and flags go before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the coordinator.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Name of this worker [default: the host's].
    #[arg(long)]
    pub name: Option<String>,
    /// Slots to offer [default: every GPU, or as many as compute most on the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
    /// Address of this worker's own `/metrics`; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Folder of the spool, the cache and what trainers write.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The trainer [default: `pomona-trainer` beside this program or on PATH].
    #[arg(long, value_name = "PATH")]
    pub trainer: Option<PathBuf>,
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Address of the coordinator.
    pub server: String,
    /// Name; empty means the host's.
    pub name: String,
    /// Data folder, perhaps with `~`.
    pub data_dir: String,
    /// Address of `/metrics`; empty for none.
    pub listen: String,
    /// Address of `/metrics` as others reach it.
    pub advertise: String,
    /// Where other workers reach this one.
    pub address: String,
    /// `key=value,…`.
    pub labels: String,
    /// Slots.
    pub slots: SlotsSection,
    /// The trainer.
    pub trainer: TrainerSection,
    /// Programs of one's own.
    pub program: ProgramSection,
    /// When a trainer counts as stalled.
    pub stall: StallSection,
    /// The spool.
    pub spool: BudgetSection,
    /// The cache.
    pub cache: BudgetSection,
    /// Features of frozen blocks.
    pub features: BudgetSection,
    /// The log.
    pub log: LogSection,
}

/// Slots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotsSection {
    /// How many; 0 for all.
    pub count: u32,
    /// Whether the split of the cores is measured.
    pub measure: bool,
    /// No GPUs.
    pub cpu_only: bool,
}

/// The trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerSection {
    /// Its program; empty to look for it.
    pub program: String,
    /// From asking it to stop to killing it.
    pub stop_grace_ms: u64,
    /// How many wait for work.
    pub spares: u32,
}

/// Programs of one's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramSection {
    /// Bytes that a checkpoint folder may hold.
    pub checkpoint_max_bytes: u64,
}

/// When a trainer counts as stalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StallSection {
    /// Not sooner than this after its last step.
    pub floor_ms: u64,
    /// Nor than this many median steps.
    pub factor: u32,
    /// Before its first step.
    pub start_ms: u64,
    /// For tasks.
    pub task_ms: u64,
}

/// Something with a budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetSection {
    /// The budget.
    pub max_bytes: u64,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogSection {
    /// What is written.
    pub filter: String,
    /// `text` or `json`.
    pub format: String,
    /// A trainer's lines in a second.
    pub trainer_lines_per_s: u32,
}

impl Config {
    /// The effective configuration of this process.
    pub fn load(flags: &Flags) -> Result<Self, Fault> {
        let file = pomona_daemon::read(flags.config.as_deref())?;
        Self::layered(&file, KEYS.environment()?, flags)
    }

    /// Lays environment and flags over `file`.
    pub fn layered(
        file: &Table,
        environment: BTreeMap<String, String>,
        flags: &Flags,
    ) -> Result<Self, Fault> {
        let config: Self = KEYS.layered(file, environment, from_flags(flags))?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), Fault> {
        let positive = [
            ("trainer.stop_grace_ms", self.trainer.stop_grace_ms),
            (
                "program.checkpoint_max_bytes",
                self.program.checkpoint_max_bytes,
            ),
            ("stall.floor_ms", self.stall.floor_ms),
            ("stall.factor", u64::from(self.stall.factor)),
            ("stall.start_ms", self.stall.start_ms),
            ("stall.task_ms", self.stall.task_ms),
            ("spool.max_bytes", self.spool.max_bytes),
            ("cache.max_bytes", self.cache.max_bytes),
            (
                "log.trainer_lines_per_s",
                u64::from(self.log.trainer_lines_per_s),
            ),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(bad(format!("`{key}` must be above 0")));
        }
        check_log(&self.log.format)?;
        self.labels().map(|_| ())
    }

    /// The address of `/metrics`, if it is served.
    pub fn address(&self) -> Result<Option<SocketAddr>, Fault> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        pomona_daemon::address(&self.listen, "127.0.0.1:7879").map(Some)
    }

    /// The data folder, `~` resolved.
    pub fn data_dir(&self) -> PathBuf {
        pomona_daemon::folder(&self.data_dir)
    }

    /// The name, or the host's.
    pub fn name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match host.trim() {
            "" => "worker".to_owned(),
            host => host.to_owned(),
        }
    }

    /// The labels.
    pub fn labels(&self) -> Result<BTreeMap<String, String>, Fault> {
        let pairs = self
            .labels
            .split(',')
            .filter(|pair| !pair.trim().is_empty());
        pairs
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    Ok((key.trim().to_owned(), value.trim().to_owned()))
                }
                _ => Err(bad(format!(
                    "`labels` holds `{pair}`, which is not `key=value`"
                ))),
            })
            .collect()
    }

    /// How many slots are wanted, when it is said.
    pub fn slots(&self) -> Option<u32> {
        Some(self.slots.count).filter(|count| *count > 0)
    }

    /// When a trial counts as stalled.
    pub fn trial_limits(&self) -> Limits {
        Limits {
            floor: Duration::from_millis(self.stall.floor_ms),
            factor: self.stall.factor,
            start: Duration::from_millis(self.stall.start_ms),
        }
    }

    /// When a task counts as stalled.
    pub fn task_limits(&self) -> Limits {
        Limits {
            floor: Duration::from_millis(self.stall.task_ms),
            factor: self.stall.factor,
            start: Duration::from_millis(self.stall.task_ms),
        }
    }

    /// The trainer's program: the one that is named, or the one beside this program, or the one on
    /// PATH. `E0902` when it is not there.
    pub fn trainer(&self) -> Result<PathBuf, Fault> {
        if !self.trainer.program.is_empty() {
            let named = PathBuf::from(&self.trainer.program);
            let found = named.canonicalize().ok().filter(|path| is_program(path));
            return found.ok_or_else(|| {
                let message = format!("there is no program `{}`", named.display());
                Fault::new(Code::MissingProgram, message)
                    .hint("name the trainer with `--trainer PATH`")
            });
        }
        let beside = std::env::current_exe()
            .ok()
            .and_then(|path| Some(path.parent()?.join(TRAINER)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|folder| folder.join(TRAINER));
        let found = beside
            .into_iter()
            .chain(on_path)
            .find(|path| is_program(path));
        found
            .and_then(|path| path.canonicalize().ok())
            .ok_or_else(|| {
                let message = format!("there is no `{TRAINER}` beside this program or in `$PATH`");
                Fault::new(Code::MissingProgram, message).hint(
                    "build it with `make setup` and `make build`, or name it with `--trainer PATH`",
                )
            })
    }

    /// The effective configuration as TOML.
    pub fn render(&self) -> String {
        KEYS.render(self)
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// What the flags say.
fn from_flags(flags: &Flags) -> [(&'static str, Option<Value>); 6] {
    let text = |path: &PathBuf| Value::String(path.to_string_lossy().into_owned());
    [
        ("server", flags.server.clone().map(Value::String)),
        ("name", flags.name.clone().map(Value::String)),
        ("slots.count", flags.slots.map(|n| Value::Integer(n.into()))),
        ("listen", flags.listen.clone().map(Value::String)),
        ("data_dir", flags.data_dir.as_ref().map(text)),
        ("trainer.program", flags.trainer.as_ref().map(text)),
    ]
}
