//! Where the programs and the data folder of this machine are.

use pomona_domain::{Code, Fault};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The coordinator's program.
pub const COORDINATOR: &str = "pomona-coordinator";
/// The worker's program.
pub const WORKER: &str = "pomona-worker";
/// The trainer's program.
pub const TRAINER: &str = "pomona-trainer";

/// A program: the one that is named, or the one beside this program, or the one on PATH.
pub fn find(name: &str, given: Option<&Path>) -> Result<PathBuf, Fault> {
    if let Some(path) = given {
        let whole = path.canonicalize().ok().filter(|path| is_program(path));
        return whole.ok_or_else(|| {
            let message = format!("there is no program `{}`", path.display());
            Fault::new(Code::MissingProgram, message).hint("check the path")
        });
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = beside
        .into_iter()
        .chain(on_path)
        .find(|path| is_program(path));
    found.ok_or_else(|| {
        let message = format!("there is no `{name}` beside this program or on PATH");
        let hint = if name == TRAINER {
            "build it with `make build`, or name it with `--trainer PATH`"
        } else {
            "build it with `make build`, or install all programs in one folder"
        };
        Fault::new(Code::MissingProgram, message).hint(hint)
    })
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The data folder: the one that is named, or the user's own.
pub fn data_dir(given: Option<&Path>) -> Result<PathBuf, Fault> {
    let folder = match given {
        Some(folder) => folder.to_owned(),
        None => user_data()?.join("pomona"),
    };
    std::path::absolute(&folder).map_err(|error| {
        let message = format!("`{}` is no path: {error}", folder.display());
        Fault::new(Code::BadDataDir, message)
    })
}

fn user_data() -> Result<PathBuf, Fault> {
    let xdg = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    if let Some(folder) = xdg.filter(|folder| folder.is_absolute()) {
        return Ok(folder);
    }
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    home.map(|home| home.join(".local/share")).ok_or_else(|| {
        Fault::new(Code::BadDataDir, "this user has no home folder")
            .hint("name a data folder with `--data-dir DIR`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told_with_what_to_do() {
        let fault = find("pomona-nothing", None).unwrap_err();
        assert_eq!(fault.code, Code::MissingProgram);
        assert!(fault.hint.is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        let fault = find(TRAINER, Some(file.path())).unwrap_err();
        assert_eq!(
            fault.code,
            Code::MissingProgram,
            "a file that cannot be run is no program"
        );
    }

    #[test]
    fn a_program_on_the_path_is_found() {
        assert!(find("sh", None).unwrap().ends_with("sh"));
    }
}
