//! An S3-compatible store: `s3s-fs`, which `scripts/setup.py s3` builds. It checks signatures and
//! sums, keeps objects as files and parts of uploads beside them, and survives being killed.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cache;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_mins(1);
/// The one bucket.
const BUCKET: &str = "pomona-test";

/// An S3-compatible store of one's own, with one bucket, on a port of this machine.
#[derive(Debug)]
pub struct Bucket {
    folder: TempDir,
    port: u16,
    server: Child,
}

impl Bucket {
    /// The key that is let in.
    pub const KEY: &str = "pomona-key";
    /// Its secret.
    pub const SECRET: &str = "pomona-secret-of-tests";

    /// A new, empty one.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir_all(folder.path().join("root").join(BUCKET))
            .expect("a folder can be made");
        let begun = Instant::now();
        loop {
            // Free now; another program may be faster.
            let port =
                TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
            let port = port.expect("a port is free").port();
            if let Some(server) = serve(folder.path(), port) {
                return Self {
                    folder,
                    port,
                    server,
                };
            }
            assert!(begun.elapsed() < START, "no port stays free");
        }
    }

    /// The server's address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bucket's name.
    pub fn name(&self) -> &'static str {
        BUCKET
    }

    /// The keys of a coordinator whose blobs lie here, under a prefix.
    pub fn keys(&self, prefix: &str) -> [(&'static str, String); 5] {
        [
            ("blobs.url", format!("s3://{BUCKET}/{prefix}")),
            ("blobs.endpoint", self.endpoint()),
            ("blobs.access_key", Self::KEY.to_owned()),
            ("blobs.secret_key", Self::SECRET.to_owned()),
            ("blobs.allow_http", "true".to_owned()),
        ]
    }

    /// The folder in which the objects of the bucket lie, each under its name.
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join("root").join(BUCKET)
    }

    /// How many uploads in parts are under way on the server, as it counts them.
    pub fn uploads(&self) -> usize {
        self.left(".upload-")
    }

    /// How many parts of uploads lie on the server.
    pub fn parts(&self) -> usize {
        self.left(".upload_id-")
    }

    fn left(&self, prefix: &str) -> usize {
        let entries = std::fs::read_dir(self.folder.path().join("root"));
        let entries = entries.expect("the server's folder can be read");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(prefix)).count()
    }

    /// Ends it at once, as a crash would. [`Bucket::restart`] starts it again.
    pub fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Ends it at once, as a crash would, and starts it again where it was.
    pub fn restart(&mut self) {
        self.stop();
        let server = serve(self.folder.path(), self.port);
        self.server = server.expect("its port is still free");
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the server, and returns when it takes connections; nothing when the port is taken.
fn serve(folder: &Path, port: u16) -> Option<Child> {
    let log = folder.join("log");
    let file = File::options().create(true).append(true).open(&log);
    let file = file.expect("a log can be written");
    let mut server = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(program())
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--access-key", Bucket::KEY, "--secret-key", Bucket::SECRET])
        .arg(folder.join("root"))
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file can be shared"))
        .stderr(file)
        .spawn()
        .expect("s3s-fs can be started");
    let begun = Instant::now();
    loop {
        if server.try_wait().expect("a child can be asked").is_some() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(said.contains("AddrInUse"), "s3s-fs did not start: {said}");
            return None;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(server);
        }
        assert!(begun.elapsed() < START, "s3s-fs does not take connections");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program: the one that is named, or built by `scripts/setup.py`.
fn program() -> PathBuf {
    let named = std::env::var_os("POMONA_S3").map(PathBuf::from);
    named
        .into_iter()
        .chain(cache().map(|cache| cache.join("s3/bin/s3s-fs")))
        .find(|path| path.is_file())
        .expect("s3s-fs is here: `make setup` builds it")
}
