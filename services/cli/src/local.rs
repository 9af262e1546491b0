//! Faults of this machine's files.

use pomona_domain::{Code, Fault};
use std::io::{Error, ErrorKind};
use std::path::Path;

/// A file or folder cannot be read, written, made, … (`verb`).
pub fn cannot(verb: &str, path: &Path, error: &Error) -> Fault {
    let code = if error.kind() == ErrorKind::StorageFull {
        Code::DiskFull
    } else {
        Code::LocalFile
    };
    let known = [
        (ErrorKind::NotFound, "there is no such file or folder"),
        (ErrorKind::PermissionDenied, "permission denied"),
        (ErrorKind::IsADirectory, "it is a folder"),
        (ErrorKind::NotADirectory, "it is no folder"),
    ];
    let why = known
        .iter()
        .find(|(kind, _)| *kind == error.kind())
        .map_or_else(|| error.to_string(), |(_, why)| (*why).to_owned());
    let fault = Fault::new(code, format!("cannot {verb} `{}`: {why}", path.display()));
    if error.kind() == ErrorKind::NotFound {
        return fault.hint("check the path; a relative one begins at the current folder");
    }
    fault
}
