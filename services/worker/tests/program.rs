//! The program itself, without a coordinator: what it refuses, and that it stops when asked.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_mins(1);

fn worker(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pomona-worker"));
    command.args(words).stdin(Stdio::null());
    command
}

/// `run` with a trainer, a data folder, and a coordinator that is not there.
fn run(folder: &Path) -> Command {
    let mut command = worker(&["run", "--server", "http://127.0.0.1:9", "--name", "w"]);
    command
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder)
        .env("POMONA_CACHE", folder.join("cache"));
    command.args(["--trainer", env!("CARGO_BIN_EXE_fake-trainer")]);
    command
}

fn refusal(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.starts_with("error["));
    (
        output.status.code().unwrap(),
        line.unwrap_or(&text).to_owned(),
    )
}

#[test]
fn a_mistake_on_the_command_line_is_the_callers_and_coded() {
    let table: &[(&[&str], i32, &str)] = &[
        (&[], 1, "error[E0101]: a command is missing"),
        (
            &["restore", "x"],
            1,
            "error[E0101]: unrecognized subcommand `restore`",
        ),
        (
            &["run", "--slots", "many"],
            1,
            "error[E0101]: invalid value `many` for `--slots <N>`: invalid digit found in string",
        ),
    ];
    for (words, status, expect) in table {
        let (found, text) = refusal(&worker(words).output().unwrap());
        assert_eq!((found, text.as_str()), (*status, *expect), "{words:?}");
    }
    let help = worker(&["--help"]).output().unwrap();
    assert!(help.status.success() && help.stderr.is_empty());
}

#[test]
fn what_cannot_be_is_refused_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let damaged = folder.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("id"), "nonsense").unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let fresh = folder.path().join("fresh");
    let listener = TcpListener::bind(&taken);
    let table: &[(&[&str], &Path, i32, &str)] = &[
        (&["--server", "nowhere"], &fresh, 1, "error[E0901]"),
        (&["--listen", "nowhere"], &fresh, 1, "error[E0903]"),
        (&["--listen", &taken], &fresh, 1, "error[E0903]"),
        (
            &["--trainer", "/no/such/trainer"],
            &fresh,
            2,
            "error[E0902]",
        ),
        (&[], &damaged, 1, "error[E0904]"),
        (&[], &file, 1, "error[E0904]"),
        (&["--config", "/no/such/file"], &fresh, 1, "error[E0906]"),
    ];
    for (words, data, status, expect) in table {
        let mut command = worker(&["run"]);
        let ordinary = [
            ("--server", "http://127.0.0.1:9"),
            ("--listen", "127.0.0.1:0"),
            ("--trainer", env!("CARGO_BIN_EXE_fake-trainer")),
        ];
        for (flag, value) in ordinary {
            if !words.contains(&flag) {
                command.args([flag, value]);
            }
        }
        let output = command
            .args(*words)
            .arg("--data-dir")
            .arg(data)
            .output()
            .unwrap();
        let (code, line) = refusal(&output);
        assert_eq!(code, *status, "{words:?}: {line}");
        assert!(line.starts_with(expect), "{words:?}: {line}");
    }
    drop(listener);
}

#[test]
fn check_config_prints_every_key_and_refuses_unknown_ones() {
    let output = worker(&["check-config", "--slots", "3"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("count = 3") && text.contains("trainer_lines_per_s = 200"),
        "{text}"
    );
    let annotated = "\n# POMONA_WORKER_SLOTS_COUNT\ncount = 3\n";
    assert!(text.contains(annotated), "{text}");
    let mut command = worker(&["check-config"]);
    let output = command.env("POMONA_WORKER_SLOT", "1").output().unwrap();
    assert!(refusal(&output).1.starts_with("error[E0901]"));
    // Only a variable of ours has to be text.
    let odd = OsStr::from_bytes(b"\xff");
    let mut command = worker(&["check-config"]);
    let output = command.env("POMONA_WORKER_NAME", odd).output().unwrap();
    assert!(refusal(&output).1.starts_with("error[E0901]"));
    let mut command = worker(&["check-config"]);
    assert!(command.env("OTHER", odd).output().unwrap().status.success());
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> (Self, serde_json::Value) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let running = Self(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        (running, serde_json::from_str(&line).unwrap())
    }

    /// Its exit status, waited for up to a deadline.
    fn ended(&mut self) -> i32 {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: w\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn without_a_coordinator_it_waits_serves_its_metrics_and_stops_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut running, ready) = Running::start(&mut run(folder.path()));
    let address = ready["listening"].as_str().unwrap();
    assert!(ready["worker"].as_str().unwrap().starts_with("wrk_"));
    let answer = get(address, "/metrics");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.contains("pomona_worker_connected 0"), "{answer}");
    assert!(get(address, "/healthz").ends_with("ok\n"));
    assert!(get(address, "/etc/passwd").starts_with("HTTP/1.0 404"));
    // One folder serves one worker.
    let second = run(folder.path()).output().unwrap();
    assert!(refusal(&second).1.starts_with("error[E0904]"));
    let pid = Pid::from_raw(running.0.id() as i32);
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(running.ended(), 0);
    // The folder is free again, and the worker is still who it was.
    let (_again, told) = Running::start(&mut run(folder.path()));
    assert_eq!(told["worker"], ready["worker"]);
}

#[test]
fn a_rank_whose_worker_is_gone_does_not_begin() {
    let output = worker(&["rank", "--parent", "1", "--", "/bin/echo", "alive"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the worker is gone"));
    let me = std::process::id().to_string();
    let output = worker(&["rank", "--parent", &me, "--", "/bin/echo", "alive"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"alive\n");
}
