//! A coordinator in a temporary folder: the real program on a free port of loopback, killed when
//! the test ends.

use pomona_api::client::Client;
use reqwest::Method;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::File;
use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Everything a test waits for happens well before this.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a condition, by asking again, up to a deadline.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A data folder and the coordinator that serves it.
pub struct House {
    folder: TempDir,
    variables: Vec<(String, String)>,
    process: Option<Process>,
    address: String,
    /// Speaks to it.
    pub client: Client,
}

/// An answer as it came.
pub struct Raw {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Raw {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// `E0102 404`.
    pub fn refused(&self) -> String {
        let code = self.json()["error"]["code"].clone();
        format!("{} {}", code.as_str().unwrap_or("no code"), self.status)
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pomona-coordinator"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POMONA_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the program to its end.
pub fn run(words: &[&str]) -> Output {
    let mut command = program();
    command.args(words).stdin(Stdio::null());
    command.output().expect("the program runs")
}

impl House {
    /// Starts a coordinator in a new folder.
    pub async fn open() -> Self {
        Self::with(&[]).await
    }

    /// The same with some keys of the configuration (`http.max_body_bytes`) set.
    pub async fn with(keys: &[(&str, &str)]) -> Self {
        Self::start(tempfile::tempdir().expect("a folder"), keys).await
    }

    /// Starts a coordinator in a folder that may hold something.
    pub async fn start(folder: TempDir, keys: &[(&str, &str)]) -> Self {
        let variable = |(key, value): &(&str, &str)| {
            let name = key.to_uppercase().replace('.', "_");
            (format!("POMONA_COORDINATOR_{name}"), (*value).to_owned())
        };
        let mut house = Self {
            folder,
            variables: keys.iter().map(variable).collect(),
            process: None,
            address: String::new(),
            client: Client::new("http://127.0.0.1:1").expect("an address"),
        };
        house.restart().await;
        house
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path beside the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets a key of the configuration for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        let name = key.to_uppercase().replace('.', "_");
        let name = format!("POMONA_COORDINATOR_{name}");
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
    }

    /// Starts the coordinator (again) and waits until it can serve.
    pub async fn restart(&mut self) {
        drop(self.process.take());
        let log = self.path("coordinator.log");
        let log = File::options().create(true).append(true).open(log);
        let mut child = program()
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.data_dir())
            .env("POMONA_COORDINATOR_SCHEDULER_TICK_MS", "50")
            .env("POMONA_COORDINATOR_SCHEDULER_BACKOFF_BASE_MS", "10")
            .envs(self.variables.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the coordinator starts");
        let stdout = child.stdout.take().expect("its stdout");
        self.process = Some(Process(child));
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the coordinator did not start: {}", self.words()));
        self.address = said["listening"].as_str().expect("an address").to_owned();
        self.client = Client::new(&self.server()).expect("an address");
        until("the coordinator is ready", || async {
            self.client.ready().await.ok()
        })
        .await;
    }

    /// `http://127.0.0.1:port`
    pub fn server(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it wrote to its log.
    pub fn words(&self) -> String {
        std::fs::read_to_string(self.path("coordinator.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, |process| process.0.id())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// SIGTERM; gives the status and how long it took.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        let mut process = self.process.take().expect("it runs");
        let pid = nix::unistd::Pid::from_raw(process.0.id().cast_signed());
        let began = Instant::now();
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("it is ours");
        let status = until("it has stopped", || {
            let ended = process.0.try_wait().expect("it is ours");
            async move { ended }
        });
        (status.await, began.elapsed())
    }

    /// A request as anybody could write it.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Raw {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let mut request = http.request(method, format!("{}{path}", self.server()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request
            .body(body.to_owned())
            .send()
            .await
            .expect("an answer");
        Raw {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            text: answer.text().await.expect("a body"),
        }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Raw {
        self.raw(Method::GET, path, &[], "").await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Raw {
        self.raw(Method::POST, path, &[], &body.to_string()).await
    }

    /// Runs a command of the program on this data folder.
    pub fn command(&self, words: &[&str], target: Option<&Path>) -> Output {
        let mut command = program();
        command.args(words).arg("--data-dir").arg(self.data_dir());
        command.args(target).stdin(Stdio::null());
        command.output().expect("the program runs")
    }
}

/// Ids, times and durations by what they are: ids are numbered in the order they come in.
pub fn redacted(value: &Value) -> Value {
    let mut ids = Vec::new();
    let mut value = value.clone();
    redact("", &mut value, &mut ids);
    value
}

fn redact(key: &str, value: &mut Value, ids: &mut Vec<String>) {
    match value {
        Value::String(text) => *text = words(text, ids),
        Value::Number(_) if ["active_ms", "incarnation", "since", "slot_ms"].contains(&key) => {
            *value = Value::from("NUMBER");
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(key, item, ids)),
        Value::Object(fields) => fields
            .iter_mut()
            .for_each(|(key, field)| redact(key, field, ids)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text with its ids numbered and its times taken out.
fn words(text: &str, ids: &mut Vec<String>) -> String {
    let is_time = |part: &str| part.len() == 24 && part.ends_with('Z') && part.contains('T');
    if is_time(text) {
        return "TIME".to_owned();
    }
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('_') {
        let (head, tail) = rest.split_at(at);
        let kind = head.get(head.len().saturating_sub(3)..).unwrap_or_default();
        let known = ["exp", "tri", "lea", "wrk", "tsk", "ver"].contains(&kind);
        let digits = tail
            .get(1..17)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        shown.push_str(head);
        shown.push('_');
        rest = &tail[1..];
        if let Some(digits) = digits.filter(|_| known) {
            let id = format!("{kind}_{digits}");
            let number = ids.iter().position(|seen| *seen == id).unwrap_or_else(|| {
                ids.push(id);
                ids.len() - 1
            });
            let _ = write!(shown, "#{number}");
            rest = &rest[16..];
        }
    }
    shown.push_str(rest);
    shown
}
