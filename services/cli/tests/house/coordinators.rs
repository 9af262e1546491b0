//! Coordinators of a house.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{House, Process, program};

/// Another coordinator on the database of a house.
pub struct Beside {
    pub process: Process,
    pub port: u16,
    pub folder: PathBuf,
}

impl Beside {
    /// Whether it leads.
    pub fn leads(&self) -> bool {
        leads(self.port)
    }

    /// The body of an answer with status 200.
    pub fn get(&self, path: &str) -> Option<String> {
        http_get(self.port, path)
    }
}

/// Whether the coordinator there leads.
pub fn leads(port: u16) -> bool {
    http_get(port, "/readyz").is_some_and(|text| text.contains("\"leads\":true"))
}

/// The body of an answer with status 200.
pub fn http_get(port: u16, path: &str) -> Option<String> {
    let (status, body) = http_send(port, "GET", path, "")?;
    (status == 200).then_some(body)
}

/// Status and body of an answer to a request with a JSON body.
pub fn http_send(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

impl House {
    /// Starts a coordinator that keeps its blobs for itself, and refuses to; gives its exit status
    /// and what it said.
    pub fn refused_coordinator(&self, name: &str) -> (Option<i32>, String) {
        let postgres = self.postgres.as_ref().expect("a shared database");
        let output = Command::new(program("pomona-coordinator"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.path(name))
            .env("POMONA_COORDINATOR_STORE_URL", postgres.url("postgres"))
            .output()
            .expect("the coordinator starts");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), words)
    }

    /// Starts a coordinator in a data folder of its own.
    pub fn coordinator_in(&self, folder: &Path, port: u16) -> Process {
        let (term, poll) = (self.term.as_millis(), self.term.as_millis() / 2);
        let (term, poll) = (term.to_string(), poll.to_string());
        let mut command = Command::new(program("pomona-coordinator"));
        if let Some(postgres) = &self.postgres {
            command.env("POMONA_COORDINATOR_STORE_URL", postgres.url("postgres"));
        }
        if self.bucket.is_none() && self.postgres.is_some() {
            let place = format!("file://{}", self.path("blobs").display());
            command.env("POMONA_COORDINATOR_BLOBS_URL", place);
        }
        if let Some(bucket) = &self.bucket {
            for (key, value) in bucket.keys("house") {
                let name = key.to_uppercase().replace('.', "_");
                command.env(format!("POMONA_COORDINATOR_{name}"), value);
            }
        }
        if let Some(redis) = &self.redis {
            command.env("POMONA_COORDINATOR_REDIS_URL", redis.url());
        }
        let mut child = command
            .args([
                "serve",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--data-dir",
            ])
            .arg(folder)
            .env("POMONA_COORDINATOR_SCHEDULER_LEASE_TERM_MS", &term)
            .env("POMONA_COORDINATOR_POOLS", "[{name = 'big', slots = 4}]")
            .env("POMONA_COORDINATOR_SCHEDULER_LOST_AFTER_MS", &term)
            .env("POMONA_COORDINATOR_WORKERS_POLL_WAIT_MS", &poll)
            .stdout(Stdio::piped())
            .stderr(self.log("coordinator"))
            .spawn()
            .expect("the coordinator starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its stdout");
        let process = Process(child);
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("its first line");
        assert!(
            line.contains("listening"),
            "the coordinator did not start: {}",
            self.words("coordinator")
        );
        process
    }
}
