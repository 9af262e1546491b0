//! Processes of a lease: one group each, tied to the agent's life.
//!
//! A rank is started through this program itself (`pomona-worker rank`), which asks the kernel to
//! kill it when its parent thread ends (`PR_SET_PDEATHSIG`) and then becomes the trainer. That
//! needs no unsafe code between fork and exec. The signal follows the *thread* that spawned, so
//! the agent runs on one thread, the main one, and only that one may call [`spawn`].

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getppid};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// This very program, also after its file was replaced.
pub const LAUNCHER: &str = "/proc/self/exe";

/// Starts `program` by way of `launcher` ([`LAUNCHER`], but in tests) as a member of `group` (a new
/// one when `None`), with piped streams.
pub fn spawn(
    launcher: &Path,
    program: &Path,
    arguments: &[&str],
    environment: &BTreeMap<String, String>,
    group: Option<i32>,
    folder: &Path,
) -> std::io::Result<Child> {
    Command::new(launcher)
        .arg("rank")
        .arg("--parent")
        .arg(std::process::id().to_string())
        .arg("--")
        .arg(program)
        .args(arguments)
        .envs(environment)
        .current_dir(folder)
        .process_group(group.unwrap_or(0))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Exit status of a rank whose program is not there.
pub const EXIT_NO_PROGRAM: i32 = 127;

/// Becomes `command`, bound to `parent`. Returns only when that is impossible.
pub fn become_rank(parent: u32, command: &[OsString]) -> std::io::Error {
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        return error.into();
    }
    // The parent may have died before the line above.
    if getppid().as_raw() != i32::try_from(parent).unwrap_or(-1) {
        return std::io::Error::other("the worker is gone");
    }
    // When memory runs out, a rank goes before the agent that reports it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let Some((program, arguments)) = command.split_first() else {
        return std::io::Error::other("no program is given");
    };
    std::process::Command::new(program).args(arguments).exec()
}

/// Sends a signal to every process of a group. A group without processes is no error.
pub fn signal_group(group: i32, signal: Signal) {
    match killpg(Pid::from_raw(group), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(group, %signal, %error, "a process group cannot be signalled"),
    }
}

/// How many processes this machine has killed for want of memory.
pub fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}
