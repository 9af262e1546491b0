//! Pictures at rest and on their way to the network: import, data sets, batches.
//!
//! A data set is a manifest and an uncompressed tar, both named by their digests. Pixels are
//! decoded here and nowhere else, the same way at import, in training and in prediction. Nothing
//! is ever unpacked to disk, and no order depends on how many threads there are.

mod archive;
mod decode;
mod folds;
mod import;
mod loader;
mod split;
mod view;

pub use archive::read_pictures;
pub use decode::decode_square;
pub use folds::folds;
pub use import::{Imported, import};
pub use loader::{Batch, Loader, Pick};

use archive::Archive;
use pomona_domain::dataset::{Manifest, Sample, Split};
use pomona_domain::{Code, Digest, Fault};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// Decoded pixels up to this many bytes are kept, so that later passes do not decode again.
const CACHE_BUDGET: u64 = 1 << 30;
/// The largest manifest: some ten million images.
const MANIFEST_LIMIT: u64 = 4 << 30;

/// A data set that can be read by many threads at once.
#[derive(Debug)]
pub struct Dataset {
    manifest: Manifest,
    digest: Digest,
    archive: Archive,
    /// Where each sample's file lies: offset and size, in manifest order.
    places: Vec<(u64, u64)>,
    /// Positions in the manifest of train, val and test.
    parts: [Vec<usize>; 3],
    /// One cell for each sample, or none when the whole would not fit the budget.
    cache: Vec<OnceLock<Box<[u8]>>>,
}

impl Dataset {
    /// Opens a manifest and its tar; the tar is indexed once. `CorruptDataset` when they do not
    /// belong together, `LocalFile` when they cannot be read.
    pub fn open(manifest: &Path, archive: &Path) -> Result<Self, Fault> {
        let text = archive::read_whole(manifest, MANIFEST_LIMIT)?;
        let digest = Digest::of(&text);
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| {
            corrupt(format!(
                "the manifest `{}` does not parse: {error}",
                manifest.display()
            ))
        })?;
        let archive = Archive::open(archive)?;
        let files: BTreeMap<&str, (u64, u64)> = archive
            .files()
            .map(|member| (member.path.as_str(), (member.offset, member.size)))
            .collect();
        let mut places = Vec::with_capacity(manifest.samples.len());
        let mut parts = [const { Vec::new() }; 3];
        for (position, sample) in manifest.samples.iter().enumerate() {
            if sample.label as usize >= manifest.classes.len() {
                return Err(corrupt(format!("`{}` has an unknown class", sample.path)));
            }
            let place = files
                .get(sample.path.as_str())
                .ok_or_else(|| corrupt(format!("the archive holds no file `{}`", sample.path)))?;
            places.push(*place);
            parts[part(sample.split)].push(position);
        }
        drop(files);
        let dataset = Self {
            manifest,
            digest,
            archive,
            places,
            parts,
            cache: Vec::new(),
        };
        Ok(dataset.with_cache_budget(CACHE_BUDGET))
    }

    /// The same with another budget for decoded pixels, in bytes; 0 keeps none.
    #[must_use]
    pub fn with_cache_budget(mut self, budget: u64) -> Self {
        let all = self.manifest.samples.len();
        self.cache.clear();
        if all as u64 * self.bytes_per_image() as u64 <= budget {
            self.cache.resize_with(all, OnceLock::new);
        }
        self
    }

    /// Class names, sorted; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.manifest.classes
    }

    /// The digest of the manifest: the identity of the data.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The whole manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Labels of a split, in its order.
    pub fn labels(&self, split: Split) -> Vec<u32> {
        self.parts[part(split)]
            .iter()
            .map(|&position| self.manifest.samples[position].label)
            .collect()
    }

    /// Images in a split.
    pub fn len(&self, split: Split) -> usize {
        self.parts[part(split)].len()
    }

    /// Whether a split has no image.
    pub fn is_empty(&self, split: Split) -> bool {
        self.len(split) == 0
    }

    /// Side of the square images in pixels.
    pub fn size(&self) -> u32 {
        self.manifest.options.image_size
    }

    /// Bytes of one decoded image: height × width × 3.
    pub fn bytes_per_image(&self) -> usize {
        let side = self.size() as usize;
        side * side * 3
    }

    /// The entry of an image.
    ///
    /// # Panics
    /// If `index` is not below `len(split)`.
    pub fn sample(&self, split: Split, index: usize) -> &Sample {
        &self.manifest.samples[self.parts[part(split)][index]]
    }

    /// The pixels of an image as RGB bytes, height × width × 3.
    pub fn pixels(&self, split: Split, index: usize) -> Result<Vec<u8>, Fault> {
        let mut pixels = vec![0; self.bytes_per_image()];
        self.write_pixels(split, index, &mut pixels)?;
        Ok(pixels)
    }

    /// Writes the pixels of an image to `target`, which has `bytes_per_image` bytes.
    fn write_pixels(&self, split: Split, index: usize, target: &mut [u8]) -> Result<(), Fault> {
        let Some(&position) = self.parts[part(split)].get(index) else {
            return Err(Fault::new(
                Code::Internal,
                format!("the split has {} images, not {index}", self.len(split)),
            ));
        };
        let Some(cell) = self.cache.get(position) else {
            target.copy_from_slice(&self.decode(position)?);
            return Ok(());
        };
        if let Some(pixels) = cell.get() {
            target.copy_from_slice(pixels);
        } else {
            let pixels = self.decode(position)?.into_boxed_slice();
            target.copy_from_slice(&pixels);
            // Two threads may decode the same image at the same time: both find the same bytes.
            let _ = cell.set(pixels);
        }
        Ok(())
    }

    fn decode(&self, position: usize) -> Result<Vec<u8>, Fault> {
        let sample = &self.manifest.samples[position];
        let (offset, size) = self.places[position];
        let bytes = self.archive.read(offset, size)?;
        if Digest::of(&bytes) != sample.file {
            return Err(corrupt(format!(
                "`{}` is not the file that was imported",
                sample.path
            )));
        }
        let options = &self.manifest.options;
        decode::decode(&bytes)
            .map(|picture| {
                decode::square(&picture, options.image_size, options.fit, options.filter)
            })
            .map_err(|refusal| corrupt(format!("`{}` {}", sample.path, refusal.sentence())))
    }
}

fn part(split: Split) -> usize {
    match split {
        Split::Train => 0,
        Split::Val => 1,
        Split::Test => 2,
    }
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Code::CorruptDataset, message).hint("add the data set again from its folder")
}
