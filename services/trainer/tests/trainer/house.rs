//! The whole house with the real trainer: `pomona up`, published weights, a grid, two ranks, a pull.
//!
//! This crate knows no coordinator: the programs stand beside its own binary, and the test types.

use crate::support::{clients_python, published_weights};
use pomona_domain::Digest;
use pomona_trainer::dist::ffi;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CLASSES: usize = 3;
const EACH: usize = 12;

const GRID: &str = "
name: discs
backbone: lite0
dataset: discs
train: {epochs: 6, batch_size: 8, optimizer: {kind: adamw}, learning_rate: 0.005}
search:
  metric: val/accuracy
  space: {transfer.frozen_depth: {values: [all, _blocks.14]}}
promote: {model: discs, alias: champion}
";

/// Heads alone, over images as they are and mirrored.
const HEADS: &str = "
name: discs-heads
backbone: lite0
dataset: discs
train: {epochs: 3, batch_size: 8, optimizer: {kind: adamw}, learning_rate: 0.005, augment: {views: 2, ops: [horizontal_flip]}}
search:
  metric: val/accuracy
  space: {train.learning_rate: {values: [0.01, 0.001]}}
";

const TWO_RANKS: &str = "
name: discs-two
backbone: lite0
dataset: discs
train: {epochs: 1, batch_size: 8, optimizer: {kind: sgd}, learning_rate: 0.01}
search: {metric: val/accuracy}
resources: {slots_per_trial: 2}
";

/// A running `pomona up` in a temporary folder.
struct House {
    folder: tempfile::TempDir,
    up: Child,
    server: String,
}

/// What a program says when it is ready.
fn first_line(program: &mut Child) -> String {
    let mut line = String::new();
    let mut stdout = BufReader::new(program.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    line
}

impl House {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let words = std::fs::File::create(folder.path().join("up.log")).unwrap();
        let mut up = Command::new(pomona())
            .args(["--output", "json", "up", "--listen", "127.0.0.1:0"])
            .args(["--slots", "2", "--data-dir"])
            .arg(folder.path().join("data"))
            // Two slots, also where there is one GPU.
            .env("POMONA_WORKER_SLOTS_CPU_ONLY", "true")
            .stdout(Stdio::piped())
            .stderr(words)
            .spawn()
            .unwrap();
        let line = first_line(&mut up);
        let mut house = Self {
            folder,
            up,
            server: String::new(),
        };
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", house.log()));
        ready["server"]
            .as_str()
            .unwrap()
            .clone_into(&mut house.server);
        house
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Types a command that succeeds; gives its JSON answer.
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.typed(words)).unwrap_or(Value::Null)
    }

    /// Types a command that succeeds; gives what it printed.
    fn typed(&self, words: &[&str]) -> String {
        let output = Command::new(pomona())
            .args(["--server", &self.server, "--output", "json"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {err}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Submits a file, watches it to its end, and gives its trials.
    fn train(&self, file: &str) -> Vec<Value> {
        let path = self.file("experiment.yaml", file.as_bytes());
        self.json(&["experiment", "submit", text(&path), "--watch"]);
        let newest = self.json(&["experiment", "list"])["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| {
                file.contains(&format!(
                    "name: {}\n",
                    item["spec"]["name"].as_str().unwrap()
                ))
            })
            .unwrap()["id"]
            .clone();
        let trials = self.json(&["trial", "list", newest.as_str().unwrap()]);
        trials["items"].as_array().unwrap().clone()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _gone = self.up.kill();
        let _reaped = self.up.wait();
    }
}

fn pomona() -> PathBuf {
    program("pomona")
}

fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pomona-trainer")).with_file_name(name);
    assert!(
        path.exists(),
        "`{name}` is not built: `make test` builds it first"
    );
    path
}

/// A disc of the class's colour, a little larger with every number, as PNG.
fn picture(class: usize, number: usize) -> Vec<u8> {
    let radius = 12 + number as i64;
    let image = image::RgbImage::from_fn(64, 64, |x, y| {
        let (x, y) = (i64::from(x) - 32, i64::from(y) - 32);
        let mut pixel = [230; 3];
        if x * x + y * y < radius * radius {
            pixel = [20; 3];
            pixel[class] = 220;
        }
        image::Rgb(pixel)
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Draws the pictures and imports them and the weights; gives the folder of pictures.
fn furnish(house: &House, each: usize, side: &str) -> PathBuf {
    for class in 0..CLASSES {
        for number in 0..each {
            let name = format!("pictures/class {class}/{number:02}.png");
            house.file(&name, &picture(class, number));
        }
    }
    let pictures = house.folder.path().join("pictures");
    let weights = published_weights();
    let arch = ["--arch", "efficientnet-lite0", "--weights", text(&weights)];
    house.json(&[&["backbone", "add", "lite0"], arch.as_slice()].concat());
    let folder = text(&pictures);
    house.json(&["dataset", "add", "discs", folder, "--image-size", side]);
    pictures
}

/// The log's last lines come with the worker's next polls.
fn wait_for_log(house: &House, trial: &Value, words: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    let id = trial["id"].as_str().unwrap();
    while !house.typed(&["trial", "logs", id]).contains(words) {
        assert!(Instant::now() < deadline, "the log never told `{words}`");
        std::thread::yield_now();
    }
}

/// Colours this plain are told apart by a network that has learnt at all.
fn check_predictions(house: &House, pictures: &Path) {
    for class in 0..CLASSES {
        let path = pictures.join(format!("class {class}/00.png"));
        let answer = house.json(&["predict", "discs@champion", text(&path)]);
        let classes = answer["pictures"][0]["classes"].as_array().unwrap();
        assert_eq!(classes[0]["label"], format!("class {class}"), "{answer}");
        let sum: f64 = classes
            .iter()
            .map(|class| class["probability"].as_f64().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-5, "{answer}");
    }
}

/// MLflow's client, which knows nothing of us, downloads the same bytes and predicts the same.
fn check_with_mlflow(house: &House, pictures: &Path, pulled: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mlflow_load.py");
    let paths: Vec<PathBuf> = (0..CLASSES)
        .map(|class| pictures.join(format!("class {class}/00.png")))
        .collect();
    let done = Command::new(clients_python())
        .args([script, &house.server, "models:/discs@champion", "64"])
        .args(&paths)
        .env("HOME", house.folder.path())
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    for (path, theirs) in paths.iter().zip(found["answers"].as_array().unwrap()) {
        let answer = house.json(&["predict", "discs@champion", text(path)]);
        for class in answer["pictures"][0]["classes"].as_array().unwrap() {
            let label = class["label"].as_str().unwrap();
            let ours = class["probability"].as_f64().unwrap();
            let theirs = theirs[label].as_f64().unwrap();
            assert!((ours - theirs).abs() < 1e-4, "{label}: {ours} {theirs}");
        }
    }
    for (path, digest) in found["files"].as_object().unwrap() {
        let bytes = std::fs::read(pulled.join(path)).unwrap();
        assert_eq!(digest.as_str().unwrap(), Digest::of(&bytes).hex(), "{path}");
    }
    assert!(found["files"]["model.onnx"].is_string(), "{found}");
}

/// What the worker keeps, once its next poll has told it.
fn features(house: &House, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let list = house.json(&["feature", "list"]);
        let items = list["items"].as_array().unwrap().clone();
        if items.len() == count {
            return items;
        }
        assert!(Instant::now() < deadline, "not {count} shards: {list}");
        std::thread::yield_now();
    }
}

/// The grid has two cuts: two shards each, for training and validation.
fn check_features(house: &House) {
    let shards = features(house, 4);
    let mut cuts: Vec<&str> = shards
        .iter()
        .map(|shard| shard["plan"]["key"]["block"].as_str().unwrap())
        .collect();
    cuts.sort_unstable();
    assert_eq!(
        cuts,
        ["_blocks.14", "_blocks.14", "_conv_head", "_conv_head"]
    );
    assert!(
        shards
            .iter()
            .all(|shard| shard["plan"]["key"]["split"] != "test")
    );
    let first = shards[0]["digest"].as_str().unwrap();
    let shown = house.json(&["feature", "show", &first[..first.len() - 8]]);
    assert_eq!(shown["items"], serde_json::json!([shards[0]]));
    let evicted = house.json(&["feature", "evict", first]);
    assert_eq!(evicted["removed"].as_array().unwrap().len(), 1, "{evicted}");
    assert!(
        features(house, 3)
            .iter()
            .all(|shard| shard["digest"] != first)
    );
    let all = house.json(&["feature", "evict", "--all"]);
    assert_eq!(all["removed"].as_array().unwrap().len(), 3, "{all}");
    assert_eq!(all["kept"].as_array().unwrap().len(), 0, "{all}");
    features(house, 0);
}

#[test]
fn a_real_grid_ends_promoted_two_ranks_train_and_the_pulled_model_predicts() {
    let mut house = House::open();
    let pictures = furnish(&house, EACH, "64");

    let grid = house.train(GRID);
    assert_eq!(grid.len(), 2);
    for trial in &grid {
        assert_eq!(trial["state"], "completed", "{trial}");
        assert_eq!(trial["last_epoch"], 6, "{trial}");
        let environment = &trial["environment"];
        assert_eq!(environment["world_size"], "1", "{trial}");
        assert_eq!(environment["libtorch"], ffi::torch_version(), "{trial}");
    }
    wait_for_log(&house, &grid[0], "epoch 6 of 6");
    check_features(&house);
    let two = house.train(TWO_RANKS);
    assert_eq!(two.len(), 1);
    assert_eq!(two[0]["state"], "completed", "{}", two[0]);
    assert_eq!(two[0]["environment"]["world_size"], "2", "{}", two[0]);

    let pulled = house.folder.path().join("pulled");
    house.json(&["model", "pull", "discs@champion", text(&pulled)]);
    for name in ["model.safetensors", "model.onnx", "MLmodel"] {
        assert!(pulled.join(name).exists(), "{name}");
    }
    house.json(&["model", "verify", text(&pulled)]);
    check_predictions(&house, &pictures);
    check_with_mlflow(&house, &pictures, &pulled);

    let pid = house.up.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(told.success());
    assert_eq!(house.up.wait().unwrap().code(), Some(0), "{}", house.log());
}

/// Another machine, with slots like those of the first.
struct Second {
    process: Child,
    metrics: String,
}

impl Second {
    fn join(house: &House) -> Self {
        let words = std::fs::File::create(house.folder.path().join("second.log")).unwrap();
        let mut process = Command::new(program("pomona-worker"))
            .args(["run", "--server", &house.server, "--name", "second"])
            .args(["--slots", "2", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(house.folder.path().join("second"))
            .env("POMONA_WORKER_SLOTS_CPU_ONLY", "true")
            .stdout(Stdio::piped())
            .stderr(words)
            .spawn()
            .unwrap();
        let line = first_line(&mut process);
        let said: Value = serde_json::from_str(&line).unwrap();
        let metrics = said["listening"].as_str().unwrap().to_owned();
        Self { process, metrics }
    }

    /// The line of its metrics that begins so.
    fn metric(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse().ok()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// What a grid's trials measured, by learning rate.
/// Waits until a worker is registered: a plan is made for the workers that are there.
fn wait_alive(house: &House, name: &str) {
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let workers = house.json(&["worker", "list"]);
        let mut rows = workers["items"].as_array().unwrap().iter();
        if rows.any(|row| row["name"] == name && row["state"] == "alive") {
            return;
        }
        assert!(std::time::Instant::now() < end, "`{name}` never came");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

fn measured(house: &House, trials: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let of = |trial: &Value| {
        let id = trial["id"].as_str().unwrap();
        let shown = house.json(&["trial", "show", id]);
        let seen = shown["observations"].as_array().unwrap().iter();
        let metrics = seen.map(|row| serde_json::json!([row["step"], row["metrics"]]));
        (trial["hparams"].to_string(), metrics.collect())
    };
    trials.iter().map(of).collect()
}

#[test]
fn a_second_machine_fetches_the_features_of_the_first_and_trains_the_same_bits() {
    let house = House::open();
    furnish(&house, 100, "128");
    let first = house.train(HEADS);
    let count = 16;
    features(&house, count);
    let workers = house.json(&["worker", "list"]);
    let one = workers["items"][0]["id"].as_str().unwrap();
    house.json(&["worker", "drain", one]);
    let second = Second::join(&house);
    wait_alive(&house, "second");
    let again = house.train(&HEADS.replace("discs-heads", "discs-again"));
    let fetched = second.metric("pomona_feature_fetches_total{result=\"fetched\"}");
    assert!(fetched.is_some_and(|shards| shards > 0), "{fetched:?}");
    features(&house, 2 * count);
    let (first, again) = (measured(&house, &first), measured(&house, &again));
    assert_eq!((first.len(), first), (2, again));
    let files = |folder: &str| {
        let folder = house.folder.path().join(folder).join("features");
        let files = std::fs::read_dir(folder).unwrap().flatten();
        let whole = files.filter(|file| file.path().extension().is_some_and(|e| e == "features"));
        let read =
            |file: std::fs::DirEntry| (file.file_name(), std::fs::read(file.path()).unwrap());
        whole.map(read).collect::<BTreeMap<_, _>>()
    };
    assert!(files("data/worker") == files("second"));
}
