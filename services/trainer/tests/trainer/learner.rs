//! What a step computes: the loss of PyTorch's definition, masks that follow the sample, features
//! that do not depend on how many images run together.

use crate::support::spec;
use pomona_domain::spec::{ClassWeights, Head};
use pomona_trainer::dist::Group;
use pomona_trainer::network::{Arch, HeadPlan, Masks, Network, Pass};
use pomona_trainer::optim::Optimizer;
use pomona_trainer::random::Key;
use pomona_trainer::train::learner::{Learner, Loss};
use tch::{Device, Kind, Tensor};

const LABELS: [u32; 6] = [0, 0, 0, 1, 2, 2];
const CLASSES: usize = 4;
const KEY: Key = Key {
    seed: 1,
    replicate: 0,
    purpose: "dropout",
    epoch: 0,
};

fn noise(shape: &[i64]) -> Tensor {
    let stream = Key {
        seed: 5,
        replicate: 0,
        purpose: "noise",
        epoch: 0,
    }
    .stream();
    let values: Vec<f64> = (0..shape.iter().product::<i64>() as u64)
        .map(|at| stream.normal(at))
        .collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// A frozen network with a linear head, in f64.
fn learner(smoothing: f64) -> Learner {
    let mut network = Network::new(
        Arch::TestConvnet,
        &HeadPlan::linear(CLASSES as u32),
        Kind::Double,
        Device::Cpu,
    );
    network.draw(3, 0, |_| true);
    network.freeze(2);
    let mut train = spec().train;
    (train.class_weights, train.label_smoothing) = (ClassWeights::Balanced, smoothing);
    let optimizer = Optimizer::new(&train.optimizer, network.trainable());
    let loss = Loss::new(&network, &train, CLASSES, &LABELS);
    Learner::new(Group::alone(Device::Cpu), network, optimizer, loss).unwrap()
}

#[test]
fn balanced_weights_are_inverse_frequencies_whose_mean_over_the_samples_is_one() {
    let learner = learner(0.0);
    // Six samples in three classes that occur: 6 / 3 / count. A class without samples weighs nothing.
    let weights = [2.0 / 3.0, 2.0, 1.0, 0.0];
    for (class, expect) in weights.into_iter().enumerate() {
        assert!(
            (learner.weight_of(&[class as u32]) - expect).abs() < 1e-15,
            "class {class}"
        );
    }
    assert!((learner.weight_of(&LABELS) - LABELS.len() as f64).abs() < 1e-12);
}

#[test]
fn gradients_are_those_of_weighted_smoothed_cross_entropy() {
    for smoothing in [0.0, 0.2] {
        let learner = learner(smoothing);
        let x = noise(&[6, 3, 12, 12]);
        let samples: Vec<usize> = (0..6).collect();
        let masks = Masks {
            key: KEY,
            samples: &samples,
        };
        let weight = learner.weight_of(&LABELS);
        let loss = learner
            .gradients(&learner.network.at_cut(&x), &LABELS, &masks, weight)
            .unwrap();

        let features: Vec<f64> = (&learner.network.features_of(&x, Pass::Eval).flatten(0, 1))
            .try_into()
            .unwrap();
        let logits = tch::no_grad(|| learner.network.forward(&x, Pass::Eval));
        let logits: Vec<f64> = (&logits.flatten(0, 1)).try_into().unwrap();
        let (expect_loss, expect) = by_hand(&features, &logits, smoothing);
        assert!(
            (loss - expect_loss).abs() < 1e-12,
            "{loss} is not {expect_loss}"
        );
        let parameters = learner.network.trainable();
        assert_eq!(parameters[0].0, "fc.weight");
        let ours: Vec<f64> = (&parameters[0].1.grad().flatten(0, 1)).try_into().unwrap();
        for (a, b) in ours.iter().zip(&expect) {
            assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        }
    }
}

/// Sum of the weighted losses, and the head's gradient of their weighted mean.
fn by_hand(features: &[f64], logits: &[f64], smoothing: f64) -> (f64, Vec<f64>) {
    let weights = [2.0 / 3.0, 2.0, 1.0, 0.0];
    let width = features.len() / LABELS.len();
    let mut gradient = vec![0.0; CLASSES * width];
    let mut loss = 0.0;
    for (row, label) in LABELS.into_iter().enumerate() {
        let label = label as usize;
        let z = &logits[row * CLASSES..(row + 1) * CLASSES];
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        let p: Vec<f64> = z.iter().map(|z| z.exp() / sum).collect();
        let share = smoothing / CLASSES as f64;
        let cost = |class: usize| -weights[class] * p[class].ln();
        loss += (1.0 - smoothing) * cost(label) + share * (0..CLASSES).map(cost).sum::<f64>();
        for class in 0..CLASSES {
            let hit = f64::from(u8::from(class == label));
            let sharp = weights[label] * (p[class] - hit);
            let smooth = weights.iter().sum::<f64>() * p[class] - weights[class];
            let slope = ((1.0 - smoothing) * sharp + share * smooth) / LABELS.len() as f64;
            for unit in 0..width {
                gradient[class * width + unit] += slope * features[row * width + unit];
            }
        }
    }
    (loss, gradient)
}

#[test]
fn dropout_masks_follow_the_sample_and_keep_the_mean() {
    const UNITS: u32 = 64;
    let plan = HeadPlan {
        head: Head::Mlp {
            hidden: UNITS,
            dropout: 0.25,
        },
        classes: UNITS,
    };
    let network = Network::new(Arch::TestConvnet, &plan, Kind::Double, Device::Cpu);
    // Hidden units are all one and the last layer shows them: the output is the mask.
    for entry in network.entries() {
        let wanted = match entry.name.as_str() {
            "fc.0.bias" => Tensor::ones_like(&entry.tensor),
            "fc.3.weight" => Tensor::eye(i64::from(UNITS), (Kind::Double, Device::Cpu)),
            _ => Tensor::zeros_like(&entry.tensor),
        };
        tch::no_grad(|| entry.tensor.shallow_clone().copy_(&wanted));
    }
    let x = noise(&[3, 3, 8, 8]);
    let draw = |samples: &[usize], key: Key| -> Vec<Vec<f64>> {
        let masks = Masks { key, samples };
        let shown = tch::no_grad(|| {
            network.forward(&x.narrow(0, 0, samples.len() as i64), Pass::Train(&masks))
        });
        (0..samples.len())
            .map(|row| (&shown.get(row as i64)).try_into().unwrap())
            .collect()
    };
    let together = draw(&[7, 8, 9], KEY);
    // Alone or in another place of a batch, a sample has its own mask.
    assert_eq!(
        draw(&[9, 7], KEY),
        [together[2].clone(), together[0].clone()]
    );
    assert_ne!(together[0], together[1]);
    assert_ne!(draw(&[7], Key { epoch: 1, ..KEY })[0], together[0]);
    let all: Vec<f64> = (0..100)
        .flat_map(|sample| draw(&[sample], KEY).remove(0))
        .collect();
    assert!(
        all.iter()
            .all(|&value| value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6)
    );
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
    let eval = tch::no_grad(|| network.forward(&x, Pass::Eval));
    assert_eq!(eval.min().double_value(&[]), 1.0);
}

#[test]
fn features_do_not_depend_on_how_many_images_run_together() {
    let mut network = Network::new(
        Arch::TestResnet,
        &HeadPlan::linear(3),
        Kind::Float,
        Device::Cpu,
    );
    network.draw(3, 0, |_| true);
    // At 300 pixels two images run together without gradient.
    let x = noise(&[5, 3, 300, 300]).to_kind(Kind::Float);
    let whole = tch::no_grad(|| network.forward_with(&x, |_, _| ()));
    let largest = whole.abs().max().double_value(&[]);
    let samples: Vec<usize> = (0..5).collect();
    let masks = Masks {
        key: KEY,
        samples: &samples,
    };
    let all = network.blocks().len();
    for depth in [0, 2, all] {
        network.freeze(depth);
        let mut passes = vec![Pass::Eval];
        if depth == all {
            passes.push(Pass::Train(&masks));
        }
        for pass in passes {
            let parts = network.features_of(&x, pass);
            assert!((&parts - &whole).abs().max().double_value(&[]) < 1e-5 * largest);
            assert!(!parts.requires_grad());
        }
    }
    // Above the cut there are gradients, below there are none.
    network.freeze(2);
    assert!(network.features_of(&x, Pass::Train(&masks)).requires_grad());
}
