//! From libtorch's, c10d's and the system's errors to coded faults.

use pomona_domain::{Code, Fault};
use std::path::Path;

/// A fault of ours that no input can cause.
pub fn internal(message: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Internal, one_line(&message.to_string()))
}

/// What a libtorch error means: out of memory, or something of ours.
pub fn torch(error: &tch::TchError) -> Fault {
    from_message(&error.to_string())
}

/// A collective failed: a peer is lost.
pub fn collective(error: &cxx::Exception) -> Fault {
    Fault::new(
        Code::RankLost,
        format!("a collective failed: {}", one_line(error.what())),
    )
}

/// A file cannot be read or written.
pub fn file(what: &str, path: &Path, error: &std::io::Error) -> Fault {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let full = matches!(error.kind(), StorageFull | QuotaExceeded);
    let code = if full {
        Code::DiskFull
    } else {
        Code::LocalFile
    };
    Fault::new(code, format!("cannot {what} `{}`: {error}", path.display()))
}

/// What a libtorch message means. Its C++ stack trace is cut off.
pub fn from_message(message: &str) -> Fault {
    let line = one_line(message);
    let memory = [
        "not enough memory",
        "can't allocate memory",
        "out of memory",
    ];
    if memory.iter().any(|text| line.contains(text)) {
        return Fault::new(Code::OutOfMemory, format!("out of memory: {line}"))
            .hint("use a smaller `train.batch_size` or freeze more blocks");
    }
    let peer = [
        "Connection reset by peer",
        "Connection closed by peer",
        "Broken pipe",
        "Read error ",
        "pair closure",
        "Timed out waiting",
        "NCCL error",
    ];
    if peer.iter().any(|text| line.contains(text)) {
        return Fault::new(Code::RankLost, format!("a collective failed: {line}"));
    }
    Fault::new(Code::Internal, line)
}

fn one_line(message: &str) -> String {
    let line = message
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no message");
    line.trim().chars().take(400).collect()
}

/// An error of the shim that is no collective's.
pub fn from_exception(error: &cxx::Exception) -> Fault {
    from_message(error.what())
}

/// Whether a code blames this machine rather than the work.
pub fn is_ours(code: Code) -> bool {
    matches!(
        code,
        Code::StoreDown | Code::BlobMissing | Code::BlobCorrupt | Code::MissingProgram
    )
}
