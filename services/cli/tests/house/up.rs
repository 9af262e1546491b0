//! `pomona up`: it opens, keeps its two programs running, and leaves no process behind however it
//! ends.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::thread::JoinHandle;
use tempfile::TempDir;

use super::harness::{Process, descendants, is_alive, name_of, program, wait};
use super::verbs::SMALL;

struct Up {
    process: Process,
    server: String,
    folder: TempDir,
    /// Reads stderr to its end, so that it never blocks.
    words: Option<JoinHandle<String>>,
}

impl Up {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_pomona"))
            .args([
                "--output",
                "json",
                "up",
                "--listen",
                "127.0.0.1:0",
                "--slots",
                "2",
            ])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .arg("--trainer")
            .arg(program("fake-trainer"))
            .env("FAKE_STEP_MS", "50")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pomona runs");
        let words = read(child.stderr.take().expect("its stderr"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its stdout"))
            .read_line(&mut line)
            .expect("its first line");
        let ready: Value = serde_json::from_str(&line).expect("the first line is JSON");
        Self {
            process: Process(child),
            server: ready["server"].as_str().expect("its address").to_owned(),
            folder,
            words: Some(words),
        }
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// A child by the beginning of its name.
    fn child(&self, name: &str) -> u32 {
        let mut found = None;
        wait(&format!("`{name}` runs"), || {
            found = descendants(self.pid())
                .into_iter()
                .find(|pid| name_of(*pid).starts_with(name));
            found.is_some()
        });
        found.expect("it was waited for")
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_pomona"))
            .args(["--server", &self.server, "--output", "json"])
            .args(words)
            .output()
            .expect("pomona runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "`pomona {}`: {err}",
            words.join(" ")
        );
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Fills the house, and waits until ranks train.
    fn train(&self) {
        let pictures = self.folder.path().join("pictures");
        for class in ["rose", "tulip"] {
            std::fs::create_dir_all(pictures.join(class)).expect("a class");
            for number in 0..20 {
                let file = pictures.join(class).join(format!("{number}.png"));
                std::fs::write(file, format!("{class} {number}")).expect("a picture");
            }
        }
        let weights = self.folder.path().join("lite.pth");
        std::fs::write(&weights, "weights").expect("weights");
        let file = self.folder.path().join("small.yaml");
        std::fs::write(&file, SMALL).expect("the file");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        self.json(&["dataset", "add", "flowers", &text(&pictures)]);
        let arch = "efficientnet-lite0";
        self.json(&[
            "backbone",
            "add",
            "lite",
            "--arch",
            arch,
            "--weights",
            &text(&weights),
        ]);
        self.json(&["experiment", "submit", &text(&file)]);
        self.child("fake-trainer");
    }

    fn wait_for_end(&mut self) -> (Option<i32>, String) {
        let status = self.process.0.wait().expect("it is ours");
        let words = self
            .words
            .take()
            .expect("read once")
            .join()
            .expect("its words");
        (status.code(), words)
    }
}

/// To a process that this test started, directly or not.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("the process is ours");
}

fn read(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut words = String::new();
        stderr.read_to_string(&mut words).expect("UTF-8");
        words
    })
}

fn all_end(pids: &[u32]) {
    wait("no process is left", || {
        pids.iter().all(|pid| !is_alive(*pid))
    });
}

#[test]
fn it_stops_in_order_and_leaves_no_process() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut up = Up::start();
        up.train();
        let below = descendants(up.pid());
        assert!(below.len() >= 3, "coordinator, worker and a rank");
        send(up.pid(), signal);
        let (code, words) = up.wait_for_end();
        assert_eq!(code, Some(0), "{words}");
        let at = |text: &str| {
            words
                .find(text)
                .unwrap_or_else(|| panic!("`{text}` in: {words}"))
        };
        assert!(at("stopping the worker") < at("stopping the coordinator"));
        all_end(&below);
    }
}

#[test]
fn it_is_killed_and_leaves_no_process() {
    let mut up = Up::start();
    up.train();
    let below = descendants(up.pid());
    assert!(below.len() >= 3, "coordinator, worker and a rank");
    send(up.pid(), Signal::SIGKILL);
    assert_eq!(up.process.0.wait().expect("it is ours").code(), None);
    all_end(&below);
}

#[test]
fn a_program_that_ends_is_started_again() {
    let mut up = Up::start();
    for name in ["pomona-coordina", "pomona-worker"] {
        let old = up.child(name);
        send(old, Signal::SIGKILL);
        wait(&format!("`{name}` is started again"), || {
            let below = descendants(up.pid());
            below.iter().any(|pid| *pid != old && name_of(*pid) == name)
        });
    }
    // At the same address, and with a worker that is known.
    wait("the worker is back", || {
        let output = Command::new(env!("CARGO_BIN_EXE_pomona"))
            .args(["--server", &up.server, "--output", "json", "top"])
            .output()
            .expect("pomona runs");
        let top: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        top["cluster"]["workers_alive"] == 1
    });
    send(up.pid(), Signal::SIGTERM);
    let (code, words) = up.wait_for_end();
    assert_eq!(code, Some(0), "{words}");
    assert!(
        words.contains("the coordinator ended (signal: 9"),
        "{words}"
    );
    assert!(words.contains("the worker ended (signal: 9"), "{words}");
}

#[test]
fn a_data_folder_that_is_in_use_is_refused() {
    let mut up = Up::start();
    let output = Command::new(env!("CARGO_BIN_EXE_pomona"))
        .args(["up", "--listen", "127.0.0.1:0", "--no-worker", "--data-dir"])
        .arg(up.folder.path().join("data"))
        .stdin(Stdio::null())
        .output()
        .expect("pomona runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("error[E0904]"), "{err}");
    let taken = up.server.trim_start_matches("http://").to_owned();
    let output = Command::new(env!("CARGO_BIN_EXE_pomona"))
        .args(["up", "--listen", &taken, "--no-worker", "--data-dir"])
        .arg(up.folder.path().join("other"))
        .stdin(Stdio::null())
        .output()
        .expect("pomona runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("error[E0903]"), "{err}");
    send(up.pid(), Signal::SIGTERM);
    assert_eq!(up.wait_for_end().0, Some(0));
}
