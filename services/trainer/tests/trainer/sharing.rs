//! Trainers of one machine compute features side by side, a deeper cut from a shallower one, and the
//! prepared blocks give what they gave when these numbers were written down.

use crate::features::{
    ROWS, expected, features_as, files, get, network, open, plan, random, relative, rows, until,
};
use crate::support::{Fixture, fixture, photographs, published_weights};
use pomona_domain::dataset::{Filter, Fit};
use pomona_domain::spec::Precision;
use pomona_domain::view::View;
use pomona_trainer::data::{Pick, decode_square};
use pomona_trainer::features::{Features, Found, Outcome, Request, Store};
use pomona_trainer::network::{Arch, Arithmetic, HeadPlan, Network, Prefix};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;
use tch::{Device, Kind, Tensor};

/// Side of the photographs.
const SIDE: u32 = 128;

/// An image as it is, and mirrored.
const BOTH: [View; 2] = [View::AS_IS, View::Whole { mirrored: true }];

/// Some images in both views.
fn picks(count: usize) -> Vec<Pick> {
    (0..count)
        .map(|number| Pick {
            index: (number * 7) % count,
            view: View::Whole {
                mirrored: number % 3 == 0,
            },
        })
        .collect()
}

/// What a trainer does. It says when it has begun, and goes on when the other one has.
fn trainer(fixture: &Fixture, folder: &Path, [mine, other]: [&AtomicUsize; 2]) -> Features {
    let (network, dataset) = (network(Arch::TestResnet, 2), open(fixture));
    let request = Request {
        network: &network,
        dataset: &dataset,
        views: BOTH.to_vec(),
        environment: &BTreeMap::new(),
        precision: Precision::Auto,
        threads: 1,
    };
    let go_on = || {
        mine.fetch_add(1, Ordering::SeqCst);
        until(|| other.load(Ordering::SeqCst) > 0);
        true
    };
    let store = Store::open(folder, 1 << 30).unwrap();
    match request.get(&store, go_on).unwrap() {
        Outcome::Ready(features) => features,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_trainers_compute_the_shards_of_one_part_side_by_side() {
    let fixture = fixture("test-resnet", 3, 100);
    let [together, alone] = ["together", "alone"].map(|name| fixture.folder.path().join(name));
    let begun = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| trainer(&fixture, &together, [&begun[1], &begun[0]]));
        let one = trainer(&fixture, &together, [&begun[0], &begun[1]]);
        (one, other.join().unwrap())
    });
    // 180 images in two views are six shards each, 60 are two.
    assert_eq!(files(&together, "features").len(), 14);
    assert!(files(&together, "part").is_empty());
    assert!(one.computed > 0 && other.computed > 0);
    assert_eq!(one.computed + other.computed, one.bytes);
    let lone = trainer(&fixture, &alone, [&begun[0], &begun[1]]);
    assert_eq!(lone.computed, lone.bytes);
    assert!(one.digest == lone.digest && other.digest == lone.digest);
    let found = [&one, &other, &lone].map(|trainer| trainer.gather(&picks(180), Device::Cpu));
    assert!(found[0] == found[2] && found[1] == found[2]);
    // What stands in the last shard of the mirrored view is what the images give by themselves.
    let (network, dataset) = (network(Arch::TestResnet, 2), open(&fixture));
    let picks = [179, 3, 64].map(|index| Pick {
        index,
        view: BOTH[1],
    });
    let split = pomona_domain::dataset::Split::Train;
    let each = crate::features::independent(&network, &dataset, split, &picks);
    assert!(relative(&lone.gather(&picks, Device::Cpu), &each[1]) < 1e-4);
}

#[test]
fn a_deeper_cut_from_a_shallower_one_has_the_bits_of_one_from_pixels() {
    let fixture = fixture("test-resnet", 3, 30);
    let dataset = open(&fixture);
    let [both, alone] = ["both", "alone"].map(|name| fixture.folder.path().join(name));
    let at = |depth, folder: &Path| {
        let network = network(Arch::TestResnet, depth);
        features_as(Arithmetic::Folded, &network, &dataset, folder, &BOTH[..1])
    };
    drop(at(2, &both));
    let shallow = files(&both, "features");
    for path in &shallow {
        let file = File::open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    for depth in [3, 5] {
        assert_eq!(at(depth, &both).digest, at(depth, &alone).digest, "{depth}");
    }
    for path in &shallow {
        let used = std::fs::metadata(path).unwrap().modified().unwrap();
        assert!(used > SystemTime::UNIX_EPOCH, "it was not read");
    }
}

/// Folder of a child process that finds no room on the disk.
const CHILD: &str = "POMONA_TEST_FULL_DISK";

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_shard_leaves_nothing_behind() {
    if let Ok(folder) = std::env::var(CHILD) {
        return on_a_full_disk(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "sharing::a_disk_that_is_full_in_the_middle_of_a_shard_leaves_nothing_behind";
    // Who ignores this signal is told by the call that writes.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    assert_eq!(said, format!("no room after {} rows", ROWS / 2));
    let store = folder.path().join("store");
    assert!(files(&store, "part").is_empty() && files(&store, "features").is_empty());
    // With room it is computed as ever.
    let found = get(&Store::open(&store, 1 << 30).unwrap(), "a", |_| ());
    assert!(matches!(found, Found::Built(_)) && rows(&found) == &expected("a"));
}

/// Half of the rows fit; then files may not grow beyond what is written.
fn on_a_full_disk(folder: &Path) {
    let store = Store::open(&folder.join("store"), 1 << 30).unwrap();
    let bytes = plan("a").bytes() / 2;
    let mut last = 0;
    let found = get(&store, "a", |number| {
        last = number;
        if number == ROWS / 2 {
            let limited = Command::new("prlimit")
                .args([
                    &format!("--pid={}", std::process::id()),
                    &format!("--fsize={bytes}"),
                ])
                .status();
            assert!(limited.unwrap().success());
        }
    });
    assert!(matches!(found, Found::DiskFull), "{found:?}");
    // It does not begin what cannot end.
    let again = get(&store, "a", |_| panic!("there is no room for it"));
    assert!(matches!(again, Found::NoRoom), "{again:?}");
    std::fs::write(folder.join("said"), format!("no room after {last} rows")).unwrap();
}

/// Some of Tux Paint's photographs as a network takes them: [N, 3, 128, 128].
fn photographs_for(network: &Network) -> Tensor {
    let mut pixels = Vec::new();
    for class in std::fs::read_dir(photographs()).unwrap() {
        let class = files(&class.unwrap().path(), "png");
        for photograph in class.iter().step_by(5).take(2) {
            let bytes = std::fs::read(photograph).unwrap();
            pixels.extend(decode_square(&bytes, SIDE, Fit::Pad, Filter::Bilinear).unwrap());
        }
    }
    let count = pixels.len() / (SIDE * SIDE * 3) as usize;
    assert!(count > 10, "{count} photographs");
    let preprocess = network.arch().preprocess();
    preprocess.apply(&pixels, count, SIDE, Kind::Float, Device::Cpu)
}

/// Largest cosine away from one, and each image nearest to itself, without what all have in common.
fn assert_same_directions(ours: &Tensor, exact: &Tensor, what: &str) {
    assert!(bool::try_from(ours.isfinite().all()).unwrap(), "{what}");
    let [ours, exact] = [ours, exact].map(|features| {
        let rows = features.flatten(1, -1);
        let centred = &rows - rows.mean_dim([0i64].as_slice(), true, None::<Kind>);
        let squares = centred.square();
        let norm = squares.sum_dim_intlist([1i64].as_slice(), true, None::<Kind>);
        centred / norm.sqrt()
    });
    let cosines = ours.matmul(&exact.tr());
    let worst = cosines.diag(0).min().double_value(&[]);
    assert!(worst > 0.999, "{what}: {worst}");
    let nearest = cosines.argmax(1, false);
    let own = Tensor::arange(ours.size()[0], (Kind::Int64, Device::Cpu));
    assert!(nearest == own, "{what}");
}

/// bfloat16 has 8 bits: down to where a trainer takes it, an image's features point where they should
/// and are nearest to its own (T6).
#[test]
fn bf16_features_of_photographs_are_each_image_s_own() {
    for &arch in Arch::ALL {
        let mut network = Network::new(arch, &HeadPlan::linear(5), Kind::Float, Device::Cpu);
        random(&network);
        if arch == Arch::EfficientnetLite0 {
            let published = pomona_trainer::weights::read(&published_weights()).unwrap();
            network.load_backbone(&published).unwrap();
        }
        let x = photographs_for(&network);
        network.freeze(arch.bf16_blocks());
        let blocks = 0..network.depth();
        assert!(!blocks.is_empty());
        let prefix = Prefix::new(&network, blocks, SIDE, Arithmetic::FoldedBf16).unwrap();
        let ours = prefix.run(&x).unwrap();
        assert_same_directions(&ours, &network.at_cut(&x), arch.name());
    }
}

#[test]
fn features_are_what_they_were_when_this_version_was_given_out() {
    let fixture = fixture("test-resnet", 3, 20);
    let dataset = open(&fixture);
    let folder = fixture.folder.path().join("features");
    let golden: [(Arch, usize, [f64; 6]); 3] = [
        (
            Arch::TestResnet,
            2,
            [0.0, 0.024_419_6, 0.278_366_9, 0.0, 0.0, -0.003_262_426],
        ),
        (
            Arch::TestResnet,
            5,
            [
                0.845_181_4,
                0.0,
                0.271_226_5,
                0.000_119_3,
                0.146_271_6,
                0.003_185_792,
            ],
        ),
        (
            Arch::TestConvnet,
            2,
            [
                0.049_348_4,
                0.057_341_7,
                0.213_101_1,
                0.015_113_9,
                0.062_948_4,
                0.000_698_855,
            ],
        ),
    ];
    for (arch, depth, golden) in golden {
        for arithmetic in [Arithmetic::Exact, Arithmetic::Folded] {
            let network = network(arch, depth);
            let found = features_as(arithmetic, &network, &dataset, &folder, &BOTH);
            let flat = found.gather(&picks(36), Device::Cpu).contiguous().view(-1);
            let count = flat.numel() as i64;
            let largest = flat.abs().max().double_value(&[]);
            let mut values: Vec<f64> = (1..6)
                .map(|part| flat.double_value(&[count * part / 6 + part]))
                .collect();
            // A sum that feels every value.
            let weights = Tensor::arange(count, (Kind::Double, Device::Cpu)).sin();
            let all = (flat.to_kind(Kind::Double) * weights).sum(Kind::Double);
            values.push(all.double_value(&[]) / count as f64);
            let off = values.iter().zip(golden).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0, f64::max) / largest;
            assert!(
                off < 1e-5,
                "{arch:?} at {depth}, {arithmetic:?}: {values:?} is not {golden:?}, by {off:e}: if \
                 that is meant, grow PREFIX_VERSION in features/request.rs, or trials will read old \
                 features as new ones"
            );
        }
    }
}
