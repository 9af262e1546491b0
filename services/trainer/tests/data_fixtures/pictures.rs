//! Small pictures and tars for the tests of data sets.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use pomona_domain::Digest;
use pomona_domain::dataset::{ImportOptions, Manifest};
use pomona_trainer::data::{Imported, import};
use std::io::Cursor;
use std::path::PathBuf;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// A picture that no other seed gives and that is not symmetric.
pub fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mixed = (x * 7 + y * 13 + seed * 31).wrapping_mul(2_654_435_761);
        Rgb([
            (mixed >> 24) as u8,
            (mixed >> 16) as u8,
            (x * 255 / width) as u8,
        ])
    })
}

/// A picture as a file of some format.
pub fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A small PNG.
pub fn png(seed: u32) -> Vec<u8> {
    encoded(picture(seed, 12, 10), ImageFormat::Png)
}

/// A tar in a temporary folder, under construction.
pub struct Folder {
    builder: Builder<Vec<u8>>,
}

impl Folder {
    pub fn new() -> Self {
        Self {
            builder: Builder::new(Vec::new()),
        }
    }

    /// Classes with `n` different small pictures each.
    pub fn with_classes(classes: &[(&str, u32)]) -> Self {
        let mut folder = Self::new();
        for (class, (name, n)) in classes.iter().enumerate() {
            for picture in 0..*n {
                let path = format!("{name}/{picture:02}.png");
                folder = folder.file(&path, &png(class as u32 * 1000 + picture));
            }
        }
        folder
    }

    pub fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, bytes, None)
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, &[], None)
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, &[], Some(target))
    }

    fn entry(mut self, path: &str, kind: EntryType, bytes: &[u8], link: Option<&str>) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        match link {
            Some(target) => self.builder.append_link(&mut header, path, target),
            None => self.builder.append_data(&mut header, path, bytes),
        }
        .unwrap();
        self
    }

    /// Writes the tar.
    pub fn pack(self) -> Packed {
        let bytes = self.builder.into_inner().unwrap();
        let home = tempfile::tempdir().unwrap();
        let archive = home.path().join("archive.tar");
        std::fs::write(&archive, &bytes).unwrap();
        Packed {
            home,
            archive,
            digest: Digest::of(&bytes),
        }
    }
}

/// A tar on disk.
pub struct Packed {
    pub home: TempDir,
    pub archive: PathBuf,
    pub digest: Digest,
}

impl Packed {
    pub fn import(&self, options: &ImportOptions) -> Result<Imported, pomona_domain::Fault> {
        self.import_with(options, 2)
    }

    pub fn import_with(
        &self,
        options: &ImportOptions,
        threads: usize,
    ) -> Result<Imported, pomona_domain::Fault> {
        let output = self.home.path().join(format!("output{threads}"));
        import(&self.archive, self.digest, options, &output, threads, || ())
    }
}

/// Small squares.
pub fn options() -> ImportOptions {
    ImportOptions {
        image_size: 16,
        ..ImportOptions::default()
    }
}

/// The manifest that was written.
pub fn manifest(imported: &Imported) -> Manifest {
    let bytes = std::fs::read(&imported.manifest).unwrap();
    assert_eq!(Digest::of(&bytes), imported.digest);
    serde_json::from_slice(&bytes).unwrap()
}
