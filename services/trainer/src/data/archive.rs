//! The uncompressed tar that holds a data set's files: an index of offsets over an open file.
//!
//! Names are only names: nothing is written to disk, so no name can leave a folder.

use pomona_domain::{Code, Fault};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tar::EntryType;

/// Entries of one tar.
const MEMBER_LIMIT: usize = 20_000_000;
/// Bytes of one file.
pub(super) const FILE_LIMIT: u64 = 256 << 20;
/// Pictures of one prediction.
const PICTURES_LIMIT: usize = 100_000;
/// Bytes of all pictures of one prediction.
const PICTURES_BYTES_LIMIT: u64 = 2 << 30;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic or a hard link.
    Link,
    /// Its name is not UTF-8 or has `..` in it.
    BadName,
    /// A device, a pipe, a sparse file.
    Other,
}

/// An entry of the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its path without `.` and empty parts.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: Kind,
    /// Where its bytes begin.
    pub(super) offset: u64,
    /// How many there are.
    pub(super) size: u64,
}

/// An open tar and its index, sorted by path. Of two entries of one path the later one counts.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    members: Vec<Member>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let file = open(path)?;
        let length = file.metadata().map_err(|e| local(path, &e))?.len();
        let mut members = index(&file, length).map_err(|error| {
            Fault::new(
                Code::CorruptDataset,
                format!(
                    "the archive `{}` is not a whole tar: {error}",
                    path.display()
                ),
            )
            .hint("add the data set again from its folder")
        })?;
        // Stable, so that the last entry of a path stays last.
        members.sort_by(|a, b| a.path.cmp(&b.path));
        members.reverse();
        members.dedup_by(|later, earlier| later.path == earlier.path);
        members.reverse();
        Ok(Self { file, members })
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.kind == Kind::File)
    }

    /// Bytes at a place; callable from many threads.
    pub(super) fn read(&self, offset: u64, size: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; size as usize];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| {
                Fault::new(
                    Code::LocalFile,
                    format!("the data-set archive cannot be read: {error}"),
                )
            })?;
        Ok(bytes)
    }
}

fn index(file: &File, length: u64) -> io::Result<Vec<Member>> {
    // A tar ends with two blocks of zeros. Without them a cut between two files would not show.
    const END: u64 = 1024;
    let mut end = [0; END as usize];
    let whole = length.is_multiple_of(512)
        && length >= END
        && file.read_exact_at(&mut end, length - END).is_ok()
        && end.iter().all(|byte| *byte == 0);
    if !whole {
        return Err(io::Error::other("its end is missing"));
    }
    let mut members = Vec::new();
    let mut tar = tar::Archive::new(BufReader::new(file));
    for entry in tar.entries_with_seek()? {
        let entry = entry?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let mut kind = kind(entry.header().entry_type());
        if kind == Kind::File && offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(io::Error::other("it is cut off"));
        }
        let name = entry.path_bytes();
        if std::str::from_utf8(&name).is_err() {
            kind = Kind::BadName;
        }
        let name = String::from_utf8_lossy(&name);
        let parts: Vec<&str> = name
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if parts.contains(&"..") {
            kind = Kind::BadName;
        }
        if parts.is_empty() {
            continue;
        }
        if members.len() == MEMBER_LIMIT {
            return Err(io::Error::other("it has more than 20 million entries"));
        }
        members.push(Member {
            path: parts.join("/"),
            kind,
            offset,
            size,
        });
    }
    Ok(members)
}

fn kind(entry: EntryType) -> Kind {
    if entry.is_file() || entry.is_contiguous() {
        Kind::File
    } else if entry.is_dir() {
        Kind::Folder
    } else if entry.is_symlink() || entry.is_hard_link() {
        Kind::Link
    } else {
        Kind::Other
    }
}

/// Whether a path is bookkeeping of an operating system rather than data: hidden files and
/// folders, `Thumbs.db`, `desktop.ini`, `__MACOSX`.
pub(super) fn is_bookkeeping(path: &str) -> bool {
    path.split('/').any(|part| {
        part.starts_with('.')
            || ["Thumbs.db", "desktop.ini", "__MACOSX"]
                .iter()
                .any(|name| part.eq_ignore_ascii_case(name))
    })
}

/// The files of a tar of pictures, sorted by path, whatever they are called. `TooLarge` over 100,000
/// files, 256 MiB in one, or 2 GiB in all.
pub fn read_pictures(tar: &Path) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let archive = Archive::open(tar)?;
    let mut pictures = Vec::new();
    let mut left = PICTURES_BYTES_LIMIT;
    for member in archive.files() {
        if pictures.len() == PICTURES_LIMIT {
            return Err(too_large("there are more than 100,000 pictures".into()));
        }
        if member.size > FILE_LIMIT {
            return Err(too_large(format!("`{}` is over 256 MiB", member.path)));
        }
        left = left
            .checked_sub(member.size)
            .ok_or_else(|| too_large("the pictures are over 2 GiB together".into()))?;
        let bytes = archive.read(member.offset, member.size)?;
        pictures.push((member.path.clone(), bytes));
    }
    Ok(pictures)
}

fn too_large(message: String) -> Fault {
    Fault::new(Code::TooLarge, message).hint("predict in several calls")
}

/// A whole small file.
pub(super) fn read_whole(path: &Path, limit: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    open(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| local(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Fault::new(
            Code::TooLarge,
            format!("`{}` is over {limit} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

pub(super) fn open(path: &Path) -> Result<File, Fault> {
    File::open(path).map_err(|error| local(path, &error))
}

pub(super) fn local(path: &Path, error: &io::Error) -> Fault {
    Fault::new(
        Code::LocalFile,
        format!("`{}` cannot be used: {error}", path.display()),
    )
}
