//! Two ranks equal one. The ranks are real processes: this test binary, started again.

use crate::support::{device, spec};
use pomona_api::trainer::Rendezvous;
use pomona_domain::Generation;
use pomona_domain::spec::{ClassWeights, FrozenDepth, Head, Optimizer as Rule, TrialSpec};
use pomona_trainer::checkpoint::file::{self, Content};
use pomona_trainer::dist::{Group, StoreServer, part};
use pomona_trainer::network::{Arch, HeadPlan, Masks, Network, host_tensor};
use pomona_trainer::optim::Optimizer;
use pomona_trainer::random::Key;
use pomona_trainer::train::learner::{Learner, Loss};
use pomona_trainer::weights::{DType, HostTensor};
use std::path::Path;
use std::process::{Command, Stdio};
use tch::{Kind, Tensor};

const STEPS: usize = 20;
const CLASSES: usize = 4;
const SIDE: i64 = 16;
const CASE: &str = "POMONA_TEST_RANK";

/// What is compared.
#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    batch: usize,
    weights: ClassWeights,
}

impl Case {
    fn parse(text: &str) -> (Self, u32, u16, String) {
        let parts: Vec<&str> = text.splitn(6, ',').collect();
        let case = Self {
            kind: if parts[0] == "f64" {
                Kind::Double
            } else {
                Kind::Float
            },
            batch: parts[1].parse().unwrap(),
            weights: if parts[2] == "balanced" {
                ClassWeights::Balanced
            } else {
                ClassWeights::None
            },
        };
        (
            case,
            parts[3].parse().unwrap(),
            parts[4].parse().unwrap(),
            parts[5].to_owned(),
        )
    }

    fn text(self) -> String {
        let kind = if self.kind == Kind::Double {
            "f64"
        } else {
            "f32"
        };
        let weights = if self.weights == ClassWeights::Balanced {
            "balanced"
        } else {
            "none"
        };
        format!("{kind},{},{weights}", self.batch)
    }
}

/// Uneven, so that balanced weights differ.
fn label(step: usize, row: usize) -> u32 {
    [0, 0, 0, 1, 1, 2, 0, 3][(step * 5 + row * 3) % 8]
}

/// The joint batch of a step.
fn batch(step: usize, case: Case) -> (Tensor, Vec<u32>) {
    let key = Key {
        seed: 2,
        replicate: 0,
        purpose: "image",
        epoch: step as u32,
    };
    let stream = key.stream();
    let count = case.batch as u64 * 3 * (SIDE * SIDE) as u64;
    let values: Vec<f64> = (0..count)
        .map(|index| 2.0 * stream.uniform(index) - 1.0)
        .collect();
    let x = Tensor::from_slice(&values)
        .reshape([case.batch as i64, 3, SIDE, SIDE])
        .to_kind(case.kind);
    (x, (0..case.batch).map(|row| label(step, row)).collect())
}

fn trial() -> TrialSpec {
    let mut spec = spec();
    spec.transfer.frozen_depth = FrozenDepth::Blocks(0);
    spec.transfer.head = Head::Mlp {
        hidden: 12,
        dropout: 0.5,
    };
    spec.train.optimizer = Rule::Sgd {
        momentum: 0.9,
        weight_decay: 1e-4,
    };
    spec
}

/// Trains `STEPS` steps and keeps first gradients and all parameters.
fn train(case: Case, group: Group) -> Content {
    tch::set_num_threads(1);
    let mut spec = trial();
    spec.train.class_weights = case.weights;
    let plan = HeadPlan {
        head: spec.transfer.head.clone(),
        classes: CLASSES as u32,
    };
    let network = Network::new(Arch::TestConvnet, &plan, case.kind, device(group.rank()));
    // Ranks start apart on purpose: rank 0's weights must win.
    network.draw(9 + u64::from(group.rank()), 0, |_| true);
    let optimizer = Optimizer::new(&spec.train.optimizer, network.trainable());
    let all: Vec<u32> = (0..8).map(|row| label(0, row)).collect();
    let loss = Loss::new(&network, &spec.train, CLASSES, &all);
    let (rank, world) = (group.rank(), group.world_size());
    let mut learner = Learner::new(group, network, optimizer, loss).unwrap();
    let mut kept = Content::new();
    for step in 0..STEPS {
        let (x, labels) = batch(step, case);
        let mine = part(labels.len(), rank, world);
        let samples: Vec<usize> = mine.clone().map(|row| step * 100 + row).collect();
        let key = Key {
            seed: 7,
            replicate: 0,
            purpose: "dropout",
            epoch: 0,
        };
        let weight = learner.weight_of(&labels);
        if mine.is_empty() {
            learner.no_gradients().unwrap();
        } else {
            let x = x
                .narrow(0, mine.start as i64, mine.len() as i64)
                .to_device(learner.network.device());
            let masks = Masks {
                key,
                samples: &samples,
            };
            learner
                .gradients(&learner.network.at_cut(&x), &labels[mine], &masks, weight)
                .unwrap();
        }
        if step == 0 {
            for (name, parameter) in learner.network.trainable() {
                kept.insert(format!("gradient.{name}"), host_tensor(&parameter.grad()));
            }
        }
        learner.update(0.05).unwrap();
        for (name, parameter) in learner.network.trainable() {
            kept.insert(format!("step{step:02}.{name}"), host_tensor(&parameter));
        }
    }
    learner.cross_check(|_| true).unwrap();
    kept
}

fn values(tensor: &HostTensor) -> Vec<f64> {
    match tensor.dtype {
        DType::F64 => tensor
            .bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        _ => tensor
            .bytes
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
    }
}

/// Largest difference and largest value of the tensors whose names begin with `prefix`.
fn compare(a: &Content, b: &Content, prefix: &str) -> (f64, f64) {
    let (mut difference, mut largest) = (0f64, 0f64);
    let mut seen = 0;
    for (name, tensor) in a.iter().filter(|(name, _)| name.starts_with(prefix)) {
        for (x, y) in values(tensor).into_iter().zip(values(&b[name])) {
            difference = difference.max((x - y).abs());
            largest = largest.max(x.abs());
        }
        seen += 1;
    }
    assert!(seen > 0);
    (difference, largest)
}

/// In a rank's process: trains and writes what it kept. Otherwise: nothing.
fn be_a_rank() -> bool {
    let Ok(text) = std::env::var(CASE) else {
        return false;
    };
    let (case, rank, port, output) = Case::parse(&text);
    let at = Rendezvous {
        host: "127.0.0.1".into(),
        port,
    };
    let group = Group::join(&at, Generation(1), rank, 2, device(rank)).unwrap();
    file::write(Path::new(&output), &train(case, group), None).unwrap();
    true
}

fn check(test: &str, case: Case, first_gradient: f64, after: f64) {
    if be_a_rank() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = StoreServer::bind("127.0.0.1").unwrap();
    let outputs = [0, 1].map(|rank| folder.path().join(format!("rank{rank}")));
    let ranks: Vec<_> = outputs
        .iter()
        .enumerate()
        .map(|(rank, output)| {
            Command::new(std::env::current_exe().unwrap())
                .args([&format!("ranks::{test}"), "--exact", "--nocapture"])
                .env(
                    CASE,
                    format!(
                        "{},{rank},{},{}",
                        case.text(),
                        store.port(),
                        output.display()
                    ),
                )
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let alone = train(case, Group::alone(device(0)));
    for mut rank in ranks {
        assert!(rank.wait().unwrap().success());
    }
    let [zero, one] = outputs.map(|output| file::read(&output).unwrap().0);
    assert!(
        zero.iter()
            .all(|(name, tensor)| name.starts_with("gradient.") || one[name] == *tensor)
    );
    let (difference, largest) = compare(&zero, &alone, "gradient.");
    assert!(
        difference <= first_gradient * largest.max(1.0),
        "gradients differ by {difference:e}"
    );
    let (difference, _) = compare(&zero, &alone, &format!("step{:02}.", STEPS - 1));
    assert!(difference <= after, "parameters differ by {difference:e}");
}

#[test]
fn two_ranks_equal_one_in_f32() {
    let case = Case {
        kind: Kind::Float,
        batch: 32,
        weights: ClassWeights::None,
    };
    check("two_ranks_equal_one_in_f32", case, 1e-6, 1e-4);
}

#[test]
fn two_ranks_equal_one_in_f64() {
    let case = Case {
        kind: Kind::Double,
        batch: 32,
        weights: ClassWeights::None,
    };
    check("two_ranks_equal_one_in_f64", case, 1e-12, 1e-12);
}

#[test]
fn an_odd_batch_with_class_weights_in_f32() {
    let case = Case {
        kind: Kind::Float,
        batch: 33,
        weights: ClassWeights::Balanced,
    };
    check("an_odd_batch_with_class_weights_in_f32", case, 1e-6, 1e-4);
}

#[test]
fn an_odd_batch_with_class_weights_in_f64() {
    let case = Case {
        kind: Kind::Double,
        batch: 33,
        weights: ClassWeights::Balanced,
    };
    check("an_odd_batch_with_class_weights_in_f64", case, 1e-12, 1e-12);
}

#[test]
fn a_rank_without_samples_changes_nothing() {
    let case = Case {
        kind: Kind::Double,
        batch: 1,
        weights: ClassWeights::Balanced,
    };
    check("a_rank_without_samples_changes_nothing", case, 1e-12, 1e-12);
}

#[test]
fn parts_are_contiguous_and_cover_all() {
    for (count, world) in [(33, 2), (1, 2), (0, 3), (64, 3)] {
        let parts: Vec<usize> = (0..world)
            .flat_map(|rank| part(count, rank, world))
            .collect();
        assert_eq!(parts, (0..count).collect::<Vec<_>>());
    }
}
