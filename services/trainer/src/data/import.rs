//! A tar of class folders becomes a manifest with a frozen split.
//!
//! A file that cannot be used is set aside with its reason: never fatal, never silent. What makes
//! the whole folder unusable is an error with a code. The same tar and options give the same
//! manifest, byte for byte, whatever the number of threads.

mod listing;

use super::archive::{self, Archive, FILE_LIMIT, Member};
use super::decode::{self, Refusal, SIZES};
use super::split::{self, Facts};
use crate::checkpoint::file;
use listing::{Listing, enough_classes, list, says_picture};
use pomona_domain::dataset::{DatasetSummary, ImportOptions, Manifest, Problem, Sample, SetAside};
use pomona_domain::{Code, Digest, Fault};
use regex::{Regex, RegexBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Bytes of a group pattern, and of the automaton it becomes.
const PATTERN_LIMIT: usize = 1000;
const AUTOMATON_LIMIT: usize = 4 << 20;

/// What an import made.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The manifest file.
    pub manifest: PathBuf,
    /// Its digest: the identity of the data.
    pub digest: Digest,
    /// Counts for people.
    pub summary: DatasetSummary,
}

/// Imports `archive` and writes `manifest.json` into the folder `output`, with some threads.
/// `beat` is called now and then.
pub fn import(
    archive: &Path,
    archive_digest: Digest,
    options: &ImportOptions,
    output: &Path,
    threads: usize,
    mut beat: impl FnMut(),
) -> Result<Imported, Fault> {
    let pattern = checked(options)?;
    let archive = Archive::open(archive)?;
    let Listing {
        classes,
        candidates,
        mut problems,
        ignored,
    } = list(archive.members());
    enough_classes(&classes, &candidates)?;

    let look_at = |index: usize| look(&archive, candidates[index].member, options);
    let looked = in_parallel(candidates.len(), threads, look_at, &mut beat)?;
    let mut images = Vec::with_capacity(looked.len());
    for (candidate, look) in candidates.iter().zip(looked) {
        match look {
            Ok(seen) => images.push(Image {
                path: &candidate.member.path,
                class: candidate.class,
                seen,
            }),
            Err((why, detail)) => problems.push(problem(&candidate.member.path, why, detail)),
        }
    }
    set_conflicts_aside(&mut images, &classes, &mut problems);
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    no_class_is_empty(&classes, &images, &problems)?;

    let (samples, duplicates, groups) = samples(&images, &classes, options, pattern.as_ref())?;
    let summary = summary(&classes, &samples, &problems, ignored, duplicates, groups);
    let manifest = Manifest {
        archive: archive_digest,
        options: options.clone(),
        classes,
        samples,
        problems,
    };
    let (manifest, digest) = write(&manifest, output)?;
    Ok(Imported {
        manifest,
        digest,
        summary,
    })
}

fn checked(options: &ImportOptions) -> Result<Option<Regex>, Fault> {
    let sum: u64 = options.split.iter().map(|share| u64::from(*share)).sum();
    if sum != 100 || options.split.contains(&0) {
        let [train, val, test] = options.split;
        return Err(Fault::new(
            Code::BadSplit,
            format!(
                "the split {train}/{val}/{test} is not three shares of at least 1 that add up to \
                 100"
            ),
        )
        .hint("for example `60/20/20`"));
    }
    if !SIZES.contains(&options.image_size) {
        return Err(Fault::new(
            Code::OutOfRange,
            format!(
                "an image size of {} pixels is outside 8 to 4096",
                options.image_size
            ),
        ));
    }
    let Some(pattern) = &options.group_pattern else {
        return Ok(None);
    };
    let compiled = if pattern.len() > PATTERN_LIMIT {
        Err(format!("it is longer than {PATTERN_LIMIT} bytes"))
    } else {
        RegexBuilder::new(pattern)
            .size_limit(AUTOMATON_LIMIT)
            .build()
            .map_err(|error| error.to_string())
    };
    compiled.map(Some).map_err(|error| {
        Fault::new(
            Code::BadRequest,
            format!("the group pattern is no regular expression: {error}"),
        )
        .hint("for example `_mirror$`")
    })
}

fn no_class_is_empty(
    classes: &[String],
    images: &[Image<'_>],
    problems: &[Problem],
) -> Result<(), Fault> {
    let set_aside = problems.first().map_or_else(String::new, |first| {
        format!(
            " ({} files were set aside, the first is `{}`: {})",
            problems.len(),
            first.path,
            first.detail
        )
    });
    if images.is_empty() {
        let message = format!("the folder holds no usable image{set_aside}");
        return Err(Fault::new(Code::EmptyDataset, message));
    }
    let used: BTreeSet<usize> = images.iter().map(|image| image.class).collect();
    match (0..classes.len()).find(|class| !used.contains(class)) {
        None => Ok(()),
        Some(class) => {
            let name = &classes[class];
            let message = format!("class `{name}` has no usable image{set_aside}");
            Err(Fault::new(Code::EmptyClass, message)
                .hint(format!("add images to `{name}` or take its folder out")))
        }
    }
}

/// What was seen in a file that decodes.
struct Seen {
    file: Digest,
    pixels: Digest,
    mirror: Digest,
}

struct Image<'a> {
    path: &'a str,
    class: usize,
    seen: Seen,
}

type Look = Result<Seen, (SetAside, String)>;

/// Reads and decodes one file. The outer error is ours, the inner one the file's.
fn look(archive: &Archive, member: &Member, options: &ImportOptions) -> Result<Look, Fault> {
    if member.size > FILE_LIMIT {
        return Ok(Err((SetAside::Corrupt, "is over 256 MiB".into())));
    }
    let bytes = archive.read(member.offset, member.size)?;
    let mut picture = match decode::decode(&bytes) {
        Ok(picture) => picture,
        Err(refusal) => return Ok(Err(reason(refusal, member))),
    };
    let file = Digest::of(&bytes);
    drop(bytes);
    let ImportOptions {
        image_size,
        fit,
        filter,
        ..
    } = *options;
    let pixels = Digest::of(&decode::square(&picture, image_size, fit, filter));
    // Mirrored before it is fitted, so that a mirrored file gives these very bytes even where the
    // square's margins or the resize are not symmetric to the last bit.
    image::imageops::flip_horizontal_in_place(&mut picture);
    let mirror = Digest::of(&decode::square(&picture, image_size, fit, filter));
    Ok(Ok(Seen {
        file,
        pixels,
        mirror,
    }))
}

fn reason(refusal: Refusal, member: &Member) -> (SetAside, String) {
    match refusal {
        Refusal::TooManyPixels(text) => (SetAside::TooManyPixels, text),
        Refusal::Corrupt(text) => (SetAside::Corrupt, text),
        Refusal::NotAnImage(text) if says_picture(&member.path) => (SetAside::Corrupt, text),
        Refusal::NotAnImage(text) => (SetAside::NotAnImage, text),
    }
}

/// The same pixels in two classes: at least one label is wrong, and nobody here knows which.
fn set_conflicts_aside(
    images: &mut Vec<Image<'_>>,
    classes: &[String],
    problems: &mut Vec<Problem>,
) {
    let mut of_pixels: BTreeMap<Digest, BTreeSet<usize>> = BTreeMap::new();
    for image in images.iter() {
        let found = of_pixels.entry(image.seen.pixels).or_default();
        found.insert(image.class);
    }
    images.retain(|image| {
        let found = &of_pixels[&image.seen.pixels];
        if found.len() > 1 {
            let others: Vec<String> = found
                .iter()
                .filter(|class| **class != image.class)
                .map(|class| format!("`{}`", classes[*class]))
                .collect();
            let detail = format!("has the same pixels as an image of {}", others.join(", "));
            problems.push(problem(image.path, SetAside::ConflictingLabel, detail));
        }
        found.len() == 1
    });
}

fn samples(
    images: &[Image<'_>],
    classes: &[String],
    options: &ImportOptions,
    pattern: Option<&Regex>,
) -> Result<(Vec<Sample>, u32, u32), Fault> {
    let facts: Vec<Facts> = images
        .iter()
        .map(|image| Facts {
            class: image.class,
            stem: pattern.map(|pattern| {
                let name = image.path.rsplit('/').next().unwrap_or_default();
                let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
                pattern.replace_all(stem, "").into_owned()
            }),
            pixels: image.seen.pixels,
            mirror: image.seen.mirror,
        })
        .collect();
    let groups = split::relatives(&facts);
    let class_of: Vec<usize> = images.iter().map(|image| image.class).collect();
    let splits = split::assign(classes, &class_of, &groups.of, options.split, options.seed)?;
    let samples = images
        .iter()
        .zip(&groups.of)
        .zip(splits)
        .map(|((image, &group), split)| Sample {
            path: image.path.to_owned(),
            label: image.class as u32,
            split,
            group,
            file: image.seen.file,
            pixels: image.seen.pixels,
        })
        .collect();
    let number = groups.of.iter().max().map_or(0, |last| last + 1);
    Ok((samples, groups.duplicates, number))
}

fn summary(
    classes: &[String],
    samples: &[Sample],
    problems: &[Problem],
    ignored: u32,
    duplicates: u32,
    groups: u32,
) -> DatasetSummary {
    let mut summary = DatasetSummary::count(classes, samples, problems);
    if ignored > 0 {
        // Hidden files and the like: counted, not listed.
        summary.set_aside.insert("ignored".to_owned(), ignored);
    }
    DatasetSummary {
        duplicates,
        groups,
        ..summary
    }
}

fn problem(path: &str, why: SetAside, detail: String) -> Problem {
    Problem {
        path: path.to_owned(),
        why,
        detail,
    }
}

/// Writes the manifest: complete under its name, or not at all.
fn write(manifest: &Manifest, output: &Path) -> Result<(PathBuf, Digest), Fault> {
    let bytes = serde_json::to_vec(manifest).map_err(|error| {
        Fault::new(
            Code::Internal,
            format!("the manifest cannot be written: {error}"),
        )
    })?;
    let path = output.join("manifest.json");
    std::fs::create_dir_all(output).map_err(|error| archive::local(output, &error))?;
    let written = file::write_bytes(&path, &bytes, || ())?;
    Ok((written.path, written.digest))
}

/// `work(0)` to `work(n - 1)` over some threads; answers in order, and of several faults the
/// first in order. `beat` is called on this thread, after each piece that it did.
fn in_parallel<T: Send>(
    n: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, Fault> + Sync,
    beat: &mut dyn FnMut(),
) -> Result<Vec<T>, Fault> {
    let next = AtomicUsize::new(0);
    let run = |after_each: &mut dyn FnMut()| {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                return done;
            }
            done.push((index, work(index)));
            after_each();
        }
    };
    let mut all: Vec<(usize, Result<T, Fault>)> = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.min(n))
            .map(|_| scope.spawn(|| run(&mut || ())))
            .collect();
        let mut all = run(beat);
        for helper in helpers {
            match helper.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}
