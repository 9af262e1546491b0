//! A published model as a folder: what is in it, whether that is a given version, and how a pulled
//! one comes to stand there whole or not at all.

use pomona_domain::model::{ModelFile, Version, version_digest};
use pomona_domain::{Code, Digest, Fault};
use pomona_signing::SIGNATURE_FILE;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use crate::local::cannot;

/// A model's folder does not hold more files than this.
const MAX_FILES: usize = 10_000;
/// Differences that are named.
const DIFFERENCES_SHOWN: usize = 5;

/// What stands at the target of a pull.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing, or an empty folder.
    Free,
    /// Exactly the version.
    Same,
}

/// The files of a folder, sorted by path, each read and hashed.
pub fn files(root: &Path) -> Result<Vec<ModelFile>, Fault> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let absolute = root.join(&folder);
        let children =
            std::fs::read_dir(&absolute).map_err(|error| cannot("read", &absolute, &error))?;
        for child in children {
            let child = child.map_err(|error| cannot("read", &absolute, &error))?;
            let path = folder.join(child.file_name());
            let metadata = child
                .metadata()
                .map_err(|error| cannot("read", &child.path(), &error))?;
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file() {
                found.push(file(root, &path)?);
            } else {
                return Err(Fault::new(
                    Code::DigestMismatch,
                    format!("`{}` is no ordinary file", child.path().display()),
                )
                .hint("a published folder holds files only; pull it again"));
            }
            if found.len() > MAX_FILES {
                let message = format!("`{}` holds more than {MAX_FILES} files", root.display());
                return Err(Fault::new(Code::TooLarge, message));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The same without the signature, which is about the version and not of it.
pub fn unsigned(root: &Path) -> Result<Vec<ModelFile>, Fault> {
    let mut found = files(root)?;
    found.retain(|file| file.path != SIGNATURE_FILE);
    Ok(found)
}

fn file(root: &Path, path: &Path) -> Result<ModelFile, Fault> {
    let absolute = root.join(path);
    let fault = |error: std::io::Error| cannot("read", &absolute, &error);
    let mut file = File::open(&absolute).map_err(fault)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 18];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer).map_err(fault)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
    let parts: Vec<String> = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    Ok(ModelFile {
        path: parts.join("/"),
        sha256: Digest(hash.finalize().into()).hex(),
        size,
    })
}

/// In what the files differ from those of a version, as sentences; empty when they do not.
pub fn differences(files: &[ModelFile], wanted: &[ModelFile]) -> Vec<String> {
    let find = |list: &[ModelFile], path: &str| list.iter().find(|file| file.path == path).cloned();
    let mut found: Vec<String> = wanted
        .iter()
        .filter_map(|want| match find(files, &want.path) {
            None => Some(format!("`{}` is missing", want.path)),
            Some(have) if have.size != want.size => Some(format!(
                "`{}` has {} bytes instead of {}",
                want.path, have.size, want.size
            )),
            Some(have) if have.sha256 != want.sha256 => {
                Some(format!("`{}` has other bytes", want.path))
            }
            Some(_) => None,
        })
        .collect();
    found.extend(
        files
            .iter()
            .filter(|file| find(wanted, &file.path).is_none())
            .map(|file| format!("`{}` is not part of it", file.path)),
    );
    found
}

/// Whether a folder holds exactly the version.
pub fn check(root: &Path, version: &Version) -> Result<Digest, Fault> {
    let files = unsigned(root)?;
    let differences = differences(&files, &version.files);
    let digest = version_digest(&files);
    if differences.is_empty() && digest == version.digest {
        return Ok(digest);
    }
    Err(mismatch(
        root,
        &format!("{}@{}", version.model, version.number),
        &differences,
    ))
}

/// The fault of a folder that is not what it should be.
pub fn mismatch(root: &Path, version: &str, differences: &[String]) -> Fault {
    let mut named: Vec<String> = differences
        .iter()
        .take(DIFFERENCES_SHOWN)
        .cloned()
        .collect();
    if differences.len() > DIFFERENCES_SHOWN {
        named.push(format!(
            "and {} more",
            differences.len() - DIFFERENCES_SHOWN
        ));
    }
    let message = format!(
        "`{}` is not `{version}`: {}",
        root.display(),
        named.join(", ")
    );
    Fault::new(Code::DigestMismatch, message).hint(format!(
        "do not use it; pull it again with `pomona model pull {version} DIR`"
    ))
}

/// What stands at the target; refuses a folder that holds anything else.
pub fn target(root: &Path, version: &Version) -> Result<Target, Fault> {
    let mut children = match std::fs::read_dir(root) {
        Ok(children) => children,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Target::Free),
        Err(error) => return Err(cannot("read", root, &error)),
    };
    if children.next().is_none() {
        return Ok(Target::Free);
    }
    match check(root, version) {
        Ok(_) => Ok(Target::Same),
        Err(fault) if fault.code == Code::DigestMismatch || fault.code == Code::TooLarge => {
            let message = format!(
                "`{}` is not empty and does not hold `{}@{}`",
                root.display(),
                version.model,
                version.number
            );
            Err(Fault::new(Code::AlreadyExists, message)
                .hint("name a new folder, or empty this one yourself"))
        }
        Err(fault) => Err(fault),
    }
}

/// Refuses a list of files that would leave its folder, has a name twice, or does not have the
/// version's digest: what a registry says is checked before a byte of it is written.
pub fn check_listing(version: &Version) -> Result<(), Fault> {
    for file in &version.files {
        let path = Path::new(&file.path);
        let inside = path.components().all(|part| match part {
            Component::Normal(_) => true,
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => false,
        });
        if file.path.is_empty() || !inside {
            let message = format!(
                "the version names a file outside its folder: `{}`",
                file.path
            );
            return Err(Fault::new(Code::BadName, message));
        }
    }
    let digest = version_digest(&version.files);
    if digest == version.digest {
        return Ok(());
    }
    let message = format!(
        "the files of `{}@{}` have the digest `{digest}`, the version says `{}`",
        version.model, version.number, version.digest
    );
    Err(Fault::new(Code::DigestMismatch, message))
}

/// A folder that is being made beside its target; it goes when it does not come to stand there.
#[derive(Debug)]
pub struct Staging {
    folder: tempfile::TempDir,
    target: PathBuf,
}

impl Staging {
    /// Begins beside `target`.
    pub fn new(target: &Path) -> Result<Self, Fault> {
        let target = std::path::absolute(target).map_err(|error| cannot("make", target, &error))?;
        let parent = target.parent().unwrap_or(Path::new("/")).to_owned();
        std::fs::create_dir_all(&parent).map_err(|error| cannot("make", &parent, &error))?;
        let folder = tempfile::Builder::new()
            .prefix(".pomona-pull-")
            .tempdir_in(&parent)
            .map_err(|error| cannot("make a folder in", &parent, &error))?;
        Ok(Self { folder, target })
    }

    /// Where a file of the version goes; its folder is there.
    pub fn place(&self, file: &ModelFile) -> Result<PathBuf, Fault> {
        let path = self.folder.path().join(&file.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| cannot("make", parent, &error))?;
        }
        Ok(path)
    }

    /// Where the signature goes.
    pub fn signature(&self) -> PathBuf {
        self.folder.path().join(SIGNATURE_FILE)
    }

    /// The folder, as long as it is not in its place.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Reads all files again from disk, checks them against the version, and puts the folder in its
    /// place.
    pub fn finish(self, version: &Version) -> Result<Digest, Fault> {
        let digest = check(self.folder.path(), version)?;
        open_to_readers(self.folder.path())?;
        // An empty folder in the way is replaced by the rename itself.
        std::fs::rename(self.folder.path(), &self.target)
            .map_err(|error| cannot("make", &self.target, &error))?;
        if let Some(parent) = self.target.parent() {
            File::open(parent)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| cannot("write to", parent, &error))?;
        }
        // What the guard would remove now stands under another name.
        drop(self.folder.keep());
        Ok(digest)
    }
}

/// A temporary folder is the owner's alone; a pulled one is like any other.
fn open_to_readers(folder: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .map_err(|error| cannot("write to", folder, &error))
}

#[cfg(test)]
mod tests;
