//! What two ranks have in common: rank 0's running statistics, and one evaluation. The ranks are
//! real processes: this test binary, started again.

use crate::support::{Fixture, device, fixture, spec};
use pomona_api::trainer::{DataFiles, Rendezvous};
use pomona_domain::Generation;
use pomona_domain::dataset::Split;
use pomona_trainer::data::Dataset;
use pomona_trainer::dist::{Group, StoreServer};
use pomona_trainer::network::{Arch, HeadPlan, Masks, Network, Role};
use pomona_trainer::optim::Optimizer;
use pomona_trainer::random::Key;
use pomona_trainer::train::evaluate::{BATCH, evaluate, metrics};
use pomona_trainer::train::learner::{Learner, Loss};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tch::{Kind, Tensor};

const RANK: &str = "POMONA_TEST_TOGETHER";
const CLASSES: usize = 3;

/// In a rank's process: does what it is for, writes what it found, and gives nothing. Otherwise:
/// gives what two ranks found.
fn ranks<T: Serialize + DeserializeOwned>(
    test: &str,
    folder: &Path,
    find: impl Fn(&Path, Group) -> T,
) -> Option<[T; 2]> {
    tch::set_num_threads(1);
    if let Ok(text) = std::env::var(RANK) {
        let (rank, text) = text.split_once(',').unwrap();
        let (port, folder) = text.split_once(',').unwrap();
        let (rank, folder) = (rank.parse().unwrap(), Path::new(folder));
        let at = Rendezvous {
            host: "127.0.0.1".into(),
            port: port.parse().unwrap(),
        };
        let group = Group::join(&at, Generation(1), rank, 2, device(rank)).unwrap();
        let found = serde_json::to_vec(&find(folder, group)).unwrap();
        std::fs::write(folder.join(format!("rank{rank}.json")), found).unwrap();
        return None;
    }
    let store = StoreServer::bind("127.0.0.1").unwrap();
    let started = [0, 1].map(|rank| {
        Command::new(std::env::current_exe().unwrap())
            .args([&format!("together::{test}"), "--exact", "--nocapture"])
            .env(
                RANK,
                format!("{rank},{},{}", store.port(), folder.display()),
            )
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    });
    for mut rank in started {
        assert!(rank.wait().unwrap().success());
    }
    Some([0, 1].map(|rank| {
        let bytes = std::fs::read(folder.join(format!("rank{rank}.json"))).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }))
}

/// Running statistics by name, as bits.
type Statistics = BTreeMap<String, Vec<u32>>;

fn statistics(network: &Network) -> Statistics {
    let buffers = network.entries().iter().filter(|e| e.role == Role::Buffer);
    buffers
        .map(|entry| {
            let values: Vec<f32> = Vec::try_from(&entry.tensor.flatten(0, -1)).unwrap();
            let bits = values.into_iter().map(f32::to_bits).collect();
            (entry.name.clone(), bits)
        })
        .collect()
}

/// One training pass over images of this rank's own: statistics before it, before sharing, after.
fn trained_statistics(group: Group) -> [Statistics; 3] {
    let mut network = Network::new(
        Arch::TestResnet,
        &HeadPlan::linear(CLASSES as u32),
        Kind::Float,
        device(group.rank()),
    );
    network.draw(9, 0, |_| true);
    network.freeze(1);
    let train = spec().train;
    let optimizer = Optimizer::new(&train.optimizer, network.trainable());
    let loss = Loss::new(&network, &train, CLASSES, &[0, 1, 2]);
    let key = Key {
        seed: u64::from(group.rank()),
        replicate: 0,
        purpose: "image",
        epoch: 0,
    };
    let mut learner = Learner::new(group, network, optimizer, loss).unwrap();
    let first = statistics(&learner.network);
    let values: Vec<f32> = (0..4 * 3 * 32 * 32)
        .map(|at| key.normal(at) as f32)
        .collect();
    let x = Tensor::from_slice(&values)
        .reshape([4, 3, 32, 32])
        .to_device(learner.network.device());
    let samples = [0, 1, 2, 3];
    let masks = Masks {
        key,
        samples: &samples,
    };
    let x = learner.network.at_cut(&x);
    learner.gradients(&x, &[0, 1, 2, 0], &masks, 8.0).unwrap();
    learner.update(0.01).unwrap();
    let apart = statistics(&learner.network);
    learner.share_statistics().unwrap();
    learner.cross_check(|_| true).unwrap();
    [first, apart, statistics(&learner.network)]
}

#[test]
fn both_ranks_end_with_rank_0s_running_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let found = ranks(
        "both_ranks_end_with_rank_0s_running_statistics",
        folder.path(),
        |_, group| trained_statistics(group),
    );
    let Some([[first, zero, shared], [_, one, shared_too]]) = found else {
        return;
    };
    let mut live = 0;
    for (name, values) in &zero {
        // What the first block has is frozen and the same everywhere; the others went apart.
        let moved = *values != first[name];
        assert_eq!(*values != one[name], moved, "{name}");
        live += usize::from(moved);
    }
    assert!(live > 0 && live < zero.len(), "{live} of {}", zero.len());
    assert!(shared == zero && shared_too == zero);
}

/// Loss, accuracy and so on, and the confusion matrix.
type Found = (BTreeMap<String, f64>, Vec<Vec<u64>>);

/// An evaluation with weights that every process draws for itself.
fn evaluated(data: &DataFiles, split: Split, group: &Group) -> Found {
    let dataset = Arc::new(Dataset::open(&data.manifest, &data.archive).unwrap());
    let network = Network::new(
        Arch::TestResnet,
        &HeadPlan::linear(CLASSES as u32),
        Kind::Float,
        device(group.rank()),
    );
    network.draw(5, 0, |_| true);
    let mut beats = 0;
    let found = evaluate(&network, &dataset, split, group, 1, || beats += 1).unwrap();
    assert_eq!(found.labels, dataset.labels(split));
    assert!(beats > 1, "more than one batch a rank");
    let metrics = metrics("val", dataset.classes(), &found.report);
    (metrics, found.report.confusion)
}

/// Where the data lies, for a rank that knows only the folder.
fn remember(fixture: &Fixture) -> PathBuf {
    let text = serde_json::to_vec(&fixture.data).unwrap();
    std::fs::write(fixture.folder.path().join("data.json"), text).unwrap();
    fixture.folder.path().to_owned()
}

#[test]
fn an_evaluation_by_two_ranks_is_that_of_one() {
    const NAME: &str = "an_evaluation_by_two_ranks_is_that_of_one";
    let evaluate_here = |folder: &Path, group: Group| {
        let text = std::fs::read(folder.join("data.json")).unwrap();
        let data: DataFiles = serde_json::from_slice(&text).unwrap();
        evaluated(&data, Split::Train, &group)
    };
    if std::env::var_os(RANK).is_some() {
        assert!(ranks(NAME, Path::new(""), evaluate_here).is_none());
        return;
    }
    // 23 of each class to train on: 69, in parts of 35 and 34, each over a batch.
    let fixture = fixture("test-resnet", CLASSES, 39);
    let folder = remember(&fixture);
    let (expect, confusion) = evaluated(&fixture.data, Split::Train, &Group::alone(device(0)));
    let images: u64 = confusion.iter().flatten().sum();
    assert!(images % 2 == 1 && images / 2 > BATCH as u64, "{images}");
    let predicted = |class: usize| confusion.iter().map(|row| row[class]).sum::<u64>() > 0;
    let kinds = (0..CLASSES).filter(|class| predicted(*class)).count();
    assert!(kinds > 1, "it tells classes apart: {confusion:?}");
    let Some(both) = ranks(NAME, &folder, evaluate_here) else {
        return;
    };
    for (found, matrix) in both {
        assert_eq!(matrix, confusion);
        assert!(found.keys().eq(expect.keys()), "{found:?}");
        for (name, value) in found {
            let off = (value - expect[&name]).abs();
            assert!(off < 1e-6, "`{name}` is {value}, not {}", expect[&name]);
        }
    }
}
