//! Where what stands in the tar of a version: heads, files and what fills up, without a byte of a
//! file. Any range of the tar is then read from the blobs that it touches, and nothing else.
//!
//! The tar follows from the list of files alone (ustar; times 0, owner 0, sorted by path). It must
//! never name anything outside of [`ROOT`].

use bytes::Bytes;
use pomona_domain::model::ModelFile;
use pomona_domain::{Code, Digest, Fault};
use std::collections::BTreeSet;
use std::ops::Range;
use tar::{EntryType, Header};

/// The folder of the files in the image.
const ROOT: &str = "models";
/// All in a tar is a multiple of this.
const BLOCK: u64 = 512;

/// A part of the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Bytes(Bytes),
    /// These bytes of a blob.
    Blob(Digest, Range<u64>),
}

impl Piece {
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(_, range) => range.end - range.start,
        }
    }
}

/// The parts of a tar, or of what else is put together, in order.
#[derive(Debug)]
pub struct Layout(Vec<Piece>);

impl Layout {
    /// Refuses paths that lead out of a folder, or have no place in it.
    pub fn of(files: &[ModelFile]) -> Result<Self, Fault> {
        let mut sorted: Vec<&ModelFile> = files.iter().collect();
        sorted.sort();
        let mut layout = Self(Vec::new());
        let (mut folders, mut names) = (BTreeSet::new(), BTreeSet::new());
        for file in sorted {
            let path = format!("{ROOT}/{}", checked(&file.path)?);
            for (at, _) in path.match_indices('/') {
                if folders.insert(path[..at].to_owned()) {
                    layout.head(&path[..=at], EntryType::Directory, 0)?;
                }
            }
            names.insert(path.clone());
            layout.head(&path, EntryType::Regular, file.size)?;
            let digest = file.digest().map_err(|_| bad(&file.path))?;
            if file.size > 0 {
                layout.0.push(Piece::Blob(digest, 0..file.size));
            }
            layout.zeros(file.size.next_multiple_of(BLOCK) - file.size);
        }
        if names.len() < files.len() || !folders.is_disjoint(&names) {
            let text = "a version with two files at one place cannot be an image";
            return Err(Fault::new(Code::NotFound, text));
        }
        layout.zeros(2 * BLOCK);
        Ok(layout)
    }

    /// One of these parts.
    pub fn new(pieces: Vec<Piece>) -> Self {
        Self(pieces)
    }

    /// All parts.
    pub fn all(self) -> Vec<Piece> {
        self.0
    }

    /// Bytes of the tar.
    pub fn size(&self) -> u64 {
        self.0.iter().map(Piece::len).sum()
    }

    /// The parts that a range of the tar is made of.
    pub fn between(&self, range: &Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for piece in &self.0 {
            let end = start + piece.len();
            let (first, last) = (range.start.max(start), range.end.min(end));
            if first < last {
                pieces.push(cut(piece, first - start..last - start));
            }
            start = end;
        }
        pieces
    }

    fn zeros(&mut self, count: u64) {
        if count > 0 {
            let count = usize::try_from(count).unwrap_or_default();
            self.0.push(Piece::Bytes(vec![0; count].into()));
        }
    }

    fn head(&mut self, path: &str, kind: EntryType, size: u64) -> Result<(), Fault> {
        let mut head = header(kind, size);
        if head.set_path(path).is_err() {
            // Too long for the head: a record before it says it.
            let record = record(path);
            let mut before = header(EntryType::XHeader, record.len() as u64);
            before
                .set_path(format!("{ROOT}/PaxHeader"))
                .map_err(|_| bad(path))?;
            head.set_path(format!("{ROOT}/long"))
                .map_err(|_| bad(path))?;
            self.push(before);
            let size = record.len() as u64;
            self.0.push(Piece::Bytes(record.into()));
            self.zeros(size.next_multiple_of(BLOCK) - size);
        }
        self.push(head);
        Ok(())
    }

    fn push(&mut self, mut head: Header) {
        head.set_cksum();
        self.0
            .push(Piece::Bytes(Bytes::copy_from_slice(head.as_bytes())));
    }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut head = Header::new_ustar();
    head.set_entry_type(kind);
    head.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    head.set_uid(0);
    head.set_gid(0);
    head.set_mtime(0);
    head.set_size(size);
    head
}

/// `LENGTH path=PATH`, where the length counts itself.
fn record(path: &str) -> Vec<u8> {
    let rest = format!(" path={path}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

fn cut(piece: &Piece, range: Range<u64>) -> Piece {
    match piece {
        Piece::Bytes(bytes) => {
            let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
            Piece::Bytes(bytes.slice(at(range.start)..at(range.end)))
        }
        Piece::Blob(digest, whole) => {
            Piece::Blob(*digest, whole.start + range.start..whole.start + range.end)
        }
    }
}

fn checked(path: &str) -> Result<&str, Fault> {
    let is_name = |name: &str| !name.is_empty() && name != "." && name != "..";
    if path.split('/').all(is_name) && !path.contains(['\0', '\\', '\n']) {
        return Ok(path);
    }
    Err(bad(path))
}

fn bad(path: &str) -> Fault {
    let text = format!(
        "a version with the file `{}` cannot be an image",
        path.escape_default()
    );
    Fault::new(Code::NotFound, text)
}

#[cfg(test)]
mod tests;
