//! Data sets: immutable versions of labelled images with a frozen split.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{Digest, Timestamp};

/// Which part of the data an image belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Trains.
    Train,
    /// Chooses.
    Val,
    /// Judges; the search never sees it.
    Test,
}

/// How a picture becomes a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Padded with white to a square, then resized: nothing is cut off.
    Pad,
    /// Shorter side resized, centre cut out, as ImageNet evaluation does.
    Crop,
    /// Resized without regard to its shape.
    Stretch,
}

/// The filter of the resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Triangle filter with antialiasing.
    Bilinear,
    /// Catmull-Rom with antialiasing.
    Bicubic,
    /// Lanczos, three lobes.
    Lanczos3,
}

/// How a folder becomes a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportOptions {
    /// Side of the square image in pixels (128).
    pub image_size: u32,
    /// How a picture becomes a square.
    pub fit: Fit,
    /// The filter of the resize.
    pub filter: Filter,
    /// Shares of train, val and test in percent; they add up to 100.
    pub split: [u32; 3],
    /// Seed of the split.
    pub seed: u64,
    /// Regular expression; what it matches is taken out of a file's stem, and files of one class
    /// with the same remaining stem stay in one split (`_mirror$`). Exact duplicates and mirror
    /// images are found by their pixels and kept together in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_pattern: Option<String>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            image_size: 224,
            fit: Fit::Pad,
            filter: Filter::Bilinear,
            split: [60, 20, 20],
            seed: 0,
            group_pattern: None,
        }
    }
}

/// One image of the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Path in the archive.
    pub path: String,
    /// Index into `classes`.
    pub label: u32,
    /// Its part.
    pub split: Split,
    /// Relatives share a group and hence a split.
    pub group: u32,
    /// Digest of the file's bytes.
    pub file: Digest,
    /// Digest of the decoded, fitted, resized RGB pixels.
    pub pixels: Digest,
}

/// Why a file was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetAside {
    /// It says it is an image and cannot be decoded.
    Corrupt,
    /// It is no image.
    NotAnImage,
    /// It lies in no class folder.
    NoClass,
    /// A symbolic link.
    Link,
    /// More pixels than the limit.
    TooManyPixels,
    /// The same pixels stand in another class: a label is wrong.
    ConflictingLabel,
}

/// A file that was set aside: never fatal, never silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Path in the folder.
    pub path: String,
    /// Why.
    pub why: SetAside,
    /// A sentence.
    pub detail: String,
}

/// The content of the manifest blob: everything a trial needs to know about the data.
/// Written as canonical JSON (sorted by path), so that its digest is the data set's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Blob with the files, an uncompressed tar.
    pub archive: Digest,
    /// How it was made.
    pub options: ImportOptions,
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// Images, sorted by path.
    pub samples: Vec<Sample>,
    /// Files set aside, sorted by path.
    pub problems: Vec<Problem>,
}

impl Manifest {
    /// The identity of the test split: its pictures by their pixels, each with its class, whatever
    /// the rest of the data is. Beside it the samples' places in `samples`, in the order in which
    /// outcomes are kept.
    pub fn test_split(&self) -> (Digest, Vec<usize>) {
        let label = |sample: &Sample| self.classes.get(sample.label as usize);
        let mut order: Vec<usize> = (0..self.samples.len())
            .filter(|at| self.samples[*at].split == Split::Test)
            .collect();
        order.sort_by(|a, b| {
            let (a, b) = (&self.samples[*a], &self.samples[*b]);
            (a.pixels, label(a), &a.path).cmp(&(b.pixels, label(b), &b.path))
        });
        let list: Vec<(Digest, Option<&String>)> = order
            .iter()
            .map(|at| &self.samples[*at])
            .map(|sample| (sample.pixels, label(sample)))
            .collect();
        let text = serde_json::to_string(&list).unwrap_or_default();
        (Digest::of(text.as_bytes()), order)
    }
}

/// Counts for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// Class → images in train, val and test.
    pub classes: BTreeMap<String, [u32; 3]>,
    /// Reason → files set aside.
    pub set_aside: BTreeMap<String, u32>,
    /// The first 100 problems.
    pub problems: Vec<Problem>,
    /// Images that are an exact copy or mirror image of another one.
    pub duplicates: u32,
    /// Groups of relatives (an image without relatives is a group of one).
    pub groups: u32,
}

/// Problems shown in a summary; the manifest has all.
const SHOWN_PROBLEMS: usize = 100;

impl SetAside {
    /// Its name, as it is counted and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::NotAnImage => "not_an_image",
            Self::NoClass => "no_class",
            Self::Link => "link",
            Self::TooManyPixels => "too_many_pixels",
            Self::ConflictingLabel => "conflicting_label",
        }
    }
}

impl DatasetSummary {
    /// Counts samples by class and part, and problems by reason; relatives are for whoever found
    /// them to add.
    pub fn count(classes: &[String], samples: &[Sample], problems: &[Problem]) -> Self {
        let mut summary = Self {
            classes: classes
                .iter()
                .map(|class| (class.clone(), [0; 3]))
                .collect(),
            problems: problems.iter().take(SHOWN_PROBLEMS).cloned().collect(),
            ..Self::default()
        };
        for sample in samples {
            let part = match sample.split {
                Split::Train => 0,
                Split::Val => 1,
                Split::Test => 2,
            };
            let class = classes.get(sample.label as usize);
            if let Some(counts) = class.and_then(|class| summary.classes.get_mut(class)) {
                counts[part] += 1;
            }
        }
        for problem in problems {
            let name = problem.why.name().to_owned();
            *summary.set_aside.entry(name).or_insert(0) += 1;
        }
        summary
    }
}

/// A version of a data set. Immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// Its number, from 1.
    pub number: u32,
    /// Digest of the manifest blob: the identity of the data.
    pub manifest: Digest,
    /// Blob with the files.
    pub archive: Digest,
    /// How it was made.
    pub options: ImportOptions,
    /// Counts for people.
    pub summary: DatasetSummary,
    /// When it was added.
    pub created_at: Timestamp,
}
