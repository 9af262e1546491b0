//! A house in a temporary folder: starts and kills the real programs, and types at `pomona`.

pub use crate::digest::folder_digest;
pub use crate::processes::{catches, descendants, is_alive, name_of, send};
pub use crate::workers::Worker;

use pomona_testing::{Bucket, Postgres, Redis};
use serde_json::Value;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::coordinators::{Beside, http_get, leads};

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

/// Computes in no time what could have been measured.
pub const FAKE_TRAINER: &str = "fake-trainer";
/// Trains.
pub const REAL_TRAINER: &str = "pomona-trainer";

/// Everything a test waits for happens well before this.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Waits for a condition, by asking again, up to a deadline.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// What `make setup` fetched.
fn fetched(name: &str) -> PathBuf {
    let cache = std::env::var_os("POMONA_CACHE").expect("`make chaos` says where the cache is");
    Path::new(&cache).join(name)
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

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
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
    pub port: u16,
    pub coordinator: Option<Process>,
    /// Other coordinators.
    pub beside: Vec<Beside>,
    typed_at: Option<u16>,
    /// What carries events between coordinators.
    pub redis: Option<Redis>,
    /// A lease, or a worker, that is silent for longer is lost.
    pub term: Duration,
    /// What workers train with.
    pub trainer: &'static str,
    /// The server that has the rows; without one they are in the data folder.
    pub postgres: Option<Postgres>,
    /// The server that has the blobs; without one they are in the data folder.
    pub bucket: Option<Bucket>,
}

impl House {
    /// A new house with a backbone and a data set of three classes.
    pub fn open() -> Self {
        Self::open_with(None, None)
    }

    /// The same, with its rows in PostgreSQL.
    pub fn open_on_postgres() -> Self {
        Self::open_with(Some(Postgres::start()), None)
    }

    /// The same, with its blobs in a bucket too.
    pub fn open_as_team() -> Self {
        Self::open_with(Some(Postgres::start()), Some(Bucket::start()))
    }

    /// The same, with Redis.
    pub fn open_with_redis() -> Self {
        Self::open_for_chaos(Duration::from_secs(10), FAKE_TRAINER)
    }

    /// The same, with a term of one's own and perhaps the real trainer, on photographs.
    pub fn open_for_chaos(term: Duration, trainer: &'static str) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let mut house = Self::closed(&temporary.path().join("house"));
        house.temporary = Some(temporary);
        house.term = term;
        house.trainer = trainer;
        house.furnished(Some(Postgres::start()), Some(Redis::start()))
    }

    fn open_with(postgres: Option<Postgres>, bucket: Option<Bucket>) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let mut house = Self::closed(&temporary.path().join("house"));
        house.temporary = Some(temporary);
        house.bucket = bucket;
        house.furnished(postgres, None)
    }

    fn furnished(mut self, postgres: Option<Postgres>, redis: Option<Redis>) -> Self {
        self.postgres = postgres;
        self.redis = redis;
        self.start_coordinator();
        let worker = self.worker("importer", 1);
        self.furnish();
        // Drained: nothing waits for the dead one's leases to run out.
        self.json(&["worker", "drain", "importer"]);
        drop(worker);
        self
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
            beside: Vec::new(),
            typed_at: None,
            redis: None,
            // Shorter than in life, so that a house whose worker is gone need not be waited for.
            term: Duration::from_secs(10),
            trainer: FAKE_TRAINER,
            postgres: None,
            bucket: None,
        }
    }

    /// A path beside the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.with_file_name(name)
    }

    fn furnish(&self) {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (pictures, weights) = if self.trainer == FAKE_TRAINER {
            self.draw()
        } else {
            (fetched("tux"), fetched("weights/efficientnet-lite0.pth"))
        };
        let size = ["--image-size", "64"];
        self.json(&[&["dataset", "add", "flowers", &text(&pictures)], &size[..]].concat());
        let arch = ["--arch", "efficientnet-lite0", "--weights"];
        self.json(&[&["backbone", "add", "lite"], &arch[..], &[&text(&weights)]].concat());
    }

    /// What the fake trainer takes for pictures and weights.
    fn draw(&self) -> (PathBuf, PathBuf) {
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
        (pictures, weights)
    }

    /// Starts (or starts again) the coordinator on the house's own port.
    pub fn start_coordinator(&mut self) {
        self.coordinator = Some(self.coordinator_in(&self.folder, self.port));
    }

    /// Starts another coordinator on the same database and blobs.
    pub fn open_beside(&mut self) -> usize {
        let folder = self.path(&format!("beside-{}", self.beside.len()));
        let port = free_port();
        fs::create_dir_all(&folder).expect("its folder");
        let process = self.coordinator_in(&folder, port);
        self.beside.push(Beside {
            process,
            port,
            folder,
        });
        self.beside.len() - 1
    }

    /// Starts one of them again.
    pub fn restart_beside(&mut self, which: usize) {
        let Beside { port, folder, .. } = &self.beside[which];
        self.beside[which].process = self.coordinator_in(folder, *port);
    }

    /// SIGKILL.
    pub fn kill_coordinator(&mut self) {
        drop(self.coordinator.take());
    }

    pub(super) fn log(&self, name: &str) -> fs::File {
        let path = self.path(&format!("{name}.log"));
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("a log file")
    }

    pub(super) fn words(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// From now on everything is typed at another coordinator.
    pub fn only_beside(&mut self, which: usize) {
        self.typed_at = Some(self.beside[which].port);
    }

    /// Addresses of all coordinators.
    pub fn server(&self) -> String {
        if let Some(port) = self.typed_at {
            return format!("http://127.0.0.1:{port}");
        }
        let ports = std::iter::once(self.port).chain(self.beside.iter().map(|one| one.port));
        let addresses: Vec<_> = ports
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect();
        addresses.join(",")
    }

    /// Whether the house's own coordinator leads.
    pub fn leads(&self) -> bool {
        leads(self.port)
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

    /// What the house's own coordinator answers.
    pub fn get(&self, path: &str) -> Value {
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
