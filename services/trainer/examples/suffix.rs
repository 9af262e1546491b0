//! Seconds of an optimiser step of what trains above a cut, and images a second of its evaluation, on
//! one thread: `suffix ARCH BLOCK SIDE BATCH SECONDS`, for `make bench-sharing`.
//!
//! Features lie in memory as a trial gathers them. Prints a line of JSON when it stands ready, waits
//! for a line, and prints another at the end, so that several processes can begin together.

use anyhow::Context;
use pomona_domain::spec::{
    Augment, ClassWeights, FrozenDepth, LrSchedule, Optimizer as Rule, Precision, Train,
};
use pomona_trainer::dist::Group;
use pomona_trainer::measure::until_told;
use pomona_trainer::network::{Arch, HeadPlan, Masks, Network, Pass};
use pomona_trainer::optim::Optimizer;
use pomona_trainer::random::Key;
use pomona_trainer::train::learner::{Learner, Loss};
use pomona_trainer::work;
use std::io::Write;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

const CLASSES: usize = 4;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [arch, block, side, batch, seconds] = words.as_slice() else {
        anyhow::bail!("usage: suffix ARCH BLOCK SIDE BATCH SECONDS");
    };
    let (side, batch, seconds): (u32, usize, f64) =
        (side.parse()?, batch.parse()?, seconds.parse()?);
    work::settle(1);
    let plan = HeadPlan::linear(CLASSES as u32);
    let mut network = Network::new(Arch::parse(arch)?, &plan, Kind::Float, Device::Cpu);
    network.draw(1, 0, |_| true);
    network.freeze(network.resolve(&FrozenDepth::Named(block.clone()))?);
    let x = features(&network, side, batch);
    let labels: Vec<u32> = (0..batch).map(|at| (at % CLASSES) as u32).collect();
    let train = train(batch);
    let optimizer = Optimizer::new(&train.optimizer, network.trainable());
    let loss = Loss::new(&network, &train, CLASSES, &labels);
    let mut learner = Learner::new(Group::alone(Device::Cpu), network, optimizer, loss)?;
    let samples: Vec<usize> = (0..batch).collect();
    let key = Key {
        seed: 0,
        replicate: 0,
        purpose: "dropout",
        epoch: 0,
    };
    let mut step = || -> anyhow::Result<()> {
        let masks = Masks {
            key,
            samples: &samples,
        };
        let weight = learner.weight_of(&labels);
        learner.gradients(&x, &labels, &masks, weight)?;
        Ok(learner.update(1e-5)?)
    };
    step()?;
    until_told()?;
    let (steps, took) = during(seconds, &mut step)?;
    let (passes, evaluated) = during(seconds / 2.0, &mut || {
        let _no_grad = tch::no_grad_guard();
        drop(learner.network.above_cut(&x, Pass::Eval));
        Ok(())
    })?;
    let line = serde_json::json!({
        "step_seconds": took / steps,
        "evaluated_per_second": passes * batch as f64 / evaluated,
    });
    writeln!(std::io::stdout(), "{line}").context("stdout is closed")
}

/// How often something was done, and the seconds that it took.
fn during(
    seconds: f64,
    what: &mut dyn FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let mut times = 0.0;
    while times == 0.0 || begun.elapsed().as_secs_f64() < seconds {
        what()?;
        times += 1.0;
    }
    Ok((times, begun.elapsed().as_secs_f64()))
}

/// [batch, …] as shards have it: channels last.
fn features(network: &Network, side: u32, batch: usize) -> Tensor {
    let mut shape = network.shape_at(network.depth(), side);
    shape.insert(0, batch as i64);
    let rows = Tensor::randn(&shape, (Kind::Float, Device::Cpu));
    match shape.len() {
        4 => rows.permute([0, 3, 1, 2]),
        _ => rows,
    }
}

fn train(batch: usize) -> Train {
    Train {
        epochs: 1,
        batch_size: batch as u32,
        optimizer: Rule::Adamw {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
        },
        learning_rate: 1e-5,
        lr_schedule: LrSchedule::Constant { warmup_epochs: 0.0 },
        augment: Augment {
            views: 1,
            ops: Vec::new(),
        },
        precision: Precision::Auto,
        class_weights: ClassWeights::None,
        label_smoothing: 0.0,
    }
}
