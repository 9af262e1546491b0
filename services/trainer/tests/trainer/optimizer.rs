//! The fused kernels, step by step against the published formulas in f64.

use pomona_domain::spec::Optimizer as Rule;
use pomona_trainer::optim::Optimizer;
use pomona_trainer::random::Key;
use tch::{Kind, Tensor};

const STEPS: u64 = 25;
const WIDTH: u64 = 24;
const KERNEL: [i64; 4] = [2, 3, 2, 2];

fn gradient(step: u64) -> Vec<f64> {
    let key = Key {
        seed: 1,
        replicate: 0,
        purpose: "gradient",
        epoch: step as u32,
    };
    (0..WIDTH).map(|index| key.normal(index)).collect()
}

fn learning_rate(step: u64) -> f64 {
    0.1 / (step + 1) as f64
}

/// How the parameter lies in memory; gradients come in plain order.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Plain,
    ChannelsLast,
}

/// Runs the kernel; the loss w·g has the gradient g.
fn run(rule: &Rule, kind: Kind, layout: Layout) -> Vec<Vec<f64>> {
    let start: Vec<f64> = (0..WIDTH).map(|index| index as f64 / 3.0 - 1.0).collect();
    let start = Tensor::from_slice(&start).to_kind(kind).reshape(KERNEL);
    let w = match layout {
        Layout::Plain => start,
        Layout::ChannelsLast => start
            .permute([0, 2, 3, 1])
            .contiguous()
            .permute([0, 3, 1, 2]),
    }
    .set_requires_grad(true);
    let mut optimizer = Optimizer::new(rule, vec![("w".into(), w.shallow_clone())]);
    (0..STEPS)
        .map(|step| {
            optimizer.forget_gradients().unwrap();
            let g = Tensor::from_slice(&gradient(step))
                .to_kind(kind)
                .reshape(KERNEL);
            (&w * g).sum(kind).backward();
            optimizer.step(learning_rate(step)).unwrap();
            Vec::<f64>::try_from(&w.detach().to_kind(Kind::Double).reshape([-1])).unwrap()
        })
        .collect()
}

fn check(rule: &Rule, expect: &[Vec<f64>]) {
    for (kind, layout, tolerance) in [
        (Kind::Double, Layout::Plain, 1e-13),
        (Kind::Double, Layout::ChannelsLast, 1e-13),
        (Kind::Float, Layout::ChannelsLast, 1e-5),
    ] {
        for (step, (ours, formula)) in run(rule, kind, layout).iter().zip(expect).enumerate() {
            for (a, b) in ours.iter().zip(formula) {
                assert!(
                    (a - b).abs() < tolerance,
                    "{kind:?} {layout:?} step {step}: {a} is not {b}"
                );
            }
        }
    }
}

#[test]
fn sgd_with_momentum_is_the_formula() {
    let (momentum, weight_decay) = (0.9, 0.05);
    let mut w: Vec<f64> = (0..WIDTH).map(|index| index as f64 / 3.0 - 1.0).collect();
    let mut m = vec![0.0; WIDTH as usize];
    let expect: Vec<Vec<f64>> = (0..STEPS)
        .map(|step| {
            for ((w, m), g) in w.iter_mut().zip(&mut m).zip(gradient(step)) {
                *m = momentum * *m + g + weight_decay * *w;
                *w -= learning_rate(step) * *m;
            }
            w.clone()
        })
        .collect();
    check(
        &Rule::Sgd {
            momentum,
            weight_decay,
        },
        &expect,
    );
}

#[test]
fn sgd_without_momentum_is_the_formula_and_keeps_nothing() {
    let weight_decay = 0.05;
    let rule = Rule::Sgd {
        momentum: 0.0,
        weight_decay,
    };
    let mut w: Vec<f64> = (0..WIDTH).map(|index| index as f64 / 3.0 - 1.0).collect();
    let expect: Vec<Vec<f64>> = (0..STEPS)
        .map(|step| {
            for (w, g) in w.iter_mut().zip(gradient(step)) {
                *w -= learning_rate(step) * (g + weight_decay * *w);
            }
            w.clone()
        })
        .collect();
    check(&rule, &expect);
    for (momentum, kept) in [(0.0, 0), (0.5, 1)] {
        let rule = Rule::Sgd {
            momentum,
            weight_decay,
        };
        let w = Tensor::ones([3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let mut optimizer = Optimizer::new(&rule, vec![("w".into(), w.shallow_clone())]);
        for _ in 0..2 {
            assert_eq!(optimizer.state().count(), kept, "momentum {momentum}");
            w.sum(Kind::Float).backward();
            optimizer.step(0.1).unwrap();
        }
        assert_eq!(optimizer.state().count(), kept, "momentum {momentum}");
    }
}

#[test]
fn adamw_is_the_formula() {
    let (beta1, beta2, eps, weight_decay) = (0.9, 0.99, 1e-8, 0.05);
    let mut w: Vec<f64> = (0..WIDTH).map(|index| index as f64 / 3.0 - 1.0).collect();
    let (mut m, mut v) = (vec![0.0; WIDTH as usize], vec![0.0; WIDTH as usize]);
    let expect: Vec<Vec<f64>> = (0..STEPS)
        .map(|step| {
            let lr = learning_rate(step);
            let t = step as i32 + 1;
            for (((w, m), v), g) in w.iter_mut().zip(&mut m).zip(&mut v).zip(gradient(step)) {
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let (first, second) = (*m / (1.0 - beta1.powi(t)), *v / (1.0 - beta2.powi(t)));
                *w -= lr * (first / (second.sqrt() + eps) + weight_decay * *w);
            }
            w.clone()
        })
        .collect();
    check(
        &Rule::Adamw {
            beta1,
            beta2,
            eps,
            weight_decay,
        },
        &expect,
    );
}
