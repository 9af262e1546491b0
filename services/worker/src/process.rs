//! Processes of a lease: one group each, tied to the agent's life.
//!
//! A rank is started through this program itself (`pomona-worker rank`), which asks the kernel to
//! kill it when its parent thread ends (`PR_SET_PDEATHSIG`) and then becomes the trainer. That
//! needs no unsafe code between fork and exec. The signal follows the *thread* that spawned, so
//! the agent runs on one thread, the main one, and only that one may call [`spawn`].

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgrp, getppid};
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
    let mut command = bound(launcher);
    command.arg(program).args(arguments).envs(environment);
    start(command, group, folder)
}

/// Starts a program of one's own by way of `launcher` as a member of `group`, with these variables
/// and no others. Its keeper ([`keep`]) ends the whole group when this process is gone.
pub fn spawn_kept(
    launcher: &Path,
    command: &[String],
    environment: &BTreeMap<String, String>,
    group: Option<i32>,
    folder: &Path,
) -> std::io::Result<Child> {
    let mut keeper = Command::new(launcher);
    keeper.args(["keep", "--"]).args(command);
    keeper.env_clear().envs(environment);
    start(keeper, group, folder)
}

/// The launcher, told to become what follows, bound to this process.
fn bound(launcher: &Path) -> Command {
    let mut command = Command::new(launcher);
    let parent = std::process::id().to_string();
    command.args(["rank", "--parent", &parent, "--"]);
    command
}

/// Starts a member of a group, with piped streams.
fn start(mut command: Command, group: Option<i32>, folder: &Path) -> std::io::Result<Child> {
    command
        .current_dir(folder)
        .process_group(group.unwrap_or(0))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Runs a program to its end and gives its exit status, or 128 and the signal that ended it, as a
/// shell does. A program starts processes of its own, which no signal of the kernel follows; so its
/// keeper waits for the end of stdin, which the worker holds, and then kills the group.
pub async fn keep(command: &[OsString]) -> std::io::Result<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    use tokio::signal::unix::{SignalKind, signal};
    // Heard and not followed: the whole group is asked to end, and the program decides. A handler,
    // unlike a signal that is ignored, is not inherited.
    let _heard = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let mut child = bound(Path::new(LAUNCHER))
        .args(command)
        .stdin(Stdio::null())
        .spawn()?;
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        signal_group(getpgrp().as_raw(), Signal::SIGKILL);
    });
    let status = child.wait().await?;
    let by_signal = status.signal().map(|signal| 128 + signal);
    Ok(status.code().or(by_signal).unwrap_or(1))
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
