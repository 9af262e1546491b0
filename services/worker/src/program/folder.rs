//! A program's checkpoint folder as one tar, and back: sorted, without times or owners, so that the
//! same content has the same digest.
//!
//! It must never follow a link, and never take a folder that changed while it was read.

use pomona_domain::{Code, Fault};
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Builder, EntryType, Header};

use crate::work::cannot;

/// Files, folders and links in it.
const MAX_ENTRIES: usize = 100_000;
/// How deep folders lie.
const MAX_DEPTH: usize = 32;

/// What became of packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    /// The tar is on disk.
    Done,
    /// There is nothing in the folder.
    Empty,
    /// The folder changed meanwhile; there is no tar.
    Changed,
}

/// One thing in the folder, and what shows that it is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    kind: Kind,
    inode: u64,
    changed: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Folder,
    File { size: u64, runs: bool },
    Link(PathBuf),
}

/// Packs a folder into a new file. `E0622` when it holds more than `limit` bytes, or something that
/// is neither file nor folder nor a link within it. Blocks.
pub fn pack(folder: &Path, tar: &Path, limit: u64) -> Result<Packed, Fault> {
    let Some(before) = list(folder)? else {
        return Ok(Packed::Changed);
    };
    if before.is_empty() {
        return Ok(Packed::Empty);
    }
    let sizes = before.iter().map(|entry| match entry.kind {
        Kind::File { size, .. } => size,
        Kind::Folder | Kind::Link(_) => 0,
    });
    let bytes: u64 = sizes.sum();
    if bytes > limit {
        let text = format!("the checkpoint folder holds {bytes} bytes, the limit is {limit}");
        let hint = "keep only what a resume needs, or raise `program.checkpoint_max_bytes` of the \
                    workers";
        return Err(unusable(text).hint(hint));
    }
    let whole = write(folder, &before, tar)?;
    if whole && list(folder)?.as_ref() == Some(&before) {
        return Ok(Packed::Done);
    }
    let _ = std::fs::remove_file(tar);
    Ok(Packed::Changed)
}

fn unusable(text: String) -> Fault {
    Fault::new(Code::UnusableCheckpoint, text)
}

/// What the folder holds, by path; `None` when it changes under our eyes.
fn list(root: &Path) -> Result<Option<Vec<Entry>>, Fault> {
    let mut entries = Vec::new();
    let mut open = vec![(PathBuf::new(), 1)];
    while let Some((below, depth)) = open.pop() {
        let folder = root.join(&below);
        let Ok(found) = std::fs::read_dir(&folder) else {
            return Ok(None);
        };
        for file in found {
            let file = file.map_err(|error| cannot("read", &folder, &error))?;
            let path = below.join(file.file_name());
            let Ok(data) = std::fs::symlink_metadata(root.join(&path)) else {
                return Ok(None);
            };
            let Some(kind) = kind(root, &path, &data)? else {
                return Ok(None);
            };
            if kind == Kind::Folder {
                open.push((path.clone(), depth + 1));
            }
            entries.push(Entry {
                path,
                kind,
                inode: data.ino(),
                changed: (data.mtime(), data.mtime_nsec()),
            });
            if entries.len() > MAX_ENTRIES || depth > MAX_DEPTH {
                let text = format!(
                    "the checkpoint folder has more than {MAX_ENTRIES} entries, or lies more \
                     than {MAX_DEPTH} deep"
                );
                return Err(unusable(text));
            }
        }
    }
    entries.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    Ok(Some(entries))
}

fn kind(root: &Path, path: &Path, data: &std::fs::Metadata) -> Result<Option<Kind>, Fault> {
    if data.is_dir() {
        return Ok(Some(Kind::Folder));
    }
    if data.is_file() {
        let (size, runs) = (data.size(), data.mode() & 0o100 != 0);
        return Ok(Some(Kind::File { size, runs }));
    }
    let shown = path.display();
    if !data.is_symlink() {
        let text = format!("`{shown}` in the checkpoint folder is no file, folder or link");
        return Err(unusable(text));
    }
    let Ok(target) = std::fs::read_link(root.join(path)) else {
        return Ok(None);
    };
    let ordinary = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !target.components().all(ordinary) {
        let text = format!("the link `{shown}` leads out of the checkpoint folder");
        return Err(unusable(text).hint("link to a path within the folder, or copy the file"));
    }
    Ok(Some(Kind::Link(target)))
}

/// Writes the tar. Says whether every file had the bytes that it had when it was listed.
fn write(folder: &Path, entries: &[Entry], tar: &Path) -> Result<bool, Fault> {
    let broken = |error: std::io::Error| cannot("write", tar, &error);
    let file = File::create(tar).map_err(broken)?;
    let mut builder = Builder::new(BufWriter::with_capacity(1 << 20, file));
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        header.set_size(0);
        let added = match &entry.kind {
            Kind::Folder => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
                builder.append_data(&mut header, &entry.path, std::io::empty())
            }
            Kind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                builder.append_link(&mut header, &entry.path, target)
            }
            Kind::File { size, runs } => {
                let Ok(file) = File::open(folder.join(&entry.path)) else {
                    return Ok(false);
                };
                if !file.metadata().is_ok_and(|data| data.len() == *size) {
                    return Ok(false);
                }
                header.set_entry_type(EntryType::Regular);
                header.set_mode(if *runs { 0o755 } else { 0o644 });
                header.set_size(*size);
                // A file that shrinks meanwhile is filled up: the second listing tells.
                let bytes = file.chain(std::io::repeat(0)).take(*size);
                builder.append_data(&mut header, &entry.path, bytes)
            }
        };
        added.map_err(broken)?;
    }
    let mut inner = builder.into_inner().map_err(broken)?;
    inner.flush().map_err(broken)?;
    let file = inner
        .into_inner()
        .map_err(|error| broken(error.into_error()))?;
    file.sync_all().map_err(broken)?;
    Ok(true)
}

/// Unpacks a tar of ours into a folder that is there. Blocks.
pub fn restore(tar: &Path, folder: &Path) -> Result<(), Fault> {
    let file = File::open(tar).map_err(|error| cannot("read", tar, &error))?;
    let mut archive = Archive::new(std::io::BufReader::with_capacity(1 << 20, file));
    archive.set_preserve_mtime(false);
    archive.unpack(folder).map_err(|error| {
        let text = format!("the checkpoint cannot be unpacked: {error}");
        Fault::new(Code::BadCheckpoint, text)
    })
}
