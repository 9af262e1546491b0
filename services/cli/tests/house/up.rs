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
use super::shown::redacted;
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
        Self::start_with(&["--listen", "127.0.0.1:0"])
    }

    fn start_with(words: &[&str]) -> Self {
        let mut up = Self::unread(words);
        up.words = Some(read(up.process.0.stderr.take().expect("its stderr")));
        up
    }

    /// Nobody reads its stderr yet.
    fn unread(words: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_pomona"))
            .args(["--output", "json", "up", "--slots", "2"])
            .args(words)
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
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its stdout"))
            .read_line(&mut line)
            .expect("its first line");
        let ready: Value = serde_json::from_str(&line).expect("the first line is JSON");
        Self {
            process: Process(child),
            server: ready["server"].as_str().expect("its address").to_owned(),
            folder,
            words: None,
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

/// `pomona up` as a person types it, in a house that cannot open: its stderr.
fn fails(status: i32, folder: &Path, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pomona"))
        .args([&["up"], words].concat())
        .env("POMONA_DATA_DIR", folder)
        .env("POMONA_CACHE", folder.join("cache"))
        .stdin(Stdio::null())
        .output()
        .expect("pomona runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{err}");
    let typed = words.join(" ");
    format!("$ pomona up {typed}\n{err}[{status}]\n")
}

#[test]
fn a_house_that_cannot_open_says_why_once_and_what_to_do() {
    let mut up = Up::start();
    let taken = up.server.trim_start_matches("http://").to_owned();
    let root = up.folder.path().to_str().expect("UTF-8").to_owned();
    let other = up.folder.path().join("other");
    let file = up.folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let alone = ["--no-worker", "--listen"];
    let with = |address| [&alone[..], &[address]].concat();
    let used = up.folder.path().join("data");
    let trainer = format!("{root}/nowhere");
    let pages = [
        fails(1, &used, &with("127.0.0.1:0")),
        fails(1, &file, &with("127.0.0.1:0")),
        fails(1, &other, &with(&taken)),
        fails(1, &other, &with("nobody")),
        fails(1, &other, &with("0.0.0.0:0")),
        fails(2, &other, &["--trainer", &trainer]),
    ];
    for page in &pages {
        assert_eq!(page.matches("error[").count(), 1, "told once: {page}");
        assert_eq!(page.matches("hint: ").count(), 1, "and what to do: {page}");
    }
    let number = up.child("pomona-coordina").to_string();
    let page = pages
        .join("\n")
        .replace(&number, "[pid]")
        .replace(&root, "");
    insta::assert_snapshot!(redacted(&page));
    send(up.pid(), Signal::SIGTERM);
    assert_eq!(up.wait_for_end().0, Some(0));
}

#[test]
fn it_opens_to_other_machines_when_a_proxy_is_said_to_be_in_front() {
    let up = Up::start_with(&["--listen", "0.0.0.0:0", "--insecure-behind-proxy"]);
    assert_eq!(up.json(&["top"])["cluster"]["workers_alive"], 1);
}

#[test]
fn a_reader_that_goes_away_does_not_end_it() {
    let mut up = Up::unread(&["--listen", "127.0.0.1:0"]);
    // Its stdout is closed already, now its stderr is, too; then there is something to say.
    drop(up.process.0.stderr.take());
    for _ in 0..2 {
        let old = up.child("pomona-worker");
        send(old, Signal::SIGKILL);
        wait("the worker is started again", || {
            let below = descendants(up.pid());
            below
                .iter()
                .any(|pid| *pid != old && name_of(*pid) == "pomona-worker")
        });
    }
    assert!(up.process.0.try_wait().expect("it is ours").is_none());
    send(up.pid(), Signal::SIGTERM);
    assert_eq!(up.process.0.wait().expect("it is ours").code(), Some(0));
}
