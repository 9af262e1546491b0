//! Folders and pictures as tars: sorted, without times or owners, so that the same content has the
//! same digest on every machine. It must never follow a symbolic link.

use pomona_domain::{Code, Digest, Fault};
use sha2::{Digest as _, Sha256};
use std::fs::{File, Metadata};
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;

use crate::local::cannot;

/// A folder deeper than this is refused.
const MAX_DEPTH: usize = 32;
/// More entries than this are refused.
const MAX_ENTRIES: usize = 5_000_000;
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A folder without entries: recorded, so that an empty class is seen.
    EmptyFolder,
    /// A file of this size.
    File(u64),
    /// A symbolic link, recorded and not followed.
    Link(PathBuf),
    /// A device, socket or pipe: recorded as an empty file.
    Special,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Path below the folder.
    path: PathBuf,
    kind: Kind,
}

/// What a folder holds.
#[derive(Debug)]
pub struct Listing {
    root: PathBuf,
    entries: Vec<Entry>,
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// A finished tar; the file goes when this does.
#[derive(Debug)]
pub struct Packed {
    /// The tar.
    pub file: NamedTempFile,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Walks a folder, in order of the names' bytes.
pub fn walk(root: &Path) -> Result<Listing, Fault> {
    let metadata = std::fs::metadata(root).map_err(|error| bad_folder(root, &error))?;
    if !metadata.is_dir() {
        let message = format!("`{}` is no folder", root.display());
        return Err(Fault::new(Code::BadDatasetPath, message)
            .hint("give a folder that holds one sub-folder of images for each class"));
    }
    let mut listing = Listing {
        root: root.to_owned(),
        entries: Vec::new(),
        files: 0,
        bytes: 0,
    };
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        walk_one(&mut listing, &folder, &mut open)?;
    }
    listing
        .entries
        .sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    Ok(listing)
}

fn walk_one(listing: &mut Listing, folder: &Path, open: &mut Vec<PathBuf>) -> Result<(), Fault> {
    let absolute = listing.root.join(folder);
    if folder.components().count() > MAX_DEPTH {
        let message = format!(
            "`{}` lies more than {MAX_DEPTH} folders deep",
            absolute.display()
        );
        return Err(Fault::new(Code::BadDatasetPath, message));
    }
    let children = std::fs::read_dir(&absolute).map_err(|error| bad_folder(&absolute, &error))?;
    let mut empty = true;
    for child in children {
        let child = child.map_err(|error| bad_folder(&absolute, &error))?;
        empty = false;
        let path = folder.join(child.file_name());
        let metadata = child
            .metadata()
            .map_err(|error| bad_folder(&child.path(), &error))?;
        if metadata.is_dir() {
            open.push(path);
            continue;
        }
        let kind = kind_of(&child.path(), &metadata)?;
        if let Kind::File(size) = kind {
            listing.files += 1;
            listing.bytes += size;
        }
        listing.entries.push(Entry { path, kind });
    }
    if empty && !folder.as_os_str().is_empty() {
        listing.entries.push(Entry {
            path: folder.to_owned(),
            kind: Kind::EmptyFolder,
        });
    }
    if listing.entries.len() > MAX_ENTRIES {
        let message = format!(
            "`{}` holds more than {MAX_ENTRIES} files",
            listing.root.display()
        );
        return Err(Fault::new(Code::TooLarge, message));
    }
    Ok(())
}

fn kind_of(path: &Path, metadata: &Metadata) -> Result<Kind, Fault> {
    if metadata.is_symlink() {
        let target = std::fs::read_link(path).map_err(|error| cannot("read", path, &error))?;
        return Ok(Kind::Link(target));
    }
    Ok(if metadata.is_file() {
        Kind::File(metadata.len())
    } else {
        Kind::Special
    })
}

fn bad_folder(path: &Path, error: &std::io::Error) -> Fault {
    Fault {
        code: Code::BadDatasetPath,
        ..cannot("read", path, error)
    }
}

/// Packs a listed folder; `progress` is told the bytes of each file that was read, and can end it.
pub fn pack(
    listing: &Listing,
    progress: impl Fn(u64) -> Result<(), Fault>,
) -> Result<Packed, Fault> {
    let mut tar = Tar::new()?;
    for entry in &listing.entries {
        let absolute = listing.root.join(&entry.path);
        match &entry.kind {
            Kind::EmptyFolder => tar.folder(&entry.path)?,
            Kind::File(size) => {
                tar.file(&entry.path, &absolute, *size)?;
                progress(*size)?;
            }
            Kind::Link(target) => tar.link(&entry.path, target)?,
            Kind::Special => tar.empty(&entry.path)?,
        }
    }
    tar.finish()
}

/// Packs single pictures, each under a name of its own (`00000/rose.png`), in the order given.
pub fn pack_pictures(files: &[(String, PathBuf)]) -> Result<Packed, Fault> {
    let mut tar = Tar::new()?;
    for (name, file) in files {
        let size = std::fs::metadata(file)
            .map_err(|error| cannot("read", file, &error))?
            .len();
        tar.file(Path::new(name), file, size)?;
    }
    tar.finish()
}

struct Tar {
    builder: Builder<Hashing<BufWriter<NamedTempFile>>>,
}

impl Tar {
    fn new() -> Result<Self, Fault> {
        let file = NamedTempFile::new()
            .map_err(|error| cannot("make a file in", &std::env::temp_dir(), &error))?;
        Ok(Self {
            builder: Builder::new(Hashing {
                inner: BufWriter::with_capacity(1 << 20, file),
                hash: Sha256::new(),
                size: 0,
            }),
        })
    }

    fn file(&mut self, path: &Path, source: &Path, size: u64) -> Result<(), Fault> {
        let file = File::open(source).map_err(|error| cannot("read", source, &error))?;
        // A file that grew is cut off, so that the tar stays whole; one that shrank is noticed.
        let mut reader = Counting {
            inner: file.take(size),
            read: 0,
        };
        let mut header = header(EntryType::Regular, FILE_MODE, size);
        self.builder
            .append_data(&mut header, path, &mut reader)
            .map_err(|error| cannot("pack", source, &error))?;
        if reader.read == size {
            return Ok(());
        }
        let message = format!("`{}` changed while it was read", source.display());
        Err(Fault::new(Code::LocalFile, message).hint("try again when nothing writes to it"))
    }

    fn folder(&mut self, path: &Path) -> Result<(), Fault> {
        self.bare(EntryType::Directory, FOLDER_MODE, path)
    }

    fn empty(&mut self, path: &Path) -> Result<(), Fault> {
        self.bare(EntryType::Regular, FILE_MODE, path)
    }

    fn bare(&mut self, kind: EntryType, mode: u32, path: &Path) -> Result<(), Fault> {
        let mut header = header(kind, mode, 0);
        self.builder
            .append_data(&mut header, path, std::io::empty())
            .map_err(|error| cannot("pack", path, &error))
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<(), Fault> {
        let mut header = header(EntryType::Symlink, FILE_MODE, 0);
        self.builder
            .append_link(&mut header, path, target)
            .map_err(|error| cannot("pack", path, &error))
    }

    fn finish(self) -> Result<Packed, Fault> {
        let failed = |error: std::io::Error| cannot("write to", &std::env::temp_dir(), &error);
        let hashing = self.builder.into_inner().map_err(failed)?;
        let mut file = hashing
            .inner
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.rewind().map_err(failed)?;
        Ok(Packed {
            file,
            digest: Digest(hashing.hash.finalize().into()),
            size: hashing.size,
        })
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Hashes what it passes on.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Counts what it passes on.
struct Counting<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
