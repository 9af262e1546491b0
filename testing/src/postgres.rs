//! PostgreSQL: the one of this machine, else the one that `scripts/setup.py postgres` fetched.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chown};
use tempfile::TempDir;

/// PostgreSQL refuses to run as root: then it runs as nobody.
const NOBODY: u32 = 65534;
/// The programs in the folder that is fetched.
const FETCHED: &str = "pgserver/pginstall/bin";
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_mins(1);
/// The line of `postmaster.pid` that says how far a start has come.
const STATUS_LINE: usize = 7;

/// A PostgreSQL of one's own, on a socket in its folder. What it wrote survives
/// [`Postgres::restart`]; whether it is on disk is the operating system's business (`fsync` is off).
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    server: Child,
}

impl Postgres {
    /// A new, empty one.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        if is_root() {
            give(folder.path());
        }
        let programs = reachable(programs(), folder.path());
        let made = program(&programs, "initdb")
            .args(["--no-sync", "--auth=trust", "--username=pomona"])
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(folder.path().join("data"))
            .output()
            .expect("initdb can be started");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let server = serve(&programs, folder.path());
        Self {
            folder,
            programs,
            server,
        }
    }

    /// The address of a database; `postgres` is there from the beginning.
    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.path().display();
        format!("postgres://pomona@localhost/{database}?host={folder}")
    }

    /// What a query answers, a line for each row; nothing when the server does not.
    pub fn query(&self, sql: &str) -> Option<Vec<String>> {
        // Some put links to the server alone on the path: its other programs lie where it does.
        let server = self.programs.join("postgres").canonicalize();
        let beside = server.expect("the server is there").with_file_name("psql");
        let answer = Command::new(beside)
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "pomona",
                "-h",
            ])
            .arg(self.folder.path())
            .args(["-d", "postgres", "-c", sql])
            .stdin(Stdio::null())
            .output()
            .expect("psql can be started");
        // 2: the connection went away; anything else is the query's own fault.
        if answer.status.code() == Some(2) {
            return None;
        }
        let said = String::from_utf8_lossy(&answer.stderr);
        if !answer.status.success()
            && ["terminating connection", "shutting down", "starting up"]
                .iter()
                .any(|word| said.contains(word))
        {
            return None;
        }
        assert!(answer.status.success(), "{sql}: {said}");
        let text = String::from_utf8_lossy(&answer.stdout);
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Ends it at once, as a crash would, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.server = serve(&self.programs, self.folder.path());
    }

    /// Ends it at once, as a crash would. [`Postgres::restart`] starts it again.
    pub fn stop(&mut self) {
        // Once it has ended and was waited for, its number may be another process's.
        if let Ok(None) = self.server.try_wait() {
            let server = Pid::from_raw(self.server.id().cast_signed());
            let _ = kill(server, Signal::SIGQUIT);
            let _ = self.server.wait();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Makes a folder nobody's.
fn give(path: &Path) {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    chown(path, Some(user), Some(group)).expect("root may give a folder away");
}

/// A program that ends with this thread, and is not root's.
fn program(programs: &Path, name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command
        .arg(programs.join(name))
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// Starts the server, and returns when it takes connections.
fn serve(programs: &Path, folder: &Path) -> Child {
    let log = folder.join("log");
    let file = File::options().create(true).append(true).open(&log);
    let file = file.expect("a log can be written");
    let mut server = program(programs, "postgres")
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        .args(["-h", "", "-F"])
        .stdout(file.try_clone().expect("a file can be shared"))
        .stderr(file)
        .spawn()
        .expect("postgres can be started");
    let begun = Instant::now();
    let status = folder.join("data/postmaster.pid");
    loop {
        let ready = std::fs::read_to_string(&status).is_ok_and(|text| {
            let mut lines = text.lines();
            let ours = lines.next() == Some(&server.id().to_string());
            ours && lines
                .nth(STATUS_LINE - 1)
                .is_some_and(|line| line.trim() == "ready")
        });
        if ready {
            return server;
        }
        let ended = server.try_wait().expect("a child can be asked");
        if ended.is_some() || begun.elapsed() > START {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("postgres did not start ({ended:?}): {said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The folder of `postgres` and `initdb`: the one that is named, on the path, where Debian puts it,
/// or fetched.
fn programs() -> PathBuf {
    let named = std::env::var_os("POMONA_POSTGRES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    debian.sort();
    named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian.into_iter().rev())
        .chain(fetched().map(|root| root.join(FETCHED)))
        .find(|folder| {
            ["postgres", "initdb"]
                .iter()
                .all(|name| folder.join(name).is_file())
        })
        .expect("PostgreSQL is here: `make setup` fetches it")
}

/// The folder that `scripts/setup.py` makes.
fn fetched() -> Option<PathBuf> {
    Some(crate::cache()?.join("postgres"))
}

/// The programs where nobody can start them: what was fetched into root's home is copied.
fn reachable(programs: PathBuf, folder: &Path) -> PathBuf {
    let others = |path: &Path| path.metadata().is_ok_and(|found| found.mode() & 0o001 != 0);
    let absolute = programs.canonicalize().unwrap_or(programs);
    if !is_root() || absolute.ancestors().all(others) {
        return absolute;
    }
    let root = fetched().and_then(|root| root.canonicalize().ok());
    let root = root.filter(|root| absolute == root.join(FETCHED));
    let root = root.unwrap_or_else(|| panic!("nobody may look into `{}`", absolute.display()));
    let copy = folder.join("programs");
    let copied = Command::new("cp").arg("-r").arg(root).arg(&copy).status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "it can be copied"
    );
    copy.join(FETCHED)
}
