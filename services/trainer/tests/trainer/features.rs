//! Features from the store are the features that the trainer computes (T6), a store never gives a
//! row that is not whole, and processes share one without losing or repeating work. Whoever is
//! killed here is a real process: this test binary, started again.

use crate::support::{Fixture, Lease, fixture, spec, train_work};
use pomona_api::shard::{Key, Plan};
use pomona_api::trainer::{Event, FeatureResult, TrainWork};
use pomona_domain::checkpoint::CheckpointKind;
use pomona_domain::dataset::Split;
use pomona_domain::spec::{Augment, AugmentOp, FrozenDepth, Precision, Share};
use pomona_domain::view::View;
use pomona_domain::{Code, Digest};
use pomona_trainer::data::{Dataset, Loader, Pick};
use pomona_trainer::features::{Features, Found, Outcome, Request, Store};
use pomona_trainer::network::{Arch, Arithmetic, HeadPlan, Init, Network};
use pomona_trainer::random;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const DEADLINE: Duration = Duration::from_mins(1);
/// Rows and width of the shards that need no network.
pub const ROWS: u64 = 100;
const WIDTH: i64 = 300;

pub fn plan(name: &str) -> Plan {
    Plan {
        key: Key {
            prefix_version: 1,
            arch: name.to_owned(),
            cut: 1,
            block: String::new(),
            weights: Digest::of(b""),
            mean: [0.0; 3],
            scale: [1.0; 3],
            dataset: Digest::of(b""),
            split: Split::Train,
            view: View::AS_IS,
            from: 0,
            to: ROWS,
            batch: 32,
            environment: BTreeMap::new(),
        },
        rows: ROWS,
        shape: vec![WIDTH],
    }
}

/// What befalls a file.
type Damage = fn(&mut Vec<u8>);

/// Row `row` of the shard `name`.
fn row(name: &str, row: u64) -> Vec<f32> {
    let stream = random::Key {
        seed: row,
        replicate: 0,
        purpose: "row",
        epoch: 0,
    }
    .named(name);
    (0..WIDTH as u64)
        .map(|at| stream.normal(at) as f32)
        .collect()
}

pub fn expected(name: &str) -> Tensor {
    let rows: Vec<f32> = (0..ROWS).flat_map(|number| row(name, number)).collect();
    Tensor::from_slice(&rows).reshape([ROWS as i64, WIDTH])
}

/// Gets a shard; `before_row` runs before each row that is computed.
pub fn get(store: &Store, name: &str, mut before_row: impl FnMut(u64)) -> Found {
    let build = |writer: &mut pomona_trainer::features::Writer<'_>| {
        for number in 0..ROWS {
            before_row(number);
            writer.rows(&Tensor::from_slice(&row(name, number)).reshape([1, WIDTH]))?;
        }
        Ok(true)
    };
    store.get(&plan(name), || true, build).unwrap()
}

pub fn rows(found: &Found) -> &Tensor {
    match found {
        Found::Hit(shard) | Found::Built(shard) => &shard.rows,
        Found::Busy | Found::NoRoom | Found::DiskFull | Found::Stopped => panic!("{found:?}"),
    }
}

/// Files of the folder with this ending.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    all.sort();
    all
}

#[test]
fn a_shard_is_computed_once_and_read_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 1 << 30).unwrap();
    let built = get(&store, "a", |_| ());
    assert!(matches!(built, Found::Built(_)));
    let hit = get(&store, "a", |_| panic!("it is there"));
    assert!(matches!(hit, Found::Hit(_)));
    assert!(rows(&built) == &expected("a") && rows(&hit) == &expected("a"));
    assert!(files(folder.path(), "part").is_empty());
    // Another key is another file.
    assert!(rows(&get(&store, "b", |_| ())) == &expected("b"));
    assert_eq!(files(folder.path(), "features").len(), 2);
}

#[test]
fn a_damaged_shard_is_found_out_and_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 1 << 30).unwrap();
    drop(get(&store, "a", |_| ()));
    let [path] = files(folder.path(), "features").try_into().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let size = whole.len();
    let damages: [(&str, Damage); 7] = [
        ("a flipped bit in a row", |bytes| {
            bytes[ROWS as usize * 40] ^= 1;
        }),
        ("a flipped bit in the footer", |bytes| {
            let at = bytes.len() - 40;
            bytes[at] ^= 1;
        }),
        ("no magic word", |bytes| *bytes.last_mut().unwrap() = b'2'),
        ("cut short", |bytes| bytes.truncate(bytes.len() / 2)),
        ("a row less", |bytes| {
            drop(bytes.drain(..WIDTH as usize * 4));
        }),
        ("a byte more", |bytes| bytes.push(0)),
        ("empty", Vec::clear),
    ];
    for (what, damage) in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let mut computed = 0;
        let found = get(&store, "a", |_| computed += 1);
        assert_eq!(computed, ROWS, "{what}");
        assert!(rows(&found) == &expected("a"), "{what}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size as u64);
    }
    // The shard of another plan under this one's name.
    drop(get(&store, "b", |_| ()));
    let other = files(folder.path(), "features");
    let other = other.iter().find(|found| **found != path).unwrap();
    std::fs::rename(other, &path).unwrap();
    assert!(rows(&get(&store, "a", |_| ())) == &expected("a"));
}

#[test]
fn what_fails_or_stops_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 1 << 30).unwrap();
    let few = |writer: &mut pomona_trainer::features::Writer<'_>| {
        writer.rows(&Tensor::from_slice(&row("a", 0)).reshape([1, WIDTH]))
    };
    let failed = store.get(
        &plan("a"),
        || true,
        |writer| {
            few(writer)?;
            Err(pomona_trainer::fault::internal("on purpose"))
        },
    );
    assert!(failed.unwrap_err().message.contains("on purpose"));
    let short = store.get(&plan("a"), || true, |writer| few(writer).map(|()| true));
    assert!(short.unwrap_err().message.contains("other rows"));
    let stopped = store.get(&plan("a"), || true, |writer| few(writer).map(|()| false));
    assert!(matches!(stopped.unwrap(), Found::Stopped));
    assert!(files(folder.path(), "part").is_empty());
    assert!(files(folder.path(), "features").is_empty());
}

#[test]
fn the_budget_holds_whatever_is_asked_for_and_nothing_in_use_goes() {
    let folder = tempfile::tempdir().unwrap();
    let each = plan("a").bytes();
    // Room for five, with their footers.
    let budget = 5 * (each + 1000);
    let store = Store::open(folder.path(), budget).unwrap();
    let used = || -> u64 {
        files(folder.path(), "features")
            .iter()
            .map(|path| std::fs::metadata(path).unwrap().len())
            .sum()
    };
    let stream = random::Key {
        seed: 1,
        replicate: 0,
        purpose: "experiment",
        epoch: 0,
    }
    .stream();
    // Each experiment reads two of twelve shards at a time; three run at once.
    let mut running: Vec<Vec<(String, Found)>> = Vec::new();
    let (mut hits, mut built, mut refused) = (0, 0, 0);
    for experiment in 0..50 {
        if running.len() == 3 {
            running.remove(stream.bits(900 + experiment) as usize % 3);
        }
        let mut held = Vec::new();
        for which in 0..2 {
            let name = format!("shard {}", stream.bits(experiment * 2 + which) % 12);
            let found = get(&store, &name, |_| ());
            match found {
                Found::Hit(_) => hits += 1,
                Found::Built(_) => built += 1,
                Found::NoRoom => refused += 1,
                Found::Busy | Found::DiskFull | Found::Stopped => panic!("nobody else is there"),
            }
            if !matches!(found, Found::NoRoom) {
                held.push((name, found));
            }
            assert!(used() <= budget, "{} of {budget}", used());
            assert!(files(folder.path(), "part").is_empty());
        }
        running.push(held);
        for (name, found) in running.iter().flatten() {
            assert!(rows(found) == &expected(name), "{name}");
            let there = get(&store, name, |_| panic!("{name} is in use and was removed"));
            assert!(matches!(there, Found::Hit(_)));
        }
    }
    assert!(
        hits > 5 && built > 12 && refused > 0,
        "{hits} {built} {refused}"
    );
    // What was used last stays: both of these were, in this order.
    drop(running);
    drop(get(&store, "old", |_| ()));
    drop(get(&store, "new", |_| ()));
    for number in 0..4 {
        drop(get(&store, &format!("more {number}"), |_| ()));
    }
    let mut computed = Vec::new();
    drop(get(&store, "new", |_| computed.push("new")));
    drop(get(&store, "old", |_| computed.push("old")));
    computed.dedup();
    assert_eq!(computed, ["old"]);
}

/// What a process of its own is told: a folder, and the row before which it waits for a file
/// `go-on` to appear.
const CHILD: &str = "POMONA_TEST_FEATURES";

/// In the child's process: gets the shard `a`, slowly. Otherwise: nothing.
fn be_a_child() -> bool {
    let Ok(text) = std::env::var(CHILD) else {
        return false;
    };
    let folder = Path::new(&text);
    let store = Store::open(&folder.join("store"), 1 << 30).unwrap();
    let found = get(&store, "a", |number| {
        if number == ROWS / 2 {
            std::fs::write(folder.join("half"), "").unwrap();
            until(|| folder.join("go-on").exists());
        }
    });
    assert!(rows(&found) == &expected("a"));
    let how = if matches!(found, Found::Built(_)) {
        "built"
    } else {
        "hit"
    };
    std::fs::write(folder.join("how"), how).unwrap();
    true
}

pub fn until(met: impl Fn() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < DEADLINE, "it never came");
        std::thread::yield_now();
    }
}

fn child(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("features::{test}"), "--exact", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_builder_killed_in_the_middle_leaves_nothing_that_anybody_uses() {
    if be_a_child() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_builder_killed_in_the_middle_leaves_nothing_that_anybody_uses";
    let mut builder = child(name, folder.path());
    until(|| folder.path().join("half").exists());
    builder.kill().unwrap();
    builder.wait().unwrap();
    let store = folder.path().join("store");
    assert_eq!(files(&store, "part").len(), 1);
    let mut computed = 0;
    let found = get(&Store::open(&store, 1 << 30).unwrap(), "a", |_| {
        computed += 1;
    });
    assert_eq!(computed, ROWS);
    assert!(rows(&found) == &expected("a"));
    assert!(files(&store, "part").is_empty());
}

#[test]
fn what_a_killed_builder_left_gives_way_to_others() {
    if be_a_child() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "what_a_killed_builder_left_gives_way_to_others";
    let mut builder = child(name, folder.path());
    until(|| folder.path().join("half").exists());
    let store = folder.path().join("store");
    let tight = Store::open(&store, plan("b").bytes() + 1000).unwrap();
    assert!(
        matches!(get(&tight, "b", |_| ()), Found::NoRoom),
        "it is being written"
    );
    builder.kill().unwrap();
    builder.wait().unwrap();
    assert!(rows(&get(&tight, "b", |_| ())) == &expected("b"));
    assert!(files(&store, "part").is_empty());
}

#[test]
fn of_two_processes_one_computes_and_the_other_waits() {
    if be_a_child() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "of_two_processes_one_computes_and_the_other_waits";
    let mut builder = child(name, folder.path());
    until(|| folder.path().join("half").exists());
    let store = Store::open(&folder.path().join("store"), 1 << 30).unwrap();
    let build = |_: &mut pomona_trainer::features::Writer<'_>| panic!("somebody is at it");
    // One that is told to stop does not wait.
    let stopped = store.get(&plan("a"), || false, build).unwrap();
    assert!(matches!(stopped, Found::Stopped));
    let mut asked = 0;
    let go_on = || {
        asked += 1;
        if asked == 2 {
            std::fs::write(folder.path().join("go-on"), "").unwrap();
        }
        true
    };
    let found = store.get(&plan("a"), go_on, build).unwrap();
    assert!(matches!(found, Found::Hit(_)));
    assert!(rows(&found) == &expected("a"));
    assert!(builder.wait().unwrap().success());
    assert_eq!(
        std::fs::read_to_string(folder.path().join("how")).unwrap(),
        "built"
    );
}

pub fn network(arch: Arch, depth: usize) -> Network {
    let mut network = Network::new(arch, &HeadPlan::linear(5), Kind::Float, Device::Cpu);
    network.draw(11, 0, |_| true);
    network.freeze(depth);
    network
}

pub fn open(fixture: &Fixture) -> Arc<Dataset> {
    Arc::new(Dataset::open(&fixture.data.manifest, &fixture.data.archive).unwrap())
}

/// An image as it is, mirrored, or two parts of it.
const VIEWS: [View; 2] = [View::AS_IS, View::Whole { mirrored: true }];
const CROPS: [View; 3] = [View::AS_IS, crop(1), crop(2)];

const fn crop(crop: u32) -> View {
    View::Crop { crop, flips: true }
}

fn features(network: &Network, dataset: &Arc<Dataset>, folder: &Path, views: &[View]) -> Features {
    features_as(Arithmetic::Exact, network, dataset, folder, views)
}

pub fn features_as(
    arithmetic: Arithmetic,
    network: &Network,
    dataset: &Arc<Dataset>,
    folder: &Path,
    views: &[View],
) -> Features {
    let request = Request {
        network,
        dataset,
        views: views.to_vec(),
        environment: &BTreeMap::new(),
        precision: Precision::F32,
        threads: 1,
    };
    let store = Store::open(folder, 1 << 30).unwrap();
    match request.get_as(arithmetic, &store, || true).unwrap() {
        Outcome::Ready(features) => features,
        other => panic!("{other:?}"),
    }
}

/// Activations at every cut of an independent forward pass over these images in this order, one by
/// one: index 0 is the first block's. What is mirrored is mirrored here.
pub fn independent(
    network: &Network,
    dataset: &Arc<Dataset>,
    split: Split,
    picks: &[Pick],
) -> Vec<Tensor> {
    let side = dataset.size();
    let mut cuts: Vec<Vec<Tensor>> = network.blocks().iter().map(|_| Vec::new()).collect();
    for pick in picks {
        let (view, mirrored) = match pick.view {
            View::Whole { mirrored } => (View::AS_IS, mirrored),
            View::Crop { .. } => (pick.view, false),
        };
        let one = (pick.index..pick.index + 1, view);
        let mut loader = Loader::in_order(Arc::clone(dataset), split, one, 1, 1);
        let pixels = loader.next().unwrap().unwrap().pixels;
        let preprocess = network.arch().preprocess();
        let mut x = preprocess.apply(&pixels, 1, side, Kind::Float, Device::Cpu);
        if mirrored {
            x = x.flip([3]);
        }
        tch::no_grad(|| {
            let last = network.blocks().len() - 1;
            let pooled = network.forward_with(&x, |index, output| {
                if index < last {
                    cuts[index].push(output.contiguous());
                }
            });
            cuts[last].push(pooled);
        });
    }
    cuts.iter().map(|rows| Tensor::cat(rows, 0)).collect()
}

/// Largest difference over the largest value.
pub fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[])
}

/// Random weights by libtorch's generator: ours is slow where nothing is optimised.
pub fn random(network: &Network) {
    tch::manual_seed(3);
    let _no_grad = tch::no_grad_guard();
    for entry in network.entries() {
        let mut tensor = entry.tensor.shallow_clone();
        let _same = match entry.init {
            Init::Normal(deviation) => tensor.normal_(0.0, deviation),
            Init::Uniform(bound) => tensor.uniform_(-bound, bound),
            Init::Constant(value) => tensor.fill_(value),
        };
    }
}

/// T6 for every cut of a network.
fn equal_at_every_cut(arch: Arch, fixture: &Fixture, weights: impl Fn(&Network)) {
    let dataset = open(fixture);
    let mut network = Network::new(arch, &HeadPlan::linear(5), Kind::Float, Device::Cpu);
    weights(&network);
    // Neither the store's order nor its batches. More views at the first two cuts; where views differ
    // is before them.
    let picks = |views: &[View]| -> Vec<Pick> {
        let order = [3, 0, 7, 3, 5, 1].into_iter().zip([0, 1, 0, 1, 2, 1]);
        order
            .map(|(index, number)| Pick {
                index,
                view: views[number % views.len()],
            })
            .collect()
    };
    let plain = [1, 0].map(|index| Pick {
        index,
        view: View::AS_IS,
    });
    let seen = [VIEWS.as_slice(), &CROPS, &VIEWS[..1]];
    let train = seen.map(|views| independent(&network, &dataset, Split::Train, &picks(views)));
    let val = independent(&network, &dataset, Split::Val, &plain);
    let folder = tempfile::tempdir().unwrap();
    let ways = [Arithmetic::Exact, Arithmetic::Folded];
    let cuts = (1..=network.blocks().len()).flat_map(|depth| ways.map(|way| (depth, way)));
    for (depth, arithmetic) in cuts {
        network.freeze(depth);
        let which = (depth - 1).min(2);
        let views = seen[which];
        let place = folder.path().join(format!("{arithmetic:?}"));
        let cached = features_as(arithmetic, &network, &dataset, &place, views);
        let block = &network.blocks()[depth - 1].name;
        let name = format!("{} {block}, {arithmetic:?}", arch.name());
        let gathered = cached.gather(&picks(views), Device::Cpu);
        let off = relative(&gathered, &train[which][depth - 1]);
        assert!(off < 1e-4, "{name}: {off}");
        let found = cached.validation(0, 2, Device::Cpu);
        let off = relative(&found, &val[depth - 1].flip([0]));
        assert!(off < 1e-4, "{name}: {off}");
        // What is trained on the features is what would be trained on the pixels.
        let logits = network.above_cut(&found, pomona_trainer::network::Pass::Eval);
        assert_eq!(logits.size(), [2, 5], "{name}");
        // One depth at a time: all cuts of a large network are a lot of bytes. What is prepared
        // begins from the depth before.
        drop(cached);
        if arithmetic == Arithmetic::Exact {
            for path in files(&place, "features") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn features_are_those_of_an_independent_pass_at_every_cut_of_the_test_networks() {
    for arch in [Arch::TestConvnet, Arch::TestResnet] {
        equal_at_every_cut(arch, &fixture("test-resnet", 3, 20), random);
    }
}

#[test]
fn features_are_those_of_an_independent_pass_at_every_cut_of_resnet18() {
    equal_at_every_cut(Arch::Resnet18, &fixture("test-resnet", 2, 15), random);
}

#[test]
fn features_are_those_of_an_independent_pass_at_every_cut_of_resnet50() {
    equal_at_every_cut(Arch::Resnet50, &fixture("test-resnet", 2, 15), random);
}

#[test]
fn features_are_those_of_an_independent_pass_at_every_cut_of_vgg16() {
    equal_at_every_cut(Arch::Vgg16, &fixture("test-resnet", 2, 15), random);
}

#[test]
fn features_are_those_of_an_independent_pass_at_every_cut_of_inception_v3() {
    let fixture = crate::support::fixture_of_size("test-resnet", 2, 15, 80);
    equal_at_every_cut(Arch::InceptionV3, &fixture, random);
}

#[test]
fn features_are_those_of_an_independent_pass_at_every_cut_of_lite0_with_its_real_weights() {
    let fixture = fixture("test-resnet", 2, 15);
    let published = crate::support::published_weights();
    let published = pomona_trainer::weights::read(&published).unwrap();
    equal_at_every_cut(Arch::EfficientnetLite0, &fixture, |network| {
        network.load_backbone(&published).unwrap();
    });
}

#[test]
fn features_of_another_backbone_cut_view_set_or_machine_are_others() {
    let fixture = fixture("test-resnet", 2, 15);
    let dataset = open(&fixture);
    let folder = tempfile::tempdir().unwrap();
    let shards = || files(folder.path(), "features").len();
    let first = network(Arch::TestResnet, 2);
    let found = features(&first, &dataset, folder.path(), &VIEWS[..1]);
    assert_eq!((shards(), found.computed), (2, found.bytes));
    // The same again costs nothing, also with another head.
    first.draw(99, 0, |entry| entry.block.is_none());
    let again = features(&first, &dataset, folder.path(), &VIEWS[..1]);
    assert_eq!(
        (shards(), again.computed, again.digest),
        (2, 0, found.digest)
    );
    // The mirrored view is one shard more, and so is each crop, whether there are many or few.
    let mirrored = features(&first, &dataset, folder.path(), &VIEWS);
    assert_eq!(shards(), 3);
    assert_ne!(mirrored.digest, found.digest);
    let crops = features(&first, &dataset, folder.path(), &CROPS);
    assert_eq!((shards(), crops.computed < crops.bytes), (5, true));
    let fewer = features(&first, &dataset, folder.path(), &CROPS[..2]);
    assert_eq!((shards(), fewer.computed), (5, 0));
    let deeper = features(
        &network(Arch::TestResnet, 3),
        &dataset,
        folder.path(),
        &VIEWS[..1],
    );
    assert_eq!((shards(), deeper.computed), (7, deeper.bytes));
    // Weights above the cut do not matter, one below it does.
    let above = network(Arch::TestResnet, 2);
    above.draw(77, 0, |entry| entry.block.is_none_or(|block| block >= 2));
    assert_eq!(
        features(&above, &dataset, folder.path(), &VIEWS[..1]).computed,
        0
    );
    let below = network(Arch::TestResnet, 2);
    let buffer = below
        .entries()
        .iter()
        .find(|entry| entry.name.ends_with("running_mean"));
    let _new = tch::no_grad(|| buffer.unwrap().tensor.shallow_clone().fill_(0.25));
    let other = features(&below, &dataset, folder.path(), &VIEWS[..1]);
    assert_eq!(shards(), 9);
    assert_ne!(other.digest, found.digest);
    let elsewhere = BTreeMap::from([("threads".to_owned(), "7".to_owned())]);
    let request = Request {
        network: &first,
        dataset: &dataset,
        views: VIEWS[..1].to_vec(),
        environment: &elsewhere,
        precision: Precision::F32,
        threads: 1,
    };
    let store = Store::open(folder.path(), 1 << 30).unwrap();
    assert!(
        matches!(request.get(&store, || true).unwrap(), Outcome::Ready(found) if found.computed > 0)
    );
    let tight = Store::open(&folder.path().join("tight"), 1000).unwrap();
    assert!(
        matches!(request.get(&tight, || true).unwrap(), Outcome::NoRoom(bytes) if bytes == found.bytes)
    );
}

/// Runs a trial to its end in a process of its own.
fn run(work: &TrainWork) -> Vec<Event> {
    let mut lease = Lease::start(work, 1, &[]);
    let events = lease.ranks[0].events_until(|_| false);
    let _status = lease.ranks[0].exit_code();
    events
}

fn results(events: &[Event]) -> Vec<FeatureResult> {
    let result = |event: &Event| match event {
        Event::Features { result, .. } => Some(*result),
        _ => None,
    };
    events.iter().filter_map(result).collect()
}

fn four_views() -> Augment {
    Augment {
        views: 4,
        ops: vec![AugmentOp::RandomResizedCrop, AugmentOp::HorizontalFlip],
    }
}

/// Metrics of the last evaluation.
fn metrics(events: &[Event]) -> BTreeMap<String, f64> {
    let found = events.iter().rev().find_map(|event| match event {
        Event::Observed { metrics, .. } => Some(metrics.clone()),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn the_first_trial_computes_and_the_next_find_everything_there() {
    let fixture = fixture("test-resnet", 3, 20);
    let at = |name: &str| fixture.folder.path().join(name);
    let mut spec = spec();
    let first = run(&train_work(&fixture, &spec, &at("first"), None));
    assert_eq!(results(&first), [FeatureResult::Built]);
    spec.train.learning_rate = 0.01;
    spec.seed = 8;
    let second = run(&train_work(&fixture, &spec, &at("second"), None));
    assert_eq!(results(&second), [FeatureResult::Hit]);
    // The same with crops: no seed and no replicate changes what a view shows.
    spec.train.augment = four_views();
    let third = run(&train_work(&fixture, &spec, &at("third"), None));
    assert_eq!(results(&third), [FeatureResult::Built]);
    (spec.seed, spec.replicate) = (9, 1);
    let fourth = run(&train_work(&fixture, &spec, &at("fourth"), None));
    assert_eq!(results(&fourth), [FeatureResult::Hit]);
    assert_ne!(metrics(&fourth), metrics(&third));
    // Nothing is frozen: there is nothing to share.
    spec.transfer.frozen_depth = FrozenDepth::Blocks(0);
    let whole = run(&train_work(&fixture, &spec, &at("whole"), None));
    assert_eq!(results(&whole), []);
    assert_eq!(whole.last(), Some(&Event::Finished {}));
}

#[test]
fn a_trial_on_features_is_the_trial_on_pixels() {
    let fixture = fixture("test-resnet", 3, 20);
    for (name, depth, augment) in [
        ("all", FrozenDepth::Named("all".into()), None),
        ("some", FrozenDepth::Blocks(2), None),
        ("crops", FrozenDepth::Blocks(2), Some(four_views())),
    ] {
        let mut spec = spec();
        spec.transfer.frozen_depth = depth;
        spec.train.augment = augment.unwrap_or(spec.train.augment);
        let at = |how: &str| fixture.folder.path().join(format!("{name}-{how}"));
        let shared = run(&train_work(&fixture, &spec, &at("shared"), None));
        spec.share = Share::Off;
        let alone = run(&train_work(&fixture, &spec, &at("alone"), None));
        assert_eq!((results(&shared).len(), results(&alone).len()), (1, 0));
        let (shared, alone) = (metrics(&shared), metrics(&alone));
        assert!(shared.keys().eq(alone.keys()));
        for (metric, value) in shared {
            let off = (value - alone[&metric]).abs();
            assert!(
                off < 1e-3,
                "{name}, {metric}: {value} is not {}",
                alone[&metric]
            );
        }
    }
}

#[test]
fn features_that_do_not_fit_are_done_without_and_a_resume_never_mixes() {
    let fixture = fixture("test-resnet", 3, 20);
    let at = |name: &str| fixture.folder.path().join(name);
    let mut tight = train_work(&fixture, &spec(), &at("tight"), None);
    let store = tight.features.as_mut().unwrap();
    (store.folder, store.max_bytes) = (at("small"), 1000);
    let events = run(&tight);
    assert_eq!(results(&events), [FeatureResult::NoRoom]);
    assert_eq!(events.last(), Some(&Event::Finished {}));

    let newest = |events: &[Event]| {
        let found = events.iter().rev().find_map(|event| match event {
            Event::Checkpoint {
                checkpoint: CheckpointKind::Last,
                path,
                ..
            } => Some(path.clone()),
            _ => None,
        });
        found.unwrap()
    };
    // What began without them goes on without them, also where there is room.
    let mut wide = train_work(&fixture, &spec(), &at("wide"), Some(newest(&events)));
    let without = run(&wide);
    assert_eq!(results(&without), []);
    assert_eq!(without.last(), Some(&Event::Finished {}));
    // What began with them is not continued without.
    wide.members[0].resume = None;
    let events = run(&wide);
    assert_eq!(results(&events), [FeatureResult::Built]);
    tight.members[0].resume = Some(newest(&events));
    let refused = run(&tight);
    let Some(Event::Failed { fault, .. }) = refused.last() else {
        panic!("{refused:?}")
    };
    assert_eq!(fault.code, Code::ResumeMismatch);
    assert!(fault.message.contains("features"), "{fault}");
}

#[test]
fn a_trial_that_waits_for_features_says_so_and_can_be_stopped() {
    let fixture = fixture("test-resnet", 3, 20);
    let at = |name: &str| fixture.folder.path().join(name);
    assert_eq!(
        results(&run(&train_work(&fixture, &spec(), &at("first"), None))),
        [FeatureResult::Built]
    );
    // Somebody computes all of them anew, and takes its time.
    let busy: Vec<File> = files(&at("features"), "features")
        .iter()
        .map(|path| {
            std::fs::remove_file(path).unwrap();
            let part = File::create(path.with_extension("part")).unwrap();
            part.lock().unwrap();
            part
        })
        .collect();
    assert_eq!(busy.len(), 5);
    let work = train_work(&fixture, &spec(), &at("second"), None);
    let mut lease = Lease::start(&work, 1, &[]);
    let trainer = &mut lease.ranks[0];
    let _waits = trainer.events_until(|event| matches!(event, Event::Evaluating { .. }));
    trainer.say(r#"{"signal":"stop"}"#);
    let events = trainer.events_until(|_| false);
    assert_eq!(events.last(), Some(&Event::Stopped {}));
    let trained =
        |event: &Event| matches!(event, Event::Checkpoint { .. } | Event::Progress { .. });
    assert!(!events.iter().any(trained), "{events:?}");
    assert_eq!(trainer.exit_code(), Some(3));
    // They give up: the next trial does it.
    drop(busy);
    assert_eq!(results(&run(&work)), [FeatureResult::Built]);
}
