//! A house in a temporary folder: starts and kills the real programs, and types at `pomona`.

pub use crate::processes::{catches, descendants, is_alive, name_of};

use pomona_testing::Postgres;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Trials of [`GRID`].
pub const TRIALS: usize = 24;
/// Epochs of each.
pub const EPOCHS: u64 = 10;
/// The grid of the demo, on the fake trainer.
pub const GRID: &str = "
name: flowers
backbone: lite
dataset: flowers
train: {epochs: 10, batch_size: 16, optimizer: {kind: adamw}, learning_rate: 0.001}
search:
  strategy: grid
  metric: val/accuracy
  direction: maximize
  max_concurrent: 2
  space:
    train.learning_rate: {log_uniform: [1.0e-4, 1.0e-1], count: 6}
    train.optimizer.weight_decay: {values: [0.0, 0.01]}
    transfer.frozen_depth: {values: [all, _blocks.14]}
promote: {model: flowers, alias: champion, gates: [{metric: test/accuracy, at_least: 0.1}]}
";

const DEADLINE: Duration = Duration::from_mins(2);

/// Waits for a condition, by asking again, up to a deadline.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A version's digest, computed anew from files.
pub fn folder_digest(folder: &Path) -> String {
    let mut files: Vec<(String, String, u64)> = fs::read_dir(folder)
        .expect("the pulled folder")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("a pulled file");
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, hex(&Sha256::digest(&bytes)), bytes.len() as u64)
        })
        .collect();
    files.sort();
    let list: Vec<Value> = files
        .iter()
        .map(|(path, sha256, size)| json!({"path": path, "sha256": sha256, "size": size}))
        .collect();
    format!(
        "sha256:{}",
        hex(&Sha256::digest(
            serde_json::to_string(&list).expect("JSON").as_bytes()
        ))
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A program of the house, beside the test's own folder.
pub fn program(name: &str) -> PathBuf {
    let cli = Path::new(env!("CARGO_BIN_EXE_pomona"));
    let path = cli.with_file_name(name);
    assert!(
        path.exists(),
        "`{name}` is not built; `make test` builds it, or `cargo build --bins`"
    );
    path
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// A process that is killed when it is dropped.
pub struct Process(pub Child);

impl Process {
    /// Waits for its end; gives its exit status and what it wrote to stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut words = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut words).expect("UTF-8");
        }
        (self.0.wait().expect("it is ours").code(), words)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A data folder, its coordinator, and a way to type.
pub struct House {
    folder: PathBuf,
    temporary: Option<TempDir>,
    port: u16,
    coordinator: Option<Process>,
    /// The server that has the rows; without one they are in the data folder.
    pub postgres: Option<Postgres>,
}

/// A worker of a house.
pub struct Worker {
    process: RefCell<Process>,
    metrics: u16,
}

impl House {
    /// A new house with a backbone and a data set of three classes.
    pub fn open() -> Self {
        Self::open_with(None)
    }

    /// The same, with its rows in PostgreSQL.
    pub fn open_on_postgres() -> Self {
        Self::open_with(Some(Postgres::start()))
    }

    fn open_with(postgres: Option<Postgres>) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let mut house = Self::closed(&temporary.path().join("house"));
        house.temporary = Some(temporary);
        house.postgres = postgres;
        house.start_coordinator();
        let worker = house.worker("importer", 1);
        house.furnish();
        // Drained: nothing waits for the dead one's leases to run out.
        house.json(&["worker", "drain", "importer"]);
        drop(worker);
        house
    }

    /// A house in a folder that is there.
    pub fn at(folder: &Path) -> Self {
        let mut house = Self::closed(folder);
        house.start_coordinator();
        house
    }

    fn closed(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the house's folder");
        Self {
            folder: folder.to_owned(),
            temporary: None,
            port: free_port(),
            coordinator: None,
            postgres: None,
        }
    }

    /// A path beside the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.with_file_name(name)
    }

    fn furnish(&self) {
        let pictures = self.path("pictures");
        for class in ["daisy", "rose", "tulip"] {
            fs::create_dir_all(pictures.join(class)).expect("a class");
            for number in 0..20 {
                let file = pictures.join(class).join(format!("{class} {number}.png"));
                fs::write(file, format!("{class}{number}")).expect("a picture");
            }
        }
        let weights = self.path("lite.pth");
        fs::write(&weights, b"weights").expect("weights");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        self.json(&["dataset", "add", "flowers", &text(&pictures)]);
        self.json(&[
            "backbone",
            "add",
            "lite",
            "--arch",
            "efficientnet-lite0",
            "--weights",
            &text(&weights),
        ]);
    }

    /// Starts (or starts again) the coordinator on the house's own port.
    pub fn start_coordinator(&mut self) {
        let mut command = Command::new(program("pomona-coordinator"));
        if let Some(postgres) = &self.postgres {
            command.env("POMONA_COORDINATOR_STORE_URL", postgres.url("postgres"));
        }
        let mut child = command
            .args([
                "serve",
                "--listen",
                &format!("127.0.0.1:{}", self.port),
                "--data-dir",
            ])
            .arg(&self.folder)
            // Shorter than in life, so that a house whose worker is gone need not be waited for.
            .env("POMONA_COORDINATOR_SCHEDULER_LEASE_TERM_MS", "10000")
            .env("POMONA_COORDINATOR_POOLS", "[{name = 'big', slots = 4}]")
            .env("POMONA_COORDINATOR_SCHEDULER_LOST_AFTER_MS", "10000")
            .stdout(Stdio::piped())
            .stderr(self.log("coordinator"))
            .spawn()
            .expect("the coordinator starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its stdout");
        self.coordinator = Some(Process(child));
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("its first line");
        assert!(
            line.contains("listening"),
            "the coordinator did not start: {}",
            self.words("coordinator")
        );
    }

    /// SIGKILL.
    pub fn kill_coordinator(&mut self) {
        drop(self.coordinator.take());
    }

    fn log(&self, name: &str) -> fs::File {
        let path = self.path(&format!("{name}.log"));
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("a log file")
    }

    fn words(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Starts a worker; the same name has the same data folder.
    pub fn worker(&self, name: &str, slots: u32) -> Worker {
        self.worker_with(name, slots, "4")
    }

    /// One whose trials last seconds, for what is done to them meanwhile.
    pub fn slow_worker(&self, name: &str, slots: u32) -> Worker {
        self.worker_with(name, slots, "100")
    }

    /// One with a pace of its own.
    pub fn worker_with(&self, name: &str, slots: u32, step_ms: &str) -> Worker {
        self.worker_from(name, slots, &[("FAKE_STEP_MS", step_ms)])
    }

    fn worker_from(&self, name: &str, slots: u32, variables: &[(&str, &str)]) -> Worker {
        let metrics = free_port();
        let child = Command::new(program("pomona-worker"))
            .args([
                "run",
                "--server",
                &self.server(),
                "--name",
                name,
                "--slots",
                &slots.to_string(),
            ])
            .args(["--listen", &format!("127.0.0.1:{metrics}"), "--data-dir"])
            .arg(self.path(&format!("worker-{name}")))
            .arg("--trainer")
            .arg(program("fake-trainer"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name))
            .spawn()
            .expect("the worker starts");
        Worker {
            process: RefCell::new(Process(child)),
            metrics,
        }
    }

    /// One whose trainer has a fault.
    pub fn faulty_worker(&self, name: &str, fault: &str) -> Worker {
        self.worker_from(name, 1, &[("FAKE_STEP_MS", "4"), ("FAKE_FAULT", fault)])
    }

    /// Waits until a worker gets work.
    pub fn wait_alive(&self, name: &str) {
        wait(&format!("`{name}` is alive"), || {
            let rows = self.json(&["worker", "list"]);
            let mut rows = rows["items"].as_array().expect("items").iter();
            rows.any(|row| row["name"] == name && row["state"] == "alive")
        });
    }

    fn server(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn type_in(&self, words: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_pomona"))
            .args(["--server", &self.server(), "--output", "json"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("pomona runs")
    }

    /// Types a command and reads its JSON answer.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.type_in(words);
        assert!(
            output.status.success(),
            "`pomona {}`: {}{}",
            words.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Types a command that fails; gives its exit status and the error on stderr.
    pub fn refused(&self, words: &[&str]) -> (i32, Value) {
        let output = self.type_in(words);
        let code = output.status.code().expect("it was not killed");
        let err = String::from_utf8_lossy(&output.stderr);
        // Talk comes first, the error is the last line.
        let last = err.lines().last().unwrap_or_default();
        let body: Value = serde_json::from_str(last)
            .unwrap_or_else(|_| panic!("`pomona {}` told no error: {err}", words.join(" ")));
        (code, body["error"].clone())
    }

    /// Types a command as a person does; gives what stdout and stderr show.
    pub fn shown(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(words).output().expect("pomona runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// A command that is to be typed as a person does.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pomona"));
        command
            .arg("--server")
            .arg(self.server())
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Writes a file beside the data folder; gives its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
        fs::write(&path, bytes).expect("the file");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Submits a file; gives the experiment's id.
    pub fn submit(&self, file: &str) -> String {
        let path = self.path("grid.yaml");
        fs::write(&path, file).expect("the file");
        let experiment = self.json(&["experiment", "submit", path.to_str().expect("UTF-8")]);
        experiment["id"].as_str().expect("an id").to_owned()
    }

    /// Trials of an experiment by number.
    pub fn trials(&self, experiment: &str) -> Vec<Value> {
        self.json(&["trial", "list", experiment])["items"]
            .as_array()
            .expect("items")
            .clone()
    }

    /// Observations of a trial by step.
    pub fn observations(&self, trial: &str) -> Vec<Value> {
        let page = self.get(&format!(
            "/api/v1/trials/{trial}/observations?page_size=100"
        ));
        page["items"].as_array().expect("items").clone()
    }

    fn get(&self, path: &str) -> Value {
        serde_json::from_str(&http_get(self.port, path).expect("an answer")).expect("JSON")
    }

    /// Waits until the trials are as wanted.
    pub fn wait_trials(
        &self,
        experiment: &str,
        what: &str,
        mut condition: impl FnMut(&[Value]) -> bool,
    ) {
        wait(what, || condition(&self.trials(experiment)));
    }

    /// Waits until the experiment has completed.
    pub fn wait_ended(&self, experiment: &str) {
        let mut state = String::new();
        wait("the experiment ends", || {
            let shown = self.json(&["experiment", "show", experiment]);
            shown["state"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut state);
            ["completed", "failed", "canceled"].contains(&state.as_str())
        });
        assert_eq!(state, "completed", "{}", self.words("a"));
    }

    /// Takes a backup while everything runs.
    pub fn backup(&self, target: &Path) {
        let status = Command::new(program("pomona-coordinator"))
            .args(["backup", "--data-dir"])
            .arg(&self.folder)
            .arg(target)
            .stdout(Stdio::null())
            .status()
            .expect("the backup runs");
        assert!(status.success());
    }
}

impl Worker {
    /// SIGKILL, to the agent alone.
    pub fn kill(&self) {
        let mut process = self.process.borrow_mut();
        process.0.kill().expect("it is ours");
        process.0.wait().expect("it is ours");
    }

    /// Processes that the agent started.
    pub fn ranks(&self) -> Vec<u32> {
        descendants(self.process.borrow().0.id())
    }

    /// Samples trained since it started, from its own metrics.
    pub fn samples_trained(&self) -> u64 {
        let Some(text) = http_get(self.metrics, "/metrics") else {
            return 0;
        };
        text.lines()
            .filter(|line| line.starts_with("pomona_train_samples_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }
}

fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace()
        .nth(1)
        .filter(|status| *status == "200")?;
    Some(body.to_owned())
}
