//! Batches: their order and pixels are the caller's whatever the threads, a flip is a mirror, an end
//! is an end, and a changed file is a fault.

use crate::support::{Fixture, fixture};
use image::{ImageFormat, Rgb, RgbImage};
use pomona_domain::Code;
use pomona_domain::dataset::Split;
use pomona_domain::spec::{Augment, AugmentOp};
use pomona_domain::view::View;
use pomona_trainer::data::{Batch, Dataset, Loader, Pick};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

fn open(fixture: &Fixture) -> Dataset {
    Dataset::open(&fixture.data.manifest, &fixture.data.archive).unwrap()
}

fn straight(images: usize) -> Vec<Pick> {
    let pick = |index| Pick {
        index,
        view: View::AS_IS,
    };
    (0..images).map(pick).collect()
}

/// The mirror image, pixel by pixel.
fn mirrored(pixels: &[u8], side: usize) -> Vec<u8> {
    let mut mirror = vec![0; pixels.len()];
    for (at, pixel) in pixels.chunks_exact(3).enumerate() {
        let (x, y) = (at % side, at / side);
        mirror[(y * side + side - 1 - x) * 3..][..3].copy_from_slice(pixel);
    }
    mirror
}

#[test]
fn order_pixels_and_views_are_the_callers_whatever_the_threads() {
    let fixture = fixture("test-convnet", 3, 20);
    let plain = open(&fixture);
    let images = plain.len(Split::Train);
    assert_eq!((images, plain.size()), (36, 32));
    // Out of order, every second one mirrored; the first batch is the longest work.
    let picks: Vec<Pick> = (0..images)
        .map(|at| Pick {
            index: (at * 25 + 7) % images,
            view: View::Whole {
                mirrored: at % 2 == 1,
            },
        })
        .collect();
    let sizes = vec![20, 1, 1, 5, 2, 1, 6];
    let labels = plain.labels(Split::Train);
    let mut at = 0;
    let expect: Vec<Batch> = sizes
        .iter()
        .map(|size| {
            let picks = &picks[at..at + size];
            at += size;
            let pixels = picks.iter().flat_map(|pick| {
                let pixels = plain.pixels(Split::Train, pick.index).unwrap();
                if pick.view.number() == 1 {
                    mirrored(&pixels, 32)
                } else {
                    pixels
                }
            });
            Batch {
                pixels: pixels.collect(),
                labels: picks.iter().map(|pick| labels[pick.index]).collect(),
                indices: picks.iter().map(|pick| pick.index).collect(),
            }
        })
        .collect();
    // With decoded pixels kept, and decoded anew each time.
    for budget in [u64::MAX, 0] {
        let dataset = Arc::new(open(&fixture).with_cache_budget(budget));
        for threads in [1, 2, 7, 0] {
            // What is mirrored in a batch must not be mirrored in what is kept.
            for _ in 0..2 {
                let (dataset, picks) = (Arc::clone(&dataset), picks.clone());
                let loader = Loader::new(dataset, Split::Train, picks, sizes.clone(), threads);
                let found: Vec<Batch> = loader.map(Result::unwrap).collect();
                assert!(found == expect, "{threads} threads, {budget} bytes kept");
            }
        }
    }
}

/// The pixels of some views of all training images, one after the other.
fn seen(dataset: &Arc<Dataset>, views: &[View], threads: usize) -> Vec<Vec<u8>> {
    let images = dataset.len(Split::Train);
    let all = views
        .iter()
        .flat_map(|&view| (0..images).map(move |index| Pick { index, view }));
    let picks: Vec<Pick> = all.collect();
    let sizes = vec![1; picks.len()];
    Loader::new(Arc::clone(dataset), Split::Train, picks, sizes, threads)
        .map(|batch| batch.unwrap().pixels)
        .collect()
}

#[test]
fn a_view_is_the_same_whatever_else_is_seen_and_whoever_makes_it() {
    let fixture = fixture("test-convnet", 3, 20);
    let views = |count, ops: &[AugmentOp]| {
        View::all(&Augment {
            views: count,
            ops: ops.to_vec(),
        })
    };
    let both = [AugmentOp::HorizontalFlip, AugmentOp::RandomResizedCrop];
    let (three, ten) = (views(3, &both), views(10, &both));
    let dataset = Arc::new(open(&fixture));
    let all = seen(&dataset, &ten, 1);
    for budget in [u64::MAX, 0] {
        let dataset = Arc::new(open(&fixture).with_cache_budget(budget));
        for threads in [2, 7] {
            assert!(seen(&dataset, &ten, threads) == all, "{threads} threads");
        }
        assert!(seen(&dataset, &three, 2) == all[..3 * 36]);
    }
    let straight: Vec<Vec<u8>> = (0..36)
        .map(|index| dataset.pixels(Split::Train, index).unwrap())
        .collect();
    assert!(all[..36] == straight, "the first is the image itself");
    let distinct: BTreeSet<&Vec<u8>> = all.iter().collect();
    assert!(distinct.len() > 355, "{} of 360 differ", distinct.len());
    // Without flips each crop is the same part, mirrored or not.
    let plain = seen(&dataset, &views(10, &both[1..]), 1);
    let mut flipped = 0;
    for (one, other) in plain.iter().zip(&all).skip(36) {
        assert!(one == other || mirrored(one, 32) == *other);
        flipped += u32::from(one != other);
    }
    assert!((120..204).contains(&flipped), "{flipped} of 324");
}

#[test]
fn dropped_in_mid_epoch_it_ends_and_no_thread_outlives_it() {
    let fixture = fixture("test-convnet", 3, 20);
    let dataset = Arc::new(open(&fixture).with_cache_budget(0));
    for (threads, taken) in [(1, 0), (1, 3), (3, 1), (3, 20)] {
        let mut loader = Loader::new(
            Arc::clone(&dataset),
            Split::Train,
            straight(36),
            vec![1; 36],
            threads,
        );
        for _ in 0..taken {
            assert!(loader.next().unwrap().is_ok());
        }
        // Meanwhile the threads make what they may make ahead, and wait.
        for index in 0..36 {
            dataset.pixels(Split::Train, index).unwrap();
        }
        let (gone, wait) = channel();
        std::thread::spawn(move || {
            drop(loader);
            gone.send(()).unwrap();
        });
        assert!(
            wait.recv_timeout(DEADLINE).is_ok(),
            "{threads} threads never ended after {taken} batches"
        );
        assert_eq!(
            Arc::strong_count(&dataset),
            1,
            "a thread holds the data set"
        );
    }
}

#[test]
fn a_file_that_changed_under_the_manifest_is_a_fault_in_mid_epoch() {
    let fixture = fixture("test-convnet", 3, 20);
    let path = open(&fixture).sample(Split::Train, 11).path.clone();
    let mut tar = tar::Archive::new(File::open(&fixture.data.archive).unwrap());
    let place = tar.entries().unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        let found = entry.path().unwrap().to_str() == Some(path.as_str());
        found.then(|| entry.raw_file_position())
    });
    let place = place.unwrap();
    let archive = File::options()
        .read(true)
        .write(true)
        .open(&fixture.data.archive)
        .unwrap();
    // A smaller picture over its beginning: it decodes, and only its digest tells.
    let mut other = Cursor::new(Vec::new());
    let plain = RgbImage::from_pixel(9, 9, Rgb([1, 2, 3]));
    plain.write_to(&mut other, ImageFormat::Png).unwrap();
    let other = other.into_inner();
    let mut first = vec![0; other.len()];
    archive.read_exact_at(&mut first, place).unwrap();
    for threads in [1, 3] {
        // Changed while the data set is open, as only a running trial would find it.
        let dataset = Arc::new(open(&fixture));
        archive.write_all_at(&other, place).unwrap();
        let mut loader = Loader::new(dataset, Split::Train, straight(36), vec![3; 12], threads);
        for batch in 0..3 {
            let indices = loader.next().unwrap().unwrap().indices;
            assert_eq!(indices, [batch * 3, batch * 3 + 1, batch * 3 + 2]);
        }
        let fault = loader.next().unwrap().unwrap_err();
        assert_eq!(fault.code, Code::CorruptDataset, "{fault}");
        assert!(fault.message.contains(&format!("`{path}`")), "{fault}");
        assert!(loader.next().is_none() && loader.next().is_none());
        archive.write_all_at(&first, place).unwrap();
    }
    // Put right again, there is nothing to complain about.
    let dataset = Arc::new(open(&fixture));
    let loader = Loader::new(dataset, Split::Train, straight(36), vec![36], 2);
    let found: Vec<Batch> = loader.map(Result::unwrap).collect();
    assert_eq!(found.len(), 1);
}
