//! `doctor`: what this machine can run, and what is missing.

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use pomona_api::split::{self, Measured};
use pomona_domain::Fault;
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::session::Session;
use super::up::programs::{self, COORDINATOR, TRAINER, WORKER};
use super::{Done, runtime};
use crate::args::GlobalArgs;
use crate::args::machine::DoctorArgs;
use crate::human::{bytes, plural};
use crate::printer::Printer;
use crate::views;
use crate::views::machine::{Check, Verdict};

/// A coordinator that has not answered by then is not reachable.
const SERVER_LIMIT: Duration = Duration::from_secs(3);
/// Less memory than this is told.
const LITTLE_MEMORY: u64 = 2 << 30;
/// Less room than this is told.
const LITTLE_DISK: u64 = 5 << 30;

/// The answer.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    checks: Vec<Check>,
}

/// What NVIDIA's driver says of itself.
const DRIVER: &str = "/proc/driver/nvidia/version";

/// `pomona doctor`.
pub fn run(args: &DoctorArgs, global: &GlobalArgs, printer: &Printer) -> Result<Done, Fault> {
    let spinner = printer.spinner("looking around");
    let mut checks = vec![
        system(),
        cores(),
        memory(),
        gpus(),
        program("coordinator", COORDINATOR, None),
        program("worker", WORKER, None),
    ];
    checks.extend(trainer(args.trainer.as_deref()));
    if !Path::new(DRIVER).exists() {
        checks.push(slots(args.data_dir.as_deref(), |name| {
            std::env::var_os(name)
        }));
    }
    checks.push(data_dir(args.data_dir.as_deref()));
    checks.push(server(global, printer)?);
    spinner.finish_and_clear();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        checks,
    };
    printer.data(&report, |style| {
        let title = style.bold(&format!("pomona {}", report.version));
        format!(
            "{title}\n\n{}",
            views::machine::checks(style, &report.checks)
        )
    });
    let failed = report
        .checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    if failed == 0 {
        return Ok(Done::Well);
    }
    printer.say(&format!("{} failed", plural(failed as u64, "check")));
    Ok(Done::Poorly)
}

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Check {
    Check {
        name,
        verdict,
        found: found.into(),
        hint: None,
    }
}

fn hinted(name: &'static str, verdict: Verdict, found: impl Into<String>, hint: &str) -> Check {
    Check {
        hint: Some(hint.to_owned()),
        ..check(name, verdict, found)
    }
}

fn system() -> Check {
    match nix::sys::utsname::uname() {
        Ok(name) => {
            let part = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
            let found = format!(
                "{} {}, {}",
                part(name.sysname()),
                part(name.release()),
                part(name.machine())
            );
            check("system", Verdict::Ok, found)
        }
        Err(error) => check("system", Verdict::Warn, format!("unknown: {error}")),
    }
}

fn cores() -> Check {
    let number = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim())
    };
    let mut found = plural(number as u64, "core");
    if let Some(model) = field("model name") {
        let _ = write!(found, ", {model}");
    }
    let flags: Vec<&str> = field("flags").unwrap_or_default().split(' ').collect();
    if let Some(isa) = ["avx512f", "avx2", "avx"]
        .into_iter()
        .find(|isa| flags.contains(isa))
    {
        let _ = write!(found, ", {isa}");
    }
    check("processor", Verdict::Ok, found)
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    };
    let (Some(total), Some(free)) = (field("MemTotal:"), field("MemAvailable:")) else {
        return check(
            "memory",
            Verdict::Warn,
            "unknown: `/proc/meminfo` cannot be read",
        );
    };
    let found = format!("{}, {} of it free", bytes(total), bytes(free));
    if free < LITTLE_MEMORY {
        let hint = "a trainer takes about 1 GiB: start fewer slots with `pomona up --slots 1`";
        return hinted("memory", Verdict::Warn, found, hint);
    }
    check("memory", Verdict::Ok, found)
}

/// GPUs as their driver tells them; no library of NVIDIA's is needed to ask.
fn gpus() -> Check {
    let Ok(driver) = std::fs::read_to_string(DRIVER) else {
        return check("GPUs", Verdict::Ok, "no NVIDIA driver: CPU slots");
    };
    let version = driver
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .unwrap_or("of an unknown version");
    let mut models: Vec<String> = std::fs::read_dir("/proc/driver/nvidia/gpus")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("information")).ok())
        .filter_map(|text| {
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
            Some(model.trim().to_owned())
        })
        .collect();
    models.sort();
    if models.is_empty() {
        return check(
            "GPUs",
            Verdict::Warn,
            format!("driver {version}, but no GPU"),
        );
    }
    check(
        "GPUs",
        Verdict::Ok,
        format!("{}; driver {version}", models.join(", ")),
    )
}

/// A program is there, starts, and has our version.
fn program(name: &'static str, file: &str, given: Option<&Path>) -> Check {
    let path = match programs::find(file, given) {
        Ok(path) => path,
        Err(fault) => {
            let hint = fault.hint.unwrap_or_default();
            return hinted(name, Verdict::Fail, fault.message, &hint);
        }
    };
    let output = Command::new(&path)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let (verdict, found, hint) = started(&path, output);
    Check {
        name,
        verdict,
        found,
        hint,
    }
}

fn started(path: &Path, output: std::io::Result<Output>) -> (Verdict, String, Option<String>) {
    let shown = path.display();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let found = format!("{shown} does not start: {words}");
            let hint = words
                .contains("shared librar")
                .then(|| "libtorch is not where it was built against: build it again".to_owned());
            return (Verdict::Fail, found, hint);
        }
        Err(error) => {
            return (
                Verdict::Fail,
                format!("{shown} does not start: {error}"),
                None,
            );
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().last().unwrap_or("?").to_owned();
    let ours = env!("CARGO_PKG_VERSION");
    if version == ours {
        return (Verdict::Ok, format!("{version}, {shown}"), None);
    }
    let hint = format!("this is pomona {ours}: install the same version of every program");
    (Verdict::Warn, format!("{version}, {shown}"), Some(hint))
}

/// The trainer, and the libtorch it loads.
fn trainer(given: Option<&Path>) -> Vec<Check> {
    let mut checks = vec![program("trainer", TRAINER, given)];
    if checks[0].verdict == Verdict::Fail {
        return checks;
    }
    let Ok(path) = programs::find(TRAINER, given) else {
        return checks;
    };
    checks.push(match libtorch(&path) {
        Some(Loaded { library, cuda }) => {
            let version = torch_version(&library);
            let version = version.as_deref().unwrap_or("of an unknown version");
            let devices = if cuda { "GPUs" } else { "CPUs" };
            let found = format!("{version} for {devices}, {}", library.display());
            if !cuda && Path::new(DRIVER).exists() {
                let hint = "this machine has a GPU: build the trainer with `make build-gpu`";
                hinted("libtorch", Verdict::Warn, found, hint)
            } else {
                check("libtorch", Verdict::Ok, found)
            }
        }
        None => check(
            "libtorch",
            Verdict::Warn,
            "this trainer does not load it: no real training",
        ),
    });
    checks
}

/// The libtorch that a trainer loads.
struct Loaded {
    library: PathBuf,
    /// Whether its half for GPUs comes along.
    cuda: bool,
}

/// What a trainer loads, as the system's loader tells it (this is what `ldd` asks).
fn libtorch(trainer: &Path) -> Option<Loaded> {
    let output = Command::new(trainer)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let library = lines.find_map(|line| {
        let (name, path) = line.trim().split_once(" => ")?;
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        (name == "libtorch_cpu.so").then(|| PathBuf::from(path))
    })?;
    let cuda = text.contains("libtorch_cuda.so");
    Some(Loaded { library, cuda })
}

/// `2.9.1+cpu`, from the file beside the library's folder (a wheel) or above it (a zip).
fn torch_version(library: &Path) -> Option<String> {
    let root = library.parent()?.parent()?;
    if let Ok(text) = std::fs::read_to_string(root.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(root.join("version.py")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(line.trim().trim_matches(['\'', '"']).to_owned())
}

/// How the worker of `pomona up` splits the cores when it is not told.
fn slots(given: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Check {
    let data = programs::data_dir(given).unwrap_or_default().join("worker");
    let text = std::fs::read(split::path(variable, &data)).ok();
    let measured = text.and_then(|text| serde_json::from_slice::<Measured>(&text).ok());
    let found = match measured {
        Some(measured) => format!(
            "{} of {} each; measured (slots × threads) {}",
            plural(u64::from(measured.best.processes), "slot"),
            plural(u64::from(measured.best.threads), "thread"),
            measured.table()
        ),
        None => "not measured yet: the worker does it at its first start".to_owned(),
    };
    check("slots", Verdict::Ok, found)
}

fn data_dir(given: Option<&Path>) -> Check {
    let folder = match programs::data_dir(given) {
        Ok(folder) => folder,
        Err(fault) => return check("data folder", Verdict::Fail, fault.message),
    };
    let shown = folder.display();
    let Some(there) = folder.ancestors().find(|path| path.exists()) else {
        return check(
            "data folder",
            Verdict::Fail,
            format!("{shown} cannot be made"),
        );
    };
    let hint = "name another with `--data-dir DIR`";
    if !there.is_dir() || access(there, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let found = format!("{} cannot be written", there.display());
        return hinted("data folder", Verdict::Fail, found, hint);
    }
    let Ok(room) = statvfs(there) else {
        return check(
            "data folder",
            Verdict::Warn,
            format!("{shown}, room unknown"),
        );
    };
    let free = room.blocks_available() * room.fragment_size();
    let state = if there == folder {
        ""
    } else {
        " (made at the first start)"
    };
    let found = format!("{shown}{state}, {} free", bytes(free));
    if free < LITTLE_DISK {
        return hinted(
            "data folder",
            Verdict::Warn,
            found,
            "checkpoints and data sets need room",
        );
    }
    check("data folder", Verdict::Ok, found)
}

fn server(global: &GlobalArgs, printer: &Printer) -> Result<Check, Fault> {
    let session = Session::new(global, printer)?;
    let address = session.client.server().to_owned();
    let client = session.client.attempts(1);
    let asking = async {
        let view = client.cluster().await?;
        // It says when its database or its object store is away.
        client.ready().await?;
        Ok::<_, Fault>(view)
    };
    let asked = runtime()?.block_on(async { tokio::time::timeout(SERVER_LIMIT, asking).await });
    Ok(match asked {
        Ok(Ok(view)) => {
            let found = format!(
                "{address}, version {}, {}, {} of {} slots busy",
                view.version,
                plural(u64::from(view.workers_alive), "worker"),
                view.slots_busy,
                view.slots_total
            );
            let verdict = if view.workers_alive == 0 {
                Verdict::Warn
            } else {
                Verdict::Ok
            };
            check("coordinator at", verdict, found)
        }
        Ok(Err(fault)) => {
            let found = format!("{}: {}", fault.code, fault.message);
            hinted(
                "coordinator at",
                Verdict::Warn,
                found,
                &fault.hint.unwrap_or_default(),
            )
        }
        Err(_) => {
            let found = format!("{address} does not answer");
            hinted(
                "coordinator at",
                Verdict::Warn,
                found,
                "start one with `pomona up`",
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_libtorch_is_read_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib/libtorch_cpu.so");
        assert_eq!(torch_version(&library), None);
        let wheel = "from typing import Optional\n__version__ = '2.9.1+cpu'\ncuda = None\n";
        std::fs::write(folder.path().join("version.py"), wheel).unwrap();
        assert_eq!(torch_version(&library).as_deref(), Some("2.9.1+cpu"));
        std::fs::write(folder.path().join("build-version"), "2.9.0+cu130\n").unwrap();
        assert_eq!(torch_version(&library).as_deref(), Some("2.9.0+cu130"));
    }

    #[test]
    fn a_program_that_does_not_start_fails() {
        let missing = program(
            "trainer",
            "trainer",
            Some(Path::new("/nonexistent/trainer")),
        );
        assert_eq!(missing.verdict, Verdict::Fail);
        let no = program("trainer", "false", Some(Path::new("/bin/false")));
        assert_eq!(no.verdict, Verdict::Fail);
        assert!(no.found.contains("does not start"), "{}", no.found);
    }

    #[test]
    fn a_data_folder_that_cannot_be_made_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = data_dir(Some(&file.path().join("data")));
        assert_eq!(check.verdict, Verdict::Fail, "{}", check.found);
    }

    #[test]
    fn slots_are_those_that_the_worker_measured() {
        let folder = tempfile::tempdir().unwrap();
        let found = || slots(Some(folder.path()), |_| None).found;
        assert!(found().contains("not measured yet"));
        std::fs::create_dir(folder.path().join("worker")).unwrap();
        let text = r#"{"processor": "p", "cores": 2,
            "trainer": "sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "best": {"processes": 1, "threads": 2},
            "rates": [{"processes": 2, "threads": 1, "images_per_s": 80.4},
                      {"processes": 1, "threads": 2, "images_per_s": 99.6}]}"#;
        std::fs::write(folder.path().join("worker").join("split.json"), text).unwrap();
        assert_eq!(
            found(),
            "1 slot of 2 threads each; measured (slots × threads) 2 × 1: 80 images/s, \
             1 × 2: 100 images/s"
        );
    }

    #[test]
    fn a_shell_loads_no_libtorch() {
        assert!(libtorch(Path::new("/bin/cat")).is_none());
    }
}
