//! Images a second of the input pipeline on one core: `pipeline FOLDER SIDE`, for `make bench`.
//!
//! FOLDER has one folder of pictures for each class. Read, check, decode, composite, resize, flip
//! and batch are timed with one loader thread and nothing kept; then the same with decoded pixels
//! kept, as later epochs have it. Prints one line of JSON. It must never touch a network.

use anyhow::Context;
use pomona_domain::Digest;
use pomona_domain::dataset::{Filter, Fit, ImportOptions, Split};
use pomona_domain::view::View;
use pomona_trainer::data::{Dataset, Loader, Pick, import};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const BATCH: usize = 32;
/// Passes with kept pixels: one is too short to be timed.
const KEPT_PASSES: usize = 50;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(folder), Some(side)) = (words.next(), words.next()) else {
        anyhow::bail!("usage: pipeline FOLDER SIDE");
    };
    let image_size: u32 = side.parse().context("SIDE is a number of pixels")?;
    let work = tempfile::tempdir()?;
    let archive = work.path().join("pictures.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive)?);
    tar.append_dir_all("", Path::new(&folder))?;
    tar.into_inner()?;
    let options = ImportOptions {
        image_size,
        fit: Fit::Pad,
        filter: Filter::Bilinear,
        split: [60, 20, 20],
        seed: 0,
        group_pattern: None,
    };
    let digest = Digest::of(&std::fs::read(&archive)?);
    let imported = import(&archive, digest, &options, work.path(), 1, || ())?;
    let open = || Dataset::open(&imported.manifest, &archive);

    // Once before the clock runs, so that the tar lies in memory.
    let cold = Arc::new(open()?.with_cache_budget(0));
    pass(&cold)?;
    let begun = Instant::now();
    let images = pass(&cold)?;
    let decoded = images as f64 / begun.elapsed().as_secs_f64();

    let kept = Arc::new(open()?);
    pass(&kept)?;
    let begun = Instant::now();
    let mut images = 0;
    for _ in 0..KEPT_PASSES {
        images += pass(&kept)?;
    }
    let kept = images as f64 / begun.elapsed().as_secs_f64();
    let line = serde_json::json!({
        "images_per_second": decoded,
        "kept_images_per_second": kept,
        "side": image_size,
    });
    writeln!(std::io::stdout(), "{line}").context("stdout is closed")
}

/// Every image of the data set, half of them flipped; how many there were.
fn pass(dataset: &Arc<Dataset>) -> anyhow::Result<usize> {
    let mut images = 0;
    for split in [Split::Train, Split::Val, Split::Test] {
        let picks: Vec<Pick> = (0..dataset.len(split))
            .map(|index| Pick {
                index,
                view: View::Whole {
                    mirrored: index % 2 == 1,
                },
            })
            .collect();
        let sizes = picks.chunks(BATCH).map(<[Pick]>::len).collect();
        for batch in Loader::new(Arc::clone(dataset), split, picks, sizes, 1) {
            images += batch?.labels.len();
        }
    }
    Ok(images)
}
