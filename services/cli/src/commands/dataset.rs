//! `dataset`: a folder of images becomes an immutable version.

use indicatif::ProgressBar;
use pomona_api::v1::catalogue::AddDataset;
use pomona_domain::dataset::{Dataset, ImportOptions, Sample};
use pomona_domain::task::TaskResult;
use pomona_domain::{Code, Digest, Fault, name};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Done;
use super::session::{Session, all, key};
use super::task;
use crate::args::catalogue::{DatasetAddArgs, DatasetCommand, SplitArg};
use crate::human::{bytes, now, plural};
use crate::pack::{self, Packed};
use crate::views;

/// Versions of a name that are searched for the one that was just made.
const VERSIONS_SEARCHED: u32 = 100;

/// A data set with the images of a split.
#[derive(Debug, Serialize)]
struct WithSamples<'a> {
    #[serde(flatten)]
    dataset: &'a Dataset,
    /// Class names, in the order of the labels.
    classes: &'a [String],
    samples: &'a [Sample],
}

/// `pomona dataset`.
pub async fn run(command: DatasetCommand, session: Session) -> Result<Done, Fault> {
    match command {
        DatasetCommand::Add(args) => add(args, &session).await,
        DatasetCommand::List => list(&session).await,
        DatasetCommand::Show { name, samples } => show(&name, samples, &session).await,
    }
}

async fn add(args: DatasetAddArgs, session: &Session) -> Result<Done, Fault> {
    name::check("name", &args.name)?;
    let options = ImportOptions {
        image_size: args.image_size,
        fit: args.fit.into(),
        filter: args.filter.into(),
        split: args.split.0,
        seed: args.seed,
        group_pattern: args.group_pattern,
    };
    // Before a large folder is read: is there somebody to give it to?
    session.client.ready().await?;
    let packed = packed(&args.path, session).await?;
    session
        .upload(packed.digest, packed.file.path(), packed.size)
        .await?;
    let body = AddDataset {
        name: args.name.clone(),
        archive: packed.digest,
        options,
    };
    let task = session.client.dataset_add(&body, &key()).await?;
    let label = format!("importing `{}`", args.name);
    let result = task::finish(session, task, &label).await?;
    let TaskResult::Dataset { digest, .. } = result else {
        return Err(Fault::new(
            Code::Internal,
            "the import answered something else",
        ));
    };
    let dataset = made(session, &args.name, digest).await?;
    let done = format!("data set `{}@{}` is ready", dataset.name, dataset.number);
    session.printer.say(&done);
    session
        .printer
        .data(&dataset, |style| views::catalogue::dataset(style, &dataset));
    Ok(Done::Well)
}

/// Walks and packs a folder on another thread, so that Ctrl-C is heard and leaves no file behind.
async fn packed(folder: &Path, session: &Session) -> Result<Packed, Fault> {
    let listing = pack::walk(folder)?;
    let files = format!(
        "{}, {}",
        plural(listing.files, "file"),
        bytes(listing.bytes)
    );
    session
        .printer
        .say(&format!("`{}`: {files}", folder.display()));
    let bar = session.printer.bytes_bar("packing", listing.bytes);
    let guard = Stop::default();
    let stop = Arc::clone(&guard.0);
    let shown: ProgressBar = bar.clone();
    let work = tokio::task::spawn_blocking(move || {
        pack::pack(&listing, |read| {
            shown.inc(read);
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::new(Code::LocalFile, "packing was interrupted"));
            }
            Ok(())
        })
    });
    let packed = work
        .await
        .map_err(|error| Fault::new(Code::Internal, format!("packing broke: {error}")))?;
    bar.finish_and_clear();
    drop(guard);
    packed
}

/// Tells the packing thread to end when nobody waits for it any more.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The version that has this manifest: the newest one, unless somebody added another meanwhile.
async fn made(session: &Session, name: &str, manifest: Digest) -> Result<Dataset, Fault> {
    let newest = session.client.dataset_get(name, None).await?;
    let oldest = newest.number.saturating_sub(VERSIONS_SEARCHED).max(1);
    for number in (oldest..newest.number).rev() {
        if newest.manifest == manifest {
            break;
        }
        let row = session.client.dataset_get(name, Some(number)).await?;
        if row.manifest == manifest {
            return Ok(row);
        }
    }
    Ok(newest)
}

async fn list(session: &Session) -> Result<Done, Fault> {
    let page = all(|query| async move { session.client.dataset_list(&query).await }).await?;
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return "no data set yet: `pomona dataset add NAME FOLDER`".to_owned();
        }
        views::catalogue::datasets(style, now(), &page.items)
    });
    Ok(Done::Well)
}

async fn show(text: &str, part: Option<SplitArg>, session: &Session) -> Result<Done, Fault> {
    let (name, number) = name::dataset_reference("data set", text)?;
    let row = session.client.dataset_get(&name, number).await?;
    let Some(part) = part else {
        session
            .printer
            .data(&row, |style| views::catalogue::dataset(style, &row));
        return Ok(Done::Well);
    };
    let mut manifest = session
        .client
        .dataset_manifest(&name, Some(row.number))
        .await?;
    manifest.samples.retain(|sample| part.has(sample.split));
    let answer = WithSamples {
        dataset: &row,
        classes: &manifest.classes,
        samples: &manifest.samples,
    };
    session.printer.data(&answer, |style| {
        views::catalogue::samples(style, &manifest.classes, &manifest.samples)
    });
    Ok(Done::Well)
}
