//! Imports: a tar of class folders becomes a manifest, a weights file becomes a backbone. Any bytes
//! count as a picture.

use pomona_domain::dataset::{
    DatasetSummary, ImportOptions, Manifest, Problem, Sample, SetAside, Split,
};
use pomona_domain::task::TaskResult;
use pomona_domain::{Code, Digest, Fault};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use crate::arch;
use crate::line::{cannot, read, write};

/// Name of the file that an import of data writes.
const MANIFEST: &str = "manifest.json";
/// Name of the file that an import of a backbone writes.
const BACKBONE: &str = "backbone.safetensors";

/// The pictures of a tar, sorted by path, and what else was in it.
struct Found {
    files: BTreeMap<String, Vec<u8>>,
    problems: Vec<Problem>,
    folders: BTreeSet<String>,
}

fn is_bookkeeping(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

fn scan(archive: &Path) -> Result<Found, Fault> {
    let broken = |error: std::io::Error| {
        let text = format!(
            "the archive `{}` is not a whole tar: {error}",
            archive.display()
        );
        Fault::new(Code::CorruptDataset, text).hint("add the data set again from its folder")
    };
    let file = File::open(archive).map_err(|error| cannot("read", archive, &error))?;
    let mut tar = tar::Archive::new(BufReader::new(file));
    let mut found = Found {
        files: BTreeMap::new(),
        problems: Vec::new(),
        folders: BTreeSet::new(),
    };
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let bytes = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&bytes).trim_matches('/').to_owned();
        if is_bookkeeping(&path) {
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            found.folders.insert(path);
        } else if kind.is_symlink() || kind.is_hard_link() {
            let detail = "is a link, which is not followed".to_owned();
            let why = SetAside::Link;
            found.problems.push(Problem { path, why, detail });
        } else {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            found.files.insert(path, bytes);
        }
    }
    Ok(found)
}

/// The files of a tar of pictures, sorted by path.
pub fn pictures(tar: &Path) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
    Ok(scan(tar)?.files)
}

fn checked(options: &ImportOptions) -> Result<(), Fault> {
    let sum: u64 = options.split.iter().map(|share| u64::from(*share)).sum();
    if sum == 100 && !options.split.contains(&0) {
        return Ok(());
    }
    let [train, val, test] = options.split;
    let text = format!(
        "the split {train}/{val}/{test} is not three shares of at least 1 that add up to 100"
    );
    Err(Fault::new(Code::BadSplit, text).hint("for example `60/20/20`"))
}

/// Imports a data set: the class of a file is its first folder.
pub fn dataset(
    archive: &Path,
    archive_digest: Digest,
    options: &ImportOptions,
    output: &Path,
) -> Result<TaskResult, Fault> {
    checked(options)?;
    let mut found = scan(archive)?;
    let class_of = |path: &str| path.split_once('/').map(|(class, _)| class.to_owned());
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut images = Vec::new();
    for (path, bytes) in &found.files {
        let Some(class) = class_of(path) else {
            found.problems.push(Problem {
                path: path.clone(),
                why: SetAside::NoClass,
                detail: "lies in no class folder".to_owned(),
            });
            continue;
        };
        if bytes.is_empty() {
            found.problems.push(Problem {
                path: path.clone(),
                why: SetAside::Corrupt,
                detail: "is empty".to_owned(),
            });
            continue;
        }
        names.insert(class.clone());
        images.push((path.clone(), class, Digest::of(bytes)));
    }
    names.extend(
        found
            .folders
            .iter()
            .filter_map(|folder| folder.split('/').next())
            .map(str::to_owned),
    );
    found.problems.sort_by(|a, b| a.path.cmp(&b.path));
    let classes: Vec<String> = names.into_iter().collect();
    enough(&classes, &images)?;
    let samples = samples(&images, &classes, options);
    let summary = summary(&classes, &samples, &found.problems);
    let manifest = Manifest {
        archive: archive_digest,
        options: options.clone(),
        classes,
        samples,
        problems: found.problems,
    };
    let text = serde_json::to_vec(&manifest).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("the manifest cannot be written: {error}"),
        )
    })?;
    Ok(TaskResult::Dataset {
        manifest: MANIFEST.to_owned(),
        digest: write(&output.join(MANIFEST), &text)?,
        summary,
    })
}

type Image = (String, String, Digest);

fn enough(classes: &[String], images: &[Image]) -> Result<(), Fault> {
    let hint = "a data set is a folder with one folder of pictures for each class";
    if images.is_empty() {
        let text = "the folder holds no class folder with files in it";
        return Err(Fault::new(Code::EmptyDataset, text).hint(hint));
    }
    if let [only] = classes {
        let text = format!("the folder holds one class, `{only}`: two are needed");
        return Err(Fault::new(Code::OneClass, text).hint(hint));
    }
    for class in classes {
        let count = images.iter().filter(|(_, of, _)| of == class).count();
        if count < 3 {
            let text = format!(
                "class `{class}` has {count} usable image(s): a split into train, val and test \
                 needs 3 unrelated ones"
            );
            let hint = format!("add images to `{class}` or take its folder out");
            return Err(Fault::new(Code::EmptyClass, text).hint(hint));
        }
    }
    Ok(())
}

/// Class by class, in an order that the seed draws; each part has at least one.
fn samples(images: &[Image], classes: &[String], options: &ImportOptions) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let mut members: Vec<(Digest, &Image)> = images
            .iter()
            .filter(|(_, of, _)| of == class)
            .map(|image| {
                (
                    Digest::of(format!("{}/{}", options.seed, image.0).as_bytes()),
                    image,
                )
            })
            .collect();
        members.sort_by_key(|(draw, _)| *draw);
        let count = members.len();
        let share = |percent: u32| (count * percent as usize / 100).max(1);
        let (test, val) = (share(options.split[2]), share(options.split[1]));
        for (place, (_, (path, _, file))) in members.into_iter().enumerate() {
            let split = if place < test {
                Split::Test
            } else if place < (test + val).min(count - 1) {
                Split::Val
            } else {
                Split::Train
            };
            samples.push(Sample {
                path: path.clone(),
                label: label as u32,
                split,
                group: 0,
                file: *file,
                pixels: *file,
            });
        }
    }
    samples.sort_by(|a, b| a.path.cmp(&b.path));
    for (group, sample) in samples.iter_mut().enumerate() {
        sample.group = group as u32;
    }
    samples
}

fn summary(classes: &[String], samples: &[Sample], problems: &[Problem]) -> DatasetSummary {
    DatasetSummary {
        groups: samples.len() as u32,
        ..DatasetSummary::count(classes, samples, problems)
    }
}

/// Imports a backbone: the file as it is.
pub fn backbone(arch: &str, weights: &Path, output: &Path) -> Result<TaskResult, Fault> {
    let blocks = arch::blocks(arch)?;
    let bytes = read(weights)?;
    if bytes.is_empty() {
        let text = format!("`{}` is empty", weights.display());
        return Err(Fault::new(Code::DamagedWeights, text));
    }
    Ok(TaskResult::Backbone {
        weights: BACKBONE.to_owned(),
        digest: write(&output.join(BACKBONE), &bytes)?,
        image_size: arch::image_size(arch),
        tensors: blocks.len() as u32 * 3 + 2,
        blocks,
        head_parameters: 1_281_000,
    })
}
